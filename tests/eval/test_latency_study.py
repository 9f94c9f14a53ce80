"""The study of latency: it measures what it says it does. How quick a test machine is, is not tested."""

from __future__ import annotations

import argparse
from pathlib import Path

from eval.studies.latency import ASKED, run
from tests.cgpt.small import build_small, small_corpus


def test_every_asked_figure_is_measured(tmp_path: Path):
    build_small(tmp_path / "model", steps=2, corpus=small_corpus(100_000))
    found = run(
        argparse.Namespace(model=tmp_path / "model", corpus="stdlib:held-out", core=-1, prompts=3, seed=0, processes=1)
    )
    assert set(found["asked"]) == set(ASKED)
    for name, row in found["asked"].items():
        assert row["reached"] == found[name][row["figure"]] > 0, name
    assert found["step_ms"]["median"] <= found["line_ms"]["max"]
    assert found["peak_mib"]["value"] > found["peak_mib"]["imports_alone"] > 50
