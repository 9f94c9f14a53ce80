"""Counts in corpus and file against counting by hand."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from cgpt import counts
from cgpt.index import HEAVY, LEVELS, N_LEVELS, CorpusIndex

VOCAB = 12
files = st.lists(st.lists(st.integers(1, VOCAB - 1), max_size=40), min_size=1, max_size=6)


def joined(documents: list[list[int]]) -> np.ndarray:
    tokens = [0]
    for document in documents:
        tokens += [*document, 0]
    return np.array(tokens, dtype=np.uint16)


def followers_by_hand(documents: list[list[int]], history: list[int], k: int) -> Counter:
    """What followed the last k tokens of `history` (which starts with the separator) anywhere in the documents."""
    context = history[-k:]
    found: Counter = Counter()
    for document in documents:
        padded = [0, *document, 0]
        for i in range(k, len(padded)):
            if padded[i - k : i] == context:
                found[padded[i]] += 1
    return found


def file_index(history: np.ndarray) -> np.ndarray:
    size = 1 << int(2 * len(history) + 2).bit_length()
    keys = np.zeros((counts.N_FILE_LEVELS, size), dtype=np.uint64)
    heads = np.full((counts.N_FILE_LEVELS, size), -1, dtype=np.int32)
    previous = np.full((counts.N_FILE_COLUMNS, len(history) + 1), -1, dtype=np.int32)
    counts.extend_file_index(np.append(history, np.uint16(0)), 1, len(history) + 1, keys, heads, previous)
    return previous


def levels_at(index: CorpusIndex, history: np.ndarray, previous: np.ndarray, i: int):
    buckets = np.zeros(counts.N_ALL_LEVELS, dtype=np.uint8)
    starts = np.zeros(counts.N_ALL_LEVELS + 1, dtype=np.int64)
    low, high = np.zeros(N_LEVELS, dtype=np.int32), np.zeros(N_LEVELS, dtype=np.int32)
    tokens, shares = np.zeros(4096, dtype=np.uint16), np.zeros(4096)
    stamp, mark = np.zeros(VOCAB, dtype=np.int64), np.zeros(1, dtype=np.int64)
    levels, longest = counts.find_slices(*index.sorted_contexts(), history, i, low, high)
    needed = counts.all_levels(
        *index.followed_by(), history, previous, i, low, high, levels, buckets, starts, tokens, shares, stamp, mark,
        0,
    )  # fmt: skip
    return buckets, starts, tokens[:needed], shares[:needed], longest


def shares_by_token(tokens: np.ndarray, shares: np.ndarray) -> dict[int, float]:
    return {int(v): float(shares[tokens == v].sum()) for v in np.unique(tokens)}


@settings(max_examples=60, deadline=None)
@given(files, st.lists(st.integers(1, VOCAB - 1), max_size=12), st.data())
def test_corpus_levels_are_the_counts(documents, typed, data):
    # Half of the time continue a document, so that long contexts do match.
    if data.draw(st.booleans()):
        document = data.draw(st.sampled_from(documents))
        typed = document[: data.draw(st.integers(0, len(document)))]
    index = CorpusIndex.build(joined(documents), VOCAB)
    history = np.array([0, *typed], dtype=np.uint16)
    buckets, starts, tokens, shares, longest = levels_at(index, history, file_index(history), len(history))
    expected_longest = 0
    for k in range(1, min(len(history), LEVELS[-1]) + 1):
        if followers_by_hand(documents, history.tolist(), k):
            expected_longest = k
    assert longest == expected_longest
    for level, k in enumerate(LEVELS):
        expected = followers_by_hand(documents, history.tolist(), k) if k <= len(history) else Counter()
        part = slice(starts[level], starts[level + 1])
        if not expected:
            assert buckets[level] == counts.ABSENT and starts[level] == starts[level + 1]
            continue
        n = sum(expected.values())
        assert buckets[level] == counts.bucket(n, len(expected))
        got = shares_by_token(tokens[part], shares[part])
        assert got.keys() == expected.keys()
        assert all(abs(got[token] - c / n) < 1e-12 for token, c in expected.items())


def test_heavy_contexts_are_counted_like_light_ones():
    random = np.random.default_rng(1)
    document = random.integers(1, 4, 6 * HEAVY).tolist()
    index = CorpusIndex.build(joined([document]), VOCAB)
    assert len(index.heavy_low) > 0
    history = np.array([0, *document[:50]], dtype=np.uint16)
    buckets, starts, tokens, shares, _ = levels_at(index, history, file_index(history), len(history))
    for level in (0, 1, 2):
        expected = followers_by_hand([document], history.tolist(), LEVELS[level])
        n = sum(expected.values())
        got = shares_by_token(*(x[starts[level] : starts[level + 1]] for x in (tokens, shares)))
        assert got.keys() == expected.keys()
        assert all(abs(got[token] - c / n) < 1e-12 for token, c in expected.items())
    assert sum(followers_by_hand([document], history.tolist(), 1).values()) > HEAVY


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4 * HEAVY), st.booleans()), min_size=2, max_size=5), st.integers(0, 9))
def test_the_index_of_some_files_counts_as_one_built_of_them(wanted, seed):
    random = np.random.default_rng(seed)
    documents = [random.integers(1, 4, length).tolist() for length, _ in wanted]
    keep = np.array([kept for _, kept in wanted])
    keep[0] = True
    some = CorpusIndex.build(joined(documents), VOCAB).of_files(keep)
    alone = CorpusIndex.build(joined([document for document, k in zip(documents, keep, strict=True) if k]), VOCAB)
    assert len(some.order) == len(alone.order)
    for name in ("first", "unigram", "heavy_level", "heavy_low", "heavy_start", "heavy_tokens", "heavy_counts"):
        assert np.array_equal(getattr(some, name), getattr(alone, name)), name
    history = np.array([0, *documents[-1][:20]], dtype=np.uint16)
    for one, other in zip(
        *(levels_at(x, history, file_index(history), len(history)) for x in (some, alone)), strict=True
    ):
        assert np.array_equal(one, other)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 4), max_size=60))
def test_file_levels_are_the_most_recent_counts(typed):
    history = np.array([0, *typed], dtype=np.uint16)
    previous = file_index(history)
    index = CorpusIndex.build(joined([[1]]), VOCAB)
    i = len(history)
    buckets, starts, tokens, shares, _ = levels_at(index, history, previous, i)
    for level, k in enumerate(counts.FILE_LEVELS):
        at = N_LEVELS + level
        context = typed[-k:] if k <= len(typed) else None
        if k == len(typed) + 1:
            context = [0, *typed]
        found = []
        if context is not None:
            padded = [0, *typed]
            found = [padded[j] for j in range(len(padded) - 1, k - 1, -1) if padded[j - k : j] == context]
        found = found[: counts.RECENT]
        if not found:
            assert buckets[at] == counts.ABSENT
            continue
        expected = Counter(found)
        assert buckets[at] == counts.bucket(len(found), len(expected))
        got = shares_by_token(*(x[starts[at] : starts[at + 1]] for x in (tokens, shares)))
        assert got.keys() == expected.keys()
        assert all(abs(got[token] - c / len(found)) < 1e-12 for token, c in expected.items())


@settings(max_examples=30, deadline=None)
@given(files, st.lists(st.integers(1, VOCAB - 1), min_size=1, max_size=20))
def test_target_and_whole_levels_agree(documents, typed):
    """The counts that the mixer learns from are those that predictions are made of."""
    index = CorpusIndex.build(joined(documents), VOCAB)
    history = np.array([0, *typed], dtype=np.uint16)
    previous = file_index(history)
    for i in range(1, len(history)):
        buckets, starts, tokens, shares, longest = levels_at(index, history, previous, i)
        row_buckets = np.zeros((1, counts.N_ALL_LEVELS), dtype=np.uint8)
        row_shares = np.zeros((1, counts.N_ALL_LEVELS), dtype=np.float32)
        match = np.zeros(1, dtype=np.int32)
        counts.target_levels(*index.arrays(), history, previous, i, i + 1, row_buckets, row_shares, match)
        assert (row_buckets[0] == buckets).all() and match[0] == longest
        for level in range(counts.N_ALL_LEVELS):
            part = slice(starts[level], starts[level + 1])
            said = shares[part][tokens[part] == history[i]].sum()
            assert abs(said - (row_shares[0, level] if buckets[level] != counts.ABSENT else 0.0)) < 1e-6


@settings(max_examples=60, deadline=None)
@given(files, st.lists(st.integers(1, 4), min_size=1, max_size=60), st.integers(1, 20))
def test_a_file_is_found_in_the_index_as_its_positions_are(documents, typed, begin):
    """What was looked up for the same context earlier in the file is what a search from the start finds."""
    index = CorpusIndex.build(joined([*documents, typed]), VOCAB)
    history = np.array([0, *typed, *typed[:3]], dtype=np.uint16)
    end = len(history)
    begin = min(begin, end - 1)
    low, high = np.zeros((end - begin, N_LEVELS), np.int32), np.zeros((end - begin, N_LEVELS), np.int32)
    levels, longest = np.zeros(end - begin, np.int32), np.zeros(end - begin, np.int32)
    counts.file_slices(*index.sorted_contexts(), history, file_index(history), begin, end, low, high, levels, longest)
    for i in range(begin, end):
        row, one_low, one_high = i - begin, np.zeros(N_LEVELS, np.int32), np.zeros(N_LEVELS, np.int32)
        found, k = counts.find_slices(*index.sorted_contexts(), history, i, one_low, one_high)
        assert (levels[row], longest[row]) == (found, k)
        assert np.array_equal(low[row, :found], one_low[:found]) and np.array_equal(high[row, :found], one_high[:found])
