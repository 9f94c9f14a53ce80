"""Intervals are checked against simulations whose truth is known, not against another implementation of themselves."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ontology.stats import (
    Method,
    benjamini_hochberg,
    bootstrap_ratio,
    minimum_detectable_difference,
    paired_difference,
    paired_ratio,
    unpaired_difference,
    unpaired_ratio,
)

LOG_SIZE, LOG_SIZE_SD, TREND = 8.5, 1.1, -0.04
METHODS: tuple[Method, ...] = ("percentile", "bca")
CLUSTER_SD, FILE_SD = 0.12, 0.20
# sizes are log-normal and bits per byte are 1.2 * exp(cluster + file + trend * (log size - mean)), so the true ratio of
# expectations has a closed form: tilting a normal by exp(x) shifts its mean by its variance.
TRUTH = 1.2 * math.exp(
    CLUSTER_SD**2 / 2 + FILE_SD**2 / 2 + ((1 + TREND) ** 2 - 1) * LOG_SIZE_SD**2 / 2
)  # fmt: skip


def draw_files(rng: np.random.Generator, n_clusters: int, per_cluster: int = 3):
    """Bits, bytes and project of synthetic files; files of a project are alike."""
    sizes = rng.lognormal(LOG_SIZE, LOG_SIZE_SD, size=(n_clusters, per_cluster))
    cluster = rng.normal(0, CLUSTER_SD, size=(n_clusters, 1))
    noise = rng.normal(0, FILE_SD, size=sizes.shape)
    bits = sizes * 1.2 * np.exp(cluster + noise + TREND * (np.log(sizes) - LOG_SIZE))
    return bits.ravel(), sizes.ravel(), np.repeat(np.arange(n_clusters), per_cluster)


def coverage(n_clusters: int, repeats: int, replications: int, method: Method = "studentised") -> float:
    rng = np.random.default_rng(11)
    hits = 0
    for repeat in range(repeats):
        bits, sizes, clusters = draw_files(rng, n_clusters)
        interval = bootstrap_ratio(bits, sizes, clusters, replications=replications, seed=repeat, method=method)
        hits += interval.low <= TRUTH <= interval.high
    return hits / repeats


def flagged(n_clusters: int, repeats: int, replications: int, paired: bool, shift: float = 0.0) -> float:
    """Share of comparisons called different when B's bits per byte is A's law plus `shift`."""
    rng = np.random.default_rng(5)
    count = 0
    for repeat in range(repeats):
        bits, sizes, clusters = draw_files(rng, n_clusters)
        options = {"replications": replications, "seed": repeat}
        if paired:
            one, two = (bits * np.exp(rng.normal(0, 0.05, size=bits.shape)) for _ in range(2))
            result = paired_difference(one + shift * sizes, two, sizes, clusters=clusters, **options)
        else:
            bits_b, sizes_b, clusters_b = draw_files(rng, n_clusters)
            pair = (bits + shift * sizes, sizes), (bits_b, sizes_b)
            result = unpaired_difference(*pair, clusters, clusters_b, **options)
        assert result.significant == (result.p_value <= 0.05) or abs(result.p_value - 0.05) < 0.01
        count += result.significant
    return count / repeats


def test_closed_form_truth_agrees_with_a_large_draw():
    bits, sizes, _ = draw_files(np.random.default_rng(0), 400_000, 1)
    assert bits.sum() / sizes.sum() == pytest.approx(TRUTH, rel=3e-3)


def test_coverage_with_forty_clusters():
    # 400 repeats: the standard error of the share itself is 1.1 points.
    assert 0.92 <= coverage(40, repeats=400, replications=400) <= 0.98


def test_same_model_twice_is_rarely_called_different():
    assert 0.02 <= flagged(40, repeats=300, replications=400, paired=True) <= 0.09
    assert 0.015 <= flagged(40, repeats=200, replications=400, paired=False) <= 0.095


@pytest.mark.slow
@pytest.mark.parametrize("n_clusters", [30, 100])
def test_coverage_is_93_to_97_percent(n_clusters: int):
    share = coverage(n_clusters, repeats=3000, replications=800)
    print(f"{n_clusters} clusters: coverage {share:.3f}")  # pytest -rP shows it
    assert 0.93 <= share <= 0.97


@pytest.mark.slow
def test_coverage_with_five_clusters_and_of_the_other_methods():
    five = coverage(5, repeats=2000, replications=800)
    others = {method: coverage(30, repeats=1500, replications=800, method=method) for method in METHODS}
    print(f"five clusters: coverage {five:.3f}; thirty, by method: {others}")
    assert five >= 0.90
    # The reason why these are not the default.
    assert max(others.values()) < 0.94


@pytest.mark.slow
@pytest.mark.parametrize("paired", [True, False])
def test_same_model_twice_flags_about_five_percent(paired: bool):
    assert 0.035 <= flagged(40, repeats=2000, replications=800, paired=paired) <= 0.065


def test_minimum_detectable_difference_is_found_four_times_in_five():
    rng = np.random.default_rng(3)
    bits, sizes, clusters = draw_files(rng, 60)
    a, b = (bits * np.exp(rng.normal(0, 0.05, size=bits.shape)) for _ in range(2))
    shift = paired_difference(a, b, sizes, clusters=clusters).minimum_detectable
    error = paired_difference(a, b, sizes, clusters=clusters).standard_error
    assert shift == pytest.approx(minimum_detectable_difference(error), rel=0.2), "sixty clusters are nearly normal"
    assert 0.65 <= flagged(60, repeats=150, replications=300, paired=True, shift=shift) <= 0.95


def test_what_is_detectable_never_lies_inside_the_interval_and_is_found_with_three_seeds_too():
    """Half a Student interval with two degrees of freedom is wider than the usual 2.8 standard errors."""
    rng, least = np.random.default_rng(8), []
    size = np.ones(40)

    def compared(shift: float):
        # Training seeds scatter by 0.05, files hardly.
        one, two = (1 + rng.normal(0, 0.05, (3, 1)) + rng.normal(0, 0.01, (3, 40)) for _ in range(2))
        return paired_difference(one + shift, two, size, seeds=True, replications=300)

    for _ in range(60):
        c = compared(0.0)
        assert c.minimum_detectable > (c.high - c.low) / 2
        least.append(c.minimum_detectable)
    shift = float(np.mean(least))
    found = np.mean([compared(shift).significant for _ in range(100)])
    assert shift > 1.3 * minimum_detectable_difference(0.05 * (2 / 3) ** 0.5) and 0.65 <= found <= 0.98
    five = paired_difference([1.0, 2, 3, 4, 6], [1.1, 2, 3.3, 4, 6], np.ones(5))
    assert five.minimum_detectable > (five.high - five.low) / 2


def test_few_clusters_that_happen_to_agree_are_not_certain():
    two = paired_difference([5.0, 7.0], [3.0, 5.0], [100.0, 100.0])
    assert two.estimate == pytest.approx(0.02) and two.p_value == 0.5
    assert math.isnan(two.low) and math.isnan(two.minimum_detectable) and not two.significant
    many = paired_difference(np.full(40, 5.0), np.full(40, 3.0), np.full(40, 100.0))
    assert many.low == many.high == pytest.approx(0.02) and many.p_value < 1e-10 and many.significant


def test_pairing_removes_what_makes_a_file_hard():
    rng = np.random.default_rng(0)
    bits, sizes, clusters = draw_files(rng, 40)
    better = bits * 0.97 * np.exp(rng.normal(0, 0.02, size=bits.shape))
    paired = paired_difference(better, bits, sizes, clusters=clusters)
    unpaired = unpaired_difference((better, sizes), (bits, sizes), clusters, clusters)
    assert paired.significant and not unpaired.significant
    assert paired.estimate == pytest.approx(unpaired.estimate)
    ratio = paired_ratio(better, bits, sizes, clusters=clusters)
    assert ratio.significant and ratio.high < 1 and ratio.estimate == pytest.approx(better.sum() / bits.sum())
    assert unpaired_ratio((better, sizes), (bits, sizes)).null == 1


def test_clusters_widen_the_interval_when_files_are_alike():
    bits, sizes, clusters = draw_files(np.random.default_rng(2), 12, 25)
    bits *= np.exp(np.random.default_rng(3).normal(0, 0.3, size=12))[clusters]
    by_file, by_project = bootstrap_ratio(bits, sizes), bootstrap_ratio(bits, sizes, clusters)
    assert by_project.high - by_project.low > 1.5 * (by_file.high - by_file.low)
    assert by_project.n_clusters == 12 and by_file.n_clusters == 300


def test_labels_of_any_kind_in_any_order():
    bits, sizes, clusters = draw_files(np.random.default_rng(4), 9)
    names = [f"project {label}" for label in clusters]
    order = np.random.default_rng(1).permutation(len(bits))
    one = bootstrap_ratio(bits, sizes, names, seed=3)
    assert one == bootstrap_ratio(bits, sizes, clusters, seed=3)
    shuffled = bootstrap_ratio(bits[order], sizes[order], [names[i] for i in order], seed=3)
    assert shuffled.estimate == pytest.approx(one.estimate) and shuffled.standard_error == pytest.approx(
        one.standard_error
    )


def test_deterministic_by_seed():
    bits, sizes, clusters = draw_files(np.random.default_rng(6), 20)
    assert bootstrap_ratio(bits, sizes, clusters, seed=1) == bootstrap_ratio(bits, sizes, clusters, seed=1)
    assert bootstrap_ratio(bits, sizes, clusters, seed=1) != bootstrap_ratio(bits, sizes, clusters, seed=2)


def test_training_seeds_widen_the_interval_and_cover():
    rng = np.random.default_rng(8)
    hits, repeats, results = 0, 300, []
    for repeat in range(repeats):
        bits, sizes, clusters = draw_files(rng, 40)
        effects = np.exp(rng.normal(0, 0.05, size=(3, 1)))
        interval = bootstrap_ratio(bits * effects, sizes, clusters, seeds=True, replications=400, seed=repeat)
        hits += interval.low <= TRUTH * math.exp(0.05**2 / 2) <= interval.high
        results.append((interval, bootstrap_ratio((bits * effects).mean(0), sizes, clusters, replications=2)))
    assert hits / repeats >= 0.93
    interval, fixed = results[0]
    assert interval.standard_error > fixed.standard_error
    assert interval.estimate == pytest.approx(fixed.estimate)


def test_seeds_of_two_models_are_compared_in_pairs():
    rng = np.random.default_rng(9)
    bits, sizes, clusters = draw_files(rng, 30)
    a = bits * np.exp(rng.normal(0, 0.01, size=(5, 1)))
    b = 0.8 * bits * np.exp(rng.normal(0, 0.01, size=(5, 1)))
    result = paired_ratio(b, a, sizes, clusters=clusters, seeds=True)
    assert result.low < 0.8 < result.high < 0.9


def test_nothing_varies():
    interval = bootstrap_ratio([2.0, 4.0, 6.0], [1.0, 2.0, 3.0])
    assert (interval.low, interval.estimate, interval.high) == (2.0, 2.0, 2.0)
    same = paired_difference([1.0, 5.0, 2.0], [1.0, 5.0, 2.0], [2.0, 3.0, 4.0])
    assert same.p_value == 1.0 and not same.significant


def test_two_clusters_give_a_wide_interval_not_an_empty_one():
    interval = bootstrap_ratio([1.0, 1.2], [1.0, 1.0])
    assert interval.high - interval.low > 8 * interval.standard_error


def test_a_difference_in_one_file_only_is_not_called_certain():
    bits = np.full(40, 100.0)
    result = paired_difference(np.where(np.arange(40) == 7, 90.0, bits), bits, bits)
    assert not result.significant and result.low < -0.0025 < result.high


def test_one_cluster_has_no_interval_and_says_so():
    interval = bootstrap_ratio([3.0, 4.0], [4.0, 4.0], ["only", "only"])
    assert interval.estimate == 0.875 and math.isnan(interval.low)
    assert interval.as_dict("bits_per_byte") == {
        "bits_per_byte": 0.875, "bits_per_byte_low": None, "bits_per_byte_high": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "options", "words"),
    [
        (([], []), {}, "no files"),
        (([1.0, 2.0], [1.0]), {}, "do not match"),
        (([1.0, 2.0], [0.0, 0.0]), {}, "sum to zero"),
        (([1.0, math.nan], [1.0, 1.0]), {}, "not finite"),
        (([1.0, 2.0], [1.0, 1.0], ["a"]), {}, "1 cluster labels for 2"),
        (([1.0, 2.0], [1.0, 1.0]), {"method": "jackknife"}, "jackknife"),
        (([1.0, 2.0], [1.0, 1.0]), {"seeds": True}, "seeds, files"),
        (([[1.0, 2.0]], [1.0, 1.0]), {"seeds": True}, "at least two seeds"),
    ],
)
def test_mistakes_are_named(arguments, options, words):
    with pytest.raises(ValueError, match=words):
        bootstrap_ratio(*arguments, **options)


def test_paired_models_must_have_the_same_files():
    with pytest.raises(ValueError, match="do not match|same files"):
        paired_difference([1.0, 2.0], [1.0, 2.0, 3.0], [1.0, 1.0])


def test_benjamini_hochberg_on_a_worked_example():
    # Ten tests at rate 0.05: the largest k with p(k) <= 0.005 k is 2.
    p = [0.0001, 0.0095, 0.0201, 0.028, 0.04, 0.3, 0.4, 0.5, 0.7, 1.0]
    rejected, adjusted = benjamini_hochberg(p)
    assert rejected.tolist() == [True, True] + [False] * 8
    assert adjusted[:3] == pytest.approx([0.001, 0.0475, 0.067])
    assert benjamini_hochberg([])[1].size == 0
    with pytest.raises(ValueError):
        benjamini_hochberg([1.2])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=40), st.randoms(use_true_random=False))
def test_benjamini_hochberg_does_not_care_about_order(p, random):
    order = list(range(len(p)))
    random.shuffle(order)
    rejected, adjusted = benjamini_hochberg(p)
    again, again_adjusted = benjamini_hochberg([p[i] for i in order])
    assert again.tolist() == [bool(rejected[i]) for i in order]
    assert np.allclose(again_adjusted, adjusted[order])
    assert np.all(adjusted >= np.asarray(p) - 1e-15) and np.all(adjusted <= 1)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0.1, 1e6), st.floats(1, 1e6)), min_size=2, max_size=12),
    st.floats(1e-3, 1e3),
    st.integers(0, 5),
)
def test_units_do_not_matter_and_the_estimate_is_inside(rows, unit, seed):
    num, den = np.array(rows).T
    one = bootstrap_ratio(num, den, replications=200, seed=seed)
    assert one.low <= one.estimate * (1 + 1e-9) and one.estimate <= one.high * (1 + 1e-9)
    scaled = bootstrap_ratio(num * unit, den, replications=200, seed=seed)
    assert scaled.estimate == pytest.approx(one.estimate * unit)
    # A resample of nearly one cluster alone has a standard error of next to nothing; dividing by it amplifies rounding.
    assert scaled.high == pytest.approx(one.high * unit, rel=1e-4) or one.standard_error < 1e-9 * one.estimate
