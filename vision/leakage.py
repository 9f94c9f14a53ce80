"""Do concept scores say more than their concepts? Oracle and niche impurity (Espinosa Zarlenga et al. 2023, "Towards
Robust Metrics for Concept Representation Evaluation", sections 3 and 4), for concepts that a class decides.

- **OIS**: how well each score tells every concept, compared with how well the truth of its own concept tells it. Two
  concepts that go together in the table may tell each other; what a score knows beyond that, or short of it, counts.
  0 is as pure as the truth, 1 the worst.
- **NIS**: how well a concept can be told from all scores that have little to do with it. 0.5 is nothing, 1 everything.

Two things differ from the paper, since here the class decides every concept. The helper that reads one score is a table
of ten quantile bins, and the one that reads many is a ridge regression, so that there is nothing to tune and results
repeat. And NIS is taken on classes that its helper has not seen: many scores together tell classes apart, and whoever
knows the class knows every concept. `nis_of_truth` is the same figure for the table itself; read NIS beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vision.fidelity_metrics import class_folds

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Table = npt.NDArray[np.int8]
BINS = 10
BETAS = np.linspace(0, 1, 21)
REPLICATIONS = 100
_RIDGE = 0.01


@dataclass(frozen=True)
class Leakage:
    """What scores say beyond their concepts.

    Attributes:
        ois, nis: see the module; `low` and `high` are 95 % intervals, resampling classes.
        nis_of_truth: NIS of the table itself.
        purity: area under the curve of telling concept j from score i, [k, k]; nan where j has one side only.
        truth_purity: the same from the truth of concept i.
    """

    names: tuple[str, ...]
    ois: float
    ois_low: float
    ois_high: float
    nis: float
    nis_low: float
    nis_high: float
    nis_of_truth: float
    purity: Floats
    truth_purity: Floats

    @property
    def excess(self) -> Floats:
        """How much better score i tells concept j than concept i's truth does, [k, k]; the diagonal is nan."""
        out = self.purity - self.truth_purity
        np.fill_diagonal(out, np.nan)
        return out

    def worst(self, n: int = 10) -> list[dict[str, Any]]:
        """The scores that know most of another concept, largest excess first."""
        excess = np.nan_to_num(self.excess, nan=-1.0)
        order = np.argsort(-excess, axis=None, kind="stable")[:n]
        pairs = [(int(i), int(j)) for i, j in zip(*np.unravel_index(order, excess.shape), strict=True)]
        return [
            {"score": self.names[i], "knows": self.names[j], "auroc": float(self.purity[i, j]),
             "auroc_of_truth": float(self.truth_purity[i, j])}
            for i, j in pairs if excess[i, j] > 0
        ]  # fmt: skip

    def as_json(self) -> dict[str, Any]:
        """The figures, and for each score what it knows most of beside its own concept."""
        excess = np.nan_to_num(self.excess, nan=-1.0)
        nodes = {
            name: {"own_auroc": float(self.purity[i, i]), "knows": self.names[int(excess[i].argmax())],
                   "excess": float(excess[i].max())}
            for i, name in enumerate(self.names)
        } if len(self.names) > 1 else {}  # fmt: skip
        keys = ("ois", "ois_low", "ois_high", "nis", "nis_low", "nis_high", "nis_of_truth")
        return {key: getattr(self, key) for key in keys} | {"worst": self.worst(), "nodes": nodes}


def leakage(
    scores: Floats, labels: Ints, truth: Table, names: Sequence[str], *, seed: int = 0
) -> Leakage:  # fmt: skip
    """Measure what concept scores leak.

    Args:
        scores: of photographs that nodes did not learn from, float64 [n, k].
        labels: class of each, [n]; rows of classes that the table does not have (-1) are left out.
        truth: 1 true, 0 false, -1 unclear, int8 [classes, k].
    """
    known = labels >= 0
    scores, labels = scores[known], labels[known]
    fit, test = _halves(labels, seed)
    said = _binned(scores, labels, len(truth), fit, test)
    ideal = np.where(truth < 0, 0.5, truth)[labels].astype(np.float64)
    exact = _binned(ideal, labels, len(truth), fit, test)
    whole = np.ones(len(truth))
    purity, pure = _purity(*said, truth, whole), _purity(*exact, truth, whole)
    rng = np.random.default_rng((seed, 1))
    drawn = [np.bincount(rng.integers(0, len(truth), len(truth)), minlength=len(truth)).astype(np.float64)
             for _ in range(REPLICATIONS)]  # fmt: skip
    resampled = [_distance(_purity(*said, truth, w), _purity(*exact, truth, w)) for w in drawn]
    low, high = _interval(_distance(purity, pure), resampled)
    weights = np.stack([whole, *drawn])
    niche = _niche(scores, labels, truth, weights, seed)
    of_truth = _niche(ideal, labels, truth, weights[:1], seed)[0]
    nis_low, nis_high = _interval(float(niche[0]), niche[1:])
    return Leakage(
        tuple(names), _distance(purity, pure), low, high, float(niche[0]), nis_low, nis_high,
        float(of_truth), purity, pure,
    )  # fmt: skip


def _interval(estimate: float, resampled: Sequence[float] | Floats) -> tuple[float, float]:
    """The middle 95 % of resampled figures, moved so that their median is the estimate: a sample with classes drawn
    twice has fewer of them, and fewer classes are told apart more easily."""
    low, middle, high = np.nanquantile(resampled, [0.025, 0.5, 0.975])
    return float(max(0.0, estimate + low - middle)), float(min(1.0, estimate + high - middle))


def _distance(purity: Floats, pure: Floats) -> float:
    """OIS: twice the root mean square of the differences; the paper's norm over its number of concepts."""
    difference = (purity - pure)[~np.isnan(purity + pure)]
    return float(2 * np.sqrt(np.mean(difference**2))) if len(difference) else float("nan")


def _halves(labels: Ints, seed: int) -> tuple[Ints, Ints]:
    """Rows to fit a helper on and rows to judge it on, every class in both."""
    rng = np.random.default_rng((seed, 2))
    fit, test = [], []
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        fit.append(rows[::2])
        test.append(rows[1::2])
    return np.concatenate(fit), np.concatenate(test)


def _binned(scores: Floats, labels: Ints, classes: int, fit: Ints, test: Ints) -> tuple[Floats, Floats]:
    """Share of each class's photographs in each bin of each score, [k, bins, classes]: to fit on, to judge on."""
    made = []
    borders = [np.unique(np.quantile(scores[fit, i], np.arange(1, BINS) / BINS)) for i in range(scores.shape[1])]
    for rows in (fit, test):
        out = np.zeros((scores.shape[1], BINS, classes))
        size = np.maximum(1, np.bincount(labels[rows], minlength=classes))
        for i, border in enumerate(borders):
            # A value that is a border belongs above it: scores of 0 and 1 alone make two bins.
            place = np.searchsorted(border, scores[rows, i], side="right")
            np.add.at(out[i], (place, labels[rows]), 1.0)
        made.append(out / size)
    return made[0], made[1]


def _purity(fit: Floats, test: Floats, truth: Table, weight: Floats) -> Floats:
    """Area under the curve of telling concept j from the bins of score i, classes weighing as given, [k, k]."""
    yes, no = (truth == 1) * weight[:, None], (truth == 0) * weight[:, None]
    usable = (yes.sum(0) > 0) & (no.sum(0) > 0)

    def shares(counts: Floats) -> tuple[Floats, Floats]:  # of the true and of the false side in each bin, [k, bins, k]
        return tuple((counts @ side) / np.maximum((counts @ side).sum(1, keepdims=True), 1e-12) for side in (yes, no))  # type: ignore[return-value]

    fit_yes, fit_no = shares(fit)
    order = np.argsort((fit_yes + 1e-3) / (fit_no + 1e-3), axis=1, kind="stable")
    test_yes, test_no = (np.take_along_axis(side, order, axis=1) for side in shares(test))
    below = np.cumsum(test_no, axis=1) - test_no
    out = (test_yes * (below + 0.5 * test_no)).sum(1)
    out[:, ~usable] = np.nan
    return out


def _niche(scores: Floats, labels: Ints, truth: Table, weights: Floats, seed: int) -> Floats:
    """NIS, once for each row of class weights [r, classes]; a concept's own score is always inside its niche."""
    n_classes, k = truth.shape
    size = np.bincount(labels, minlength=n_classes)
    each = (1.0 / np.maximum(1, size))[labels]
    mean = np.average(scores, axis=0, weights=each)
    x = scores - mean
    spread = np.sqrt(np.average(x**2, axis=0, weights=each))
    x = np.concatenate([x / np.maximum(spread, 1e-9), np.ones((len(x), 1))], axis=1)
    per_class = [x[labels == c] for c in range(n_classes)]
    gram = np.stack([a.T @ a / max(1, len(a)) for a in per_class])  # [classes, k + 1, k + 1]
    total = np.stack([a.sum(0) / max(1, len(a)) for a in per_class])  # [classes, k + 1]
    folds = class_folds(truth, 2, seed)
    sums, count = np.zeros((len(weights), len(BETAS))), np.zeros(len(weights))
    for j in range(k):
        column = truth[:, j]
        have = (column >= 0) & (size > 0)
        y = np.where(column == 1, 1.0, -1.0)
        near = np.abs(_correlation(x[:, :k], y, labels, each, have))
        near[j] = np.inf
        found: dict[tuple[int, ...], Floats] = {}
        curve = np.full((len(weights), len(BETAS)), 0.5)
        for b, beta in enumerate(BETAS):
            outside = tuple(np.flatnonzero(near <= beta).tolist())
            if outside and outside not in found:
                found[outside] = _told(outside, x, gram, total, y, have, labels, folds, weights)
            if outside:
                curve[:, b] = found[outside]
        good = ~np.isnan(curve).any(1)
        sums[good] += curve[good]
        count += good
    means = sums / np.maximum(count, 1)[:, None]
    step = BETAS[1] - BETAS[0]
    return np.where(count > 0, (means.sum(1) - (means[:, 0] + means[:, -1]) / 2) * step, np.nan)


def _correlation(x: Floats, y: Floats, labels: Ints, each: Floats, have: npt.NDArray[np.bool_]) -> Floats:
    """Correlation of each score with a concept, classes weighing alike, [k]."""
    rows = have[labels]
    a, b, w = x[rows], y[labels[rows]], each[rows] / each[rows].sum()
    a, b = a - w @ a, b - w @ b
    below = np.sqrt((w @ a**2) * (w @ b**2))
    return np.where(below > 1e-12, (w @ (a * b[:, None])) / np.maximum(below, 1e-12), 0.0)


def _told(
    columns: Sequence[int], x: Floats, gram: Floats, total: Floats, y: Floats, have: npt.NDArray[np.bool_],
    labels: Ints, folds: Sequence[Sequence[int]], weights: Floats,
) -> Floats:  # fmt: skip
    """Area under the curve of a concept told from some scores on classes that were not learned from, [r]."""
    picked = np.array([*columns, x.shape[1] - 1])
    areas, known = np.zeros(len(weights)), np.zeros(len(weights))
    for fold in folds:
        inside = np.isin(np.arange(len(y)), fold) & have
        outside = ~np.isin(np.arange(len(y)), fold) & have
        sides = [outside & (y > 0), outside & (y < 0)]
        if not all(side.any() for side in (*sides, inside & (y > 0), inside & (y < 0))):
            continue
        pull = sum(np.where(side, 0.5 / side.sum(), 0.0) for side in sides)
        g = np.tensordot(pull, gram[:, picked][:, :, picked], 1) + _RIDGE * np.eye(len(picked))
        beta = np.linalg.solve(g, (pull * y) @ total[:, picked])
        rows = np.flatnonzero(inside[labels])
        area = _areas(x[rows][:, picked] @ beta, y[labels[rows]] > 0, labels[rows], weights)
        good = ~np.isnan(area)
        areas[good] += area[good]
        known += good
    return np.where(known > 0, areas / np.maximum(known, 1), np.nan)


def _areas(scores: Floats, true: npt.NDArray[np.bool_], labels: Ints, weights: Floats) -> Floats:
    """Area under the curve once for each row of class weights [r, classes], every class weighing alike besides; nan
    where a side is empty."""
    each = 1.0 / np.bincount(labels, minlength=weights.shape[1]).clip(min=1)
    order = np.argsort(scores, kind="stable")
    starts = np.flatnonzero(np.diff(scores[order], prepend=-np.inf) > 1e-12)
    w = (weights * each)[:, labels[order]]
    yes, no = (np.add.reduceat(w * side[order], starts, axis=1) for side in (true, ~true))
    below = np.cumsum(no, axis=1) - no
    both = yes.sum(1) * no.sum(1)
    return np.where(both > 0, (yes * (below + 0.5 * no)).sum(1) / np.maximum(both, 1e-12), np.nan)
