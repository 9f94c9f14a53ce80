"""`--valid`: a statement that is begun is completed, and what was generated is Python that `tokenize` takes.

A `Checker` follows a text with the lexer and says of the next token whether it may come. Generation asks it for tokens
in the order of their probability (or as they are drawn), so that the model's own distribution, restricted to what may
come, decides; nothing is generated and thrown away. For a prompt that compiles, what stands to the left of the
statement's end then has no `tokenize`, bracket or indentation error: see `cgpt.valid_bytes` for the rules.

A statement ends with its line break. A header is completed by the first statement of its block, a decorator by what it
decorates, a `try` by the first statement of a handler. Where the tokens allowed run out first, `closing` ends the
statement with the fewest bytes that plain code finds: open strings and brackets are closed, a block that has just begun
gets `pass`.
"""

from __future__ import annotations

import io
import re
import tokenize
import warnings

import numpy as np

from cgpt import lexer
from cgpt import lexer_tables as t
from cgpt import valid_bytes as v
from cgpt.valid_numbers import N_COMPLETE, N_LEADING
from cgpt.valid_rules import in_open_try

_ROUNDS = 240
"""Pieces that `closing` adds, at most; 40 brackets, strings and headers need far fewer."""


class Checker:
    """Follows one text; `ended` is whether a statement has ended since the prompt."""

    def __init__(self, prompt: bytes) -> None:
        self._data = np.frombuffer(prompt, np.uint8).copy()
        self._n = len(prompt)
        self._state = lexer.new_state()
        self._registers = np.zeros(v.SIZE, np.int32)
        self._registers[v.STEP] = 9 if b"\n\t" in prompt and b"\n    " not in prompt else 32
        v.read_prompt(self._state, self._registers, self._data)
        self.ended = False

    @property
    def text(self) -> bytes:
        """The prompt and everything accepted since."""
        return self._data[: self._n].tobytes()

    def has_ended(self, start: int) -> bool:
        """Whether the text so far ends where a statement has ended that began at byte `start` or later."""
        s = self._state
        border = s[t.MODE] == t.MODE_CODE and s[t.PENDING] == t.P_INDENT and s[t.DEPTH] == 0 and s[t.TOKENS] == 0
        complete = s[t.HEADER_KIND] == t.K_NONE and s[t.DECORATOR] < 0 and not in_open_try(s, start)
        return bool(border and complete and s[t.PREVIOUS_FIRST] >= start)

    def _write(self, piece: bytes) -> int:
        end = self._n + len(piece)
        if end > len(self._data):
            self._data = np.concatenate([self._data[: self._n], np.zeros(end + 256, np.uint8)])
        self._data[self._n : end] = np.frombuffer(piece, np.uint8)
        return end

    def length(self, piece: bytes, soft: bool = True) -> int:
        """How much of `piece` may come next: all of it, up to a statement's end in it, or 0 where it may not.

        `soft` asks for more than the promise: that the piece does not make the statement one that no grammar takes.
        """
        if not piece or self.ended:
            return 0
        end = self._write(piece)
        answer = v.admit_all(self._state.copy(), self._registers.copy(), self._data, self._n, end, soft)
        return 0 if answer < 0 else (answer - self._n if answer else len(piece))

    def accept(self, piece: bytes, soft: bool = True) -> bytes:
        """Read `piece`, which `length` has approved of, and return what was read: it is cut at a statement's end."""
        end = self._write(piece)
        answer = v.admit_all(self._state, self._registers, self._data, self._n, end, soft)
        if answer < 0:
            raise ValueError(f"{piece!r} may not come here")
        self.ended = answer > 0
        read = self._data[self._n : answer or end].tobytes()
        self._n = answer or end
        return read

    def closing(self) -> bytes:
        """End the statement with few bytes and return them; the text is complete afterwards."""
        made = b""
        for attempt in range(_ROUNDS):
            if self.ended:
                break
            # What a grammar would take first; then whatever keeps the promise.
            softly = attempt < _ROUNDS // 2
            for soft in (True, False) if softly else (False,):
                piece = next((piece for piece in self._endings(soft) if self.length(piece, soft)), None)
                if piece is not None:
                    made += self.accept(piece, soft)
                    break
            else:
                raise AssertionError(f"no way on from {self.text[-80:]!r}")
        return made

    def _endings(self, soft: bool) -> list[bytes]:
        """Pieces that might bring the text nearer to a statement's end, best first; each one gets it further."""
        s, r = self._state, self._registers
        if r[v.UTF_LEFT]:
            return [bytes([int(r[v.UTF_LOW])])]
        if r[v.NEED_NEWLINE]:
            return [b"\n"]
        if s[t.MODE] == t.MODE_STRING and s[t.OPENING] != 2:
            quote = bytes([int(s[t.QUOTE])])
            if s[t.BRACE]:
                return [b"_"]
            if r[v.HEX_LEFT]:
                return [b"0"]
            if r[v.CLOSE_BRACE] or s[t.SPEC]:
                return [b"}"]
            if s[t.ESCAPE] != t.E_NONE:
                return [b"n", b" "]
            return [quote * (3 - int(s[t.QUOTES])) if s[t.TRIPLE] else quote]
        if s[t.MODE] == t.MODE_COMMENT:
            return [b"\n"]
        pending, base = s[t.PENDING], s[t.DEPTH] == 0
        if pending == t.P_NUMBER and r[v.NUMBER] < N_COMPLETE:
            return [b"." if r[v.NUMBER] == N_LEADING else b"0"]
        begun = []
        if pending == t.P_INDENT and base and s[t.TOKENS] == 0:
            top = bytes(r[v.N_REGISTERS : v.N_REGISTERS + int(r[v.TOP])].astype(np.uint8))
            indent = top[int(r[v.INDENT]) :]
            outward = [top[int(r[v.INDENT]) : end] for end in range(len(top), -1, -1) if end >= r[v.INDENT]]
            if s[t.HEADER_KIND] != t.K_NONE:
                deeper = b"\t" if (top or bytes([int(r[v.STEP])])).endswith(b"\t") else b"    "
                begun = [b"pass\n", indent + deeper + b"pass\n"]
            elif s[t.DECORATOR] >= 0:
                begun = [indent + b"class _:\n"]
            elif soft and in_open_try(s, int(r[v.BEGAN])):
                begun = [each + b"finally:\n" for each in outward]
            else:
                begun = [indent + b"pass\n", indent + b"finally:\n", b"\n"]
        ends = [b"\n"] if base else [b")", b"]", b"}"]
        operand = [b" _", b" 0"] if pending == t.P_NAME or pending == t.P_NUMBER else [b"_", b" _", b"0"]
        if soft:
            slot = s[t.BRACKETS_AT + t.B_SLOT] if base else -1
            missing = {t.S_FROM_MODULE: [b" import _"], t.S_FOR_TARGET: [b" in _"], t.S_DEF_NAME: [b"():"]}
            return [*begun, *ends, b":", *missing.get(int(slot), []), *operand, b"=", b":="]
        return [*begun, *ends, b":", *operand, b"="]


_BRACKETS = re.compile(r"never closed|unmatched|does not match|expecting '}'|single '}'|perhaps you forgot a comma\?$")
_TOKENS = re.compile(
    r"(decimal|hexadecimal|octal|binary|imaginary|string) literal|leading zeros|unterminated|line continuation|"
    r"invalid (character|non-printable|digit)|unexpected (EOF|end of file)|null byte|\(unicode error\)|EOF in"
)
KINDS = ("tokenize", "indentation", "bracket", "other")


def python_error(text: bytes) -> tuple[str, str] | None:
    """What this interpreter has against `text`: (one of KINDS, its message), None where it compiles.

    `tokenize` is asked first, then `compile`, whose errors are told apart by class and message.
    """
    source = text.decode("utf-8", "replace")
    try:
        for token in tokenize.generate_tokens(io.StringIO(source, newline="").readline):
            if token.type == tokenize.ERRORTOKEN and token.string not in ("!", " "):
                return "tokenize", f"line {token.start[0]}: {token.string!r}"
    except IndentationError as error:
        return "indentation", str(error.msg)
    except (tokenize.TokenError, SyntaxError) as error:
        return "tokenize", str(error.args[0])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compile(source, "<completion>", "exec", dont_inherit=True)
    except IndentationError as error:
        return "indentation", str(error.msg)
    except SyntaxError as error:
        message = str(error.msg)
        if _BRACKETS.search(message):
            return "bracket", message
        return ("tokenize" if _TOKENS.search(message) else "other"), message
    except ValueError as error:
        return "tokenize", str(error)
    return None
