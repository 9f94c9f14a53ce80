"""Bits per byte in the dynamic setting: a model learns from each file of a project after it was scored on it.

An example is a project: its files by path, each scored before it is learned, from the model as it was built. The same
bytes as of the task `bits`, so that the two figures side by side are what adapting is worth.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import cast

import numpy as np

from cgpt.corpus import SourceFile
from cgpt.score import read_paths
from eval.models import EvalModel, Ours
from eval.tasks.base import Example, Measured, Metric, Options, Task


def projects(options: Options) -> list[Example]:
    """The projects of the files to score, each an example and a cluster."""
    found: dict[str, list[SourceFile]] = {}
    for file in read_paths([options.data]).files:
        found.setdefault(file.project, []).append(file)
    examples = []
    for name, files in found.items():
        files = sorted(files, key=lambda file: (file.path, file.sha256))
        digest = hashlib.sha256(" ".join(f"{file.path} {file.sha256}" for file in files).encode()).hexdigest()
        prints, texts = tuple(file.fingerprint for file in files), {file.path: file.data for file in files}
        examples.append(Example(name, name, files, digest, fingerprints=prints, texts=texts))
    return examples


def measure(model: EvalModel, example: Example) -> Iterable[Measured]:
    """One project, and by how many files of it were read before."""
    learning = cast(Ours, model).learning()
    rows = []
    for file in cast(list[SourceFile], example.data):
        score = learning.score_file(file.data, file.path, file.project)
        rows.append([score.bits.sum(), len(file.data), len(score.bits), score.correct.sum(), 1.0])
    table = np.array(rows, dtype=np.float64)
    names = ("bits", "bytes", "tokens", "correct", "files")
    yield Measured(dict(zip(names, table.sum(0).tolist(), strict=True)))
    for part, some in (("first file", table[:1]), ("2nd to 5th", table[1:5]), ("later files", table[5:])):
        if len(some):
            yield Measured(dict(zip(names, some.sum(0).tolist(), strict=True)), part)


DYNAMIC = Task(
    name="dynamic",
    version=1,
    question="How well does the model predict a project's code when it learns from the project's files as it goes?",
    columns=("bits", "bytes", "tokens", "correct", "files"),
    metrics=(
        Metric("bits per byte", "bits", "bytes", "lower"),
        Metric("next-token accuracy", "correct", "tokens", percent=True, own_units=True),
    ),
    load=projects,
    measure=measure,
    needs=frozenset({"dynamic"}),
)
