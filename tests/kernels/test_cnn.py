"""Grouped feature nodes against a loop over the modules."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels import module_cnn, use_backend


def _normal(generator, *sizes, dtype=torch.float64):
    return torch.randn(*sizes, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()


@given(
    n_modules=st.sampled_from([1, 2, 9]),
    channels=st.tuples(*[st.sampled_from([1, 3, 8])] * 4),
    kernels=st.tuples(*[st.sampled_from([1, 3, 5])] * 3),
    strides=st.tuples(*[st.sampled_from([1, 2])] * 3),
    size=st.tuples(st.sampled_from([1, 7, 12]), st.sampled_from([3, 8])),
    shared=st.booleans(),
    has_bias=st.booleans(),
    activation=st.sampled_from(["relu", "gelu", "silu"]),
)
@settings(max_examples=20, deadline=None)
def test_grouped_matches_reference(n_modules, channels, kernels, strides, size, shared, has_bias, activation):
    generator = torch.Generator().manual_seed(0)
    images = _normal(generator, 2, *([] if shared else [n_modules]), channels[0], *size)
    shapes = zip(channels[1:], channels, kernels, strict=False)
    weights = [_normal(generator, n_modules, out, into, k, k) for out, into, k in shapes]
    biases = [_normal(generator, n_modules, c) if has_bias else None for c in channels[1:]]
    inputs = [images, *weights, *(b for b in biases if b is not None)]
    results = []
    for backend in ("torch", "reference"):
        y = module_cnn(images, weights, biases, strides=strides, activation=activation, backend=backend)
        results.append((y, *torch.autograd.grad((y * y.detach().cos()).sum(), inputs)))
    down = strides[0] * strides[1] * strides[2]
    assert results[0][0].shape == (2, n_modules, channels[3], -(-size[0] // down), -(-size[1] // down))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


def test_two_runs_are_bitwise_equal():
    generator = torch.Generator().manual_seed(0)
    images = _normal(generator, 4, 3, 16, 16, dtype=torch.float32)
    weights = [_normal(generator, 12, *s, 3, 3, dtype=torch.float32) for s in ((8, 3), (8, 8), (1, 8))]

    def run():
        y = module_cnn(images, weights, [None] * 3)
        return y, *torch.autograd.grad(y.square().sum(), [images, *weights])

    for a, b in zip(run(), run(), strict=True):
        assert torch.equal(a, b)


IMAGES = torch.zeros(2, 3, 8, 8)
WEIGHTS = [torch.zeros(4, 5, 3, 3, 3), torch.zeros(4, 6, 5, 3, 3), torch.zeros(4, 1, 6, 1, 1)]


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"images": torch.zeros(3, 8, 8)}, ValueError, r"images must be \[B, C, H, W\]"),
        ({"images": torch.zeros(2, 3, 3, 8, 8)}, ValueError, "images are for 3 modules, the weights for 4"),
        ({"images": IMAGES.long()}, TypeError, "images must be a float tensor"),
        ({"images": IMAGES.double()}, TypeError, "weights\\[0\\] is torch.float32, images are torch.float64"),
        ({"weights": WEIGHTS[:2]}, ValueError, "3 convolutions; 2, 3, 3 given"),
        ({"weights": [*WEIGHTS[:2], torch.zeros(4, 1, 6, 2, 2)]}, ValueError, r"weights\[2\] must be .* k odd"),
        ({"weights": [WEIGHTS[0], WEIGHTS[1][:3], WEIGHTS[2]]}, ValueError, r"weights\[1\] must be \[4, out, 5"),
        ({"biases": [None, torch.zeros(4, 5), None]}, ValueError, r"biases\[1\] must be \[4, 6\]"),
        ({"strides": (1, 0, 1)}, ValueError, "strides must be at least 1"),
        ({"activation": "tanh"}, ValueError, "activation must be one of"),
        (
            {"images": IMAGES.clone().requires_grad_(), "backend": "cpu"},
            ValueError,
            "no gradient of an image that modules",
        ),
        ({"images": IMAGES[:0], "backend": "cpu"}, ValueError, "there is nothing to compute"),
        ({"backend": "triton"}, ValueError, "backend triton cannot take this: it needs a CUDA device"),
        ({"backend": "cudnn"}, ValueError, "no kernel backend 'cudnn'"),
    ],
)
def test_refusals(change, error, says):
    good = {"images": IMAGES, "weights": WEIGHTS, "biases": [None] * 3}
    with pytest.raises(error, match=says):
        module_cnn(**{**good, **change})


def test_a_backend_without_the_kernel_set_for_everything_does_not_stop_it():
    with use_backend("triton"):
        assert module_cnn(IMAGES, WEIGHTS, [None] * 3).shape == (2, 4, 1, 8, 8)


def test_one_channel_out_in_bfloat16_is_rounded_once():
    """The product by taps (kernels.cnn._taps) adds up in float32, as a convolution does."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(3, 6, 8, 8, generator=generator).bfloat16()
    shapes = ((8, 6, 3), (8, 8, 1), (1, 8, 5))
    weights = [torch.randn(4, o, i, k, k, generator=generator).mul(0.2).bfloat16() for o, i, k in shapes]
    biases = [torch.randn(4, o, generator=generator).bfloat16() for o, _, _ in shapes]
    got = module_cnn(images, weights, biases)
    exact = [[t.double() for t in group] for group in (weights, biases)]
    want = module_cnn(images.double(), *exact, backend="reference")
    assert got.dtype == torch.bfloat16
    assert float((got.double() - want).norm()) < 0.01 * float(want.norm())


def test_no_images_at_all():
    weights = [w.clone().requires_grad_() for w in WEIGHTS]
    y = module_cnn(IMAGES[:0], weights, [None] * 3)
    assert y.shape == (0, 4, 1, 8, 8)
    assert all((g == 0).all() for g in torch.autograd.grad(y.sum(), weights))
