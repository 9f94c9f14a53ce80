"""Completion: ends of lines, healing, and how tokens are drawn."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from cgpt.cli import cgpt
from cgpt.complete import Sampling, _end_of_line, _in_turn, complete, heal_point
from cgpt.model import ConstructedLM
from cgpt.valid import python_error

PROMPT = b"import os\n\n\ndef read(path):\n    with open(pa"


def test_a_line_ends_at_its_line_break(model: ConstructedLM):
    whole = complete(model, PROMPT, 60).text
    line = complete(model, PROMPT, 60, line=True).text
    assert b"\n" not in line and whole.startswith(line)
    if b"\n" in whole:
        assert line == whole.split(b"\n")[0]
    made = complete(model, b"import os\n", 60, line=True).text  # the line is empty so far: what ends is the next one
    assert made.strip() and b"\n" not in made.lstrip()


@pytest.mark.parametrize(
    ("text", "visible", "end"),
    [(b"\n", True, 0), (b"\n", False, -1), (b"\n\nx\n", False, 3), (b"abc", True, -1), (b"a\r\n", False, 1)],
)
def test_end_of_line(text: bytes, visible: bool, end: int):
    assert _end_of_line(text, visible) == end


def test_white_space_is_healed(model: ConstructedLM):
    """What comes after a typed space or line break is one token with it, so that is what is predicted."""
    for prompt, typed in ((b"x = ", b" "), (b"x = 1\n", b"\n"), (b"x = (", b"")):
        assert heal_point(model, prompt)[1] == typed
        made = complete(model, prompt, 4)
        first = model.tokenizer.token_bytes[made.steps[0].token]
        assert first.startswith(typed) and made.steps[0].text == first[len(typed) :]


def test_draws_follow_the_distribution():
    p = np.array([0.5, 0.3, 0.15, 0.05])
    random = np.random.default_rng(0)

    def first(sampling: Sampling, allowed: tuple[int, ...] = (0, 1, 2, 3)) -> np.ndarray:
        taken = [next(t for t in _in_turn(p, sampling, random) if t in allowed) for _ in range(4000)]
        return np.bincount(taken, minlength=4) / 4000

    np.testing.assert_allclose(first(Sampling(1.0)), p, atol=0.03)
    np.testing.assert_allclose(first(Sampling(0.5)), p**2 / (p**2).sum(), atol=0.03)
    np.testing.assert_allclose(first(Sampling(1.0, top_k=2)), [0.625, 0.375, 0, 0], atol=0.03)
    np.testing.assert_allclose(first(Sampling(1.0, top_p=0.8)), [0.625, 0.375, 0, 0], atol=0.03)
    # Refusals: the distribution restricted to what is let pass; and past what top_k leaves, the most probable.
    np.testing.assert_allclose(first(Sampling(1.0), (1, 2)), [0, 2 / 3, 1 / 3, 0], atol=0.03)
    assert first(Sampling(1.0, top_k=2), (2, 3))[2] == 1.0
    for sampling in (Sampling(), Sampling(1.0), Sampling(0.7, top_k=2), Sampling(1e-3)):
        assert sorted(_in_turn(p, sampling, random)) == [0, 1, 2, 3]
    assert next(_in_turn(p, Sampling(1e-3), random)) == 0


def test_command(model_folder: Path, tmp_path: Path):
    prompt = tmp_path / "prompt.py"
    prompt.write_bytes(b"def add(a, b):\n")
    run = CliRunner().invoke(
        cgpt, ["complete", str(model_folder), str(prompt), "--valid", "--json", "--max-tokens", "9"]
    )
    assert run.exit_code == 0, run.output
    result = json.loads(run.stdout)
    assert python_error(prompt.read_bytes() + result["completion"].encode()) is None
    arguments = ["--line", "--temperature", "0.8", "--top-k", "20", "--top-p", "0.9", "--seed", "4"]
    once, again = (
        CliRunner().invoke(cgpt, ["complete", str(model_folder), "-", *arguments], input="import o").stdout
        for _ in range(2)
    )
    assert once == again and once.count("\n") == 1
