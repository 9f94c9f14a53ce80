"""The GPU backend: launches of the Triton kernels, for pairs in and out; also in Triton's interpreter on the CPU."""

# pyright: reportCallIssue=false
# (triton adds the launch options)

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from kernels.adam import AdamRule, AdamState, rates
from kernels.plan import Plan
from kernels.stacking import MLPStack
from kernels.training import groups_in_place, loss_gradient, row_losses

ACTIVATION = {"none": 0, "relu": 1, "gelu": 2, "silu": 3}
LAYERS = 4
UPDATE_BLOCK = 32  # of a weight in one program: with its moments a larger one spills registers on sm_90


def padded_width(width: int) -> int:
    """Rounded up to a power of two of at least 16, the least that a product in Triton takes."""
    return max(16, 1 << (width - 1).bit_length())


def tile_rows(plan: Plan) -> int:
    """Rows per tile: 16 where modules have few rows, so that little of a tile is empty; known without the device."""
    mean = plan.n_pairs // max(1, plan.n_modules)
    return 16 if mean <= 16 else 32 if mean <= 64 else 64


def linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    plan: Plan,
    *,
    source: Tensor | None = None,
    target: Tensor | None = None,
    activation: str = "none",
    slope: str = "none",
    before: Tensor | None = None,
    transposed: bool = False,
) -> Tensor:
    """[N, Dout] = f(x) @ weight (or its transpose), gathering rows `source`, scattering to rows `target`.

    slope, before [N, Dout]: multiply the result by the derivative of that activation at `before` (position order).
    """
    from kernels.triton_kernels import linear_tiles

    n_in, n_out = (weight.shape[2], weight.shape[1]) if transposed else (weight.shape[1], weight.shape[2])
    out = x.new_empty(plan.n_pairs, n_out)
    if plan.n_pairs == 0 or n_out == 0:
        return out
    tile = tile_rows(plan)
    module, start = plan.tiles(tile)
    strides = weight.stride()
    block_in, block_out = min(64, padded_width(n_in)), min(64, padded_width(n_out))
    grid = (plan.tile_bound(tile), -(-n_out // block_out))
    linear_tiles[grid](
        x, weight, x if bias is None else bias, x if before is None else before, out, plan.offsets, module, start,
        plan.order if source is None else source, plan.order if target is None else target,
        plan.n_modules, n_in, n_out, strides[0], strides[2 if transposed else 1], strides[1 if transposed else 2],
        GATHER=source is not None, SCATTER=target is not None, BIAS=bias is not None,
        ACTIVATION=ACTIVATION[activation], SLOPE=ACTIVATION[slope], PRECISION="ieee", TILE=tile,
        BLOCK_IN=block_in, BLOCK_OUT=block_out, num_warps=4,
    )  # fmt: skip
    return out


def gradients(
    x: Tensor,
    grad: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    plan: Plan,
    *,
    source: Tensor | None = None,
    target: Tensor | None = None,
    activation: str = "none",
) -> tuple[Tensor, Tensor | None]:
    """Gradients by weight and bias of f(x) @ weight + bias, from grad (rows `target` if given)."""
    from kernels.triton_kernels import weight_gradient

    d_weight = torch.empty_like(weight)
    d_bias = None if bias is None else torch.empty_like(bias)
    n_in, n_out = weight.shape[1:]
    if n_in == 0 or n_out == 0:
        return d_weight, d_bias
    block_in, block_out = min(64, padded_width(n_in)), min(64, padded_width(n_out))
    grid = (plan.n_modules, -(-n_in // block_in), -(-n_out // block_out))
    weight_gradient[grid](
        x, grad, d_weight, d_weight if d_bias is None else d_bias, plan.offsets,
        plan.order if source is None else source, plan.order if target is None else target, n_in, n_out,
        GATHER=source is not None, SCATTER=target is not None, BIAS=bias is not None,
        ACTIVATION=ACTIVATION[activation], PRECISION="ieee", TILE=tile_rows(plan),
        BLOCK_IN=block_in, BLOCK_OUT=block_out, num_warps=4,
    )  # fmt: skip
    return d_weight, d_bias


def _rows(x: Tensor, plan: Plan) -> Tensor:
    return plan.order if len(x) == plan.n_pairs else plan.rows


def fused_tile(tile: int, widest: int, half: bool) -> int | None:
    """Rows per tile with which a network of this (padded) width runs in one launch; None: layer by layer.

    The borders are where the build for sm_90 begins to spill registers (kernels/triton_build.py looks).
    """
    if half:
        return tile if widest <= 64 else min(tile, 32) if widest <= 128 else None
    return tile if widest <= 16 else min(tile, 32) if widest <= 32 else 16 if widest <= 64 else None


def pairs_forward(
    x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor | None], plan: Plan, activation: str
) -> Tensor:
    """x [T, D0], or [N, D0] in pair order -> answers [N, D] in pair order."""
    x, weights = x.contiguous(), [w.contiguous() for w in weights]
    biases = [None if b is None else b.contiguous() for b in biases]
    widest = max(padded_width(width) for w in weights for width in w.shape[1:])
    tile = fused_tile(tile_rows(plan), widest, x.element_size() == 2)
    if len(weights) == 1 or tile is None:
        return _layer_by_layer(x, weights, biases, plan, activation, scatter=True)[-1]
    from kernels.triton_kernels import network_tiles

    out = x.new_empty(plan.n_pairs, weights[-1].shape[2])
    if out.numel() == 0:
        return out
    module, start = plan.tiles(tile)
    widths = [weights[0].shape[1], *(w.shape[2] for w in weights)]
    missing = LAYERS + 1 - len(widths)
    widths += [0] * missing
    padded = [padded_width(max(1, w)) for w in widths]
    tensors: list[Tensor] = []
    for layer in range(LAYERS):
        inside = layer < len(weights)
        bias = biases[layer] if inside else None
        tensors += [weights[layer] if inside else x, x if bias is None else bias]
    bits = sum(1 << layer for layer, bias in enumerate(biases) if bias is not None)
    network_tiles[(plan.tile_bound(tile),)](
        x, *tensors, out, plan.offsets, module, start, _rows(x, plan), plan.order, plan.n_modules, *widths,
        LAYERS=len(weights), BIASES=bits, ACTIVATION=ACTIVATION[activation], GATHER=True, PRECISION="ieee", TILE=tile,
        P0=padded[0], P1=padded[1], P2=padded[2], P3=padded[3], P4=padded[4], num_warps=4,
    )  # fmt: skip
    return out


def _layer_by_layer(
    x: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor | None],
    plan: Plan,
    activation: str,
    scatter: bool,
) -> list[Tensor]:
    """Each layer's values before the activation, in position order; with `scatter` the last in pair order."""
    values, found = x, []
    for layer, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        values = linear(
            values, weight, bias, plan,
            source=_rows(x, plan) if layer == 0 else None,
            target=plan.order if scatter and layer == len(weights) - 1 else None,
            activation="none" if layer == 0 else activation,
        )  # fmt: skip
        found.append(values)
    return found


def pairs_backward(
    grad: Tensor,
    x: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor | None],
    plan: Plan,
    activation: str,
    need_x: bool = True,
    need: Sequence[bool] | None = None,
) -> tuple[Tensor | None, list[Any], list[Any]]:
    """Gradients by x (as x is), weights and biases; hidden values are worked out again, none was kept."""
    x, grad, weights = x.contiguous(), grad.contiguous(), [w.contiguous() for w in weights]
    biases = [None if b is None else b.contiguous() for b in biases]
    last = len(weights) - 1
    before = _layer_by_layer(x, weights[:-1], biases[:-1], plan, activation, scatter=False)
    d_weights: list[Any] = [None] * len(weights)
    d_biases: list[Any] = [None] * len(weights)
    for layer in range(last, -1, -1):
        rows = _rows(x, plan) if layer == 0 else None
        ends = plan.order if layer == last else None
        kind = "none" if layer == 0 else activation
        source = x if layer == 0 else before[layer - 1]
        d_weights[layer], d_biases[layer] = gradients(
            source, grad, weights[layer], biases[layer], plan, source=rows, target=ends, activation=kind
        )
        if layer or need_x:
            grad = linear(
                grad, weights[layer], None, plan, source=ends, target=plan.order if layer == 0 else None,
                slope=kind, before=before[layer - 1] if layer else None, transposed=True,
            )  # fmt: skip
    d_x = grad if need_x else None
    if d_x is not None and len(x) != plan.n_pairs:
        d_x = plan.sum_choices(d_x)
    return d_x, d_weights, d_biases


@torch.no_grad()
def train_step_(
    x: Tensor,
    targets: Tensor,
    stacked: MLPStack,
    plan: Plan,
    state: AdamState,
    lr: float | Tensor,
    loss: str,
    rule: AdamRule,
) -> Tensor:
    """One step of all networks: a weight's gradient goes into its update where it is made. No wait for the device."""
    from kernels.triton_kernels import weight_update

    groups = groups_in_place(stacked, state, "triton")
    x = x.detach().contiguous()
    values = _layer_by_layer(x, stacked.weights, stacked.biases, plan, stacked.activation, scatter=True)
    answers = values[-1]  # one choice per row: pair order is row order
    losses, grad = row_losses(answers, targets, loss), loss_gradient(answers, targets, loss, plan)
    state.step += plan.touched
    steps = state.step.double()
    rate = rates(lr, state.step)
    first_scales = (rate / (1 - rule.beta1**steps)).float()
    scales = (1 / torch.sqrt(1 - rule.beta2**steps)).float()
    keeps = (1 - rate * rule.weight_decay).float()
    last = len(stacked.weights) - 1
    for layer in range(last, -1, -1):
        weight, bias = groups[0][layer], groups[1][layer]
        assert weight is not None
        n_in, n_out = weight.shape[1:]
        ends = plan.order if layer == last else None
        before = values[layer - 1] if layer else x
        kind = stacked.activation if layer else "none"
        # The gradient by the layer's input needs the weight as it was.
        below = (
            linear(grad, weight, None, plan, source=ends, slope=kind, before=before, transposed=True) if layer else grad
        )
        block_in, block_out = (min(UPDATE_BLOCK, padded_width(max(1, n))) for n in (n_in, n_out))
        moved = [group[layer] if group[layer] is not None else weight for group in groups]
        if plan.n_pairs and n_out:
            weight_update[(plan.n_modules, -(-max(1, n_in) // block_in), -(-n_out // block_out))](
                before, grad, moved[0], moved[2], moved[4], moved[1], moved[3], moved[5], plan.offsets,
                plan.rows, plan.order, first_scales, scales, keeps, n_in, n_out, rule.beta1, rule.beta2, rule.eps,
                GATHER=layer == 0, SCATTER=layer == last, BIAS=bias is not None, ACTIVATION=ACTIVATION[kind],
                PRECISION="ieee", TILE=tile_rows(plan), BLOCK_IN=block_in, BLOCK_OUT=block_out, num_warps=4,
            )  # fmt: skip
        grad = below
    return losses
