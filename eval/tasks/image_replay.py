"""Predictions about photographs, worked out again from what was said of them by code that the model does not use.

The independent checker (`vision.replay`) reads the rules with an interpreter of its own, which must give the class
values bit for bit, and works concept scores out again from the nodes' files, to the last decimal shown.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import lru_cache
from typing import cast

import numpy as np

from eval.models import EvalModel
from eval.tasks.base import Example, Measured, Metric, Task
from eval.tasks.images import Photograph, photographs
from eval.vision_models import BATCH, OurImages
from vision.bank import primitives
from vision.data import read_images
from vision.model import Constructed
from vision.replay import compare, record


@lru_cache(maxsize=4)
def _failed(model: OurImages, source: str, begin: int) -> dict[int, list[str]]:
    """Rows of `BATCH` photographs whose prediction does not follow, and why."""
    assert isinstance(model.model, Constructed)
    images = read_images(source, "validation", size=model.size)
    pixels = np.array(images.pixels[begin : begin + BATCH])
    names = [str(begin + i) for i in range(len(pixels))]
    said = json.loads(json.dumps(record(model.model, pixels, names)))
    found = compare(model.folder, said, primitives(pixels))
    return {int(one["name"]): one["why"] for one in found["failed"]}


def measure(model: EvalModel, example: Example) -> Iterable[Measured]:
    """One photograph."""
    photograph = cast(Photograph, example.data)
    row = photograph.row
    why = _failed(cast(OurImages, model), photograph.source, row - row % BATCH).get(row)
    yield Measured({"replayed": float(why is None), "predictions": 1.0}, detail=why)


IMAGE_REPLAY = Task(
    "image-replay", 1, "Does every prediction follow from the files, by code that does not know the model?",
    ("replayed", "predictions"), (Metric("predictions replayed", "replayed", "predictions", percent=True, digits=4),),
    photographs, measure, frozenset({"replay-images"}),
)  # fmt: skip
