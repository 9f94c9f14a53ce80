"""Specialists: grown where the data say so, trained beside their nets, kept where they earn."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cgpt.model import ConstructedLM
from cgpt.nets import SPECIAL, Examples, Nets, NetShape, NetTrainer, declared_reads
from cgpt.reads import N_READS, READS
from cgpt.specialists import SPLITTERS, Split, earnings, grow, prune
from ontology.io import read_json

VOCAB = 40
SHAPE = NetShape(d_in=6, hidden=16, d_out=8, batch_rows=128)
CALLEE, RECEIVER = READS.index("callee"), READS.index("receiver")


def examples(n: int = 12_000, seed: int = 0) -> Examples:
    """In net 0 the callee decides which other read is copied; in net 1 nothing tells anything."""
    random = np.random.default_rng(seed)
    reads = random.integers(0, 10, (n, N_READS)).astype(np.uint16)
    module = random.integers(0, 2, n).astype(np.int16)
    copied = np.where(reads[:, CALLEE] < 5, reads[:, RECEIVER], 20 + reads[:, CALLEE])
    targets = np.where(module == 0, copied, random.integers(0, VOCAB, n)).astype(np.uint16)
    return Examples(reads, module, targets)


def declared() -> np.ndarray:
    return declared_reads([["callee", "receiver"], ["callee", "receiver"]])


def trained(steps: int = 200, most: int = 4000) -> tuple[Nets, Split]:
    split = grow(examples(), declared(), VOCAB, min_rows=100, most=most)
    made = NetTrainer(["first", "second"], declared(), examples(), VOCAB, SHAPE, 0, split)
    for i in range(steps):
        made.set_progress(i / steps)
        made.step(i)
    return made.finish(), split


@pytest.fixture(scope="module")
def grown() -> tuple[Nets, Split]:
    return trained()


def test_a_concept_is_split_by_the_read_that_tells_most(grown):
    split = grown[1]
    assert split.column[0] == CALLEE
    assert split.column[1] == -1, "a read that tells nothing makes no specialist"
    assert (split.net == 0).all() and split.value.tolist() == list(range(10))
    assert (split.rows >= 100).all()


def test_only_declared_reads_that_have_a_name_are_asked():
    assert not any(READS[column].startswith(("file_", "names_")) for column in SPLITTERS)
    alone = declared_reads([["receiver"], ["receiver"]])
    assert CALLEE not in grow(examples(), alone, VOCAB).column


def test_no_more_are_grown_than_asked_for():
    split = grow(examples(), declared(), VOCAB, most=4)
    assert len(split.net) == 4
    assert split.value.tolist() == sorted(split.value.tolist())


def test_a_specialist_acts_where_its_value_stands_and_nowhere_else(grown):
    nets, split = grown
    reads = examples(seed=1).reads[:200]
    before = nets.logits(0, reads)
    changed = nets.special_b2.copy()
    changed[3] += 1.0
    after = replace(nets, special_b2=changed).logits(0, reads)
    moved = (before != after).any(1)
    assert np.array_equal(moved, reads[:, CALLEE] == split.value[3])


def test_one_row_and_many_rows_agree(grown):
    nets = grown[0]
    reads = examples(seed=1).reads[:40]
    one_by_one = np.concatenate([nets.logits(0, reads[i : i + 1]) for i in range(40)])
    np.testing.assert_allclose(nets.logits(0, reads), one_by_one, atol=1e-4)


def test_shares_of_reads_follow_the_specialist(grown):
    nets = grown[0]
    reads = examples(seed=1).reads[:1]
    shares = nets.read_shares(0, reads[0], 7)
    column = int(np.flatnonzero(nets.declared[0])[0])
    less = replace(nets, gate=nets.gate.copy(), special_gate=nets.special_gate.copy())
    less.gate[:, column] *= 0.999
    less.special_gate[:, column] *= 0.999
    moved = (nets.logits(0, reads) - less.logits(0, reads))[0, 7] / 0.001
    assert shares[READS[column]] == pytest.approx(moved, abs=0.05 + 0.02 * abs(float(moved)))


def test_what_a_specialist_earns_is_measured_and_what_earns_nothing_goes(grown):
    nets, split = grown
    unseen = examples(4000, seed=2)
    spoilt = nets.special_b2.copy()
    spoilt[2] = 5.0 * np.random.default_rng(0).normal(size=spoilt.shape[1])
    spoilt_nets = replace(nets, special_b2=spoilt)
    earned = earnings(spoilt_nets, unseen.module.astype(np.int64), unseen.reads, unseen.targets)
    expected = np.bincount(unseen.reads[unseen.module == 0, CALLEE], minlength=10)
    assert np.array_equal(earned.tokens, expected)
    assert earned.bits[2] < 0.0 and earned.bits[5:].sum() > 0.0
    kept, kept_split, _ = prune(spoilt_nets, split, earned)
    assert 2 not in kept_split.value.tolist()
    assert (kept.special_net == kept_split.net).all() and len(kept.special_b1) == len(kept_split.net)
    here = unseen.reads[unseen.module == 0][:50]
    same = np.isin(here[:, CALLEE], kept_split.value)
    assert np.array_equal(kept.logits(0, here)[same], spoilt_nets.logits(0, here)[same])


def test_a_restored_training_goes_on_exactly():
    split = grow(examples(), declared(), VOCAB)
    one, two = (NetTrainer(["first", "second"], declared(), examples(), VOCAB, SHAPE, 0, split) for _ in range(2))
    for i in range(20):
        one.step(i)
    saved = one.state()
    straight = [one.step(i) for i in range(20, 30)]
    two.restore(saved)
    assert [two.step(i) for i in range(20, 30)] == straight
    for name, array in one.state().items():
        np.testing.assert_array_equal(array, two.state()[name], name)


def test_nets_with_and_without_specialists_survive_the_disk(grown, tmp_path: Path):
    for k, nets in enumerate((grown[0], trained(2, most=0)[0])):
        nets.save(tmp_path / f"{k}.safetensors")
        again = Nets.load(tmp_path / f"{k}.safetensors")
        for name in SPECIAL:
            np.testing.assert_array_equal(getattr(nets, name), getattr(again, name))
        assert again.parameters == nets.parameters


def test_a_build_reports_what_its_specialists_earn(model: ConstructedLM):
    assert model.nets is not None
    report = read_json(model.folder / "specialists.json")
    assert report["kept"] == len(model.nets.special_net) == len(report["specialists"])
    assert all(row["bits_earned"] >= 0 and row["training_positions"] >= 100 for row in report["specialists"])
    assert report["kept"] <= report["tried"]
