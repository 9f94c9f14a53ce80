"""Scores: bits of each token, whether the most probable token was right, and what that adds up to.

Bits per byte are over a file's raw UTF-8 bytes and include its end.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from cgpt.corpus import Corpus, SourceFile, read_corpora
from ontology.environment import single_threaded_products, threads
from ontology.errors import ConstructibleError
from ontology.io import read_json


class Scorer(Protocol):
    """A model in one of the settings."""

    concepts: tuple[str, ...]

    def score_file(self, data: bytes, path: str = "", project: str = "") -> FileScore:
        """Bits of every token of a file and of its end."""
        ...


@dataclass(frozen=True)
class FileScore:
    """One file of n tokens: arrays of n + 1, the last entry is the end of the file.

    `bits` float64, `correct` bool, `concept` int32 (index into the model's `concepts`), `token_bytes` int32.
    """

    path: str
    project: str
    n_bytes: int
    bits: np.ndarray
    correct: np.ndarray
    concept: np.ndarray
    token_bytes: np.ndarray


@dataclass(frozen=True)
class Score:
    """A model on a set of files."""

    files: list[FileScore]
    concepts: tuple[str, ...]
    seconds: float

    @property
    def bits(self) -> np.ndarray:
        """float64[files]: bits of each file."""
        return np.array([file.bits.sum() for file in self.files])

    @property
    def n_bytes(self) -> np.ndarray:
        """int64[files]."""
        return np.array([file.n_bytes for file in self.files])

    @property
    def n_correct(self) -> np.ndarray:
        """int64[files]: tokens predicted right."""
        return np.array([int(file.correct.sum()) for file in self.files])

    @property
    def n_tokens(self) -> np.ndarray:
        """int64[files]: tokens, the end of each file included."""
        return np.array([len(file.bits) for file in self.files])

    @property
    def bits_per_byte(self) -> float:
        """Bits of all files by bytes of all files."""
        return float(self.bits.sum() / self.n_bytes.sum())

    @property
    def accuracy(self) -> float:
        """Share of tokens, ends included, where the most probable token was right."""
        return float(self.n_correct.sum() / self.n_tokens.sum())

    def per_concept(self) -> dict[str, dict[str, float]]:
        """For each concept in charge somewhere: `tokens`, `bytes`, `bits`, `accuracy`, `bits_per_byte` (of the whole:
        the concept's bits by all bytes, so that they add up to the model's figure)."""
        size = len(self.concepts)
        columns = {name: np.zeros(size) for name in ("tokens", "bytes", "bits", "correct")}
        for file in self.files:
            for name, weights in (
                ("tokens", None), ("bytes", file.token_bytes), ("bits", file.bits), ("correct", file.correct),
            ):  # fmt: skip
                columns[name] += np.bincount(file.concept, weights, size)
        total = float(self.n_bytes.sum())
        return {
            name: {
                "tokens": int(columns["tokens"][c]),
                "bytes": int(columns["bytes"][c]),
                "bits": float(columns["bits"][c]),
                "accuracy": float(columns["correct"][c] / columns["tokens"][c]),
                "bits_per_byte": float(columns["bits"][c] / total),
            }
            for c, name in enumerate(self.concepts)
            if columns["tokens"][c]
        }

    def as_json(self) -> dict[str, Any]:
        """The keys of `score --json`."""
        return {
            "bits_per_byte": self.bits_per_byte,
            "bytes": int(self.n_bytes.sum()),
            "tokens": int(self.n_tokens.sum()),
            "accuracy": self.accuracy,
            "bytes_per_token": float(self.n_bytes.sum() / self.n_tokens.sum()),
            "seconds": self.seconds,
            "files": len(self.files),
            "per_concept": self.per_concept(),
        }


def score_files(model: Scorer, files: Sequence[SourceFile], advance: Callable[[int], None] | None = None) -> Score:
    """Score every file on its own; `advance` is told the bytes done after each.

    A model that says it is `concurrent` is asked by as many threads as numeric libraries use; the scores are the
    same bit for bit.
    """
    started = time.monotonic()
    scores: list[FileScore] = []

    def score(file: SourceFile) -> FileScore:
        return model.score_file(file.data, path=file.path, project=file.project)

    workers = threads() if getattr(model, "concurrent", False) else 1
    # From here, since OpenBLAS heeds the setting of the main thread alone.
    with single_threaded_products(), ThreadPoolExecutor(workers) as pool:
        for file, made in zip(files, pool.map(score, files), strict=True):
            scores.append(made)
            if advance is not None:
                advance(len(file.data))
    return Score(scores, model.concepts, time.monotonic() - started)


def known_files(folder: str | Path, files: Sequence[SourceFile]) -> int | None:
    """How many of the files a model was built from, layout aside; None where its folder does not list them. Its figures
    on those say how well it remembers."""
    path = Path(folder) / "training_files.json"
    if not path.is_file():
        return None
    trained = set(read_json(path)["files"])
    return sum(file.fingerprint in trained for file in files)


def read_paths(paths: Iterable[str], max_file_bytes: int = 1_000_000) -> Corpus:
    """Files of several PATHs (a .py file, a folder, a Parquet file, `stdlib:held-out`) as one corpus; duplicates once,
    and those that cannot be used listed.

    Raises:
        ConstructibleError: nothing in them can be used.
    """
    names = list(paths)
    if not names:
        raise ConstructibleError("no files to score.", fix="name a .py file, a folder or a Parquet file")
    return read_corpora(names, max_file_bytes=max_file_bytes)
