"""The restricted language: everything outside of the subset is refused with its line, whatever way it is written."""

from __future__ import annotations

import dis
import types
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ontology.checker import check_source
from ontology.errors import ConstructibleError
from ontology.restricted import Checked, Helper, NumberField, RestrictedError, StateField
from ontology.routers import Router

FIELDS = (StateField("last", ("start", "dot", "name")), StateField("in_call", ("no", "yes")), StateField("depth", 6))
HELPERS = {"least": Helper(min, takes=("number",), variadic=True)}

# Bodies of `def route(state):` and whole files (those that start at column 0), each a way out or a way to blow up.
ESCAPES = [
    # reaching objects through attributes
    "return state.__class__.__name__",
    'if state.__class__:\n    return "a"\nreturn "b"',
    'if state.last.__class__ == "x":\n    return "a"\nreturn "b"',
    'x = ().__class__.__bases__\nreturn "a"',
    'x = "".__class__\nreturn "a"',
    'x = state.last.upper()\nreturn "a"',
    'x = "{0.__class__}".format(state)\nreturn "a"',
    'x = state\nreturn "a"',
    'x = state.missing\nreturn "a"',
    'x = state._private\nreturn "a"',
    'x = least.__globals__\nreturn "a"',
    'state.last = "dot"\nreturn "a"',
    'del state.last\nreturn "a"',
    # calling
    'x = eval("1")\nreturn "a"',
    'x = exec("1")\nreturn "a"',
    'x = open("/etc/passwd")\nreturn "a"',
    'x = __import__("os")\nreturn "a"',
    'x = getattr(state, "last")\nreturn "a"',
    'x = type(state)\nreturn "a"',
    'x = globals()\nreturn "a"',
    'x = route(state)\nreturn "a"',
    'x = (lambda: 1)()\nreturn "a"',
    'x = least(*(1, 2))\nreturn "a"',
    'x = least(**state)\nreturn "a"',
    'x = least(1, key=1)\nreturn "a"',
    'x = least("a")\nreturn "a"',
    'x = least()\nreturn "a"',
    'x = least\nreturn "a"',
    'least = 1\nreturn "a"',
    'x = state.last()\nreturn "a"',
    'x = "a"()\nreturn "a"',
    'x = [1][0]()\nreturn "a"',
    'print("a")\nreturn "a"',
    'breakpoint()\nreturn "a"',
    # comprehensions, f-strings and other expressions
    'x = [c for c in "abc"]\nreturn "a"',
    'x = {c for c in "abc"}\nreturn "a"',
    'x = {c: c for c in "abc"}\nreturn "a"',
    'x = (c for c in "abc")\nreturn "a"',
    'x = f"{state}"\nreturn "a"',
    'x = f"plain"\nreturn "a"',
    'x = f"{state.last!r:>{10**9}}"\nreturn "a"',
    'if (x := 5) > 3:\n    return "a"\nreturn "b"',
    'x = lambda: 1\nreturn "a"',
    'x = 1 if state.in_call else 2\nreturn "a"',
    'x = state.last[0]\nreturn "a"',
    'x = "abc"[::-1]\nreturn "a"',
    "x = (1, 2)[0]\nreturn 'a'",
    'x = {"a": 1}\nreturn "a"',
    "x = [*state]\nreturn 'a'",
    'x = (state.last, "b")\nreturn "a"',
    "x = ()\nreturn 'a'",
    'x = ("a", 1)\nreturn "a"',
    'x = (("a",),)\nreturn "a"',
    'x = ...\nreturn "a"',
    'x = None\nreturn "a"',
    'x = b"a"\nreturn "a"',
    'x = 1j\nreturn "a"',
    'x = await state\nreturn "a"',
    'yield "a"\nreturn "a"',
    'x = yield\nreturn "a"',
    'yield from state\nreturn "a"',
    # numbers that blow up
    'x = 10**10**10\nreturn "a"',
    'x = 2**3\nreturn "a"',
    'x = 1 << 100000000\nreturn "a"',
    'x = 1 >> 1\nreturn "a"',
    'x = 99999999999999999999\nreturn "a"',
    'x = 1e300\nreturn "a"',
    'x = 1e999\nreturn "a"',
    'x = 0xffffffffffffffffffff\nreturn "a"',
    "x = 999999999\n" + "x = x * x\n" * 60 + 'return "a"',
    "x = 1\n" + "x = x + x\n" * 70 + 'return "a"',
    'x = 1 / 0\nreturn "a"',
    'x = 1 // 0\nreturn "a"',
    'x = 1 % state.depth\nreturn "a"',
    'x = 1 / 1e-300\nreturn "a"',
    'x = 1 / True\nreturn "a"',
    'x = "a" * 1000000000\nreturn "a"',
    'x = ("a",) * 1000000000\nreturn "a"',
    'x = "a" + "b"\nreturn "a"',
    'x = "%s" % state.last\nreturn "a"',
    "x = ~1\nreturn 'a'",
    "x = 1 | 2\nreturn 'a'",
    "x = 1 & 2\nreturn 'a'",
    "x = 1 ^ 2\nreturn 'a'",
    "x = 1 @ 2\nreturn 'a'",
    "x = -state.last\nreturn 'a'",
    "x = " + "(" * 60 + "1" + ")" * 60 + " + not_a_name\nreturn 'a'",
    "x = " + "not " * 60 + "True\nreturn 'a'",
    "x = " + "1 + " * 3000 + "1\nreturn 'a'",
    # statements
    'while True:\n    return "a"',
    'for x in (1, 2):\n    return "a"\nreturn "b"',
    'try:\n    return "a"\nexcept Exception:\n    return "b"',
    'try:\n    return "a"\nfinally:\n    return "b"',
    'with state:\n    return "a"',
    'match state.last:\n    case "dot":\n        return "a"\nreturn "b"',
    'raise ValueError\nreturn "a"',
    'assert state.in_call\nreturn "a"',
    'global x\nreturn "a"',
    'nonlocal x\nreturn "a"',
    'import os\nreturn "a"',
    'from os import system\nreturn "a"',
    'def inner():\n    return "b"\nreturn "a"',
    'class Inner:\n    pass\nreturn "a"',
    'async def inner():\n    pass\nreturn "a"',
    'pass\nreturn "a"',
    '"a string"\n"another"\nreturn "a"',
    'state.last\nreturn "a"',
    'x += 1\nreturn "a"',
    'x = 1\nx += 1\nreturn "a"',
    'x: int = 1\nreturn "a"',
    "x: __import__('os') = 1\nreturn 'a'",
    'x = y = 1\nreturn "a"',
    'x, y = 1, 2\nreturn "a"',
    "[x] = (1,)\nreturn 'a'",
    "*x, y = (1, 2)\nreturn 'a'",
    'state = 1\nreturn "a"',
    '__builtins__ = 1\nreturn "a"',
    '_x = 1\nreturn "a"',
    'x__ = 1\nreturn "a"',
    'state_last__0 = "start"\nreturn "a"',
    'trace__ = 1\nreturn "a"',
    'x = 1; return "a"',
    'if state.in_call: return "a"\nreturn "b"',
    # paths and values
    "x = 1",
    'if state.in_call:\n    return "a"',
    'if state.in_call:\n    return "a"\nelif state.depth > 1:\n    return "b"',
    "return",
    "return None",
    "return 5",
    'return state.last',
    'x = "a"\nreturn x',
    'return "a" "b" if state.in_call else "c"',
    'return ""',
    'return "../../etc/passwd"',
    'return "a b"',
    'return "ä"',
    'return "a"\nreturn "b"',
    'if state.in_call:\n    return "a"\nelse:\n    return "b"\nreturn "c"',
    'if state.in_call:\n    x = 1\nif x > 0:\n    return "a"\nreturn "b"',
    'if unknown:\n    return "a"\nreturn "b"',
    'if True == Tru:\n    return "a"\nreturn "b"',
    'if state.last:\n    return "a"\nreturn "b"',
    'if state.last == "dott":\n    return "a"\nreturn "b"',
    'if state.last in ("dot", "dott"):\n    return "a"\nreturn "b"',
    'if state.last in "dot":\n    return "a"\nreturn "b"',
    'if state.last in state:\n    return "a"\nreturn "b"',
    'if state.last < "dot":\n    return "a"\nreturn "b"',
    'if state.last is "dot":\n    return "a"\nreturn "b"',
    'if state.in_call == "yes":\n    return "a"\nreturn "b"',
    'if state.depth == "3":\n    return "a"\nreturn "b"',
    'if state.last == 3:\n    return "a"\nreturn "b"',
    # letters that look alike, and letters that Python folds together
    'ѕtate = 1\nreturn "a"',
    'if ſtate.in_call:\n    return "a"\nreturn "b"',
    'if state.l\u1d43st == "dot":\n    return "a"\nreturn "b"',
    '\uff45\uff56\uff41\uff4c("1")\nreturn "a"',
    # files
    'import os\ndef route(state):\n    return "a"\n',
    'X = 1\ndef route(state):\n    return "a"\n',
    'def route(state):\n    return "a"\ndef other(state):\n    return "b"\n',
    'def route(state):\n    return "a"\nroute = 1\n',
    '@staticmethod\ndef route(state):\n    return "a"\n',
    '@__import__("os").system\ndef route(state):\n    return "a"\n',
    'def route(state=__import__("os")):\n    return "a"\n',
    'def route(state, x=1):\n    return "a"\n',
    'def route(state, *, x=__import__("os")):\n    return "a"\n',
    'def route(state, *rest):\n    return "a"\n',
    'def route(state, **rest):\n    return "a"\n',
    'def route(state, /):\n    return "a"\n',
    'def route(state: __import__("os")):\n    return "a"\n',
    'def route(state) -> __import__("os"):\n    return "a"\n',
    'def route():\n    return "a"\n',
    'def other(state):\n    return "a"\n',
    'async def route(state):\n    return "a"\n',
    "route = lambda state: 'a'\n",
    'class route:\n    pass\n',
    "def route(state):\n    '''only a docstring'''\n",
    "",
    '"""only a docstring"""\n',
    'def route(state)\n    return "a"\n',
    'def route(state):\nreturn "a"\n',
    'def route(state):\n    return "a\n',
    '# -*- coding: utf-7 -*-\n+AGUAdgBhAGw-("1")\n',
    'def route(state):\n    return "a"\0\n',
    'def route(state):\n    if state.last == "\\d":\n        return "a"\n    return "b"\n',
    "def route(state):\n" + "".join("    " * i + "if state.in_call:\n" for i in range(1, 99)) + " " * 400 + "x\n",
    "(" * 5000,
    f"if state.depth == {10**400}:\n    return 'a'\nreturn 'b'",
    "#" * 300_000,
]  # fmt: skip


def whole(text: str) -> str:
    """Wrap a body into `def route(state):`; whole files stay as they are."""
    files = (
        "def ",
        "@",
        "async def route",
        "import os\ndef",
        "X = ",
        "route =",
        "class route",
        '"""',
        "# -*-",
        "(((",
        "###",
    )
    if not text or text.startswith(files):
        return text
    return "def route(state):\n" + "".join(f"    {line}\n" for line in text.split("\n"))


@pytest.mark.parametrize("text", ESCAPES, ids=range(len(ESCAPES)))
def test_every_escape_is_refused_with_line_and_reason(text: str) -> None:
    with pytest.raises(RestrictedError) as caught:
        Router.parse(whole(text), FIELDS, HELPERS, file="router.py")
    assert caught.value.file == "router.py"
    assert caught.value.line is not None and caught.value.line >= 1
    assert caught.value.fix or "takes a number here" in caught.value.message


def test_a_chain_that_python_cannot_compile_is_refused() -> None:
    chain = "".join(f"elif state.depth * 100 == {i}:\n    return 'c{i}'\n" for i in range(1, 4000))
    text = whole(f"if state.depth == 0:\n    return 'c0'\n{chain}return 'b'")
    with pytest.raises(RestrictedError):
        router = Router.parse(text, FIELDS, HELPERS, file="router.py")
        router.route([[1, 1, 1]])


def test_the_line_is_the_one_at_fault() -> None:
    source = whole('x = 1\nif state.in_call:\n    y = state.lst\nreturn "a"')
    with pytest.raises(RestrictedError, match=r"router.py:4: state has no field 'lst'. Did you mean 'last'\?"):
        Router.parse(source, FIELDS, file="router.py")


ALLOWED = [
    'return "a"',
    'if state.in_call and not state.depth > 2 or state.last == "dot":\n    return "a"\nreturn "b"',
    'if state.last in {"dot", "name"}:\n    return "a"\nelse:\n    return "b"',
    'if state.depth in (1, -2, 3):\n    return "a"\nreturn "b"',
    'x = state.depth * 3 - 1\ny = x // 2 + x % 5 + x / 4\nif 0 < y <= 7 != x:\n    return "a"\nreturn "b"',
    'x = True\nif state.in_call:\n    x = False\nif x:\n    return "a"\nreturn "b"',
    'group = ("dot", "name")\nif state.last in group:\n    return "a"\nreturn "b"',
    'if least(state.depth, 2, 3) == 2:\n    return "a"\nreturn "b"',
    'if (\n    state.in_call\n    and state.depth == 1\n):\n    return "a"\nreturn "b"',
    "\n".join(["if state.depth == 0:", '    return "c0"'] + [
        line for i in range(1, 400) for line in (f"elif state.depth * 100 == {i}:", f'    return "c{i}"')
    ] + ['return "b"']),
]  # fmt: skip


@pytest.mark.parametrize("text", ALLOWED, ids=range(len(ALLOWED)))
def test_what_the_subset_allows_passes(text: str) -> None:
    router = Router.parse(whole(text), FIELDS, HELPERS)
    assert router.concepts[int(router.route([[1, 1, 1]])[0])] == router.trace([1, 1, 1]).concept


def code_of(checked: Checked, trace: bool) -> types.CodeType:
    return checked.compile(trace=trace).__code__


def assert_harmless(checked: Checked) -> None:
    """The compiled code has no attribute, import, subscript or loop, and names nothing but helpers."""
    for trace in (False, True):
        code = code_of(checked, trace)
        operations = {instruction.opname for instruction in dis.get_instructions(code)}
        bad = {name for name in operations if "ATTR" in name or "IMPORT" in name or "SUBSCR" in name or "ITER" in name}
        assert not bad and "LOAD_METHOD" not in operations and "MAKE_FUNCTION" not in operations
        assert set(code.co_names) <= set(HELPERS)
        assert not code.co_freevars and not code.co_cellvars
        assert checked.compile(trace=trace).__globals__["__builtins__"] == {}


@pytest.mark.parametrize("text", ALLOWED, ids=range(len(ALLOWED)))
def test_compiled_code_can_reach_nothing(text: str) -> None:
    checked = check_source(whole(text), arguments=("state",), attributes={"state": FIELDS}, helpers=HELPERS)
    assert_harmless(checked)


_PARTS = [
    "state", ".last", ".__class__", ".depth", "in_call", "(", ")", "[0]", '"dot"', '"a"', "f'{state}'", "lambda: 0",
    "==", " in ", " and ", "not ", "1", "1e5", "**", "*", "-", ",", " if ", " else ", ":=", "x", "least",
    "eval", "for x in ",
    "\n    ", "\n        ", "if ", ":", "return ", "x = ", "__", " ", "ſ", "#", ";", "\\\n", "state.last",
    'return "a"', 'if state.in_call:\n        return "b"',
]  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(st.lists(st.sampled_from(_PARTS), max_size=14), st.booleans())
def test_random_text_is_refused_or_harmless(parts: list[str], ends: bool) -> None:
    source = "def route(state):\n    " + "".join(parts) + ('\n    return "end"\n' if ends else "\n")
    try:
        checked = check_source(source, arguments=("state",), attributes={"state": FIELDS}, helpers=HELPERS)
    except ConstructibleError as error:
        assert error.line is not None
        return
    assert_harmless(checked)
    router = Router(checked, FIELDS)
    for row in ([0, 0, 0], [1, 1, 5], [2, 0, 3]):
        assert router.trace(row).concept in router.concepts


def test_rules_are_the_same_language_with_another_signature() -> None:
    source = '''def daisy(score, size):
    """Petals around a disk."""
    both = least(score.petal, score.disk)
    if both < 0.5:
        return both * 0.5
    return both + 0.1 * (score.stem - 0.5) * size
'''
    scores = [NumberField("petal"), NumberField("disk"), NumberField("stem", -1.0, 1.0)]
    checked = check_source(
        source, arguments=("score", "size"), attributes={"score": scores}, helpers=HELPERS, returns="number"
    )
    assert checked.names == ()
    assert checked.used == (("score", "petal"), ("score", "disk"), ("score", "stem")) and checked.free == ("size",)
    assert checked.compile()(0.9, 0.8, 1.0, 0.5) == pytest.approx(0.8 + 0.1 * 0.5 * 0.5)
    lines: list[int] = []
    assert checked.compile(trace=True)(lines.append, 0.2, 0.8, 1.0, 0.5) == pytest.approx(0.1)
    assert lines == [3, 4, 5]
    with pytest.raises(RestrictedError, match="returns something else than a number"):
        check_source('def rule(x):\n    return "a"\n', arguments=("x",), attributes={}, returns="number")


def test_a_file_that_cannot_be_read_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConstructibleError, match="cannot be read"):
        Router.load(tmp_path / "missing.py", FIELDS)
    (tmp_path / "latin.py").write_bytes(b'def route(state):\n    return "\xe4"\n')
    with pytest.raises(RestrictedError, match="not UTF-8"):
        Router.load(tmp_path / "latin.py", FIELDS)
    with pytest.raises(ConstructibleError, match="declared twice"):
        Router.parse('def route(state):\n    return "a"\n', [FIELDS[0], FIELDS[0]])
