"""Few photographs of each class: can what a model says be used for classes from one or five examples?

An episode draws five classes of the data. A class is the mean of what the model says of its one or five training
photographs (concept scores; class values where it has no concepts); a photograph goes to the nearest, by cosine. The
same episodes for all models. Classes that a model was trained on may be among them: `known` counts the photographs of
episodes all of whose classes it knows.

Method: prototypes as in Snell, Swersky and Zemel (2017), on what a model says instead of a trained embedding.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import cast

import numpy as np

from eval.models import EvalModel
from eval.tasks.base import Example, Measured, Metric, Options, Task
from eval.vision_models import ImageModel
from ontology.errors import ConstructibleError
from vision.data import read_images

EPISODES, WAYS, SHOTS, QUERIES = 100, 5, (1, 5), 5
SIDE = 64


@dataclass(frozen=True)
class Episode:
    """Rows of a source: `shots` [ways, most shots] of the training photographs, `queries` [ways, queries] held out."""

    source: str
    classes: tuple[str, ...]
    shots: tuple[tuple[int, ...], ...]
    queries: tuple[tuple[int, ...], ...]


def episodes(options: Options) -> list[Example]:
    """The episodes; each is a cluster of its own.

    Raises:
        ConstructibleError: fewer than two classes, or too few photographs of one.
    """
    train, held = read_images(options.data, size=SIDE), read_images(options.data, "validation", size=SIDE)
    classes = [
        name for name in held.classes
        if name in train.classes and len(train.rows_of(name)) >= max(SHOTS) and len(held.rows_of(name)) >= QUERIES
    ]  # fmt: skip
    if len(classes) < 2:
        raise ConstructibleError(
            f"fewer than two classes have {max(SHOTS)} photographs to learn from and {QUERIES} held out.",
            fix="give more photographs", file=options.data,
        )  # fmt: skip
    made = []
    for number in range(EPISODES):
        rng = np.random.default_rng((3, number))
        names = tuple(classes[i] for i in rng.permutation(len(classes))[: min(WAYS, len(classes))])
        shots = tuple(tuple(rng.permutation(train.rows_of(name))[: max(SHOTS)].tolist()) for name in names)
        queries = tuple(tuple(rng.permutation(held.rows_of(name))[:QUERIES].tolist()) for name in names)
        episode = Episode(options.data, names, shots, queries)
        digest = hashlib.sha256(f"{train.data_hash} {held.data_hash} {names} {shots} {queries}".encode()).hexdigest()
        prints = tuple(held.fingerprints[i] for rows in queries for i in rows) if held.fingerprints else ()
        name = f"episode {number:03d}"
        made.append(Example(name, name, episode, digest, fingerprints=prints))
    return made


@lru_cache(maxsize=2)
def _said(model: ImageModel, source: str, split: str) -> np.ndarray:
    images = read_images(source, split, size=model.size)  # type: ignore[arg-type]
    said = model.features(images.pixels)
    return said - said.mean(0)


def measure(model: EvalModel, example: Example) -> Iterable[Measured]:
    """One episode; a part for each number of shots."""
    images, episode = cast(ImageModel, model), cast(Episode, example.data)
    train, held = (_unit(_said(images, episode.source, split)) for split in ("train", "validation"))
    queries = held[np.array(episode.queries)]  # [ways, queries, d]
    wanted = np.arange(len(episode.classes))[:, None]
    known = float(set(episode.classes) <= set(images.classes)) * queries.shape[0] * queries.shape[1]
    parts = {}
    for shots in SHOTS:
        centres = _unit(train[np.array(episode.shots)[:, :shots]].mean(1))
        right = (queries @ centres.T).argmax(2) == wanted
        parts[shots] = {"right": float(right.sum()), "photographs": float(right.size), "known": known}
    yield Measured({key: sum(part[key] for part in parts.values()) for key in parts[SHOTS[0]]})
    for shots, part in parts.items():
        yield Measured(part, f"{shots} each")


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-12)


FEW_SHOT = Task(
    "few-shot", 1, "Can what the model says be used for other classes, from one or five photographs of each?",
    ("right", "photographs", "known"),
    (Metric("right", "right", "photographs", percent=True),
     Metric("of episodes of known classes", "known", "photographs", "neither", percent=True)),
    episodes, measure, frozenset({"classify"}),
)  # fmt: skip
