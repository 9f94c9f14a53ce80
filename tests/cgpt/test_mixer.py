"""The mixer: weights are a distribution over those who speak, learning finds who is right, tables survive JSON."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cgpt import counts, names
from cgpt.mixer import (
    EXPERTS,
    FIRST_LEVEL,
    N_CONFIDENCE,
    N_EXPERTS,
    N_NAMES,
    NAMES,
    NET,
    UNIGRAM,
    Mixer,
    Positions,
    confidence_step,
    first_name,
    weigh,
)  # fmt: skip


def positions(m: int = 4000, seed: int = 0) -> Positions:
    """Concept 0's targets are told by the net, concept 1's by file contexts of length 1; all else is noise."""
    random = np.random.default_rng(seed)
    concept = random.integers(0, 2, m)
    buckets = np.full((m, counts.N_ALL_LEVELS), counts.ABSENT, np.uint8)
    buckets[:, 0] = random.integers(0, counts.N_BUCKETS, m)
    buckets[::2, counts.N_LEVELS] = 7
    said = random.uniform(0.0, 0.02, (m, N_EXPERTS)).astype(np.float32)
    said[concept == 0, NET] = 0.9
    said[concept == 1, FIRST_LEVEL + counts.N_LEVELS] = 0.9
    return Positions(concept, random.integers(0, N_CONFIDENCE, m), np.full(m, names.N_SLOTS), buckets, said)


def weights(mixer: Mixer, concept: int, buckets: np.ndarray, confidence: int = 0, name: int = names.N_SLOTS):
    out = np.zeros(N_EXPERTS)
    level, row, by_confidence, by_names = mixer.tables_of(concept)
    weigh(level, row, by_confidence[confidence], by_names[name], buckets, name != names.N_SLOTS, out)
    return out


def test_it_learns_whom_to_believe_by_concept():
    seen = positions()
    start = Mixer.start(["a", "b"], nets=True)
    fitted = start.fit(seen)
    assert -np.log2(fitted.mix(seen)).mean() < -np.log2(start.mix(seen)).mean() - 0.9
    both = seen.buckets[0]
    assert both[counts.N_LEVELS] == 7
    assert weights(fitted, 0, both)[NET] > 0.9
    assert weights(fitted, 1, both)[FIRST_LEVEL + counts.N_LEVELS] > 0.9
    rows = fitted.table()
    assert [row["positions"] for row in rows] == np.bincount(seen.concept).tolist()
    assert all(abs(sum(row["weights"].values()) - 1.0) < 1e-5 for row in rows)
    assert rows[0]["weights"]["net"] > 0.8 > 0.3 > rows[1]["weights"]["net"]


def test_the_same_positions_give_the_same_tables_on_any_number_of_threads():
    import torch

    threads, made = torch.get_num_threads(), []
    try:
        for n in (1, 2):
            torch.set_num_threads(n)
            made.append(Mixer.start(["a", "b"], nets=True).fit(positions()))
            assert torch.get_num_threads() == n
    finally:
        torch.set_num_threads(threads)
    for name in ("level", "by_concept", "by_confidence", "by_names", "mean"):
        np.testing.assert_array_equal(getattr(made[0], name), getattr(made[1], name))


@given(st.data())
def test_weights_are_a_distribution_over_those_who_have_something_to_say(data: st.DataObject):
    random = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    start = Mixer.start(["a"], nets=data.draw(st.booleans()))
    mixer = replace(
        start, level=random.normal(0, 30, start.level.shape), by_names=random.normal(0, 3, (N_NAMES, N_EXPERTS)),
        by_confidence=random.normal(0, 3, (N_CONFIDENCE, N_EXPERTS)),
    )  # fmt: skip
    buckets = np.where(
        random.random(counts.N_ALL_LEVELS) < 0.5, counts.ABSENT, random.integers(0, counts.N_BUCKETS)
    ).astype(np.uint8)
    name = data.draw(st.integers(0, names.N_SLOTS))
    found = weights(mixer, 0, buckets, data.draw(st.integers(0, N_CONFIDENCE - 1)), name)
    assert abs(found.sum() - 1.0) < 1e-12 and (found >= 0.0).all()
    assert (found[FIRST_LEVEL:NAMES][buckets == counts.ABSENT] == 0.0).all()
    assert name != names.N_SLOTS or found[NAMES] == 0.0
    assert not np.isinf(mixer.by_concept[0, NET]) or found[NET] == 0.0


def test_without_nets_the_net_is_never_believed():
    fitted = Mixer.start(["a", "b"], nets=False).fit(positions())
    assert weights(fitted, 0, positions().buckets[0])[NET] == 0.0
    assert np.isinf(fitted.by_concept[:, NET]).all() and np.isfinite(fitted.by_concept[:, UNIGRAM]).all()


def test_tables_survive_json():
    fitted = Mixer.start(["a", "b"], nets=False).fit(positions(500))
    text = json.dumps(fitted.as_json(), allow_nan=False)
    again = Mixer.from_json(json.loads(text))
    for name in ("level", "by_concept", "by_confidence", "by_names", "positions", "mean"):
        np.testing.assert_array_equal(getattr(fitted, name), getattr(again, name))
    assert again.concepts == ("a", "b") and len(EXPERTS) == N_EXPERTS


def test_steps_of_what_the_mixer_looks_at():
    assert confidence_step(np.array([0.0, 0.049, 0.05, 0.999, 1.0])).tolist() == [0, 0, 1, 19, 19]
    slots = np.array([[3, 255], [names.NOTHING, 255]], np.uint8)
    assert first_name(slots).tolist() == [3, names.N_SLOTS]
