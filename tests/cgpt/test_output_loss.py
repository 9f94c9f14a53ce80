"""The blockwise loss is the plain one: value and both gradients."""

from __future__ import annotations

import pytest
import torch

from cgpt.output_loss import BLOCK_ROWS, UNIT_ROWS, output_loss


def plain(hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.cross_entropy((hidden @ weight.to(hidden.dtype).T).float(), targets)


@pytest.mark.parametrize("rows", [1, BLOCK_ROWS - 1, BLOCK_ROWS, 2 * BLOCK_ROWS + 3, UNIT_ROWS + 3])
@pytest.mark.parametrize(("tokens", "width"), [(50, 16), (128, 64)])  # the latter suits a matrix unit
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-6), (torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_value_and_gradients_are_those_of_cross_entropy(
    rows: int, tokens: int, width: int, dtype: torch.dtype, tolerance: float
) -> None:
    generator = torch.Generator().manual_seed(rows)
    hidden = torch.randn(rows, width, generator=generator).to(dtype)
    weight = torch.randn(tokens, width, generator=generator).to(
        torch.float64 if dtype == torch.float64 else torch.float32
    )
    targets = torch.randint(0, tokens, (rows,), generator=generator)
    results = []
    for function in (plain, output_loss):
        x, w = hidden.clone().requires_grad_(), weight.clone().requires_grad_()
        loss = 3 * function(x, w, targets)  # scaled: the incoming gradient must not be taken for 1
        loss.backward()
        assert x.grad is not None and w.grad is not None and x.grad.dtype == x.dtype and w.grad.dtype == w.dtype
        results.append((loss.detach().double(), x.grad.double(), w.grad.double()))
    for expected, got in zip(*results, strict=True):
        scale = float(expected.abs().max())
        assert float((expected - got).abs().max()) <= tolerance * scale
