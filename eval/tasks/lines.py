"""Line completion on the py150 lines of CodeXGLUE (dev split), without the lines known from public projects.

The published lines are token streams in which literals are normalised (`<STR_LIT>`) and indentation is gone. A model of
source text is shown plain code: tokens joined as a person would space them, literals filled in where they are given
and empty where not, no indentation. What it writes up to the end of the line is cut into tokens and normalised the same
way; a word at the end of what is shown is over, and every model is told so. Exact match: all tokens equal. Edit
similarity: 2 * common subsequence / both lengths, in characters.
"""

from __future__ import annotations

import hashlib
import json
import keyword
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from eval.models import EvalModel
from eval.tasks.base import Example, Measured, Metric, Options, Task
from ontology.io import sha256_json

MAX_OVERLAP = 0.3
"""Lines of which at least this share stands in one file of a larger public project are left out."""
MAX_TOKENS = 64
_CONTEXT_BYTES = 6000
"""Of a longer prompt the last lines are shown; every model gets the same bytes."""
_STRING = re.compile(r"<STR_LIT(?::(.*))?>")
_NUMBER = re.compile(r"<NUM_LIT(?::(.*))?>")
_CODE = re.compile(
    r"(?P<string>[rbufRBUF]{0,3}(?:\"\"\".*?(?:\"\"\"|$)|'''.*?(?:'''|$)|\"(?:\\.|[^\"\\])*\"?|'(?:\\.|[^'\\])*'?))"
    r"|(?P<number>(?:0[xXbBoO][\da-fA-F_]+|(?:\d[\d_]*\.?[\d_]*|\.\d[\d_]*)(?:[eE][+-]?\d+)?)[jJlL]?)"
    r"|(?P<name>[^\W\d]\w*)|(?P<operator>\*\*=|//=|>>=|<<=|\.\.\.|->|:=|[-+*/%@&|^=<>!]=|\*\*|//|<<|>>|<>|[^\s\w])",
    re.S,
)
_BEFORE_SIGN = ("", "(", "[", "{", ",", "=", ":", "==", "<", ">", "<=", ">=", "+", "-", "*", "/")
_QUOTES = re.compile(r"([rbufRBUF]{0,3})(\"\"\"|'''|\"|')(.*?)(\2|$)$", re.S)


@dataclass(frozen=True)
class Line:
    """`prompt` plain code, `answer` the normalised tokens of the rest of its last line, `known` literals by kind."""

    prompt: bytes
    answer: tuple[str, ...]
    strings: frozenset[str]
    numbers: frozenset[str]


def to_code(tokens: Sequence[str]) -> str:
    """Normalised tokens as plain code."""
    text, stack, before = "", [], ""
    for token in tokens:
        if token in ("<s>", "</s>"):
            continue
        if token == "<EOL>":
            text, before = text.rstrip(" ") + "\n", ""
            continue
        shown = _STRING.sub(lambda m: _plain(m[1] or ""), token)
        shown = _NUMBER.sub(lambda m: m[1] or "0", shown)
        if before and _space(before, shown, stack):
            text += " "
        text += shown
        if shown in ("(", "[", "{"):
            stack.append(shown)
        elif shown in (")", "]", "}") and stack:
            stack.pop()
        # A sign or a star before an operand belongs to it.
        signs = shown in ("*", "**", "-", "+") and (before in _BEFORE_SIGN or keyword.iskeyword(before))
        before = "~" if signs else shown
    return text


def _plain(literal: str) -> str:
    return re.sub(r"U\+([0-9A-Fa-f]{4})", lambda m: chr(int(m[1], 16)), literal)


def _space(before: str, token: str, stack: Sequence[str]) -> bool:
    """Whether a person puts a space between two tokens of a line."""
    inside = stack[-1] if stack else ""
    if before in ("(", "[", "{", ".", "@", "~") or token in (")", "]", "}", ",", ";", "."):
        return False
    if token == ":" or (before == ":" and inside == "["):
        return False
    if token in ("(", "["):
        called = before[-1:].isalnum() or before[-1:] in ("_", ")", "]", "}", "'", '"')
        return not called or keyword.iskeyword(before)
    return not ((token == "=" or before == "=") and inside == "(")


def to_tokens(line: str, strings: Iterable[str] = (), numbers: Iterable[str] = ()) -> list[str]:
    """Plain code of one line as tokens with literals normalised: those in `strings` and `numbers` keep their value."""
    found = []
    for match in _CODE.finditer(line):
        text = match[0]
        if match.lastgroup == "string":
            parts = _QUOTES.match(text)
            prefix, quote, value = (parts[1], parts[2], parts[3]) if parts else ("", text[:1], text[1:])
            value = value.replace(" ", "U+0020").replace(",", "U+002C")
            kept = f":{value}" if value in strings else ""
            text = f"{prefix}{quote}<STR_LIT{kept}>{quote}"
        elif match.lastgroup == "number":
            text = f"<NUM_LIT:{text}>" if text in numbers else "<NUM_LIT>"
        found.append(text)
    return found


def similarity(a: str, b: str) -> float:
    """2 * longest common subsequence / both lengths, 0 to 1; 1 for two empty texts."""
    if not a or not b:
        return float(a == b)
    row = [0] * (len(b) + 1)
    for x in a:
        diagonal = 0
        for j, y in enumerate(b):
            above = row[j + 1]
            row[j + 1] = diagonal + 1 if x == y else max(above, row[j])
            diagonal = above
    return 2 * row[-1] / (len(a) + len(b))


def lines(options: Options) -> list[Example]:
    """The lines of the dev split that are not known from elsewhere."""
    overlap = json.loads(options.benchmark("py150_line_dev_overlap.json").read_text(encoding="utf-8"))
    literals = json.loads(options.benchmark("py150_literals.json").read_text(encoding="utf-8"))
    strings, numbers = frozenset(literals["str"]), frozenset(literals["num"])
    kept = sha256_json(literals)  # which literals keep their value decides what is right
    examples = []
    path = options.benchmark("py150_line_dev.jsonl")
    for number, text in enumerate(path.read_text(encoding="utf-8").splitlines()):
        if overlap.get(str(number), 0.0) >= MAX_OVERLAP:
            continue
        row = json.loads(text)
        prompt = to_code(row["input"].split()).encode("utf-8")
        if len(prompt) > _CONTEXT_BYTES:
            prompt = prompt[-_CONTEXT_BYTES:].partition(b"\n")[2]
        name = f"py150-dev-{number:04d}"
        line = Line(prompt, tuple(row["gt"].split()), strings, numbers)
        digest = hashlib.sha256(f"{text}\0{kept}".encode()).hexdigest()
        examples.append(Example(name, name, line, digest))
    return examples


def measure(model: EvalModel, example: Example) -> Iterable[Measured]:
    """Complete one line and compare it."""
    line: Line = example.data
    made = model.complete(line.prompt, MAX_TOKENS, stop=b"\n", whole=True).decode("utf-8", "replace")
    typed = line.prompt.decode("utf-8").rpartition("\n")[2]
    before = to_tokens(typed, line.strings, line.numbers)
    # The last word of the prompt may have grown: then it is not what the prompt said, and no token is right.
    tokens = to_tokens(typed + made, line.strings, line.numbers)
    written = tokens[len(before) :] if tokens[: len(before)] == before else ["<other>", *tokens]
    exact = float(tuple(written) == line.answer)
    close = similarity(" ".join(written), " ".join(line.answer))
    yield Measured({"exact": exact, "similarity": close, "lines": 1.0}, detail={"written": " ".join(written)})


LINES = Task(
    name="lines",
    version=1,
    question="How often does the model complete a line exactly, and how near does it come? (py150 dev, filtered)",
    columns=("exact", "similarity", "lines"),
    metrics=(
        Metric("exact match", "exact", "lines", percent=True),
        Metric("edit similarity", "similarity", "lines", percent=True),
    ),
    load=lines,
    measure=measure,
    needs=frozenset({"complete"}),
    uses=("benchmarks",),
)
