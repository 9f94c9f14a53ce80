"""The ladder: from a base distribution up the levels, each level trusted as far as it has earned.

`p = (1 - escape) * count / n + escape * p`, level by level, short contexts first and the file's own past last. `escape`
is one number per level and bucket of (n, t), measured on files that were not counted: a readable table. The result is
a normalised distribution whatever the base is, and each level's weight in it is a plain product, so a probability can
be taken apart again into "so much from this level".

Method: Jelinek-Mercer smoothing with bucketed weights (Jelinek and Mercer 1980; Chen and Goodman 1999), over unbounded
contexts; the weights are the maximum-likelihood ones, by expectation-maximisation.
"""

from __future__ import annotations

import numpy as np

from cgpt.compiled import compiled
from cgpt.counts import ABSENT, N_ALL_LEVELS, N_BUCKETS

EM_ROUNDS = 25
_PRIOR_SEEN, _PRIOR_ESCAPED = 2.0, 1.0
"""Every bucket starts from this many imagined observations, of which this many escaped: escapes stay inside (0, 1)."""


@compiled
def climb(base, buckets, shares, escape):  # pragma: no cover - compiled
    """Probability of each target: base float64[m], buckets uint8[m, L], shares float32[m, L] -> float64[m]."""
    p = base.copy()
    for i in range(buckets.shape[0]):
        x = p[i]
        for level in range(buckets.shape[1]):
            b = buckets[i, level]
            if b != ABSENT:
                e = escape[level, b]
                x = (1.0 - e) * shares[i, level] + e * x
        p[i] = x
    return p


@compiled
def _expectation(base, buckets, shares, escape, escaped, seen):  # pragma: no cover - compiled
    n_levels = buckets.shape[1]
    x = np.zeros(n_levels + 1)
    for i in range(buckets.shape[0]):
        x[0] = base[i]
        for level in range(n_levels):
            b = buckets[i, level]
            if b == ABSENT:
                x[level + 1] = x[level]
            else:
                e = escape[level, b]
                x[level + 1] = (1.0 - e) * shares[i, level] + e * x[level]
        reached = 1.0
        for level in range(n_levels - 1, -1, -1):
            b = buckets[i, level]
            if b == ABSENT:
                continue
            went_on = reached * escape[level, b] * x[level] / x[level + 1]
            seen[level, b] += reached
            escaped[level, b] += went_on
            reached = went_on


def fit_escape(base: np.ndarray, buckets: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Escape float64[N_ALL_LEVELS, N_BUCKETS] that makes the targets most probable (EM, fixed rounds)."""
    escape = np.full((N_ALL_LEVELS, N_BUCKETS), 0.5)
    for _ in range(EM_ROUNDS):
        escaped = np.full_like(escape, _PRIOR_ESCAPED)
        seen = np.full_like(escape, _PRIOR_SEEN)
        _expectation(base, buckets, shares, escape, escaped, seen)
        escape = escaped / seen
    return escape


def level_weights(buckets: np.ndarray, escape: np.ndarray) -> tuple[float, np.ndarray]:
    """Weight of the base and of each level (float64[L]; they sum to 1) at one position with `buckets` uint8[L]."""
    weights = np.zeros(len(buckets))
    rest = 1.0
    for level in range(len(buckets) - 1, -1, -1):
        if buckets[level] != ABSENT:
            e = escape[level, buckets[level]]
            weights[level] = rest * (1.0 - e)
            rest *= e
    return rest, weights


@compiled
def spread(out, starts, entry_tokens, entry_shares, weights):  # pragma: no cover - compiled
    """Add weights[l] * share to out[token] for every follower listed by `counts.all_levels`. out float64[V]."""
    for level in range(len(weights)):
        w = weights[level]
        if w > 0.0:
            for e in range(starts[level], starts[level + 1]):
                out[entry_tokens[e]] += w * entry_shares[e]
