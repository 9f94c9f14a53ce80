"""The Triton kernels in Triton's interpreter, against the reference. Run by test_triton.py in a process of its own."""

from __future__ import annotations

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from kernels import (
    AdamRule,
    AdamState,
    MLPStack,
    Vocabulary,
    explain,
    first_use,
    module_cnn,
    ragged_linear,
    ragged_mlp,
    ragged_softmax_xent,
    route,
    train_step_,
)

TOLERANCE = {torch.float32: 1e-5, torch.float16: 2e-2}
# No shrinking: one case takes the interpreter seconds.
QUICK = settings(max_examples=12, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])


@st.composite
def raggeds(draw):
    n_modules = draw(st.sampled_from([1, 3, 20]))
    n_rows, k = draw(st.sampled_from([0, 1, 17, 70])), draw(st.sampled_from([1, 2]))
    top = draw(st.sampled_from([1, n_modules]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    choice = torch.randint(0, top, (n_rows, k), generator=generator)
    return choice if k > 1 else choice[:, 0], n_modules


def _normal(generator, *sizes, dtype, scale=1.0):
    return (torch.randn(*sizes, generator=generator) * scale).to(dtype).requires_grad_()


def _close(ours, theirs, dtype):
    """By norm: a half-precision number alone may be off by more, where larger ones cancelled in it."""
    assert ours.shape == theirs.shape and ours.dtype == dtype
    gap, size = float((ours.double() - theirs).detach().norm()), float(theirs.detach().norm())
    assert gap <= TOLERANCE[dtype] * (size + 1), (gap, size)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@given(
    ragged=raggeds(),
    # 130 is wider than the fused kernel takes: that network runs layer by layer
    widths=st.lists(st.sampled_from([1, 5, 16, 33, 130]), min_size=2, max_size=5),
    activation=st.sampled_from(["relu", "gelu", "silu"]),
    gated=st.booleans(),
)
@QUICK
def test_network_matches_reference(dtype, ragged, widths, activation, gated):
    # The kink of ReLU makes a rounding error at 0 a whole gradient: in half precision only the smooth ones.
    activation = "silu" if activation == "relu" and dtype == torch.float16 else activation
    choice, n_modules = ragged
    generator = torch.Generator().manual_seed(0)
    x = _normal(generator, len(choice), widths[0], dtype=dtype)
    shapes = list(zip(widths, widths[1:], strict=False))
    weights = [_normal(generator, n_modules, a, b, dtype=dtype, scale=a**-0.5) for a, b in shapes]
    biases = [None if i == 0 else _normal(generator, n_modules, b, dtype=dtype) for i, (_, b) in enumerate(shapes)]
    gate = _normal(generator, *choice.shape, dtype=dtype) if gated and len(weights) > 1 else None

    def run(backend, x, gate, weights, biases):
        plan = route(choice, gate, n_modules)
        if len(weights) == 1:
            return ragged_linear(x, weights[0], biases[0], plan, backend=backend)
        return ragged_mlp(x, weights, biases, plan, activation, backend=backend)

    def twin(t):
        return None if t is None else t.detach().double().requires_grad_()

    ours = x, gate, weights, biases
    theirs = twin(x), twin(gate), [twin(w) for w in weights], [twin(b) for b in biases]
    got, want = run("triton", *ours), run("reference", *theirs)
    _close(got, want, dtype)
    mix = torch.randn(want.shape, generator=generator, dtype=torch.float64)
    flat = [[t for t in (a, b, *c, *d) if t is not None] for a, b, c, d in (ours, theirs)]
    found = torch.autograd.grad((got * mix.to(dtype)).sum(), flat[0])
    expected = torch.autograd.grad((want * mix).sum(), flat[1])
    for a, b in zip(found, expected, strict=True):
        _close(a, b, dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@given(
    sizes=st.lists(st.sampled_from([1, 2, 31, 70]), min_size=1, max_size=4),
    n_rows=st.sampled_from([0, 1, 17, 70]),
    width=st.sampled_from([1, 5, 16, 100]),
    shared=st.booleans(),
    has_bias=st.booleans(),
    seed=st.integers(0, 2**31),
)
@QUICK
def test_loss_matches_reference(dtype, sizes, n_rows, width, shared, has_bias, seed):
    generator = torch.Generator().manual_seed(seed)
    n_modules = len(sizes)
    lists = [torch.randperm(80, generator=generator)[:n] for n in sizes]
    vocabulary = Vocabulary.of(lists, 80) if shared else Vocabulary.own(sizes)
    choice = torch.randint(0, n_modules, (n_rows,), generator=generator) // 2 * 2  # odd modules have no rows
    targets = (torch.rand(n_rows, generator=generator) * torch.tensor(sizes)[choice]).long()
    hidden = _normal(generator, n_rows, width, dtype=dtype)
    output = _normal(generator, vocabulary.n_tokens, width, dtype=dtype, scale=2 * width**-0.5)
    bias = _normal(generator, sum(sizes), dtype=dtype) if has_bias else None
    ours = [t for t in (hidden, output, bias) if t is not None]
    theirs = [t.detach().double().requires_grad_() for t in ours]
    plan = route(choice, n_modules=n_modules)
    rest = vocabulary, plan
    got = ragged_softmax_xent(hidden, targets, output, bias, *rest, backend="triton")
    double = theirs if has_bias else [*theirs, None]
    want = ragged_softmax_xent(double[0], targets, double[1], double[2], *rest, backend="reference")
    _close(got, want, dtype)
    mix = torch.randn(n_rows, generator=generator, dtype=torch.float64)
    found = torch.autograd.grad((got * mix.to(dtype)).sum(), ours)
    for a, b in zip(found, torch.autograd.grad((want * mix).sum(), theirs), strict=True):
        _close(a, b, dtype)
    again = ragged_softmax_xent(hidden, targets, output, bias, *rest, backend="triton")
    assert torch.equal(again, got)
    assert all(map(torch.equal, torch.autograd.grad((again * mix.to(dtype)).sum(), ours), found))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@given(
    n_modules=st.sampled_from([1, 3]),
    channels=st.tuples(*[st.sampled_from([1, 3, 40])] * 4),
    kernels=st.tuples(*[st.sampled_from([1, 3, 5])] * 3),
    strides=st.tuples(*[st.sampled_from([1, 2])] * 3),
    size=st.tuples(st.sampled_from([1, 7]), st.sampled_from([3, 9])),
    shared=st.booleans(),
    has_bias=st.booleans(),
)
@settings(QUICK, max_examples=6)
def test_feature_nodes_match_reference(dtype, n_modules, channels, kernels, strides, size, shared, has_bias):
    generator = torch.Generator().manual_seed(0)
    images = _normal(generator, 2, *([] if shared else [n_modules]), channels[0], *size, dtype=dtype)
    shapes = zip(channels[1:], channels, kernels, strict=False)
    weights = [
        _normal(generator, n_modules, o, i, k, k, dtype=dtype, scale=1 / (i * k * k) ** 0.5) for o, i, k in shapes
    ]
    biases = [_normal(generator, n_modules, c, dtype=dtype) if has_bias else None for c in channels[1:]]
    got = module_cnn(images, weights, biases, strides=strides, activation="silu", backend="triton")
    exact = [w.detach().double() for w in weights], [None if b is None else b.detach().double() for b in biases]
    want = module_cnn(images.detach().double(), *exact, strides=strides, activation="silu", backend="reference")
    _close(got, want, dtype)
    if dtype == torch.float32:
        plain = module_cnn(images, weights, biases, strides=strides, activation="silu", backend="torch")
        inputs = [images, *weights, *(b for b in biases if b is not None)]
        for a, b in zip(*(torch.autograd.grad(y.square().sum(), inputs) for y in (got, plain)), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def test_every_result_is_written_over_poison(monkeypatch):
    """Results are made in memory full of NaN: a number that no program writes would show."""
    generator = torch.Generator().manual_seed(0)
    choice = torch.randint(0, 3, (50,), generator=generator) * 2  # modules 1, 3, 5 and 6 have no rows
    plan = route(choice, n_modules=7)
    plan.tiles(16)

    def poison(owner, name):
        plain = getattr(owner, name)

        def poisoned(*args, **options):
            made = plain(*args, **options)
            return made.fill_(float("nan")) if made.is_floating_point() else made

        monkeypatch.setattr(owner, name, poisoned)

    poison(torch.Tensor, "new_empty")
    poison(torch, "empty_like")
    for widths in ((5, 20, 3), (5, 140, 3)):
        x = _normal(generator, 50, 5, dtype=torch.float32)
        weights = [_normal(generator, 7, a, b, dtype=torch.float32) for a, b in zip(widths, widths[1:], strict=False)]
        biases = [_normal(generator, 7, b, dtype=torch.float32) for b in widths[1:]]
        y = ragged_mlp(x, weights, biases, plan, "silu", backend="triton")
        grads = torch.autograd.grad(y.sum(), [x, *weights, *biases])
        assert y.isfinite().all() and all(g.isfinite().all() for g in grads)
        assert all((g[[1, 3, 5, 6]] == 0).all() for g in grads[1:])


@pytest.mark.parametrize(
    ("loss", "widths"), [("mse", (9, 12, 4)), ("softmax", (9, 70, 33, 4)), ("logistic", (5, 3, 1))]
)
def test_training_step_matches_the_cpu_backend(loss, widths):
    """Modules that a batch leaves out keep every bit, and a module's own steps count for its bias correction."""
    results, rule = [], AdamRule(0.8, 0.99, 1e-7, 0.05)
    for backend in ("triton", "cpu"):
        stacked = MLPStack.init(6, widths, "gelu", seed=1)
        state = AdamState.of(stacked.params)
        generator = torch.Generator().manual_seed(0)
        rates = torch.linspace(0.001, 0.02, 6, dtype=torch.float64)
        for _ in range(3):
            plan = route(torch.randint(0, 5, (40,), generator=generator) // 2 * 2, n_modules=6)
            before = [t.clone() for t in stacked.params]
            x, y = torch.randn(40, widths[0], generator=generator), torch.rand(40, widths[-1], generator=generator)
            goal = torch.randint(0, widths[-1], (40,), generator=generator) if loss == "softmax" else y
            losses = train_step_(x, goal, stacked, plan, state, rates, loss=loss, rule=rule, backend=backend)
            for old, new in zip(before, stacked.params, strict=True):
                assert torch.equal(old[~plan.touched], new[~plan.touched])
        results.append((losses, state.step, *stacked.params, *state.first, *state.second))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("operation", list(first_use.CHECKS))
def test_the_check_of_a_first_use_passes(operation, dtype):
    """Here the interpreter stands for the GPU: what the check compares is equal to well within what it allows."""
    assert first_use.failure(operation, torch.device("cpu"), dtype) == ""
    seen = 0
    for name, got, want, precision in first_use.CHECKS[operation](torch.device("cpu"), dtype):
        if got is not None and want is not None:
            gap = float((got.double() - want).norm() / want.double().norm())
            assert gap < first_use.TOLERANCE[precision] / 3, (name, gap)
            seen += 1
    assert seen > 4


def test_the_check_of_a_first_use_finds_wrong_products(monkeypatch):
    """The interpreter's bfloat16 products are wrong: a kernel that really fails does not pass."""
    monkeypatch.setattr(first_use, "interpreted", lambda: False)
    monkeypatch.setattr(first_use, "_found", {})
    with pytest.warns(RuntimeWarning, match="ragged_softmax_xent: its Triton kernels failed their check on cpu"):
        assert "loss differs by" in first_use.failure("xent", torch.device("cpu"), torch.float32)


def test_refusals():
    plan = route(torch.tensor([0, 1]), n_modules=2)
    x, weight = torch.zeros(2, 4), torch.zeros(2, 4, 4)
    with pytest.raises(ValueError, match="backend triton .* cannot take this: it takes float32, bfloat16 or float16"):
        ragged_linear(x.double(), weight.double(), None, plan, backend="triton")
    with pytest.raises(ValueError, match="the interpreter's bfloat16 products are wrong"):
        ragged_linear(x.bfloat16(), weight.bfloat16(), None, plan, backend="triton")
    told = explain(plan, [weight], "triton")
    assert told.startswith("triton: asked for by argument") and told.endswith("nobody has run them on a GPU yet")
