"""The Triton kernels in Triton's interpreter, against the reference. Run by test_triton.py in a process of its own."""

from __future__ import annotations

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from kernels import AdamState, MLPStack, explain, ragged_linear, ragged_mlp, route, train_step_

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


def test_training_step_matches_the_cpu_backend():
    results = []
    for backend in ("triton", "cpu"):
        stacked = MLPStack.init(6, (9, 12, 4), "gelu", seed=1)
        state = AdamState.of(stacked.params)
        generator = torch.Generator().manual_seed(0)
        for _ in range(2):
            plan = route(torch.randint(0, 5, (40,), generator=generator), n_modules=6)
            x, y = torch.randn(40, 9, generator=generator), torch.randn(40, 4, generator=generator)
            losses = train_step_(x, y, stacked, plan, state, 0.01, backend=backend)
        results.append((losses, *stacked.params))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


def test_refusals():
    plan = route(torch.tensor([0, 1]), n_modules=2)
    x, weight = torch.zeros(2, 4), torch.zeros(2, 4, 4)
    with pytest.raises(ValueError, match="backend triton .* cannot take this: it takes float32, bfloat16 or float16"):
        ragged_linear(x.double(), weight.double(), None, plan, backend="triton")
    with pytest.raises(ValueError, match="the interpreter's bfloat16 products are wrong"):
        ragged_linear(x.bfloat16(), weight.bfloat16(), None, plan, backend="triton")
    assert explain(plan, [weight], "triton").startswith("triton: asked for by argument")
