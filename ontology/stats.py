"""Intervals for figures that are ratios of sums, and comparisons between two models.

Every figure this project reports is a ratio of sums over files: bits per byte is sum(bits) / sum(bytes), accuracy is
sum(correct) / sum(tokens). Files of one project resemble each other, so the unit that is resampled is the *cluster*
(file, project, image, class: whatever label the caller gives), never the token.

The interval is the symmetric studentised bootstrap: clusters are drawn with replacement, each draw's shift is divided
by that draw's own standard error, and the 95 % quantile of the absolute t-values, or Student's where that is larger,
replaces 1.96. It was picked by
simulation with known truth (log-normal file sizes, bits per byte that fall with size; `tests/ontology/test_stats.py`):
it covers 95 % at 30 and at 100 clusters and 97 % at five (where it is very wide), against 93-94 % for the equal-tailed
form, 92 % for percentile and 90 % for BCa intervals at 30; those two stay selectable. Where a few huge files hold most
of the bytes (log-sd 1.3 and a strong trend with size) it falls to 92-93 %.

Paired means that both models scored the same files: both models' sums travel together through the resampling, so what
makes a file hard for both cancels. Training seeds are a random effect: see `seeds` in `bootstrap_ratio`.

Sources: Efron and Tibshirani 1993, chapters 12 (bootstrap-t) and 14 (BCa); Hall 1988 (symmetric bootstrap-t);
Davison and Hinkley 1997, section 2.7 (influence values); Benjamini and Hochberg 1995.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Method = Literal["studentised", "bca", "percentile"]
Labels = Sequence[Hashable] | NDArray[Any]
_Floats = NDArray[np.float64]

_CHUNK_ENTRIES = 1 << 21
"""Resampling weights held at once (16 MiB of float64)."""

POWER = 0.8
"""How often the minimum detectable difference is found."""

_ROUNDING = 1e-13
"""A variance below this share of the squares it is a difference of is rounding, not variance."""


@dataclass(frozen=True)
class Interval:
    """A figure with its confidence interval.

    Attributes:
        estimate: the figure itself, in its own unit.
        low, high: ends of the interval; nan where fewer than two clusters leave nothing to resample.
        standard_error: by the delta method over clusters (and seeds); nan as above.
        level: nominal coverage, for example 0.95.
        n_clusters: clusters behind the figure (the smaller side of an unpaired comparison).
        method: how the ends were found.
    """

    estimate: float
    low: float
    high: float
    standard_error: float
    level: float
    n_clusters: int
    method: str

    def as_dict(self, name: str) -> dict[str, float | None]:
        """`{name, name_low, name_high}`, with None for an end that does not exist (JSON has no nan)."""
        ends = {"": self.estimate, "_low": self.low, "_high": self.high}
        return {name + suffix: float(value) if math.isfinite(value) else None for suffix, value in ends.items()}


@dataclass(frozen=True)
class Comparison(Interval):
    """The difference or ratio between two models.

    Attributes:
        null: the value that means "no difference" (0 for a difference, 1 for a ratio).
        p_value: two-sided, from the same resampling as the interval.
        minimum_detectable: how far from `null` the truth must be to be found with power 0.8 on data like this: half
            the interval (whose width knows of few clusters and few seeds) and 0.84 standard errors; print it beside
            every "no difference".
    """

    null: float
    p_value: float
    minimum_detectable: float

    @property
    def significant(self) -> bool:
        """Whether the interval leaves the null out."""
        return self.low > self.null or self.high < self.null


def bootstrap_ratio(
    numerators: ArrayLike,
    denominators: ArrayLike,
    clusters: Labels | None = None,
    *,
    seeds: bool = False,
    level: float = 0.95,
    replications: int = 2000,
    seed: int = 0,
    method: Method = "studentised",
) -> Interval:
    """Interval of sum(numerators) / sum(denominators), resampling clusters.

    Args:
        numerators, denominators: [n] one entry per file (or image); with `seeds`, numerators are [S, n], one row per
            training seed, and denominators [n] or [S, n].
        clusters: [n] labels; None makes every entry its own cluster.
        seeds: treat the rows of `numerators` as draws of a random training seed. The figure is the mean over seeds;
            its uncertainty over files is that of the seed average, and to each bootstrap draw a term
            s / sqrt(S) * t is added, with s the standard deviation between the seeds' figures and t from Student's
            distribution with S - 1 degrees of freedom (the fiducial form of the Behrens-Fisher sum). This leans to
            the wide side, and with two or three seeds it is wide: that is what two seeds are worth.
        level: nominal coverage.
        replications: bootstrap draws.
        seed: of the resampling; equal arguments give equal intervals.
        method: "studentised" (default), "bca" or "percentile". With `seeds`, only "studentised".

    Raises:
        ValueError: shapes disagree, nothing is given, a value is not finite, or the denominators sum to zero.
    """
    num, den = _paired_rows(numerators, denominators, seeds)
    block = _cluster_sums(np.stack([num.mean(0), den.mean(0)], axis=1), clusters)
    per_seed = num.sum(1) / den.sum(1) if seeds else None
    result = _bootstrap([block], _ratio, per_seed, level, replications, seed, method)
    return Interval(result.estimate, result.low, result.high, result.error, level, len(block), method)


def paired_difference(
    numerators_a: ArrayLike,
    numerators_b: ArrayLike,
    denominators_a: ArrayLike,
    denominators_b: ArrayLike | None = None,
    clusters: Labels | None = None,
    **options: Any,
) -> Comparison:
    """Figure of A minus figure of B on the same files; arguments and options as in `bootstrap_ratio`.

    `denominators_b` defaults to those of A (bytes are the same for both models; tokens are not).
    """
    return _paired(_difference, 0.0, numerators_a, numerators_b, denominators_a, denominators_b, clusters, **options)


def paired_ratio(
    numerators_a: ArrayLike,
    numerators_b: ArrayLike,
    denominators_a: ArrayLike,
    denominators_b: ArrayLike | None = None,
    clusters: Labels | None = None,
    **options: Any,
) -> Comparison:
    """Figure of A divided by figure of B on the same files; arguments and options as in `bootstrap_ratio`."""
    return _paired(
        _ratio_of_ratios, 1.0, numerators_a, numerators_b, denominators_a, denominators_b, clusters, **options
    )


def unpaired_difference(
    a: tuple[ArrayLike, ArrayLike],
    b: tuple[ArrayLike, ArrayLike],
    clusters_a: Labels | None = None,
    clusters_b: Labels | None = None,
    **options: Any,
) -> Comparison:
    """Figure of A minus figure of B on different files; `a` and `b` are (numerators, denominators)."""
    return _unpaired(_difference, 0.0, a, b, clusters_a, clusters_b, **options)


def unpaired_ratio(
    a: tuple[ArrayLike, ArrayLike],
    b: tuple[ArrayLike, ArrayLike],
    clusters_a: Labels | None = None,
    clusters_b: Labels | None = None,
    **options: Any,
) -> Comparison:
    """Figure of A divided by figure of B on different files; `a` and `b` are (numerators, denominators)."""
    return _unpaired(_ratio_of_ratios, 1.0, a, b, clusters_a, clusters_b, **options)


def minimum_detectable_difference(standard_error: float, *, level: float = 0.95, power: float = 0.8) -> float:
    """Smallest true difference that a two-sided test at `1 - level` finds with probability `power`.

    In the unit of `standard_error`; normal approximation, (z(1 - alpha/2) + z(power)) * standard_error, for planning:
    a comparison's own `minimum_detectable` is wider where clusters or seeds are few.
    """
    normal = NormalDist()
    return (normal.inv_cdf(0.5 + level / 2) + normal.inv_cdf(power)) * standard_error


def benjamini_hochberg(p_values: ArrayLike, rate: float = 0.05) -> tuple[NDArray[np.bool_], _Floats]:
    """Which of many tests to believe when at most `rate` of those believed may be false (Benjamini, Hochberg 1995).

    Args:
        p_values: [m], in any order.
        rate: the false discovery rate.

    Returns:
        rejected bool[m] and adjusted p-values float64[m], in the order given; rejected = adjusted <= rate.
    """
    p = np.asarray(p_values, dtype=np.float64)
    if p.ndim != 1 or not np.all((p >= 0) & (p <= 1)):
        raise ValueError("p_values must be a list of numbers between 0 and 1")
    order = np.argsort(p, kind="stable")
    stepped = p[order] * len(p) / np.arange(1, len(p) + 1)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1.0, np.minimum.accumulate(stepped[::-1])[::-1])
    return adjusted <= rate, adjusted


def adjusted_p(p_values: ArrayLike) -> _Floats:
    """p-values [m] adjusted for all of them (`benjamini_hochberg`); 1 where there is none (nan: one cluster alone)."""
    p = np.asarray(p_values, dtype=np.float64)
    known, adjusted = np.isfinite(p), np.ones(len(p))
    if known.any():
        adjusted[known] = benjamini_hochberg(p[known])[1]
    return adjusted


# What is estimated: value and gradient with respect to the column sums. All are unchanged when every sum of one block
# is scaled, so the gradient times the sums is zero and the influence of a cluster is the gradient times its row.


def _ratio(sums: _Floats) -> tuple[_Floats, _Floats]:
    """[.., 2] sums -> ([..], [.., 2])."""
    num, den = sums[..., 0], sums[..., 1]
    value = num / den
    return value, np.stack([1 / den, -value / den], axis=-1)


def _difference(sums: _Floats) -> tuple[_Floats, _Floats]:
    """[.., 4] sums -> ([..], [.., 4])."""
    (a, grad_a), (b, grad_b) = _ratio(sums[..., :2]), _ratio(sums[..., 2:])
    return a - b, np.concatenate([grad_a, -grad_b], axis=-1)


def _ratio_of_ratios(sums: _Floats) -> tuple[_Floats, _Floats]:
    """[.., 4] sums -> ([..], [.., 4])."""
    (a, grad_a), (b, grad_b) = _ratio(sums[..., :2]), _ratio(sums[..., 2:])
    value = a / b
    return value, np.concatenate([grad_a / b[..., None], -grad_b * (value / b)[..., None]], axis=-1)


@dataclass(frozen=True)
class _Result:
    estimate: float
    low: float
    high: float
    error: float
    p_value: float


def _bootstrap(
    blocks: list[_Floats],
    statistic: Any,
    per_seed: _Floats | None,
    level: float,
    replications: int,
    seed: int,
    method: str,
    null: float | None = None,
) -> _Result:
    """Resample each block's clusters [G_i, k_i] on their own; `statistic` sees the concatenated column sums."""
    if method not in ("studentised", "bca", "percentile"):
        raise ValueError(f"unknown method {method!r}: studentised, bca or percentile")
    if per_seed is not None and method != "studentised":
        raise ValueError("seeds as a random effect need method='studentised'")
    sums = np.concatenate([block.sum(0) for block in blocks])
    with np.errstate(divide="ignore", invalid="ignore"):
        value, gradient = statistic(sums)
    if per_seed is not None:
        value = per_seed.mean()
    if not np.isfinite(value):
        raise ValueError("the denominators sum to zero")
    estimate = float(value)
    if min(len(block) for block in blocks) < 2:
        return _Result(estimate, math.nan, math.nan, math.nan, math.nan)
    parts = np.split(gradient, np.cumsum([block.shape[1] for block in blocks])[:-1])
    influence = [block @ part for block, part in zip(blocks, parts, strict=True)]
    seed_error = 0.0 if per_seed is None else float(per_seed.std(ddof=1) / math.sqrt(len(per_seed)))
    variance = sum(len(r) / (len(r) - 1) * float(r @ r) for r in influence)
    error = math.sqrt(variance + seed_error**2)
    # Equal clusters leave only rounding behind; there is nothing to resample then.
    terms = sum(float(np.sum((block * part) ** 2)) for block, part in zip(blocks, parts, strict=True))
    if error**2 <= _ROUNDING * terms:
        # Two draws that happen to agree are not certain: n equal signs come by chance once in 2 ** (n - 1).
        chance = 2.0 ** (1 - min(len(block) for block in blocks))
        p_value = 1.0 if null is None or math.isclose(estimate, null, abs_tol=1e-12) else chance
        if null is not None and chance > 1 - level:
            return _Result(estimate, math.nan, math.nan, math.nan, p_value)
        return _Result(estimate, estimate, estimate, 0.0, p_value)

    null = 0.0 if null is None else null
    rng = np.random.default_rng(seed)
    values, errors = _draws(blocks, statistic, replications, rng)
    centre = float(statistic(sums)[0])
    alpha = (1 - level) / 2
    if method == "studentised":
        smallest = min(len(block) for block in blocks)
        t = _t_values(values - centre, errors, math.sqrt(variance), seed_error, per_seed, smallest, level, rng)
        half_width = float(np.quantile(np.abs(t), level)) * error
        low, high = estimate - half_width, estimate + half_width
        beyond = float(np.mean(np.abs(t) >= abs(estimate - null) / error)) * replications
    else:
        probabilities = np.array([alpha, 1 - alpha])
        if method == "bca":
            probabilities = _bca_probabilities(values, estimate, np.concatenate(influence), alpha)
        low, high = np.quantile(values, probabilities)
        beyond = 2.0 * float(min(np.sum(values >= null), np.sum(values <= null)))
    p_value = min(1.0, (beyond + 1) / (replications + 1))
    return _Result(estimate, float(low), float(high), error, p_value)


def _draws(
    blocks: list[_Floats], statistic: Any, replications: int, rng: np.random.Generator
) -> tuple[_Floats, _Floats]:
    """Value [R] and standard error [R] of each bootstrap draw."""
    values, errors = np.empty(replications), np.empty(replications)
    chunk = max(1, _CHUNK_ENTRIES // max(len(block) for block in blocks))
    products = [(block[:, :, None] * block[:, None, :]).reshape(len(block), -1) for block in blocks]
    for begin in range(0, replications, chunk):
        size = min(chunk, replications - begin)
        sums, moments = [], []
        for block, product in zip(blocks, products, strict=True):
            n = len(block)
            weights = rng.multinomial(n, np.full(n, 1 / n), size=size).astype(np.float64)
            sums.append(weights @ block)
            moments.append((weights @ product).reshape(size, block.shape[1], block.shape[1]) * (n / (n - 1)))
        with np.errstate(divide="ignore", invalid="ignore"):
            values[begin : begin + size], gradient = statistic(np.concatenate(sums, axis=1))
        parts = np.split(gradient, np.cumsum([block.shape[1] for block in blocks])[:-1], axis=1)
        variance, terms = np.zeros(size), np.zeros(size)
        for g, m in zip(parts, moments, strict=True):
            variance += np.einsum("ri,rij,rj->r", g, m, g)
            terms += np.einsum("ri,rii->r", g * g, m)
        errors[begin : begin + size] = np.sqrt(np.where(variance > _ROUNDING * terms, variance, 0.0))
    return values, errors


def _t_values(
    shift: _Floats, errors: _Floats, error: float, seed_error: float, per_seed: _Floats | None, n_clusters: int,
    level: float, rng: np.random.Generator,
) -> _Floats:  # fmt: skip
    """t-values [R] of the draws, never narrower than Student's, with the seeds' share mixed in."""
    # A draw made of one cluster many times has no error of its own; it carries no information on the quantiles. With
    # two or three clusters hardly any other draw is left, so Student's t with their degrees of freedom is the floor.
    student = rng.standard_t(n_clusters - 1, size=len(shift))
    usable = errors > 0
    t = shift[usable] / errors[usable] if error > 0 else np.zeros(0)
    if len(t) < 2 or np.quantile(np.abs(t), level) < np.quantile(np.abs(student), level):
        t = student
    if per_seed is None:
        return t
    total = math.hypot(error, seed_error)
    return t * (error / total) + rng.standard_t(len(per_seed) - 1, size=len(t)) * (seed_error / total)


def _bca_probabilities(values: _Floats, estimate: float, influence: _Floats, alpha: float) -> _Floats:
    """Quantile levels corrected for bias and skewness (Efron and Tibshirani 1993, section 14.3)."""
    normal = NormalDist()
    below = (np.sum(values < estimate) + 0.5 * np.sum(values == estimate)) / len(values)
    bias = normal.inv_cdf(float(np.clip(below, 0.5 / len(values), 1 - 0.5 / len(values))))
    acceleration = float(np.sum(influence**3) / (6 * np.sum(influence**2) ** 1.5))
    shifted = [bias + normal.inv_cdf(level) for level in (alpha, 1 - alpha)]
    return np.array([normal.cdf(bias + z / (1 - acceleration * z)) for z in shifted])


def _paired(
    statistic: Any, null: float, num_a: ArrayLike, num_b: ArrayLike, den_a: ArrayLike, den_b: ArrayLike | None,
    clusters: Labels | None, *, seeds: bool = False, level: float = 0.95, replications: int = 2000, seed: int = 0,
    method: Method = "studentised",
) -> Comparison:  # fmt: skip
    a, a_den = _paired_rows(num_a, den_a, seeds)
    b, b_den = _paired_rows(num_b, den_a if den_b is None else den_b, seeds)
    if a.shape != b.shape:
        raise ValueError(f"the two models have {a.shape} and {b.shape} figures; paired means the same files and seeds")
    block = _cluster_sums(np.stack([x.mean(0) for x in (a, a_den, b, b_den)], axis=1), clusters)
    per_seed = None
    if seeds:
        per_seed = statistic(np.stack([x.sum(1) for x in (a, a_den, b, b_den)], axis=1))[0]
    result = _bootstrap([block], statistic, per_seed, level, replications, seed, method, null)
    return _comparison(result, null, level, len(block), method)


def _unpaired(
    statistic: Any, null: float, a: tuple[ArrayLike, ArrayLike], b: tuple[ArrayLike, ArrayLike],
    clusters_a: Labels | None, clusters_b: Labels | None, *, level: float = 0.95, replications: int = 2000,
    seed: int = 0, method: Method = "studentised",
) -> Comparison:  # fmt: skip
    blocks = []
    for (num, den), clusters in ((a, clusters_a), (b, clusters_b)):
        rows, row_den = _paired_rows(num, den, False)
        blocks.append(_cluster_sums(np.stack([rows[0], row_den[0]], axis=1), clusters))
    result = _bootstrap(blocks, statistic, None, level, replications, seed, method, null)
    return _comparison(result, null, level, min(len(block) for block in blocks), method)


def _comparison(result: _Result, null: float, level: float, n_clusters: int, method: str) -> Comparison:
    # Not 1.96 standard errors: with few clusters or seeds a difference must leave a much wider interval to be found.
    detectable = (result.high - result.low) / 2 + NormalDist().inv_cdf(POWER) * result.error
    return Comparison(
        result.estimate,
        result.low,
        result.high,
        result.error,
        level,
        n_clusters,
        method,
        null,
        result.p_value,
        detectable,
    )


def _paired_rows(numerators: ArrayLike, denominators: ArrayLike, seeds: bool) -> tuple[_Floats, _Floats]:
    """Both as finite float64[S, n] (S = 1 without seeds)."""
    num = np.asarray(numerators, dtype=np.float64)
    den = np.asarray(denominators, dtype=np.float64)
    if num.ndim != (2 if seeds else 1):
        raise ValueError(f"numerators must be {'[seeds, files]' if seeds else '[files]'}, not of shape {num.shape}")
    if seeds and num.shape[0] < 2:
        raise ValueError("seeds as a random effect need at least two seeds")
    num = np.atleast_2d(num)
    if den.shape[-1:] != num.shape[-1:] or den.ndim > num.ndim:
        raise ValueError(f"numerators of shape {num.shape} and denominators of shape {den.shape} do not match")
    den = np.broadcast_to(den, num.shape)
    if num.size == 0:
        raise ValueError("nothing to average: no files")
    if not (np.all(np.isfinite(num)) and np.all(np.isfinite(den))):
        raise ValueError("a figure is not finite")
    return num, den


def _cluster_sums(columns: _Floats, clusters: Labels | None) -> _Floats:
    """[n, k] entries -> [G, k] sums per label, in order of first appearance."""
    if clusters is None:
        return columns
    if len(clusters) != len(columns):
        raise ValueError(f"{len(clusters)} cluster labels for {len(columns)} entries")
    index: dict[Hashable, int] = {}
    position = np.array([index.setdefault(label, len(index)) for label in clusters], dtype=np.int64)
    sums = np.zeros((len(index), columns.shape[1]))
    np.add.at(sums, position, columns)
    return sums
