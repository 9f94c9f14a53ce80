"""Comparisons: what is refused and with which reason, and what is said of a fair pair."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eval.cli import eval_
from eval.compare import compare, figure_of, read_side
from eval.compare_page import as_text, render
from eval.records import read_results
from eval.tasks.base import Metric
from eval.tasks.language import BITS
from ontology.errors import CheckFailed, UsageError
from ontology.main import run as run_command
from ontology.stats import paired_difference
from tests.browser import DESKTOP, PHONE, Browser, browser  # noqa: F401
from tests.eval.results import bits_rows, make_results

BETTER = bits_rows(1.0, noise_seed=3)


def changed(rows: list[dict], **columns) -> list[dict[str, Any]]:
    return [{**row, **{name: make(row) for name, make in columns.items()}} for row in rows]


UNFAIR: dict[str, tuple[dict[str, Any], str, str]] = {
    # Each: what is wrong with B, the kind it is refused with, and a part of the reason that says by how much.
    "more data": ({"budget": {"data_hash": "x", "data_bytes": 16_000_000}}, "training data", "100 % more"),
    "other data of the same size": ({"budget": {"data_hash": "x"}}, "training data", "other files"),
    "data unknown": ({"budget": {"data_hash": None}}, "training data unknown", "B"),
    "more seconds": ({"budget": {"seconds": 240.0}}, "seconds", "B has 240 s, A 180 (33 % more)"),
    "fewer seconds": ({"budget": {"seconds": 90.0}}, "seconds", "A has 180 s, B 90 (100 % more)"),
    "seconds unknown": ({"budget": {"seconds": None}}, "seconds not measured", "B"),
    "more parameters": ({"budget": {"parameters": 3_000_000}}, "parameters", "100 % more"),
    "no parameters": ({"budget": {"parameters": 0}}, "parameters", "all against none"),
    "another machine": ({"budget": {"cpu": "a fast CPU"}}, "machine", "a fast CPU"),
    "more threads": ({"budget": {"threads": 64}}, "threads", "on 64"),
    "training files not listed": ({"leaked": None}, "training files not listed", "B may know"),
    "leaked test file": ({"leaked": ["p1/f1.py"]}, "leaked test file", "1 of the files"),
    "other version of the task": ({"task_version": 99}, "task version", "version 99"),
    "other test bytes": (
        {"rows": changed(BETTER, sha256=lambda r: "f" * 64 if r["example"] == "p2/f2.py" else r["sha256"])},
        "different test bytes", "1 of 40 examples, such as p2/f2.py",
    ),
    "missing examples": (
        {"rows": [r for r in BETTER if r["example"] != "p3/f3.py"]}, "missing examples", "1 of 40",
    ),
    "more examples": (
        {"rows": bits_rows(1.0, n=45, noise_seed=3)}, "missing examples", "5 of 45",
    ),
    "an example counted twice": (
        {"rows": changed(BETTER, sha256=lambda r: f"{2:064d}" if r["example"] == "p2/f7.py" else r["sha256"])},
        "examples counted twice", "1 of B's 40",
    ),
    "other projects": (
        {"rows": changed(BETTER, cluster=lambda r: "p9" if r["example"] == "p2/f2.py" else r["cluster"])},
        "clusters", "1 examples belong to other projects",
    ),
    "figures missing where it is hard": (
        {"rows": changed(BETTER, bits=lambda r: None if r["example"] == "p2/f2.py" else r["bits"])},
        "figures missing", "bits per byte of 1 of 40",
    ),
    "copied parts of a test file": ({"copied": {"p1/f1.py": 0.6}}, "copied parts of test files", "60% of p1/f1.py"),
    "copied parts not looked for": ({"copied": None}, "copied parts not looked for", "for B"),
    "other classes": (
        {"model": {"name": "B", "kind": "", "seed": None, "fingerprint": "B", "classes": ["bee", "bus"]}}, "classes",
        "of which 1 are the same",
    ),
    "the same model twice": (
        {"model": {"name": "B", "kind": "", "seed": None, "fingerprint": "A None"}}, "the same model", "one model",
    ),
    "other code": ({"code": "another"}, "measured by different code", "was changed in between"),
    "a tokenizer that drops bytes": (
        {"rows": changed(BETTER, bytes_said=lambda r: 0.9 * r["bytes_said"])}, "bytes of the tokenizer", "less text",
    ),
}  # fmt: skip
INVALID = {
    "leaked test file", "task version", "different test bytes", "missing examples", "bytes of the tokenizer",
    "examples counted twice", "clusters", "figures missing", "copied parts of test files", "classes",
}  # fmt: skip
CLASSES = {"model": {"name": "A", "kind": "", "seed": None, "fingerprint": "A None", "classes": ["bee", "cat"]}}


@pytest.mark.parametrize("case", UNFAIR)
def test_an_unfair_pair_is_refused_with_its_reason(case: str, tmp_path: Path, capsys) -> None:
    options, kind, words = UNFAIR[case]
    mine: dict[str, Any] = CLASSES if kind == "classes" else {}
    a, b = make_results(tmp_path, "A", **mine), make_results(tmp_path, "B", **{"rows": BETTER, **options})
    for pair in ((a, b), (b, a)):
        with pytest.raises(CheckFailed) as refused:
            compare(*pair)
        assert f"{kind}: " in str(refused.value) and words in str(refused.value)
        assert refused.value.exit_code == 3
    if kind in INVALID:
        with pytest.raises(CheckFailed, match=kind):
            compare(a, b, unequal=True)
    else:
        shown = compare(a, b, unequal=True)
        assert not shown.equal and [one.kind for one in shown.objections] == [kind]
        assert "NOT an equal-budget pair" in as_text(shown) and kind in render(shown)
    assert run_command(eval_, ["compare", str(a), str(b)]) == 3
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and kind in error and "Fix:" in error


def test_twenty_five_kinds_of_unfair_pairs_are_tried() -> None:
    assert len(UNFAIR) >= 25 and len({kind for _, kind, _ in UNFAIR.values()}) >= 18


def test_seeds_must_be_trainings_of_one_recipe(tmp_path: Path) -> None:
    for seed in range(2):
        make_results(tmp_path, "A", bits_rows(1.2, noise_seed=seed), seed=seed)
    second: dict[str, Any]
    for name, kind, second in (
        ("one-model-twice", "training seeds repeated", {"model": {"name": "B", "kind": "", "seed": 1,
                                                                  "fingerprint": "one-model-twice 0"}}),
        ("one-seed-twice", "training seeds repeated", {"budget": {"seed": 0}}),
        ("other-data", "unlike seeds", {"budget": {"seed": 1, "data_hash": "x"}}),
        ("other-cut", "unlike seeds", {"budget": {"seed": 1, "cut": "root"}}),
        # Their mean is that of A: only seed by seed is it seen.
        ("longer-and-shorter", "unlike seeds", {"budget": {"seed": 1, "seconds": 270.0}}),
    ):  # fmt: skip
        first: dict[str, Any] = {"budget": {"seconds": 90.0}} if name == "longer-and-shorter" else {}
        make_results(tmp_path, name, BETTER, seed=0, **first)
        make_results(tmp_path, name, bits_rows(1.0, noise_seed=4), seed=1, **second)
        with pytest.raises(CheckFailed, match=kind):
            compare(tmp_path / "A", tmp_path / name)


def test_accuracy_over_unlike_tokens_is_left_out_and_said(tmp_path: Path) -> None:
    a = make_results(tmp_path, "A")
    coarser = changed(BETTER, tokens=lambda r: r["tokens"] // 2, correct=lambda r: r["correct"] // 2)
    compared = compare(a, make_results(tmp_path, "B", coarser))
    names = [one.metric.name for one in compared.differences]
    assert "next-token accuracy" not in names and {"bits per byte", "whole-token accuracy"} <= set(names)
    assert compared.left_out == ["bits, next-token accuracy"]
    assert "tokens of its own: bits, next-token accuracy" in as_text(compared)
    assert "tokens of its own" in render(compared)


def test_an_old_run_beside_seeds_is_not_taken_for_them(tmp_path: Path) -> None:
    for seed in range(2):
        make_results(tmp_path, "A", bits_rows(1.2, noise_seed=seed), seed=seed)
        make_results(tmp_path, "B", bits_rows(1.0, noise_seed=3 + seed), seed=seed)
    assert len(read_side(tmp_path / "A")["bits"].results) == 2
    make_results(tmp_path, "A", bits_rows(0.5))
    with pytest.raises(UsageError, match="one run and of several seeds"):
        compare(tmp_path / "A", tmp_path / "B")


def test_few_projects_are_said_to_be_few(tmp_path: Path) -> None:
    a, b = make_results(tmp_path, "A"), make_results(tmp_path, "B", BETTER)
    assert "of 5 projects: nothing about other projects" in as_text(compare(a, b))


def test_every_reason_is_named_at_once(tmp_path: Path) -> None:
    a = make_results(tmp_path, "A")
    b = make_results(tmp_path, "B", budget={"seconds": 400.0, "parameters": 9e6, "threads": 8}, leaked=["p0/f0.py"])
    with pytest.raises(CheckFailed) as refused:
        compare(a, b)
    for kind in ("seconds", "parameters", "threads", "leaked test file"):
        assert f"{kind}: " in str(refused.value)


def test_a_fair_pair(tmp_path: Path) -> None:
    a = make_results(tmp_path, "A", bits_rows(1.2))
    b = make_results(tmp_path, "B", BETTER, budget={"seconds": 190.0, "parameters": 1_600_000})
    result = compare(a.parent, b.parent)
    assert result.equal and "an equal-budget pair" in as_text(result)
    one = figure_of(result, "bits", "bits per byte")
    x, y = read_results(a).values, read_results(b).values
    expected = paired_difference(x["bits"], y["bits"], x["bytes"])
    assert one.comparison.estimate == pytest.approx(expected.estimate) and one.comparison.low == expected.low
    assert one.verdict == "B better" and one.a > one.b
    accuracy = figure_of(result, "bits", "next-token accuracy")
    assert "no difference found (one of ±" in accuracy.verdict and "4 times in 5" in accuracy.verdict
    assert {row.part for row in result.parts} == {"argument", "comment"}
    # Parts add up to the whole: their denominators are the whole files' bytes.
    parts = [row for row in result.parts if row.metric.name == "bits per byte"]
    assert sum(row.a for row in parts) == pytest.approx(one.a)
    assert json.loads(json.dumps(result.as_json()))["equal_budget"] is True


def test_flops_may_be_the_clock(tmp_path: Path) -> None:
    a = make_results(tmp_path, "A")
    b = make_results(tmp_path, "B", BETTER, budget={"seconds": 900.0, "cpu": "slow", "threads": 1})
    assert compare(a, b, clock="flops").equal
    c = make_results(tmp_path, "C", BETTER, budget={"train_flops": 3e12})
    assert compare(a, c).equal
    with pytest.raises(CheckFailed, match="FLOPs: C has"):
        compare(a, c, clock="flops")
    d = make_results(tmp_path, "D", BETTER, budget={"train_flops": None})
    with pytest.raises(CheckFailed, match="FLOPs not measured"):
        compare(a, d, clock="flops")


def test_latencies_of_two_machines_are_not_compared(tmp_path: Path) -> None:
    task = replace(BITS, metrics=(Metric("ms", "bits", "bytes", "lower", measured_on_machine=True),))
    a = make_results(tmp_path, "A", task=task)
    b = make_results(tmp_path, "B", task=task, environment={"cpu": "another", "threads": 2})
    with pytest.raises(CheckFailed, match="measured on different machines"):
        compare(a, b, unequal=True)


def test_training_seeds_are_a_random_effect(tmp_path: Path) -> None:
    for seed in range(3):
        make_results(tmp_path, "A", bits_rows(1.2 + 0.08 * seed, noise_seed=seed), seed=seed)
        make_results(tmp_path, "B", bits_rows(1.22 + 0.08 * ((seed * 2) % 3), noise_seed=9 + seed), seed=seed)
    one = figure_of(compare(tmp_path / "A", tmp_path / "B"), "bits", "bits per byte")
    single = compare(tmp_path / "A" / "seed-0" / "bits.parquet", tmp_path / "B" / "seed-0" / "bits.parquet")
    alone = figure_of(single, "bits", "bits per byte").comparison
    assert one.comparison.high - one.comparison.low > 3 * (alone.high - alone.low)
    make_results(tmp_path, "C", bits_rows(1.3), seed=0)
    with pytest.raises(CheckFailed, match="training seeds: A has 3, C has 1"):
        compare(tmp_path / "A", tmp_path / "C")


def test_the_order_of_rows_does_not_matter(tmp_path: Path) -> None:
    a = make_results(tmp_path, "A")
    b = make_results(tmp_path, "B", BETTER)
    shuffled = [BETTER[i] for i in np.random.default_rng(0).permutation(len(BETTER))]
    c = make_results(tmp_path, "C", shuffled)
    first, second = (figure_of(compare(a, x), "bits", "bits per byte").comparison for x in (b, c))
    assert first.estimate == pytest.approx(second.estimate) and first.low == pytest.approx(second.low)


def test_the_same_model_twice_is_called_different_in_about_one_case_of_twenty(tmp_path: Path) -> None:
    """A/A: the same law, other noise. Looking at several figures does not raise the rate, because q is looked at."""
    flagged = 0
    for repeat in range(60):
        a = make_results(tmp_path, f"A{repeat}", bits_rows(noise_seed=2 * repeat))
        b = make_results(tmp_path, f"B{repeat}", bits_rows(noise_seed=2 * repeat + 1))
        verdict = figure_of(compare(a, b), "bits", "bits per byte").verdict
        flagged += not verdict.startswith("no difference")
    assert flagged <= 8  # 60 draws at 5 %: more than 8 in one case of 300


def test_nothing_in_common(tmp_path: Path) -> None:
    a = make_results(tmp_path, "A")
    b = make_results(tmp_path, "B", task=replace(BITS, name="other"))
    with pytest.raises(UsageError, match="no task in common"):
        compare(a, b)
    with pytest.raises(UsageError, match="no results here"):
        compare(a, tmp_path / "nothing")


@pytest.mark.parametrize(("size", "dark"), [(DESKTOP, False), (PHONE, True)])
def test_the_page(browser: Browser, tmp_path: Path, size, dark) -> None:  # noqa: F811
    a, b = make_results(tmp_path, "A"), make_results(tmp_path, "B", BETTER)
    path = tmp_path / "page.html"
    assert run_command(eval_, ["compare", str(a), str(b), "--html", str(path)]) == 0
    page = browser.open(path, size, dark=dark)
    assert page.overflow() == 0 and page.problems() == []
    text = page.run("document.body.innerText")
    assert "B better" in text and "no difference found" in text and "comment" in text
    page.close()
