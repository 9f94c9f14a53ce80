"""Parts of test files that stand in training files: runs of lines that both have, indentation and comments aside.

A file that stands whole in training is found by its fingerprint (`SourceFile.fingerprint`). Here it is parts: every
run of `RUN` counted lines of the training files leaves a 64-bit fingerprint; a line of a test file is *shared* where a
run through it has a fingerprint of training. All runs are kept, not a sample of them (the winnowing of Schleimer,
Wilkerson and Aiken 2003 keeps about one of five): eight bytes a line are cheap enough, and no copy of `RUN` lines or
more gets through.

Blank lines, comments and lines with fewer than `LETTERS` letters and digits do not count: `else:`, `)` and licence
headers are nobody's. A file is called partly copied from `MIN_LINES` shared lines and `MIN_SHARE` of its counted lines
on; how often that is wrong is measured in docs/experiments/copies.md.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cgpt.corpus import SourceFile

RUN = 5
LETTERS = 6
MIN_LINES, MIN_SHARE = 12, 0.3
_MIX = np.uint64(0x9E3779B97F4A7C15)
_ODD = np.uint64(0xBF58476D1CE4E5B9)
_SHIFT = np.uint64(29)
Prints = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class Shared:
    """What a test file has in common with training: `shared` of its `counted` lines, the `longest` run of them."""

    shared: int
    counted: int
    longest: int

    @property
    def share(self) -> float:
        """Of the counted lines; 0 where none counts."""
        return self.shared / self.counted if self.counted else 0.0

    @property
    def copied(self) -> bool:
        """Whether the file is partly copied, by the threshold of this module."""
        return self.shared >= MIN_LINES and self.share >= MIN_SHARE


def counted_lines(data: bytes) -> list[bytes]:
    """The lines that count, without white space at their ends and inside."""
    kept = []
    for line in data.splitlines():
        text = b"".join(line.split())
        if len(text) >= LETTERS and not text.startswith(b"#"):
            letters = sum(map(text.count, _RARE))
            if len(text) - letters >= LETTERS:
                kept.append(text)
    return kept


_RARE = [bytes([c]) for c in b"()[]{}:,.\"'=+-*/<>"]
"""What is not a letter or a digit in most lines; counted by these alone, which is quick."""


def prints_of(data: bytes) -> Prints:
    """Fingerprints uint64[max(0, n - RUN + 1)] of the runs of a file's n counted lines, in order."""
    lines = np.fromiter(map(zlib.crc32, counted_lines(data)), dtype=np.uint64)
    if len(lines) < RUN:
        return np.zeros(0, np.uint64)
    mixed = np.zeros(len(lines) - RUN + 1, np.uint64)
    for i in range(RUN):
        mixed = (mixed ^ lines[i : i + len(mixed)]) * _MIX
        mixed = (mixed ^ (mixed >> _SHIFT)) * _ODD
    return mixed


class Known:
    """The fingerprints of a training corpus, sorted."""

    def __init__(self, files: Iterable[SourceFile]) -> None:
        found = [prints_of(file.data) for file in files]
        self.prints = np.unique(np.concatenate(found)) if found else np.zeros(0, np.uint64)

    def shared(self, data: bytes) -> Shared:
        """What a file has in common with the corpus."""
        prints = prints_of(data)
        if not len(prints) or not len(self.prints):
            return Shared(0, len(prints) + RUN - 1 if len(prints) else len(counted_lines(data)), 0)
        at = np.minimum(np.searchsorted(self.prints, prints), len(self.prints) - 1)
        covered = np.zeros(len(prints) + RUN - 1, np.bool_)
        for start in np.flatnonzero(self.prints[at] == prints):
            covered[start : start + RUN] = True
        return Shared(int(covered.sum()), len(covered), _longest(covered))


def _longest(covered: npt.NDArray[np.bool_]) -> int:
    edges = np.flatnonzero(np.diff(np.concatenate([[0], covered.astype(np.int8), [0]])))
    return int((edges[1::2] - edges[::2]).max()) if len(edges) else 0
