"""Counts of what followed the same context: in the corpus (any context length) and earlier in this file.

Each context length is a *level*. First come the corpus levels, short to long, then the file levels, short to long, then
the file's *places*: earlier positions that had the same surroundings rather than the same tokens before them, such as
the same state of the lexer (after a dot, at the start of a statement in a class ...). No situation and no net has a say
in what is a place, so models of every cut share these counts. At a level we know how often the context was seen (`n`),
with how many different followers (`t`), and each follower's count. `cgpt.mixer` weighs the levels into one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from cgpt.compiled import compiled
from cgpt.index import HEAVY, LEVEL_LENGTHS, LEVELS, N_LEVELS

FILE_LEVELS = (1, 2, 3, 4, 5, 8)
"""Context lengths at which the file's own past is counted."""
N_FILE_LEVELS = len(FILE_LEVELS)
RECENT = 48
"""The file expert looks at the most recent occurrences of a context, at most this many."""


@dataclass(frozen=True)
class Place:
    """A kind of surroundings by which earlier positions of the file are found.

    Attributes:
        name: for people, and the key in records and in the mixer's tables.
        lexer: whether the lexer's whole state (`lexer.FIELDS`) has to be the same.
        reads: reads (`cgpt.reads.READS`) that have to be the same; `PLAIN` stands for the last token, space before it
            aside, all line breaks being one.
        recent: at most so many occurrences are looked at, the most recent ones.
    """

    name: str
    lexer: bool
    reads: tuple[str, ...]
    recent: int = RECENT

    def as_json(self) -> dict[str, Any]:
        """Definition for a checker that has nothing but the model's folder."""
        return {"name": self.name, "lexer": self.lexer, "reads": list(self.reads), "recent": self.recent}


PLAIN = "plain_previous"
PLACES = (
    Place("state", True, (), recent=400),
    Place("plain token", False, (PLAIN,), recent=400),
    Place("line", True, ("line_first", "line_second", "previous_1")),
    Place("latest name", True, ("names_1",)),
    Place("previous line", True, ("previous_line_first", "previous_line_second", "previous_1")),
)
"""Chosen among 40 on validation projects, docs/experiments/places.md."""
N_PLACES = len(PLACES)
N_FILE_COLUMNS = N_FILE_LEVELS + N_PLACES
FILE_COLUMNS: tuple[str, ...] = (*(f"file {k}" for k in FILE_LEVELS), *(f"file {place.name}" for place in PLACES))
"""Everything that is counted in the file: contexts by length, then places."""
N_BUCKETS = 60
"""Buckets of (n, t) per level."""
N_ALL_LEVELS = N_LEVELS + N_FILE_COLUMNS
ABSENT = 255
"""Stands where a bucket would: the context was never seen."""

_FILE_LEVELS = np.array(FILE_LEVELS, dtype=np.int64)
_CORPUS_LEVEL = np.array([LEVELS.index(k) for k in FILE_LEVELS], dtype=np.int64)
"""The level of the corpus with the same length."""
_RECENT = np.array([RECENT] * N_FILE_LEVELS + [place.recent for place in PLACES], dtype=np.int64)
_LEXER = np.array([place.lexer for place in PLACES])
_MIX = np.uint64(0x9E3779B97F4A7C15)


BLOCK = 128
"""Tokens whose greatest share is noted together."""


@compiled
def bucket(n, t):  # pragma: no cover - compiled
    """Bucket of a context seen `n` times with `t` different followers: 10 sizes x 6 degrees of certainty."""
    size = 0
    m = n
    while m > 1 and size < 9:
        m >>= 1
        size += 1
    if t == 1:
        certainty = 0
    elif t * 8 <= n:
        certainty = 1
    elif t * 4 <= n:
        certainty = 2
    elif t * 2 <= n:
        certainty = 3
    elif t < n:
        certainty = 4
    else:
        certainty = 5
    return size * 6 + certainty


@compiled
def find_slices(tokens, order, first, history, i, low, high):  # pragma: no cover - compiled
    """Slices of `order` whose contexts end like `history[:i]`, one per level; returns (levels found, longest match).

    `history` uint16[m] is the file's tokens after a leading separator; position i >= 1 is about to be predicted.
    """
    q = history[i - 1]
    lo = first[q]
    hi = first[q + 1]
    if hi <= lo:
        return 0, 0
    return _longer_slices(tokens, order, history, i, 0, 1, lo, hi, low, high)


@compiled
def _longer_slices(tokens, order, history, i, level, k, lo, hi, low, high):  # pragma: no cover - compiled
    """As `find_slices`, where it is known that `lo:hi` is the slice of the last k tokens; writes from `level` on, the
    first of k tokens or more."""
    while True:
        if k == LEVEL_LENGTHS[level]:
            low[level] = lo
            high[level] = hi
            level += 1
            if level == N_LEVELS:
                return level, k
        if history[i - k] == 0:
            return level, k
        q = history[i - k - 1]
        # Within the slice all share the last k tokens and are sorted by the one before.
        a = lo
        b = hi
        while a < b:
            mid = (a + b) >> 1
            if tokens[order[mid] - k - 1] < q:
                a = mid + 1
            else:
                b = mid
        lo = a
        # Most slices are far shorter than the one they lie in: their ends are looked for in steps that double.
        step = 1
        b = lo
        while b < hi and tokens[order[b] - k - 1] == q:
            a = b + 1
            b += step
            step <<= 1
        b = min(b, hi)
        while a < b:
            mid = (a + b) >> 1
            if tokens[order[mid] - k - 1] == q:
                a = mid + 1
            else:
                b = mid
        if a <= lo:
            return level, k
        hi = a
        k += 1


@compiled
def file_slices(
    tokens, order, first, history, previous, begin, end, low, high, levels, longest
):  # pragma: no cover - compiled
    """`find_slices` for positions begin..end-1, row i - begin of `low` and `high` int32[m, N_LEVELS], `levels` and
    `longest` int32[m].

    What a file says again (`previous`, see `extend_file_index`) is not looked up again: the search goes on from the
    longest context that stood in the file before. Most of the time goes into fetching memory, far apart at each step.
    """
    for i in range(begin, end):
        row = i - begin
        known = -1
        for level in range(N_FILE_LEVELS):
            if previous[level, i] < begin:
                break
            known = level
        if known < 0:
            levels[row], longest[row] = find_slices(tokens, order, first, history, i, low[row], high[row])
            continue
        before = previous[known, i] - begin
        low[row] = low[before]
        high[row] = high[before]
        k = _FILE_LEVELS[known]
        if longest[before] < k:
            levels[row], longest[row] = levels[before], longest[before]
            continue
        level = _CORPUS_LEVEL[known]
        levels[row], longest[row] = _longer_slices(
            tokens, order, history, i, level + 1, k, np.int64(low[row, level]), np.int64(high[row, level]), low[row],
            high[row],
        )  # fmt: skip


@compiled
def heavy_context(heavy_level, heavy_low, level, lo):  # pragma: no cover - compiled
    a = heavy_level[level]
    b = heavy_level[level + 1]
    while a < b:
        mid = (a + b) >> 1
        if heavy_low[mid] < lo:
            a = mid + 1
        else:
            b = mid
    return a


@compiled
def corpus_level(
    followers, heavy_level, heavy_low, heavy_start, heavy_tokens, heavy_counts, level, lo, hi, target, stamp, mark
):  # pragma: no cover - compiled
    """(n, t, count of target) of one slice. `stamp` int64[V] marks tokens seen; `mark` is new for each call."""
    n = hi - lo
    if n > HEAVY:
        context = heavy_context(heavy_level, heavy_low, level, lo)
        a = heavy_start[context]
        b = heavy_start[context + 1]
        t = b - a
        end = b
        while a < b:
            mid = (a + b) >> 1
            if heavy_tokens[mid] < target:
                a = mid + 1
            else:
                b = mid
        if a < end and heavy_tokens[a] == target:
            return n, t, np.int64(heavy_counts[a])
        return n, t, np.int64(0)
    t = 0
    c = 0
    for j in range(lo, hi):
        token = followers[j]
        if token == target:
            c += 1
        if stamp[token] != mark:
            stamp[token] = mark
            t += 1
    return n, np.int64(t), np.int64(c)


@compiled
def extend_hash(h, token):  # pragma: no cover - compiled
    """Hash of a context that reaches one token further back."""
    h = (h ^ np.uint64(token + 1)) * _MIX
    return h ^ (h >> np.uint64(29))


@compiled
def hash_slot(keys, heads, level, h):  # pragma: no cover - compiled
    """Column of the hash table where a context stands, or the empty one where it belongs."""
    mask = np.uint64(keys.shape[1] - 1)
    slot = h & mask
    while heads[level, slot] >= 0 and keys[level, slot] != h:
        slot = (slot + np.uint64(1)) & mask
    return slot


@compiled
def extend_file_index(history, begin, end, keys, heads, previous):  # pragma: no cover - compiled
    """Note the contexts that end before positions begin..end-1 of `history`, level by level.

    `previous` int32[>=N_FILE_LEVELS, >=end]: the last earlier position with the same context, or -1. `keys` uint64 and
    `heads` int32 [N_FILE_LEVELS, power of two]: an open hash table from context to its latest position (-1: empty).
    """
    for i in range(begin, end):
        h = np.uint64(1)
        depth = 0
        for level in range(N_FILE_LEVELS):
            k = _FILE_LEVELS[level]
            while depth < k and i - depth - 1 >= 0:
                h = extend_hash(h, history[i - depth - 1])
                depth += 1
            if depth < k:
                previous[level, i] = -1
                continue
            slot = hash_slot(keys, heads, level, h)
            previous[level, i] = heads[level, slot]
            keys[level, slot] = h
            heads[level, slot] = i


@compiled
def extend_places(
    fields, reads, history, plain, columns, begin, end, keys, heads, previous
):  # pragma: no cover - compiled
    """Note the places of boundaries begin..end-1, kind by kind; position i + 1 of `history` is predicted at boundary i.

    `fields` uint8 and `reads` uint16 are rows by boundary, `columns` int64[N_PLACES, k] those of the reads of each kind
    (-1: none, -2: `plain` uint16[V] of the last token). Writes rows N_FILE_LEVELS.. of `previous`
    int32[N_FILE_COLUMNS, >end]: the last earlier position at such a place, or -1. `keys` uint64 and `heads` int32
    [N_PLACES, power of two] as for `extend_file_index`.
    """
    for i in range(begin, end):
        state = np.uint64(1)
        for field in range(fields.shape[1]):
            state = extend_hash(state, fields[i, field])
        for place in range(N_PLACES):
            h = state if _LEXER[place] else np.uint64(1)
            for k in range(columns.shape[1]):
                if columns[place, k] >= 0:
                    h = extend_hash(h, reads[i, columns[place, k]])
                elif columns[place, k] == -2:
                    h = extend_hash(h, plain[history[i]])
            slot = hash_slot(keys, heads, place, h)
            previous[N_FILE_LEVELS + place, i + 1] = heads[place, slot]
            keys[place, slot] = h
            heads[place, slot] = i + 1


@compiled
def file_level(history, previous, level, i, target, stamp, mark):  # pragma: no cover - compiled
    """(n, t, count of target) over the most recent occurrences of the context before position i in this file."""
    return recent(history, previous, level, previous[level, i], target, stamp, mark)


@compiled
def recent(history, previous, level, j, target, stamp, mark):  # pragma: no cover - compiled
    """(n, t, count of target) over the most recent occurrences of a context, from the latest at position j back."""
    n = 0
    t = 0
    c = 0
    most = _RECENT[level]
    while j >= 0 and n < most:
        token = history[j]
        n += 1
        if token == target:
            c += 1
        if stamp[token] != mark:
            stamp[token] = mark
            t += 1
        j = previous[level, j]
    return np.int64(n), np.int64(t), np.int64(c)


@compiled
def target_levels(
    tokens, order, followers, first, unigram,
    heavy_level, heavy_low, heavy_start, heavy_tokens, heavy_counts,
    history, previous, begin, end, buckets, shares, corpus_match,
):  # pragma: no cover - compiled  # fmt: skip
    """What every level says about the token that did come, for positions begin..end-1 of `history`.

    Writes row i - begin of: `buckets` uint8[m, N_ALL_LEVELS] (ABSENT: the context was never seen), `shares`
    float32[m, N_ALL_LEVELS] (count of the token / n) and `corpus_match` int32[m] (longest match in the corpus).
    """
    all_low = np.zeros((end - begin, N_LEVELS), dtype=np.int32)
    all_high = np.zeros((end - begin, N_LEVELS), dtype=np.int32)
    levels = np.zeros(end - begin, dtype=np.int32)
    file_slices(tokens, order, first, history, previous, begin, end, all_low, all_high, levels, corpus_match)
    stamp = np.zeros(len(unigram), dtype=np.int64)
    mark = np.int64(0)
    for i in range(begin, end):
        row = i - begin
        target = history[i]
        buckets[row, :] = ABSENT
        low = all_low[row]
        high = all_high[row]
        for level in range(levels[row]):
            if level > 0 and high[level] - low[level] == high[level - 1] - low[level - 1]:
                # The same positions as one level down: the same counts.
                buckets[row, level] = buckets[row, level - 1]
                shares[row, level] = shares[row, level - 1]
                continue
            mark += 1
            n, t, c = corpus_level(
                followers, heavy_level, heavy_low, heavy_start, heavy_tokens, heavy_counts,
                level, low[level], high[level], target, stamp, mark,
            )  # fmt: skip
            buckets[row, level] = bucket(n, t)
            shares[row, level] = c / n
        for level in range(N_FILE_COLUMNS):
            if previous[level, i] < 0:
                continue
            mark += 1
            n, t, c = file_level(history, previous, level, i, target, stamp, mark)
            buckets[row, N_LEVELS + level] = bucket(n, t)
            shares[row, N_LEVELS + level] = c / n


@compiled
def spread_heavy(
    heavy_start, heavy_tokens, heavy_counts, before, context, n, shares, by_block
):  # pragma: no cover - compiled  # fmt: skip
    """Write the share of every token among the `n` followers of heavy context `context` to `shares` float64[V], the
    greatest of every BLOCK tokens and of all to `by_block`, and return the context's bucket.

    `shares` holds those of context `before` (-1: none).
    """
    if before >= 0:
        for j in range(heavy_start[before], heavy_start[before + 1]):
            shares[heavy_tokens[j]] = 0.0
    by_block[:] = 0.0
    begin, end = heavy_start[context], heavy_start[context + 1]
    for j in range(begin, end):
        share = heavy_counts[j] / n
        shares[heavy_tokens[j]] = share
        by_block[heavy_tokens[j] // BLOCK] = max(by_block[heavy_tokens[j] // BLOCK], share)
        by_block[-1] = max(by_block[-1], share)
    return np.uint8(bucket(n, end - begin))


@compiled
def all_levels(
    followers, heavy_level, heavy_low, heavy_start, heavy_tokens, heavy_counts, history, previous, i, low, high, levels,
    buckets, starts, entry_tokens, entry_shares, stamp, mark, begin_level,
):  # pragma: no cover - compiled  # fmt: skip
    """Every follower at every level for one position: the same counts as `target_levels`, written out whole.

    Levels below `begin_level` are left to the caller: no entries, and ABSENT for a bucket. `low`, `high` and `levels`
    are what `find_slices` found. Writes `buckets` uint8[N_ALL_LEVELS]; level l's followers are `entry_tokens` and
    `entry_shares` at `starts[l]:starts[l + 1]` (a light level may list a token more than once; shares of a level sum to
    1). Returns the entries needed; where more are needed than there is room, nothing past the room is written and the
    caller makes room and asks again. `stamp` int64[V] and `mark` int64[1] are scratch that is kept between calls.
    """
    room = len(entry_tokens)
    buckets[:] = ABSENT
    at = 0
    for level in range(N_LEVELS):
        starts[level] = at
        if level >= levels or level < begin_level:
            continue
        n = high[level] - low[level]
        if n > HEAVY:
            context = heavy_context(heavy_level, heavy_low, level, low[level])
            a = heavy_start[context]
            t = heavy_start[context + 1] - a
            buckets[level] = bucket(n, t)
            if at + t <= room:
                for j in range(t):
                    entry_tokens[at + j] = heavy_tokens[a + j]
                    entry_shares[at + j] = heavy_counts[a + j] / n
            at += t
            continue
        mark[0] += 1
        t = 0
        for j in range(low[level], high[level]):
            token = followers[j]
            if stamp[token] != mark[0]:
                stamp[token] = mark[0]
                t += 1
            if at < room:
                entry_tokens[at] = token
                entry_shares[at] = 1.0 / n
            at += 1
        buckets[level] = bucket(n, t)
    for level in range(N_FILE_COLUMNS):
        starts[N_LEVELS + level] = at
        if previous[level, i] < 0:
            continue
        mark[0] += 1
        begin = at
        n = 0
        t = 0
        j = previous[level, i]
        while j >= 0 and n < _RECENT[level]:
            token = history[j]
            if stamp[token] != mark[0]:
                stamp[token] = mark[0]
                t += 1
            if at < room:
                entry_tokens[at] = token
            at += 1
            n += 1
            j = previous[level, j]
        for e in range(begin, min(at, room)):
            entry_shares[e] = 1.0 / n
        buckets[N_LEVELS + level] = bucket(n, t)
    starts[N_ALL_LEVELS] = at
    return at
