"""The byte machine behind `--valid`: may this byte come next, so that the text stays Python that can be completed?

It walks beside the lexer, whose state it reads and moves along, and is strict where the lexer forgives. Two kinds of
rules. The *hard* ones guarantee what `cgpt.valid` promises, on Python 3.11 to 3.13: literals end and are well formed,
brackets close in order, lines are indented like a block that is open (or deeper after a header). The *soft* ones
refuse what no grammar takes, such as an operator after an operator, and only make other syntax errors rarer.

From every accepted state there is a way on: a rule refuses the first byte after which there would be none.
"""

from __future__ import annotations

from cgpt import lexer_tables as t
from cgpt.compiled import compiled
from cgpt.lexer_bytes import flush, is_prefix, operator_extends, step_byte
from cgpt.lexer_state import word_id
from cgpt.valid_numbers import N_BAD, N_COMPLETE, N_DIGITS, N_FRACTION, N_ZERO, number_step
from cgpt.valid_rules import (
    AFTER_TRY,
    PREFIX,
    imports,
    in_open_try,
    infix_prefix,
    infix_words,
    innermost,
    may_close,
    may_end_statement,
    only_names,
    operand,
    operator_ends,
    operator_fits,
    prefix_letter,
    sibling,
    word_fits,
)

# Registers of a check, int32[N_REGISTERS]; the bytes of the current block's indentation follow them.
(UTF_LEFT, UTF_LOW, UTF_HIGH, NEED_NEWLINE, NUMBER, CLOSE_BRACE, INDENT, TOP, STEP, INFIX, CONVERSION, BEGAN,
 HEX_LEFT) = range(13)  # fmt: skip
N_REGISTERS = 16
MAX_INDENT = 240
SIZE = N_REGISTERS + MAX_INDENT
MAX_DEEPER = 16
"""A new block is indented by at most this many bytes more than the block around it."""
MAX_OPEN = 40
"""Brackets open at once, at most; Python itself gives up at 200, the lexer at 64."""


@compiled
def _fields(s, quote):
    """(f-string fields that are open, whether one of their strings has this quote)."""
    n = 0
    same = False
    for depth in range(1, s[t.DEPTH] + 1):
        b = t.BRACKETS_AT + depth * t.BRACKET_WIDTH
        if s[b + t.B_ROLE] == t.ROLE_FIELD:
            n += 1
            same = same or s[b + t.B_STRING] & 255 == quote
    return n, same


@compiled
def _end_token(s, r, data, p, soft):
    """Complete the pending token of the code in `s`, which ends before byte `p`; False where it may not end so."""
    pending = s[t.PENDING]
    if pending == t.P_NAME:
        word = word_id(s[t.PENDING_HASH])
        hard = 0 < word <= t.LAST_HARD and s[t.LAST] != t.L_DOT
        if hard and s[t.DEPTH] > 0 and s[t.LINE] == t.LINE_CONTINUED and t.WORD_RECOVERS[word] == 1:
            return False  # the lexer would take it that the bracket was forgotten
        if hard and word == t.W_LAMBDA and _fields(s, 0)[0] > 0:
            return False
        if soft and r[INFIX] != 0:
            if not infix_prefix(r[INFIX], data, s[t.PENDING_START], p, True):
                return False
        elif soft and hard and not word_fits(s, data, word):
            return False
        if soft and s[t.LAST] == t.L_DOT and s[t.STATEMENT] != t.K_FROM and 0 < word <= t.LAST_HARD:
            return False
        r[INFIX] = 0
    elif pending == t.P_NUMBER:
        if r[NUMBER] < N_COMPLETE:
            return False
    elif pending == t.P_OPERATOR:
        code = s[t.OPERATOR_CODE]
        if code == 33 or (soft and not operator_ends(s, code)):
            return False
    flush(s, s)
    return True


@compiled
def _line_starts(s, r):
    """Hard: the first token of a logical line stands here: whether its indentation is one that may be; notes it."""
    wanted = s[t.HEADER_KIND] != t.K_NONE
    if wanted:
        if r[INDENT] <= r[TOP]:
            return False
    else:
        known = False
        # What a decorator decorates stands below it: its block may not end before.
        for depth in range(s[t.BLOCK_DEPTH] if s[t.DECORATOR] >= 0 else 0, s[t.BLOCK_DEPTH] + 1):
            known = known or s[t.BLOCKS_AT + depth * t.BLOCK_WIDTH + t.K_INDENT] == s[t.COLUMN]
        if not known:
            return False
    for k in range(r[TOP], r[INDENT]):
        r[N_REGISTERS + k] = _deeper(r)
    r[TOP] = r[INDENT]
    return True


@compiled
def _deeper(r):
    """The byte that indents further: what the block's own indentation ends with, else the file's."""
    return r[N_REGISTERS + r[TOP] - 1] if r[TOP] > 0 else r[STEP]


@compiled
def _indent_byte(s, r, c):
    """Hard: whether `c`, a space or tab, goes on in an indentation that may be."""
    k = r[INDENT]
    if k < r[TOP]:
        return c == r[N_REGISTERS + k]
    return s[t.HEADER_KIND] != t.K_NONE and k < r[TOP] + MAX_DEEPER and k < MAX_INDENT and c == _deeper(r)


@compiled
def _escape(s, r, c):
    """Hard: whether byte `c` of a string goes on with its escape; counts the hexadecimal digits of \\x and \\u."""
    if r[HEX_LEFT] > 0:
        r[HEX_LEFT] -= 1
        if r[HEX_LEFT] >= 5:  # of the eight digits of \\U the first three are 0
            return c == 48
        return 48 <= c <= 57 or 97 <= c | 32 <= 102
    if s[t.ESCAPE] == t.E_BACKSLASH and s[t.FLAGS] & t.F_RAW == 0:
        if c == 120:
            r[HEX_LEFT] = 2
        elif s[t.FLAGS] & t.F_BYTES == 0:
            if c == 117:
                r[HEX_LEFT] = 4
            elif c == 85:
                r[HEX_LEFT] = 8
            return c != 78  # a name has to exist
    return True


@compiled
def _string_byte_fits(s, r, c):
    """Hard: whether byte `c` may come inside the string that `s` is in (nothing there belongs to code)."""
    quote = s[t.QUOTE]
    formatted = s[t.FLAGS] & t.F_FORMAT != 0
    n_fields, _ = _fields(s, quote)
    if c >= 128 and s[t.FLAGS] & t.F_BYTES:
        return False
    if n_fields > 0 and (c == 92 or (c == 35 and s[t.SPEC] == 0) or c == 10 or c == 13):
        return False  # Python 3.11 takes none of these inside a field
    if s[t.OPENING] == 0 and s[t.BRACE] == 0 and not _escape(s, r, c):
        return False
    if s[t.OPENING] == 2:
        return n_fields == 0
    if s[t.SPEC] == 1:
        return c != quote and c != 123 or (c == 123 and n_fields < 2)
    if c == 10 or c == 13:
        return s[t.TRIPLE] == 1 and s[t.OPENING] != 1
    if s[t.ESCAPE] == t.E_BACKSLASH:
        return not (formatted and (c == 123 or c == 125 or c == 78))
    if formatted and s[t.BRACE] == 0:
        if r[CLOSE_BRACE] == 1:
            r[CLOSE_BRACE] = 0
            return c == 125
        if c == 125:
            r[CLOSE_BRACE] = 1
        if c == 123 and s[t.DEPTH] + 1 >= MAX_OPEN:
            return False
    return True


@compiled
def _begin_utf8(r, c):
    """Start a character of several bytes; False where `c` starts none."""
    r[UTF_LOW], r[UTF_HIGH] = 128, 191
    if 194 <= c <= 223:
        r[UTF_LEFT] = 1
    elif 224 <= c <= 239:
        r[UTF_LEFT] = 2
        if c == 224:
            r[UTF_LOW] = 160
        elif c == 237:
            r[UTF_HIGH] = 159
    elif 240 <= c <= 244:
        r[UTF_LEFT] = 3
        if c == 240:
            r[UTF_LOW] = 144
        elif c == 244:
            r[UTF_HIGH] = 143
    else:
        return False
    return True


@compiled
def _code_byte_fits(s, r, data, p, soft):
    """Whether byte data[p] may come in code where nothing is pending; notes what starts."""
    c = int(data[p])
    kind = t.BYTE_CLASS[c]
    last = s[t.LAST]
    b = innermost(s)
    role = s[b + t.B_ROLE]
    slot = s[t.BRACKETS_AT + s[t.DEPTH] * t.BRACKET_WIDTH + t.B_SLOT]
    fresh = s[t.TOKENS] == 0 or last == t.L_BLOCK_COLON or last == t.L_SEMICOLON
    if kind == t.SPACE:
        return c == 32 or c == 9
    if soft and s[t.TOKENS] == 0 and s[t.DEPTH] == 0 and sibling(s, data) == t.W_TRY and kind != t.HASH:
        r[INFIX] = AFTER_TRY
        return kind == t.LETTER and infix_prefix(AFTER_TRY, data, p, p + 1, False)
    if role == t.ROLE_FIELD and last == t.L_OPEN and s[t.LAST_START] == s[b + t.B_START] and (
        c == 125 or c == 33 or c == 58 or c == 61 or c == 123
    ):  # fmt: skip
        return False  # a field with nothing in it
    if kind == t.OTHER or c >= 128:
        return False
    if kind == t.LETTER:
        if soft and operand(last) and not fresh:
            keyword = s[t.TOKENS] == 1 and (s[t.FIRST_WORD] == t.W_MATCH or s[t.FIRST_WORD] == t.W_TYPE)
            if not keyword:
                r[INFIX] = infix_words(s)
                fits = infix_prefix(r[INFIX], data, p, p + 1, False)
                return fits or (r[INFIX] & PREFIX != 0 and prefix_letter(c))
        return True
    if kind == t.DIGIT:
        r[NUMBER] = N_ZERO if c == 48 else N_DIGITS
        if soft and (imports(s) or only_names(slot)):
            return False
        return not (soft and operand(last) and not fresh)
    if kind == t.QUOTE_MARK:
        r[CLOSE_BRACE] = 0
        if soft and (imports(s) or only_names(slot)):
            return False
        return not _fields(s, c)[1] and not (soft and operand(last) and not fresh and last != t.L_STRING)
    if kind == t.OPENER:
        if s[t.DEPTH] + 1 >= MAX_OPEN:
            return False
        if soft and (slot == t.S_PARAMETER or slot == t.S_LAMBDA_PARAMETER):
            return False
        statement = s[t.STATEMENT]
        if soft and s[t.DEPTH] == 0 and not fresh:
            if (slot == t.S_DEF_NAME or slot == t.S_CLASS_NAME) and not (c == 40 and last == t.L_NAME):
                return False
            if statement == t.K_IMPORT or (statement == t.K_FROM and (last != t.L_KEYWORD or c != 40)):
                return False
        return not (soft and not fresh and (
            (c == 123 and operand(last)) or last == t.L_CLOSE_HEADER or last == t.L_DOT or (
                operand(last) and (last == t.L_NUMBER or (c == 40 and (last == t.L_STRING or last == t.L_CONSTANT))))
        ))  # fmt: skip
    if kind == t.CLOSER:
        wanted = 40 if c == 41 else c - 2
        if b == t.BRACKETS_AT or s[b + t.B_KIND] != wanted or s[t.OVERFLOW] > 0:
            return False
        return not soft or may_close(s)
    if kind == t.BACKSLASH:
        r[NEED_NEWLINE] = 1
        return s[t.TOKENS] > 0 and _fields(s, 0)[0] == 0
    if kind == t.HASH:  # a comment ends with a newline, so that one must fit
        return _newline_fits(s, soft)
    if c == 59 and s[t.DEPTH] > 0:
        return False
    if c == 33:  # != or a field's conversion
        return (role == t.ROLE_FIELD or operand(last)) and (not soft or operator_fits(s, c))
    return not soft or operator_fits(s, c)


@compiled
def _newline_fits(s, soft):
    """Whether a newline may come in code where nothing is pending."""
    if s[t.DEPTH] > 0:
        b = innermost(s)
        return b != t.BRACKETS_AT and _fields(s, 0)[0] == 0
    if s[t.TOKENS] == 0:
        return True
    if s[t.LAST] == t.L_COLON or (s[t.OVERFLOW] > 0):
        return False
    return not soft or may_end_statement(s)


@compiled
def admit(s, r, data, p, soft):
    """Read byte `data[p]` after what `s` and `r` stand for, if it may come.

    `s` int32[STATE_SIZE] is the lexer's state and `r` int32[SIZE] the registers; both are changed, also where the
    answer is no (so check on copies). Returns 0: it may not come; 1: it may; 2: it may, and ends a statement.
    """
    c = int(data[p])
    if c < 32 and c != 9 and c != 10 and c != 13 or c == 127:
        return 0
    if r[UTF_LEFT] > 0:
        if not r[UTF_LOW] <= c <= r[UTF_HIGH]:
            return 0
        r[UTF_LEFT] -= 1
        r[UTF_LOW], r[UTF_HIGH] = 128, 191
        step_byte(s, c, p)
        return 1
    if r[NEED_NEWLINE] == 1:  # after a backslash or a carriage return
        if c != 10 and not (c == 13 and s[t.PENDING] == t.P_BACKSLASH):
            return 0
        if c == 10:
            r[NEED_NEWLINE] = 0
            if s[t.PENDING] == t.P_BACKSLASH:
                step_byte(s, c, p)
                return 1
        else:
            return 1
    if s[t.MODE] == t.MODE_STRING:
        if (s[t.OPENING] == 2 and c != s[t.QUOTE]) or (s[t.BRACE] == 1 and c != 123):
            flush(s, s)  # the string was empty, or a field begins: the byte belongs to code
        else:
            if not _string_byte_fits(s, r, c) or (c >= 128 and not _begin_utf8(r, c)):
                return 0
            if c == 13:
                r[NEED_NEWLINE] = 1
            step_byte(s, c, p)
            return 1
    comment = s[t.MODE] == t.MODE_COMMENT
    if comment and c != 10 and c != 13:
        if c >= 128 and not _begin_utf8(r, c):
            return 0
        step_byte(s, c, p)
        return 1
    if c == 13:  # only ever together with the newline after it, so that one must fit
        r[NEED_NEWLINE] = 1
        if not comment:
            if s[t.PENDING] != t.P_INDENT and s[t.PENDING] != t.P_NONE and not _end_token(s, r, data, p, soft):
                return 0
            if s[t.PENDING] != t.P_INDENT and not _newline_fits(s, soft):
                return 0
        elif s[t.PENDING] != t.P_INDENT and not _newline_fits(s, soft):
            return 0
        return 1
    pending = s[t.PENDING]
    if pending == t.P_INDENT:
        if s[t.DEPTH] == 0:
            if c == 32 or c == 9:
                if not _indent_byte(s, r, c):
                    return 0
                r[INDENT] += 1
            elif c == 10:
                r[INDENT] = 0
            elif c == 92 or (c != 35 and not comment and not _line_starts(s, r)):
                return 0
        if c == 32 or c == 9 or c == 10 or c == 35 or comment:
            step_byte(s, c, p)
            return 1
        flush(s, s)
    elif pending != t.P_NONE and not comment:
        kind = t.BYTE_CLASS[c]
        goes_on = False
        if pending == t.P_NAME:
            if c >= 128:
                return 0
            if kind == t.LETTER or kind == t.DIGIT:
                if soft and r[INFIX] != 0 and not infix_prefix(r[INFIX], data, s[t.PENDING_START], p + 1, False):
                    two = prefix_letter(c) and s[t.PREFIX] < 64 and (c | 32 == 114) != (s[t.PREFIX] == t.F_RAW)
                    if not (two and r[INFIX] & PREFIX and s[t.PENDING_LENGTH] == 1):
                        return 0
                goes_on = True
            elif kind == t.QUOTE_MARK and is_prefix(s):
                if _fields(s, 0)[0] > 0 or (soft and r[INFIX] != 0 and r[INFIX] & PREFIX == 0):
                    return 0
                r[CLOSE_BRACE] = 0
                r[INFIX] = 0
                goes_on = True
        elif pending == t.P_NUMBER:
            after = number_step(r[NUMBER], c)
            goes_on = after != N_BAD
            if goes_on:
                r[NUMBER] = after
            elif kind == t.LETTER or kind == t.DIGIT:
                return 0
        elif pending == t.P_OPERATOR:
            code = s[t.OPERATOR_CODE]
            field = s[t.BRACKETS_AT + s[t.DEPTH] * t.BRACKET_WIDTH + t.B_ROLE] == t.ROLE_FIELD
            goes_on = operator_extends(code, c) and not (c == 61 and code == 58 and field)
            if (
                goes_on
                and soft
                and (c == 61 or c == 62)
                and not operator_ends(s, code | c << (8 if code < 256 else 16))
            ):
                return 0
            if code == 46 and kind == t.DIGIT:
                r[NUMBER] = N_FRACTION
                goes_on = not (soft and operand(s[t.LAST]))
                if not goes_on:
                    return 0
            elif not goes_on and code == 33 and field and (c == 114 or c == 115 or c == 97):
                flush(s, s)  # a conversion: !r
                r[CONVERSION] = 1
                step_byte(s, c, p)
                return 1
        if r[CONVERSION] == 1:
            if c != 125 and c != 58:
                return 0
            r[CONVERSION] = 0
        if goes_on:
            step_byte(s, c, p)
            return 1
        if not _end_token(s, r, data, p, soft):
            return 0
    if c == 10:
        if not _newline_fits(s, soft):
            return 0
        statement = s[t.DEPTH] == 0 and s[t.TOKENS] > 0
        r[INDENT] = 0
        step_byte(s, c, p)
        if s[t.HEADER_KIND] != t.K_NONE and (r[TOP] + 1 >= MAX_INDENT or s[t.BLOCK_DEPTH] + 2 >= t.MAX_BLOCKS):
            return 0
        complete = s[t.HEADER_KIND] == t.K_NONE and s[t.DECORATOR] < 0 and not in_open_try(s, r[BEGAN])
        return 2 if statement and complete else 1
    if not _code_byte_fits(s, r, data, p, soft):
        return 0
    step_byte(s, c, p)
    return 1


@compiled
def admit_all(s, r, data, begin, end, soft):
    """Read data[begin:end]; -1 where it may not come, else the offset after the first statement's end (0: none)."""
    for p in range(begin, end):
        answer = admit(s, r, data, p, soft)
        if answer == 0:
            return -1
        if answer == 2:
            return p + 1
    return 0


@compiled
def read_prompt(s, r, data):
    """Read a whole prompt as it is, complaining of nothing, and set the registers to where it ends."""
    line = 0
    for p in range(len(data)):
        c = int(data[p])
        mode = s[t.MODE]
        at_start = mode == t.MODE_CODE and s[t.PENDING] == t.P_INDENT and s[t.DEPTH] == 0
        if at_start and c != 32 and c != 9 and c != 10 and c != 12 and c != 13 and c != 35:
            r[TOP] = min(p - line, MAX_INDENT)
            for k in range(r[TOP]):
                r[N_REGISTERS + k] = data[line + k]
        plain = mode == t.MODE_STRING and s[t.OPENING] == 0 and s[t.BRACE] == 0 and s[t.SPEC] == 0
        if plain and s[t.ESCAPE] == t.E_NONE and s[t.FLAGS] & t.F_FORMAT and c == 125:
            r[CLOSE_BRACE] = 1 - r[CLOSE_BRACE]
        else:
            r[CLOSE_BRACE] = 0
        if plain:
            left = r[HEX_LEFT]
            if not _escape(s, r, c):
                r[HEX_LEFT] = 0 if left else r[HEX_LEFT]
        else:
            r[HEX_LEFT] = 0
        step_byte(s, c, p)
        if c == 10:
            line = p + 1
    r[BEGAN] = len(data)
    if s[t.MODE] != t.MODE_CODE:
        return
    if s[t.PENDING] == t.P_INDENT:
        r[INDENT] = len(data) - line
    elif s[t.PENDING] == t.P_BACKSLASH:
        r[NEED_NEWLINE] = 1
    elif s[t.PENDING] == t.P_NUMBER:
        begin = s[t.PENDING_START]
        state = N_FRACTION if data[begin] == 46 else (N_ZERO if data[begin] == 48 else N_DIGITS)
        for p in range(begin + 1, len(data)):
            state = number_step(state, int(data[p]))
        r[NUMBER] = N_DIGITS if state == N_BAD else state
    elif s[t.PENDING] == t.P_NAME and operand(s[t.LAST]) and s[t.TOKENS] > 1:
        r[INFIX] = infix_words(s)
