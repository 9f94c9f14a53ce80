"""The tuning study: never chooses on held-out packages, finds an optimum, continues where it stopped."""

from __future__ import annotations

import json
import math
from pathlib import Path

from click.testing import CliRunner

from cgpt.baseline import BaselineConfig
from cgpt.corpus import read_corpus
from cgpt.stdlib import HELD_OUT
from eval.studies.baseline_lr import Point, main, search, shapes, split_validation, without_bigrams


def test_validation_is_a_part_of_the_training_packages() -> None:
    train, validation = split_validation(read_corpus("stdlib:train"))
    assert not set(train.projects) & set(validation.projects)
    assert not HELD_OUT & set(train.projects + validation.projects)
    assert 0.03 < validation.total_bytes / (train.total_bytes + validation.total_bytes) < 0.25


def test_shapes_are_of_the_size_asked() -> None:
    found = shapes(3_000_000, 8192)
    assert len(found) >= 3 and len(set(found)) == len(found)


def test_search_finds_the_best_point_and_asks_for_each_once() -> None:
    asked: list[Point] = []
    known: dict[Point, float] = {}

    def cost(point: Point) -> float:
        if point not in known:
            asked.append(point)
            known[point] = (
                abs(math.log2(point.learning_rate / 6e-3))
                + abs(math.log2(point.matrix_rate / 8e-2))
                + abs(point.hidden_size - 192) / 100
                + abs(math.log2(point.batch_tokens / 2048))
                + (point.context != 256)
                + (point.bigram_rows == 0)
                + point.seed / 100
            )
        return known[point]

    start = Point(3e-3, 2e-2, 160, 5, 416, 4096, 512, 32, 1024)
    wide = BaselineConfig.of_shape(192, 3, 8192)
    best = search(start, cost, [wide, BaselineConfig.of_shape(256, 1, 8192)])
    assert best == Point(6e-3, 8e-2, 192, 3, wide.intermediate_size, 2048, 256, 64, 1024)
    assert len(asked) == len(set(asked)) < 24
    assert {point.seed for point in asked} == {0, 1, 2}
    assert search(start, cost, [wide], ["batch"]) == start.changed(batch_tokens=2048)


def test_point_without_bigrams_is_of_the_same_size() -> None:
    shape = BaselineConfig.of_size(3_100_000, 8192)
    point = Point(
        4e-3, 2e-2, shape.hidden_size, shape.layers, shape.intermediate_size, 4096, 256, shape.head_width,
        shape.bigram_rows,
    )  # fmt: skip
    assert point.config(8192).parameters == shape.parameters
    plain = without_bigrams(point).config(8192)
    assert plain.bigram_rows == 0 and abs(plain.parameters / shape.parameters - 1) < 0.03


def test_interrupted_study_continues(tmp_path: Path) -> None:
    for number in range(12):
        folder = tmp_path / "code" / f"project{number}"
        folder.mkdir(parents=True)
        (folder / "a.py").write_text(f"def f{number}(x):\n    return x + {number}\n" * 200)
    options = ["--corpus", str(tmp_path / "code"), "--out", str(tmp_path / "out"), "--seconds", "0.05"]
    options += ["--vocab-size", "400", "--parameters", "300000", "--batch-tokens", "1024", "--threads", "1"]
    runner = CliRunner()
    for runs in (1, 2):
        result = runner.invoke(main, [*options, "--max-runs", "1"], catch_exceptions=False)
        record = json.loads((tmp_path / "out" / "baseline_lr.json").read_text())
        assert result.exit_code == 0 and len(record["rows"]) == runs
    assert [row["bigram_rows"] > 0 for row in record["rows"]] == [True, False]
    assert all(row["steps"] >= 1 and row["step_seconds"] > 0 for row in record["rows"])
    assert (tmp_path / "out" / "baseline_lr.md").read_text().count("\n| ") == 3
