"""The study of copied parts: its page is that of its results, and its measurements find what is put there."""

from __future__ import annotations

from cgpt.corpus import SourceFile
from eval.copies import Known
from eval.studies.copies import RESULTS, called, page, planted, strangers
from ontology.io import read_json
from tests.eval.test_copies import code
from tests.support import ROOT


def test_the_committed_page_is_that_of_its_results() -> None:
    made = read_json(ROOT / RESULTS)
    assert (ROOT / RESULTS).with_suffix(".md").read_text(encoding="utf-8") == page(made)
    for row in made["planted"]:
        if row["share"] >= 0.5 and not row["edited"]:
            assert row["found"] >= 0.99 * row["files"]
    assert len(made["validation"]["named"]) <= 0.01 * made["validation"]["files"]


def test_what_is_planted_is_found_and_strangers_are_not() -> None:
    files = [SourceFile(f"{name}.py", code(name, 450).encode(), name, "MIT") for name in ("first", "second", "third")]
    hosts = [SourceFile("host.py", code("host", 100).encode(), "host", "MIT")]
    known = Known(files)
    rows = {(row["share"], row["edited"]): row["found"] for row in planted(hosts, files, known)}
    assert rows[0.5, 0] == 1 and rows[0.1, 0] == 0 and rows[0.5, 5] == 0
    assert called(hosts, known)["named"] == []
    assert strangers(files)["share"] == 0.0
    borrowed = SourceFile("b.py", (code("first", 450) + code("mine", 20)).encode(), "borrower", "MIT")
    made = strangers([*files, borrowed])
    assert {row["project"] for row in made["projects"] if row["called"]} == {"first", "borrower"}
