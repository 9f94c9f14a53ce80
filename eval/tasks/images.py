"""Photographs: accuracy, calibration, one class against the others, and the same on corrupted photographs.

`--data` names the photographs: a folder of class folders, Parquet files, or `part-world`; its `validation` split is
scored. A photograph of a class that the model does not know counts only as one that every class should reject.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import cast

import numpy as np

from eval.models import EvalModel
from eval.tasks.base import Example, Measured, Metric, Options, Task
from eval.vision_models import ImageModel, Pixels
from ontology.errors import ConstructibleError
from vision.data import read_images

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
        digest = hashlib.sha256(np.ascontiguousarray(images.pixels[row]).tobytes() + name.encode()).hexdigest()
        photograph = Photograph(options.data, row, path, name)
        examples.append(Example(f"{row:06d} {path}", name, photograph, digest, digest[:16]))
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


def _judge(
    model: ImageModel, photograph: Photograph, change: str, apply: Callable[[Pixels], Pixels]
) -> dict[str, float]:
    images, values = model.values_of(photograph.source, change, apply)
    if images.paths[photograph.row] != photograph.path:
        # A picture that could not be decoded at one size and could at another would shift all rows.
        raise ConstructibleError(
            f"{photograph.path} is not where it was at {SIDE} pixels.", fix="leave out broken photographs",
            file=photograph.source,
        )  # fmt: skip
    row = values[photograph.row]
    known = photograph.label in model.classes
    own = model.classes.index(photograph.label) if known else -1
    others = [c for c in range(len(model.classes)) if c != own]
    judged = {"rejected": float((row[others] <= 0).sum()), "others": float(len(others)), "known": float(known)}
    if known:
        share = np.exp(row - row.max())
        share /= share.sum()
        wanted = np.eye(len(row))[own]
        judged |= {
            "correct": float(row.argmax() == own), "found": float(row[own] > 0),
            "bits": float(-np.log2(max(share[own], 1e-12))), "brier": float(((share - wanted) ** 2).sum()),
        }  # fmt: skip
    return judged


def measure(model: EvalModel, example: Example) -> Iterable[Measured]:
    """One photograph, and the same as a part: its class."""
    values = _judge(cast(ImageModel, model), example.data, "", _same)
    yield Measured(values)
    yield Measured(values, example.data.label)


def measure_corrupted(model: EvalModel, example: Example) -> Iterable[Measured]:
    """One photograph, corrupted in several ways; a part for each way."""
    rows = {name: _judge(cast(ImageModel, model), example.data, name, apply) for name, apply in CORRUPTIONS.items()}
    first = next(iter(rows.values()))
    yield Measured({key: sum(row[key] for row in rows.values()) for key in first})
    for name, row in rows.items():
        yield Measured(row, name)


_COLUMNS = ("correct", "known", "found", "rejected", "others", "bits", "brier")
_METRICS = (
    Metric("accuracy", "correct", "known", percent=True),
    Metric("own class found", "found", "known", percent=True),
    Metric("other classes rejected", "rejected", "others", percent=True),
    Metric("log loss in bits", "bits", "known", "lower"),
    Metric("Brier score", "brier", "known", "lower"),
)
IMAGES = Task(
    "images", 1, "How well does the model tell photographs apart that it has not seen?", _COLUMNS, _METRICS,
    photographs, measure, frozenset({"classify"}),
)  # fmt: skip
CORRUPTED = Task(
    "corrupted", 1, "How well does it do on dark, flat, noisy and blurred photographs?", _COLUMNS, _METRICS,
    photographs, measure_corrupted, frozenset({"classify"}),
)  # fmt: skip
