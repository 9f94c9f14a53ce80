"""Leakage and overlap on nodes that are right and on nodes that are wrong in a known way, in the part world."""

from __future__ import annotations

import numpy as np
import pytest

from tests.vision.small import SmallWorld
from vision.bank import primitives
from vision.leakage import leakage
from vision.model import Constructed, load
from vision.overlap import overlap, random_nodes
from vision.part_world import CLASSES, PARTS, draw_set, mask_array

NAMES = tuple(PARTS)
TRUTH = np.array([[name in parts for name in NAMES] for parts in CLASSES.values()], dtype=np.int8)
WINGS, DOTS = NAMES.index("wings"), NAMES.index("dots")


@pytest.fixture(scope="module")
def labels():
    return np.repeat(np.arange(len(CLASSES)), 16)


@pytest.fixture(scope="module")
def shown(labels):
    """What each picture shows of each part: its share of the picture, by the exact masks."""
    drawings = draw_set("validation", 16, seed=5)
    assert [d.label for d in drawings] == [list(CLASSES)[i] for i in labels]
    area = np.stack([mask_array(drawings, name).mean((1, 2)) for name in NAMES], axis=1)
    return area / area.max(0)


@pytest.fixture(scope="module")
def right(shown):
    """Nodes that fire where their part shows, and not always alike."""
    rng = np.random.default_rng(0)
    return np.clip(0.1 + 0.7 * (shown > 0) + rng.normal(0, 0.1, shown.shape), 0, 1)


@pytest.fixture(scope="module")
def leaky(right, labels):
    """The same, and each node also says a little about the next concept."""
    return np.clip(right + 0.35 * np.roll(TRUTH[labels], -1, axis=1), 0, 1.5)


@pytest.fixture(scope="module")
def memoriser(labels):
    """Each node's level tells the class, on the right side of its concept's threshold."""
    rng = np.random.default_rng(1)
    level = np.stack([rng.permutation(len(CLASSES)) for _ in NAMES], axis=1) / len(CLASSES)
    return 0.5 * TRUTH[labels] + 0.45 * level[labels] + rng.normal(0, 0.003, (len(labels), len(NAMES)))


def test_oracle_impurity_passes_right_nodes_and_catches_leaky_ones(right, leaky, memoriser, labels):
    pure = leakage(right, labels, TRUTH, NAMES)
    assert pure.ois < 0.12 and pure.ois_low <= pure.ois <= pure.ois_high
    found = leakage(leaky, labels, TRUTH, NAMES)
    assert found.ois > 2 * pure.ois and found.ois_low > pure.ois_high
    known = {(row["score"], row["knows"]) for row in found.worst(10)}
    planted = {(NAMES[i], NAMES[(i + 1) % len(NAMES)]) for i in range(len(NAMES))}
    assert len(known & planted) >= 5
    by_heart = leakage(memoriser, labels, TRUTH, NAMES)
    assert by_heart.ois > 0.4 and np.nanmean(np.diag(by_heart.purity)) > 0.99


def test_the_truth_itself_is_pure(labels):
    found = leakage(TRUTH[labels].astype(float), labels, TRUTH, NAMES)
    assert found.ois < 1e-9 and found.nis == pytest.approx(found.nis_of_truth)
    assert found.worst() == [] or max(row["auroc"] - row["auroc_of_truth"] for row in found.worst()) < 1e-9


def test_inverted_and_empty_nodes_are_not_pure_either(right, labels):
    """A score that says nothing is as far from the truth as one that says too much; OIS counts both."""
    empty = np.random.default_rng(2).random(right.shape)
    assert leakage(empty, labels, TRUTH, NAMES).ois > 0.15
    # A helper turns an inverted score round: impurity is no test of polarity, and does not claim to be.
    assert leakage(1 - right, labels, TRUTH, NAMES).ois == pytest.approx(
        leakage(right, labels, TRUTH, NAMES).ois, abs=0.05
    )


def test_niche_impurity_rises_where_knowledge_of_a_concept_hides_in_the_other_scores(right, labels):
    """Wings are written, faintly, into scores that have nothing to do with wings."""
    pure = leakage(right, labels, TRUTH, NAMES)
    assert abs(pure.nis - pure.nis_of_truth) < 0.05
    hidden = right.copy()
    rng = np.random.default_rng(3)
    for j in range(len(NAMES)):
        # Two others carry concept j with opposite noise: neither alone knows much, together they know it.
        a, b = (j + 3) % len(NAMES), (j + 7) % len(NAMES)
        noise = rng.normal(0, 0.4, len(labels))
        hidden[:, a] += 0.25 * TRUTH[labels, j] + noise
        hidden[:, b] += 0.25 * TRUTH[labels, j] - noise
    found = leakage(hidden, labels, TRUTH, NAMES)
    assert found.nis > pure.nis + 0.02 and found.nis_low <= found.nis <= found.nis_high


def test_unclear_classes_and_unknown_rows_are_left_out(right, labels):
    truth = TRUTH.copy()
    truth[0, 0] = -1
    some = labels.copy()
    some[:3] = -1
    found = leakage(right, some, truth, NAMES)
    assert 0 <= found.ois < 0.15
    truth[:, 1] = 0  # a concept without a true class can be told by nobody
    found = leakage(right, some, truth, NAMES)
    assert np.isnan(found.purity[:, 1]).all() and np.isfinite(found.ois) and np.isfinite(found.nis)


@pytest.fixture(scope="module")
def nobody(labels):
    """Random nodes: each class has its own random level, as pictures of a class look alike."""
    rng = np.random.default_rng(4)
    return rng.normal(0, 1, (len(CLASSES), 40))[labels] + rng.normal(0, 1, (len(labels), 40))


def test_overlap_passes_right_nodes_and_names_the_second_concept_of_a_double_one(right, nobody, labels):
    found = overlap(right, labels, TRUTH, NAMES, nobody)
    assert (found.own > 0.95).all() and found.carried < 0.02
    assert 0.02 < found.carried_by_random < 0.12 and found.as_json()["own_is_strongest"] == 1.0
    double = right.copy()
    double[:, WINGS] += 0.5 * TRUTH[labels, DOTS]
    said = overlap(double, labels, TRUTH, NAMES, nobody)
    assert said.of(WINGS)[0][0] == "dots" and said.of(WINGS)[0][1] > 0.9
    assert said.as_json()["nodes"]["wings"]["most"][0]["concept"] == "dots"
    # A node that says the opposite about another concept carries it just as well.
    double[:, WINGS] -= 1.0 * TRUTH[labels, DOTS]
    assert overlap(double, labels, TRUTH, NAMES, nobody).of(WINGS)[0][1] < 0.1


def test_what_goes_together_in_the_table_is_no_overlap(right, nobody, labels):
    """Petals never come without a round body or a box: the node may tell that, as long as its own concept does."""
    ears, whiskers = NAMES.index("ears"), NAMES.index("whiskers")
    truth = TRUTH.copy()
    truth[:, whiskers] = truth[:, ears]  # the same concept twice
    found = overlap(right, labels, truth, NAMES, nobody)
    assert np.isnan(found.probes[ears, whiskers])  # nothing can be said: no class has one without the other


def test_nodes_that_say_the_same_are_named(right, nobody, labels):
    twice = right.copy()
    twice[:, WINGS] = right[:, DOTS]
    found = overlap(twice, labels, TRUTH, NAMES, nobody)
    assert [set(pair[:2]) for pair in found.alike] == [{"wings", "dots"}]
    assert found.as_json()["own_is_strongest"] < 1.0


def test_random_nodes_have_the_shapes_of_the_models(world: SmallWorld, model_folder):
    model = load(model_folder)
    assert isinstance(model, Constructed)
    bank = random_nodes(model.bank.nodes, 12)
    assert len(bank.nodes) == 12 and {n.shape for n in bank.nodes} <= {n.shape for n in model.bank.nodes}
    found = bank.pooled(primitives(np.array(world.validation.pixels[:8])))
    assert np.isfinite(found).all() and found.std(0).min() > 0
