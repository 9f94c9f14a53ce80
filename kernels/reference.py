"""The definition of every operation: plain loops over modules, any float dtype, gradients by autograd."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels.plan import Plan
from kernels.vocabulary import Vocabulary

ACTIVATION = {"relu": F.relu, "gelu": F.gelu, "silu": F.silu}  # GELU is the exact one, by erf


def _pairs(x: Tensor, plan: Plan) -> Tensor:
    """[N, D] one row per (row, choice) pair, in pair order."""
    return x.reshape(plan.n_pairs, x.shape[2]) if x.dim() == 3 else x.repeat_interleave(plan.n_choices, 0)


def _each(x: Tensor, plan: Plan, function) -> Tensor:
    """Apply function(module, rows of that module) and put the results back in pair order: [N, width]."""
    pairs = _pairs(x, plan)
    offsets, order = plan.host_offsets(), plan.order.long()
    parts = [function(0, pairs[:0])]  # joins the parameters to the graph where there are no rows at all
    for module in range(plan.n_modules):
        chosen = order[offsets[module] : offsets[module + 1]]
        if len(chosen):
            parts.append(function(module, pairs[chosen]))
    return torch.cat(parts)[plan.inverse.long()]


def ragged_linear(x: Tensor, weight: Tensor, bias: Tensor | None, plan: Plan) -> Tensor:
    def one(module: int, rows: Tensor) -> Tensor:
        y = rows @ weight[module]
        return y if bias is None else y + bias[module]

    return plan.shaped(_each(x, plan, one), combine=False)


def ragged_mlp(
    x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor | None], plan: Plan, activation: str, combine: bool
) -> Tensor:
    def one(module: int, rows: Tensor) -> Tensor:
        for layer, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
            rows = rows if layer == 0 else ACTIVATION[activation](rows)
            rows = rows @ weight[module]
            rows = rows if bias is None else rows + bias[module]
        return rows

    return plan.shaped(_each(x, plan, one), combine)


def ragged_softmax_xent(
    hidden: Tensor, targets: Tensor, output: Tensor, bias: Tensor | None, vocabulary: Vocabulary, plan: Plan
) -> Tensor:
    starts, offsets, order = vocabulary.host_offsets(), plan.host_offsets(), plan.order.long()
    parts = []
    for module in range(plan.n_modules):
        chosen = order[offsets[module] : offsets[module + 1]]
        if module and not len(chosen):  # module 0 joins the parameters to the graph where there are no rows at all
            continue
        span = slice(starts[module], starts[module + 1])
        rows = output[span] if vocabulary.ids is None else output[vocabulary.ids[span].long()]
        logits = hidden[chosen] @ rows.T
        logits = logits if bias is None else logits + bias[span]
        parts.append(-F.log_softmax(logits, 1).gather(1, targets[chosen].long()[:, None])[:, 0])
    return torch.cat(parts)[plan.inverse.long()]
