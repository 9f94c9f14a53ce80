"""`--valid`: whatever is drawn, what stands there is free of tokenize, bracket and indentation errors."""

from __future__ import annotations

import ast
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cgpt import lexer, valid_bytes, valid_numbers
from cgpt.complete import complete
from cgpt.corpus import SourceFile
from cgpt.model import ConstructedLM
from cgpt.valid import Checker, python_error

PROMISED = ("tokenize", "indentation", "bracket")


def borders(data: bytes) -> list[int]:
    """Offsets of line starts up to which a file compiles."""
    lines = data.splitlines(keepends=True)
    offsets = np.cumsum([0] + [len(line) for line in lines]).tolist()
    return [at for at in offsets[:: max(1, len(offsets) // 12)] if python_error(data[:at]) is None]


def number_state(text: bytes) -> int:
    state = valid_numbers.N_ZERO if text[:1] == b"0" else valid_numbers.N_DIGITS
    for byte in text[1:]:
        state = valid_numbers.number_step(state, byte)
    return state


@settings(max_examples=600, deadline=None)
@given(st.text("0123456789_.eEjJxXoObBaAfF+-", max_size=7), st.sampled_from("0123456789"))
def test_numbers_are_those_of_python(rest: str, first: str):
    text = first + rest
    try:
        value = ast.parse(text, mode="eval").body
        python = isinstance(value, ast.Constant) and isinstance(value.value, int | float | complex)
    except SyntaxError:
        python = False
    state = number_state(text.encode())
    if state >= valid_numbers.N_COMPLETE:
        assert python, text
    elif python:
        assert text.startswith("0_"), text  # 0_1.5 is refused although Python takes it


@pytest.mark.parametrize(
    ("prompt", "refused", "taken"),
    [
        (b"x = foo(a", [b"]", b"}", b"\n    b", b";"], [b")", b", b", b" +", b"\n"]),
        (b"x = 'a", [b"\n", b"\x00", b"\xff"], [b"'", b"\xc3\xa9", b"\\'"]),
        (b"def f():\n", [b"x", b"\tx\n        y"], [b"    x", b"\n    x", b"# a\n    x"]),
        (b"if x:\n    y\n", [b"        z", b"  z", b"\tz"], [b"    z", b"z", b"elif ", b"else:"]),
        (b"class A:\n    @b\n", [b"def f", b"@c", b"  def f"], [b"    def f", b"    @c", b"\n    async def"]),
        (b"y = 1\n", [b" x", b"else:", b"elif x", b"except:"], [b"x", b"# a"]),
        (b"x =", [b"\n", b" =", b" )", b" return x", b" *\n"], [b" 1", b" -1", b" not x", b" (", b" lambda: 0"]),
        (b"x = y", [b" z", b" 1", b" {", b" return", b"'"], [b"z", b" if", b" in z", b".z", b"[0]", b"\n"]),
        (b"x = 0", [b"1\n", b"x\n", b"b2", b"_\n", b"a"], [b".5", b"x1f\n", b"b1", b"_0", b"\n"]),
        (b"x = f'{a", [b"'", b"\n", b"#", b"\\", b"]"], [b"}", b"!r}", b":>{w}}'", b'["k"]}']),
        (b"x = f'a}", [b"'", b"b"], [b"}'"]),
        (b"def f", [b":", b"[", b"\n", b" g"], [b"(", b"oo("]),
        (b"from a", [b" as b", b"\n", b"("], [b" import b", b".c import"]),
        (b"class A(", [b"\ndef ", b"]"], [b"):\n    x", b"B):"]),
        (b"x = 1 \\", [b" ", b"y"], [b"\n"]),
        (b"def f(a", [b".", b" b", b"[", b" if", b"'"], [b", *", b": int = 3", b"=(", b")"]),
        (b"for x", [b" ==", b":", b" or", b"'"], [b", y", b".z", b"[0]", b" in "]),
        (b"from a import b", [b".c", b" + ", b"(", b" b"], [b" as c", b", d", b"\n", b";"]),
        (b"x = 1\n", [b"return ", b"break\n", b"continue\n"], [b"returned", b"def f():\n    return"]),
        (b"for x in y:\n    if x:\n", [b"        return "], [b"        break", b"        continue"]),
        (b"x = '\\x", [b"'", b"g0", b"1'"], [b"1f'", b"A0b"]),
        (b"x = '", [b"\\N{", b"\\u12'", b"\\U1"], [b"\\u12ab'", b"\\n", b"\\U0001d4b7"]),
        (b"x = r'", [b"\n"], [b"\\x'", b"\\N"]),
        (b"x = f'{a:", [b"'", b"\n"], [b"#x}", b">{w}}"]),
        (b"try:\n    x\n", [b"y", b"1", b"else"], [b"    y", b"except A:", b"finally:"]),
        (b"@foo\n", [b""], [b"def ", b"class A"]),
        (b"x = (", [b"$", b"?", b"`", b"\x0c", b"\xe2\x80\xa6"], [b"y"]),
    ],
)
def test_what_may_come_next(prompt: bytes, refused: list[bytes], taken: list[bytes]):
    for piece in refused:
        checker = Checker(prompt)
        assert checker.length(piece) == 0 or checker.length(piece) < len(piece), piece
        assert checker.text == prompt
    for piece in taken:
        assert Checker(prompt).length(piece) == len(piece), piece


@pytest.mark.parametrize(
    "prompt",
    [
        b"", b"def f(x):\n    return foo(", b"x = [1, {2: (3", b"if x:\n    y = 'abc\\", b"for", b"for x", b"def",
        b"def f", b"class A(", b"@foo", b"@foo\n", b"class A:\n    @foo\n", b"x = f'{a", b"x = f'{", b"x = f'{a:>{w",
        b"x = f'a}", b"lambda x", b"import", b"from x", b"if a:\n\tb\n", b"if a:\n\tif b:\n", b"x = 0x", b"x = 1e",
        b"x = 012", b"x = '\\x1", b"x = 1_", b'"""abc', b'x = """ab""',
        b"x = r'\\", b"if a:\n    y\n  ", b"x = 1 if", b"with a", b"x \\", b"x = (  # note", b"# note", b"x !",
        b"x = b'", b"match x", b"try:\n", b"try:\n    x", b"async", b"x = (lambda a", "x = 'é".encode()[:-1],
    ],
)  # fmt: skip
def test_any_beginning_can_be_closed(prompt: bytes):
    checker = Checker(prompt)
    made = checker.closing()
    assert checker.ended and made.endswith(b"\n") and len(made) < 60
    error = python_error(prompt + made)
    assert error is None or error[0] == "other", error


@pytest.mark.parametrize("soft", [True, False])
def test_random_tokens_keep_the_promise(model: ConstructedLM, unseen: list[SourceFile], soft: bool):
    """Not a model's choice but anything at all, from prompts that compile: hundreds of statements, no such error."""
    draw = random.Random(0)
    pieces = model.tokenizer.token_bytes[1:]
    common = [model.tokenizer.token_bytes[token] for file in unseen for token in model.tokenizer.encode(file.data)]
    starts = [file.data[:at] for file in unseen for at in borders(file.data)]
    fine = 0
    for _ in range(400):
        prompt = draw.choice(starts)
        checker = Checker(prompt)
        source = draw.choice([pieces, common])
        for _ in range(draw.randrange(50)):
            piece = next((p for p in draw.choices(source, k=400) if checker.length(p, soft)), None)
            if piece is None or checker.accept(piece, soft) and checker.ended:
                break
        if not checker.ended:
            checker.closing()
        error = python_error(checker.text)
        assert checker.ended and (error is None or error[0] not in PROMISED), (error, checker.text[len(prompt) :])
        fine += error is None
    assert fine > (240 if soft else 10)  # the soft rules are what makes most of them whole Python


def test_the_rules_let_real_code_pass(unseen: list[SourceFile]):
    """Next to nothing that people write is refused."""
    lines = refused = 0
    for file in unseen:
        data, p = np.frombuffer(file.data, np.uint8).copy(), 0
        state, registers = lexer.new_state(), np.zeros(valid_bytes.SIZE, np.int32)
        registers[valid_bytes.STEP] = 32
        lines += file.data.count(b"\n")
        while p < len(data):
            answer = valid_bytes.admit_all(state, registers, data, p, len(data), True)
            if answer < 0:  # go on at the next line
                refused += 1
                after = next(at for at in np.flatnonzero(data == 10) + 1 if at > p)
                while valid_bytes.admit_all(*fresh(data[:p]), data, p, after, True) != -1:
                    p, after = after, next((at for at in np.flatnonzero(data == 10) + 1 if at > after), len(data))
                p = after
                state, registers = fresh(data[:p])
            else:
                p = answer or len(data)
    assert lines > 1000 and refused <= lines / 500


def fresh(data: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    state, registers = lexer.new_state(), np.zeros(valid_bytes.SIZE, np.int32)
    registers[valid_bytes.STEP] = 32
    valid_bytes.read_prompt(state, registers, data)
    return state, registers


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_completions_of_a_model_are_valid(model: ConstructedLM, unseen: list[SourceFile], temperature: float):
    """A model that is next to untrained, and budgets of tokens that end in the middle of things."""
    closed = 0
    for number, file in enumerate(unseen):
        for at in borders(file.data)[:3]:
            prompt = file.data[:at]
            made = complete(model, prompt, 3 + number % 20, temperature, number, valid=True)
            assert made.text.endswith(b"\n")
            error = python_error(prompt + made.text)
            assert error is None or error[0] not in PROMISED, (error, made.text)
            closed += bool(made.closed)
    assert closed


def test_errors_are_told_apart():
    kinds = {
        b"x = (1\n": "tokenize", b"x = 1)\n": "bracket", b"if x:\ny\n": "indentation", b"  x\n": "indentation",
        b"x = 'a\n": "tokenize", b"x = 01\n": "tokenize", b"x = = 1\n": "other", b"x = (1]\n": "bracket",
        b"if x:\n        y\n    z\n": "indentation", b"x ? y\n": "tokenize",
    }  # fmt: skip
    for text, kind in kinds.items():
        error = python_error(text)
        assert error is not None and error[0] in (kind, "tokenize"), (text, error)
    assert python_error(b"x = 1\n") is None
