"""A synthetic report made from a real file of the standard library, for looking at pages and for their tests.

The numbers are drawn, not measured; the text, the router and the lines it takes are real.
"""

from __future__ import annotations

import random
import re
import sys
import sysconfig
from pathlib import Path
from typing import Any

EXPERTS = ["corpus match", "corpus counts", "file cache", "names in scope", "net"]

ROUTER = '''"""Which situation is in charge here? Reads the state left of the position, nothing else."""


def route(state):
    # Inside a literal nothing else matters.
    if state.string != "none":
        if state.triple == "yes" and state.first_in_block == "yes":
            return "docstring"
        return "string body"
    if state.comment == "yes":
        return "comment"

    # A name in progress is finished before anything else is asked.
    if state.last == "name part":
        return "rest of a name"

    if state.last == "dot":
        if state.receiver == "self":
            return "attribute of self"
        return "attribute of a value"
    if state.last == "def":
        return "name of a function"
    if state.last == "import":
        return "module to import"

    if state.bracket == "call":
        if state.last == "equals":
            return "value of a keyword argument"
        return "call argument"
    if state.bracket == "subscript":
        return "subscript"
    if state.line_start == "yes":
        return "start of a statement"
    if state.last == "equals":
        return "right-hand side"
    if state.last == "operator":
        return "operand"
    return "after a complete expression"
'''

CONCEPTS = {
    "docstring": ("What does this docstring say next?", "text"),
    "string body": ("What comes next in this string?", "text"),
    "comment": ("What does this comment say next?", "text"),
    "rest of a name": ("How does this name go on?", "names"),
    "attribute of self": ("Which attribute or method of self?", "names"),
    "attribute of a value": ("Which attribute follows this dot?", "names"),
    "name of a function": ("What is this function called?", "names"),
    "module to import": ("Which module is imported?", "names"),
    "value of a keyword argument": ("What is this keyword argument set to?", "expressions"),
    "call argument": ("What is passed to this call?", "expressions"),
    "subscript": ("Which index or key?", "expressions"),
    "right-hand side": ("What is assigned?", "expressions"),
    "operand": ("What stands right of this operator?", "expressions"),
    "after a complete expression": ("Does the expression go on, or end?", "expressions"),
    "start of a statement": ("What does the next statement begin with?", "statements"),
}

_PIECE = re.compile(
    r'"""|' r"\r?\n[ \t]*| ?[A-Za-z_][A-Za-z_0-9]{0,7}|[A-Za-z_0-9]+| ?[0-9]+| ?[^\sA-Za-z_0-9]{1,2}|\s+"
)
_FILES = ("textwrap.py", "shlex.py", "bisect.py", "fnmatch.py", "glob.py", "heapq.py", "queue.py")


class _State:
    def __init__(self, **fields: str) -> None:
        self.__dict__.update(fields)


def sample_text() -> str:
    """A real file of the running interpreter's library."""
    return (Path(sysconfig.get_paths()["stdlib"]) / "textwrap.py").read_text(encoding="utf-8")


def sample_record(text: str | None = None, file: str = "textwrap.py", seed: int = 0) -> dict[str, Any]:
    """An explain record of `text`, with drawn shares and evidence and a really traced router."""
    text = sample_text() if text is None else text
    rng = random.Random(seed)
    pieces = [match.group() for match in _PIECE.finditer(text)]
    assert "".join(pieces) == text
    namespace: dict[str, Any] = {}
    exec(compile(ROUTER, "router.py", "exec"), namespace)
    seen: dict[str, int] = {}
    tokens, offset = [], 0
    states = _states(pieces)
    for i, piece in enumerate([*pieces, ""]):
        concept, lines = _trace(namespace["route"], states[i])
        known = seen.get(piece, 0)
        bits = round(rng.expovariate(1 / (0.5 if known > 3 else 1.6 if known else 5.0)), 3)
        size = len(piece.encode())
        tokens.append(
            {
                "start": offset, "end": offset + size, "text": piece, "bits": bits, "concept": concept, "lines": lines,
                "state": dict(states[i]), "bucket": {"corpus_match": rng.randint(0, 12), "file_match": min(known, 6)},
                "experts": _experts(rng, 2**-bits, known, "".join(pieces[max(0, i - 3) : i]), piece),
                "top": _top(rng, 2**-bits, piece, pieces),
                "reads": {"line_first": "def", "callee": "_split_chunks", "def_name": "_wrap_chunks"},
            }
        )  # fmt: skip
        seen[piece] = known + 1
        offset += size
    return {
        "format": "constructible-explain/1", "file": file, "text": text, "router_source": ROUTER, "experts": EXPERTS,
        "concepts": {name: {"question": question, "path": ["python", group, name]}
                     for name, (question, group) in CONCEPTS.items()},
        "tokens": tokens,
    }  # fmt: skip


def sample_report(record: dict[str, Any] | None = None, seed: int = 0) -> dict[str, Any]:
    """A report with every part filled."""
    record = record or sample_record()
    rng = random.Random(seed)
    positions: dict[str, int] = {}
    hits: dict[int, int] = {}
    bits: dict[str, float] = {}
    sizes: dict[str, int] = {}
    for token in record["tokens"]:
        positions[token["concept"]] = positions.get(token["concept"], 0) + 1
        bits[token["concept"]] = bits.get(token["concept"], 0.0) + token["bits"]
        sizes[token["concept"]] = sizes.get(token["concept"], 0) + token["end"] - token["start"]
        for line in token["lines"]:
            hits[line] = hits.get(line, 0) + 53
    waterfall = [
        {"concept": name, "question": question, "group": group, "positions": 53 * positions[name],
         "bytes": 53 * sizes[name], "constructed_bits": 53 * bits[name],
         "baseline_bits": 53 * bits[name] * rng.uniform(0.92, 2.1)}
        for name, (question, group) in CONCEPTS.items() if name in positions
    ]  # fmt: skip
    n_bytes = sum(row["bytes"] for row in waterfall)
    ours, theirs = (sum(row[key] for row in waterfall) / n_bytes for key in ("constructed_bits", "baseline_bits"))
    mixer = []
    for name in positions:
        draws = [rng.expovariate(1) for _ in EXPERTS]
        weights = {expert: draw / sum(draws) for expert, draw in zip(EXPERTS, draws, strict=True)}
        mixer.append({"concept": name, "positions": 53 * positions[name], "weights": weights})
    leaderboard = [
        {"name": "constructed", "bits_per_byte": ours, "bits_per_byte_low": ours * 0.96,
         "bits_per_byte_high": ours * 1.05,
         "accuracy": 0.512, "accuracy_low": 0.497, "accuracy_high": 0.528, "parameters": 2_113_024,
         "table_entries": 18_402_331, "seconds": 181.2, "peak_rss_bytes": 1_812_439_040, "bytes_per_token": 3.41,
         "note": "25 nets of at most 200,000 parameters, tables, caches"},
        {"name": "baseline", "bits_per_byte": theirs, "bits_per_byte_low": theirs * 0.97,
         "bits_per_byte_high": theirs * 1.03,
         "accuracy": 0.271, "accuracy_low": 0.262, "accuracy_high": 0.281, "parameters": 2_098_176, "table_entries": 0,
         "seconds": 180.4, "peak_rss_bytes": 1_204_439_040, "bytes_per_token": 3.41,
         "note": "one small Llama, cut at the root"},
    ]  # fmt: skip
    return {
        "title": "Quick start: a constructed code model against a monolith",
        "commit": "0335ae6", "command": "constructible eval quickstart --minutes 3", "created": "2026-11-21T09:55:00Z",
        "environment": {"python": "3.11.7", "torch": "2.13.0", "processor": "2 cores", "platform": sys.platform},
        "leaderboard": leaderboard,
        "comparison": {"ratio": ours / theirs, "low": ours / theirs * 0.96, "high": ours / theirs * 1.04,
                       "text": "Constructed over baseline, bits per byte, paired bootstrap over 61 held-out files."},
        "waterfall": waterfall,
        "router": {"source": record["router_source"], "hits": hits},
        "mixer": mixer,
        "explain": record,
        "completion": {"prompt": "def read_json(path):\n    with open(path",
                       "completion": ", encoding=\"utf-8\") as file:\n"
                       "        return json.load(file)\n"},
        "skipped": [["lib2to3/tests/data/bom.py", "not UTF-8"], ["test/bad_coding.py", "unknown encoding"]],
        "notes": ["Most of the gain is from counts and caches: a transformer joined with the same tables ties.",
                  "One seed; the interval is over files, not over training runs."],
    }  # fmt: skip


def _states(pieces: list[str]) -> list[dict[str, str]]:
    """A rough state left of each piece: enough to make the router take all its branches."""
    states, brackets, string, triple, last = [], [], "none", "no", "newline"
    opened = ""
    line_start, comment, receiver = "yes", "no", "none"
    for piece in [*pieces, ""]:
        states.append(
            {"string": string, "triple": triple, "first_in_block": triple, "comment": comment, "last": last,
             "receiver": receiver, "bracket": brackets[-1] if brackets else "none", "line_start": line_start,
             "depth": str(len(brackets))}
        )  # fmt: skip
        bare = piece.strip()
        if "\n" in piece:
            line_start, comment, last = "yes", "no", "newline"
            string = string if triple == "yes" else "none"
            continue
        if string != "none":
            if bare and bare == opened:
                string, triple, last = "none", "no", "string"
            continue
        if comment == "yes" or not bare:
            continue
        line_start = "no"
        if bare[0] in "\"'":
            opened = bare[:3] if bare[:3] == '"""' else bare[0]
            string, triple = "double", "yes" if len(opened) == 3 else "no"
        elif bare[0] == "#":
            comment = "yes"
        elif bare in ("def", "import", "class"):
            last = "import" if bare == "import" else "def"
        elif bare[0].isidentifier():
            receiver = "self" if bare == "self" else "value"
            last = "name part" if len(bare) == 8 else "name"
        elif bare[-1] in "([":
            brackets.append("call" if bare[-1] == "(" else "subscript")
            last = "open"
        elif bare[0] in ")]":
            brackets[-1:] = []
            last = "close"
        else:
            last = {".": "dot", "=": "equals", ":": "colon"}.get(bare, "operator")
    return states


def _trace(route: Any, fields: dict[str, str]) -> tuple[str, list[int]]:
    """The concept and the lines that were taken: tests that held, and the return."""
    visited: list[int] = []

    def tracer(frame: Any, event: str, _: Any) -> Any:
        if frame.f_code is route.__code__ and event == "line":
            visited.append(frame.f_lineno)
        return tracer

    before = sys.gettrace()
    sys.settrace(tracer)
    try:
        concept = route(_State(**fields))
    finally:
        sys.settrace(before)
    source = ROUTER.split("\n")
    depth = [len(source[line - 1]) - len(source[line - 1].lstrip()) for line in visited]
    taken = [line for i, line in enumerate(visited) if i + 1 == len(visited) or depth[i + 1] > depth[i]]
    return concept, taken


def _experts(rng: random.Random, p: float, known: int, context: str, piece: str) -> list[dict[str, Any]]:
    draws = [rng.expovariate(1) * (0.3 if name == "file cache" and not known else 1) for name in EXPERTS]
    weights = [draw / sum(draws) for draw in draws]
    raw = [min(1.0, max(1e-6, p * rng.lognormvariate(0, 1))) for _ in EXPERTS]
    total = sum(w * q for w, q in zip(weights, raw, strict=True))
    scale = p / total
    out = []
    for name, weight, probability in zip(EXPERTS, weights, raw, strict=True):
        evidence: list[dict[str, Any]] = []
        if name == "corpus match":
            evidence = [
                {"kind": "match", "text": context + piece, "value": rng.randint(2, 12),
                 "file": f"stdlib/{rng.choice(_FILES)}", "line": rng.randint(3, 480),
                 "licence": "PSF-2.0"} for _ in range(2)
            ]  # fmt: skip
        elif name == "corpus counts":
            evidence = [{"kind": "count", "text": context + piece, "value": rng.randint(1, 4000),
                         "file": None, "line": None, "licence": None}]  # fmt: skip
        elif name == "file cache" and known:
            evidence = [{"kind": "cache", "text": context + piece, "value": known, "file": "this file",
                         "line": rng.randint(1, 90), "licence": None}]  # fmt: skip
        elif name == "names in scope":
            evidence = [{"kind": "name", "text": piece.strip() or "newline", "value": rng.randint(1, 9),
                         "file": "this file", "line": rng.randint(1, 90), "licence": None}]  # fmt: skip
        elif name == "net":
            evidence = [{"kind": "net", "text": f"receiver = {piece.strip() or 'none'}", "value": rng.uniform(-2, 3),
                         "file": None, "line": None, "licence": None}]  # fmt: skip
        out.append(
            {"name": name, "weight": weight, "probability": min(1.0, probability * scale),
             "share": weight * probability / total, "evidence": evidence}
        )  # fmt: skip
    return out


def _top(rng: random.Random, p: float, piece: str, pieces: list[str]) -> list[dict[str, Any]]:
    others = [word for word in dict.fromkeys(rng.choices(pieces, k=8)) if word != piece][:5]
    left, rows = 1 - p, [{"text": piece, "probability": p}] if p > 0.01 else []
    for word in others:
        share = left * rng.uniform(0.1, 0.6)
        rows.append({"text": word, "probability": share})
        left -= share
    return sorted(rows, key=lambda row: -row["probability"])[:5]
