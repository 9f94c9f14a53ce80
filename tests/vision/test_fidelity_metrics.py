"""Each figure on nodes of the part world that are right, and on nodes that are wrong in a known way.

The nodes here are written by hand from the masks: what is on trial is the figure, not a training.
"""

from __future__ import annotations

import numpy as np
import pytest

from vision import fidelity_metrics as fm
from vision.part_world import CLASSES, Tie, draw_set, mask_array

PART = "petals"
LABELS = tuple(CLASSES)
TRUTH = np.array([PART in parts for parts in CLASSES.values()], dtype=np.int8)


@pytest.fixture(scope="module")
def drawings():
    return draw_set("validation", 6, seed=11)


@pytest.fixture(scope="module")
def labels(drawings):
    return np.array([LABELS.index(d.label) for d in drawings])


def cells(masks: np.ndarray) -> np.ndarray:
    return masks.reshape(len(masks), 16, 4, 16, 4).mean((2, 4))


@pytest.fixture(scope="module")
def nodes(drawings, labels):
    """Maps [n, 16, 16] by kind of node; a node's score is the mean of its map."""
    rng = np.random.default_rng(0)
    right = cells(mask_array(drawings, PART)) + rng.normal(0, 0.02, (len(drawings), 16, 16))
    elsewhere = np.zeros_like(right)
    elsewhere[:, 0, 0] = right.sum((1, 2))  # the right number, in the wrong place
    seen = np.flatnonzero(TRUTH)[:2]  # the training classes it learned by heart
    memory = np.isin(labels, seen).astype(float)[:, None, None] + rng.normal(0, 0.3, right.shape)
    return {"right": right, "inverted": -right, "mislocated": elsewhere, "memoriser": memory}


def score(maps: np.ndarray) -> np.ndarray:
    return maps.sum((1, 2))


def transfer(maps: np.ndarray, labels: np.ndarray, folds: list[list[int]] | None = None) -> fm.Transfer:
    folds = folds or [list(range(i, len(LABELS), 2)) for i in range(2)]
    return fm.held_out_transfer([score(maps)] * len(folds), labels, TRUTH, folds)


def test_polarity_passes_the_right_node_and_catches_the_inverted(nodes, labels):
    assert fm.polarity(score(nodes["right"]), labels, TRUTH) > 0.95
    assert fm.polarity(score(nodes["inverted"]), labels, TRUTH) < 0.05
    # Pictures of classes that the table does not know, whatever they look like, change nothing.
    strange = np.concatenate([score(nodes["right"]), np.linspace(-99, 99, 40)]), np.append(labels, np.full(40, -1))
    assert fm.polarity(*strange, TRUTH) == fm.polarity(score(nodes["right"]), labels, TRUTH)


def test_transfer_passes_the_right_node_and_catches_the_memoriser(nodes, labels):
    right = transfer(nodes["right"], labels)
    assert right.auroc > 0.95 and right.low > 0.8 and right.p_value < 0.05 and (right.n_true, right.n_false) == (3, 21)
    # Only the third class that has the part was left out of the memoriser's training.
    unseen = [int(np.flatnonzero(TRUTH)[2]), *np.flatnonzero(TRUTH == 0).tolist()]
    memoriser = transfer(nodes["memoriser"], labels, [unseen])
    assert 0.2 < memoriser.auroc < 0.8 and memoriser.p_value > 0.05
    assert transfer(nodes["inverted"], labels).auroc < 0.05


def test_pointing_and_energy_pass_the_right_node_and_catch_the_mislocated(nodes, drawings, labels):
    has = TRUTH[labels] == 1
    masks = mask_array(drawings, PART)[has]
    hits, centre = fm.pointing(nodes["right"][has], masks)
    inside, area = fm.energy(nodes["right"][has], masks)
    assert hits > 0.95 and hits > centre + 0.3 and inside > 2 * area
    # The score alone cannot tell it from the right one; the place does.
    assert transfer(nodes["mislocated"], labels).auroc > 0.9
    assert fm.pointing(nodes["mislocated"][has], masks)[0] < 0.1
    assert fm.energy(nodes["mislocated"][has], masks)[0] < 0.1


def test_a_map_without_any_evidence_scores_as_chance(drawings, labels):
    masks = mask_array(drawings, PART)[TRUTH[labels] == 1]
    flat = np.zeros((len(masks), 16, 16), dtype=np.float32)
    hits, _ = fm.pointing(flat, masks)
    inside, area = fm.energy(flat, masks)
    assert hits == pytest.approx(area, abs=0.02) and inside == pytest.approx(area, abs=0.02)


def test_a_node_that_reads_the_background_is_caught_by_the_tie_and_by_locality():
    tied = draw_set("train", 25, classes=["daisy", "sunflower", "cup", "bus", "cat"], tie=Tie(PART, 0.7), seed=2)
    present = np.array([PART in d.masks for d in tied])
    green = np.array([d.green for d in tied])
    noise = np.random.default_rng(1).normal(0, 0.05, len(tied))
    reader = np.array([d.pixels[:6].mean((0, 1))[1] - d.pixels[:6].mean((0, 1))[0] for d in tied]) / 50 + noise
    right = mask_array(tied, PART).mean((1, 2)) + 0.01 * noise
    assert fm.tie_reliance(reader, present, green) > 0.9
    assert 0.35 < fm.tie_reliance(right, present, green) < 0.65
    # Hiding the object changes the right node's score, hiding the background the other's.
    assert fm.locality(right, 0 * right, right) == 1.0
    assert fm.locality(reader, reader, 0 * reader) == 0.0


def test_pairs_are_exact_areas():
    scores = np.array([3.0, 1.0, 2.0, 2.0])
    pairs = fm.class_pairs(scores, np.array([0, 0, 1, 1]), [0, 1])
    assert pairs[0, 1] == 0.5 and pairs[1, 0] == 0.5 and pairs[0, 0] == 0.5


def test_random_tables_pass_as_rarely_as_they_should(nodes, labels):
    """One-sided p-values of columns that mean nothing are spread evenly."""
    rng = np.random.default_rng(3)
    folds = [list(range(i, len(LABELS), 2)) for i in range(2)]
    scores = rng.normal(0, 1, len(labels))
    p = []
    for _ in range(60):
        column = rng.permutation(np.repeat([1, 0], [6, 18])).astype(np.int8)
        p.append(fm.held_out_transfer([scores] * 2, labels, column, folds).p_value)
    assert np.mean(np.array(p) <= 0.1) < 0.25 and 0.3 < np.mean(p) < 0.7


def test_folds_leave_every_concept_something_to_learn_and_something_to_transfer_to():
    names = sorted({part for parts in CLASSES.values() for part in parts})
    table = np.array([[name in parts for name in names] for parts in CLASSES.values()], dtype=np.int8)
    folds = fm.class_folds(table, 2, seed=0)
    assert sorted(sum(folds, [])) == list(range(len(CLASSES)))
    usable = [sum(((table[f] == 1).any(0) & (table[f] == 0).any(0)).sum() for f in folds)]
    assert usable[0] >= 2 * len(names) - 4


def test_interventions_lead_from_the_models_accuracy_to_the_tables():
    truth = np.array([[1.0, 0.0], [0.0, 1.0]])
    wrong = 1 - truth
    curve = fm.intervention_curve(lambda s: s, wrong, truth, np.array([0, 1]), [[0, 1], [1, 0]])
    assert curve[0] == 0.0 and curve[-1] == 1.0 and len(curve) == 3


def test_the_class_memoriser_knows_its_classes_and_nothing_of_the_concept():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(8), 30)
    looks = rng.normal(0, 1, (8, 5))[labels] + rng.normal(0, 0.3, (240, 5))
    truth = np.array([1, 1, 1, 0, 0, 0, 1, 0], dtype=np.int8)
    train = np.arange(240) % 2 == 0
    for through in (True, False):
        answer = fm.ridge_transfer(looks, labels, train, truth, [6, 7], through_classes=through)
        seen = ~train & (labels < 6)
        assert fm.polarity(answer[seen], labels[seen], truth) > 0.9
