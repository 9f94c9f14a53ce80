"""Caches of files read before: what followed the same context earlier in this project, and earlier in this directory.

They hold nothing in the static setting. In the dynamic one (`cgpt.dynamic`) each file is added to the caches of its
project and of its directory after it was scored. A cache counts like the file's own past does (`cgpt.counts`): the most
recent occurrences of a context, at the same context lengths. How far they are believed beside the static distribution
is the product of three factors, of the level and how often and surely it was seen, of the concept in charge, and of how
sure the net is; the static distribution has the factor 1.

Method: cache language models (Kuhn and De Mori 1990), nested by scope as in Hellendoorn and Devanbu (2017).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from cgpt import counts
from cgpt.compiled import compiled
from cgpt.counts import FILE_LEVELS, N_FILE_LEVELS

SCOPES = ("project", "directory")
N_CACHE_LEVELS = len(SCOPES) * N_FILE_LEVELS
CACHE_LEVELS = tuple(f"{scope} {k}" for scope in SCOPES for k in FILE_LEVELS)

_LEVELS = np.array(FILE_LEVELS, dtype=np.int64)
_SMALLEST = 1 << 10


class CacheArrays(NamedTuple):
    """What compiled code sees of a cache: `history` uint16[n] tokens, a separator before each file and at the end;
    `keys` uint64 and `heads` int32 [N_FILE_LEVELS, power of two], `previous` int32[N_FILE_LEVELS, n] as in
    `counts.extend_file_index`. Without columns: an empty cache."""

    history: np.ndarray
    keys: np.ndarray
    heads: np.ndarray
    previous: np.ndarray


class CacheTables(NamedTuple):
    """Logarithms of the factors: `level` float64[N_CACHE_LEVELS, N_BUCKETS], `by_concept` [C, N_CACHE_LEVELS],
    `by_confidence` [N_CONFIDENCE, N_CACHE_LEVELS]."""

    level: np.ndarray
    by_concept: np.ndarray
    by_confidence: np.ndarray


def no_cache() -> CacheArrays:
    """An empty cache."""
    n = N_FILE_LEVELS
    return CacheArrays(
        np.zeros(1, np.uint16), np.zeros((n, 0), np.uint64), np.zeros((n, 0), np.int32), np.zeros((n, 0), np.int32)
    )  # fmt: skip


EMPTY = (no_cache(), no_cache())
"""The caches of the static setting."""
NO_TABLES = CacheTables(np.zeros((0, 0)), np.zeros((0, 0)), np.zeros((0, 0)))


class Cache:
    """A cache that grows file by file."""

    def __init__(self) -> None:
        self._n = 1
        self._history = np.zeros(_SMALLEST, dtype=np.uint16)
        self._known = 1
        self._reserve(0)

    def _reserve(self, more: int) -> None:
        size = len(self._history)
        if self._n + more > size or not hasattr(self, "_keys"):
            while size < self._n + more:
                size *= 2
            self._history = np.concatenate([self._history[: self._n], np.zeros(size - self._n, np.uint16)])
            self._keys = np.zeros((N_FILE_LEVELS, 2 * size), dtype=np.uint64)
            self._heads = np.full((N_FILE_LEVELS, 2 * size), -1, dtype=np.int32)
            self._previous = np.full((N_FILE_LEVELS, size), -1, dtype=np.int32)
            counts.extend_file_index(self._history, 1, self._n, self._keys, self._heads, self._previous)

    def add(self, ids: np.ndarray) -> None:
        """Add a file: uint16[n] its tokens, without separators."""
        self._reserve(len(ids) + 1)
        begin = self._n
        self._history[begin : begin + len(ids)] = ids
        self._n = begin + len(ids) + 1  # the separator after it is zero already
        counts.extend_file_index(self._history, begin, self._n, self._keys, self._heads, self._previous)

    def arrays(self) -> CacheArrays:
        """What compiled code takes; valid until the next `add`."""
        if self._n == 1:
            return no_cache()
        return CacheArrays(self._history[: self._n], self._keys, self._heads, self._previous)


@compiled
def last_occurrences(history, i, cache, last):  # pragma: no cover - compiled
    """Write to `last` int64[N_FILE_LEVELS] the latest position of the cache with each context that ends before
    position i of `history`; -1: none."""
    last[:] = -1
    if cache.heads.shape[1] == 0:
        return
    h = np.uint64(1)
    depth = 0
    for level in range(N_FILE_LEVELS):
        k = _LEVELS[level]
        while depth < k and i - depth - 1 >= 0:
            h = counts.extend_hash(h, history[i - depth - 1])
            depth += 1
        if depth < k:
            return
        slot = counts.hash_slot(cache.keys, cache.heads, level, h)
        if cache.heads[level, slot] < 0:
            return
        last[level] = cache.heads[level, slot]


@compiled
def cache_targets(history, begin, end, caches, n_tokens, buckets, shares):  # pragma: no cover - compiled
    """What the caches say of the tokens at positions begin..end-1 of `history`: row i - begin of `buckets`
    uint8[m, N_CACHE_LEVELS] (ABSENT: never seen) and `shares` float32[m, N_CACHE_LEVELS]."""
    stamp = np.zeros(n_tokens, dtype=np.int64)
    last = np.zeros(N_FILE_LEVELS, dtype=np.int64)
    mark = 0
    for i in range(begin, end):
        buckets[i - begin] = counts.ABSENT
        column = 0
        for cache in caches:
            last_occurrences(history, i, cache, last)
            for level in range(N_FILE_LEVELS):
                if last[level] >= 0:
                    mark += 1
                    n, t, c = counts.recent(cache.history, cache.previous, level, last[level], history[i], stamp, mark)
                    buckets[i - begin, column] = counts.bucket(n, t)
                    shares[i - begin, column] = c / n
                column += 1


@compiled
def add_caches(history, i, caches, tables, concept, step, out, stamp, mark):  # pragma: no cover - compiled
    """Weigh what the caches say of position i of `history` into `out` float64[V], the static distribution.

    `concept` and `step` (of the net's confidence) choose the tables' rows; `stamp` int64[V] and `mark` int64[1] are
    scratch that is kept between calls. Returns the weight that is left to the static distribution.
    """
    last = np.zeros((len(caches), N_FILE_LEVELS), dtype=np.int64)
    sizes = np.zeros(N_CACHE_LEVELS)
    weights = np.zeros(N_CACHE_LEVELS)
    total = 1.0
    column = 0
    for which, cache in enumerate(caches):
        last_occurrences(history, i, cache, last[which])
        for level in range(N_FILE_LEVELS):
            if last[which, level] >= 0:
                mark[0] += 1
                n, t, _ = counts.recent(cache.history, cache.previous, level, last[which, level], 0, stamp, mark[0])
                sizes[column] = n
                weights[column] = np.exp(
                    tables.level[column, counts.bucket(n, t)]
                    + tables.by_concept[concept, column]
                    + tables.by_confidence[step, column]
                )
                total += weights[column]
            column += 1
    if total == 1.0:
        return 1.0
    for v in range(len(out)):
        out[v] /= total
    column = 0
    for which, cache in enumerate(caches):
        for level in range(N_FILE_LEVELS):
            if sizes[column] > 0.0:
                share = weights[column] / (total * sizes[column])
                j = last[which, level]
                for _ in range(int(sizes[column])):
                    out[cache.history[j]] += share
                    j = cache.previous[level, j]
            column += 1
    return 1.0 / total
