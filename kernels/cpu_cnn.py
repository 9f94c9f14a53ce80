"""The CPU backend of `module_cnn`: float32, parallel over modules (or images), with autograd (kernels/numba_cnn.py)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kernels import numba_cnn as nc
from kernels.numba_layers import CODES
from kernels.numba_layers import padded as _padded
from kernels.threads import threads_for

# What a forward pass keeps at most of values before activations; above, the backward pass computes them again.
SAVE_BYTES = 1 << 29
SMALL_WORK = 200_000  # multiply-adds below which waking a second thread costs more than it brings
BLOCK_FLOATS = 1 << 16  # of weights that stay in cache while images pass by


def padded(width: int) -> int:
    return int(_padded.py_func(width))


def whole_lines(floats: int) -> int:
    """So many floats that what follows them starts a cache line: vectors across two lines are slow."""
    return -(-floats // 16) * 16


def geometry(images: Tensor, weights: Sequence[Tensor], strides: Sequence[int]) -> np.ndarray:
    """int64 [3, GEOMETRY]; see kernels/numba_cnn.py."""
    table = np.zeros((nc.LAYERS, nc.GEOMETRY), np.int64)
    height, width = images.shape[-2:]
    for layer, (weight, stride) in enumerate(zip(weights, strides, strict=True)):
        n_out, n_in, k = (int(n) for n in weight.shape[1:4])
        taps, down, right = k * k, -(-height // stride), -(-width // stride)
        wide, narrow = padded(n_in), padded(n_out)
        row = {
            nc.IN: n_in, nc.OUT: n_out, nc.KERNEL: k, nc.STRIDE: stride, nc.H_IN: height, nc.W_IN: width,
            nc.H_OUT: down, nc.W_OUT: right, nc.ROWS: down * right, nc.Q: narrow, nc.LENGTH: n_out, nc.WIDTH: narrow,
            nc.COPY: int(k > 1 or (layer > 0 and stride > 1)),
        }  # fmt: skip
        if layer == 0:
            r, rp = n_in * taps, padded(n_in * taps)
            row |= {nc.FORM: nc.FIRST, nc.R: r, nc.RP: rp, nc.BY_IN: narrow, nc.BY_TAP: n_in * narrow,
                    nc.T_IN: taps, nc.T_TAP: 1, nc.T_OUT: rp}  # fmt: skip
        elif stride == 1 and padded(taps * n_out) < taps * narrow:
            q = padded(taps * n_out)
            row |= {nc.FORM: nc.TAPS, nc.COPY: 0, nc.R: wide, nc.RP: wide, nc.Q: q, nc.LENGTH: taps * n_out,
                    nc.BY_IN: q, nc.BY_TAP: n_out, nc.T_IN: 1, nc.T_TAP: n_out * wide, nc.T_OUT: wide}  # fmt: skip
        else:
            r = taps * wide
            row |= {nc.FORM: nc.PATCHES, nc.R: r, nc.RP: r, nc.BY_IN: narrow, nc.BY_TAP: wide * narrow,
                    nc.T_IN: 1, nc.T_TAP: wide, nc.T_OUT: r}  # fmt: skip
        table[layer, list(row)] = list(row.values())
        height, width = down, right
    return table


def _layout(g: np.ndarray, block: int, backward: bool, saved: bool) -> tuple[np.ndarray, np.ndarray, int, int]:
    """(slots, items, floats of a slot, floats in all) of a thread's scratch memory; see kernels/numba_cnn.run."""
    slots, items = (np.full((nc.LAYERS, nc.PLACES), -1, np.int64) for _ in range(2))
    size = 0
    for layer in range(nc.LAYERS):
        product = int(g[layer, nc.R] * g[layer, nc.Q])
        wanted = {nc.WEIGHT: product}
        if backward:
            wanted |= {nc.TRANSPOSE: int(g[layer, nc.LENGTH] * g[layer, nc.RP]), nc.D_WEIGHT: product,
                       nc.D_BIAS: int(g[layer, nc.WIDTH])}  # fmt: skip
        for name, floats in wanted.items():
            slots[layer, name] = size
            size += whole_lines(floats)
    total = block * size

    def room(layer: int, name: int, floats: int) -> None:
        nonlocal total
        items[layer, name] = total
        total += whole_lines(floats)

    for layer in range(nc.LAYERS):
        cells = int(g[layer, nc.H_OUT] * g[layer, nc.W_OUT])
        rows, last = int(g[layer, nc.ROWS]), layer == nc.LAYERS - 1
        if g[layer, nc.COPY]:
            k, sizes = int(g[layer, nc.KERNEL]), [int(g[layer, i]) for i in (nc.IN, nc.H_IN, nc.W_IN)]
            widened = sizes[0] * (sizes[1] + k - 1) * (sizes[2] + k - 1)
            room(layer, nc.X, rows * int(g[layer, nc.R]) if layer else widened)
        elif layer:
            items[layer, nc.X] = items[layer - 1, nc.AFTER]
        if g[layer, nc.FORM] == nc.TAPS:
            room(layer, nc.TAP, rows * int(g[layer, nc.Q]))
        room(layer, nc.Z, cells * int(g[layer, nc.WIDTH]))
        items[layer, nc.AFTER] = items[layer, nc.Z]
        if not last and (backward or saved):  # values before and after the activation are both wanted
            room(layer, nc.AFTER, cells * int(g[layer, nc.WIDTH]))
        if backward:
            room(layer, nc.D_Z, cells * int(g[layer, nc.WIDTH]))
            room(layer, nc.D_X, rows * int(g[layer, nc.RP]))
            if layer and not g[layer, nc.COPY]:
                items[layer, nc.D_X] = items[layer - 1, nc.D_Z]
    return slots, items, size, total


def _parts(n_modules: int, batch: int, work: int, backward: bool) -> np.ndarray:
    """int64 [threads, 4]: first and last module, first and last image of each thread."""
    threads = threads_for(work, SMALL_WORK)
    # Gradients are summed by one thread per module; a forward pass may share out the images as well.
    by_images = not backward and batch > n_modules
    borders = np.linspace(0, batch if by_images else n_modules, threads + 1).astype(np.int64)
    parts = np.tile(np.array([0, n_modules, 0, batch], np.int64), (threads, 1))
    at = 2 if by_images else 0
    parts[:, at], parts[:, at + 1] = borders[:-1], borders[1:]
    return parts


def _address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


def _run(
    images: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor | None],
    strides: Sequence[int],
    activation: str,
    out: Tensor,
    saved: Tensor | None,
    gradients: Sequence[Tensor | None] | None = None,
    d_images: Tensor | None = None,
) -> None:
    """All tensors contiguous. gradients: of weights, then of biases; None: the forward pass into `out`."""
    g = geometry(images, weights, strides)
    shared, n_modules, backward = images.dim() == 4, weights[0].shape[0], gradients is not None
    one = int((g[:, nc.R] * g[:, nc.Q]).sum())
    # On a shared image several modules run on each image in turn, which then comes from the cache.
    block = max(1, min(16, n_modules, BLOCK_FLOATS // (one * (3 if backward else 1)))) if shared else 1
    slots, items, slot_size, total = _layout(g, block, backward, saved is not None)
    table = np.zeros((nc.PLACES, nc.LAYERS), np.int64)
    table[nc.WEIGHT], table[nc.BIAS] = [_address(w) for w in weights], [_address(b) for b in biases]
    if gradients is not None:
        found = [_address(t) for t in gradients]
        table[nc.D_WEIGHT], table[nc.D_BIAS] = found[: nc.LAYERS], found[nc.LAYERS :]
    work = int((g[:, nc.ROWS] * g[:, nc.R] * g[:, nc.Q]).sum()) * n_modules * len(images)
    parts = _parts(n_modules, len(images), work, backward)
    scratch = np.empty((len(parts), total + 16), np.float32)
    nc.run(
        parts, g, slots, items, slot_size, table, n_modules, block, images.data_ptr(), int(shared),
        CODES[activation], out.data_ptr(), _address(saved), saved_floats(g) if saved is not None else 0,
        _address(d_images), int(backward), int(backward and saved is not None), scratch,
    )  # fmt: skip


def saved_floats(g: np.ndarray) -> int:
    """Values before the two activations of one image in one module."""
    return int((g[:2, nc.H_OUT] * g[:2, nc.W_OUT] * g[:2, nc.WIDTH]).sum())


def forward(
    images: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor | None],
    strides: Sequence[int],
    activation: str,
    keep: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """(answers [B, M, C3, H', W'], values that `backward` can use again or None)."""
    images, weights = images.contiguous(), [w.contiguous() for w in weights]
    biases = [None if b is None else b.contiguous() for b in biases]
    g = geometry(images, weights, strides)
    n_modules, batch = weights[0].shape[0], len(images)
    out = images.new_empty(batch, n_modules, *(int(g[-1, i]) for i in (nc.OUT, nc.H_OUT, nc.W_OUT)))
    saved = None
    if keep and 4 * batch * n_modules * saved_floats(g) <= SAVE_BYTES:
        saved = images.new_empty(batch, n_modules, saved_floats(g))
    _run(images, weights, biases, strides, activation, out, saved)
    return out, saved


def backward(
    grad: Tensor,
    images: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor | None],
    strides: Sequence[int],
    activation: str,
    saved: Tensor | None,
    need: Sequence[bool],
) -> tuple[Tensor | None, list[Tensor | None], list[Tensor | None]]:
    """Gradients by images (of one's own only), weights and biases; need: which, in that order."""
    images, weights = images.contiguous(), [w.contiguous() for w in weights]
    biases = [None if b is None else b.contiguous() for b in biases]
    params = [*weights, *biases]
    wanted = [torch.empty_like(p) if p is not None and n else None for p, n in zip(params, need[1:], strict=True)]
    d_images = torch.zeros_like(images) if need[0] else None
    _run(images, weights, biases, strides, activation, grad.contiguous(), saved, wanted, d_images)
    return d_images, wanted[: nc.LAYERS], wanted[nc.LAYERS :]


class _Nodes(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor, strides: Sequence[int], activation: str, *params: Tensor | None) -> Tensor:
        ctx.rest = strides, activation
        ctx.save_for_backward(images, *params)
        weights = [w for w in params[: nc.LAYERS] if w is not None]
        keep = any(ctx.needs_input_grad)
        out, ctx.kept = forward(images, weights, params[nc.LAYERS :], strides, activation, keep)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        images, *params = ctx.saved_tensors
        need_images, _, _, *need = ctx.needs_input_grad
        weights, biases = params[: nc.LAYERS], params[nc.LAYERS :]
        strides, activation = ctx.rest
        d_images, d_weights, d_biases = backward(
            grads[0], images, weights, biases, strides, activation, ctx.kept, [need_images, *need]
        )
        return d_images, None, None, *d_weights, *d_biases


def module_cnn(
    images: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor | None], strides: Sequence[int], activation: str
) -> Tensor:
    return _Nodes.apply(images, tuple(strides), activation, *weights, *biases)  # pyright: ignore[reportReturnType]
