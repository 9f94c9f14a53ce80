"""The independent checker of the image track: does a prediction follow from its explanation?

A record holds what a model said of pictures: concept scores, class values, shares, the class. The checker opens the
model's folder by itself and shares no code with the model. It reads the rules with an interpreter of its own, which
walks the syntax tree, and must reach the same class values **bit for bit**; with the pictures' primitives it works the
concept scores out again from the nodes' files, convolutions written out in numpy or plain code read by the same
interpreter, which must agree to the last decimal shown (one unit of it, where a sum in another order rounds otherwise).
"""

from __future__ import annotations

import ast
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ontology.errors import ConstructibleError
from ontology.io import load_tensors, read_json
from vision.model import Constructed, probabilities

FORMAT = "constructible-vision-record/1"
SCORE_TOLERANCE = 1.01e-4
"""Concept scores have four decimals."""
SHARE_TOLERANCE = 1e-12
_TOGETHER = 50
"""Pictures whose convolutions are written out at once: their windows take 10 MB."""


def record(
    model: Constructed, pixels: npt.NDArray[np.uint8], names: Sequence[str] | None = None
) -> dict[str, Any]:  # fmt: skip
    """What a model says of pictures uint8 [n, size, size, 3], as JSON values that `compare` can check."""
    scores = model.concept_scores(pixels)
    values = model.values_of(scores)
    shares = probabilities(values)
    return {
        "format": FORMAT, "classes": list(model.classes), "mode": model.mode, "concepts": list(model.bank.names),
        "pictures": [
            {"name": names[i] if names else str(i), "scores": scores[i].tolist(), "values": values[i].tolist(),
             "shares": shares[i].tolist(), "label": model.classes[int(values[i].argmax())]}
            for i in range(len(pixels))
        ],
    }  # fmt: skip


def compare(
    folder: str | Path, said: Mapping[str, Any], primitives: npt.NDArray[np.uint8] | None = None
) -> dict[str, Any]:
    """Check a record against the rules and nodes in a model's folder.

    Args:
        said: what `record` gave, also after it was written as JSON and read back.
        primitives: of the same pictures, uint8 [n, channels, 16, 16], to check the concept scores as well.

    Returns:
        `predictions`, `replayed`, and `failed`: name of the picture and what does not follow.

    Raises:
        ConstructibleError: the record or the folder cannot be understood.
    """
    folder = Path(folder)
    if said.get("format") != FORMAT:
        raise ConstructibleError("not a record of the image track, or of another version.", fix="record it again")
    mode = str(read_json(folder / "config.json")["mode"])
    rules = [_function(folder / "rules" / f"{_file_name(label)}.py", "rule") for label in said["classes"]]
    names = list(said["concepts"])
    again = None
    if primitives is not None:
        nodes = [_Node(folder / "nodes" / name) for name in names]
        again = np.array([node.scores(primitives) for node in nodes]).reshape(len(names), -1)
    failed = []
    for i, picture in enumerate(said["pictures"]):
        scores = dict(zip(names, picture["scores"], strict=True))
        why = []
        if any(not 0 <= value <= 1 for value in scores.values()):
            why.append("a concept score is not in [0, 1]")
        seen = scores if mode == "soft" else {name: float(value >= 0.5) for name, value in scores.items()}
        values = [_evaluate(rule, seen) for rule in rules]
        if values != picture["values"]:
            why.append(f"the rules give {values}, not {picture['values']}")
        best = said["classes"][max(range(len(values)), key=lambda c: (values[c], -c))]
        if best != picture["label"]:
            why.append(f"the highest class is {best}, not {picture['label']}")
        powers = [math.exp(value - max(values)) for value in values]
        if any(abs(p / sum(powers) - s) > SHARE_TOLERANCE for p, s in zip(powers, picture["shares"], strict=True)):
            why.append("the shares do not follow from the values")
        if again is not None:
            own = again[:, i].tolist()
            far = [n for n, a, b in zip(names, own, picture["scores"], strict=True) if abs(a - b) > SCORE_TOLERANCE]
            if far:
                why.append(f"the node of {far[0]} says {own[names.index(far[0])]:.4f}, not {scores[far[0]]:.4f}")
        if why:
            failed.append({"name": picture["name"], "why": why})
    n = len(said["pictures"])
    return {"predictions": n, "replayed": n - len(failed), "failed": failed}


def _file_name(label: str) -> str:
    from vision.concepts import concept_name

    return concept_name(label)


def _function(path: Path, name: str) -> ast.FunctionDef:
    try:
        body = ast.parse(path.read_text(encoding="utf-8")).body
    except (OSError, SyntaxError, UnicodeDecodeError) as error:
        raise ConstructibleError(
            f"cannot be read ({error}).", fix="restore the file or build again", file=path
        ) from error
    for statement in body:
        if isinstance(statement, ast.FunctionDef) and statement.name == name:
            return statement
    raise ConstructibleError(f"holds no function {name!r}.", fix="restore the file or build again", file=path)


class _Returned(Exception):
    def __init__(self, value: float) -> None:
        self.value = value


def _evaluate(function: ast.FunctionDef, fields: Mapping[str, float]) -> float:
    """Run a restricted function whose one argument has these fields."""
    try:
        _run(function.body, {}, function.args.args[0].arg, fields)
    except _Returned as found:
        return float(found.value)
    raise ConstructibleError("a rule returns nothing.", fix="build the model again")


def _run(body: Sequence[ast.stmt], local: dict[str, Any], argument: str, fields: Mapping[str, float]) -> None:
    for statement in body:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                local[name] = _value(value, local, argument, fields)
            case ast.Return(value=value) if value is not None:
                raise _Returned(_value(value, local, argument, fields))
            case ast.If(test=test, body=yes, orelse=no):
                _run(yes if _value(test, local, argument, fields) else no, local, argument, fields)
            case ast.Expr(value=ast.Constant()) | ast.Pass():
                pass
            case _:
                raise ConstructibleError(f"line {statement.lineno} is no plain code.", fix="build the model again")


_BINARY = {ast.Add: lambda a, b: a + b, ast.Sub: lambda a, b: a - b, ast.Mult: lambda a, b: a * b,
           ast.Div: lambda a, b: a / b}  # fmt: skip
_COMPARE = {ast.Lt: lambda a, b: a < b, ast.LtE: lambda a, b: a <= b, ast.Gt: lambda a, b: a > b,
            ast.GtE: lambda a, b: a >= b, ast.Eq: lambda a, b: a == b, ast.NotEq: lambda a, b: a != b}  # fmt: skip


def _value(node: ast.expr, local: dict[str, Any], argument: str, fields: Mapping[str, float]) -> Any:
    def sub(part: ast.expr) -> Any:
        return _value(part, local, argument, fields)

    match node:
        case ast.Constant(value=value):
            return value
        case ast.Name(id=name) if name in local:
            return local[name]
        case ast.Attribute(value=ast.Name(id=name), attr=attribute) if name == argument and attribute in fields:
            return fields[attribute]
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
            return _BINARY[type(op)](sub(left), sub(right))
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -sub(operand)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return not sub(operand)
        case ast.BoolOp(op=ast.And(), values=values):
            return all(sub(value) for value in values)
        case ast.BoolOp(op=ast.Or(), values=values):
            return any(sub(value) for value in values)
        case ast.IfExp(test=test, body=yes, orelse=no):
            return sub(yes) if sub(test) else sub(no)
        case ast.Compare(left=left, ops=ops, comparators=comparators) if all(type(op) in _COMPARE for op in ops):
            sides = [sub(left), *(sub(part) for part in comparators)]
            return all(_COMPARE[type(op)](a, b) for op, a, b in zip(ops, sides, sides[1:], strict=False))
    raise ConstructibleError(f"line {node.lineno} is no plain code.", fix="build the model again")


class _Node:
    """One node's files, answered slowly and by other code than the model's."""

    def __init__(self, folder: Path) -> None:
        from vision.bank import CHANNELS

        self.said = read_json(folder / "node.json")
        self.slope, self.offset = float(self.said["slope"]), float(self.said["offset"])
        self.channels = CHANNELS
        self.plain = (folder / "plain.py").is_file()
        if self.plain:
            self.function = _function(folder / "plain.py", "evidence")
        else:
            self.weights = {k: np.asarray(v, dtype=np.float64) for k, v in
                            load_tensors(folder / "weights.safetensors").items()}  # fmt: skip

    def scores(self, maps: npt.NDArray[np.uint8]) -> list[float]:
        """The concept's probability in each picture [n, channels, 16, 16], four decimals."""
        found: list[float] = []
        for begin in range(0, len(maps), _TOGETHER):
            part = maps[begin : begin + _TOGETHER]
            found += [self._plain(picture) for picture in part] if self.plain else self._net(part)
        exact = [min(30.0, max(-30.0, z * self.slope + self.offset)) for z in found]
        return [round(1 / (1 + math.exp(-z)), 4) for z in exact]

    def _plain(self, maps: npt.NDArray[np.uint8]) -> float:
        fields = {}
        for name in self.said["reads"]:
            channel, where = name.rsplit("_", 1)
            cells = maps[self.channels.index(channel)].astype(np.float64) / 255
            side = len(cells)
            if where == "middle":
                cells = cells[side // 4 : -(side // 4), side // 4 : -(side // 4)]
            found = np.sort(cells.ravel())
            fields[name] = float(found[-(len(found) // 4) :].mean() if where == "strongest" else found.mean())
        return _evaluate(self.function, fields)

    def _net(self, maps: npt.NDArray[np.uint8]) -> list[float]:
        x = maps[:, [self.channels.index(name) for name in self.said["reads"]]].astype(np.float64) / 255
        for layer in ("first", "second", "third"):
            weight = self.weights[layer]
            stride = 2 if layer == "first" and weight.shape[-1] > 1 else 1
            x = _convolve(x, weight, stride) + self.weights[f"{layer}_bias"][:, None, None]
            if layer != "third":
                x = np.maximum(x, 0)
        return [_pooled(cells.ravel(), self.said["pooling"]) for cells in x]


def _convolve(x: npt.NDArray[np.float64], weight: npt.NDArray[np.float64], stride: int) -> npt.NDArray[np.float64]:
    reach = weight.shape[-1] // 2
    padded = np.pad(x, ((0, 0), (0, 0), (reach, reach), (reach, reach)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, weight.shape[-2:], axis=(2, 3))[:, :, ::stride, ::stride]
    return np.einsum("nchwij,ocij->nohw", windows, weight, optimize=True)


def _pooled(cells: npt.NDArray[np.float64], how: str) -> float:
    if how == "average":
        return float(cells.mean())
    if how == "max":
        return float(cells.max())
    if how in ("lse", "annealed"):
        return float(np.log(np.mean(np.exp(2.0 * (cells - cells.max())))) / 2.0 + cells.max())
    if how == "topk":
        return float(np.sort(cells)[-max(1, len(cells) // 4) :].mean())
    share = 1 / (1 + np.exp(-cells))
    pooled = min(1 - 1e-4, max(1e-4, float((share**2).sum() / (share.sum() + 1e-6))))
    return math.log(pooled / (1 - pooled))
