"""Levels, blocks, names and statements: what the lexer's tokens do to its state, in small steps.

Every function here changes the int32 state array `s` in place (legend in `cgpt.lexer_tables`) and takes O(1) time,
save that leaving blocks pops what was pushed before. Nothing looks ahead.
"""

from __future__ import annotations

from cgpt import lexer_tables as t
from cgpt.compiled import compiled


@compiled
def level(s):
    """Offset of the innermost bracket's row; level 0 is the statement itself."""
    return t.BRACKETS_AT + s[t.DEPTH] * t.BRACKET_WIDTH


@compiled
def block(s):
    """Offset of the innermost block's row; level 0 is the module."""
    return t.BLOCKS_AT + s[t.BLOCK_DEPTH] * t.BLOCK_WIDTH


@compiled
def word_id(value):
    """Number of a known word by its hash, 0 for any other identifier."""
    place = value % t.WORD_SLOTS
    while t.WORD_HASHES[place] >= 0:
        if t.WORD_HASHES[place] == value:
            return int(t.WORD_IDS[place])
        place = (place + 1) % t.WORD_SLOTS
    return 0


@compiled
def recall_name(s, value):
    """What kind of name this hash was last bound to in the file, N_NEW where it was never seen."""
    key = value & 0x7FFFFFF
    home = value ^ (value >> 11)
    for probe in range(t.NAME_PROBES):
        entry = s[t.NAMES_AT + (home + probe) % t.NAME_SLOTS]
        if entry >> 4 == key and entry != 0:
            return entry & 15
    return t.N_NEW


@compiled
def remember_name(s, value, kind):
    """Store a name's kind; a plain sighting (N_SEEN) never hides what it was bound to."""
    key = value & 0x7FFFFFF
    home = value ^ (value >> 11)
    place = -1
    for probe in range(t.NAME_PROBES):
        at = t.NAMES_AT + (home + probe) % t.NAME_SLOTS
        entry = s[at]
        if entry == 0:
            if place < 0:
                place = at
        elif entry >> 4 == key:
            if kind != t.N_SEEN:
                s[at] = (key << 4) | kind
            return
    if place < 0:  # full: what was only seen gives way, then whatever stands first
        place = t.NAMES_AT + home % t.NAME_SLOTS
        for probe in range(t.NAME_PROBES):
            at = t.NAMES_AT + (home + probe) % t.NAME_SLOTS
            if s[at] & 15 == t.N_SEEN:
                place = at
                break
    s[place] = (key << 4) | kind


@compiled
def clear_level(s, b, kind, role, slot, start, callee):
    """Make the row at `b` a fresh bracket."""
    s[b + t.B_KIND] = kind
    s[b + t.B_ROLE] = role
    s[b + t.B_START] = start
    s[b + t.B_CALLEE] = callee
    s[b + t.B_SLOT] = slot
    s[b + t.B_ITEM] = -1
    s[b + t.B_TOKENS] = 0
    s[b + t.B_ARGUMENT_NAME] = -1
    s[b + t.B_PREVIOUS_ITEM] = -1
    s[b + t.B_COMMAS] = 0


@compiled
def push(s, kind, role, slot, start, callee):
    """Open a bracket (or a lambda's parameter list, kind 'L'); beyond MAX_BRACKETS only a count is kept."""
    if s[t.DEPTH] + 1 >= t.MAX_BRACKETS:
        s[t.OVERFLOW] += 1
        return
    s[t.DEPTH] += 1
    clear_level(s, level(s), kind, role, slot, start, callee)


@compiled
def end_statement(s):
    """The statement is complete: it becomes the previous line, level 0 is cleared."""
    if s[t.TOKENS] > 0:
        s[t.PREVIOUS_FIRST] = s[t.LINE_FIRST]
        s[t.PREVIOUS_SECOND] = s[t.LINE_SECOND]
        s[block(s) + t.K_LAST] = s[t.LINE_FIRST]
        if s[t.STATEMENT] == t.K_DECORATOR:
            s[t.DECORATOR] = s[t.OWN_NAME]
        else:
            s[t.DECORATOR] = -1
    s[t.DEPTH] = 0
    s[t.OVERFLOW] = 0
    clear_level(s, t.BRACKETS_AT, 0, t.ROLE_STATEMENT, t.S_STATEMENT, -1, -1)
    s[t.STATEMENT] = t.K_NONE
    s[t.TOKENS] = 0
    s[t.LINE_FIRST] = -1
    s[t.LINE_SECOND] = -1
    s[t.ASSIGN_TARGET] = -1
    s[t.FOR_TARGET] = -1
    s[t.MODULE_NAME] = -1
    s[t.OWN_NAME] = -1
    s[t.FIRST_WORD] = 0
    s[t.LAST] = t.L_START
    s[t.NAME_START] = -1
    s[t.RECEIVER] = t.R_NONE
    s[t.RECEIVER_START] = -1


@compiled
def begin_line(s):
    """The first token of a logical line stands at COLUMN: leave or enter blocks."""
    column = s[t.COLUMN]
    s[t.LINE] = t.LINE_SAME
    while s[t.BLOCK_DEPTH] > 0 and s[block(s) + t.K_INDENT] > column:
        s[t.BLOCK_DEPTH] -= 1
        s[t.LINE] = t.LINE_DEDENT
    if column > s[block(s) + t.K_INDENT]:
        if s[t.BLOCK_DEPTH] + 1 < t.MAX_BLOCKS:
            s[t.BLOCK_DEPTH] += 1
        b = block(s)
        s[b + t.K_INDENT] = column
        s[b + t.K_KIND] = s[t.HEADER_KIND]
        s[b + t.K_HEADER] = s[t.HEADER_FIRST]
        s[b + t.K_NAME] = s[t.HEADER_NAME]
        s[b + t.K_LAST] = -1
        s[t.LINE] = t.LINE_FIRST_IN_BLOCK
    s[t.HEADER_KIND] = t.K_NONE
    s[t.HEADER_FIRST] = -1
    s[t.HEADER_NAME] = -1


@compiled
def begin_token(s, start):
    """Note a token's start for the statement and for the item of the innermost bracket."""
    if s[t.LAST] == t.L_BLOCK_COLON or s[t.LAST] == t.L_SEMICOLON:
        end_statement(s)  # a statement on the header's own line, or after a semicolon
        s[t.HEADER_KIND] = t.K_NONE
        s[t.HEADER_FIRST] = -1
        s[t.HEADER_NAME] = -1
    s[t.LINE] = t.LINE_NO
    s[t.BLANK] = 0
    if s[t.TOKENS] == 0:
        s[t.LINE_FIRST] = start
    elif s[t.TOKENS] == 1:
        s[t.LINE_SECOND] = start
    if s[t.TOKENS] < 2:
        s[t.TOKENS] += 1
    b = level(s)
    if s[b + t.B_TOKENS] == 0:
        s[b + t.B_ITEM] = start
    if s[b + t.B_TOKENS] < 2:
        s[b + t.B_TOKENS] += 1


@compiled
def begin_operand(s, start):
    """A name, number, string or constant starts; settle what kind of statement this is."""
    begin_token(s, start)
    if s[t.STATEMENT] == t.K_NONE or s[t.STATEMENT] == t.K_ASYNC:
        s[t.STATEMENT] = t.K_EXPRESSION
        s[t.BRACKETS_AT + t.B_SLOT] = t.S_EXPRESSION
    elif s[t.DEPTH] == 0 and s[t.LINE_SECOND] == start and s[t.STATEMENT] == t.K_EXPRESSION and s[t.LAST] == t.L_NAME:
        if s[t.FIRST_WORD] == t.W_MATCH:  # `match x`: two operands side by side, so `match` was the keyword
            s[t.STATEMENT] = t.K_MATCH
            s[t.BRACKETS_AT + t.B_SLOT] = t.S_CONDITION
        elif s[t.FIRST_WORD] == t.W_TYPE:
            s[t.STATEMENT] = t.K_SIMPLE
