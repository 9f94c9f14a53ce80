"""Cut a Python file into the pieces that the tokenizer may not cross.

A piece is an identifier, a number, an operator, a bracket, the quotes (with prefix) that open or close a string, a
word, number, escape or punctuation of a string's or comment's text, or a run of white space. One space directly before
a piece belongs to it; a run of white space that holds a newline is one piece of its own, indentation included.
Cutting may look ahead, the lexer's state never does.
"""

from __future__ import annotations

import numpy as np

from cgpt import lexer_tables as t
from cgpt.compiled import compiled
from cgpt.lexer import new_state
from cgpt.lexer_bytes import step_byte, text_class

MAX_PIECE = 128  # longer runs are cut, so that one endless word or line of dashes stays cheap to encode

_INNER, _START, _BORDER = 0, 1, 2  # byte roles: inside a piece, first of a piece, first of one that takes no space
_VISIBLE, _BLANK, _NEWLINE = 0, 1, 2
_NO_TEXT = 255


@compiled
def _mark(state, data, roles, blanks):
    """Note for each byte whether a piece starts there, and whether it is white space between pieces."""
    size = len(data)
    previous = _NO_TEXT  # class of the text byte before, where that was text
    for p in range(size):
        c = int(data[p])
        mode = state[t.MODE]
        opening = state[t.OPENING]
        brace = state[t.BRACE]
        escape = state[t.ESCAPE]
        pending = state[t.PENDING]
        step_byte(state, c, p)
        after = state[t.MODE]
        role = _START
        blank = _VISIBLE
        text = _NO_TEXT
        kind = t.BYTE_CLASS[c]
        if kind == t.NEWLINE or (c == 13 and p + 1 < size and data[p + 1] == 10):
            blank = _NEWLINE
            if c == 10 and p > 0 and data[p - 1] == 13:
                role = _INNER
            elif mode == t.MODE_COMMENT or (mode == t.MODE_STRING and after == t.MODE_CODE):
                role = _BORDER
            elif p > 0 and blanks[p - 1] != _VISIBLE:
                role = _INNER
        elif mode == t.MODE_STRING and brace == 0 and opening == 1 and state[t.OPENING] == 2:
            role = _INNER  # the second quote
        elif mode == t.MODE_STRING and opening == 2 and after == t.MODE_STRING and state[t.OPENING] == 0:
            role = _INNER  # the third
        elif mode == t.MODE_STRING and brace == 1 and after == t.MODE_STRING and state[t.DEPTH] >= 0 and c == 123:
            role = _INNER  # {{
        elif (mode == t.MODE_STRING and brace == 0 and opening != 2) or mode == t.MODE_COMMENT:
            if mode == t.MODE_STRING and after == t.MODE_CODE:  # a closing quote, or the { of a field in a format
                role = _BORDER
                if state[t.TRIPLE] == 1 and kind == t.QUOTE_MARK:
                    role = _INNER
            elif mode == t.MODE_STRING and state[t.QUOTES] == 1:
                text = t.I_PUNCTUATION
                if p + 2 < size and data[p + 1] == c and data[p + 2] == c:
                    role = _BORDER
                elif previous == text:
                    role = _INNER
            elif mode == t.MODE_STRING and state[t.QUOTES] == 2:
                text = t.I_PUNCTUATION
                role = _INNER
            elif mode == t.MODE_STRING and (state[t.BRACE] == 1 or (c == 125 and state[t.INSIDE] == t.I_FIELD)):
                role = _BORDER  # the braces of a field
            elif mode == t.MODE_STRING and escape == t.E_BACKSLASH:
                role = _INNER
            elif mode == t.MODE_STRING and state[t.ESCAPE] == t.E_BACKSLASH:
                pass
            elif kind == t.SPACE:
                blank = _BLANK
                if p > 0 and blanks[p - 1] != _VISIBLE:
                    role = _INNER
            else:
                text = text_class(c)
                if text == previous:
                    role = _INNER
        elif kind == t.SPACE:
            blank = _BLANK
            if p > 0 and blanks[p - 1] != _VISIBLE:
                role = _INNER
        elif kind == t.QUOTE_MARK:
            if state[t.TEXT_START] != p:
                role = _INNER  # after its prefix
        elif kind == t.HASH:
            text = t.I_PUNCTUATION
        elif state[t.PENDING] != t.P_NONE and state[t.PENDING] == pending and state[t.PENDING_START] != p:
            role = _INNER
        elif pending == t.P_OPERATOR and state[t.PENDING] == t.P_NUMBER and state[t.PENDING_START] != p:
            role = _INNER  # .5
        if blank != _VISIBLE and p > 0 and blanks[p - 1] == _VISIBLE and role == _INNER:
            role = _START
        roles[p] = role
        blanks[p] = blank
        previous = text


@compiled
def _cut(data, roles, blanks, starts):
    """Give single spaces to the piece that follows, and write the pieces' starts; returns their number."""
    size = len(data)
    p = 0
    while p < size:
        if blanks[p] == _VISIBLE:
            p += 1
            continue
        begin = p
        newline = False
        while p < size and blanks[p] != _VISIBLE and (p == begin or roles[p] != _BORDER):
            newline = newline or blanks[p] == _NEWLINE
            p += 1
        roles[begin] = _START
        if p < size and blanks[p] == _VISIBLE and not newline and data[p - 1] == 32 and roles[p] == _START:
            roles[p - 1] = _START
            roles[p] = _INNER
        elif p < size and roles[p] == _INNER:
            roles[p] = _START
    count = 0
    for p in range(size):
        if roles[p] != _INNER or p - starts[count - 1] >= MAX_PIECE:
            starts[count] = p
            count += 1
    return count


def pieces(data: np.ndarray) -> np.ndarray:
    """Return the int32 [k] byte offsets where the pieces of uint8 [n] `data` start; the first is 0, if any."""
    data = np.ascontiguousarray(data, np.uint8)
    roles, blanks = np.zeros(len(data), np.uint8), np.zeros(len(data), np.uint8)
    starts = np.empty(len(data), np.int32)
    _mark(new_state(), data, roles, blanks)
    return starts[: _cut(data, roles, blanks, starts)].copy()
