"""The checker of routers and rules: a small subset of Python that a person can review and nobody can escape from.

A file holds one function. Its body may compare, combine with `and`/`or`/`not` and arithmetic, branch with
`if`/`elif`/`else`, name a value, read a declared attribute (`state.last`), call a declared helper and return. All else
is refused with line and reason. Beyond the syntax the checker follows values: a name is compared only with values it
can have, numbers stay small, and every path returns.
"""

from __future__ import annotations

import ast
import io
import math
import tokenize
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ontology.errors import did_you_mean
from ontology.restricted import Checked, Helper, NumberField, RestrictedError, StateField

MAX_SOURCE_BYTES = 200_000
MAX_EXPRESSION_DEPTH = 40
MAX_BLOCK_DEPTH = 40
MAX_CONSTANT = 1e9
MAX_NUMBER = 2.0**53


@dataclass(frozen=True)
class _Name:
    values: frozenset[str]


@dataclass(frozen=True)
class _Number:
    bound: float


@dataclass(frozen=True)
class _Flag:
    pass


@dataclass(frozen=True)
class _Group:
    item: _Name | _Number


_Value = _Name | _Number | _Flag | _Group
_WORDS = {_Name: "a name", _Number: "a number", _Flag: "a yes/no value", _Group: "a group of constants"}


def check_source(
    source: str,
    *,
    arguments: Sequence[str],
    attributes: Mapping[str, Sequence[StateField | NumberField]],
    helpers: Mapping[str, Helper] | None = None,
    returns: Literal["name", "number"] = "name",
    function: str | None = None,
    file: str | Path = "<source>",
) -> Checked:
    """Check one restricted function and return it ready to compile.

    Args:
        source: the file's text: an optional docstring and one `def`.
        arguments: the parameters the function must have, in order. One without attributes is a plain number in [0, 1].
        attributes: for an argument, the fields that may be read from it.
        helpers: functions that may be called.
        returns: "name" for constant strings on every path, "number" for a numeric expression.
        function: the function's name, where it is fixed.

    Raises:
        RestrictedError: with file, line and reason.
    """
    return _Checker(source, str(file), tuple(arguments), attributes, helpers or {}, returns, function).run()


class _Checker:
    def __init__(
        self,
        source: str,
        file: str,
        arguments: tuple[str, ...],
        attributes: Mapping[str, Sequence[StateField | NumberField]],
        helpers: Mapping[str, Helper],
        returns: str,
        function: str | None,
    ) -> None:
        self.source, self.file, self.arguments, self.helpers = source, file, arguments, helpers
        self.returns, self.function = returns, function
        self.attributes = {argument: {f.name: f for f in fields} for argument, fields in attributes.items()}
        self.used: list[tuple[str, str]] = []
        self.free: list[str] = []
        self.names: list[str] = []
        self.lines: list[int] = []

    def refuse(self, node: ast.AST | int, reason: str, fix: str = "") -> RestrictedError:
        line = node if isinstance(node, int) else getattr(node, "lineno", None)
        return RestrictedError(reason, fix=fix, file=self.file, line=line)

    def run(self) -> Checked:
        self._check_text()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # what Python only warns about, such as "\\d", is refused here
                tree = ast.parse(self.source, filename=self.file)
        except SyntaxError as error:
            raise self.refuse(error.lineno or 1, f"not valid Python: {error.msg}.", "correct this line") from error
        except (RecursionError, MemoryError, ValueError) as error:
            raise self.refuse(1, f"Python cannot parse this file ({error}).", "make it simpler") from error
        body = list(tree.body)
        if body and _is_docstring(body[0]):
            body = body[1:]
        if not body:
            raise self.refuse(1, "the file holds no function.", f"write `def {self._signature()}:`")
        for node in body:
            if not isinstance(node, ast.FunctionDef):
                raise self.refuse(node, f"{_describe(node)} may not stand here.", "keep one plain function in the file")
        if len(body) > 1:
            raise self.refuse(body[1], "a second function.", "keep one function in the file; use `elif`, not calls")
        node = body[0]
        assert isinstance(node, ast.FunctionDef)
        self._check_signature(node)
        statements = node.body[1:] if _is_docstring(node.body[0]) else node.body
        if not statements:
            raise self.refuse(node, "the function does nothing.", "return a value")
        if not self._block(statements, {}, node.lineno, 0)[1]:
            raise self.refuse(statements[-1], "a path ends here without `return`.", "add a final `return`")
        free = tuple(name for name in self.arguments if name in self.free)
        return Checked(
            self.source, self.file, node.name, self.arguments, node, tuple(self.names), tuple(self.used), free,
            tuple(sorted(self.lines)), dict(self.helpers),
        )  # fmt: skip

    def _signature(self) -> str:
        return f"{self.function or 'name'}({', '.join(self.arguments)})"

    def _check_text(self) -> None:
        if len(self.source.encode("utf-8", "surrogatepass")) > MAX_SOURCE_BYTES:
            raise self.refuse(1, f"longer than {MAX_SOURCE_BYTES} bytes.", "keep it short enough to review")
        if "\0" in self.source:
            raise self.refuse(self.source[: self.source.index("\0")].count("\n") + 1, "a zero byte.", "remove it")
        try:
            for token in tokenize.generate_tokens(io.StringIO(self.source).readline):
                if token.type == tokenize.NAME and not token.string.isascii():
                    # Python folds look-alike letters together, a reviewer does not.
                    raise self.refuse(token.start[0], f"the name {token.string!r} is not plain ASCII.", "rename it")
                if token.type == tokenize.OP and token.string == ";":
                    raise self.refuse(token.start[0], "two statements on one line.", "give each a line of its own")
        except (tokenize.TokenError, IndentationError, SyntaxError):
            pass  # ast.parse reports it with a better message

    def _check_signature(self, node: ast.FunctionDef) -> None:
        given = node.args
        if node.decorator_list:
            raise self.refuse(node.decorator_list[0], "a decorator.", "remove it")
        if given.defaults or any(default is not None for default in given.kw_defaults):
            raise self.refuse(node, "a default argument.", f"write `def {self._signature()}:`")
        if given.vararg or given.kwarg or given.kwonlyargs or given.posonlyargs:
            raise self.refuse(node, "only plain arguments are allowed.", f"write `def {self._signature()}:`")
        if node.returns is not None or any(argument.annotation for argument in given.args):
            raise self.refuse(node, "an annotation.", f"write `def {self._signature()}:`")
        if getattr(node, "type_params", None):
            raise self.refuse(node, "type parameters.", f"write `def {self._signature()}:`")
        if tuple(argument.arg for argument in given.args) != self.arguments or (
            self.function is not None and node.name != self.function
        ):
            raise self.refuse(node, "another function is expected here.", f"write `def {self._signature()}:`")
        if node.name.startswith("_"):
            raise self.refuse(node, f"the name {node.name!r} starts with an underscore.", "rename it")

    def _block(
        self, statements: list[ast.stmt], known: dict[str, _Value], header: int, depth: int
    ) -> tuple[dict[str, _Value], bool]:
        """Check statements in order; return the values known afterwards and whether every path has returned."""
        if depth > MAX_BLOCK_DEPTH:
            raise self.refuse(statements[0], f"nested deeper than {MAX_BLOCK_DEPTH}.", "use `elif`")
        known = dict(known)
        previous, ended = header, False
        for statement in statements:
            if ended:
                raise self.refuse(statement, "this line is never reached.", "remove it")
            if statement.lineno <= previous:
                raise self.refuse(
                    statement, "shares its line with another statement.", "give it its own line, so a trace can name it"
                )
            previous = statement.end_lineno or statement.lineno
            self.lines.append(statement.lineno)
            if isinstance(statement, ast.If):
                known, ended = self._branches(statement, known, depth)
            elif isinstance(statement, ast.Return):
                self._return(statement, known)
                ended = True
            elif isinstance(statement, ast.Assign):
                known = self._assign(statement, known)
            elif isinstance(statement, ast.Expr):
                raise self.refuse(
                    statement, f"{_describe(statement.value)} stands alone.", "name its value or remove it"
                )
            else:
                raise self.refuse(
                    statement, f"{_describe(statement)} is not allowed.", "use if/elif/else, `name = value` and return"
                )
        return known, ended

    def _branches(self, node: ast.If, known: dict[str, _Value], depth: int) -> tuple[dict[str, _Value], bool]:
        outcomes: list[dict[str, _Value]] = []
        while True:  # one turn per elif: a long chain is not deep
            self._truth(node.test, known)
            # a test over several lines must end before its body starts
            after, ended = self._block(node.body, known, node.test.end_lineno or node.lineno, depth + 1)
            if not ended:
                outcomes.append(after)
            if len(node.orelse) == 1 and isinstance(node.orelse[0], ast.If) and self._is_elif(node.orelse[0]):
                node = node.orelse[0]
                self.lines.append(node.lineno)
                continue
            if node.orelse:
                after, ended = self._block(
                    node.orelse, known, node.body[-1].end_lineno or node.body[-1].lineno, depth + 1
                )
                if not ended:
                    outcomes.append(after)
            else:
                outcomes.append(known)
            break
        if not outcomes:
            return known, True
        return self._join(outcomes), False

    def _is_elif(self, node: ast.If) -> bool:
        return self.source.splitlines()[node.lineno - 1][node.col_offset :].startswith("elif")

    def _join(self, outcomes: list[dict[str, _Value]]) -> dict[str, _Value]:
        joined: dict[str, _Value] = {}
        for name in outcomes[0]:
            values = [outcome.get(name) for outcome in outcomes]
            if all(isinstance(value, _Name) for value in values):
                joined[name] = _Name(frozenset().union(*(value.values for value in values)))  # type: ignore[union-attr]
            elif all(isinstance(value, _Number | _Flag) for value in values):
                bounds = [value.bound for value in values if isinstance(value, _Number)]
                joined[name] = _Number(max([1.0, *bounds])) if bounds else _Flag()
            elif all(value == values[0] for value in values):
                joined[name] = outcomes[0][name]
        return joined

    def _return(self, node: ast.Return, known: dict[str, _Value]) -> None:
        if self.returns == "name":
            if not isinstance(node.value, ast.Constant) or not isinstance(node.value.value, str):
                raise self.refuse(node, "returns something else than a constant name.", 'write `return "name"`')
            name = node.value.value
            if not name or not name.isascii() or not name.replace("_", "a").replace("-", "a").isalnum():
                raise self.refuse(node, f"{name!r} is not a concept's name.", "use letters, digits and underscores")
            if name not in self.names:
                self.names.append(name)
            return
        if node.value is None or not isinstance(self._value(node.value, known, 0), _Number | _Flag):
            raise self.refuse(node, "returns something else than a number.", "return a numeric expression")

    def _assign(self, node: ast.Assign, known: dict[str, _Value]) -> dict[str, _Value]:
        if len(node.targets) != 1 or not isinstance(node.targets[0], ast.Name):
            raise self.refuse(node, "assigns to something else than one name.", "write `name = value`")
        name = node.targets[0].id
        if name.startswith("_") or "__" in name:
            raise self.refuse(node, f"the name {name!r} starts with an underscore or holds two in a row.", "rename it")
        if name in self.arguments or name in self.helpers:
            raise self.refuse(node, f"{name!r} is an argument or a helper.", "choose another name")
        return {**known, name: self._value(node.value, known, 0)}

    def _truth(self, node: ast.expr, known: dict[str, _Value], depth: int = 0) -> _Value:
        value = self._value(node, known, depth)
        if isinstance(value, _Name | _Group):
            raise self.refuse(node, f"{_WORDS[type(value)]} is not a condition.", "compare it with `==` or `in`")
        return value

    def _value(self, node: ast.expr, known: dict[str, _Value], depth: int) -> _Value:
        if depth > MAX_EXPRESSION_DEPTH:
            raise self.refuse(node, f"an expression nested deeper than {MAX_EXPRESSION_DEPTH}.", "name its parts")
        handler = getattr(self, f"_{type(node).__name__.lower()}", None)
        if handler is None or type(node) not in _EXPRESSIONS:
            raise self.refuse(node, f"{_describe(node)} is not allowed.", _FIXES.get(type(node), _ALLOWED))
        return handler(node, known, depth + 1)

    def _constant(self, node: ast.Constant, known: dict[str, _Value], depth: int) -> _Value:
        value = node.value
        if isinstance(value, bool):
            return _Flag()
        if isinstance(value, str):
            return _Name(frozenset((value,)))
        if isinstance(value, int | float):
            if abs(value) > MAX_CONSTANT or not math.isfinite(value):
                raise self.refuse(node, f"a number above {MAX_CONSTANT:.0e}.", "use a smaller one")
            return _Number(abs(float(value)))
        raise self.refuse(node, f"the constant {value!r} is not allowed.", "use names, numbers, True and False")

    def _name(self, node: ast.Name, known: dict[str, _Value], depth: int) -> _Value:
        if node.id in known:
            return known[node.id]
        if node.id in self.arguments:
            if node.id in self.attributes:
                first = next(iter(self.attributes[node.id]), "field")
                raise self.refuse(
                    node, f"{node.id!r} alone has no value.", f"read one of its fields: {node.id}.{first}"
                )
            if node.id not in self.free:
                self.free.append(node.id)
            return _Number(1.0)
        if node.id in self.helpers:
            raise self.refuse(node, f"{node.id!r} is a helper.", f"call it: {node.id}(...)")
        names = [*known, *self.arguments, *self.helpers]
        raise self.refuse(
            node,
            f"{node.id!r} has no value on every path to this line." + did_you_mean(node.id, names),
            "assign it before",
        )

    def _attribute(self, node: ast.Attribute, known: dict[str, _Value], depth: int) -> _Value:
        if not isinstance(node.value, ast.Name) or node.value.id not in self.attributes or node.value.id in known:
            raise self.refuse(node, f"reads the attribute {node.attr!r}.", f"only {self._readable()} may be read")
        argument, fields = node.value.id, self.attributes[node.value.id]
        if node.attr not in fields:
            raise self.refuse(
                node,
                f"{argument} has no field {node.attr!r}." + did_you_mean(node.attr, list(fields)),
                "read a declared field",
            )
        if (argument, node.attr) not in self.used:
            self.used.append((argument, node.attr))
        found = fields[node.attr]
        if isinstance(found, NumberField):
            return _Number(max(abs(found.low), abs(found.high)))
        if isinstance(found.values, int):
            return _Number(float(found.values - 1))
        return _Flag() if found.is_flag else _Name(frozenset(found.values))

    def _readable(self) -> str:
        return ", ".join(f"the fields of {argument!r}" for argument in self.attributes) or "nothing"

    def _boolop(self, node: ast.BoolOp, known: dict[str, _Value], depth: int) -> _Value:
        values = [self._truth(value, known, depth) for value in node.values]
        bounds = [value.bound for value in values if isinstance(value, _Number)]
        return _Number(max([1.0, *bounds])) if bounds else _Flag()

    def _unaryop(self, node: ast.UnaryOp, known: dict[str, _Value], depth: int) -> _Value:
        if isinstance(node.op, ast.Not):
            self._truth(node.operand, known, depth)
            return _Flag()
        if isinstance(node.op, ast.Invert):
            raise self.refuse(node, "`~` is not allowed.", "write `not`")
        return _Number(self._bound(node.operand, known, depth))

    def _bound(self, node: ast.expr, known: dict[str, _Value], depth: int) -> float:
        value = self._value(node, known, depth)
        if isinstance(value, _Number):
            return value.bound
        if isinstance(value, _Flag):
            return 1.0
        raise self.refuse(node, f"arithmetic with {_WORDS[type(value)]}.", "use numbers")

    def _binop(self, node: ast.BinOp, known: dict[str, _Value], depth: int) -> _Value:
        if type(node.op) not in _ARITHMETIC:
            raise self.refuse(node, f"the operator {_describe(node.op)} is not allowed.", "use + - * / // %")
        left, right = self._bound(node.left, known, depth), self._bound(node.right, known, depth)
        if isinstance(node.op, ast.Add | ast.Sub):
            bound = left + right
        elif isinstance(node.op, ast.Mult):
            bound = left * right
        else:
            if not isinstance(node.right, ast.Constant) or isinstance(node.right.value, bool) or right == 0:
                raise self.refuse(node, "divides by something else than a constant above 0.", "divide by a constant")
            bound = right if isinstance(node.op, ast.Mod) else left / right + 1.0
        if not bound <= MAX_NUMBER:
            raise self.refuse(node, "this number could grow too large.", "keep results below 2**53")
        return _Number(bound)

    def _compare(self, node: ast.Compare, known: dict[str, _Value], depth: int) -> _Value:
        left = self._value(node.left, known, depth)
        for operator, right_node in zip(node.ops, node.comparators, strict=True):
            if isinstance(operator, ast.Is | ast.IsNot):
                raise self.refuse(node, "`is` is not allowed.", "write `==` or `!=`")
            right = self._value(right_node, known, depth)
            if isinstance(operator, ast.In | ast.NotIn):
                if not isinstance(right, _Group):
                    raise self.refuse(right_node, "`in` needs a group of constants.", 'write `in ("a", "b")`')
                self._comparable(node, left, right.item, every=True)
            elif isinstance(operator, ast.Eq | ast.NotEq):
                self._comparable(node, left, right)
            elif not isinstance(left, _Number | _Flag) or not isinstance(right, _Number | _Flag):
                raise self.refuse(node, "only numbers have an order.", "use `==` or `in` for names")
            left = right
        return _Flag()

    def _comparable(self, node: ast.Compare, left: _Value, right: _Value, *, every: bool = False) -> None:
        """Refuse a comparison that mixes kinds or that can never hold; with `every`, each value of `right` counts."""
        if isinstance(left, _Name) and isinstance(right, _Name):
            if len(left.values) == 1 and not every:
                left, right = right, left
            impossible = sorted(right.values - left.values)
            if impossible and (every or len(impossible) == len(right.values)):
                hint = did_you_mean(impossible[0], sorted(left.values))
                raise self.refuse(
                    node, f"{impossible[0]!r} is never a value here.{hint}", "use a value that it can have"
                )
            return
        if isinstance(left, _Number | _Flag) and isinstance(right, _Number | _Flag):
            return
        fix = (
            "drop the comparison: a yes/no field is a condition itself" if isinstance(left, _Flag) else "compare alike"
        )
        raise self.refuse(node, f"compares {_WORDS[type(left)]} with {_WORDS[type(right)]}.", fix)

    def _tuple(self, node: ast.Tuple | ast.Set | ast.List, known: dict[str, _Value], depth: int) -> _Value:
        if not node.elts:
            raise self.refuse(node, "an empty group.", "list its constants")
        items: list[_Value] = []
        for element in node.elts:
            constant = element.operand if isinstance(element, ast.UnaryOp) else element
            if not isinstance(constant, ast.Constant):
                raise self.refuse(element, "a group may hold constants only.", 'write `("a", "b")`')
            items.append(self._value(element, known, depth))
        if all(isinstance(item, _Name) for item in items):
            return _Group(_Name(frozenset().union(*(item.values for item in items))))  # type: ignore[union-attr]
        if all(isinstance(item, _Number | _Flag) for item in items):
            return _Group(_Number(MAX_CONSTANT))
        raise self.refuse(node, "a group mixes names and numbers.", "keep them apart")

    _set = _tuple
    _list = _tuple

    def _call(self, node: ast.Call, known: dict[str, _Value], depth: int) -> _Value:
        if not isinstance(node.func, ast.Name) or node.func.id not in self.helpers or node.func.id in known:
            called = node.func.id if isinstance(node.func, ast.Name) else _describe(node.func)
            allowed = ", ".join(sorted(self.helpers)) or "none is declared"
            raise self.refuse(node, f"calls {called!r}.", f"call declared helpers only: {allowed}")
        helper = self.helpers[node.func.id]
        if node.keywords or any(isinstance(argument, ast.Starred) for argument in node.args):
            raise self.refuse(node, "a keyword or starred argument.", "pass plain arguments")
        count, least = len(node.args), len(helper.takes)
        if count < least or (count > least and not helper.variadic):
            raise self.refuse(node, f"{node.func.id} takes {least} arguments, {count} given.", "pass what it takes")
        bound = helper.bound
        for i, argument in enumerate(node.args):
            wanted, value = helper.takes[min(i, least - 1)], self._value(argument, known, depth)
            fits = isinstance(value, _Name) if wanted == "name" else isinstance(value, _Number | _Flag)
            if not fits:
                raise self.refuse(argument, f"{node.func.id} takes a {wanted} here, {_WORDS[type(value)]} given.")
            if isinstance(value, _Number):
                bound = max(bound, value.bound)
        if isinstance(helper.returns, tuple):
            return _Name(frozenset(helper.returns))
        return _Flag() if helper.returns == "flag" else _Number(bound)


_ARITHMETIC = (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod)
_EXPRESSIONS = (
    ast.Constant, ast.Name, ast.Attribute, ast.BoolOp, ast.UnaryOp, ast.BinOp, ast.Compare, ast.Call,
    ast.Tuple, ast.Set, ast.List,
)  # fmt: skip
_ALLOWED = "use comparisons, and/or/not, arithmetic, declared fields and helpers"
_FIXES: dict[type, str] = {
    ast.IfExp: "write if/else on lines of their own, so that the trace can name the line",
    ast.Subscript: "compare with `==` or `in` instead",
    ast.NamedExpr: "assign on a line of its own",
}
_TITLES = {
    "IfExp": "a conditional expression", "JoinedStr": "an f-string", "FormattedValue": "an f-string",
    "NamedExpr": "a walrus assignment", "FunctionDef": "a function", "AsyncFunctionDef": "an async function",
    "ClassDef": "a class", "Import": "an import", "ImportFrom": "an import", "ListComp": "a comprehension",
    "SetComp": "a comprehension", "DictComp": "a comprehension", "GeneratorExp": "a comprehension", "For": "a loop",
    "AsyncFor": "a loop", "While": "a loop", "AugAssign": "an augmented assignment",
    "AnnAssign": "an annotated assignment", "Constant": "a constant", "TypeAlias": "a type alias", "Try": "try",
    "TryStar": "try", "Pow": "**", "LShift": "<<", "RShift": ">>", "BitOr": "|", "BitAnd": "&", "BitXor": "^",
    "MatMult": "@",
}  # fmt: skip


def _describe(node: ast.AST) -> str:
    return _TITLES.get(type(node).__name__, f"`{type(node).__name__.lower()}`")


def _is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
