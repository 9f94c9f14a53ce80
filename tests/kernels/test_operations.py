"""Every backend against the reference in float64, over ragged shapes that hypothesis draws."""

# pyright: reportArgumentType=false, reportCallIssue=false
# (lists of tensors, some of them None where there is no bias or gate, are unpacked into arguments)

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels import Vocabulary, ragged_linear, ragged_mlp, ragged_softmax_xent, route

OTHERS = ["torch", "cpu"]  # triton: interpreted_cases.py
CASES = [(name, kind) for name in OTHERS for kind in (torch.float64, torch.float32)]
CASES.remove(("cpu", torch.float64))
QUICK = settings(max_examples=25, deadline=None)


@st.composite
def raggeds(draw, n_choices=(1, 2, 3)):
    """(choice, n_modules): empty modules, one module, all rows to one, zero rows, more modules than rows."""
    n_modules = draw(st.sampled_from([1, 2, 7, 60, 200]))
    n_rows = draw(st.sampled_from([0, 1, 5, 64, 200]))
    k = draw(st.sampled_from(n_choices))
    kind = draw(st.sampled_from(["any", "one", "few", "even"]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    top = {"any": n_modules, "one": 1, "few": max(1, n_modules // 3), "even": n_modules}[kind]
    choice = torch.randint(0, top, (n_rows, k), generator=generator)
    if kind == "even":
        choice = (torch.arange(n_rows * k) % n_modules).reshape(n_rows, k)
    return choice if k > 1 else choice[:, 0], n_modules


def _grads(result, inputs):
    generator = torch.Generator().manual_seed(3)
    weights = torch.randn(result.shape, generator=generator, dtype=torch.float64).to(result.dtype)
    wanted = [t for t in inputs if t is not None and t.requires_grad]
    return torch.autograd.grad((result * weights).sum(), wanted)


def _normal(generator, *shape, dtype, scale=1.0):
    return (torch.randn(*shape, generator=generator, dtype=torch.float64) * scale).to(dtype).requires_grad_()


@pytest.mark.parametrize(("backend", "dtype"), CASES)
@given(ragged=raggeds(), widths=st.tuples(*[st.sampled_from([1, 3, 16, 33])] * 2), has_bias=st.booleans())
@QUICK
def test_linear_matches_reference(backend, dtype, ragged, widths, has_bias):
    choice, n_modules = ragged
    generator = torch.Generator().manual_seed(1)
    x = _normal(generator, len(choice), widths[0], dtype=dtype)
    weight = _normal(generator, n_modules, *widths, dtype=dtype)
    bias = _normal(generator, n_modules, widths[1], dtype=dtype) if has_bias else None
    plan = route(choice, n_modules=n_modules)
    got = ragged_linear(x, weight, bias, plan, backend=backend)
    double = [None if t is None else t.detach().double().requires_grad_() for t in (x, weight, bias)]
    want = ragged_linear(*double, plan, backend="reference")
    assert got.shape == (*choice.shape, widths[1]) and got.dtype == dtype
    tolerance = 1e-10 if dtype == torch.float64 else 1e-4
    torch.testing.assert_close(got.double(), want, rtol=tolerance, atol=tolerance)
    for a, b in zip(_grads(got, [x, weight, bias]), _grads(want, double), strict=True):
        torch.testing.assert_close(a.double(), b, rtol=tolerance, atol=tolerance * 10)


@pytest.mark.parametrize(("backend", "dtype"), CASES)
@given(
    ragged=raggeds(),
    widths=st.lists(st.sampled_from([1, 4, 17, 32]), min_size=3, max_size=5),
    activation=st.sampled_from(["relu", "gelu", "silu"]),
    gated=st.booleans(),
)
@QUICK
def test_mlp_matches_reference(backend, dtype, ragged, widths, activation, gated):
    choice, n_modules = ragged
    generator = torch.Generator().manual_seed(2)
    x = _normal(generator, len(choice), widths[0], dtype=dtype)
    gate = _normal(generator, *choice.shape, dtype=dtype) if gated else None
    shapes = list(zip(widths, widths[1:], strict=False))
    weights = [_normal(generator, n_modules, a, b, dtype=dtype, scale=a**-0.5) for a, b in shapes]
    biases = [_normal(generator, n_modules, b, dtype=dtype) for _, b in shapes]
    biases[0] = None
    got = ragged_mlp(x, weights, biases, route(choice, gate, n_modules), activation, backend=backend)

    def twin(t):
        return None if t is None else t.detach().double().requires_grad_()

    x2, gate2, weights2, biases2 = twin(x), twin(gate), [twin(w) for w in weights], [twin(b) for b in biases]
    want = ragged_mlp(x2, weights2, biases2, route(choice, gate2, n_modules), activation, backend="reference")
    assert got.shape == ((len(choice), widths[-1]) if gated else (*choice.shape, widths[-1]))
    tolerance = 1e-10 if dtype == torch.float64 else 2e-4
    torch.testing.assert_close(got.double(), want, rtol=tolerance, atol=tolerance)
    ours, theirs = _grads(got, [x, gate, *weights, *biases]), _grads(want, [x2, gate2, *weights2, *biases2])
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=tolerance, atol=tolerance * 10)


@st.composite
def vocabularies(draw, n_modules):
    n_tokens = draw(st.sampled_from([1, 40, 130]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    sizes = torch.randint(1, n_tokens + 1, (n_modules,), generator=generator).tolist()
    if draw(st.booleans()):
        return Vocabulary.own(sizes)
    return Vocabulary.of([torch.randperm(n_tokens, generator=generator)[:s] for s in sizes], n_tokens)


def _xent_case(data, dtype, has_bias):
    choice, n_modules = data.draw(raggeds(n_choices=(1,)))
    vocabulary = data.draw(vocabularies(n_modules))
    generator = torch.Generator().manual_seed(5)
    hidden = _normal(generator, len(choice), 9, dtype=dtype)
    output = _normal(generator, vocabulary.n_tokens, 9, dtype=dtype)
    bias = _normal(generator, vocabulary.host_offsets()[-1], dtype=dtype) if has_bias else None
    sizes = vocabulary.offsets[1:] - vocabulary.offsets[:-1]
    targets = (torch.rand(len(choice), generator=generator) * sizes[choice]).long()
    return route(choice, n_modules=n_modules), vocabulary, hidden, targets, output, bias


@pytest.mark.parametrize(("backend", "dtype"), CASES)
@given(data=st.data(), has_bias=st.booleans())
@QUICK
def test_xent_matches_reference(backend, dtype, data, has_bias):
    plan, vocabulary, hidden, targets, output, bias = _xent_case(data, dtype, has_bias)
    got = ragged_softmax_xent(hidden, targets, output, bias, vocabulary, plan, backend=backend)
    h2, o2, b2 = (None if t is None else t.detach().double().requires_grad_() for t in (hidden, output, bias))
    want = ragged_softmax_xent(h2, targets, o2, b2, vocabulary, plan, backend="reference")
    tolerance = 1e-10 if dtype == torch.float64 else 1e-4
    torch.testing.assert_close(got.double(), want, rtol=tolerance, atol=tolerance)
    for a, b in zip(_grads(got, [hidden, output, bias]), _grads(want, [h2, o2, b2]), strict=True):
        torch.testing.assert_close(a.double(), b, rtol=tolerance, atol=tolerance * 10)


@given(data=st.data())
@settings(max_examples=15, deadline=None)
def test_xent_in_bfloat16_stays_near(data):
    plan, vocabulary, hidden, targets, output, bias = _xent_case(data, torch.float32, True)
    got = ragged_softmax_xent(hidden, targets, output, bias, vocabulary, plan, precision="bfloat16")
    want = ragged_softmax_xent(hidden, targets, output, bias, vocabulary, plan, backend="reference")
    torch.testing.assert_close(got, want, rtol=2e-2, atol=8e-2)
    for a, b in zip(_grads(got, [hidden, output, bias]), _grads(want, [hidden, output, bias]), strict=True):
        if b.numel():
            assert float((a - b).norm()) <= 0.05 * float(b.norm()) + 5e-3


def test_xent_second_backward_gives_the_same():
    vocabulary = Vocabulary.of([[0, 2], [1, 2, 3]], 4)
    plan = route(torch.tensor([1, 0, 1]), n_modules=2)
    hidden = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    output = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    loss = ragged_softmax_xent(hidden, torch.tensor([2, 0, 1]), output, None, vocabulary, plan, backend="torch").sum()
    first = torch.autograd.grad(loss, [hidden, output], retain_graph=True)
    second = torch.autograd.grad(loss, [hidden, output])
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a, b)


def test_xent_recomputes_when_probabilities_are_too_large_to_keep(monkeypatch):
    from kernels import torch_xent

    generator = torch.Generator().manual_seed(0)
    vocabulary = Vocabulary.of([range(30), range(5, 60)], 64)
    plan = route(torch.randint(0, 2, (50,), generator=generator), n_modules=2)
    hidden = torch.randn(50, 8, generator=generator, requires_grad=True)
    output = torch.randn(64, 8, generator=generator, requires_grad=True)
    targets = torch.randint(0, 30, (50,), generator=generator)

    def run():
        loss = ragged_softmax_xent(hidden, targets, output, None, vocabulary, plan, backend="torch")
        return loss, *torch.autograd.grad(loss.sum(), [hidden, output])

    kept = run()
    monkeypatch.setattr(torch_xent, "SAVE_BYTES", 0)
    for a, b in zip(kept, run(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("backend", OTHERS)
def test_two_runs_are_bitwise_equal(backend):
    generator = torch.Generator().manual_seed(0)
    choice = torch.randint(0, 40, (3000,), generator=generator)
    vocabulary = Vocabulary.of([torch.randperm(500, generator=generator)[: 20 + 9 * m] for m in range(40)], 500)
    x = torch.randn(3000, 24, generator=generator, requires_grad=True)
    shapes = [(40, 24, 33), (40, 33, 16)]
    weights = [torch.randn(s, generator=generator, requires_grad=True) for s in shapes]
    biases = [torch.randn(s[0], s[2], generator=generator, requires_grad=True) for s in shapes]
    output = torch.randn(500, 16, generator=generator, requires_grad=True)
    targets = torch.randint(0, 20, (3000,), generator=generator)

    def run():
        plan = route(choice, n_modules=40)
        hidden = ragged_mlp(x, weights, biases, plan, "gelu", backend=backend)
        loss = ragged_softmax_xent(hidden, targets, output, None, vocabulary, plan, backend=backend)
        return loss, *torch.autograd.grad(loss.mean(), [x, *weights, *biases, output])

    for a, b in zip(run(), run(), strict=True):
        assert torch.equal(a, b)
