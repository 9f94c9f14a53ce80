"""One position's distribution from all sources, in compiled code: the arithmetic of `cgpt.model`, and nothing else.

`mix_one` is the definition. Scoring needs the probability of one token and the first choice of all: `target_and_best`
has the same arithmetic for the tokens that could be it, and a test holds the two against each other bit for bit.
"""

from __future__ import annotations

import numpy as np

from cgpt import caches, counts, mixer, names
from cgpt.compiled import compiled
from kernels.numba_math import float_of

SOURCES = ("net", "corpus", "file", "names", "unigram")
"""What a probability finally rests on: the mixer's experts in disjoint groups whose weights sum to 1."""
S_NET, S_CORPUS, S_FILE, S_NAMES, S_UNIGRAM = range(len(SOURCES))
_ROOM = 1 << 14
_SLACK, _SLACK_OF_SUM = 1.0 + 1e-12, 1.0 + 2e-4
"""For bounds: what rounding may take from a few products, and from the nets' sums: up to 65,536 / 32 numbers one after
the other in float32, 6e-8 of the sum each."""


@compiled
def names_weight(slots, offered, rank_weights):  # pragma: no cover - compiled
    """(weight of all names offered, weight of those that may end here) for one position."""
    total = 0.0
    ended = 0.0
    for k in range(len(slots)):
        if slots[k] == names.NOTHING:
            break
        total += rank_weights[slots[k]]
        if offered[k] == names.END_OF_NAME:
            ended += rank_weights[slots[k]]
    return total, ended


@compiled
def net_step(powers, powers_sum):  # pragma: no cover - compiled
    """Row of `by_confidence` for a net that says `powers` over `powers_sum`; 0 where there is none."""
    if len(powers):
        return min(int(mixer.N_CONFIDENCE / powers_sum), mixer.N_CONFIDENCE - 1)
    return 0


@compiled
def _source_weights(
    level, concept_row, by_confidence, by_names, buckets, powers, powers_sum, offered, slots, rank_weights, weights,
    parts,
):  # pragma: no cover - compiled  # fmt: skip
    """(weight of the unigram, factor of the net's powers, factor of the names' rank weights) at one position.

    Writes the weights in force, float64[N_EXPERTS], and the weight of each source to `parts` float64[5].
    """
    step = net_step(powers, powers_sum)
    has_names = slots[0] != names.NOTHING
    first = np.int64(slots[0]) if has_names else np.int64(names.N_SLOTS)
    mixer.weigh(level, concept_row, by_confidence[step], by_names[first], buckets, has_names, weights)
    total, ended = names_weight(slots, offered, rank_weights)
    to_base = names.BASE_SHARE + (1.0 - names.BASE_SHARE) * (ended / total if total > 0.0 else 1.0)
    w_names = weights[mixer.NAMES]
    first_file = mixer.FIRST_LEVEL + counts.N_LEVELS
    parts[S_NET] = weights[mixer.NET]
    parts[S_CORPUS] = weights[mixer.FIRST_LEVEL : first_file].sum()
    parts[S_FILE] = weights[first_file : mixer.NAMES].sum()
    parts[S_NAMES] = w_names * (1.0 - to_base)
    parts[S_UNIGRAM] = weights[mixer.UNIGRAM] + w_names * to_base
    of_net = weights[mixer.NET] / powers_sum if len(powers) else 0.0
    of_names = w_names * (1.0 - names.BASE_SHARE) / total if w_names > 0.0 else 0.0
    return parts[S_UNIGRAM], of_net, of_names


@compiled
def mix_one(
    level, concept_row, by_confidence, by_names, buckets, starts, entry_tokens, entry_shares, unigram,
    powers, powers_sum, offered, slots, rank_weights, weights, out, parts,
):  # pragma: no cover - compiled  # fmt: skip
    """Write the mixed distribution to `out` float64[V] and the weight of each source to `parts` float64[5].

    The first four are the mixer's tables with the row of the concept in charge. The net says `powers` float32[V] (1 at
    its first choice; empty: no net) over `powers_sum`. `weights` float64[N_EXPERTS] gets the weights in force.
    """
    of_unigram, of_net, of_names = _source_weights(
        level, concept_row, by_confidence, by_names, buckets, powers, powers_sum, offered, slots, rank_weights, weights,
        parts,
    )  # fmt: skip
    if len(powers):
        for v in range(len(out)):
            out[v] = of_unigram * unigram[v] + of_net * powers[v]
    else:
        for v in range(len(out)):
            out[v] = of_unigram * unigram[v]
    for e in range(mixer.FIRST_LEVEL, mixer.NAMES):
        w = weights[e]
        if w > 0.0:
            for entry in range(starts[e - mixer.FIRST_LEVEL], starts[e - mixer.FIRST_LEVEL + 1]):
                out[entry_tokens[entry]] += w * entry_shares[entry]
    if of_names > 0.0:
        for k in range(len(slots)):
            if slots[k] == names.NOTHING:
                break
            if offered[k] != names.END_OF_NAME:
                out[offered[k]] += of_names * rank_weights[slots[k]]


@compiled
def most_probable(probabilities):  # pragma: no cover - compiled
    """The first index of the greatest of float64[V], none below zero: their bits are in the order of their values, and
    a maximum of integers becomes vector code, which one of floats does not."""
    bits = probabilities.view(np.int64)
    most = np.int64(0)
    for v in range(len(bits)):
        most = max(most, bits[v])
    v = 0
    while bits[v] != most:
        v += 1
    return v


@compiled
def _base(v, of_unigram, unigram, of_net, powers, of_last, last):  # pragma: no cover - compiled
    """What unigram, net and the counts after the last token give token v, added up as in `mix_one`."""
    p = of_unigram * unigram[v]
    if len(powers):
        p += of_net * powers[v]
    return p + of_last * last[v]


@compiled
def _greatest_by_block(shares, most):  # pragma: no cover - compiled
    """Write the greatest share in every block of tokens to `most` float64[blocks + 1], that of all to its end."""
    most[:] = 0.0
    for v in range(len(shares)):
        most[v // counts.BLOCK] = max(most[v // counts.BLOCK], shares[v])
        most[-1] = max(most[-1], shares[v])


@compiled
def target_and_best(
    target, level, concept_row, by_confidence, by_names, buckets, starts, entry_tokens, entry_shares, unigram,
    by_block, last, last_by_block, powers, powers_sum, offered, slots, rank_weights, weights, out, parts, spoken, stamp,
    mark,
):  # pragma: no cover - compiled  # fmt: skip
    """(probability of `target`, most probable token), bit for bit those of the distribution that `mix_one` writes.

    Of the lowest level there are no entries here but `last` float64[V], shares that many positions have in common (all
    0: none). Few tokens are spoken of by another table or a name. The others have the base alone, so they are looked
    through only where they could win by the greatest of each of its parts: `by_block` and `last_by_block`
    float64[blocks + 1] for the unigram and `last`, by blocks and of all. `out` float64[V] and `spoken` int64[V] are
    scratch; `stamp` int64[V] and `mark` int64[1] as in `counts.all_levels`.
    """
    of_unigram, of_net, of_names = _source_weights(
        level, concept_row, by_confidence, by_names, buckets, powers, powers_sum, offered, slots, rank_weights, weights,
        parts,
    )  # fmt: skip
    of_last = weights[mixer.FIRST_LEVEL]
    mark[0] += 1
    now = mark[0]
    # Written out three times: as a function of its own it made scoring several times slower.
    stamp[target] = now
    out[target] = _base(target, of_unigram, unigram, of_net, powers, of_last, last)
    spoken[0] = target
    n = 1
    for e in range(mixer.FIRST_LEVEL, mixer.NAMES):
        w = weights[e]
        if w > 0.0:
            for entry in range(starts[e - mixer.FIRST_LEVEL], starts[e - mixer.FIRST_LEVEL + 1]):
                v = entry_tokens[entry]
                if stamp[v] != now:
                    stamp[v] = now
                    out[v] = _base(v, of_unigram, unigram, of_net, powers, of_last, last)
                    spoken[n] = v
                    n += 1
                out[v] += w * entry_shares[entry]
    if of_names > 0.0:
        for k in range(len(slots)):
            if slots[k] == names.NOTHING:
                break
            v = offered[k]
            if v != names.END_OF_NAME:
                if stamp[v] != now:
                    stamp[v] = now
                    out[v] = _base(v, of_unigram, unigram, of_net, powers, of_last, last)
                    spoken[n] = v
                    n += 1
                out[v] += of_names * rank_weights[slots[k]]
    best, most, unspoken = spoken[0], out[spoken[0]], powers_sum * _SLACK_OF_SUM
    for k in range(n):
        v = spoken[k]
        if out[v] > most or (out[v] == most and v < best):
            best, most = v, out[v]
        if len(powers):
            unspoken -= powers[v]
    if (of_unigram * by_block[-1] + of_last * last_by_block[-1] + of_net * unspoken) * _SLACK < most:
        return out[target], best
    bits = powers.view(np.int32)
    for block in range(len(by_block) - 1):
        highest = of_unigram * by_block[block] + of_last * last_by_block[block]
        if len(powers):
            # Bits are in the order of the values, since none is below zero.
            top, part = np.int32(0), bits[block * counts.BLOCK : (block + 1) * counts.BLOCK]
            for k in range(len(part)):
                top = max(top, part[k])
            highest += of_net * float_of(top)  # pyright: ignore[reportCallIssue]
        if highest * _SLACK >= most:
            for v in range(block * counts.BLOCK, min((block + 1) * counts.BLOCK, len(unigram))):
                if stamp[v] != now:
                    p = _base(v, of_unigram, unigram, of_net, powers, of_last, last)
                    if p > most or (p == most and v < best):
                        best, most = np.int64(v), p
    return out[target], best


@compiled
def score_rows(
    followers, heavy_level, heavy_low, heavy_start, heavy_tokens, heavy_counts,
    history, previous, low, high, levels, offered, slots, boundaries, concept, level, by_concept, by_confidence,
    by_names, unigram, powers, powers_sum, rank_weights, earlier, cache_tables, out_probability, out_best, out_parts,
):  # pragma: no cover - compiled  # fmt: skip
    """Score the targets at `boundaries` int64[r] with `concept` int32[r] in charge.

    `low`, `high` and `levels` are rows by boundary, of `counts.file_slices`; the four from `level` on are the mixer's
    tables. `powers` float32[r, V] and `powers_sum` float64[r] are the nets'; where a sum is 0 there is none. `earlier`
    is (cache of the project, cache of the directory), `caches.EMPTY` in the static setting; only they look at
    `cache_tables`. Writes per row the target's probability, the most probable token and the sources' weights
    float64[r, 5].
    """
    n_tokens = len(unigram)
    blocks = (n_tokens + counts.BLOCK - 1) // counts.BLOCK + 1
    out = np.zeros(n_tokens)
    buckets = np.zeros(counts.N_ALL_LEVELS, dtype=np.uint8)
    starts = np.zeros(counts.N_ALL_LEVELS + 1, dtype=np.int64)
    weights = np.zeros(mixer.N_EXPERTS)
    by_block, last_by_block, nothing_by_block = np.zeros(blocks), np.zeros(blocks), np.zeros(blocks)
    _greatest_by_block(unigram, by_block)
    last, nothing, last_low, context = np.zeros(n_tokens), np.zeros(n_tokens), np.int64(-1), np.int64(-1)
    last_bucket = np.uint8(0)
    spoken = np.zeros(n_tokens, dtype=np.int64)
    entry_tokens = np.zeros(_ROOM, dtype=np.uint16)
    entry_shares = np.zeros(_ROOM)
    stamp = np.zeros(n_tokens, dtype=np.int64)
    mark = np.zeros(1, dtype=np.int64)
    no_powers = powers[0][:0]
    static = cache_tables.level.shape[0] == 0
    for r in range(len(boundaries)):
        i = boundaries[r]
        said = powers[r] if powers_sum[r] > 0.0 else no_powers
        # What often follows the last token is spread out once for all neighbours that have the same token before them.
        n = high[i, 0] - low[i, 0] if levels[i] > 0 else 0
        common = static and n > counts.HEAVY
        if common and low[i, 0] != last_low:
            last_low, before = np.int64(low[i, 0]), context
            context = counts.heavy_context(heavy_level, heavy_low, 0, low[i, 0])
            last_bucket = counts.spread_heavy(
                heavy_start, heavy_tokens, heavy_counts, before, context, n, last, last_by_block
            )  # fmt: skip
        while True:
            needed = counts.all_levels(
                followers, heavy_level, heavy_low, heavy_start, heavy_tokens, heavy_counts,
                history, previous, i + 1, low[i], high[i], levels[i], buckets, starts, entry_tokens, entry_shares,
                stamp, mark, 1 if common else 0,
            )  # fmt: skip
            if needed <= len(entry_tokens):
                break
            entry_tokens = np.zeros(2 * needed, dtype=np.uint16)
            entry_shares = np.zeros(2 * needed)
        if static:
            if common:
                buckets[0] = last_bucket
            out_probability[r], out_best[r] = target_and_best(
                history[i + 1], level, by_concept[concept[r]], by_confidence, by_names, buckets, starts, entry_tokens,
                entry_shares, unigram, by_block, last if common else nothing,
                last_by_block if common else nothing_by_block, said, powers_sum[r], offered[i], slots[i], rank_weights,
                weights, out, out_parts[r], spoken, stamp, mark,
            )  # fmt: skip
            continue
        mix_one(
            level, by_concept[concept[r]], by_confidence, by_names, buckets, starts, entry_tokens, entry_shares,
            unigram, said, powers_sum[r], offered[i], slots[i], rank_weights, weights, out, out_parts[r],
        )  # fmt: skip
        step = net_step(said, powers_sum[r])
        caches.add_caches(history, i + 1, earlier, cache_tables, concept[r], step, out, stamp, mark)
        out_probability[r] = out[history[i + 1]]
        out_best[r] = most_probable(out)
