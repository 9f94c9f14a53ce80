"""Check the lexer against the standard library's `tokenize`: `python -m cgpt.check_lexer [PATH...]`.

A PATH is a `.py` file, a folder or a Parquet file of code; without one, every file of the interpreter's own library is
read, its tests included. Files that `tokenize` rejects are counted and left out.

What counts as the same token: same kind (name, number, operator, string, comment, newline, indent, dedent), same first
byte and same end. Indents, dedents and newlines are compared by one position only, because `tokenize` gives them
different extents from one Python version to the next; blank-line newlines (NL) are left out. Python 3.11 cuts an
f-string as one string, so here its fields are left out; from 3.12 on the opening, the closing and every token in a
field are compared, the text between (FSTRING_MIDDLE) is not, as its cuts follow no rule at doubled braces.
"""

from __future__ import annotations

import io
import json
import sys
import token as token_types
import tokenize
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from cgpt import lexer_tables as t
from cgpt.compiled import compiled
from cgpt.lexer import new_state
from cgpt.lexer_bytes import continues, flush, has_pending, step_byte
from ontology.main import exit_code

NAME, NUMBER, OPERATOR, STRING, COMMENT, NEWLINE, INDENT, DEDENT, FORMAT_START, FORMAT_END = range(10)
KINDS = ("name", "number", "operator", "string", "comment", "newline", "indent", "dedent", "f-start", "f-end")
Span = tuple[int, int, int]


@dataclass
class Agreement:
    """What a comparison found. `matched` of `expected` tokens (those of `tokenize`) and of `ours`."""

    python: str = f"{sys.version_info.major}.{sys.version_info.minor}"
    files: int = 0
    rejected: list[str] = field(default_factory=list)
    expected: int = 0
    ours: int = 0
    matched: int = 0
    worst: list[tuple[str, int, str]] = field(default_factory=list)

    @property
    def agreement(self) -> float:
        """Matched tokens over the greater of the two counts."""
        return self.matched / max(self.expected, self.ours, 1)

    def add(self, path: str, data: bytes) -> None:
        """Compare one file."""
        try:
            expected = expected_spans(data)
        except Rejected as reason:
            self.rejected.append(f"{path}: {reason}")
            return
        ours = lexer_spans(data)
        both, theirs, mine = Counter(expected) & Counter(ours), Counter(expected), Counter(ours)
        self.files += 1
        self.expected += len(expected)
        self.ours += len(ours)
        self.matched += both.total()
        wrong = max(len(expected), len(ours)) - both.total()
        if wrong:
            kind, start, end = min((theirs - both) + (mine - both), key=lambda span: (span[1], span[2]))
            line = data[:start].count(b"\n") + 1
            self.worst.append((path, wrong, f"line {line}: {KINDS[kind]} {data[start:end][:40]!r}"))


class Rejected(Exception):
    """`tokenize` does not take this file."""


def expected_spans(data: bytes) -> list[Span]:
    """Return the tokens of `tokenize` as (kind, first byte, end byte).

    Raises:
        Rejected: `tokenize` raises, or marks an error.
    """
    try:
        lines = [line.decode("utf-8") for line in io.BytesIO(data)]
    except UnicodeDecodeError:
        raise Rejected("not UTF-8") from None
    offsets = np.cumsum([0] + [len(line.encode()) for line in lines]).tolist()
    plain = [line.isascii() for line in lines]

    def at(place: tuple[int, int]) -> int:
        row, column = place[0] - 1, place[1]
        if row >= len(lines):
            return len(data)
        if not plain[row]:
            column = len(lines[row][:column].encode())
        return min(offsets[row] + column, len(data))

    kinds = {token_types.NAME: NAME, token_types.NUMBER: NUMBER, token_types.OP: OPERATOR, token_types.STRING: STRING,
             token_types.COMMENT: COMMENT, token_types.NEWLINE: NEWLINE, token_types.INDENT: INDENT,
             token_types.DEDENT: DEDENT}  # fmt: skip
    for name, kind in (("FSTRING_START", FORMAT_START), ("FSTRING_END", FORMAT_END)):
        if hasattr(token_types, name):
            kinds[getattr(token_types, name)] = kind
    spans: list[Span] = []
    reader = iter(lines)
    try:
        for token in tokenize.generate_tokens(lambda: next(reader, "")):
            if token.type == token_types.ERRORTOKEN:
                raise Rejected(f"line {token.start[0]}: error token {token.string!r}")
            kind = kinds.get(token.type)
            if kind is None:
                continue
            begin, end = at(token.start), at(token.end)
            if kind in (NEWLINE, DEDENT):
                end = begin
            elif kind == INDENT:
                begin = end
            spans.append((kind, begin, end))
    except (tokenize.TokenError, SyntaxError) as error:
        raise Rejected(str(error)) from None
    return spans


@compiled
def _emit(out, n, kind, begin, end, fields):
    out[n, 0], out[n, 1], out[n, 2], out[n, 3] = kind, begin, end, fields
    return n + 1


@compiled
def _spans(s, data, out):
    """Write (kind, first byte, end byte, fields open) of the lexer's tokens; returns their number."""
    n = 0
    size = len(data)
    fields = 0
    comment = -1
    for p in range(size + 1):
        c = int(data[p]) if p < size else 10
        last = p == size
        # Complete what ends here by hand, so that it can be seen.
        if has_pending(s) and (last or not continues(s, c) or s[t.MODE] == t.MODE_STRING):
            if s[t.MODE] == t.MODE_STRING:
                if s[t.OPENING] == 2 and (last or c != s[t.QUOTE]):
                    if s[t.FLAGS] & t.F_FORMAT:
                        n = _emit(out, n, FORMAT_START, s[t.TEXT_START], p - 1, fields)
                        n = _emit(out, n, FORMAT_END, p - 1, p, fields)
                    else:
                        n = _emit(out, n, STRING, s[t.TEXT_START], p, fields)
                    flush(s, s)
            else:
                pending = s[t.PENDING]
                blocks = s[t.BLOCK_DEPTH]
                start = s[t.PENDING_START]
                if pending == t.P_NAME or pending == t.P_NUMBER or pending == t.P_OPERATOR:
                    dots = pending == t.P_OPERATOR and s[t.OPERATOR_CODE] == 46 + (46 << 8)
                    kind = NAME if pending == t.P_NAME else (NUMBER if pending == t.P_NUMBER else OPERATOR)
                    n = _emit(out, n, kind, start, p - 1 if dots else p, fields)
                    if dots:
                        n = _emit(out, n, OPERATOR, p - 1, p, fields)
                if not (last and pending == t.P_INDENT):  # the end of the file closes every block, see below
                    flush(s, s)
                if pending == t.P_INDENT and not last:
                    entered = s[t.LINE] == t.LINE_FIRST_IN_BLOCK
                    for _ in range(blocks - s[t.BLOCK_DEPTH] + (1 if entered else 0)):
                        n = _emit(out, n, DEDENT, p, p, fields)
                    if entered:
                        n = _emit(out, n, INDENT, p, p, fields)
        mode = s[t.MODE]
        if mode == t.MODE_COMMENT and c == 10:
            end = p - 1 if p > 0 and data[p - 1] == 13 else p
            n = _emit(out, n, COMMENT, comment, end, fields)
        if c == 10 and mode != t.MODE_STRING and s[t.DEPTH] == 0 and s[t.TOKENS] > 0 and s[t.PENDING] != t.P_BACKSLASH:
            end = p - 1 if 0 < p < size and data[p - 1] == 13 and mode == t.MODE_CODE else p
            n = _emit(out, n, NEWLINE, end, end, fields)
        if last:
            break
        before_start = s[t.PENDING_START]
        before = s[t.PENDING]
        depth = s[t.DEPTH]
        role = s[t.BRACKETS_AT + depth * t.BRACKET_WIDTH + t.B_ROLE]
        text_start = s[t.TEXT_START]
        formatted = s[t.FLAGS] & t.F_FORMAT != 0
        brace = s[t.BRACE]
        spec = s[t.SPEC]
        triple = s[t.TRIPLE]
        opening = s[t.OPENING]
        operator = s[t.OPERATOR_CODE]
        step_byte(s, c, p)
        after = s[t.MODE]
        if before != t.P_NONE and mode == t.MODE_CODE and before <= t.P_OPERATOR and after == t.MODE_CODE:
            ended = s[t.PENDING] != before or s[t.PENDING_START] != before_start
            if ended and not (before == t.P_OPERATOR and s[t.PENDING] == t.P_NUMBER and operator == 46
                              and s[t.PENDING_START] == before_start):  # fmt: skip
                kind = NAME if before == t.P_NAME else (NUMBER if before == t.P_NUMBER else OPERATOR)
                dots = before == t.P_OPERATOR and operator == 46 + (46 << 8)
                n = _emit(out, n, kind, before_start, p - 1 if dots else p, fields)
                if dots:
                    n = _emit(out, n, OPERATOR, p - 1, p, fields)
        elif (
            t.P_NAME <= before <= t.P_OPERATOR
            and mode == t.MODE_CODE
            and after == t.MODE_STRING
            and not (
                s[t.OPENING] == 1 and s[t.TEXT_START] == before_start  # the name was the string's prefix
            )
        ):
            kind = NAME if before == t.P_NAME else (NUMBER if before == t.P_NUMBER else OPERATOR)
            n = _emit(out, n, kind, before_start, p, fields)
        if after == t.MODE_COMMENT and mode == t.MODE_CODE:
            comment = p
        if mode == t.MODE_CODE and after == t.MODE_STRING:
            if s[t.OPENING] != 1:  # the end of a field's expression: } or the : before its format
                n = _emit(out, n, OPERATOR, p, p + 1, fields)
                if c == 125:
                    fields -= 1
        elif mode == t.MODE_STRING:
            if formatted and opening > 0 and s[t.OPENING] == 0:  # the opening quotes are complete
                n = _emit(out, n, FORMAT_START, text_start, p + 1 if triple != s[t.TRIPLE] else p, fields)
            if s[t.DEPTH] > depth or (brace == 1 and after == t.MODE_CODE):  # a field opens
                place = p if spec == 1 else p - 1
                fields += 1
                n = _emit(out, n, OPERATOR, place, place + 1, fields)
            elif s[t.DEPTH] < depth and role == t.ROLE_FIELD:  # } after a format
                n = _emit(out, n, OPERATOR, p, p + 1, fields)
                fields -= 1
            elif after == t.MODE_CODE:
                quote = c == s[t.QUOTE]
                if formatted:
                    n = _emit(out, n, FORMAT_END, p + 1 - (3 if triple == 1 else 1), p + 1, fields)
                else:
                    n = _emit(out, n, STRING, text_start, p + 1 if quote else p, fields)
        if after == t.MODE_CODE and (mode == t.MODE_CODE or brace == 1):
            kind = t.BYTE_CLASS[c]
            if kind == t.OPENER or kind == t.CLOSER or c == 44 or c == 59 or c == 126:
                n = _emit(out, n, OPERATOR, p, p + 1, fields)
    for _ in range(s[t.BLOCK_DEPTH]):
        n = _emit(out, n, DEDENT, size, size, 0)
    return n


def lexer_spans(data: bytes) -> list[Span]:
    """Return the lexer's tokens in the form of `expected_spans`, f-strings cut as this Python version does."""
    array = np.frombuffer(data, np.uint8)
    out = np.empty((2 * len(array) + 256, 4), np.int32)
    rows = out[: _spans(new_state(), array, out)].tolist()
    if sys.version_info >= (3, 12):
        return [(kind, begin, end) for kind, begin, end, _ in rows]
    spans: list[Span] = []
    starts: list[int] = []
    for kind, begin, end, fields in rows:
        if kind == FORMAT_START:
            starts.append(begin)
        elif kind == FORMAT_END:
            start = starts.pop() if starts else begin
            if fields == 0:
                spans.append((STRING, start, end))
        elif fields == 0:
            spans.append((kind, begin, end))
    return spans


def _files(paths: Iterable[str]) -> Iterator[tuple[str, bytes]]:
    from cgpt.corpus import read_corpus

    for path in paths:
        if Path(path).is_file() and path.endswith(".py"):
            yield path, Path(path).read_bytes()
        elif Path(path).is_dir():
            for found in sorted(Path(path).rglob("*.py")):
                yield str(found), found.read_bytes()
        else:
            for source in read_corpus(path).files:
                yield source.path, source.data


def main(arguments: list[str]) -> int:
    """Print the agreement; 0 where it is at least 99.9 %, else 3."""
    import sysconfig

    paths = [argument for argument in arguments if argument != "--json"] or [sysconfig.get_path("stdlib")]
    found = Agreement()
    for path, data in _files(paths):
        if "site-packages" not in path:
            found.add(path, data)
    if "--json" in arguments:
        print(json.dumps(asdict(found) | {"agreement": found.agreement}))
    else:
        print(
            f"Python {found.python}: {found.agreement:.4%} of {max(found.expected, found.ours):,} tokens agree, "
            f"{found.files} files, {len(found.rejected)} rejected by tokenize and left out"
        )
        for path, wrong, where in sorted(found.worst, key=lambda entry: -entry[1])[:20]:
            print(f"  {wrong:6} differ in {path}, first at {where}")
    return 0 if found.agreement >= 0.999 else 3


if __name__ == "__main__":
    sys.exit(exit_code(lambda: main(sys.argv[1:])))
