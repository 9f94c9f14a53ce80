"""Cross-entropy over a vocabulary per module: three matrix products per module and one pass over its logits.

The forward pass keeps the gradient by the logits up to the factor of each row, softmax minus one-hot (in bfloat16 when
that precision was asked for). The factor is applied to the narrow operands, so the backward pass is two products and
touches nothing else of that size. If it would take more than SAVE_BYTES in all, it is worked out again instead.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kernels.plan import Plan
from kernels.precision import bfloat16_products, multiplies_pairs
from kernels.threads import threads_for
from kernels.torch_backend import sort_rows, unsort_rows
from kernels.vocabulary import Vocabulary

SAVE_BYTES = 1 << 29
BLOCK_ROWS = 1024  # of a module that one pass takes: a bound on memory (logits, or their gradient)
LOGIT_ROWS = 128
"""Rows whose float32 logits are made and used up at a time where torch makes them and bfloat16 is what is kept: with
AMX, 1,024 rows of width 64 times 8,192 tokens take 3.6 ms in blocks of 128 and 9 to 20 ms at once (one core of a Xeon),
since the same memory is written over."""
SMALL_WORK = 1 << 20  # multiply-adds below which waking a second thread costs more than it brings
# (hidden [R, D], table [V, D], bias [V], targets [R], loss [R], low) -> softmax minus one-hot [R, V]; writes the loss
Pass = Callable[[Tensor, Tensor, Tensor | None, Tensor, Tensor, bool], Tensor]


def torch_pass(hidden: Tensor, table: Tensor, bias: Tensor | None, targets: Tensor, loss: Tensor, low: bool) -> Tensor:
    """The one-hot part goes before anything is rounded: near a probability of 1 the difference is all there is."""
    logits = _logits(hidden, table, low)
    logits = logits if bias is None else logits.add_(bias)
    top = logits.amax(1, keepdim=True)
    at_target = logits.gather(1, targets[:, None])
    powers = logits.sub_(top).exp_()
    total = powers.sum(1, keepdim=True)
    torch.sub(top + torch.log(total), at_target, out=loss[:, None])
    powers.div_(total).scatter_add_(1, targets[:, None], torch.full_like(total, -1))
    return powers.bfloat16() if low else powers


def numba_pass(hidden: Tensor, table: Tensor, bias: Tensor | None, targets: Tensor, loss: Tensor, low: bool) -> Tensor:
    """The same in one sweep per row: tensors in float32 on a CPU only."""
    from kernels import numba_amx, numba_xent

    bias = hidden.new_zeros(len(table)) if bias is None else bias.contiguous()
    if low and multiplies_pairs():
        return _fused_pass(hidden, table, bias, targets, loss)
    if not low:
        logits = _logits(hidden, table, low)
        numba_xent.excess_float32(logits.numpy(), bias.numpy(), targets.numpy(), loss.numpy())
        return logits
    excess = torch.empty(len(hidden), len(table), dtype=torch.bfloat16)
    words, turned = excess.view(torch.int16).numpy().view("uint16"), table.T
    if numba_amx.takes(*table.shape):
        from kernels import numba_amx_xent

        threads = threads_for(len(hidden) * table.numel(), SMALL_WORK)
        numba_amx_xent.excess_of_product(
            hidden.contiguous().numpy(), table.contiguous().numpy(), bias.numpy(), targets.contiguous().numpy(),
            loss.numpy(), words, threads,
        )  # fmt: skip
        return excess
    logits = torch.empty(min(LOGIT_ROWS, len(hidden)), len(table))
    for first in range(0, len(hidden), LOGIT_ROWS):
        rows = slice(first, min(first + LOGIT_ROWS, len(hidden)))
        part = torch.mm(hidden[rows], turned, out=logits[: rows.stop - first])
        numba_xent.excess_bfloat16(part.numpy(), bias.numpy(), targets[rows].numpy(), loss[rows].numpy(), words[rows])
    return excess


PASSES: dict[str, Pass] = {"torch": torch_pass, "cpu": numba_pass}  # by backend


def _fused_pass(hidden: Tensor, table: Tensor, bias: Tensor, targets: Tensor, loss: Tensor) -> Tensor:
    """As numba_pass in low precision; a few rows' logits at a time are made and used up in the cache."""
    from kernels import numba_bfloat16 as nb
    from kernels import numba_pairs_xent as nx

    columns, words = (-(-len(table) // nb.COLUMNS) * nb.COLUMNS, (table.shape[1] + 1) // 2)
    threads = threads_for(len(hidden) * table.numel(), SMALL_WORK)
    packed = np.empty((columns // nb.LANES, words, nb.LANES), np.uint32)
    pairs = np.empty((len(hidden), words), np.uint32)
    excess = torch.empty(len(hidden), len(table), dtype=torch.bfloat16)
    nx.pack(hidden.contiguous().numpy(), pairs, table.contiguous().numpy(), packed, threads)
    scratch = np.empty((threads, nx.ROWS * columns), np.float32)
    nx.fused_bfloat16(
        pairs, packed, bias.numpy(), targets.numpy(), loss.numpy(),
        excess.view(torch.int16).numpy().view("uint16"), scratch,
    )  # fmt: skip
    return excess


def _logits(hidden: Tensor, table: Tensor, low: bool) -> Tensor:
    if low and hidden.device.type != "cpu":
        return torch.mm(hidden.bfloat16(), table.bfloat16().T, out_dtype=torch.float32)
    return torch.mm(hidden, table.T)


def _busy(vocabulary: Vocabulary, plan: Plan) -> list[tuple[slice, slice]]:
    """(positions, vocabulary entries) of each module with rows, at most BLOCK_ROWS of them at a time."""
    starts, offsets = vocabulary.host_offsets(), plan.host_offsets()
    return [
        (slice(row, min(row + BLOCK_ROWS, offsets[m + 1])), slice(starts[m], starts[m + 1]))
        for m in range(plan.n_modules)
        for row in range(offsets[m], offsets[m + 1], BLOCK_ROWS)
    ]


def _table(output: Tensor, vocabulary: Vocabulary, span: slice) -> Tensor:
    return output[span] if vocabulary.ids is None else output.index_select(0, vocabulary.ids[span])


def losses(
    hidden: Tensor,
    targets: Tensor,
    output: Tensor,
    bias: Tensor | None,
    vocabulary: Vocabulary,
    plan: Plan,
    low: bool,
    one_pass: Pass,
    keep: bool,
) -> tuple[Tensor, list[Tensor] | None]:
    """Loss [N] of hidden [N, D] with targets int64 [N], all in position order; and what `gradients` can use again."""
    busy = _busy(vocabulary, plan)
    cells = sum((rows.stop - rows.start) * (span.stop - span.start) for rows, span in busy)
    kept: list[Tensor] | None = None
    if keep and cells * (2 if low else hidden.element_size()) <= SAVE_BYTES:
        kept = []
    loss = hidden.new_empty(hidden.shape[0])
    with bfloat16_products(low and hidden.device.type == "cpu"):
        for rows, span in busy:
            part = None if bias is None else bias[span]
            excess = one_pass(hidden[rows], _table(output, vocabulary, span), part, targets[rows], loss[rows], low)
            if kept is not None:
                kept.append(excess)
    return loss, kept


def gradients(
    grad: Tensor,
    hidden: Tensor,
    targets: Tensor,
    output: Tensor,
    bias: Tensor | None,
    vocabulary: Vocabulary,
    plan: Plan,
    low: bool,
    one_pass: Pass,
    kept: list[Tensor] | None,
    need: tuple[bool, bool, bool],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients by hidden, output and bias (those that are needed), from grad [N] of the losses, in position order."""
    need_hidden, need_output, need_bias = need
    scale = grad[:, None]
    kind = torch.bfloat16 if low else hidden.dtype
    d_hidden = torch.empty_like(hidden) if need_hidden else None
    d_output = torch.zeros_like(output) if need_output else None
    d_bias = torch.zeros_like(bias) if bias is not None and need_bias else None
    # The bias is one more column of the product that gives the table's gradient.
    columns = ([hidden * scale] if need_output else []) + ([scale] if d_bias is not None else [])
    factors = torch.cat(columns, 1).to(kind) if columns else None
    narrow = output.to(kind)
    width = hidden.shape[1] if need_output else 0
    with bfloat16_products(low and hidden.device.type == "cpu"):
        for i, (rows, span) in enumerate(_busy(vocabulary, plan)):
            if kept is None:
                part, used = None if bias is None else bias[span], hidden[rows]
                excess = one_pass(
                    used, _table(output, vocabulary, span), part, targets[rows], used.new_empty(len(used)), low
                )
            else:
                excess = kept[i]
            if d_hidden is not None:
                torch.mul(torch.mm(excess, _table(narrow, vocabulary, span)), scale[rows], out=d_hidden[rows])
            if factors is None:
                continue
            product = torch.mm(excess.T, factors[rows])
            if d_bias is not None:
                d_bias[span] += product[:, width]
            if d_output is not None and vocabulary.ids is None:
                d_output[span] += product[:, :width]
            elif d_output is not None and vocabulary.ids is not None:
                d_output.index_add_(0, vocabulary.ids[span], product[:, :width].to(output.dtype))
    return d_hidden, d_output, d_bias


class _Xent(torch.autograd.Function):
    """Rows and targets in position order."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        targets: Tensor,
        output: Tensor,
        bias: Tensor | None,
        vocabulary: Vocabulary,
        plan: Plan,
        low: bool,
        one_pass: Pass,
    ) -> Tensor:
        ctx.rest = vocabulary, plan, low, one_pass
        ctx.save_for_backward(hidden, targets, output, bias)
        keep = any(ctx.needs_input_grad)
        loss, ctx.kept = losses(hidden, targets, output, bias, vocabulary, plan, low, one_pass, keep)
        return loss

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        need_hidden, _, *others = ctx.needs_input_grad[:4]
        need = (need_hidden, *others)
        hidden, targets, output, bias = ctx.saved_tensors
        vocabulary, plan, low, one_pass = ctx.rest
        found = gradients(grads[0], hidden, targets, output, bias, vocabulary, plan, low, one_pass, ctx.kept, need)
        return found[0], None, found[1], found[2], None, None, None, None


def ragged_softmax_xent(
    hidden: Tensor,
    targets: Tensor,
    output: Tensor,
    bias: Tensor | None,
    vocabulary: Vocabulary,
    plan: Plan,
    low: bool,
    one_pass: Pass = torch_pass,
) -> Tensor:
    ordered = targets.long().index_select(0, plan.rows)
    loss: Tensor = _Xent.apply(  # pyright: ignore[reportAssignmentType]
        sort_rows(hidden, plan), ordered, output, bias, vocabulary, plan, low, one_pass
    )
    return unsort_rows(loss[:, None], plan, combine=False).reshape(plan.n_rows)
