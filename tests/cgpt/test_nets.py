"""Nets: training learns, resumes exactly, and a net looks at its declared reads alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cgpt.nets import Examples, Nets, NetShape, NetTrainer, declared_reads
from cgpt.reads import N_READS, READS
from ontology.errors import ConstructibleError

VOCAB = 40
SHAPE = NetShape(d_in=6, hidden=24, d_out=12, batch_rows=128)


def examples(n: int = 6000) -> Examples:
    """Module 0's answer is its first read, module 1's answer is 10 plus its second read."""
    random = np.random.default_rng(0)
    reads = random.integers(0, 10, (n, N_READS)).astype(np.uint16)
    module = random.integers(0, 2, n).astype(np.int16)
    targets = np.where(module == 0, reads[:, 0], 10 + reads[:, 1]).astype(np.uint16)
    return Examples(reads, module, targets)


def trainer(seed: int = 0) -> NetTrainer:
    declared = declared_reads([[READS[0], READS[2]], [READS[1], READS[2]]])
    return NetTrainer(["first", "second"], declared, examples(), VOCAB, SHAPE, seed)


def run(made: NetTrainer, begin: int, end: int, total: int = 300) -> list[float]:
    losses = []
    for i in range(begin, end):
        made.set_progress(i / total)
        losses.append(made.step(i))
    return losses


@pytest.fixture(scope="module")
def trained() -> tuple[list[float], Nets]:
    made = trainer()
    return run(made, 0, 300), made.finish()


def test_training_learns_each_concepts_own_task(trained):
    losses, nets = trained
    assert losses[0] > 1.5 and np.mean(losses[-20:]) < 0.1
    data = examples()
    for m in range(2):
        rows = np.flatnonzero(data.module == m)[:500]
        best = nets.logits(m, data.reads[rows]).argmax(1)
        assert (best == data.targets[rows]).mean() > 0.97


def test_rows_of_several_networks_say_what_each_network_says(trained):
    nets, data = trained[1], examples()
    reads = data.reads[:90]
    groups = [(1, np.arange(0, 90, 3)), (-1, np.arange(1, 90, 3)), (0, np.arange(2, 90, 3))]
    powers, sums = nets.powers_by_group(groups, reads)
    for m, rows in groups:
        if m < 0:
            assert not sums[rows].any()
            continue
        alone, total = nets.powers(m, reads[rows])
        np.testing.assert_allclose(powers[rows] / sums[rows, None], alone / total[:, None], atol=1e-6)
    without = nets.powers_by_group([(-1, groups[0][1]), *groups[1:]], reads)
    assert np.array_equal(without[0][groups[2][1]], powers[groups[2][1]])  # bit for bit
    assert not without[1][groups[0][1]].any()


def test_undeclared_reads_have_no_influence(trained):
    nets = trained[1]
    reads = examples().reads[:50]
    changed = reads.copy()
    for column in range(N_READS):
        if not nets.declared[0, column]:
            changed[:, column] = 30
    np.testing.assert_array_equal(nets.logits(0, reads), nets.logits(0, changed))
    changed[:, 0] = 30
    assert (nets.logits(0, reads) != nets.logits(0, changed)).any()


def test_a_restored_training_goes_on_exactly():
    one, two = trainer(), trainer()
    run(one, 0, 40)
    saved = one.state()
    straight = run(one, 40, 60)
    two.restore(saved)
    assert run(two, 40, 60) == straight
    for name, array in one.state().items():
        np.testing.assert_array_equal(array, two.state()[name], name)


def test_the_seed_decides():
    assert run(trainer(0), 0, 3) == run(trainer(0), 0, 3) != run(trainer(1), 0, 3)


def test_saved_and_loaded_alike(trained, tmp_path: Path):
    nets = trained[1]
    nets.save(tmp_path / "nets.safetensors")
    loaded = Nets.load(tmp_path / "nets.safetensors")
    assert loaded.concepts == ("first", "second")
    np.testing.assert_array_equal(loaded.logits(1, examples().reads[:9]), nets.logits(1, examples().reads[:9]))


def test_parameters_are_counted_by_owner(trained):
    nets = trained[1]
    assert nets.own_parameters(0) == 2 + 24 + 24 * 12 + 12
    assert nets.shared_parameters["output_bias"] == VOCAB
    assert nets.parameters == nets.own_parameters(0) + nets.own_parameters(1) + sum(nets.shared_parameters.values())


def test_the_read_that_decides_has_the_largest_share(trained):
    nets = trained[1]
    data = examples()
    row = int(np.flatnonzero(data.module == 0)[0])
    shares = nets.read_shares(0, data.reads[row], int(data.targets[row]))
    assert set(shares) == {READS[0], READS[2]}
    assert shares[READS[0]] > abs(shares[READS[2]])


def test_an_unknown_read_is_named():
    with pytest.raises(ConstructibleError, match="did you mean|Did you mean"):
        declared_reads([["previos_1"]])
