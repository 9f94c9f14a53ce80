"""Figures of a model on photographs it has not seen: classes, one class against all others, and each concept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ontology.errors import ConstructibleError
from ontology.stats import bootstrap_ratio
from vision.data import ImageSet
from vision.model import Constructed, RootModel, probabilities
from vision.rules import harden


@dataclass(frozen=True)
class Score:
    """The figures, and what they were computed from.

    Attributes:
        values: class scores of the photographs, float64 [n, classes].
        target: index of the right class, -1 for classes the model does not know, [n].
        figures: what `as_json` gives.
    """

    values: npt.NDArray[np.float64]
    target: npt.NDArray[np.int64]
    figures: dict[str, Any]

    def as_json(self) -> dict[str, Any]:
        """Figures as JSON values."""
        return self.figures


def score(model: Constructed | RootModel, images: ImageSet) -> Score:
    """Score a model on a set that may hold other classes as well; those count as negatives one against all.

    Raises:
        ConstructibleError: the set has no photograph of some class of the model.
    """
    import time

    started = time.monotonic()
    target = images.labels_in(model.classes)
    for c, name in enumerate(model.classes):
        if not (target == c).any():
            raise ConstructibleError(
                f"{images.name} ({images.split}) has no photograph of {name!r}.",
                fix="score on data that has the classes",
            )
    if images.size != model.size:
        raise ConstructibleError(
            f"the photographs have {images.size} pixels a side, the model takes {model.size}.", fix="read them again"
        )
    concepts = model.concept_scores(images.pixels) if isinstance(model, Constructed) else None
    values = model.values_of(concepts) if isinstance(model, Constructed) and concepts is not None else model.values(
        images.pixels
    )  # fmt: skip
    seconds = time.monotonic() - started
    own = target >= 0
    figures = {
        **class_figures(values, target, images.labels, model.classes, model.shares(values)),
        "per_concept": {} if concepts is None else _per_concept(model, images, concepts),
        "skipped": len(images.skipped), "parameters": model.parameters, "seconds": seconds,
    }  # fmt: skip
    if isinstance(model, Constructed) and concepts is not None:
        other = concepts if model.mode == "hard" else harden(concepts)
        figures["constants"] = model.rules.constants
        figures["accuracy_other_mode"] = _share(
            model.rules.values(other[own], model.bank.names).argmax(1) == target[own]
        )
    return Score(values, target, figures)


def class_figures(
    values: npt.NDArray[np.float64], target: npt.NDArray[np.int64], labels: npt.NDArray[np.int64],
    classes: Sequence[str], shares: npt.NDArray[np.float64] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Figures of class scores: accuracy with its interval, macro F1, one class against all others, calibration.

    Args:
        values: [n, classes]; above zero means yes.
        target: index of the right class, -1 for photographs of other classes, [n].
        labels: classes of the photographs, other ones told apart, [n].
        shares: what the model gives each class, [n, classes]; by default the softmax of the values.
    """
    shares = probabilities(values) if shares is None else shares
    own = target >= 0
    chosen = values[own].argmax(1)
    right = chosen == target[own]
    interval = bootstrap_ratio(right.astype(float), np.ones(len(right)))
    per_class, f1s, balanced = {}, [], []
    for c, name in enumerate(classes):
        true, said = target[own] == c, chosen == c
        precision, recall = _share(right[said]), _share(right[true])
        f1 = 0.0 if precision + recall == 0 else 2 * precision * recall / (precision + recall)
        yes = values[:, c] > 0
        rejected = _mean_by_class(~yes[target != c], labels[target != c])
        found = _share(yes[target == c])
        f1s.append(f1)
        balanced.append((found + rejected) / 2)
        per_class[name] = {
            "photographs": int(true.sum()), "precision": precision, "recall": recall, "f1": f1,
            "one_vs_rest": {"found": found, "rejected": rejected, "balanced": balanced[-1],
                            "auroc": auroc(values[:, c], target == c)},
        }  # fmt: skip
    return {
        **interval.as_dict("accuracy"), "macro_f1": float(np.mean(f1s)),
        "balanced_one_vs_rest": float(np.mean(balanced)), "per_class": per_class,
        "photographs": int(own.sum()), "negatives": int((~own).sum()),
        "calibration": calibration(shares[own], target[own]),
    }  # fmt: skip


def calibration(
    share: npt.NDArray[np.float64], target: npt.NDArray[np.int64], bins: int = 15
) -> dict[str, float]:  # fmt: skip
    """How far the shares that a model gives its classes can be believed.

    Expected calibration error of the winning class over equally wide bins of its share (Naeini, Cooper and Hauskrecht
    2015, with 15 bins as Guo et al. 2017), Brier score over all classes, and log loss in bits; smaller is better.

    Args:
        share: of each class, [n, classes].
        target: index of the right class, [n].
    """
    top = share.max(1)
    right = share.argmax(1) == target
    place = np.minimum((top * bins).astype(int), bins - 1)
    gaps = [
        abs(float(right[place == b].mean() - top[place == b].mean())) * (place == b).mean() for b in np.unique(place)
    ]
    wanted = np.eye(share.shape[1])[target]
    return {
        "expected_calibration_error": float(sum(gaps)), "brier": float(((share - wanted) ** 2).sum(1).mean()),
        "log_loss_bits": float(-np.log2(np.maximum(share[np.arange(len(target)), target], 1e-12)).mean()),
        "mean_share": float(top.mean()),
    }  # fmt: skip


def _per_concept(model: Any, images: ImageSet, scores: npt.NDArray[np.float64]) -> dict[str, Any]:
    """For each concept how well its node tells classes that have it from classes that do not, all classes alike."""
    out = {}
    for i, (name, said) in enumerate(model.concepts.items()):
        true = np.isin(images.labels, [images.classes.index(c) for c in said["true_of"] if c in images.classes])
        unclear = np.isin(images.labels, [images.classes.index(c) for c in said["unclear_of"] if c in images.classes])
        used = ~unclear & np.isin(
            images.labels, [images.classes.index(c) for c in model.config["trained_on"] if c in images.classes]
        )
        area = auroc(scores[used, i], true[used])
        out[name] = {"auroc": area, "polarity": "unknown" if np.isnan(area) else "right" if area > 0.5 else "inverted"}
        out[name]["auroc"] = None if np.isnan(area) else area
    return out


def auroc(scores: npt.NDArray[np.float64], truth: npt.NDArray[np.bool_]) -> float:
    """Area under the ROC curve, ties counted half; nan where one side is empty."""
    truth = np.asarray(truth, dtype=np.bool_)
    n1, n0 = int(truth.sum()), int((~truth).sum())
    if n1 == 0 or n0 == 0:
        return float("nan")
    order = np.argsort(scores, kind="stable")
    ordered = np.asarray(scores)[order]
    ranks = np.empty(len(ordered))
    _, start, count = np.unique(ordered, return_index=True, return_counts=True)
    ranks[order] = np.repeat(start + (count + 1) / 2, count)
    return float((ranks[truth].sum() - n1 * (n1 + 1) / 2) / (n1 * n0))


def _share(flags: npt.NDArray[Any]) -> float:
    return float(flags.mean()) if len(flags) else 0.0


def _mean_by_class(flags: npt.NDArray[np.bool_], labels: npt.NDArray[np.int64]) -> float:
    """Mean over classes of the share of each."""
    return float(np.mean([flags[labels == c].mean() for c in np.unique(labels)])) if len(flags) else float("nan")
