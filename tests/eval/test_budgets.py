"""What a model cost, read from the files that its build left."""

from __future__ import annotations

import json
from pathlib import Path

from eval.budgets import trained_rows
from ontology.io import write_json


def logged(folder: Path, *rows: dict) -> float | None:
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return trained_rows(folder)


def test_rows_are_those_that_training_saw_however_often_it_was_stopped(tmp_path: Path) -> None:
    write_json(tmp_path / "fit.json", {"jobs": {"nets": {"kind": "net"}, "mixer": {"kind": "table"}}})
    first = {"job": "nets", "seconds": 100.0, "rows_per_second": 50, "rows": 5_000}
    # The second attempt ran at another speed: its rate times all seconds would be 44,000.
    second = {"job": "nets", "seconds": 110.0, "rows_per_second": 400, "rows": 9_000}
    assert logged(tmp_path, first, second, {"job": "mixer", "loss": 1.0}) == 9_000
    before = {"job": "nets", "seconds": 100.0, "rows_per_second": 50}
    assert logged(tmp_path, before) == 5_000, "a log of before rows were written"


def test_an_earlier_plan_in_the_same_folder_does_not_count(tmp_path: Path) -> None:
    old = {"job": "monolith", "seconds": 60.0, "rows_per_second": 100, "rows": 6_000}
    nodes = {"job": "nodes (37 jobs)", "seconds": 60.0, "rows_per_second": 20, "rows": 1_200}
    jobs = {"node-red": {"kind": "net", "group": "nodes"}, "rules": {"kind": "table"}}
    write_json(tmp_path / "fit.json", {"jobs": jobs})
    assert logged(tmp_path, old, nodes) == 1_200
    write_json(tmp_path / "fit.json", {"jobs": {"monolith": {"kind": "net"}}})
    assert logged(tmp_path, old, nodes) == 6_000
