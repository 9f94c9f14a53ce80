"""Many small convolutional feature nodes: three convolutions each, on one shared image or on an image of their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels.backends import asked, triton_refusal
from kernels.checks import ACTIVATIONS, FLOATS, shape
from kernels.precision import has_matrix_unit
from kernels.reference import ACTIVATION

LAYERS = 3
FEW_IMAGES = 8  # shared by the modules, up to which float32 module by module beats a grouped convolution in bfloat16


def module_cnn(
    images: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor | None],
    *,
    strides: Sequence[int] = (1, 1, 1),
    activation: str = "relu",
    backend: str | None = None,
) -> Tensor:
    """Three convolutions per module (activation between, none at the end), padded by half the kernel.

    Args:
        images: float [B, C0, H, W], seen by every module, or [B, M, C0, H, W], one for each.
        weights: three tensors [M, C(l+1), C(l), k, k], k odd (may differ between layers).
        biases: three tensors [M, C(l+1)] or None.
        strides: of the three convolutions.
        activation: "relu", "gelu" (exact) or "silu".
        backend: "reference", "torch" (any device and dtype), "cpu" (on the CPU; computes in float32, and rounds the
            answer where bfloat16 was given; not for the gradient of a shared image) or "triton" (on a GPU; gradients by
            torch; never timed yet, so never chosen). None: cpu where it can take the work and is the faster, else
            torch, also where `use_backend` or the environment names a backend that cannot. Under torch.compile only
            this argument counts.

    Returns:
        [B, M, C3, H', W'], H' = ceil(H / product of the strides). Differentiable in images, weights and biases. On the
        cpu backend what an image gets is bitwise the same in every batch and with every number of threads.

    Raises:
        TypeError, ValueError: dtypes, devices or shapes do not fit, or a backend that cannot take them.
    """
    _check(images, weights, biases, strides, activation)
    compiling = torch.compiler.is_compiling()
    # What use_backend and the environment say cannot be read while a graph is captured.
    if compiling and backend is None:
        backend = _automatic(images, weights)
    name = choose(images, weights, backend)
    if name == "cpu" and images.dtype != torch.float32:
        wide = [t.float() for t in weights], [None if b is None else b.float() for b in biases]
        answer = module_cnn(images.float(), *wide, strides=strides, activation=activation, backend="cpu")
        return answer.to(images.dtype)
    if name == "cpu" and compiling:
        from kernels import ops, ops_cnn

        return ops_cnn.nodes(images, *ops.joined(weights, biases), list(strides), activation)
    if name == "cpu":
        from kernels import cpu_cnn

        return cpu_cnn.module_cnn(images, weights, biases, strides, activation)
    if name == "triton":
        from kernels import triton_cnn

        plain = partial(_grouped, strides=strides, act=ACTIVATION[activation])
        return triton_cnn.module_cnn(images, weights, biases, strides, activation, plain)
    run = _reference if name == "reference" else _grouped
    return run(images, weights, biases, strides, ACTIVATION[activation])


def choose(images: Tensor, weights: Sequence[Tensor], backend: str | None = None) -> str:
    """The backend that takes this work: the one asked for, or cpu where it can, else torch.

    Raises:
        ValueError: the argument names a backend that cannot take it.
    """
    request = asked(backend)
    if request is None:
        return _automatic(images, weights)
    name = request[0]
    refusal = ""
    if name == "cpu":
        refusal = _refusal(images, weights)
    elif name == "triton":
        refusal = triton_refusal(images.device, images.dtype)
        if not refusal and (images.numel() == 0 or any(w.numel() == 0 for w in weights)):
            refusal = "there is nothing to compute"
    if refusal and backend is not None:
        raise ValueError(f"module_cnn: backend {backend} cannot take this: {refusal}. Fix: use torch")
    return "torch" if refusal else name


def _automatic(images: Tensor, weights: Sequence[Tensor]) -> str:
    """cpu where it can take the work and is the faster (docs/experiments/kernels_cpu.md): always in float32; in
    bfloat16, which it widens, for images of one's own and for training on few that modules share, unless the processor
    has a matrix unit."""
    if _refusal(images, weights):
        return "torch"
    if images.dtype == torch.float32:
        return "cpu"
    training = torch.is_grad_enabled() and any(w.requires_grad for w in weights)
    suits = images.dim() == 5 or (training and len(images) <= FEW_IMAGES)
    return "cpu" if suits and not has_matrix_unit() else "torch"


def _refusal(images: Tensor, weights: Sequence[Tensor]) -> str:
    """Why the cpu backend cannot take the work, or ''."""
    if images.device.type != "cpu" or images.dtype not in (torch.float32, torch.bfloat16):
        return f"it takes float32 and bfloat16 on the CPU, not {images.dtype} on {images.device}"
    if images.dim() == 4 and images.requires_grad and torch.is_grad_enabled():
        return "it has no gradient of an image that modules share"
    if images.numel() == 0 or any(w.numel() == 0 for w in weights):
        return "there is nothing to compute"
    return ""


def _check(
    images: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor | None], strides: Sequence[int], activation: str
) -> None:
    if images.dtype not in FLOATS:
        raise TypeError(f"images must be a float tensor, not {shape(images)}")
    if images.dim() not in (4, 5):
        raise ValueError(f"images must be [B, C, H, W] or [B, M, C, H, W], not {shape(images)}")
    if not len(weights) == len(biases) == len(strides) == LAYERS:
        raise ValueError(f"a feature node has 3 convolutions; {len(weights)}, {len(biases)}, {len(strides)} given")
    if any(s < 1 for s in strides):
        raise ValueError(f"strides must be at least 1, not {tuple(strides)}")
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}, not {activation!r}")
    n_modules, channels = weights[0].shape[0], images.shape[-3]
    if images.dim() == 5 and images.shape[1] != n_modules:
        raise ValueError(f"images are for {images.shape[1]} modules, the weights for {n_modules}")
    for layer, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        odd = weight.dim() == 5 and weight.shape[3] == weight.shape[4] and weight.shape[3] % 2 == 1
        if not odd or weight.shape[0] != n_modules or weight.shape[2] != channels:
            raise ValueError(
                f"weights[{layer}] must be [{n_modules}, out, {channels}, k, k], k odd, not {shape(weight)}"
            )
        channels = weight.shape[1]
        if bias is not None and tuple(bias.shape) != (n_modules, channels):
            raise ValueError(f"biases[{layer}] must be [{n_modules}, {channels}], not {shape(bias)}")
        for name, tensor in ((f"weights[{layer}]", weight), (f"biases[{layer}]", bias)):
            if tensor is not None and tensor.dtype != images.dtype:
                raise TypeError(f"{name} is {tensor.dtype}, images are {images.dtype}: use one dtype")
            if tensor is not None and tensor.device != images.device:
                raise ValueError(f"{name} is on {tensor.device}, images on {images.device}: use one device")


def _reference(
    images: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor | None],
    strides: Sequence[int],
    act: Callable[[Tensor], Tensor],
) -> Tensor:
    answers = []
    for module in range(weights[0].shape[0]):
        hidden = images if images.dim() == 4 else images[:, module]
        for layer, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
            hidden = hidden if layer == 0 else act(hidden)
            part = None if bias is None else bias[module]
            hidden = F.conv2d(hidden, weight[module], part, strides[layer], weight.shape[3] // 2)
        answers.append(hidden)
    return torch.stack(answers, 1)


def _grouped(
    images: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor | None],
    strides: Sequence[int],
    act: Callable[[Tensor], Tensor],
) -> Tensor:
    """Modules as the groups of one convolution, channels last: measured 2-5x faster than module by module on a CPU."""
    n_modules, batch = weights[0].shape[0], images.shape[0]
    shared = images.dim() == 4
    hidden = images if shared else images.reshape(batch, -1, *images.shape[3:])
    hidden = hidden.contiguous(memory_format=torch.channels_last)
    for layer, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        hidden = hidden if layer == 0 else act(hidden)
        if layer and weight.shape[1] == 1 and weight.shape[3] > 1 and strides[layer] == 1:
            hidden = _taps(hidden, weight, bias)
            continue
        # On a shared image the first layer of all modules is one plain convolution with many output channels.
        groups = 1 if shared and layer == 0 else n_modules
        kernel = weight.reshape(-1, *weight.shape[2:]).contiguous(memory_format=torch.channels_last)
        part = None if bias is None else bias.reshape(-1)
        hidden = F.conv2d(hidden, kernel, part, strides[layer], weight.shape[3] // 2, groups=groups)
    return hidden.reshape(batch, n_modules, weights[-1].shape[1], *hidden.shape[2:])


def _taps(values: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """One channel out per module from values [B, M C, H, W]: the products of all taps, their answers shifted and added.

    Convolution libraries are slow for a single channel per group; this is a product with k k channels per group.
    """
    n_modules, _, n_in, k, _ = weight.shape
    batch, _, height, width = values.shape
    kernel = weight.permute(0, 3, 4, 2, 1).reshape(n_modules * k * k, n_in, 1, 1)
    taps = F.conv2d(values, kernel, groups=n_modules).reshape(batch, n_modules, k, k, height, width)
    # The sum over taps is part of a convolution's sum: in half precision it is rounded at its end only.
    wide = F.pad(taps.float() if taps.element_size() == 2 else taps, [k // 2] * 4)
    answer = sum(wide[:, :, i, j, i : i + height, j : j + width] for i in range(k) for j in range(k))
    assert isinstance(answer, Tensor)
    return (answer if bias is None else answer + bias[:, :, None]).to(values.dtype)
