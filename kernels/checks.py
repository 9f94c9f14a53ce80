"""One place that decides which arguments are right, so that every backend refuses the same things in the same words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from kernels.plan import Plan
    from kernels.vocabulary import Vocabulary

FLOATS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
INTEGERS = (torch.int64, torch.int32, torch.int16, torch.uint8)
ACTIVATIONS = ("relu", "gelu", "silu")
LOSSES = ("mse", "logistic", "softmax")


def shape(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')}[{', '.join(map(str, tensor.shape))}]"


def _assert_on_device(condition: Tensor, message: str) -> None:
    """Stop the device, later, if a condition does not hold: looking at it here would wait for the device."""
    torch._assert_async(condition, message)  # pyright: ignore[reportPrivateImportUsage]


def check_choice(choice: Tensor, gate: Tensor | None, n_modules: int | None) -> None:
    if not isinstance(choice, Tensor) or choice.dtype not in INTEGERS:
        found = shape(choice) if isinstance(choice, Tensor) else type(choice).__name__
        raise TypeError(f"choice must be an integer tensor, not {found}")
    if choice.dim() not in (1, 2) or (choice.dim() == 2 and choice.shape[1] < 1):
        raise ValueError(f"choice must be [rows] or [rows, choices], not {shape(choice)}")
    if n_modules is None or n_modules < 1:
        raise ValueError(f"n_modules must be given and at least 1, not {n_modules}")
    if gate is not None:
        if gate.shape != choice.shape or gate.dtype not in FLOATS:
            raise ValueError(f"gate must be a float tensor shaped as choice {tuple(choice.shape)}, not {shape(gate)}")
        if gate.device != choice.device:
            raise ValueError(f"gate is on {gate.device}, choice on {choice.device}")
    if choice.numel() == 0:
        return
    if choice.device.type == "cpu":
        low, high = (int(v) for v in torch.aminmax(choice))
        if low < 0 or high >= n_modules:
            bad = low if low < 0 else high
            raise IndexError(f"choice {bad} is out of range: there are {n_modules} modules (0 .. {n_modules - 1})")
    else:
        _assert_on_device(((choice >= 0) & (choice < n_modules)).all(), "choice out of range of n_modules")


def check_floats(first: Tensor, others: Sequence[tuple[str, Tensor | None]], name: str = "x") -> None:
    if first.dtype not in FLOATS:
        raise TypeError(f"{name} must be a float tensor, not {shape(first)}")
    for label, other in others:
        if other is None:
            continue
        if other.dtype != first.dtype:
            raise TypeError(f"{label} is {other.dtype}, {name} is {first.dtype}: use one dtype")
        if other.device != first.device:
            raise ValueError(f"{label} is on {other.device}, {name} on {first.device}: use one device")


def check_precision(precision: str) -> None:
    if precision not in ("float32", "bfloat16"):
        raise ValueError(f"precision must be float32 or bfloat16, not {precision!r}")


def check_ids(ids: Tensor, n_rows: int) -> None:
    """On the CPU: every id must be a row of the table."""
    if ids.numel() == 0:
        return
    low, high = (int(v) for v in torch.aminmax(ids))
    if low < 0 or high >= n_rows:
        raise IndexError(f"id {low if low < 0 else high} is out of range: the table has {n_rows} rows")


def check_rows(x: Tensor, plan: Plan, name: str = "x") -> None:
    if x.device != plan.device:
        raise ValueError(f"{name} is on {x.device}, the plan on {plan.device}")
    per_pair = plan.many and x.dim() == 3 and x.shape[:2] == (plan.n_rows, plan.n_choices)
    if not per_pair and not (x.dim() == 2 and x.shape[0] == plan.n_rows):
        wanted = f"[{plan.n_rows}, width]"
        wanted += f" or [{plan.n_rows}, {plan.n_choices}, width]" if plan.many else ""
        raise ValueError(f"{name} must be {wanted} to fit the plan, not {shape(x)}")


def check_linear(x: Tensor, weight: Tensor, bias: Tensor | None, plan: Plan, width: int | None = None) -> None:
    check_rows(x, plan)
    check_floats(x, [("weight", weight), ("bias", bias)])
    width = x.shape[-1] if width is None else width
    if weight.dim() != 3 or weight.shape[0] != plan.n_modules or weight.shape[1] != width:
        raise ValueError(f"weight must be [{plan.n_modules}, {width}, out], not {shape(weight)}")
    if bias is not None and tuple(bias.shape) != (plan.n_modules, weight.shape[2]):
        raise ValueError(f"bias must be [{plan.n_modules}, {weight.shape[2]}], not {shape(bias)}")


def check_mlp(
    x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor | None], plan: Plan, activation: str
) -> None:
    if not 2 <= len(weights) <= 4:
        raise ValueError(f"ragged_mlp takes 2 to 4 layers, not {len(weights)}")
    if len(biases) != len(weights):
        raise ValueError(f"{len(weights)} weights but {len(biases)} biases (use None for a layer without)")
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}, not {activation!r}")
    width = x.shape[-1]
    for weight, bias in zip(weights, biases, strict=True):
        check_linear(x, weight, bias, plan, width)
        width = weight.shape[2]


def check_gate(plan: Plan, x: Tensor, combine: bool) -> None:
    if combine and plan.gate is None:
        raise ValueError("combine=True needs a plan with a gate: route(choice, gate, n_modules)")
    if combine and plan.gate is not None and plan.gate.dtype != x.dtype:
        raise TypeError(f"gate is {plan.gate.dtype}, x is {x.dtype}: use one dtype")


def check_xent(
    hidden: Tensor, targets: Tensor, output: Tensor, bias: Tensor | None, vocabulary: Vocabulary, plan: Plan
) -> None:
    if plan.n_choices != 1:
        raise ValueError(f"the loss takes one module per row, the plan has {plan.n_choices} choices")
    check_rows(hidden, plan, "hidden")
    check_floats(hidden, [("output", output), ("bias", bias)], "hidden")
    if hidden.dim() != 2:
        raise ValueError(f"hidden must be [{plan.n_rows}, width], not {shape(hidden)}")
    if vocabulary.n_modules != plan.n_modules:
        raise ValueError(f"the vocabulary has {vocabulary.n_modules} modules, the plan {plan.n_modules}")
    if vocabulary.offsets.device != hidden.device:
        raise ValueError(f"the vocabulary is on {vocabulary.offsets.device}, hidden on {hidden.device}")
    if tuple(output.shape) != (vocabulary.n_tokens, hidden.shape[1]):
        raise ValueError(f"output must be [{vocabulary.n_tokens}, {hidden.shape[1]}], not {shape(output)}")
    total = vocabulary.host_offsets()[-1]
    if bias is not None and tuple(bias.shape) != (total,):
        raise ValueError(f"bias must be [{total}], one per entry of the vocabulary, not {shape(bias)}")
    if targets.dtype not in INTEGERS or tuple(targets.shape) != (plan.n_rows,):
        raise ValueError(f"targets must be an integer tensor [{plan.n_rows}], not {shape(targets)}")
    if targets.device != hidden.device:
        raise ValueError(f"targets are on {targets.device}, hidden on {hidden.device}")
    if not torch.compiler.is_compiling():  # the registered operation looks at the values when it runs
        check_xent_values(targets, vocabulary, plan)


def check_xent_values(targets: Tensor, vocabulary: Vocabulary, plan: Plan) -> None:
    """Every target must be an index into its own module's vocabulary."""
    if targets.numel() == 0:
        return
    sizes = (vocabulary.offsets[1:] - vocabulary.offsets[:-1]).index_select(0, row_modules(plan))
    inside = (targets >= 0) & (targets < sizes)
    if targets.device.type != "cpu":
        _assert_on_device(inside.all(), "target out of range of its module's vocabulary")
    elif not bool(inside.all()):
        row = int(torch.nonzero(~inside)[0])
        raise IndexError(
            f"target {int(targets[row])} of row {row} is out of range: its module has {int(sizes[row])} entries"
        )


def check_targets(targets: Tensor, loss: str, width: int, x: Tensor, plan: Plan) -> None:
    if plan.n_choices != 1:
        raise ValueError(f"a training step takes one module per row, the plan has {plan.n_choices} choices")
    if plan.gate is not None:
        raise ValueError("a training step takes no gate: use ragged_mlp and adam_step_")
    if x.dim() != 2:
        raise ValueError(f"x must be [{plan.n_rows}, width], not {shape(x)}")
    if loss not in LOSSES:
        raise ValueError(f"loss must be one of {', '.join(LOSSES)}, not {loss!r}")
    if targets.device != x.device:
        raise ValueError(f"targets are on {targets.device}, x on {x.device}")
    if loss != "softmax":
        if tuple(targets.shape) != (plan.n_rows, width) or targets.dtype != x.dtype:
            raise ValueError(f"targets must be {x.dtype} [{plan.n_rows}, {width}] for {loss}, not {shape(targets)}")
        return
    if targets.dtype not in INTEGERS or tuple(targets.shape) != (plan.n_rows,):
        raise ValueError(f"targets must be an integer tensor [{plan.n_rows}] for softmax, not {shape(targets)}")
    if torch.compiler.is_compiling():  # the registered operation looks at the values when it runs
        return
    inside = ((targets >= 0) & (targets < width)).all()
    if x.device.type != "cpu":
        _assert_on_device(inside, "target out of range")
    elif not bool(inside):
        raise IndexError(f"a target is out of range: there are {width} outputs (0 .. {width - 1})")


def row_modules(plan: Plan) -> Tensor:
    """int32 [N]: the module of each pair, worked out of the plan."""
    if "modules" not in plan.cache:
        sorted_modules = torch.searchsorted(
            plan.offsets[1:].contiguous(),
            torch.arange(plan.n_pairs, dtype=torch.int32, device=plan.device),
            right=True,
            out_int32=True,
        )
        plan.cache["modules"] = sorted_modules.index_select(0, plan.inverse)
    return plan.cache["modules"]
