"""What is special about the CPU backend: shares of threads, several tiles per module, the choice against torch."""

from __future__ import annotations

import pytest
import torch

from kernels import AdamState, MLPStack, explain, ragged_mlp, route, threads, train_step_
from kernels import cpu_backend as cpu


def _data(n_rows, n_modules, seed=0):
    generator = torch.Generator().manual_seed(seed)
    choice = torch.randint(0, n_modules, (n_rows,), generator=generator)
    x = torch.randn(n_rows, 20, generator=generator)
    targets = torch.rand(n_rows, 5, generator=generator)
    return route(choice, n_modules=n_modules), x, targets


@pytest.mark.parametrize("n_modules", [1, 3, 40])
@pytest.mark.parametrize(("loss", "activation"), [("mse", "gelu"), ("logistic", "relu"), ("softmax", "silu")])
def test_steps_agree_with_torch_over_several_tiles(n_modules, loss, activation):
    results = []
    for backend in ("cpu", "torch"):
        stacked = MLPStack.init(n_modules, (20, 24, 11, 5), activation, seed=4)
        state = AdamState.of(stacked.params)
        for seed in range(3):
            plan, x, targets = _data(500, n_modules, seed)
            goal = targets.argmax(1) if loss == "softmax" else targets
            losses = train_step_(x, goal, stacked, plan, state, 0.01, loss=loss, backend=backend)
        results.append((losses, *stacked.params, *state.first, *state.second))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=2e-5)


def test_results_do_not_depend_on_the_number_of_threads(monkeypatch):
    stacked = MLPStack.init(40, (20, 32, 5), seed=1)
    results = []
    for parts in (1, 2, 7, 40):
        plan, x, _ = _data(700, 40)
        work = plan.offsets.numpy() * parts // 701
        borders = [0, *(int((work < part).sum()) for part in range(1, parts)), 40]
        monkeypatch.setattr(cpu, "_borders", lambda plan, widths, b=tuple(borders): cpu.np.array(b, dtype="int64"))
        inputs = [t.detach().clone().requires_grad_() for t in (x, *stacked.params)]
        y = ragged_mlp(inputs[0], inputs[1::2], inputs[2::2], plan, "gelu", backend="cpu")
        results.append((y, *torch.autograd.grad(y.square().sum(), inputs)))
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            assert torch.equal(a, b)


def test_borders_share_the_work(monkeypatch):
    monkeypatch.setattr(threads.torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(threads.numba, "get_num_threads", lambda: 2)
    plan = route(torch.cat([torch.zeros(5000, dtype=torch.int64), torch.arange(5000) % 500]), n_modules=500)
    borders = cpu._borders(plan, [32, 32, 8])
    assert borders.tolist()[0] == 0 and borders.tolist()[-1] == 500 and len(borders) == 3
    first = int(plan.offsets[int(borders[1])])
    assert 4000 < first < 6500


def test_a_diverged_module_shows_it_and_stays_alone():
    stacked = MLPStack.init(3, (20, 8, 5), "silu")
    stacked.weights[0][1, 0, 0] = float("nan")
    plan, x, targets = _data(60, 3)
    losses = train_step_(x, targets, stacked, plan, AdamState.of(stacked.params), 0.01, backend="cpu")
    choice = torch.empty(60, dtype=torch.int64)
    choice[plan.order.long()] = torch.repeat_interleave(torch.arange(3), plan.counts.long())
    assert losses[choice == 1].isnan().all() and losses[choice != 1].isfinite().all()
    assert stacked.weights[0][[0, 2]].isfinite().all()


def test_the_choice_falls_on_torch_where_one_module_has_the_rows():
    even = route(torch.arange(2000) % 50, n_modules=50)
    skewed = route(torch.zeros(2000, dtype=torch.int64), n_modules=50)
    weight = torch.zeros(50, 4, 4)
    assert explain(even, [weight]).startswith("cpu: float32 on the CPU")
    assert explain(skewed, [weight]).startswith("torch: one module has 100% of the rows")
    assert explain(even, [weight.double()]).startswith(
        "torch: cpu cannot take it (it takes float32 on the CPU, not torch.float64"
    )


def test_parameters_that_cannot_be_updated_in_place_are_refused():
    stacked = MLPStack.init(3, (20, 8, 5))
    stacked.weights[0] = stacked.weights[0].transpose(1, 2).contiguous().transpose(1, 2)
    plan, x, targets = _data(60, 3)
    with pytest.raises(ValueError, match="must be contiguous"):
        train_step_(x, targets, stacked, plan, AdamState.of(stacked.params), 0.01, backend="cpu")
