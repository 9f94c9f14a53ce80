"""Stacked training against the same networks trained one by one with torch.optim."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from kernels import AdamRule, AdamState, MLPStack, adam, adam_step_, route, stack, train_step_, unstack

LOSS = {
    "mse": lambda y, t: F.mse_loss(y, t),
    "logistic": lambda y, t: F.binary_cross_entropy_with_logits(y, t),
    "softmax": lambda y, t: F.cross_entropy(y, t),
}


def _modules(n, activation: type[nn.Module] = nn.SiLU, bias=True, dtype=torch.float64):
    torch.manual_seed(0)
    return [nn.Sequential(nn.Linear(5, 9, bias=bias), activation(), nn.Linear(9, 3)).to(dtype) for _ in range(n)]


@pytest.mark.parametrize("backend", ["reference", "torch", "cpu"])
@pytest.mark.parametrize("loss", ["mse", "logistic", "softmax"])
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_step_equals_separate_trainings(backend, loss, decay):
    dtype = torch.float32 if backend == "cpu" else torch.float64
    modules = _modules(6, dtype=dtype)
    stacked = stack(modules)
    state = AdamState.of(stacked.params)
    rates = torch.linspace(0.001, 0.05, 6, dtype=torch.float64)
    alone = [
        torch.optim.AdamW(m.parameters(), lr=float(r), betas=(0.8, 0.99), eps=1e-7, weight_decay=decay)
        for m, r in zip(modules, rates, strict=True)
    ]
    generator = torch.Generator().manual_seed(1)
    for _ in range(5):
        choice = torch.randint(0, 4, (30,), generator=generator) * 2 % 6  # module 1, 3, 5 never; others in turn
        x = torch.randn(30, 5, generator=generator, dtype=dtype)
        if loss == "softmax":
            targets = torch.randint(0, 3, (30,), generator=generator)
        else:
            targets = torch.rand(30, 3, generator=generator, dtype=dtype)
        rule = AdamRule(0.8, 0.99, 1e-7, decay)
        plan = route(choice, n_modules=6)
        losses = train_step_(x, targets, stacked, plan, state, rates, loss=loss, rule=rule, backend=backend)
        for m, (module, optimizer) in enumerate(zip(modules, alone, strict=True)):
            mine = choice == m
            if not mine.any():
                continue
            own = LOSS[loss](module(x[mine]), targets[mine])
            torch.testing.assert_close(losses[mine].mean(), own)
            optimizer.zero_grad()
            own.backward()
            optimizer.step()
    tolerance = 1e-11 if dtype == torch.float64 else 2e-5
    for got, want in zip(unstack(stacked), modules, strict=True):
        for a, b in zip(got.parameters(), want.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9 if dtype == torch.float64 else 2e-4, atol=tolerance)


@pytest.mark.parametrize("backend", ["reference", "torch", "cpu"])
def test_untouched_modules_do_not_move(backend):
    stacked = MLPStack.init(8, (4, 6, 2), seed=3)
    state = AdamState.of(stacked.params)
    everyone = route(torch.arange(8), n_modules=8)
    train_step_(torch.randn(8, 4), torch.randn(8, 2), stacked, everyone, state, 0.01, backend=backend)
    before = [t.clone() for t in (*stacked.params, *state.first, *state.second, state.step)]
    plan = route(torch.tensor([2, 5, 2]), n_modules=8)
    train_step_(torch.randn(3, 4), torch.randn(3, 2), stacked, plan, state, 0.01, backend=backend)
    touched = torch.tensor([m in (2, 5) for m in range(8)])
    for old, new in zip(before, (*stacked.params, *state.first, *state.second, state.step), strict=True):
        same = (old == new).reshape(8, -1).all(1)
        assert torch.equal(same, ~touched)
    empty = route(torch.empty(0, dtype=torch.int64), n_modules=8)
    again = [t.clone() for t in stacked.params]
    train_step_(torch.empty(0, 4), torch.empty(0, 2), stacked, empty, state, 0.01, backend=backend)
    assert all(torch.equal(a, b) for a, b in zip(again, stacked.params, strict=True))


def test_a_bad_gradient_of_an_inactive_module_stays_out():
    param, grad = torch.ones(3, 2), torch.full((3, 2), float("nan"))
    grad[1] = 1.0
    state = AdamState.of([param])
    adam_step_([param], [grad], state, 0.1, active=torch.tensor([False, True, False]))
    assert param.isfinite().all() and float(param[1, 0]) == pytest.approx(0.9) and float(param[0, 0]) == 1.0
    assert state.step.tolist() == [0, 1, 0]


def test_stack_round_trip_and_refusals():
    modules = _modules(3, nn.GELU, bias=False)
    stacked = stack(modules)
    assert stacked.activation == "gelu" and stacked.biases[0] is None and stacked.n_modules == 3
    x = torch.randn(4, 5, dtype=torch.float64)
    for got, want in zip(unstack(stacked), modules, strict=True):
        assert torch.equal(got(x), want(x))
    with pytest.raises(ValueError, match="module 1 differs from module 0"):
        stack([modules[0], nn.Sequential(nn.Linear(5, 8), nn.GELU(), nn.Linear(8, 3))])
    with pytest.raises(TypeError, match="Linear, activation, Linear"):
        stack([nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3))])
    with pytest.raises(TypeError, match="exact GELU"):
        stack([nn.Sequential(nn.Linear(5, 8), nn.GELU(approximate="tanh"), nn.Linear(8, 3))])
    with pytest.raises(ValueError, match="at least one"):
        stack([])


@pytest.mark.parametrize("weight_decay", [0.0, 0.2])
@pytest.mark.parametrize("shape", [(1, 70_001), (37, 3000), (5, 1, 3), (3, 0)])
def test_fused_update_equals_the_definition(shape, weight_decay, monkeypatch):
    """Odd sizes, so that the threads' ranges begin in the middle of a module."""
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(shape, generator=generator)
    rates = torch.rand(shape[0], generator=generator) * 0.1
    rule = AdamRule(0.9, 0.98, 1e-6, weight_decay)
    fused, plain = start.clone(), start.double()
    states = AdamState.of([fused]), AdamState.of([plain])
    for index in range(4):
        grad = torch.randn(shape, generator=generator)
        active = torch.arange(shape[0]) % 3 != index % 3 if shape[0] > 1 else None
        adam_step_([fused], [grad], states[0], rates, active=active, rule=rule)
        adam_step_([plain], [grad.double()], states[1], rates, active=active, rule=rule)
    torch.testing.assert_close(fused.double(), plain, rtol=1e-5, atol=1e-5)
    assert torch.equal(states[0].step, states[1].step)


def test_fused_update_does_not_depend_on_threads(monkeypatch):
    results = []
    for per_thread in (1, 1 << 30):
        monkeypatch.setattr(adam, "FUSED_PER_THREAD", per_thread)
        generator = torch.Generator().manual_seed(0)
        param, grad = torch.randn(7, 999, generator=generator), torch.randn(7, 999, generator=generator)
        adam_step_([param], [grad], AdamState.of([param]), 0.01)
        results.append(param)
    assert torch.equal(*results)
