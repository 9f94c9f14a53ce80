"""The lexer: what plain code knows about a position in Python text from the bytes to its left alone.

A byte-level state machine in numba, O(1) per byte, for complete, partial and broken Python. At any position it offers

* `snapshot`: a small finite state (`FIELDS`) that the router reads, and
* `context`: offsets of the places that plain-code attention looks at (`CONTEXT`), such as the callee of the innermost
  open bracket or the header of the enclosing block.

The token in progress counts as if the text ended here: after `def` the state is that of a keyword although the next
byte may turn it into `default`. `run` gathers both at many positions in one pass.
"""

from __future__ import annotations

import numpy as np

from cgpt import lexer_tables as t
from cgpt.compiled import compiled
from cgpt.lexer_bytes import continues, flush, has_pending, step_byte
from ontology.routers import StateField

__all__ = [
    "CONTEXT", "COUNTS", "FIELDS", "STATE_SIZE", "context", "new_state", "run", "snapshot", "state_at_end", "step",
]  # fmt: skip

STATE_SIZE = t.STATE_SIZE

FIELDS: tuple[StateField, ...] = (
    StateField("text", t.TEXTS),  # code, or the kind of text the position is in
    StateField("inside", t.INSIDES),  # what stands just before, in a string or comment
    StateField("slot", t.SLOTS),  # which part of the innermost bracket or of the statement
    StateField("last", t.LASTS),  # class of the last token
    StateField("name", t.NAMES),  # what is known of the last token where it is a name
    StateField("receiver", t.RECEIVERS),  # after a dot, or in the attribute after it: what the dot belongs to
    StateField("alone", ("no", "yes")),  # the last token is all there is of its statement, argument or element
    StateField("line", t.LINES),  # at the start of a line: how it relates to the line before
    StateField("block", t.BLOCKS),  # at the start of a statement: what block it is in
    StateField("blank", ("no", "yes")),  # at the start of a statement: a blank line stands before
)

CONTEXT: tuple[str, ...] = (
    "name_start", "last_name", "last_token", "callee", "open_bracket", "outer_callee", "argument", "previous_argument",
    "argument_name", "receiver", "assign_target", "for_target", "block_header", "block_name", "outer_header",
    "def_name", "class_name", "decorator", "module_name", "line_first", "line_second", "previous_line_first",
    "previous_line_second", "sibling_first", "text_start", "bracket_depth", "block_depth", "bracket_position", "indent",
)  # fmt: skip
# These are plain numbers, not offsets: never -1.
COUNTS = ("bracket_depth", "block_depth", "bracket_position", "indent")
N_FIELDS, N_CONTEXT = len(FIELDS), len(CONTEXT)


def new_state() -> np.ndarray:
    """Return the int32 [STATE_SIZE] state at the start of a file."""
    state = np.zeros(STATE_SIZE, np.int32)
    for register in (
        t.PENDING_START, t.TEXT_START, t.LAST_START, t.NAME_START, t.RECEIVER_START, t.CLOSED_CALLEE, t.LINE_FIRST,
        t.LINE_SECOND, t.PREVIOUS_FIRST, t.PREVIOUS_SECOND, t.ASSIGN_TARGET, t.HEADER_FIRST, t.HEADER_NAME, t.OWN_NAME,
        t.DECORATOR, t.MODULE_NAME, t.FOR_TARGET,
    ):  # fmt: skip
        state[register] = -1
    for base, columns in ((t.BRACKETS_AT, (t.B_START, t.B_CALLEE, t.B_ITEM, t.B_ARGUMENT_NAME, t.B_PREVIOUS_ITEM)),
                          (t.BLOCKS_AT, (t.K_HEADER, t.K_NAME, t.K_LAST))):  # fmt: skip
        for column in columns:
            state[base + column] = -1
    state[t.PENDING] = t.P_INDENT
    state[t.NEWLINES] = 1
    return state


@compiled
def _fields(s, row):
    """Write the router's fields of a flushed state."""
    slot = s[t.BRACKETS_AT + s[t.DEPTH] * t.BRACKET_WIDTH + t.B_SLOT]
    last = s[t.LAST]
    for i in range(len(row)):
        row[i] = 0
    if s[t.MODE] != t.MODE_CODE:
        text = t.T_STRING
        if s[t.MODE] == t.MODE_COMMENT:
            text = t.T_LINE_COMMENT if s[t.COMMENT_OWN_LINE] == 1 else t.T_COMMENT
        elif s[t.SPEC] == 1:
            text = t.T_SPEC
        elif s[t.FLAGS] & t.F_FORMAT:
            text = t.T_FSTRING
        elif s[t.FLAGS] & t.F_BYTES:
            text = t.T_BYTES
        elif s[t.FLAGS] & t.F_DOC:
            text = t.T_DOCSTRING
        elif s[t.TRIPLE] == 1:
            text = t.T_TRIPLE
        row[0] = text
        row[1] = s[t.INSIDE]
        if text >= t.T_STRING:
            row[2] = slot
        return
    if last == t.L_BLOCK_COLON or last == t.L_SEMICOLON:
        slot = t.S_STATEMENT
    row[2] = slot
    row[3] = last
    if last == t.L_NAME:
        row[4] = s[t.NAME_KIND]
    if last == t.L_DOT or last == t.L_NAME:
        row[5] = s[t.RECEIVER]
    if last <= t.LAST_OPERAND and last != t.L_START:
        row[6] = 1 if s[t.BRACKETS_AT + s[t.DEPTH] * t.BRACKET_WIDTH + t.B_TOKENS] == 1 else 0
    row[7] = s[t.LINE]
    if last == t.L_START and s[t.TOKENS] == 0:
        b = t.BLOCKS_AT + s[t.BLOCK_DEPTH] * t.BLOCK_WIDTH
        row[8] = s[b + t.K_KIND]
        row[9] = s[t.BLANK]


@compiled
def _context(s, row):
    """Write the registers of a flushed state."""
    b = t.BRACKETS_AT + s[t.DEPTH] * t.BRACKET_WIDTH
    code = s[t.MODE] == t.MODE_CODE
    row[0] = -1
    row[1] = s[t.NAME_START]
    row[2] = s[t.LAST_START]
    row[3] = s[b + t.B_CALLEE] if s[t.DEPTH] > 0 else -1
    row[4] = s[b + t.B_START] if s[t.DEPTH] > 0 else -1
    row[5] = s[b - t.BRACKET_WIDTH + t.B_CALLEE] if s[t.DEPTH] > 1 else -1
    row[6] = s[b + t.B_ITEM]
    row[7] = s[b + t.B_PREVIOUS_ITEM]
    row[8] = s[b + t.B_ARGUMENT_NAME]
    row[9] = s[t.RECEIVER_START] if code and s[t.RECEIVER] != t.R_NONE else -1
    row[10] = s[t.ASSIGN_TARGET]
    row[11] = s[t.FOR_TARGET]
    k = t.BLOCKS_AT + s[t.BLOCK_DEPTH] * t.BLOCK_WIDTH
    row[12] = s[k + t.K_HEADER]
    row[13] = s[k + t.K_NAME]
    row[14] = s[k - t.BLOCK_WIDTH + t.K_HEADER] if s[t.BLOCK_DEPTH] > 0 else -1
    row[15] = -1
    row[16] = -1
    depth = s[t.BLOCK_DEPTH]
    while depth > 0 and (row[15] < 0 or row[16] < 0):
        at = t.BLOCKS_AT + depth * t.BLOCK_WIDTH
        if s[at + t.K_KIND] == t.K_DEF and row[15] < 0 and row[16] < 0:
            row[15] = s[at + t.K_NAME]
        elif s[at + t.K_KIND] == t.K_CLASS and row[16] < 0:
            row[16] = s[at + t.K_NAME]
        depth -= 1
    row[17] = s[t.DECORATOR]
    row[18] = s[t.MODULE_NAME]
    row[19] = s[t.LINE_FIRST]
    row[20] = s[t.LINE_SECOND]
    row[21] = s[t.PREVIOUS_FIRST]
    row[22] = s[t.PREVIOUS_SECOND]
    row[23] = s[k + t.K_LAST]
    row[24] = -1 if code else s[t.TEXT_START]
    row[25] = s[t.DEPTH]
    row[26] = s[t.BLOCK_DEPTH]
    row[27] = s[b + t.B_COMMAS]
    row[28] = s[k + t.K_INDENT]


@compiled
def _flushed_copy(s, scratch):
    """Copy what `flush` may change into `scratch` and complete the pending token there; the original stays."""
    for i in range(t.BRACKETS_AT + (s[t.DEPTH] + 1) * t.BRACKET_WIDTH):
        scratch[i] = s[i]
    for i in range(t.BLOCKS_AT, t.BLOCKS_AT + (s[t.BLOCK_DEPTH] + 1) * t.BLOCK_WIDTH):
        scratch[i] = s[i]
    scratch[t.PROVISIONAL] = 1
    scratch[t.COMMENT_OWN_LINE] = s[t.PENDING] == t.P_INDENT
    flush(scratch, s)


@compiled
def step(state, byte, position):
    """Read one byte. `state`: int32 [STATE_SIZE], changed in place; `position`: its byte offset in the file."""
    step_byte(state, int(byte), position)


@compiled
def snapshot(state, row):
    """Write the router's state at the end of what was read: uint8 [len(FIELDS)], codes into each field's values."""
    scratch = np.empty(t.NAMES_AT, np.int32)
    _flushed_copy(state, scratch)
    _fields(scratch, row)


@compiled
def context(state, row):
    """Write the registers at the end of what was read: int32 [len(CONTEXT)], byte offsets or -1, see COUNTS."""
    scratch = np.empty(t.NAMES_AT, np.int32)
    _flushed_copy(state, scratch)
    _context(scratch, row)
    if state[t.MODE] == t.MODE_CODE and state[t.PENDING] == t.P_NAME:
        row[0] = state[t.PENDING_START]


@compiled
def resume(state, data, position, boundaries, fields, registers):
    """Read on from byte `position`, where `state` stands; note fields and registers at each boundary as `run` does."""
    scratch = np.empty(t.NAMES_AT, np.int32)
    for i in range(len(boundaries)):
        boundary = boundaries[i]
        while position < boundary:
            step_byte(state, int(data[position]), position)
            position += 1
        name_start = -1
        if state[t.MODE] == t.MODE_CODE and state[t.PENDING] == t.P_NAME:
            name_start = state[t.PENDING_START]
        if not has_pending(state):
            state[t.COMMENT_OWN_LINE] = state[t.PENDING] == t.P_INDENT
            _fields(state, fields[i])
            _context(state, registers[i])
        elif boundary < len(data) and not continues(state, int(data[boundary])):
            # The next byte completes the token anyway: doing it now saves the copy and changes nothing.
            flush(state, state)
            _fields(state, fields[i])
            _context(state, registers[i])
        else:
            _flushed_copy(state, scratch)
            _fields(scratch, fields[i])
            _context(scratch, registers[i])
        registers[i, 0] = name_start


def state_at_end(data: bytes) -> np.ndarray:
    """Return the router's state after `data`: uint8 [len(FIELDS)]."""
    return run(np.frombuffer(data, np.uint8), np.array([len(data)]))[0][0]


def run(data: np.ndarray, boundaries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Read a file once and note the state before the byte at each boundary.

    Args:
        data: uint8 [n], the file.
        boundaries: integers [m], ascending byte offsets, 0 to n (n is the end of the file).

    Returns:
        uint8 [m, len(FIELDS)] and int32 [m, len(CONTEXT)]; the state at i never depends on bytes from i on.

    Raises:
        ValueError: the boundaries descend or leave the file.
    """
    boundaries = np.ascontiguousarray(boundaries, np.int32)
    if len(boundaries) and (boundaries[0] < 0 or boundaries[-1] > len(data) or (np.diff(boundaries) < 0).any()):
        raise ValueError("boundaries must ascend from 0 to the length of the data.")
    fields = np.zeros((len(boundaries), N_FIELDS), np.uint8)
    registers = np.zeros((len(boundaries), N_CONTEXT), np.int32)
    resume(new_state(), np.ascontiguousarray(data, np.uint8), 0, boundaries, fields, registers)
    return fields, registers
