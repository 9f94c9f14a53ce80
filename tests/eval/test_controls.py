"""Controls: the wrong situation answers, and routers of random questions that a build accepts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cgpt import lexer
from cgpt.corpus import SourceFile
from cgpt.model import HERE
from eval.cli import eval_
from eval.controls import open_shuffled_router, random_router
from eval.models import RANDOM_MARK
from ontology.errors import UsageError
from ontology.main import run as run_command
from ontology.routers import Router
from tests.eval.conftest import Models

FILE = SourceFile("a.py", b"import os\n\n\ndef f(a, b):\n    return os.path.join(a, b)  # a note\n", "p", "MIT")


def test_no_situation_answers_for_itself(models: Models) -> None:
    right, wrong = models.open("constructed"), open_shuffled_router("wrong", models.constructed)
    a, b = right.score_file(FILE), wrong.score_file(FILE)
    assert (a.concept != b.concept).all() and a.bits.sum() != b.bits.sum()
    assert len(set(b.concept)) == len(set(a.concept)), "the same partition under other names"
    with pytest.raises(UsageError, match="monolith"):
        open_shuffled_router("wrong", models.monolith)


@pytest.fixture(scope="module")
def states(models: Models) -> np.ndarray:
    data = np.frombuffer(b"".join(path.read_bytes() for path in sorted(models.unseen.rglob("*.py"))), dtype=np.uint8)
    return lexer.run(data, np.arange(0, len(data), 3))[0]


@pytest.mark.parametrize("seed", range(4))
def test_random_routers_divide_as_finely_as_the_real_one_and_mean_nothing(states: np.ndarray, seed: int) -> None:
    real = Router.load(HERE / "router.py", lexer.FIELDS)
    source = random_router(real.concepts, lexer.FIELDS, states, seed)
    made = Router.parse(source, lexer.FIELDS)
    assert sorted(made.concepts) == sorted(real.concepts)
    assert source == random_router(real.concepts, lexer.FIELDS, states, seed)
    assert source != random_router(real.concepts, lexer.FIELDS, states, seed + 1)
    random, true = (np.array(router.concepts)[router.route(states)] for router in (made, real))
    assert np.mean(random == true) < 0.2
    assert len(set(random)) >= 10
    assert np.unique(random, return_counts=True)[1].max() < 0.6 * len(states)


def test_the_command_writes_a_router_that_says_what_it_is(models: Models, tmp_path: Path, capsys) -> None:
    assert (
        run_command(eval_, ["random-router", str(tmp_path / "r.py"), "--data", str(models.unseen), "--seed", "3"]) == 0
    )
    made = Router.load(tmp_path / "r.py", lexer.FIELDS)
    assert RANDOM_MARK in made.source and capsys.readouterr().out.strip().endswith("r.py")
    assert models.open("constructed").control == ""
    assert models.open("shuffled-router:constructed").control == "shuffled router"
