"""The CPU backend of the feature nodes: against float64, bit by bit, and as a registered operation."""

# pyright: reportArgumentType=false
from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels import cpu_cnn, module_cnn, ops_cnn

GENERATOR = torch.Generator().manual_seed(0)


def _case(n_modules, batch, channels, kernels, shared, has_bias, size):
    images = torch.randn(batch, *([] if shared else [n_modules]), channels[0], *size, generator=GENERATOR)
    shapes = list(zip(channels[1:], channels, kernels, strict=False))
    weights = [torch.randn(n_modules, o, i, k, k, generator=GENERATOR) * (i * k * k) ** -0.5 for o, i, k in shapes]
    biases = [torch.randn(n_modules, c, generator=GENERATOR) if has_bias else None for c in channels[1:]]
    return images, weights, biases


def _gradients(backend, dtype, images, weights, biases, **options):
    def leaf(t):
        return None if t is None else t.detach().to(dtype).requires_grad_()

    own = images.to(dtype) if images.dim() == 4 else leaf(images)
    ws, bs = [leaf(w) for w in weights], [leaf(b) for b in biases]
    y = module_cnn(own, ws, bs, backend=backend, **options)
    mix = torch.cos(torch.arange(y.numel(), dtype=torch.float64)).to(dtype).reshape(y.shape)
    inputs = [t for t in (*ws, *bs, own) if t is not None and t.requires_grad]
    return [y.detach(), *torch.autograd.grad((y * mix).sum(), inputs)]


def _near_a_kink(images, weights, biases, strides):
    """Whether a sum before a relu is so near 0 that float32 may have it on the other side of the kink."""
    for m in range(len(weights[0])):
        x = (images if images.dim() == 4 else images[:, m]).double()
        for weight, bias, stride in zip(weights[:-1], biases[:-1], strides, strict=False):
            shift = None if bias is None else bias[m].double()
            x = torch.nn.functional.conv2d(x, weight[m].double(), shift, stride, weight.shape[-1] // 2)
            if float(x.abs().min()) < 1e-5:
                return True
            x = x.relu()
    return False


@given(
    n_modules=st.sampled_from([1, 2, 9, 20]),
    batch=st.sampled_from([1, 3]),
    channels=st.tuples(*[st.sampled_from([1, 3, 8, 24])] * 4),
    kernels=st.tuples(*[st.sampled_from([1, 3, 5])] * 3),
    strides=st.tuples(*[st.sampled_from([1, 2, 3])] * 3),
    size=st.tuples(st.sampled_from([1, 7, 12]), st.sampled_from([3, 8])),
    shared=st.booleans(),
    has_bias=st.booleans(),
    activation=st.sampled_from(["relu", "gelu", "silu"]),
    kept=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_matches_the_reference(n_modules, batch, channels, kernels, strides, size, shared, has_bias, activation, kept):
    case = _case(n_modules, batch, channels, kernels, shared, has_bias, size)
    limit = cpu_cnn.SAVE_BYTES
    cpu_cnn.SAVE_BYTES = limit if kept else 0
    try:
        ours = _gradients("cpu", torch.float32, *case, strides=strides, activation=activation)
    finally:
        cpu_cnn.SAVE_BYTES = limit
    theirs = _gradients("reference", torch.float64, *case, strides=strides, activation=activation)
    loose = 5e-3 if activation == "relu" and _near_a_kink(*case, strides) else 2e-5
    for k, (got, want) in enumerate(zip(ours, theirs, strict=True)):
        assert got.shape == want.shape and got.dtype == torch.float32
        assert float((got - want).norm()) <= (loose if k else 2e-5) * (float(want.norm()) + 1e-3)


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("kernels", [(1, 3, 3), (3, 3, 1)])
def test_no_bit_depends_on_threads_batch_or_what_was_kept(shared, kernels, monkeypatch):
    images, weights, biases = _case(5, 6, (11, 16, 24, 1), kernels, shared, True, (16, 16))
    options = {"strides": (1, 2, 1), "activation": "gelu"}
    plain = _gradients("cpu", torch.float32, images, weights, biases, **options)
    monkeypatch.setattr(cpu_cnn, "SAVE_BYTES", 0)
    again = [_gradients("cpu", torch.float32, images, weights, biases, **options)]
    monkeypatch.setattr(cpu_cnn, "SMALL_WORK", 0)
    before = torch.get_num_threads()
    for threads in (1, 2):
        torch.set_num_threads(threads)
        again.append(_gradients("cpu", torch.float32, images, weights, biases, **options))
    torch.set_num_threads(before)
    for other in again:
        assert all(torch.equal(a, b) for a, b in zip(plain, other, strict=True))
    alone = torch.cat([module_cnn(images[i : i + 1], weights, biases, backend="cpu", **options) for i in range(6)])
    assert torch.equal(alone, plain[0])


def test_every_result_is_written(monkeypatch):
    """Results and scratch memory are full of NaN before: a number that nobody writes would show."""
    plain, empty = torch.Tensor.new_empty, cpu_cnn.np.empty
    monkeypatch.setattr(torch.Tensor, "new_empty", lambda *a, **k: plain(*a, **k).fill_(float("nan")))
    monkeypatch.setattr(torch, "empty_like", lambda t: torch.full_like(t, float("nan")))
    monkeypatch.setattr(cpu_cnn.np, "empty", lambda *a, **k: (made := empty(*a, **k), made.fill(float("nan")))[0])
    for kernels in ((1, 3, 3), (3, 1, 5)):
        case = _case(3, 2, (5, 7, 9, 2), kernels, False, True, (9, 8))
        assert all(t.isfinite().all() for t in _gradients("cpu", torch.float32, *case, strides=(1, 2, 1)))


def test_float32_on_the_cpu_is_chosen_without_asking(monkeypatch):
    images, weights, biases = _case(3, 2, (4, 8, 8, 1), (1, 3, 3), True, True, (8, 8))
    called = []
    run = cpu_cnn.forward
    monkeypatch.setattr(cpu_cnn, "forward", lambda *a: (called.append(1), run(*a))[1])
    module_cnn(images, weights, biases)
    assert called == [1]
    module_cnn(images.double(), [w.double() for w in weights], [None if b is None else b.double() for b in biases])
    module_cnn(images.requires_grad_(), weights, biases)
    monkeypatch.setenv("CONSTRUCTIBLE_KERNELS", "torch")
    module_cnn(images.detach(), weights, biases)
    assert called == [1]


@pytest.mark.parametrize("shared", [True, False])
def test_registered_operation(shared):
    images, weights, biases = _case(3, 2, (4, 5, 8, 1), (1, 3, 3), shared, True, (6, 7))
    biases[1] = None
    params = [t.requires_grad_() for t in (*weights, *(b for b in biases if b is not None))]
    args = (images.requires_grad_(not shared), params, [1, 0, 1], [1, 2, 1], "silu")
    torch.library.opcheck(ops_cnn.nodes, args)
    plain = images.detach(), [p.detach() for p in params]
    torch.library.opcheck(ops_cnn.nodes_backward, (torch.ones(2, 3, 1, 3, 4), *plain, *args[2:], not shared))


def test_compiles_into_one_graph():
    images, weights, biases = _case(3, 2, (4, 5, 8, 1), (1, 3, 3), True, True, (8, 8))
    leaves = [w.requires_grad_() for w in weights]

    def run(images, *weights):
        return module_cnn(images * 2, weights, biases, strides=(1, 2, 1)).mean((3, 4)).square().sum()

    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    want, got = run(images, *leaves), compiled(images, *leaves)
    torch.testing.assert_close(got, want)
    pairs = zip(torch.autograd.grad(got, leaves), torch.autograd.grad(want, leaves), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("shared", [True, False])
def test_bfloat16_is_computed_in_float32_and_rounded_once(shared):
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(2, *([] if shared else [3]), 4, 6, 6, generator=generator).bfloat16()
    shapes = [(5, 4, 1), (3, 5, 3), (1, 3, 3)]
    weights = [(torch.randn(3, o, i, k, k, generator=generator) * 0.3).bfloat16() for o, i, k in shapes]
    weights = [w.requires_grad_() for w in weights]
    got = module_cnn(images, weights, [None] * 3, backend="cpu")
    want = module_cnn(images.double(), [w.detach().double() for w in weights], [None] * 3, backend="reference")
    assert got.dtype == torch.bfloat16
    assert torch.allclose(got.double(), want, rtol=2**-8, atol=1e-4)
    gradients = torch.autograd.grad(got.float().square().sum(), weights)
    assert all(g.dtype == torch.bfloat16 and bool(g.isfinite().all()) for g in gradients)
