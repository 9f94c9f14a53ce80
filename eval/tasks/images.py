"""Photographs: accuracy, macro-F1, calibration, one class against the others, and the same on corrupted photographs.

Every figure is a ratio of sums over photographs, as for all tasks. Macro-F1, the balanced figure and the calibration
error are so by weights that are taken from all photographs of the source: each is exactly the usual figure over all of
them, and its interval takes the weights (sizes of the classes, number of photographs said to be of a class, and in
which direction a bin of confidence errs) for known.

`--data` names the photographs: a folder of class folders, Parquet files, or `part-world`; its `validation` split is
scored. A photograph of a class that the model does not know counts only as one that every class should reject.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import cast

import numpy as np

from eval.models import EvalModel
from eval.tasks.base import Example, Measured, Metric, Options, Task
from eval.vision_models import ImageModel, Pixels
from ontology.errors import ConstructibleError
from vision.data import ImageSet, read_images

SIDE = 64
"""Photographs are told apart by their pixels at this size, whatever size a model takes."""


@dataclass(frozen=True)
class Photograph:
    """Row `row` of a source's held-out photographs, of class `label`."""

    source: str
    row: int
    path: str
    label: str


def photographs(options: Options) -> list[Example]:
    """The held-out photographs; the cluster is the class."""
    images = read_images(options.data, "validation", size=SIDE)
    examples = []
    for row, (path, label) in enumerate(zip(images.paths, images.labels, strict=True)):
        name = images.classes[int(label)]
        # Weights of classes and calibration are worked out over all photographs, so a row counts for this set alone.
        whole = images.data_hash.encode() + np.ascontiguousarray(images.pixels[row]).tobytes() + name.encode()
        digest = hashlib.sha256(whole).hexdigest()
        photograph = Photograph(options.data, row, path, name)
        examples.append(Example(f"{row:06d} {path}", name, photograph, digest, images.fingerprints[row]))
    return examples


def _same(pixels: Pixels) -> Pixels:
    return pixels


def _dark(pixels: Pixels) -> Pixels:
    return (pixels * 0.5).astype(np.uint8)


def _flat(pixels: Pixels) -> Pixels:
    """A third of the contrast."""
    mean = pixels.mean(axis=(1, 2, 3), keepdims=True)
    return np.clip(mean + (pixels - mean) / 3, 0, 255).astype(np.uint8)


def _noise(pixels: Pixels) -> Pixels:
    """Gaussian noise of 20 grey values, the same for the same picture."""
    made = np.empty_like(pixels)
    for i, picture in enumerate(pixels):
        rng = np.random.default_rng(int.from_bytes(hashlib.sha256(picture.tobytes()).digest()[:8], "big"))
        made[i] = np.clip(picture + rng.normal(0, 20, picture.shape), 0, 255)
    return made


def _blur(pixels: Pixels) -> Pixels:
    """The mean of 3 x 3 neighbours, twice."""
    made: np.ndarray = pixels.astype(np.float32)
    height, width = pixels.shape[1], pixels.shape[2]
    for _ in range(2):
        padded = np.pad(made, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
        made = np.mean([padded[:, y : y + height, x : x + width] for y in range(3) for x in range(3)], axis=0)
    return made.astype(np.uint8)


CORRUPTIONS: dict[str, Callable[[Pixels], Pixels]] = {"dark": _dark, "flat": _flat, "noise": _noise, "blur": _blur}


BINS = 15
"""Bins of confidence, of equal width, for the calibration error (Guo and others 2017)."""


@dataclass(frozen=True)
class Judged:
    """All photographs of a source, judged: float64[n] each, 0 where a photograph's class is not known to the model.

    `f1` and `f1_weight` add up to macro-F1 and 1, `balanced` and `balanced_weight` to the balanced figure and 1 (times
    n), `calibration` to the expected calibration error times the known photographs.
    """

    shares: np.ndarray
    own: np.ndarray
    f1: np.ndarray
    f1_weight: np.ndarray
    balanced: np.ndarray
    balanced_weight: np.ndarray
    calibration: np.ndarray


def judge_all(values: np.ndarray, shares: np.ndarray, own: np.ndarray, labels: np.ndarray) -> Judged:
    """Judge the class values float64[n, C] of photographs.

    Args:
        shares: float64[n, C], the classes' probabilities.
        own: int64[n], index of the right class among the model's, -1 where it does not know it.
        labels: int64[n], class in the data.
    """
    n, n_classes = values.shape
    said, known = values.argmax(1), own >= 0
    f1, f1_weight = np.zeros(n), np.zeros(n)
    balanced, balanced_weight = np.zeros(n), np.zeros(n)
    present = np.unique(labels)
    # As many photographs as there are, whatever their classes: the mean of class means.
    sizes = np.bincount(labels, minlength=int(labels.max()) + 1)
    there = [c for c in range(n_classes) if (own == c).any()]
    for c in there:
        true, claimed = own == c, known & (said == c)
        weight = 1.0 / (len(there) * (true.sum() + claimed.sum()))
        f1 += 2 * weight * (true & claimed)
        f1_weight += weight * (true.astype(float) + claimed)
        yes, others = values[:, c] > 0, len(present) - len(np.unique(labels[true]))
        half = 0.5 / len(there)
        share = np.where(true, half / true.sum(), half / (max(others, 1) * sizes[labels]))
        balanced += share * np.where(true, yes, ~yes)
        balanced_weight += share
    confidence, calibration = shares.max(1), np.zeros(n)
    gap = confidence - (said == own)
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    for b in np.unique(bins[known]):
        rows = known & (bins == b)
        calibration[rows] = gap[rows] * np.sign(gap[rows].sum())
    return Judged(shares, own, n * f1, n * f1_weight, n * balanced, n * balanced_weight, calibration)


@lru_cache(maxsize=8)
def _judged(model: ImageModel, source: str, change: str) -> tuple[ImageSet, np.ndarray, Judged]:
    images, values = model.values_of(source, change, CORRUPTIONS.get(change, _same))
    own = images.labels_in(model.classes)
    return images, values, judge_all(values, model.shares(values), own, np.asarray(images.labels))


def _judge(model: ImageModel, photograph: Photograph, change: str) -> dict[str, float]:
    images, values, judged = _judged(model, photograph.source, change)
    i = photograph.row
    if images.paths[i] != photograph.path:
        # A picture that could not be decoded at one size and could at another would shift all rows.
        raise ConstructibleError(
            f"{photograph.path} is not where it was at {SIDE} pixels.", fix="leave out broken photographs",
            file=photograph.source,
        )  # fmt: skip
    row, own = values[i], int(judged.own[i])
    others = [c for c in range(len(model.classes)) if c != own]
    found = {
        "rejected": float((row[others] <= 0).sum()), "others": float(len(others)), "known": float(own >= 0),
        "f1": float(judged.f1[i]), "f1_weight": float(judged.f1_weight[i]), "balanced": float(judged.balanced[i]),
        "balanced_weight": float(judged.balanced_weight[i]),
    }  # fmt: skip
    if own >= 0:
        share = judged.shares[i]
        wanted = np.eye(len(row))[own]
        found |= {
            "correct": float(row.argmax() == own), "found": float(row[own] > 0),
            "bits": float(-np.log2(max(share[own], 1e-12))), "brier": float(((share - wanted) ** 2).sum()),
            "calibration": float(judged.calibration[i]),
        }  # fmt: skip
    return found


def measure(model: EvalModel, example: Example) -> Iterable[Measured]:
    """One photograph, and the same as a part: its class."""
    values = _judge(cast(ImageModel, model), example.data, "")
    yield Measured(values)
    # Macro-F1 and the balanced figure are about all classes together.
    own = {key: value for key, value in values.items() if not key.startswith(("f1", "balanced"))}
    yield Measured(own, example.data.label)


def measure_corrupted(model: EvalModel, example: Example) -> Iterable[Measured]:
    """One photograph, corrupted in several ways; a part for each way."""
    rows = {name: _judge(cast(ImageModel, model), example.data, name) for name in CORRUPTIONS}
    first = next(iter(rows.values()))
    yield Measured({key: sum(row[key] for row in rows.values()) for key in first})
    for name, row in rows.items():
        yield Measured(row, name)


_COLUMNS = (
    "correct", "known", "found", "rejected", "others", "bits", "brier", "f1", "f1_weight", "balanced",
    "balanced_weight", "calibration",
)  # fmt: skip
_METRICS = (
    Metric("accuracy", "correct", "known", percent=True),
    Metric("macro F1", "f1", "f1_weight"),
    Metric("one against all, balanced", "balanced", "balanced_weight", percent=True),
    Metric("own class found", "found", "known", percent=True),
    Metric("other classes rejected", "rejected", "others", percent=True),
    Metric("log loss in bits", "bits", "known", "lower"),
    Metric("Brier score", "brier", "known", "lower"),
    Metric("calibration error", "calibration", "known", "lower"),
)
IMAGES = Task(
    "images", 2, "How well does the model tell photographs apart that it has not seen?", _COLUMNS, _METRICS,
    photographs, measure, frozenset({"classify"}),
)  # fmt: skip
CORRUPTED = Task(
    "corrupted", 2, "How well does it do on dark, flat, noisy and blurred photographs?", _COLUMNS, _METRICS,
    photographs, measure_corrupted, frozenset({"classify"}),
)  # fmt: skip
