"""The Python ontology: its router says what its tests say, and real code is shared well among the situations."""

from __future__ import annotations

import re

import numpy as np
import pytest

from cgpt.check_situations import CATCH_ALL, FOLDER, main, measure
from cgpt.lexer import FIELDS, state_at_end
from cgpt.tokenizer import Tokenizer
from ontology.graph import depths, is_tree, leaves
from ontology.routers import Router, uncovered_branches
from ontology.schema import Ontology
from tests.support import ROOT, data_path

ONTOLOGY = Ontology.load(FOLDER / "ontology.yaml")
ROUTER = Router.load(FOLDER / "router.py", FIELDS)
CASES = [(concept.name, text) for concept in ONTOLOGY.concepts for text in map(str, concept.tests)]


def test_shape() -> None:
    bottom = leaves(ONTOLOGY)
    assert is_tree(ONTOLOGY)
    assert 25 <= len(bottom) <= 45
    assert set(bottom) == set(ROUTER.concepts)
    assert max(depths(ONTOLOGY).values()) == 2
    assert 5 <= len(ONTOLOGY["python"].children) <= 7
    assert len((FOLDER / "router.py").read_text(encoding="utf-8").splitlines()) < 200
    questions = [concept.question for concept in ONTOLOGY.concepts]
    assert len(set(questions)) == len(questions)
    assert all(question.endswith("?") for question in questions)


def test_reads_are_declared_and_known() -> None:
    from cgpt.reads import READS

    for name in leaves(ONTOLOGY):
        reads = ONTOLOGY[name].reads
        # A person is to take a concept's reads in; how far back it looks is one thing to know, places are another.
        tokens = [read for read in reads if read.removeprefix("previous_").isdigit()]
        assert tokens == [f"previous_{k + 1}" for k in range(len(tokens))], name
        places = [read for read in reads if read.startswith("place_")]
        assert 8 <= len(reads) - len(places) - max(len(tokens) - 8, 0) <= 22, name
        assert len(set(reads)) == len(reads), name
        assert set(reads) <= set(READS), (name, set(reads) - set(READS))
        assert ONTOLOGY[name].max_params == 200_000


@pytest.mark.parametrize(("concept", "text"), CASES)
def test_text_leads_to_its_concept(concept: str, text: str) -> None:
    trace = ROUTER.trace(state_at_end(text.encode()))
    assert trace.concept == concept, f"router lines {trace.lines}"


def test_every_leaf_and_every_branch_is_tested() -> None:
    assert {concept for concept, _ in CASES} == set(leaves(ONTOLOGY))
    rows = np.stack([state_at_end(text.encode()) for _, text in CASES])
    assert uncovered_branches(ROUTER, rows) == []


@pytest.mark.parametrize(("concept", "text"), [case for case in CASES if "\n" in case[1]])
def test_line_endings_make_no_difference(concept: str, text: str) -> None:
    windows = text.replace("\n", "\r\n").encode()
    assert ROUTER.trace(state_at_end(windows)).concept == concept


def test_shares_of_real_code() -> None:
    from cgpt.corpus import read_corpus

    files = [source.data for source in read_corpus(str(data_path("code", "validation.parquet"))).files]
    tokenizer = Tokenizer.train(files, 8192)
    found = measure(files[::3], tokenizer, ROUTER)
    assert sum(found.shares.values()) == pytest.approx(1)
    assert max(found.shares.values()) <= 0.25
    assert found.shares[CATCH_ALL] < 0.02
    assert min(found.shares.values()) > 0, "a situation that real code never meets"
    assert found.states < 4000


def test_recorded_table_names_the_situations_of_today() -> None:
    text = (ROOT / "docs" / "experiments" / "situations.md").read_text(encoding="utf-8")
    recorded = re.findall(r"^\| (\w+) \| (.+?) \|", text, re.M)
    expected = [(name, ONTOLOGY[name].question) for name in leaves(ONTOLOGY)]
    assert [row for row in recorded if row[0] != "situation"] == expected


def test_command(capsys: pytest.CaptureFixture[str]) -> None:
    code = main([str(ROOT / "ontology")])
    out = capsys.readouterr().out
    assert code in (0, 3)  # so little code may be lopsided
    assert "| module_statement |" in out and "distinct router states" in out
