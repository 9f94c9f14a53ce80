"""Match index: every place in the corpus where the text before it ended like the text here.

The index is a suffix array over the *reversed* token sequence. In that order all positions whose last `k` tokens agree
stand side by side, for every `k` at once, so the followers of a context of any length are one slice of `followers` and
the slices of longer contexts are nested in those of shorter ones. Nothing is trained: the arrays are a sorting of the
corpus, each entry is one position in one file, and so each count can be traced to file, line and licence, and removed.

Contexts never cross the separator (token 0) that stands before each file.

Method: suffix arrays for unbounded n-grams, cf. Liu et al. 2024 (infini-gram); sorting by divsufsort (Mori).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cgpt.compiled import compiled
from ontology.io import load_tensors, save_tensors

SEPARATOR = 0
LEVELS = (1, 2, 3, 4, 5, 6, 8, 11, 16, 24, 32)
"""Context lengths, in tokens, at which followers are counted."""
N_LEVELS = len(LEVELS)
HEAVY = 128
"""A context with more followers than this has its histogram stored; a lighter one is counted when it is asked for."""

_LEVELS = np.array(LEVELS, dtype=np.int64)


@dataclass(frozen=True)
class CorpusIndex:
    """Sorted contexts of a token sequence and the histograms of the frequent ones.

    Shapes: `tokens` uint16[N] (separator first, after each file a separator); `order` int32[N-1] positions sorted by
    reversed context; `followers` uint16[N-1] the token at each of them; `first` int64[V+1] slices of contexts of
    length one; `unigram` int64[V] how often each token follows anything; `heavy_*` histograms in CSR form, level by
    level: contexts `heavy_level[l]:heavy_level[l+1]`, each with its slice start `heavy_low` and its entries
    `heavy_start[c]:heavy_start[c+1]` in `heavy_tokens` (ascending) and `heavy_counts`.
    """

    tokens: np.ndarray
    order: np.ndarray
    followers: np.ndarray
    first: np.ndarray
    unigram: np.ndarray
    heavy_level: np.ndarray
    heavy_low: np.ndarray
    heavy_start: np.ndarray
    heavy_tokens: np.ndarray
    heavy_counts: np.ndarray

    @staticmethod
    def build(tokens: np.ndarray, vocab_size: int) -> CorpusIndex:
        """Sort the contexts of `tokens` uint16[N]; `tokens[0]` and each file's end must be the separator."""
        from pydivsufsort import divsufsort

        n = len(tokens)
        if n < 2 or tokens[0] != SEPARATOR or tokens[-1] != SEPARATOR:
            raise ValueError("tokens must begin and end with the separator 0")
        suffixes = divsufsort(np.ascontiguousarray(tokens[::-1]))
        order = (n - suffixes[suffixes != 0]).astype(np.int32)
        return CorpusIndex.of_order(tokens, order, vocab_size)

    @staticmethod
    def of_order(tokens: np.ndarray, order: np.ndarray, vocab_size: int) -> CorpusIndex:
        """Count the contexts of positions `order` int32[n], sorted by reversed context: all of them, or some files'."""
        followers = tokens[order]
        first = np.zeros(vocab_size + 1, dtype=np.int64)
        first[1:] = np.cumsum(np.bincount(tokens[order - 1], minlength=vocab_size))
        unigram = np.bincount(followers, minlength=vocab_size).astype(np.int64)
        shared = _shared_lengths(tokens, order, LEVELS[-1])
        heavy = _heavy_histograms(followers, shared, _LEVELS, HEAVY, vocab_size)
        return CorpusIndex(tokens, order, followers, first, unigram, *heavy)

    def arrays(self) -> tuple[np.ndarray, ...]:
        """All arrays in the order that the compiled functions of `cgpt.counts` take them."""
        return tuple(getattr(self, name) for name in self.__dataclass_fields__)

    def save(self, path: str | Path) -> None:
        """Write one safetensors file."""
        save_tensors(path, {name: getattr(self, name) for name in self.__dataclass_fields__})

    @staticmethod
    def load(path: str | Path) -> CorpusIndex:
        """Map the file into memory; pages are read when they are touched."""
        tensors = load_tensors(path)
        return CorpusIndex(**{name: tensors[name] for name in CorpusIndex.__dataclass_fields__})

    @property
    def n_entries(self) -> int:
        """Table entries: sorted positions plus stored histogram entries."""
        return len(self.order) + len(self.heavy_tokens)


@compiled
def _shared_lengths(tokens, order, limit):  # pragma: no cover - compiled
    """uint8[n]: tokens that context j shares with context j-1, counted to `limit` and not past a separator."""
    shared = np.zeros(len(order), dtype=np.uint8)
    for j in range(1, len(order)):
        a, b = order[j - 1], order[j]
        k = 0
        while k < limit and a - k - 1 >= 0 and b - k - 1 >= 0:
            token = tokens[a - k - 1]
            if token != tokens[b - k - 1]:
                break
            k += 1
            if token == 0:
                # Equal up to the start of both files: nothing further is ever compared.
                k = limit
                break
        shared[j] = k
    return shared


@compiled
def _heavy_histograms(followers, shared, levels, heavy, vocab_size):  # pragma: no cover - compiled
    n = len(followers)
    level_start = np.zeros(len(levels) + 1, dtype=np.int64)
    # First pass counts, second pass fills.
    n_contexts = 0
    n_entries = 0
    counts = np.zeros(vocab_size, dtype=np.int32)
    low = np.zeros(0, dtype=np.int32)
    start = np.zeros(1, dtype=np.int64)
    out_tokens = np.zeros(0, dtype=np.uint16)
    out_counts = np.zeros(0, dtype=np.int32)
    for fill in range(2):
        if fill == 1:
            low = np.zeros(n_contexts, dtype=np.int32)
            start = np.zeros(n_contexts + 1, dtype=np.int64)
            out_tokens = np.zeros(n_entries, dtype=np.uint16)
            out_counts = np.zeros(n_entries, dtype=np.int32)
        context = 0
        entry = 0
        for level in range(len(levels)):
            k = levels[level]
            begin = 0
            while begin < n:
                end = begin + 1
                while end < n and shared[end] >= k:
                    end += 1
                if end - begin > heavy:
                    if fill == 1:
                        low[context] = begin
                        start[context] = entry
                    for j in range(begin, end):
                        counts[followers[j]] += 1
                    distinct = 0
                    if fill == 1:
                        for token in range(vocab_size):
                            if counts[token]:
                                out_tokens[entry + distinct] = token
                                out_counts[entry + distinct] = counts[token]
                                distinct += 1
                                counts[token] = 0
                    else:
                        for j in range(begin, end):
                            if counts[followers[j]]:
                                distinct += 1
                                counts[followers[j]] = 0
                    entry += distinct
                    context += 1
                begin = end
            level_start[level + 1] = context
        n_contexts = context
        n_entries = entry
        if fill == 1:
            start[context] = entry
    return level_start, low, start, out_tokens, out_counts
