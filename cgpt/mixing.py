"""One position's distribution from all experts, in compiled code: the arithmetic of `cgpt.model`, and nothing else.

The same function serves scoring, generation and the sum test, so there is one definition of every probability.
"""

from __future__ import annotations

import numpy as np

from cgpt import counts, names
from cgpt.compiled import compiled
from cgpt.ladder import spread

COUNTS, NET, REFINED, NAMES = range(4)
EXPERTS = ("counts", "net", "refined", "names")
"""The mixer's experts: counts on the ladder from the unigram; the net; counts on the ladder from the net; names."""
SOURCES = ("net", "corpus", "file", "names", "unigram")
"""What a probability finally rests on: the experts taken apart into disjoint parts whose weights sum to 1."""
S_NET, S_CORPUS, S_FILE, S_NAMES, S_UNIGRAM = range(len(SOURCES))
_ROOM = 1 << 14


@compiled
def _ladder_weights(buckets, escape, weights):  # pragma: no cover - compiled
    """Fill weights of the levels for one escape table; returns the base's weight. All sum to 1."""
    rest = 1.0
    for level in range(len(buckets) - 1, -1, -1):
        weights[level] = 0.0
        if buckets[level] != counts.ABSENT:
            e = escape[level, buckets[level]]
            weights[level] = rest * (1.0 - e)
            rest *= e
    return rest


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
def mix_one(
    mix, escape_counts, escape_refined, buckets, starts, entry_tokens, entry_shares, unigram,
    own_logits, own_ids, outside, outside_unigram, offered, slots, rank_weights, level_weights, out, parts,
):  # pragma: no cover - compiled  # fmt: skip
    """Write the mixed distribution to `out` float64[V]; `parts` float64[5] gets the weight of each source.

    `mix` float64[4] are the mixer's weights in force; `own_logits` float32[own] (empty: no net); `outside` the net's
    share for other tokens and `outside_unigram` float64[V] how that share is spread (sums to 1, 0 on own tokens).
    `level_weights` float64[2, levels] is scratch and keeps the weights of the levels, from counts and from refined.
    """
    rest_counts = _ladder_weights(buckets, escape_counts, level_weights[0])
    rest_refined = _ladder_weights(buckets, escape_refined, level_weights[1])
    total, ended = names_weight(slots, offered, rank_weights)
    to_base = names.BASE_SHARE + (1.0 - names.BASE_SHARE) * (ended / total if total > 0.0 else 1.0)
    w_net = mix[NET] + mix[REFINED] * rest_refined
    w_unigram = mix[COUNTS] * rest_counts + mix[NAMES] * to_base
    for v in range(len(out)):
        out[v] = w_unigram * unigram[v]
    if len(own_logits) and w_net > 0.0:
        top = own_logits[0]
        for j in range(1, len(own_logits)):
            top = max(top, own_logits[j])
        z = 0.0
        for j in range(len(own_logits)):
            z += np.exp(np.float64(own_logits[j] - top))
        scale = w_net * (1.0 - outside) / z
        for j in range(len(own_logits)):
            out[own_ids[j]] += scale * np.exp(np.float64(own_logits[j] - top))
        for v in range(len(out)):
            out[v] += w_net * outside * outside_unigram[v]
    corpus = 0.0
    file = 0.0
    for level in range(counts.N_ALL_LEVELS):
        level_weights[0, level] *= mix[COUNTS]
        level_weights[1, level] *= mix[REFINED]
        w = level_weights[0, level] + level_weights[1, level]
        if level < counts.N_LEVELS:
            corpus += w
        else:
            file += w
    spread(out, starts, entry_tokens, entry_shares, level_weights[0] + level_weights[1])
    if total > 0.0 and mix[NAMES] > 0.0:
        scale = mix[NAMES] * (1.0 - names.BASE_SHARE) / total
        for k in range(len(slots)):
            if slots[k] == names.NOTHING:
                break
            if offered[k] != names.END_OF_NAME:
                out[offered[k]] += scale * rank_weights[slots[k]]
    parts[S_NET] = w_net
    parts[S_CORPUS] = corpus
    parts[S_FILE] = file
    parts[S_NAMES] = mix[NAMES] * (1.0 - to_base)
    parts[S_UNIGRAM] = w_unigram


@compiled
def score_rows(
    tokens, order, followers, first, unigram_counts,
    heavy_level, heavy_low, heavy_start, heavy_tokens, heavy_counts,
    history, previous, offered, slots, boundaries, mix_table, corpus_steps, file_steps,
    escape_counts, escape_refined, unigram, own_logits, own_ids, outside, outside_unigram, rank_weights,
    out_probability, out_best, out_bucket, out_parts,
):  # pragma: no cover - compiled  # fmt: skip
    """Score the targets at `boundaries` int64[r], all with one concept in charge.

    `mix_table` float64[buckets, 4] is that concept's part of the mixer, `own_logits` float32[r, own]. Writes per row
    the target's probability, the most probable token, the mixer's bucket and the sources' weights float64[r, 5].
    """
    n_tokens = len(unigram)
    out = np.zeros(n_tokens)
    buckets = np.zeros(counts.N_ALL_LEVELS, dtype=np.uint8)
    starts = np.zeros(counts.N_ALL_LEVELS + 1, dtype=np.int64)
    level_weights = np.zeros((2, counts.N_ALL_LEVELS))
    low = np.zeros(counts.N_LEVELS, dtype=np.int64)
    high = np.zeros(counts.N_LEVELS, dtype=np.int64)
    entry_tokens = np.zeros(_ROOM, dtype=np.uint16)
    entry_shares = np.zeros(_ROOM)
    stamp = np.zeros(n_tokens, dtype=np.int64)
    mark = np.zeros(1, dtype=np.int64)
    for r in range(len(boundaries)):
        i = boundaries[r]
        while True:
            needed, longest = counts.all_levels(
                tokens, order, followers, first, unigram_counts,
                heavy_level, heavy_low, heavy_start, heavy_tokens, heavy_counts,
                history, previous, i + 1, buckets, starts, entry_tokens, entry_shares, low, high, stamp, mark,
            )  # fmt: skip
            if needed <= len(entry_tokens):
                break
            entry_tokens = np.zeros(2 * needed, dtype=np.uint16)
            entry_shares = np.zeros(2 * needed)
        depth = 0
        for level in range(counts.N_LEVELS, counts.N_ALL_LEVELS):
            if buckets[level] != counts.ABSENT:
                depth += 1
        b = mix_bucket(longest, depth, slots[i, 0] != names.NOTHING, corpus_steps, file_steps)
        mix_one(
            mix_table[b], escape_counts, escape_refined, buckets, starts, entry_tokens, entry_shares, unigram,
            own_logits[r], own_ids, outside, outside_unigram, offered[i], slots[i], rank_weights, level_weights,
            out, out_parts[r],
        )  # fmt: skip
        best = 0
        for v in range(1, n_tokens):
            if out[v] > out[best]:
                best = v
        out_probability[r] = out[history[i + 1]]
        out_best[r] = best
        out_bucket[r] = b


@compiled
def mix_bucket(corpus_match, file_depth, names_present, corpus_steps, file_steps):  # pragma: no cover - compiled
    """The mixer's bucket of one position; the same as `mixer.bucket_of`."""
    corpus = 0
    while corpus < len(corpus_steps) and corpus_match >= corpus_steps[corpus]:
        corpus += 1
    file = 0
    while file < len(file_steps) and file_depth >= file_steps[file]:
        file += 1
    return (corpus * (len(file_steps) + 1) + file) * 2 + (1 if names_present else 0)
