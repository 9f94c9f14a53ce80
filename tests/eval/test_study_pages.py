"""Pages of studies are made of the raw rows beside them, and say what the rows say."""

from __future__ import annotations

import numpy as np

from eval.studies import contenders, profile, table_scale
from ontology.io import read_json
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
    for study in (contenders, profile, table_scale):
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
