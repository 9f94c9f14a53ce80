"""A part world and models of it that are cheap enough for tests."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ontology.fit import Budget, Fitted
from ontology.progress import Progress
from ontology.store import Store
from vision.build import Recipe, build
from vision.concepts import Library
from vision.data import ImageSet, read_images
from vision.part_world import write_world

CLASSES = ("bus", "cup", "bee", "daisy")


@dataclass(frozen=True)
class SmallWorld:
    """Where it lies, its concepts, and both splits."""

    folder: Path
    library: Library
    train: ImageSet
    validation: ImageSet


def make_world(folder: Path) -> SmallWorld:
    """Write and read a part world."""
    data = write_world(folder / "data", per_class=(16, 5))
    images = [read_images(str(data), split, cache=folder / "cache") for split in ("train", "validation")]  # type: ignore[arg-type]
    return SmallWorld(data, Library.load(data / "ontology.yaml"), *images)


def build_small(world: SmallWorld, out: Path, steps: int = 60, store: Store | None = None, **recipe: Any) -> Fitted:
    """Build a small model."""
    made = Recipe(**{"classes": CLASSES, "hidden": (8, 12), **recipe})
    return build(world.train, world.library, out, Budget(steps=steps), made, store=store, progress=Progress(quiet=True))
