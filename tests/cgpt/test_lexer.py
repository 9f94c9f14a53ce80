"""The lexer: its state depends on the text to the left alone, and says what a programmer would say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cgpt import lexer
from cgpt import lexer_tables as t

FRAGMENTS = [
    "def ", "class ", "f(", ")", "[", "]", "{", "}", "x", "self", ".", ",", ":", "=", "==", "->", "\n", "\n    ",
    "\t", "\r\n", "'", '"', '"""', "f'", 'rb"', "#", "\\", "\\\n", "lambda ", "for ", " in ", "import ",
    "from ", "as ", "if ", "1", "0x", ".5", "1e", "...", "!", "é", "🙂", " ",
    "async ", "match ", "case ", "@", "await ", "return ",
    "{{", "\\N{", "\x0c", "\0", "$", ";", "elif ", "name_", "*", "**",
]  # fmt: skip
code_like = st.lists(st.sampled_from(FRAGMENTS), max_size=40).map(lambda parts: "".join(parts).encode())
any_bytes = st.one_of(code_like, st.binary(max_size=60), st.text(max_size=40).map(str.encode))


def at_every_byte(data: bytes) -> tuple[np.ndarray, np.ndarray]:
    return lexer.run(np.frombuffer(data, np.uint8), np.arange(len(data) + 1))


@settings(max_examples=300, deadline=None)
@given(any_bytes, any_bytes, st.data())
@example(b"x = f'{a", b"!r:>{w}}'", None)
def test_the_state_depends_on_the_left_alone(left: bytes, right: bytes, data) -> None:
    other = b"# something else" if data is None else data.draw(any_bytes)
    fields, registers = at_every_byte(left + right)
    fields_other, registers_other = at_every_byte(left + other)
    n = len(left) + 1
    np.testing.assert_array_equal(fields[:n], fields_other[:n])
    np.testing.assert_array_equal(registers[:n], registers_other[:n])


@settings(max_examples=200, deadline=None)
@given(any_bytes, st.data())
def test_few_boundaries_and_single_steps_agree_with_all(data: bytes, draw) -> None:
    fields, registers = at_every_byte(data)
    state = lexer.new_state()
    row, context = np.zeros(len(lexer.FIELDS), np.uint8), np.zeros(len(lexer.CONTEXT), np.int32)
    for position in range(len(data) + 1):
        lexer.snapshot(state, row)
        lexer.context(state, context)
        np.testing.assert_array_equal(row, fields[position])
        np.testing.assert_array_equal(context, registers[position])
        if position < len(data):
            lexer.step(state, data[position], position)
    some = sorted(draw.draw(st.sets(st.integers(0, len(data)))))
    few_fields, few_registers = lexer.run(np.frombuffer(data, np.uint8), np.array(some, np.int32))
    np.testing.assert_array_equal(few_fields, fields[some])
    np.testing.assert_array_equal(few_registers, registers[some])


@settings(max_examples=200, deadline=None)
@given(any_bytes)
def test_every_value_is_declared_and_every_register_is_to_the_left(data: bytes) -> None:
    fields, registers = at_every_byte(data)
    for column, field in enumerate(lexer.FIELDS):
        assert fields[:, column].max(initial=0) < field.size
    offsets = [i for i, name in enumerate(lexer.CONTEXT) if name not in lexer.COUNTS]
    assert (registers[:, offsets] >= -1).all()
    # A register may point at the byte that is read next only where that byte is not known to be part of anything.
    assert (registers[:, offsets] <= np.arange(len(data) + 1)[:, None]).all()
    assert (registers[:, [lexer.CONTEXT.index(name) for name in lexer.COUNTS]] >= 0).all()


@pytest.mark.parametrize("text", ["(" * 500, "f'{" * 500, "lambda:" * 300, "[" * 100 + "]" * 100 + "\nx", "}" * 50])
def test_deep_nesting_degrades_without_a_crash(text: str) -> None:
    fields, registers = at_every_byte(text.encode())
    assert len(fields) == len(text) + 1
    assert registers[:, lexer.CONTEXT.index("bracket_depth")].max() < t.MAX_BRACKETS


def test_deep_blocks_degrade_without_a_crash() -> None:
    text = "".join(" " * i + "if x:\n" for i in range(200)) + " " * 200 + "y\nz\n"
    fields, registers = at_every_byte(text.encode())
    assert registers[:, lexer.CONTEXT.index("block_depth")].max() == t.MAX_BLOCKS - 1
    assert registers[-1, lexer.CONTEXT.index("block_depth")] == 0


def field(text: str, name: str) -> str:
    i = [each.name for each in lexer.FIELDS].index(name)
    value = lexer.FIELDS[i].decode(int(lexer.state_at_end(text.encode())[i]))
    return str(value)


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("def", "last", "keyword"), ("default", "last", "name"), ("def f(a, b", "slot", "parameter"),
        ("def f(a: int = 3", "slot", "default"), ("def f(a) -> list[", "slot", "annotation"),
        ("class A(metaclass=", "slot", "argument_value"), ("x: dict[str,", "slot", "annotation"),
        ("f(a, b=", "slot", "argument_value"), ("f(a, b=1, ", "slot", "argument"), ("f(a == b", "slot", "argument"),
        ("f(g(x), ", "slot", "argument"), ("x = [i for i", "slot", "comprehension_target"),
        ("x = [i for i, j in y if", "slot", "comprehension_condition"), ("{1: 2, ", "slot", "key"),
        ("{1: 2", "slot", "value"), ("{'a': lambda x: x", "slot", "value"), ("f(lambda x, y=1", "slot", "default"),
        ("f(lambda x: x, ", "slot", "argument"), ("x[1:", "slot", "subscript"), ("x = y = ", "slot", "right_hand_side"),
        ("import a.b as", "slot", "import_as"), ("from . import (a, b", "slot", "import_name"),
        ("from ..a", "slot", "from_module"), ("with a as b, ", "slot", "with_item"), ("for i", "slot", "for_target"),
        ("for i in", "slot", "for_iterable"), ("async for i in", "slot", "for_iterable"),
        ("async def", "slot", "def_name"), ("match x", "slot", "condition"), ("match = x", "slot", "right_hand_side"),
        ("match(x)", "slot", "expression"), ("match x:\n    case A(b=", "slot", "argument_value"),
        ("match x:\n    case [a", "slot", "pattern"), ("type X = ", "slot", "right_hand_side"),
        ("x = 1 if", "slot", "right_hand_side"), ("@a.b", "slot", "decorator"), ("raise A from", "slot", "raise_value"),
        ("self.", "receiver", "self"), ("import os\nos.", "receiver", "module"), ("import a.b\nb.", "receiver", "name"),
        ("import a as b\nb.", "receiver", "module"), ("from a import (b as c)\nc.", "receiver", "imported"),
        ("super().", "receiver", "super"), ("f(super).", "receiver", "call"), ("x[0].", "receiver", "item"),
        ("''.", "receiver", "string"), ("a.b.", "receiver", "attribute"), ("class A: pass\nA.", "receiver", "class"),
        ("from .", "receiver", "relative"), ("self.na", "receiver", "self"), ("self.name(", "receiver", "none"),
        ("x", "name", "new"), ("x = 1\nx", "name", "seen"), ("def f(): pass\nf", "name", "function"),
        ("get_", "name", "unfinished"), ("len", "name", "builtin"), ("self", "name", "self"),
        ("'''a", "text", "docstring"), ("x = '''a", "text", "triple_string"), ("def f():\n  'a", "text", "docstring"),
        ("if x:\n  'a", "text", "string"), ("b'", "text", "bytes"), ("Rb'", "text", "bytes"), ("f'", "text", "fstring"),
        ("f'{x", "text", "code"), ("f'{x:", "text", "format_spec"), ("f'{x}", "text", "fstring"),
        ("f'{{", "text", "fstring"), ("f'{x:{y}", "text", "format_spec"), ("f'{x!r}'", "text", "code"),
        ("f'\\N{DASH}", "text", "fstring"), ("f'{a[\"b\"]", "slot", "field"), ("f'{x:>{", "slot", "field"),
        ("x = ''", "text", "code"), ("x = ''''", "text", "triple_string"), ("'a\n", "text", "code"),
        ("x = 'a\\\n", "text", "string"), ("x = r'\\'", "text", "string"), ("'\\\\'", "text", "code"),
        ("# a", "text", "line_comment"),
        ("x # a", "text", "comment"), ("x # a\n", "text", "code"), ("x = '\\\r\na", "text", "string"),
        ("def f():\n    ", "line", "first"), ("def f():\n    x\n", "line", "dedent"), ("x\ny\n", "line", "same"),
        ("f(a,\n  ", "line", "continued"), ("def f():\n    x\n\n    ", "blank", "True"), ("x\n", "blank", "False"),
        ("def f():\n    ", "block", "function"), ("class A:\n  x\n  ", "block", "class"), ("try:\n  ", "block", "try"),
        ("def f():\n  # note\n  ", "block", "function"), ("def f(:\n    x = (\ndef g():\n    ", "block", "function"),
        ("if x: y\n", "block", "module"), ("def f():\r\n    x\r\n    ", "block", "function"),
        ("def f():\n\tif x:\n\t\ty\n        ", "block", "function"), ("x", "alone", "True"), ("x.y", "alone", "False"),
        ("f(a", "alone", "True"), ("f(a, b.c", "alone", "False"), ("x = 1.5e-3", "last", "number"),
        ("x = 1 if a else", "last", "logical"), ("x\\\n", "last", "name"), ("...", "last", "constant"),
        ("f(*", "last", "star"), ("a *", "last", "arithmetic"), ("a @", "last", "arithmetic"),
        ("a >=", "last", "comparison"),
        ("a >>=", "last", "augmented"), ("(a :=", "last", "assign"), ("x;", "last", "semicolon"),
    ],
)  # fmt: skip
def test_fields(text: str, name: str, value: str) -> None:
    assert field(text, name) == value


def words(text: str) -> dict[str, str | None]:
    """The registers after `text`, each as the identifier or line that starts there."""
    data = text.encode()
    _, registers = lexer.run(np.frombuffer(data, np.uint8), np.array([len(data)]))
    found = {}
    for name, offset in zip(lexer.CONTEXT, registers[0].tolist(), strict=True):
        rest = text[offset:] if offset >= 0 else ""
        word = "".join(c if c.isalnum() or c == "_" else " " for c in rest).split(" ")[0]
        found[name] = None if offset < 0 else (word or rest[:1])
    return found


def test_registers_in_nested_calls() -> None:
    found = words("def outer(a):\n    value = first(one, key=second(two, three, name=na")
    expected = {
        "callee": "second", "outer_callee": "first", "argument_name": "name", "previous_argument": "three",
        "assign_target": "value", "block_header": "def", "block_name": "outer", "def_name": "outer",
        "line_first": "value", "line_second": "=", "name_start": "na", "class_name": None, "open_bracket": "(",
    }  # fmt: skip
    assert {name: found[name] for name in expected} == expected


def test_registers_of_blocks() -> None:
    text = (
        "class A(Base):\n    @property\n    def one(self):\n        return self.x\n\n"
        "    @cached(1)\n    def two(self):\n"
        "        if self.y:\n            first = 1\n            second"
    )
    found = words(text)
    expected = {
        "class_name": "A", "def_name": "two", "block_header": "if", "outer_header": "def", "sibling_first": "first",
        "previous_line_first": "first", "previous_line_second": "=", "line_first": "second", "block_name": None,
    }  # fmt: skip
    assert {name: found[name] for name in expected} == expected
    assert words(text[: text.index("def one")])["decorator"] == "property"
    after = words(text[: text.index("first = 1")])  # the header's block counts as soon as its indentation is written
    assert (after["block_header"], after["sibling_first"], after["previous_line_first"]) == ("if", None, "if")
    dedented = words(text + "\n    ")
    assert (dedented["block_header"], dedented["def_name"], dedented["sibling_first"]) == ("class", None, "def")


def test_registers_of_attributes_and_strings() -> None:
    assert words("x = call(a)[0].")["receiver"] == "call"
    assert words("x = obj.name")["receiver"] == "obj"
    assert words("x = obj.name +")["receiver"] is None
    assert words("from a.b import c")["module_name"] == "a"
    assert words("for key, value in")["for_target"] == "key"
    assert words("print('abc")["text_start"] == "'"
    assert words("print('abc'")["text_start"] is None


def test_the_cache_of_machine_code_expires_with_every_source() -> None:
    from cgpt.compiled import _LEXER, _MODEL, FINGERPRINT
    from kernels.numba_cache import fingerprint

    folder = Path(lexer.__file__).parent
    using = {path.name for path in folder.glob("*.py") if "@compiled" in path.read_text(encoding="utf-8")}
    assert using - {"compiled.py"} <= {*_LEXER, *_MODEL}
    assert "lexer_tables.py" in _LEXER  # its numbers are compiled in as well
    assert (
        lexer.step._cache._index_key((), _codegen())[-1] == FINGERPRINT == fingerprint(folder / name for name in _LEXER)
    )


def _codegen():
    return lexer.step.targetctx.codegen()


def test_boundaries_are_checked() -> None:
    data = np.frombuffer(b"x = 1", np.uint8)
    for bad in ([3, 2], [-1], [6]):
        with pytest.raises(ValueError, match="boundaries"):
            lexer.run(data, np.array(bad))
