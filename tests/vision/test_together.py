"""Together or apart: the composition, the joint training, and a swap test that tells meaning from mutual fit."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from ontology.errors import ConstructibleError
from tests.vision.small import CLASSES, SmallWorld
from vision import together
from vision.bank import primitives
from vision.build import Plan, Recipe
from vision.cli import vision
from vision.together import JointTrainer, TogetherPlan, composition
from vision.train_nodes import NodePlan, NodeTrainer
from vision.twins import Twins


@pytest.fixture(scope="module")
def plan(world: SmallWorld) -> TogetherPlan:
    return TogetherPlan(Plan(world.train, world.library, Recipe(classes=CLASSES, hidden=(4, 4))), world.validation)


@pytest.fixture(scope="module")
def maps(world: SmallWorld):
    return primitives(np.array(world.train.pixels))


def test_the_composition_names_the_class_from_right_answers_and_not_from_inverted_ones(plan: TogetherPlan):
    truth = (plan.table == 1).astype(float)
    matrix = composition(plan.table)
    own = np.arange(len(truth))
    # Of the classes of this draw every one is named; two others look alike in its concepts.
    values, inverted = truth @ matrix, (1 - truth) @ matrix
    assert np.allclose(values[own, own], values.max(1)) and (values.argmax(1) == own)[plan.plan.own].all()
    assert (inverted[own, own] < inverted.max(1) - 1).all()


def nodes(plan: TogetherPlan) -> tuple[NodePlan, ...]:
    return plan.group("a").twins


def test_joint_training_learns_classes_through_the_composition_alone(plan: TogetherPlan, world: SmallWorld, maps):
    twins = nodes(plan)
    trainer = JointTrainer(twins, maps, plan.plan.labels, plan.plan.learn, seed=0)
    losses = []
    for index in range(30):
        trainer.set_progress(index / 30)
        losses.append(trainer.step(index))
    assert losses[0] == pytest.approx(np.log(24), abs=0.4) and np.mean(losses[-5:]) < losses[0] - 0.1
    assert [node.name for node in trainer.finish()] == [twin.name for twin in twins]


def test_joint_training_sees_the_same_pictures_and_repeats(plan: TogetherPlan, maps):
    def trained(trainer: NodeTrainer) -> dict[str, Any]:
        for index in range(2):
            trainer.set_progress(index / 2)
            trainer.step(index)
        return trainer.state()

    arguments = (nodes(plan)[:3], maps, plan.plan.labels, plan.plan.learn)
    first, again = (trained(JointTrainer(*arguments, seed=1)) for _ in range(2))
    assert all(np.array_equal(first[key], again[key]) for key in first)
    both = trained(JointTrainer(*arguments, seed=1, own_loss=True))
    apart = trained(NodeTrainer(*arguments, seed=1))
    assert set(both) == set(apart) and any(not np.array_equal(first[key], both[key]) for key in first)
    with pytest.raises(ConstructibleError):
        JointTrainer(nodes(plan)[:2], maps, plan.plan.labels, plan.plan.learn).restore(first)


def fake(plan: TogetherPlan, run: str, order: np.ndarray, sign: np.ndarray) -> Twins:
    """Twins that answer, each, another one's question: `order`, turned round where `sign` is -1."""
    rng = np.random.default_rng(7 if run == "a" else 8)
    labels = {"held": plan.plan.labels[plan.plan.held], "validation": plan.labels}
    pooled = {}
    for part, classes in labels.items():
        truth = 2.0 * (plan.table[classes] == 1) - 1
        pooled[part] = truth[:, order] * sign + rng.normal(0, 0.2, truth.shape)
    n = len(plan.names)
    return Twins({f"{name}@{run}": i for i, name in enumerate(plan.names)}, pooled, np.full(n, 4.0), np.zeros(n))


def test_the_swap_passes_nodes_that_mean_their_names_and_catches_nodes_that_only_fit_each_other(
    plan: TogetherPlan, monkeypatch
):
    n = len(plan.names)
    inputs = {f"{way}-{run}": (way, run) for way in together.WAYS for run in together.RUNS}
    context: Any = SimpleNamespace(inputs=inputs)

    def found(adapted: bool) -> dict[str, Any]:
        def load(place: tuple[str, str]) -> Twins:
            run = place[1]
            order, sign = np.arange(n), np.ones(n)
            if adapted and run == "b":
                # Another seed found another division of labour: each node does its neighbour's work.
                order = np.roll(order, 1)
            if adapted and run == "unseen":
                sign = -sign
            return fake(plan, run, order, sign)

        monkeypatch.setattr(together, "load_twins", load)
        return plan.judge("together", context)

    right, wrong = found(False), found(True)
    assert right["accuracy"] > 0.95 and abs(right["swap_drop"]) < 0.06 and abs(right["mixed_drop"]) < 0.06
    assert right["transfer_auroc"] > 0.95 and right["right_polarity"] == 1.0
    assert wrong["accuracy"] > 0.95 and wrong["swap_drop"] > 0.3 and wrong["mixed_drop"] > 0.1
    assert wrong["transfer_auroc"] < 0.05 and wrong["transferring"] == 0.0


def test_the_study_runs(world: SmallWorld, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("CONSTRUCTIBLE_STORE", str(tmp_path / "cache" / "store"))
    arguments = ["study", "together", str(world.folder), "--classes", "bus,bee,daisy", "--draws", "0", "--steps", "2",
                 "--out", str(tmp_path / "t"), "--json"]  # fmt: skip
    done = CliRunner().invoke(vision, arguments)
    assert done.exit_code == 0, done.output
    rows = json.loads(done.stdout)["rows"]
    assert set(rows) == {"apart", "together", "both"}
    for [row] in rows.values():
        assert {"swap_drop", "mixed_drop", "transfer_auroc", "pointing", "right_polarity"} <= set(row)
    assert "swap drop" in (tmp_path / "t" / "study.md").read_text()
