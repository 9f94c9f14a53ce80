"""`eval bench` with a budget of a few steps: everything that is published comes out of one command."""

from __future__ import annotations

from pathlib import Path

import pytest

from eval.board import entries, write_board
from eval.cli import eval_
from eval.curves import decomposition
from eval.research import make_post
from ontology.main import run as run_command
from tests.eval.conftest import Models

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def test_one_command_builds_measures_and_resumes(models: Models, tmp_path: Path, capfd) -> None:
    results = tmp_path / "docs" / "results"
    arguments = ["bench", "--train", str(models.train), "--test", str(models.unseen), "--steps", "2", "--limit", "2",
                 "--models", str(tmp_path / "models"), "--results", str(results / "bench")]  # fmt: skip
    assert run_command(eval_, arguments) == 0
    first = capfd.readouterr().out.splitlines()
    tasks = {Path(line).stem for line in first}
    assert tasks == {"bits", "pairs", "deletion", "intervention", "replay", "memory"}
    before = {path: path.stat().st_mtime_ns for path in results.rglob("*.parquet")}
    assert run_command(eval_, arguments) == 0
    again = capfd.readouterr()
    assert again.out.splitlines() == first and "done already" in again.err
    assert {path: path.stat().st_mtime_ns for path in results.rglob("*.parquet")} == before

    rows = {row.figures.name: row for row in entries(results)}
    assert rows["monolith, 2 steps (seed 0)"].kind == "monolith"
    assert rows["constructed, 2 steps (seed 0)"].faithful == 1.0
    assert rows["constructed, no nets, 2 steps (seed 0)"].opaque == 0
    write_board(results, results.parent)
    whole, nets = decomposition(results / "bench")
    assert [point.cut for point in whole.points] == ["root", "leaves", "plain"]
    assert [point.cut for point in nets.points] == ["root", "leaves"]
    assert make_post(results).blocks
