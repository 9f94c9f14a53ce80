"""Cross-entropy of an output layer, block by block, so that the logits of a whole batch never exist.

With 8,192 tokens the logits of a batch are 40 times larger than what they are made from, and reading and writing
them took half of a training step. Here a block of rows passes through product, softmax and both gradients while it
is in the cache (the idea of Liger-Kernel's fused linear cross-entropy).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from kernels import numba_amx
from kernels.threads import threads_for
from kernels.torch_xent import SMALL_WORK

# Measured on a Xeon, one thread, 4,096 rows, width 192, 8,192 tokens, bfloat16: 137 ms; of 128 rows 167, of 512 177.
BLOCK_ROWS = 256
UNIT_ROWS = 1024  # on the matrix unit, which prepares the weight for every block


class _OutputLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        if hidden.dtype == torch.bfloat16 and hidden.device.type == "cpu" and numba_amx.takes(*weight.shape):
            return _on_matrix_unit(ctx, hidden, weight, targets)
        matrix = weight.to(hidden.dtype)  # [V, D]
        total = torch.zeros((), dtype=torch.float32)
        hidden_gradient = torch.empty_like(hidden)
        weight_gradient = torch.zeros_like(weight, dtype=torch.float32)
        # The same memory for every block: fresh pages took a quarter of the time.
        products = hidden.new_empty(min(BLOCK_ROWS, len(hidden)), len(weight))
        logits_of_block = torch.empty(products.shape, dtype=torch.float32)
        part = torch.empty_like(matrix)
        for block, right, gradient in zip(
            hidden.split(BLOCK_ROWS), targets.split(BLOCK_ROWS), hidden_gradient.split(BLOCK_ROWS), strict=True
        ):
            rows = torch.arange(len(block))
            product = torch.mm(block, matrix.T, out=products[: len(block)])
            logits = logits_of_block[: len(block)].copy_(product)
            highest, wanted = logits.amax(-1, keepdim=True), logits[rows, right]
            powers = logits.sub_(highest).exp_()
            sums = powers.sum(-1, keepdim=True)
            total += ((highest + sums.log())[:, 0] - wanted).sum()
            difference = torch.div(powers, sums, out=product)
            difference[rows, right] -= 1.0  # now the gradient with respect to the logits
            torch.mm(difference, matrix, out=gradient)
            weight_gradient += torch.mm(difference.T, block, out=part)
        ctx.save_for_backward(hidden_gradient, weight_gradient)
        ctx.weight_type = weight.dtype
        return total / len(hidden)

    @staticmethod
    def backward(ctx: Any, *outputs: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        hidden_gradient, weight_gradient = ctx.saved_tensors
        scale = outputs[0] / len(hidden_gradient)
        return hidden_gradient * scale.to(hidden_gradient.dtype), (weight_gradient * scale).to(ctx.weight_type), None


def _on_matrix_unit(ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """`_OutputLoss.forward` with product and softmax in one compiled pass; what leaves it is half as wide as logits."""
    from kernels import numba_amx_xent

    matrix, table = weight.bfloat16(), weight.detach().float().contiguous().numpy()
    bias, losses = np.zeros(len(weight), np.float32), np.empty(len(hidden), np.float32)
    hidden_gradient = torch.empty_like(hidden)
    weight_gradient = torch.zeros_like(weight, dtype=torch.float32)
    excess, part = torch.empty(min(UNIT_ROWS, len(hidden)), len(weight), dtype=torch.bfloat16), torch.empty_like(matrix)
    for first in range(0, len(hidden), UNIT_ROWS):
        rows = slice(first, min(first + UNIT_ROWS, len(hidden)))
        block, difference = hidden[rows].detach(), excess[: rows.stop - first]
        numba_amx_xent.excess_of_product(
            block.float().contiguous().numpy(), table, bias, targets[rows].contiguous().numpy(), losses[rows],
            difference.view(torch.int16).numpy().view("uint16"), threads_for(len(block) * table.size, SMALL_WORK),
        )  # fmt: skip
        torch.mm(difference, matrix, out=hidden_gradient[rows])
        weight_gradient += torch.mm(difference.T, block, out=part)
    ctx.save_for_backward(hidden_gradient, weight_gradient)
    ctx.weight_type = weight.dtype
    return torch.tensor(losses.mean(dtype=np.float64), dtype=torch.float32)


def output_loss(hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy, in nats, of `softmax(hidden @ weight.T)` at the targets; float32 scalar.

    Args:
        hidden: [rows, width], float32 or bfloat16 (then products are bfloat16, softmax and sums float32).
        weight: [vocabulary, width], of the output layer.
        targets: int64[rows].
    """
    return _OutputLoss.apply(hidden, weight, targets)  # type: ignore[no-any-return]
