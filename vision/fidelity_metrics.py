"""Does a node do what it is named for? The figures, as functions of arrays, so that each can be tried on nodes that are
known to be right and on nodes that are known to be wrong (tests/vision/test_fidelity_metrics.py)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vision.score import auroc

Floats = npt.NDArray[np.float64]
PERMUTATIONS = 1000


@dataclass(frozen=True)
class Transfer:
    """How well a concept is recognised on classes that were never seen in training.

    Attributes:
        auroc: mean over pairs of a true and a false held-out class; 0.5 is chance, nan where there is no pair.
        low, high: 95 % interval, resampling classes.
        p_value: one-sided, of so high a figure where the table's column is permuted over the held-out classes.
        n_true, n_false: held-out classes behind it.
    """

    auroc: float
    low: float
    high: float
    p_value: float
    n_true: int
    n_false: int


def class_pairs(scores: Floats, labels: npt.NDArray[np.int64], classes: Sequence[int]) -> Floats:
    """Area under the curve of each class against each other one, [k, k]: entry (i, j) is the probability that a
    picture of class i scores higher than one of class j."""
    parts = [np.sort(scores[labels == c]) for c in classes]
    out = np.full((len(parts), len(parts)), 0.5)
    for i, a in enumerate(parts):
        for j, b in enumerate(parts):
            if i < j and len(a) and len(b):
                below = np.searchsorted(b, a, "left") + np.searchsorted(b, a, "right")
                out[i, j] = below.sum() / (2 * len(a) * len(b))
                out[j, i] = 1 - out[i, j]
    return out


def held_out_transfer(
    scores: Sequence[Floats],
    labels: npt.NDArray[np.int64],
    truth: npt.NDArray[np.int8],
    folds: Sequence[Sequence[int]],
    *,
    seed: int = 0,
) -> Transfer:
    """Judge twins of a node, each trained without the classes of one fold, on the classes of that fold.

    Args:
        scores: for each fold its twin's scores of all pictures, [n].
        labels: class of each picture, [n].
        truth: the concept's column, int8 [classes].
        folds: the classes left out of each twin.
    """
    blocks: list[tuple[Floats, npt.NDArray[np.bool_]]] = []
    for own, classes in zip(scores, folds, strict=True):
        used = [c for c in classes if truth[c] >= 0 and (labels == c).any()]
        blocks.append((class_pairs(own, labels, used), truth[used] == 1))
    estimate = _mean_pairs([(pairs, true, None) for pairs, true in blocks])
    n_true = int(sum(true.sum() for _, true in blocks))
    n_false = int(sum((~true).sum() for _, true in blocks))
    if np.isnan(estimate):
        return Transfer(float("nan"), float("nan"), float("nan"), 1.0, n_true, n_false)
    rng = np.random.default_rng(seed)
    permuted = np.array(
        [
            _mean_pairs([(pairs, true[rng.permutation(len(true))], None) for pairs, true in blocks])
            for _ in range(PERMUTATIONS)
        ]
    )
    resampled = []
    for _ in range(PERMUTATIONS // 2):
        drawn = []
        for pairs, true in blocks:
            weight = np.zeros(len(true))
            for side in (True, False):
                members = np.flatnonzero(true == side)
                if len(members):
                    np.add.at(weight, rng.choice(members, len(members)), 1.0)
            drawn.append((pairs, true, weight))
        resampled.append(_mean_pairs(drawn))
    low, high = np.nanquantile(resampled, [0.025, 0.975])
    p = (1 + np.sum(permuted >= estimate - 1e-12)) / (1 + PERMUTATIONS)
    return Transfer(estimate, float(low), float(high), float(p), n_true, n_false)


def _mean_pairs(blocks: Sequence[tuple[Floats, npt.NDArray[np.bool_], Floats | None]]) -> float:
    total = weight_sum = 0.0
    for pairs, true, weights in blocks:
        w = np.ones(len(true)) if weights is None else weights
        both = np.outer(w * true, w * ~true)
        total += float((pairs * both).sum())
        weight_sum += float(both.sum())
    return total / weight_sum if weight_sum else float("nan")


def class_folds(truths: npt.NDArray[np.int8], n_folds: int, seed: int) -> list[list[int]]:
    """Divide classes into folds so that as many concepts as possible have true and false classes on both sides.

    Args:
        truths: int8 [classes, concepts].
    """
    rng = np.random.default_rng(seed)
    best, best_value = None, -1.0
    for _ in range(200):
        order = rng.permutation(len(truths))
        folds = [sorted(order[i::n_folds].tolist()) for i in range(n_folds)]
        value = 0.0
        for fold in folds:
            inside = truths[fold]
            outside = np.delete(truths, fold, axis=0)
            usable = (inside == 1).any(0) & (inside == 0).any(0)
            usable &= ((outside == 1).sum(0) >= 2) & ((outside == 0).sum(0) >= 2)
            value += usable.sum()
        if value > best_value:
            best, best_value = folds, value
    assert best is not None
    return best


def polarity(scores: Floats, labels: npt.NDArray[np.int64], truth: npt.NDArray[np.int8]) -> float:
    """Area under the curve on the classes it learned from, every class counted alike; below 0.5 it is inverted.

    Args:
        labels: class of each picture, below 0 where it is none of these.
    """
    classes = [int(c) for c in np.unique(labels) if c >= 0 and truth[c] >= 0]
    return _mean_pairs([(class_pairs(scores, labels, classes), truth[classes] == 1, None)])


def spread(rows: npt.NDArray[np.int64], most: int) -> npt.NDArray[np.int64]:
    """At most so many of some rows, evenly spaced: pictures lie class by class, so that the first ones are of few."""
    return rows[np.linspace(0, len(rows) - 1, most).round().astype(int)] if len(rows) > most else rows


def pointing(maps: npt.NDArray[np.float32], masks: npt.NDArray[np.bool_]) -> tuple[float, float]:
    """Pointing game (Zhang et al. 2016): how often the largest value of a map lies in the mask, and how often the
    centre of the picture does.

    Args:
        maps: [n, g, g]; ties count by the share that lies inside.
        masks: bool [n, side, side], side a multiple of g; a cell counts where the mask touches it.
    """
    touched = _to_cells(masks, maps.shape[1]) > 0
    best = maps >= maps.max((1, 2), keepdims=True) - 1e-9
    hits = (best & touched).sum((1, 2)) / best.sum((1, 2))
    middle = maps.shape[1] // 2
    centre = touched[:, middle - 1 : middle + 1, middle - 1 : middle + 1].mean((1, 2))
    return float(hits.mean()), float(centre.mean())


def energy(maps: npt.NDArray[np.float32], masks: npt.NDArray[np.bool_]) -> tuple[float, float]:
    """Share of a map's evidence (what exceeds its own median) that lies in the mask, and the share of the picture that
    the mask covers, which is what a map that knows nothing would get."""
    share = _to_cells(masks, maps.shape[1])
    above = np.maximum(maps - np.median(maps, axis=(1, 2), keepdims=True), 0)
    whole = above.sum((1, 2))
    inside = np.where(whole > 0, (above * (share > 0)).sum((1, 2)) / np.maximum(whole, 1e-12), (share > 0).mean((1, 2)))
    return float(inside.mean()), float((share > 0).mean())


def box_masks(boxes: npt.NDArray[np.float32], side: int) -> npt.NDArray[np.bool_]:
    """Boxes [n, 4] in fractions of the side as masks bool [n, side, side]."""
    out = np.zeros((len(boxes), side, side), dtype=np.bool_)
    for mask, (x0, y0, x1, y1) in zip(out, boxes * side, strict=True):
        mask[int(y0) : max(int(y0) + 1, int(np.ceil(y1))), int(x0) : max(int(x0) + 1, int(np.ceil(x1)))] = True
    return out


def _to_cells(masks: npt.NDArray[np.bool_], cells: int) -> npt.NDArray[np.float32]:
    """Share of each cell that a mask covers, [n, cells, cells]."""
    n, side, _ = masks.shape
    k = side // cells
    return masks.reshape(n, cells, k, cells, k).mean((2, 4), dtype=np.float32)


def locality(
    whole: Floats, object_hidden: Floats, background_hidden: Floats
) -> float:  # fmt: skip
    """How much of a score rests on the object: mean fall when it is hidden, as a share of that fall and of the fall
    (or rise) when the background is hidden. 1 is the object alone, 0.5 both alike, 0 the background alone."""
    inside = float(np.abs(whole - object_hidden).mean())
    outside = float(np.abs(whole - background_hidden).mean())
    return inside / (inside + outside) if inside + outside > 0 else 0.5


def tie_reliance(scores: Floats, present: npt.NDArray[np.bool_], tied: npt.NDArray[np.bool_]) -> float:
    """How far a score follows a background that was tied to the concept, with the concept itself held fixed: area under
    the curve of the background within pictures that have the concept and within those that lack it, 0.5 where the
    background does not matter."""
    areas = [auroc(scores[side], tied[side]) for side in (present, ~present)]
    known = [area for area in areas if not np.isnan(area)]
    return float(np.mean(known)) if known else float("nan")


def intervention_curve(
    values: object,
    scores: Floats,
    truth: Floats,
    target: npt.NDArray[np.int64],
    order: Sequence[Sequence[int]],
) -> list[float]:
    """Accuracy after putting 0, 1, 2 ... concepts to what the table says.

    Args:
        values: function from concept scores [n, k] to class scores [n, classes].
        truth: what each concept should be, [n, k]; nan where the table does not say.
        order: for each picture the concepts in the order in which they are corrected.
    """
    seen = scores.copy()
    out = []
    steps = max((len(row) for row in order), default=0)
    for step in range(steps + 1):
        out.append(float((values(seen).argmax(1) == target).mean()))  # type: ignore[operator]
        for i, row in enumerate(order):
            if step < len(row) and not np.isnan(truth[i, row[step]]):
                seen[i, row[step]] = truth[i, row[step]]
    return out


def ridge_transfer(
    features: Floats,
    labels: npt.NDArray[np.int64],
    train: npt.NDArray[np.bool_],
    truth: npt.NDArray[np.int8],
    fold: Sequence[int],
    *,
    through_classes: bool,
    strength: float = 1.0,
) -> Floats:
    """Scores of the plain controls: a linear reading of picture-wide statistics, fitted without the classes of a fold.

    Args:
        features: [n, d], for example mean colours.
        train: which pictures may be learned from.
        through_classes: False: linear regression on the concept itself (the colour-histogram control). True: on the
            training classes, then the sum over classes of score x table (the class memoriser, which knows no concept).
    """
    known = [c for c in range(len(truth)) if c not in set(fold) and truth[c] >= 0]
    rows = train & np.isin(labels, known)
    mean, spread = features[rows].mean(0), features[rows].std(0) + 1e-9
    x = np.concatenate([(features - mean) / spread, np.ones((len(features), 1))], axis=1)
    if through_classes:
        y = (labels[rows][:, None] == np.array(known)[None]).astype(np.float64)
        weights = np.ones(rows.sum())
    else:
        true = truth[labels[rows]] == 1
        y = np.where(true, 1.0, -1.0)[:, None]
        weights = np.where(true, 0.5 / max(1, true.sum()), 0.5 / max(1, (~true).sum())) * len(true)
    a = x[rows]
    gram = (a * weights[:, None]).T @ a + strength * len(a) / 100 * np.eye(a.shape[1])
    beta = np.linalg.solve(gram, (a * weights[:, None]).T @ y)
    answer = x @ beta
    return answer[:, 0] if not through_classes else answer @ (truth[known] == 1).astype(np.float64)
