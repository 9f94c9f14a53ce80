"""Growth and few-shot: the study end to end, and its figures on nodes that are right or know nothing."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from tests.vision.small import CLASSES, SmallWorld
from vision.build import Plan, Recipe
from vision.cli import vision
from vision.comparisons import in_words
from vision.growth import GrowthPlan, collect
from vision.twins import Twins


@pytest.fixture(scope="module")
def growth_plan(world: SmallWorld) -> GrowthPlan:
    plan = Plan(world.train, world.library, Recipe(classes=CLASSES, hidden=(8, 12)))
    return GrowthPlan(plan, world.validation, shots=(5, 100))


def made_up(plan: GrowthPlan, knows: dict[str, float]) -> Twins:
    """Twins whose evidence is the table's truth times what their purpose `knows`, and noise."""
    rng = np.random.default_rng(0)
    names = [f"{name}@{purpose}" for purpose in ("all", "one", "none") for name in plan.names]
    place = [plan.plan.known.index(name) for name in plan.validation.classes]
    labels = {"held": plan.plan.labels[plan.plan.held], "shots": plan.plan.labels[plan.pool],
              "validation": np.array(place)[plan.validation.labels]}  # fmt: skip
    pooled = {}
    for part, classes in labels.items():
        truth = 2.0 * (plan.table[classes] == 1) - 1
        blocks = [truth * knows[purpose] + rng.normal(0, 0.3, truth.shape) for purpose in ("all", "one", "none")]
        pooled[part] = np.concatenate(blocks, axis=1)
    return Twins({name: i for i, name in enumerate(names)}, pooled, np.full(len(names), 4.0), np.zeros(len(names)))


def test_twins_never_learn_from_what_is_new_to_them(growth_plan: GrowthPlan):
    own = growth_plan.plan.own
    for purpose, group in growth_plan.groups().items():
        unseen = {"all": [], "one": own[-1:], "none": own}[purpose]
        rest = np.setdiff1d(np.arange(24), unseen)
        assert sorted(set(growth_plan.plan.labels[group.rows(growth_plan.plan)].tolist())) == rest.tolist()
        for twin in group.twins:
            name, _, said = twin.name.partition("@")
            assert (twin.truth[unseen] == -1).all() and twin.seed_name == name and said == purpose
            assert np.array_equal(twin.truth[rest], growth_plan.plan.truth[name][rest])
    # Shown photographs are of the own classes, equally many, and none of those that rules are fitted on otherwise.
    labels = growth_plan.plan.labels
    assert growth_plan.shots == [5, 13]
    for n, rows in growth_plan.first.items():
        assert np.bincount(labels[rows]).tolist().count(n) == len(own) and len(rows) == n * len(own)
        assert not set(rows.tolist()) & set(growth_plan.plan.held.tolist())


def test_where_there_are_no_other_classes_nothing_is_said_of_new_ones(world: SmallWorld):
    plan = GrowthPlan(Plan(world.train, world.library, Recipe(classes=world.train.classes)), world.validation)
    assert set(plan.groups()) == {"all", "one"}
    twins = made_up(plan, {"all": 1.0, "one": 1.0, "none": 1.0})
    seen = {name: i for name, i in twins.column.items() if not name.endswith("@none")}
    rows = plan.by_rule(replace(twins, column=seen))
    assert set(rows) == {"retrained", "one new class, its rule added", "one new class, all rules fitted again"}


def test_rules_alone_suffice_where_nodes_carry_over_and_fail_where_they_do_not(growth_plan: GrowthPlan):
    right = growth_plan.by_rule(made_up(growth_plan, {"all": 1.0, "one": 1.0, "none": 1.0}))
    assert right["retrained"]["accuracy"] == 1.0
    assert right["all classes new, rules alone"]["share_of_retrained"] > 0.95
    assert right["one new class, its rule added"]["new_class_recall"] > 0.75
    assert right["rules alone, 5 shown"]["accuracy"] > 0.9
    by_heart = growth_plan.by_rule(made_up(growth_plan, {"all": 1.0, "one": 0.0, "none": 0.0}))
    assert by_heart["retrained"]["accuracy"] == 1.0
    assert by_heart["all classes new, rules alone"]["share_of_retrained"] < 0.6
    assert by_heart["rules alone, 5 shown"]["accuracy"] < 0.6


def test_the_study_runs_and_resumes(world: SmallWorld, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("CONSTRUCTIBLE_STORE", str(tmp_path / "cache" / "store"))
    arguments = ["study", "growth", str(world.folder), "--classes", "bus,bee,daisy", "--draws", "0", "--steps", "2",
                 "--out", str(tmp_path / "g"), "--json"]  # fmt: skip
    done = CliRunner().invoke(vision, arguments)
    assert done.exit_code == 0, done.output
    rows = json.loads(done.stdout)["rows"]
    assert {"retrained", "all classes new, rules alone", "monolith, 5 shown", "monolith, all shown",
            "rules alone, 5 shown", "monolith, 5 shown and no other class"} <= set(rows)  # fmt: skip
    assert all(row["photographs"] == 15 and 0 <= row["accuracy"] <= 1 for found in rows.values() for row in found)
    again = CliRunner().invoke(vision, arguments)
    assert json.loads(again.stdout)["rows"] == rows and "in the store already" in again.stderr
    text = (tmp_path / "g" / "study.md").read_text()
    assert text.index("| retrained |") < text.index("| rules alone, 5 shown |") < text.index("| monolith, 5 shown |")
    assert "rules alone, 5 shown - monolith, 5 shown: " in text
    by_pair = {(d["a"], d["b"]): d for d in json.loads(done.stdout)["differences"]}
    pair = by_pair["all classes new, rules alone", "retrained"]
    accuracies = [rows[name][0]["accuracy"] for name in ("all classes new, rules alone", "retrained")]
    assert pair["difference"] == pytest.approx(accuracies[0] - accuracies[1])


def test_comparisons_are_made_photograph_by_photograph_over_all_draws():
    target = [0, 0, 1, 1, 2, 2, 3, 3]
    draws = [
        {"target": target, "rows": [{"label": "a", "right": [1] * 8}, {"label": "b", "right": [1, 0] * 4}]},
        {"target": target, "rows": [{"label": "a", "right": [1] * 8}, {"label": "b", "right": [0, 1] * 4}]},
    ]
    rows, difference = collect(draws)
    assert {label: len(found) for label, found in rows.items()} == {"a": 2, "b": 2}
    found = difference("a", "b")
    assert found["difference"] == 0.5 and found["ratio"] == 2.0
    nothing = difference("b", "b")
    assert nothing["difference"] == 0 and "0.0 points" in in_words(nothing)
