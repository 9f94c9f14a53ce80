"""Feature nodes: sizes, receptive fields, pooling, calibration, and training that is each node's own."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ontology.errors import ConstructibleError
from vision.bank import CHANNELS, GRID
from vision.concepts import SCALES
from vision.nodes import POOLINGS, Node, NodeBank, NodeShape, balanced_weights, calibration, pool
from vision.train_nodes import OWN_SHARE, NodePlan, NodeTrainer, calibrated, moved


def random_node(shape: NodeShape, seed: int = 0) -> Node:
    rng = np.random.default_rng(seed)
    weights = tuple(rng.normal(0, 0.3, size).astype(np.float32) for size in shape.sizes)
    return Node(f"node_{seed}", shape, weights, 1.5, -0.2)


@pytest.mark.parametrize("scale", SCALES)
def test_a_node_keeps_to_its_size_and_sees_no_farther_than_it_declares(scale: float):
    shape = NodeShape(scale, (16, 24))
    assert shape.parameters <= 10_000 and shape.parameters == sum(int(np.prod(s)) for s in shape.sizes)
    assert shape.receptive_field <= np.ceil(round(scale * GRID, 6)) / GRID + 1e-9
    # Measured, not only computed: one cell is changed, and nothing beyond the field changes in the map.
    bank = NodeBank([random_node(shape)])
    maps = np.random.default_rng(1).integers(0, 255, (1, len(CHANNELS), GRID, GRID)).astype(np.uint8)
    changed = maps.copy()
    changed[0, :, 7, 7] = 255 - changed[0, :, 7, 7]
    moved = np.argwhere(np.abs(bank.maps(maps) - bank.maps(changed))[0, 0] > 1e-5)
    reach = (moved.max(0) - moved.min(0) + 1).max()
    assert 1 <= reach <= 2 * shape.cells + 2
    assert np.abs(moved - 7).max() <= shape.cells


@pytest.mark.parametrize("scale", SCALES)
def test_channels_that_a_node_does_not_declare_cannot_reach_it(scale: float):
    shape = NodeShape(scale)
    bank = NodeBank([random_node(shape)])
    maps = np.random.default_rng(2).integers(0, 255, (2, len(CHANNELS), GRID, GRID)).astype(np.uint8)
    other = maps.copy()
    hidden = np.setdiff1d(np.arange(len(CHANNELS)), shape.channels)
    other[:, hidden] = 255 - other[:, hidden]
    assert np.array_equal(bank.pooled(maps), bank.pooled(other))


def test_nodes_over_the_limit_or_of_unknown_scale_are_refused():
    with pytest.raises(ConstructibleError, match="parameters, more than 10000"):
        NodeShape(0.35, (64, 64))
    with pytest.raises(ConstructibleError, match="no node of scale 0.3"):
        NodeShape(0.3)
    assert NodeShape(1.0, (64, 96), capped=False).parameters > 10_000


@given(st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_poolings_agree_on_even_maps_and_rise_with_evidence(seed: int):
    rng = np.random.default_rng(seed)
    maps = torch.from_numpy(rng.normal(0, 1, (2, 3, 4, 4)))
    for how in POOLINGS:
        even = torch.full((1, 1, 4, 4), float(rng.normal()))
        assert torch.allclose(pool(even, how), even[:, :, 0, 0], atol=1e-4), how
        assert bool((pool(maps + 0.5, how) > pool(maps, how)).all())
    low, mid, high = pool(maps, "average"), pool(maps, "lse"), pool(maps, "max")
    assert bool((low <= mid + 1e-9).all() and (mid <= high + 1e-9).all())


def test_max_pooling_failed_for_want_of_an_affine_calibration():
    """A sigmoid of a non-negative number is never below one half; with slope and offset the same number works."""
    rng = np.random.default_rng(0)
    truth = rng.random(500) < 0.5
    pooled = np.maximum(0, rng.normal(0, 1, (500, 16))).max(1) + truth  # a maximum of rectified evidence
    bare = 1 / (1 + np.exp(-pooled))
    assert ((bare > 0.5) == truth).mean() < 0.6
    slope, offset = calibration(pooled, truth, np.ones(500))
    fitted = 1 / (1 + np.exp(-(slope * pooled + offset)))
    assert slope > 0 and ((fitted > 0.5) == truth).mean() > 0.7
    assert abs(fitted.mean() - truth.mean()) < 0.02


def test_an_inverted_node_is_found_by_its_slope_and_left_out():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2, 3], 40)
    table = np.array([[1, 1], [1, 1], [0, 0], [0, 0]], dtype=np.int8)
    right = (labels < 2) + rng.normal(0, 0.3, len(labels))
    nodes = [random_node(NodeShape(0.1), seed) for seed in (1, 2)]
    good, bad = calibrated(nodes, table, np.stack([right, -right], axis=1), labels)
    assert [node.name for node in good] == ["node_1"] and [node.name for node in bad] == ["node_2"]


def test_no_class_carries_a_node():
    table = np.array([[1, 1], [1, 0], [0, 0], [0, -1]], dtype=np.int8)
    labels = np.repeat([0, 1, 2, 3], [50, 5, 20, 10])
    weights = balanced_weights(table, labels)
    for node in range(2):
        by_class = np.array([weights[labels == c, node].sum() for c in range(4)])
        for side in (0, 1):
            own = by_class[table[:, node] == side]
            assert np.allclose(own, own[0]) and own.sum() == pytest.approx(0.5)
    assert weights[labels == 3, 1].sum() == 0


def separable(n: int = 120) -> tuple[np.ndarray, np.ndarray]:
    """Primitives in which class c lights up channel c."""
    rng = np.random.default_rng(0)
    labels = np.arange(n) % 4
    maps = rng.integers(0, 60, (n, len(CHANNELS), GRID, GRID)).astype(np.uint8)
    for i, label in enumerate(labels):
        maps[i, 6 + label, 4:9, 4:9] = 220
    return maps, labels


def trainer(names: list[str], seed: int = 0) -> NodeTrainer:
    maps, labels = separable()
    columns = {"a": [1, 1, 0, 0], "b": [1, 0, 1, 0], "c": [0, 1, 1, 0]}
    plans = [NodePlan(name, NodeShape(0.2, (6, 8)), np.array(columns[name], np.int8)) for name in names]
    return NodeTrainer(plans, maps, labels, np.arange(len(labels)), seed=seed, batch=32, learning_rate=0.01)


def run(made: NodeTrainer, first: int, last: int) -> NodeTrainer:
    for step in range(first, last):
        made.set_progress(step / 40)
        made.step(step)
    return made


def test_training_learns_and_does_not_depend_on_company():
    maps, labels = separable()
    alone, together = run(trainer(["a"]), 0, 40), run(trainer(["c", "a", "b"]), 0, 40)
    one, three = NodeBank(alone.finish()).pooled(maps)[:, 0], NodeBank(together.finish()).pooled(maps)[:, 1]
    # Batched convolutions may add in another order: equal up to rounding that training has carried along.
    assert np.abs(one - three).max() < 0.02 * np.abs(one).max()
    assert ((one > np.median(one)) == (labels < 2)).mean() > 0.95


def test_own_classes_get_their_share_of_pictures_and_weight_and_both_sides_weigh_the_same():
    maps, labels = separable()
    table = np.array([[1, 0], [0, 1], [0, -1], [1, 0]], np.int8)
    plans = [NodePlan(name, NodeShape(0.2, (6, 8)), table[:, i]) for i, name in enumerate("ab")]
    made = NodeTrainer(plans, maps, labels, np.arange(len(labels)), own=[0, 1], batch=32)
    drawn = np.concatenate([made.draw(step)[0] for step in range(50)])
    share = np.bincount(drawn, minlength=4) / len(drawn)
    assert np.abs(share - np.array([OWN_SHARE, OWN_SHARE, 1 - OWN_SHARE, 1 - OWN_SHARE]) / 2).max() < 0.02
    weight = share[:, None] * made._weights.numpy()  # of each class for each node
    for node in range(2):
        for side in (0, 1):
            assert weight[table[:, node] == side, node].sum() == pytest.approx(0.5, abs=0.03)
    # Its share of its side's weight, and half of what is left to all classes of the side.
    assert weight[0, 0] == pytest.approx((1 + OWN_SHARE) / (1 - OWN_SHARE) * weight[3, 0], rel=0.1)
    assert weight[2, 1] == 0


def test_pictures_are_moved_by_cells_and_their_edges_repeated():
    maps = np.random.default_rng(0).integers(0, 255, (3, 4, 16, 16)).astype(np.uint8)
    there = moved(maps, np.array([[0, 0], [1, 0], [0, -1]]))
    assert np.array_equal(there[0], maps[0])
    assert np.array_equal(there[1][:, 1:], maps[1][:, :-1]) and np.array_equal(there[1][:, 0], maps[1][:, 0])
    assert np.array_equal(there[2][:, :, :-1], maps[2][:, :, 1:])


def test_half_of_the_pictures_hold_a_rectangle_of_another_and_its_area_is_told():
    made, whole, touched = trainer(["a"]), np.arange(400, dtype=np.uint16), []
    pictures = np.broadcast_to((whole % 256).astype(np.uint8)[:, None, None, None], (400, 2, GRID, GRID)).copy()
    shown, partner, area = made.patched(pictures, 3)
    for i, picture in enumerate(shown):
        foreign = picture[0] != whole[i] % 256
        if foreign.any() or (partner[i] != i and partner[i] % 256 != i % 256):
            assert foreign.mean() == pytest.approx(float(area[i]))
            assert set(picture[:, foreign].ravel()) <= {partner[i] % 256}
        touched.append(bool(area[i] > 0))
    assert 0.4 < np.mean(touched) < 0.6 and float(area.max()) <= 0.5625


def test_training_continues_exactly_from_its_state():
    whole = run(trainer(["a", "b"]), 0, 12).finish()
    half = run(trainer(["a", "b"]), 0, 6).state()
    resumed = trainer(["a", "b"])
    resumed.restore(half)
    again = run(resumed, 6, 12).finish()
    for ours, theirs in zip(whole, again, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(ours.weights, theirs.weights, strict=True))
    with pytest.raises(ConstructibleError, match="another training"):
        trainer(["a"]).restore(half)


def test_a_concept_that_is_true_of_all_classes_cannot_be_learned():
    maps, labels = separable()
    plan = NodePlan("everything", NodeShape(0.1), np.ones(4, np.int8))
    with pytest.raises(ConstructibleError, match="'everything' is always true in the training classes"):
        NodeTrainer([plan], maps, labels, np.arange(len(labels)))


def test_a_node_folder_round_trips_and_notices_damage(tmp_path):
    node = random_node(NodeShape(0.6), 3)
    node.save(tmp_path)
    again = Node.load(tmp_path)
    assert again.shape == node.shape and (again.slope, again.offset) == (1.5, -0.2)
    assert all(np.array_equal(a, b) for a, b in zip(node.weights, again.weights, strict=True))
    said = (tmp_path / "node.json").read_text()
    (tmp_path / "node.json").write_text(said.replace('"slope": 1.5', '"slope": -1.5'))
    with pytest.raises(ConstructibleError, match="slope is not above zero"):
        Node.load(tmp_path)
    (tmp_path / "node.json").write_text(said.replace('"scale": 0.6', '"scale": 0.2'))
    with pytest.raises(ConstructibleError, match="do not fit the shape"):
        Node.load(tmp_path)
