"""`ragged_softmax_xent` on a GPU: launches of the kernels in triton_xent_kernels.py, forward and backward."""

# pyright: reportCallIssue=false
# (triton adds the launch options)
from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kernels.plan import Plan
from kernels.triton_backend import padded_width, tile_rows
from kernels.vocabulary import Vocabulary

WIDEST = 128  # of hidden, rounded up to a power of two: beyond it a program's registers do not hold its sums


def blocks(tile: int, padded: int, half: bool) -> tuple[int, int]:
    """(rows, vocabulary entries) of a program; the borders are where the build for sm_90 begins to spill."""
    if half:
        return (min(tile, 32), 64 if padded <= 32 else 32) if padded <= 64 else (16, 32)
    return (min(tile, 32), 32) if padded <= 32 else (16, 32)


def _vocabulary_blocks(vocabulary: Vocabulary, block: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """int32 (module, first entry) of each block of entries."""
    key = ("blocks", block, str(device))
    if key not in vocabulary.cache:
        starts = vocabulary.host_offsets()
        pairs = [(m, at) for m in range(len(starts) - 1) for at in range(0, starts[m + 1] - starts[m], block)]
        table = torch.tensor(pairs, dtype=torch.int32).reshape(-1, 2).T.contiguous().to(device)
        vocabulary.cache[key] = (table[0].contiguous(), table[1].contiguous())
    return vocabulary.cache[key]


def _entries_by_token(vocabulary: Vocabulary) -> tuple[Tensor, Tensor]:
    """int32 entries sorted by token (stable), and int32 [tokens + 1] where each token's begin."""
    assert vocabulary.ids is not None
    if "by_token" not in vocabulary.cache:
        tokens, order = torch.sort(vocabulary.ids, stable=True)
        borders = torch.arange(vocabulary.n_tokens + 1, dtype=torch.int32, device=tokens.device)
        vocabulary.cache["by_token"] = order.to(torch.int32), torch.searchsorted(tokens, borders, out_int32=True)
    return vocabulary.cache["by_token"]


def _common(
    hidden: Tensor, output: Tensor, bias: Tensor | None, vocabulary: Vocabulary, plan: Plan, low: bool
) -> tuple[tuple[Any, ...], dict[str, Any], int]:
    """(tensors of every launch, constants, rows per tile)."""
    padded = padded_width(hidden.shape[1])
    tile, block = blocks(tile_rows(plan), padded, low or hidden.element_size() == 2)
    tensors = (output, output if bias is None else bias, plan.order if vocabulary.ids is None else vocabulary.ids,
               vocabulary.offsets, plan.offsets)  # fmt: skip
    constants = {"IDS": vocabulary.ids is not None, "BIAS": bias is not None, "LOW": low, "PRECISION": "ieee",
                 "TILE": tile, "BLOCK": block, "P": padded, "num_warps": 4}  # fmt: skip
    return tensors, constants, tile


def losses(
    hidden: Tensor, targets: Tensor, output: Tensor, bias: Tensor | None, vocabulary: Vocabulary, plan: Plan, low: bool
) -> tuple[Tensor, Tensor]:
    """(loss, log of the sum of exponentials in float32), both [T] in the order of the rows."""
    from kernels.triton_xent_kernels import xent_loss

    loss, peak = hidden.new_empty(plan.n_rows), hidden.new_empty(plan.n_rows, dtype=torch.float32)
    if plan.n_rows:
        tensors, constants, tile = _common(hidden, output, bias, vocabulary, plan, low)
        module, start = plan.tiles(tile)
        xent_loss[(plan.tile_bound(tile),)](
            hidden, targets, *tensors, module, start, plan.rows, loss, peak, plan.n_modules, hidden.shape[1],
            **constants,
        )  # fmt: skip
    return loss, peak


def gradients(
    grad: Tensor, hidden: Tensor, targets: Tensor, output: Tensor, bias: Tensor | None, vocabulary: Vocabulary,
    plan: Plan, low: bool, peak: Tensor, need: tuple[bool, bool, bool],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:  # fmt: skip
    """Gradients by hidden, output and bias (those that are needed), from grad [T] of the losses."""
    from kernels.triton_xent_kernels import sum_entries, xent_hidden, xent_table

    need_hidden, need_output, need_bias = need
    width = hidden.shape[1]
    tensors, constants, tile = _common(hidden, output, bias, vocabulary, plan, low)
    d_hidden = torch.empty_like(hidden) if need_hidden else None
    if d_hidden is not None and plan.n_rows:
        module, start = plan.tiles(tile)
        xent_hidden[(plan.tile_bound(tile),)](
            hidden, targets, *tensors, module, start, plan.rows, peak, grad, d_hidden, plan.n_modules, width,
            **constants,
        )  # fmt: skip
    if not need_output and not need_bias:
        return d_hidden, None, None
    entries = vocabulary.host_offsets()[-1]
    d_bias = None if bias is None else torch.empty_like(bias)
    # A shared table's row may stand in many vocabularies: each entry has its own gradient first, then they are summed.
    shared = vocabulary.ids is not None
    d_entries = output.new_empty(entries, width, dtype=torch.float32) if shared else torch.empty_like(output)
    module, first = _vocabulary_blocks(vocabulary, constants["BLOCK"], output.device)
    if len(module):
        xent_table[(len(module),)](
            hidden, targets, *tensors, module, first, plan.rows, peak, grad, d_entries,
            d_entries if d_bias is None else d_bias, width, **constants,
        )  # fmt: skip
    d_output = d_entries
    if shared and need_output:
        order, starts = _entries_by_token(vocabulary)
        d_output = torch.empty_like(output)
        sum_entries[(vocabulary.n_tokens,)](
            d_entries, order, starts, d_output, width, P=constants["P"], num_warps=4
        )  # fmt: skip
    return d_hidden, d_output if need_output else None, d_bias if need_bias else None


class _Xent(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, targets: Tensor, output: Tensor, bias: Tensor | None, vocabulary: Vocabulary,
        plan: Plan, low: bool,
    ) -> Tensor:  # fmt: skip
        loss, peak = losses(hidden, targets, output, bias, vocabulary, plan, low)
        ctx.rest = vocabulary, plan, low
        ctx.save_for_backward(hidden, targets, output, bias, peak)
        return loss

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        *tensors, peak = ctx.saved_tensors
        need_hidden, _, need_output, need_bias = ctx.needs_input_grad[:4]
        need = (need_hidden, need_output, need_bias)
        d_hidden, d_output, d_bias = gradients(grads[0].contiguous(), *tensors, *ctx.rest, peak, need)
        return d_hidden, None, d_output, d_bias, None, None, None


def ragged_softmax_xent(
    hidden: Tensor, targets: Tensor, output: Tensor, bias: Tensor | None, vocabulary: Vocabulary, plan: Plan, low: bool
) -> Tensor:
    bias = None if bias is None else bias.contiguous()
    return _Xent.apply(  # pyright: ignore[reportReturnType]
        hidden.contiguous(), targets.long().contiguous(), output.contiguous(), bias, vocabulary, plan, low
    )
