"""Restricted plain Python: what routers and rules may read and call, and how a checked one is compiled.

`ontology/checker.py` decides what is allowed. What passes is compiled with the attribute reads turned into arguments,
so the compiled code holds no attribute access, no import and no builtin.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import CodeType
from typing import Any, Literal

from ontology.errors import ConstructibleError


class RestrictedError(ConstructibleError):
    """Source text that the restricted language does not allow; carries file, line and the fix."""


@dataclass(frozen=True)
class StateField:
    """One finite input of a router.

    `values` are its names, in the order of their codes, or an int n for the numbers 0..n-1. The values ("no", "yes")
    make it a flag: `if state.in_call:`.
    """

    name: str
    values: tuple[str, ...] | int

    @property
    def size(self) -> int:
        """How many values the field can have."""
        return self.values if isinstance(self.values, int) else len(self.values)

    @property
    def is_flag(self) -> bool:
        """Whether the field reads as a bool."""
        return self.values == ("no", "yes")

    def decode(self, code: int) -> str | int | bool:
        """Return the value that restricted code sees for a stored code."""
        if isinstance(self.values, int):
            return int(code)
        return bool(code) if self.is_flag else self.values[code]


@dataclass(frozen=True)
class NumberField:
    """One numeric input of a rule, for example a concept's score in [low, high]."""

    name: str
    low: float = 0.0
    high: float = 1.0


@dataclass(frozen=True)
class Helper:
    """A pure function that restricted code may call by name.

    Args:
        function: takes and returns plain numbers, bools or strings; no side effects.
        takes: one kind per argument ("name", "number" or "flag"); with `variadic` the last may repeat.
        returns: "number", "flag", or the tuple of names it can return.
        bound: largest magnitude of a returned number.
    """

    function: Callable[..., Any]
    takes: tuple[Literal["name", "number", "flag"], ...]
    returns: Literal["number", "flag"] | tuple[str, ...] = "number"
    variadic: bool = False
    bound: float = 1.0


@dataclass(frozen=True)
class Branch:
    """One way through an `if`: `line` of its test (or of the statement), and what would have to happen to take it."""

    line: int
    text: str


@dataclass
class Checked:
    """Source text that passed the check, ready to compile.

    `names` are the constants it can return in order of appearance (empty for rules), `used` the (argument, attribute)
    pairs it reads in order of the compiled function's parameters, `lines` the lines of all its statements.
    """

    source: str
    file: str
    function: str
    arguments: tuple[str, ...]
    node: ast.FunctionDef
    names: tuple[str, ...]
    used: tuple[tuple[str, str], ...]
    free: tuple[str, ...]
    lines: tuple[int, ...]
    helpers: Mapping[str, Helper] = field(default_factory=dict)

    @property
    def parameters(self) -> tuple[str, ...]:
        """Parameters of the compiled function: one per attribute read, then the arguments that are plain numbers."""
        return tuple(f"{argument}_{attribute}__{i}" for i, (argument, attribute) in enumerate(self.used)) + self.free

    def compile(self, *, trace: bool = False) -> Callable[..., Any]:
        """Return the function of `parameters`; with `trace` it takes a callable first.

        The trace callable gets the line of each statement taken; for an `if` the line when its test held, and minus
        the line when it did not.
        """
        try:
            code = self._code(trace)
        except (RecursionError, MemoryError) as error:
            raise RestrictedError("the function is too long.", fix="split the router", file=self.file) from error
        space: dict[str, Any] = {"__builtins__": {}}
        space.update({name: helper.function for name, helper in self.helpers.items()})
        exec(code, space)  # checked above: no attribute, no import, no builtin can be reached
        return space["compiled"]

    def _code(self, trace: bool) -> CodeType:
        body = _Rewrite(self, trace).block(self.node.body)
        arguments = ast.arguments(
            posonlyargs=[],
            args=[ast.arg(arg=name) for name in (("trace__",) if trace else ()) + self.parameters],
            kwonlyargs=[],
            kw_defaults=[],
            defaults=[],
        )
        function = ast.FunctionDef(name="compiled", args=arguments, body=body, decorator_list=[])
        if hasattr(ast, "TypeAlias"):  # the field exists from Python 3.12 on
            function.type_params = []  # type: ignore[attr-defined]
        module = ast.fix_missing_locations(ast.Module(body=[ast.copy_location(function, self.node)], type_ignores=[]))
        return compile(module, self.file, "exec", dont_inherit=True)

    @property
    def return_lines(self) -> dict[str, int]:
        """For each name returned the first line that returns it."""
        found: dict[str, int] = {}
        for node in ast.walk(self.node):
            if isinstance(node, ast.Return) and isinstance(node.value, ast.Constant):
                name = str(node.value.value)
                found[name] = min(node.lineno, found.get(name, node.lineno))
        return found

    def branches(self) -> list[Branch]:
        """List every branch that a test should take, outermost first."""
        return [branch for branch, _, _ in self._walk(self.node.body)]

    def uncovered(self, seen: set[int]) -> list[Branch]:
        """List the branches not taken, given the trace events seen (see `compile`); inner branches of a branch that
        was never entered are left out."""
        missing: list[Branch] = []
        skip_under: list[tuple[int, int]] = []
        for branch, event, span in self._walk(self.node.body):
            if event in seen or any(low <= branch.line <= high for low, high in skip_under):
                continue
            missing.append(branch)
            if span:
                skip_under.append(span)
        return missing

    def _walk(self, body: list[ast.stmt]) -> list[tuple[Branch, int, tuple[int, int] | None]]:
        found: list[tuple[Branch, int, tuple[int, int] | None]] = []
        lines = self.source.splitlines()
        pending: list[list[ast.stmt]] = [body]
        while pending:
            for statement in pending.pop():
                if not isinstance(statement, ast.If):
                    continue
                line, text = statement.lineno, lines[statement.lineno - 1].strip()
                inside = (statement.body[0].lineno, statement.body[-1].end_lineno or statement.body[-1].lineno)
                found.append((Branch(line, f"never true: {text}"), line, inside))
                orelse = statement.orelse
                is_elif = len(orelse) == 1 and isinstance(orelse[0], ast.If)
                if orelse and not is_elif:
                    inside = (orelse[0].lineno, orelse[-1].end_lineno or orelse[-1].lineno)
                    text = f"never taken: else of line {line}, {lines[orelse[0].lineno - 1].strip()}"
                    found.append((Branch(orelse[0].lineno, text), -line, inside))
                else:
                    after = (orelse[0].lineno, orelse[0].end_lineno or orelse[0].lineno) if is_elif else None
                    found.append((Branch(line, f"never false: {text}"), -line, after))
                pending += [orelse, statement.body]
        return sorted(found, key=lambda item: (item[0].line, item[1] < 0))


class _Rewrite(ast.NodeTransformer):
    """Turn attribute reads into parameters and, for the trace, report the lines taken."""

    def __init__(self, checked: Checked, trace: bool) -> None:
        self.places = {pair: name for pair, name in zip(checked.used, checked.parameters, strict=False)}
        self.trace = trace

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        assert isinstance(node.value, ast.Name)
        return ast.copy_location(ast.Name(id=self.places[node.value.id, node.attr], ctx=ast.Load()), node)

    def event(self, line: int) -> list[ast.stmt]:
        if not self.trace:
            return []
        value = ast.Constant(value=line)
        return [ast.Expr(value=ast.Call(func=ast.Name(id="trace__", ctx=ast.Load()), args=[value], keywords=[]))]

    def block(self, statements: list[ast.stmt]) -> list[ast.stmt]:
        out: list[ast.stmt] = []
        for statement in statements:
            if isinstance(statement, ast.Expr):  # the docstring
                continue
            if isinstance(statement, ast.If):
                new = ast.If(
                    test=self.visit(copy.deepcopy(statement.test)),
                    body=self.event(statement.lineno) + self.block(statement.body),
                    orelse=self.event(-statement.lineno) + self.block(statement.orelse),
                )
            else:
                out += self.event(statement.lineno)
                new = self.visit(copy.deepcopy(statement))
            out.append(ast.copy_location(new, statement))
        return out
