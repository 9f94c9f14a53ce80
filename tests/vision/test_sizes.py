"""Channels for a wanted size: near enough whatever the cut, and close to the usual form where there is a choice."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from tests.vision.small import CLASSES, SmallWorld, build_small
from vision.build import Plan, Recipe, plan_of
from vision.model import Constructed, RootModel, load
from vision.monolith import channels_for, make_network
from vision.nodes import MAX_PARAMS
from vision.sizes import NEAR, leaf_channels, nearest, upper_shape
from vision.study import permuted

WITHIN = 0.01


def test_of_the_shapes_that_are_near_enough_the_least_odd_is_taken():
    shapes = [(1000, 3.0), (1003, 1.0), (999, 2.0), (1100, 0.0)]
    assert nearest(shapes, lambda s: s[0], 1000, lambda s: s[1]) == (1003, 1.0)
    # Where none is near enough the nearest is.
    assert nearest(shapes, lambda s: s[0], 1060, lambda s: s[1]) == (1100, 0.0)


@pytest.mark.parametrize("scale", [0.2, 0.35, 0.6, 1.0])
@pytest.mark.parametrize("wanted", [5_000, 11_173, 40_001])
def test_a_net_above_the_leaves_has_the_wanted_size(scale: float, wanted: int):
    shape = upper_shape(scale, wanted, "average")
    assert abs(shape.parameters / wanted - 1) <= NEAR
    assert abs(math.log(shape.hidden[1] / shape.hidden[0] / 1.5)) < math.log(2)


@pytest.mark.parametrize("wanted", [60_000, 146_550, 216_494])
def test_a_monolith_has_the_wanted_size_with_its_head(wanted: int):
    width, last = channels_for(wanted, 5)
    made = sum(p.numel() for p in make_network(width, 5, last).parameters())
    assert abs(made / wanted - 1) <= NEAR and 3 <= last / width <= 5


def test_leaves_keep_their_usual_channels_where_these_fit():
    def total(hidden: tuple[int, int]) -> int | None:
        return hidden[0] * 100 + hidden[1] * 10

    assert leaf_channels((16, 16), total, total((16, 16)) or 0) == (16, 16)
    # Too large ones are none.
    assert leaf_channels((16, 16), lambda h: None if h[0] > 12 else total(h), 1760) == (12, 32)


def test_every_cut_and_the_control_have_as_many_trained_numbers(world: SmallWorld):
    usual = Recipe(classes=CLASSES, hidden=(8, 12))
    leaves = Plan(world.train, world.library, usual)
    wanted = leaves.trained_parameters()
    assert wanted == sum(leaves.shape(name).parameters for name in leaves.truth) and leaves.hidden == usual.hidden
    for cut in ("classes", "parts", "leaves"):
        plan = Plan(world.train, world.library, replace(usual, cut=cut, in_all=wanted))
        assert abs(plan.trained_parameters() / wanted - 1) <= WITHIN, cut
    for seed in range(4):
        dealt = permuted(world.library, world.train.classes, seed)
        plan = Plan(world.train, dealt, replace(usual, in_all=wanted))
        assert abs(plan.trained_parameters() / wanted - 1) <= WITHIN, seed
        assert max(plan.shape(name).parameters for name in plan.truth) <= MAX_PARAMS
    assert Plan(world.train, world.library, replace(usual, cut="plain", in_all=wanted)).trained_parameters() == 0


def test_models_of_a_wanted_size_are_built_and_opened_again(world: SmallWorld, tmp_path: Path):
    for cut in ("root", "classes", "leaves"):
        build_small(world, tmp_path / cut, steps=2, cut=cut, in_all=60_000)
        model = load(tmp_path / cut)
        if isinstance(model, RootModel):
            assert abs(model.parameters / 60_000 - 1) <= WITHIN and model.monolith.last is not None
            continue
        assert isinstance(model, Constructed)
        plan = plan_of(model.config, world.train, world.library)
        assert abs(plan.trained_parameters() / 60_000 - 1) <= WITHIN
        assert all(node.shape == plan.shape(node.name) for node in model.bank.nodes)
