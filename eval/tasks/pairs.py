"""Minimal pairs with known answers: the same text twice, once with the right bracket, indentation or name.

Everything is generated here by plain code with a fixed seed, so no answer is a matter of opinion: of the two bracket
and indentation variants one compiles and the other does not; of the two names one is bound where it stands and the
other is not. A model is right where it finds the right text more probable, whatever its tokens are.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from cgpt.corpus import SourceFile
from eval.models import EvalModel
from eval.tasks.base import Example, Measured, Metric, Options, Task

PER_FAMILY = 150
_NAMES = (
    "alpha items lines words files names count total width value index limit start level field table query event shape"
    " score paths nodes edges model batch token label image frame stack queue owner group state reply"
).split()
_CLOSE = {"(": ")", "[": "]", "{": "}"}


@dataclass(frozen=True)
class Pair:
    """Two texts of which `right` is right."""

    family: str
    right: bytes
    wrong: bytes


def _bracket(rng: random.Random) -> Pair:
    """Two to four open brackets; which closes first?"""
    first, *others = rng.sample(_NAMES, 8)
    text, stack = f"{first} = ", []
    for depth in range(rng.randint(2, 4)):
        kind = rng.choice("([{" if depth else "([")
        text += {"(": others[depth] + "(", "[": others[depth] + "[", "{": '{"' + others[depth] + '": '}[kind]
        stack.append(kind)
        if kind == "(" and rng.random() < 0.5:
            text += f"{others[5]}, "
    text += others[6]
    right = "".join(_CLOSE[kind] for kind in reversed(stack))
    wrong = rng.choice([close for close in _CLOSE.values() if close != right[0]])
    return Pair("bracket", f"{text}{right}\n".encode(), f"{text}{wrong}{right[1:]}\n".encode())


def _body(rng: random.Random) -> Pair:
    """The line after a header must be deeper."""
    a, b, c = rng.sample(_NAMES, 3)
    indent = " " * (4 * rng.randint(0, 1))
    header = rng.choice([f"if {a}:", f"for {a} in {b}:", f"while {a} < {b}:", f"with open({a}) as {b}:"])
    outer = f"def {c}({a}, {b}):\n" if indent else f"{a} = {b} = []\n"
    line = f"{b} = {a} + 1"
    before = f"{outer}{indent}{header}\n"
    return Pair("body is deeper", f"{before}{indent}    {line}\n".encode(), f"{before}{indent}{line}\n".encode())


def _dedent(rng: random.Random) -> Pair:
    """A line after a block stands where some block stands, never between."""
    a, b, c = rng.sample(_NAMES, 3)
    before = f"def {c}({a}, {b}):\n    for {c} in {a}:\n        if {c} > {b}:\n            {a} = {c}\n"
    column = rng.choice([4, 8])
    line = f"{b} = {a} + {c}\n"
    return Pair(
        "dedent to a block", f"{before}{' ' * column}{line}".encode(), f"{before}{' ' * (column - 2)}{line}".encode()
    )


def _function_names(rng: random.Random) -> Pair:
    """Names bound in the other function only are not bound here."""
    f, g, a, b, c, d = rng.sample(_NAMES, 6)
    other = f"def {f}({a}, {b}):\n    {a}.append({b})\n    return {a}\n\n\n"
    before = f"{other}def {g}({c}, {d}):\n    {c} = {c} + 1\n    return "
    right, wrong = rng.choice([c, d]), rng.choice([a, b])
    return Pair("name of this function", f"{before}{right}\n".encode(), f"{before}{wrong}\n".encode())


def _keyword_names(rng: random.Random) -> Pair:
    """A keyword of a call binds nothing."""
    f, g, a, b, c = rng.sample(_NAMES, 5)
    before = f"def {f}({a}):\n    {c} = {g}({b}={a})\n    print({b}={a})\n    print({c})\n    return "
    return Pair("keyword is no name", f"{before}{c}\n".encode(), f"{before}{b}\n".encode())


FAMILIES: tuple[Callable[[random.Random], Pair], ...] = (_bracket, _body, _dedent, _function_names, _keyword_names)


def pairs(options: Options) -> list[Example]:
    """The pairs of all families; they depend on nothing but this file."""
    examples = []
    for number, make in enumerate(FAMILIES):
        rng, seen = random.Random(number), set()
        while len(seen) < PER_FAMILY:
            pair = make(rng)
            if pair.right in seen:
                continue
            seen.add(pair.right)
            digest = hashlib.sha256(pair.right + b"\0" + pair.wrong).hexdigest()
            name = f"{pair.family} {len(seen):03d}"
            examples.append(Example(name, name, pair, digest))
    return examples


def measure(model: EvalModel, example: Example) -> Iterable[Measured]:
    """One pair: right or wrong, and by how many bits."""
    pair: Pair = example.data
    right, wrong = (_bits(model, text) for text in (pair.right, pair.wrong))
    values = {"right": float(right < wrong), "pairs": 1.0, "margin": wrong - right}
    yield Measured(values)
    yield Measured(values, pair.family)


def _bits(model: EvalModel, text: bytes) -> float:
    # Without the end of the file: the text need not be over.
    return float(model.score_file(SourceFile("pair.py", text, "pair", "")).bits[:-1].sum())


PAIRS = Task(
    name="pairs",
    version=1,
    question="Does the model find the right bracket, indentation and name more probable than a wrong one?",
    columns=("right", "pairs", "margin"),
    metrics=(
        Metric("pairs right", "right", "pairs", percent=True),
        Metric("margin in bits", "margin", "pairs", digits=2),
    ),
    load=pairs,
    measure=measure,
    needs=frozenset({"score"}),
    uses=(),
)
