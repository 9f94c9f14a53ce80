"""Pointers: the loss and the compiled code are the softmax of logits that grow where a read points."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cgpt.corpus import SourceFile
from cgpt.model import ConstructedLM
from cgpt.nets import Examples, NetShape, NetTrainer, declared_reads
from cgpt.pointers import COLUMNS, add_to, point, pointed_at, pointed_loss
from cgpt.reads import N_READS, READS

V, P = 12, len(COLUMNS)


def drawn(seed: int, rows: int = 7, spread: float = 3.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(logits, reads of which many are alike or none, gates)."""
    random = np.random.default_rng(seed)
    logits = random.normal(0, min(spread, 12.0), (rows, V)).astype(np.float32)
    reads = random.integers(0, V + 4, (rows, N_READS)).astype(np.uint16)
    return logits, reads, np.abs(random.normal(0, spread, (rows, P))).astype(np.float32)


def pointed(logits: np.ndarray, reads: np.ndarray, gates: np.ndarray) -> np.ndarray:
    """float64: logits with what pointers add, one by one."""
    out = logits.astype(np.float64)
    for row in range(len(out)):
        for p, column in enumerate(COLUMNS):
            if reads[row, column] < V:
                out[row, reads[row, column]] += gates[row, p]
    return out


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def test_pointers_hold_tokens_or_nothing_and_each_is_right_now_and_then(model: ConstructedLM, unseen: list[SourceFile]):
    """A read of small numbers among them would raise tokens that have nothing to do with it."""
    right = np.zeros(P, np.int64)
    for file in unseen:
        view = model.view(model.tokenizer.encode(file.data))
        tokens = view.reads[: view.n, COLUMNS]
        assert tokens.max() <= model.tokenizer.vocab_size
        right += (tokens == view.history[1 : view.n + 1, None]).sum(0)
    assert (right > 0).all(), dict(zip([READS[column] for column in COLUMNS], right.tolist(), strict=True))


class WithoutPointers(NetTrainer):
    pointer_columns = COLUMNS[:0]


def test_a_net_learns_to_copy_tokens_that_it_seldom_saw():
    """A read says what comes, two thirds of the time one of four tokens, else one of 2,000, most of them never seen."""
    random = np.random.default_rng(0)
    n, size = 3000, 2000
    reads = np.full((n, N_READS), size, np.uint16)
    reads[:, READS.index("file_1")] = np.where(random.random(n) < 2 / 3, np.arange(n) % 4, random.integers(0, size, n))
    declared = declared_reads([["file_1"]])
    data = Examples(reads, np.zeros(n, np.int16), reads[:, READS.index("file_1")].copy())
    never = np.full((500, N_READS), size, np.uint16)
    never[:, READS.index("file_1")] = np.setdiff1d(np.arange(size), data.targets)[:500]
    bits = []
    for kind in (NetTrainer, WithoutPointers):
        trainer = kind(["only"], declared, data, size, NetShape(d_in=8, hidden=16, d_out=8, batch_rows=128))
        for step in range(200):
            trainer.set_progress(step / 200)
            trainer.step(step)
        bits.append(trainer.finish().bits(0, never, never[:, READS.index("file_1")]).mean())
    guessing = np.log2(size)
    assert bits[0] < guessing / 2 and bits[1] > guessing, bits


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.5, 3.0, 12.0, 90.0]))
def test_compiled_code_gives_the_softmax_of_the_raised_logits(seed: int, spread: float):
    logits, reads, gates = drawn(seed, spread=spread)
    expected = softmax(pointed(logits, reads, gates))
    powers = np.exp(logits - logits.max(1, keepdims=True))
    sums = powers.sum(1, dtype=np.float64)
    point(powers, sums, reads, COLUMNS, gates)
    assert np.allclose(powers.max(1), 1.0, atol=1e-6) and (powers > 0.0).all()
    np.testing.assert_allclose(powers / sums[:, None], expected, rtol=2e-5, atol=1e-7)
    added = logits.copy()
    add_to(added, reads, COLUMNS, gates)
    np.testing.assert_allclose(added, pointed(logits, reads, gates), atol=1e-4)


def test_rows_without_a_net_stay_as_they_are():
    _, reads, gates = drawn(0)
    powers, sums = np.full((len(reads), V), 7.0, np.float32), np.zeros(len(reads))
    point(powers, sums, reads, COLUMNS, gates)
    assert (powers == 7.0).all() and not sums.any()


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32 - 1), st.sampled_from([5, 32, 45]))
def test_the_loss_and_its_gradient_are_those_of_the_raised_logits(seed: int, width: int):
    _, reads, gates = drawn(seed, spread=1.5)
    random = np.random.default_rng(seed)
    declared = random.random((len(reads), N_READS)) < 0.7

    def leaf(*size: int) -> torch.Tensor:
        return torch.from_numpy(random.normal(0, width**-0.25, size).astype(np.float32)).requires_grad_()

    answers, output, bias = leaf(len(reads), width), leaf(V, width), leaf(V)
    own = torch.from_numpy(gates).requires_grad_()
    targets = torch.from_numpy(random.integers(0, V, len(reads)))
    tokens = pointed_at(reads, declared, COLUMNS)
    by = torch.from_numpy(random.normal(0, 1, len(reads)).astype(np.float32))

    def losses(*leaves: torch.Tensor) -> torch.Tensor:
        answers, output, bias, own = leaves
        logits = answers @ output.T + bias
        for p, named in enumerate(torch.from_numpy(tokens).T):
            there = named < V
            hot = torch.nn.functional.one_hot(torch.where(there, named, 0), V) * there[:, None]
            logits = logits + hot * own[:, p : p + 1]
        return torch.nn.functional.cross_entropy(logits, targets, reduction="none")

    leaves = [answers, output, bias, own]
    expected = losses(*(leaf.double() for leaf in leaves))
    base = torch.nn.functional.cross_entropy(answers @ output.T + bias, targets, reduction="none")
    found = pointed_loss(base, targets, answers, output, bias, tokens, own)
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-5)
    for mine, theirs in zip(*(torch.autograd.grad((e * by).sum(), leaves) for e in (found, expected)), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-4)


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_no_rounding_of_the_loss_lets_pointers_gain_more_than_all_of_it(seed: int):
    """The loss that pointers start from is made in bfloat16, apart from what they add: training would seek a gap."""
    _, reads, gates = drawn(seed, spread=6.0)
    random = np.random.default_rng(seed)
    answers, output, bias = (
        torch.from_numpy(random.normal(0, 2, size).astype(np.float32)) for size in ((len(reads), 8), (V, 8), V)
    )
    targets = torch.from_numpy(random.integers(0, V, len(reads)))
    rounded = torch.from_numpy(random.exponential(1.0, len(reads)).astype(np.float32))
    tokens = pointed_at(reads, np.ones((len(reads), N_READS), np.bool_), COLUMNS)
    found = pointed_loss(rounded, targets, answers, output, bias, tokens, torch.from_numpy(gates))
    assert (found >= -1e-4).all()
