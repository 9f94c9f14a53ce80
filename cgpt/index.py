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

import numba
import numpy as np

from cgpt.compiled import compiled, compiled_parallel
from ontology.io import load_tensors, save_tensors

SEPARATOR = 0
LEVELS = (1, 2, 3, 4, 5, 6, 8, 11, 16, 24, 32)
"""Context lengths, in tokens, at which followers are counted."""
N_LEVELS = len(LEVELS)
HEAVY = 128
"""A context with more followers than this has its histogram stored; a lighter one is counted when it is asked for."""

LEVEL_LENGTHS = np.array(LEVELS, dtype=np.int64)


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
        followers, shared = _followers(tokens, order, LEVELS[-1])
        # Contexts are sorted by their last token: a new one begins where nothing is shared.
        begins = np.flatnonzero(shared == 0)
        first = np.zeros(vocab_size + 1, dtype=np.int64)
        first[1 + tokens[order[begins] - 1].astype(np.int64)] = np.diff(np.append(begins, len(order)))
        first = np.cumsum(first)
        unigram = np.bincount(followers, minlength=vocab_size).astype(np.int64)
        heavy = _heavy_histograms(followers, shared, LEVEL_LENGTHS, HEAVY, vocab_size)
        return CorpusIndex(tokens, order, followers, first, unigram, *heavy)

    def of_files(self, keep: np.ndarray) -> CorpusIndex:
        """The index of the files for which `keep` bool[files] holds: the same sorting without the others' positions.

        Positions still count from the whole corpus' start, so that files keep their numbers. A file's end is its own.
        """
        lengths = np.diff(np.flatnonzero(np.asarray(self.tokens) == SEPARATOR))
        kept = np.zeros(len(self.tokens), dtype=np.bool_)
        kept[1:] = np.repeat(keep, lengths)
        order = np.asarray(self.order)
        return CorpusIndex.of_order(self.tokens, order[kept[order]], len(self.unigram))

    def arrays(self) -> tuple[np.ndarray, ...]:
        """All arrays in the order that the compiled functions of `cgpt.counts` take them."""
        return tuple(getattr(self, name) for name in self.__dataclass_fields__)

    def sorted_contexts(self) -> tuple[np.ndarray, ...]:
        """What `counts.find_slices` takes to look a context up."""
        return self.tokens, self.order, self.first

    def followed_by(self) -> tuple[np.ndarray, ...]:
        """What `counts.all_levels` takes to list the followers of slices."""
        return (
            self.followers, self.heavy_level, self.heavy_low, self.heavy_start, self.heavy_tokens, self.heavy_counts,
        )  # fmt: skip

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


@compiled_parallel
def _followers(tokens, order, limit):  # pragma: no cover - compiled
    """(uint16[n] the token at each position, uint8[n] tokens that context j shares with context j-1).

    Shared tokens are counted to `limit` and not past a separator. One pass does both: what is slow is fetching memory.
    """
    followers = np.zeros(len(order), dtype=np.uint16)
    shared = np.zeros(len(order), dtype=np.uint8)
    for j in numba.prange(len(order)):
        a = order[j]
        followers[j] = tokens[a]
        b = order[j - 1] if j > 0 else 0
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
    return followers, shared


@compiled
def _end_of_context(shared, begin, length):  # pragma: no cover - compiled
    """Where the slice of the context of this length that begins at `begin` ends."""
    end = begin + 1
    while end < len(shared) and shared[end] >= length:
        end += 1
    return end


@compiled_parallel
def _heavy_histograms(followers, shared, levels, heavy, vocab_size):  # pragma: no cover - compiled
    """`heavy_*` of CorpusIndex. Levels are independent: one pass counts their contexts and entries, one fills."""
    n = len(followers)
    n_contexts, n_entries = np.zeros(len(levels), dtype=np.int64), np.zeros(len(levels), dtype=np.int64)
    for level in numba.prange(len(levels)):
        seen = np.zeros(vocab_size, dtype=np.int64)  # the last context that had each token, from 1 on
        begin = 0
        while begin < n:
            end = _end_of_context(shared, begin, levels[level])
            if end - begin > heavy:
                n_contexts[level] += 1
                for j in range(begin, end):
                    if seen[followers[j]] != n_contexts[level]:
                        seen[followers[j]] = n_contexts[level]
                        n_entries[level] += 1
            begin = end
    level_start = np.zeros(len(levels) + 1, dtype=np.int64)
    level_start[1:] = np.cumsum(n_contexts)
    entry_start = np.zeros(len(levels) + 1, dtype=np.int64)
    entry_start[1:] = np.cumsum(n_entries)
    low = np.zeros(level_start[-1], dtype=np.int32)
    start = np.zeros(level_start[-1] + 1, dtype=np.int64)
    start[-1] = entry_start[-1]
    out_tokens = np.zeros(entry_start[-1], dtype=np.uint16)
    out_counts = np.zeros(entry_start[-1], dtype=np.int32)
    for level in numba.prange(len(levels)):
        counts = np.zeros(vocab_size, dtype=np.int32)
        context, entry = level_start[level], entry_start[level]
        begin = 0
        while begin < n:
            end = _end_of_context(shared, begin, levels[level])
            if end - begin > heavy:
                low[context] = begin
                start[context] = entry
                for j in range(begin, end):
                    counts[followers[j]] += 1
                for token in range(vocab_size):
                    if counts[token]:
                        out_tokens[entry] = token
                        out_counts[entry] = counts[token]
                        entry += 1
                        counts[token] = 0
                context += 1
            begin = end
    return level_start, low, start, out_tokens, out_counts
