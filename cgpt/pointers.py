"""Pointers: reads that name a token which may stand here raise the logit of that token itself.

A net sees a read through an embedding, a hidden layer and an answer of few numbers, which is a narrow way for "what
came here the last time comes again". So each such read has a gate, a number that the hidden layer decides, and the
logit of the token that stands in the read grows by it. Reads that hold the same token add up.

    gates = softplus(h @ pointer_projection + own_pointer_bias)              [P], of reads that the concept declares
    logits[token in read p] += gates[p]

A gate is never below zero: a read can speak for its token, not against it. With gates of either sign the sum over all
tokens becomes a difference of nearly equal numbers where the likeliest is lowered; a long training went astray there.

Method: copying as in CopyNet (Gu, Lu, Li and Li 2016) and pointer networks for programs (Bhoopchand, Rocktäschel, Barr
and Riedel 2016), with plain code in place of learned attention, and added to logits, not mixed in.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np
from numba import prange

from cgpt.compiled import compiled, compiled_parallel
from cgpt.reads import READS

if TYPE_CHECKING:
    import torch

COLUMNS = np.array(
    [column for column, name in enumerate(READS) if name.startswith(("file_", "names_", "place_"))], dtype=np.int64
)
"""Reads that say which token may come: what followed or stood at a like place of this file, and names in scope."""
_LEAST = np.float32(1e-38)
"""No power is less, as in `kernels.numba_softmax`: a token that a net holds for impossible still has a cost."""


def pointed_at(reads: np.ndarray, declared: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """int64[rows, P]: the token in each of `columns` int64[P], beyond all tokens for a read that is not declared.

    `reads` uint16[rows, R], `declared` bool[rows, R].
    """
    return np.where(declared[:, columns], reads[:, columns].astype(np.int64), np.iinfo(np.uint16).max)


def pointed_loss(
    loss: torch.Tensor, targets: torch.Tensor, answers: torch.Tensor, output: torch.Tensor, bias: torch.Tensor,
    tokens: np.ndarray, gates: torch.Tensor,
) -> torch.Tensor:  # fmt: skip
    """float32[rows]: the loss with pointers from the `loss` float32[rows] without them, in nats.

    `targets` int64[rows], `answers` float32[rows, d_out], `output` [V, d_out] and `bias` [V] of the output layer;
    `tokens` int64[rows, P] pointed at, V and more for none; `gates` float32[rows, P], none below zero.
    """
    return _function().apply(loss, targets, answers, output, bias, tokens, gates)


@functools.cache
def _function() -> Any:
    import torch

    class PointedLoss(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *given: Any) -> torch.Tensor:
            loss, targets, answers, output, bias, tokens, gates = given
            ctx.save_for_backward(targets, answers, output)
            of_loss, share, raised = np.empty(len(loss), np.float32), *np.zeros((2, *gates.shape), np.float32)
            arrays = (t.detach().contiguous().numpy() for t in (loss, targets, answers, output, bias))
            _point_losses(*arrays, tokens, gates.detach().contiguous().numpy(), share, raised, of_loss)
            ctx.tokens, ctx.share, ctx.raised = tokens, share, raised
            return torch.from_numpy(of_loss)

        @staticmethod
        def backward(ctx: Any, *grads: Any) -> Any:
            targets, answers, output = (t.detach().contiguous().numpy() for t in ctx.saved_tensors)
            by_loss, by_answers = np.empty(len(answers), np.float32), np.empty_like(answers)
            by_token, by_gates = np.empty_like(ctx.share), np.empty_like(ctx.share)
            by_target = np.empty(len(answers), np.float32)
            _point_gradients(
                grads[0].contiguous().numpy(), targets, output, ctx.tokens, ctx.share, ctx.raised, by_loss, by_answers,
                by_token, by_target, by_gates,
            )  # fmt: skip
            by_output, by_bias = np.zeros_like(output), np.zeros(len(output), np.float32)
            _add_to_output(targets, answers, ctx.tokens, by_token, by_target, by_output, by_bias)
            loss, answered, table, biases, gated = map(
                torch.from_numpy, (by_loss, by_answers, by_output, by_bias, by_gates)
            )
            return loss, None, answered, table, biases, None, gated

    return PointedLoss


@compiled
def _dot(a, b, lanes):  # pragma: no cover - compiled
    """Sum of products float32, in 16 sums side by side (`lanes`, scratch): vector code without leave to re-order."""
    lanes[:] = 0.0
    whole = len(a) // 16 * 16
    for k in range(0, whole, 16):
        for j in range(16):
            lanes[j] += a[k + j] * b[k + j]
    total = np.float32(0.0)
    for j in range(16):
        total += lanes[j]
    for k in range(whole, len(a)):
        total += a[k] * b[k]
    return total


@compiled_parallel
def _point_losses(
    loss, targets, answers, output, bias, tokens, gates, share, raised, of_loss
):  # pragma: no cover - compiled  # fmt: skip
    """Write the losses, and at the first pointer to each token its `share` without pointers and by how much all that
    point at it have `raised` its logit."""
    n, n_tokens = tokens.shape[1], len(output)
    for r in prange(len(loss)):
        target, lanes = targets[r], np.empty(16, np.float32)
        log_sum = loss[r] + _dot(answers[r], output[target], lanes) + bias[target]
        more, hit = 0.0, np.float32(0.0)
        for p in range(n):
            token = tokens[r, p]
            if token >= n_tokens:
                continue
            gate, first = gates[r, p], True
            for other in range(n):
                if other != p and tokens[r, other] == token:
                    first = first and other > p
                    gate += gates[r, other]
            if not first:
                continue
            raised[r, p] = gate
            share[r, p] = np.exp(_dot(answers[r], output[token], lanes) + bias[token] - log_sum)
            more += np.float64(share[r, p]) * np.expm1(np.float64(gate))
            if token == target:
                hit = gate
        of_loss[r] = loss[r] + np.log1p(more) - hit


@compiled_parallel
def _point_gradients(
    grad, targets, output, tokens, share, raised, by_loss, by_answers, by_token, by_target, by_gates
):  # pragma: no cover - compiled  # fmt: skip
    """Write the gradients by the loss without pointers, by answers and gates, and by the logits of what is pointed at
    (`by_token` float32[rows, P]) and of the target."""
    n, n_tokens = tokens.shape[1], len(output)
    for r in prange(len(grad)):
        target, more = targets[r], 0.0
        for p in range(n):
            more += np.float64(share[r, p]) * np.expm1(np.float64(raised[r, p]))
        over = 1.0 + more
        row = by_answers[r]
        by_loss[r], by_target[r] = grad[r] * (1.0 - more / over), -grad[r] * (more / over)
        for k in range(len(row)):
            row[k] = by_target[r] * output[target, k]
        for p in range(n):
            token = tokens[r, p]
            by_token[r, p], by_gates[r, p] = 0.0, 0.0
            if token >= n_tokens:
                continue
            for first in range(p + 1):
                if tokens[r, first] == token:
                    after = share[r, first] * np.exp(np.float64(raised[r, first])) / over
                    by_gates[r, p] = grad[r] * (after - (1.0 if token == target else 0.0))
                    break
            if share[r, p] > 0.0:
                by_token[r, p] = grad[r] * (share[r, p] * np.expm1(np.float64(raised[r, p])) / over)
                for k in range(len(row)):
                    row[k] += by_token[r, p] * output[token, k]


@compiled
def _add_to_output(
    targets, answers, tokens, by_token, by_target, by_output, by_bias
):  # pragma: no cover - compiled  # fmt: skip
    """Add up the gradients by output embeddings and biases, row by row."""
    for r in range(len(targets)):
        for p in range(-1, tokens.shape[1]):
            by = by_target[r] if p < 0 else by_token[r, p]
            if by != 0.0:
                token = targets[r] if p < 0 else tokens[r, p]
                by_bias[token] += by
                for k in range(answers.shape[1]):
                    by_output[token, k] += by * answers[r, k]


def gate(x: np.ndarray) -> np.ndarray:
    """softplus."""
    return np.logaddexp(np.float32(0.0), x)


def add_to(logits: np.ndarray, reads: np.ndarray, columns: np.ndarray, gates: np.ndarray) -> None:
    """Add to `logits` float32[rows, V], in place, what `point` raises; the other arguments are its."""
    tokens = reads[:, columns]
    rows, which = np.nonzero(tokens < logits.shape[1])
    np.add.at(logits, (rows, tokens[rows, which]), gates[rows, which])


@compiled
def point(powers, sums, reads, columns, gates):  # pragma: no cover - compiled
    """Raise what pointers point at, in place: `powers` float32[rows, V], 1 at a row's first choice before and after, to
    rounding, and their `sums` float64[rows].

    `reads` uint16[rows, R], of which `columns` int64[P] point at tokens, V and more for none; `gates` float32[rows, P],
    none below zero.
    """
    n_tokens, n = powers.shape[1], len(columns)
    after = np.zeros(n)  # in float64: many reads may agree on a token, and theirs is then more than float32 holds
    for r in range(len(powers)):
        if sums[r] == 0.0:
            continue
        row, top = powers[r], 1.0
        for p in range(n):
            after[p] = 0.0
            token = reads[r, columns[p]]
            if token >= n_tokens:
                continue
            gate, first = np.float64(gates[r, p]), True
            for other in range(n):
                if other != p and reads[r, columns[other]] == token:
                    first = first and other > p
                    gate += gates[r, other]
            if first and gate > 0.0:
                before = np.float64(row[token])
                after[p] = before * np.exp(gate)
                sums[r] += after[p] - before
                top = max(top, after[p])
        if top > 1.0:
            scale = np.float32(1.0 / top)
            for v in range(n_tokens):
                row[v] = max(row[v] * scale, _LEAST)
            sums[r] /= top
        for p in range(n):
            if after[p] > 0.0:
                row[reads[r, columns[p]]] = max(np.float32(after[p] / top), _LEAST)
