"""`module_cnn` on the CPU as a torch.library custom op, so that torch.compile takes it whole (see kernels/ops.py)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from kernels.ops import NAMESPACE, like, split


def _size(images: Tensor, params: Sequence[Tensor], strides: Sequence[int]) -> tuple[Any, ...]:
    height, width = images.shape[-2:]
    for stride in strides:
        height, width = (height + stride - 1) // stride, (width + stride - 1) // stride
    return images.shape[0], params[0].shape[0], params[2].shape[1], height, width


@torch.library.custom_op(f"{NAMESPACE}::module_cnn", mutates_args=())
def nodes(
    images: Tensor, params: Sequence[Tensor], biased: Sequence[int], strides: Sequence[int], activation: str
) -> Tensor:
    """Answers [B, M, C3, H', W'] of `module_cnn`; params: weights, then a bias where `biased` is 1."""
    from kernels import cpu_cnn

    weights, biases = split(params, biased)
    return cpu_cnn.forward(images, weights, biases, strides, activation)[0]


@nodes.register_fake
def _(images: Tensor, params: Sequence[Tensor], biased: Sequence[int], strides: Sequence[int], *_: Any) -> Tensor:
    return images.new_empty(_size(images, params, strides))


@torch.library.custom_op(f"{NAMESPACE}::module_cnn_backward", mutates_args=())
def nodes_backward(
    grad: Tensor,
    images: Tensor,
    params: Sequence[Tensor],
    biased: Sequence[int],
    strides: Sequence[int],
    activation: str,
    need_images: bool,
) -> list[Tensor]:
    """Gradients by each of params and, where asked for, by images of each module's own."""
    from kernels import cpu_cnn

    weights, biases = split(params, biased)
    need = [need_images, *[True] * 6]
    d_images, d_weights, d_biases = cpu_cnn.backward(grad, images, weights, biases, strides, activation, None, need)
    return [t for t in (*d_weights, *d_biases, d_images) if t is not None]


@nodes_backward.register_fake
def _(
    grad: Tensor, images: Tensor, params: Sequence[Tensor], biased: Any, strides: Any, activation: str,
    need_images: bool,
) -> list[Tensor]:  # fmt: skip
    return like(*params, images if need_images else None)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    images, params, *ctx.rest = inputs
    ctx.save_for_backward(images, *params)


def _gradient(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    images, *params = ctx.saved_tensors
    need_images = ctx.needs_input_grad[0]
    if need_images and images.dim() == 4:
        raise ValueError("the cpu backend of module_cnn has no gradient of an image that modules share. Fix: use torch")
    found = nodes_backward(grad, images, params, *ctx.rest, need_images)
    return found[-1] if need_images else None, found[: len(params)], None, None, None


nodes.register_autograd(_gradient, setup_context=_setup)
