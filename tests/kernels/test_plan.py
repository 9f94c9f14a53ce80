"""The plan's order, borders, inverse and tiles."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels import Vocabulary, route
from kernels.checks import row_modules


@given(
    choice=st.lists(st.integers(0, 8), max_size=120),
    spare=st.integers(0, 5),
    tile=st.sampled_from([1, 4, 16, 64]),
    k=st.sampled_from([1, 2]),
)
@settings(max_examples=150, deadline=None)
def test_plan_holds_its_promises(choice, spare, tile, k):
    n_modules = 9 + spare
    rows = torch.tensor(choice[: len(choice) // k * k], dtype=torch.int64).reshape(-1, k)
    plan = route(rows if k > 1 else rows[:, 0], n_modules=n_modules)
    flat = rows.reshape(-1)
    order, offsets = plan.order.long(), plan.offsets.tolist()
    assert torch.equal(flat[order], flat.sort(stable=True).values)
    assert torch.equal(order[plan.inverse.long()], torch.arange(len(flat)))
    assert torch.equal(plan.rows.long(), order // k)
    assert torch.equal(row_modules(plan).long(), flat)
    assert plan.counts.tolist() == torch.bincount(flat, minlength=n_modules).tolist()
    assert offsets[0] == 0 and offsets[-1] == len(flat)
    for m in range(n_modules):
        inside = order[offsets[m] : offsets[m + 1]]
        assert torch.equal(inside, inside.sort().values), "rows of a module keep their order"
    module, start = plan.tiles(tile)
    assert len(module) == plan.tile_bound(tile)
    covered = []
    for m, s in zip(module.tolist(), start.tolist(), strict=True):
        if m < n_modules:
            covered += range(s, min(s + tile, offsets[m + 1]))
            assert s >= offsets[m]
        else:
            assert s == len(flat)
    assert covered == list(range(len(flat))), "tiles cover every position once, in order"


@pytest.mark.parametrize(
    ("choice", "gate", "n_modules", "error", "says"),
    [
        (torch.tensor([0, 5]), None, 5, IndexError, "choice 5 is out of range: there are 5 modules"),
        (torch.tensor([0, -1]), None, 5, IndexError, "choice -1 is out of range"),
        (torch.tensor([0.0]), None, 5, TypeError, "choice must be an integer tensor"),
        ([0, 1], None, 5, TypeError, "not list"),
        (torch.zeros(2, 2, 2, dtype=torch.int64), None, 5, ValueError, "rows, choices"),
        (torch.zeros(2, dtype=torch.int64), None, None, ValueError, "n_modules must be given"),
        (torch.zeros(2, dtype=torch.int64), None, 0, ValueError, "at least 1"),
        (torch.zeros(2, dtype=torch.int64), torch.ones(3), 5, ValueError, "gate must be"),
    ],
)
def test_route_refuses(choice, gate, n_modules, error, says):
    with pytest.raises(error, match=says):
        route(choice, gate, n_modules)


def test_vocabulary_locates_tokens():
    vocabulary = Vocabulary.of([[7, 2], [], [2, 0, 5]], 8)
    module, token = torch.tensor([0, 0, 1, 2, 2, 2]), torch.tensor([2, 5, 2, 2, 5, 7])
    assert vocabulary.locate(module, token).tolist() == [1, -1, -1, 0, 2, -1]


@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (lambda: Vocabulary.of([[1, 1]], 4), ValueError, "token 1 occurs twice in the vocabulary of module 0"),
        (lambda: Vocabulary.of([[4]], 4), IndexError, "0 .. 3"),
        (lambda: Vocabulary(torch.tensor([0, 2, 1]), None, 1), ValueError, "never fall"),
        (lambda: Vocabulary(torch.tensor([0, 2]), None, 3), ValueError, "n_tokens is 3"),
        (lambda: Vocabulary(torch.tensor([0, 2]), torch.tensor([0, 1]), 3), TypeError, "int32"),
    ],
)
def test_vocabulary_refuses(make, error, says):
    with pytest.raises(error, match=says):
        make()
