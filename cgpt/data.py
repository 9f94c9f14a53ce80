"""Tokens of a corpus and of its parts: what the build's jobs hand to each other."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cgpt.corpus import SourceFile
from cgpt.reads import N_READS, Alphabet, FileView
from ontology.io import load_tensors, save_tensors
from ontology.routers import Router

HELD_OUT_SHARE = 0.08
"""Share of the corpus, in bytes, whose files the tables and nets do not see while the mixer's weights are learned."""
MAX_MIXER_TOKENS = 250_000
"""The mixer learns from at most this many held-out tokens."""


def held_out_files(files: Sequence[SourceFile]) -> np.ndarray:
    """bool[files]: which files the mixer learns from, whole projects where there are enough, chosen by hash.

    With fewer than five projects single files are chosen instead. Never all files: a corpus of one file has none.
    """
    total = sum(len(file.data) for file in files)
    by_project = len({file.project for file in files}) >= 5
    groups: dict[str, list[int]] = {}
    for i, file in enumerate(files):
        groups.setdefault(file.project if by_project else file.sha256, []).append(i)
    chosen = np.zeros(len(files), dtype=np.bool_)
    taken = 0
    for name in sorted(groups, key=lambda name: hashlib.sha256(f"mixer {name}".encode()).digest()):
        size = sum(len(files[i].data) for i in groups[name])
        if taken >= HELD_OUT_SHARE * total:
            break
        # A project that would take far too much is passed over.
        if taken + size <= 1.5 * HELD_OUT_SHARE * total:
            chosen[groups[name]] = True
            taken += size
    if not chosen.any() and len(files) > 1:
        chosen[min(range(len(files)), key=lambda i: len(files[i].data))] = True
    return chosen


@dataclass(frozen=True)
class TokenizedCorpus:
    """`ids` uint16[N] of all files one after another, `offsets` int64[files + 1], `held_out` bool[files]."""

    ids: np.ndarray
    offsets: np.ndarray
    held_out: np.ndarray

    @property
    def n_files(self) -> int:
        """Files."""
        return len(self.held_out)

    def file(self, i: int) -> np.ndarray:
        """uint16[n]: tokens of file i."""
        return self.ids[self.offsets[i] : self.offsets[i + 1]]

    def joined(self, keep: np.ndarray) -> np.ndarray:
        """Tokens of the chosen files with a separator before, between and after: what the index is built from."""
        parts = [np.zeros(1, dtype=np.uint16)]
        for i in np.flatnonzero(keep).tolist():
            parts += [self.file(i), np.zeros(1, dtype=np.uint16)]
        return np.concatenate(parts)

    def mixer_files(self) -> list[int]:
        """Held-out files the mixer learns from: a random part of at most MAX_MIXER_TOKENS (at least one file).

        Not the smaller ones: in them the file's own past is worth little, and the mixer would learn just that.
        """
        files = np.flatnonzero(self.held_out)
        if not len(files):
            return []
        lengths = np.diff(self.offsets)[files]
        order = np.random.default_rng(0).permutation(len(files))
        within = np.cumsum(lengths[order]) <= MAX_MIXER_TOKENS
        if not within.any():
            within[0] = True
        return sorted(files[order[within]].tolist())

    def save(self, path: str | Path) -> None:
        """Write one safetensors file."""
        save_tensors(path, {"ids": self.ids, "offsets": self.offsets, "held_out": self.held_out})

    @staticmethod
    def load(path: str | Path) -> TokenizedCorpus:
        """Read what `save` wrote, memory-mapped."""
        return TokenizedCorpus(**load_tensors(path))


def views(corpus: TokenizedCorpus, files: Sequence[int], alphabet: Alphabet) -> Iterator[FileView]:
    """Follow each file to its end."""
    for i in files:
        ids = corpus.file(i)
        view = FileView(alphabet, len(ids) + 1)
        view.extend(ids)
        yield view


def choose_files(corpus: TokenizedCorpus, keep: np.ndarray, max_tokens: int, seed: int) -> list[int]:
    """Indices of kept files, all of them or a random part of at most `max_tokens` tokens."""
    files = np.flatnonzero(keep)
    if int(np.diff(corpus.offsets)[files].sum()) <= max_tokens:
        return files.tolist()
    order = np.random.default_rng(seed).permutation(files)
    within = np.cumsum(np.diff(corpus.offsets)[order]) <= max_tokens
    within[0] = True  # also where it alone is more: there must be something to learn from
    return sorted(order[within].tolist())


def training_rows(
    corpus: TokenizedCorpus, files: Sequence[int], alphabet: Alphabet, router: Router
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(reads uint16[N, N_READS], concept int32[N], targets uint16[N]) at every boundary of the files, ends included."""
    lengths = np.diff(corpus.offsets)[list(files)] + 1
    total = int(lengths.sum())
    reads = np.zeros((total, N_READS), dtype=np.uint16)
    concept = np.zeros(total, dtype=np.int32)
    targets = np.zeros(total, dtype=np.uint16)
    at = 0
    for view in views(corpus, files, alphabet):
        end = at + view.n + 1
        reads[at:end] = view.reads[: view.n + 1]
        concept[at:end] = router.route(view.fields[: view.n + 1])
        targets[at:end] = view.history[1 : view.n + 2]
        at = end
    return reads, concept, targets
