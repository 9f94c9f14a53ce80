"""Pages of studies are made of the raw rows beside them, and say what the rows say."""

from __future__ import annotations

import numpy as np

from cgpt.score import FileScore
from eval.studies import contenders, profile, table_scale, where
from ontology.io import read_json
from ontology.schema import Ontology
from tests.support import ROOT


def _row(model: str, bits: list[float]) -> dict:
    total, size = sum(bits), 100 * len(bits)
    return {
        "model": model, "minutes": 5.0, "seed": 0, "split": "test", "corpus": "211 MB", "setting": "static",
        "seconds": 300.0, "parameters": 1000, "bits_per_byte": total / size, "bits_per_byte_low": 0.0,
        "bits_per_byte_high": 9.0, "accuracy": 0.5, "whole_token_accuracy": 0.4, "score_seconds": 1.0, "bits": bits,
        "bytes": [100] * len(bits), "project": ["a", "a", "b", "b"][: len(bits)],
    }  # fmt: skip


def test_contenders_are_ordered_and_compared_by_file():
    rows = [_row("gpt", [200.0, 220.0, 180.0, 240.0]), _row("constructed", [100.0, 111.0, 90.0, 119.0])]
    page = contenders.page({"runs": {str(k): row for k, row in enumerate(rows)}, "environment": {}})
    lines = [line for line in page.splitlines() if line.startswith(("| gpt", "| constructed"))]
    assert lines[0].startswith("| constructed | 0 | 1.0500") and "| 0.500 [0.4" in lines[1]
    assert lines[2:] == ["| constructed | 1.055 | 1.045 |", "| gpt | 2.100 | 2.100 |"]


def test_several_seeds_are_taken_together():
    rows = []
    for seed in (0, 1, 2):
        ours, theirs = [100.0 + seed, 111.0, 90.0, 119.0], [200.0, 220.0 - seed, 180.0, 240.0]
        rows += [_row("gpt", theirs) | {"seed": seed}, _row("constructed", ours) | {"seed": seed}]
    page = contenders.page({"runs": {str(k): row for k, row in enumerate(rows)}, "environment": {}})
    ours, theirs = [line for line in page.splitlines() if line.startswith(("| gpt | 3", "| constructed | 3"))]
    assert ours.startswith("| constructed | 3 | 1.0525 [") and ours.endswith("| 50.0% |  |")
    assert theirs.startswith("| gpt | 3 | 2.0975 [") and "| 0.502 [" in theirs
    # Projects once for each model: of project b the seeds agree.
    assert "| constructed | 1.060 | 1.045 |" in page


def test_committed_pages_are_those_of_their_rows():
    for study in (contenders, profile, table_scale, where):
        raw = ROOT / study.RESULTS
        assert raw.with_suffix(".md").read_text(encoding="utf-8") == study.page(read_json(raw)), study.RESULTS


def test_growth_of_seconds_is_by_megabyte():
    jobs = {"corpus": 0.0, "index": 1.0}
    rows = [
        {"bytes": size, "files": 1, "seconds": seconds, "peak_mib": 10.0, "vocab_size": 8, "jobs": jobs}
        for size, seconds in ((10_000_000, 10.0), (50_000_000, 55.0))
    ]
    line = table_scale.page({"rows": rows, "environment": {}}).splitlines()[-1]
    assert np.isclose(float(line.split("|")[5]), 1.1)


def test_bits_by_situation_add_up_to_the_models():
    ontology = Ontology.parse(
        """name: n
version: 1
root: all
concepts:
  - {name: all, question: "Which?", children: [text, code]}
  - {name: text, question: "Which?", children: [comment, docstring]}
  - {name: code, question: "Which?"}
  - {name: comment, question: "Which?"}
  - {name: docstring, question: "Which?"}
"""
    )
    concepts = ("comment", "docstring", "code")
    random = np.random.default_rng(0)

    def files(times: np.ndarray) -> list[FileScore]:
        made = []
        for n in (20, 30, 25):
            concept = np.arange(n) % 3
            bits = times[concept] * random.uniform(0.9, 1.1, n)
            made.append(FileScore("f", "p", 4 * n, bits, np.ones(n, bool), concept, np.full(n, 4)))
        return made

    scores = {"constructed": files(np.array([1.0, 2.0, 1.0])), "gpt": files(np.array([2.0, 2.0, 4.0]))}
    rows = where.rows(scores, concepts, ontology)
    assert [row["situation"] for row in rows] == ["all", "text", "comment", "docstring", "code"]
    assert [row["group"] for row in rows] == [True, True, False, False, True]
    for model in scores:
        total, text, comment, docstring, code = (row["bits_per_byte"][model] for row in rows)
        assert np.isclose(total, text + code) and np.isclose(text, comment + docstring)
    ratios = [row["constructed / it"]["gpt"] for row in rows]
    assert 0.4 < ratios[2]["ratio"] < 0.6 < 0.9 < ratios[3]["ratio"] < 1.1
    result = {"rows": rows, "minutes": 5.0, "corpus": "211 MB", "seed": 0, "files": 3, "bytes": 300, "environment": {}}
    page = where.page(result).splitlines()
    assert page[2].startswith("`python -m eval.studies.where DATA --minutes 5 --seed 0`")
    assert page[-5].startswith("| **all** | 100.0% |") and page[-3].startswith("| comment | ")
