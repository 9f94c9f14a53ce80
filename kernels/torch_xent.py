"""Cross-entropy over a vocabulary per module: one pass of three matrix products per module, nothing dense in V x T.

The forward pass keeps each module's probabilities (in bfloat16 when that precision was asked for), so that the backward
pass is two products; when they would take more than SAVE_BYTES they are worked out again instead.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from kernels.plan import Plan
from kernels.torch_backend import sort_rows
from kernels.vocabulary import Vocabulary

SAVE_BYTES = 1 << 29


@contextlib.contextmanager
def _products(low: bool, device: torch.device) -> Iterator[None]:
    """Let the products of float32 tensors round their operands to bfloat16 (AMX, tensor cores), sums in float32."""
    if not low or device.type != "cpu":
        yield
        return
    settings: Any = torch.backends.mkldnn.matmul  # pyright: ignore[reportAttributeAccessIssue]
    before = settings.fp32_precision
    settings.fp32_precision = "bf16"
    try:
        yield
    finally:
        settings.fp32_precision = before


def _busy(vocabulary: Vocabulary, plan: Plan) -> list[tuple[int, slice, slice]]:
    """(module, its positions, its vocabulary entries) for modules with rows."""
    starts, offsets = vocabulary.host_offsets(), plan.host_offsets()
    return [
        (m, slice(offsets[m], offsets[m + 1]), slice(starts[m], starts[m + 1]))
        for m in range(plan.n_modules)
        if offsets[m + 1] > offsets[m]
    ]


def _table(output: Tensor, vocabulary: Vocabulary, span: slice) -> Tensor:
    return output[span] if vocabulary.ids is None else output.index_select(0, vocabulary.ids[span])


def _excess(hidden: Tensor, rows: Tensor, bias: Tensor | None, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Loss [R, 1] and softmax(hidden @ rows.T + bias) minus the one-hot targets [R, V], its gradient by the logits.

    The one-hot part is taken off before anything is rounded: near a probability of 1 the difference is all there is.
    """
    logits = hidden @ rows.T if bias is None else torch.addmm(bias, hidden, rows.T)
    top = logits.amax(1, keepdim=True)
    at_target = logits.gather(1, targets[:, None])
    powers = logits.sub_(top).exp_()
    total = powers.sum(1, keepdim=True)
    loss = top + torch.log(total) - at_target
    powers.div_(total)
    return loss, powers.scatter_add_(1, targets[:, None], torch.full_like(loss, -1))


class _Xent(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,  # [N, D] in position order
        targets: Tensor,  # int64 [N] in position order
        output: Tensor,
        bias: Tensor | None,
        vocabulary: Vocabulary,
        plan: Plan,
        low: bool,
    ) -> Tensor:
        ctx.vocabulary, ctx.plan, ctx.low = vocabulary, plan, low
        ctx.save_for_backward(hidden, targets, output, bias)
        busy = _busy(vocabulary, plan)
        cells = sum((r.stop - r.start) * (v.stop - v.start) for _, r, v in busy)
        size = 2 if low else hidden.element_size()
        wanted = any(ctx.needs_input_grad)
        ctx.saved = [] if wanted and cells * size <= SAVE_BYTES else None
        loss = hidden.new_empty(hidden.shape[0])
        with _products(low, hidden.device):
            for _, rows, span in busy:
                table = _table(output, vocabulary, span)
                part = None if bias is None else bias[span]
                loss[rows, None], excess = _excess(hidden[rows], table, part, targets[rows])
                if ctx.saved is not None:
                    ctx.saved.append(excess.bfloat16() if low else excess)
        return loss

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        hidden, targets, output, bias = ctx.saved_tensors
        vocabulary, plan, low = ctx.vocabulary, ctx.plan, ctx.low
        need_hidden, _, need_output, need_bias = ctx.needs_input_grad[:4]
        scale = grads[0][:, None]
        d_hidden = torch.empty_like(hidden) if need_hidden else None
        d_output = torch.zeros_like(output) if need_output else None
        d_bias = None if bias is None or not need_bias else torch.zeros_like(bias)
        with _products(low, hidden.device):
            for i, (_, rows, span) in enumerate(_busy(vocabulary, plan)):
                table = _table(output, vocabulary, span) if need_hidden else None
                # Dropped as they are used: a second backward pass through the same graph works them out again.
                excess = None
                if ctx.saved is not None:
                    excess, ctx.saved[i] = ctx.saved[i], None
                if excess is None:
                    table = _table(output, vocabulary, span) if table is None else table
                    part = None if bias is None else bias[span]
                    excess = _excess(hidden[rows], table, part, targets[rows])[1]
                d_logits = (excess.float() if low else excess).mul_(scale[rows])
                if d_hidden is not None:
                    assert table is not None
                    torch.mm(d_logits, table, out=d_hidden[rows])
                if d_output is not None:
                    d_table = d_logits.T @ hidden[rows]
                    if vocabulary.ids is None:
                        d_output[span] = d_table
                    else:
                        d_output.index_add_(0, vocabulary.ids[span], d_table)
                if d_bias is not None:
                    torch.sum(d_logits, 0, out=d_bias[span])
        return d_hidden, None, d_output, d_bias, None, None, None


def ragged_softmax_xent(
    hidden: Tensor,
    targets: Tensor,
    output: Tensor,
    bias: Tensor | None,
    vocabulary: Vocabulary,
    plan: Plan,
    precision: str,
) -> Tensor:
    low = precision == "bfloat16" and hidden.dtype == torch.float32
    ordered = targets.long().index_select(0, plan.rows)
    loss: Tensor = _Xent.apply(  # pyright: ignore[reportAssignmentType]
        sort_rows(hidden, plan), ordered, output, bias, vocabulary, plan, low
    )
    return sort_back(loss, plan)


def sort_back(values: Tensor, plan: Plan) -> Tensor:
    """[N] position order -> row order (one choice per row)."""
    from kernels.torch_backend import unsort_rows

    return unsort_rows(values[:, None], plan, combine=False).reshape(plan.n_rows)
