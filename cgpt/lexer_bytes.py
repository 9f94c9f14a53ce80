"""The byte machine of the lexer: gathers bytes into tokens, in code, strings and comments, and hands tokens on.

A token in progress is *pending*: `def` may still become `default`. To know the state at a position from the text to
its left alone, `flush` completes the pending token on a copy (see `cgpt.lexer`), as if the text ended there.
"""

from __future__ import annotations

from cgpt import lexer_tables as t
from cgpt.compiled import compiled
from cgpt.lexer_state import begin_line, begin_token, end_statement, level, push, word_id
from cgpt.lexer_tokens import on_close, on_keyword, on_literal, on_name, on_open, on_operator


@compiled
def operator_extends(code, c):
    """Whether operator bytes `code` followed by byte `c` are (the start of) a longer operator."""
    if code < 256:
        if c == 61:  # =
            return code != 46 and code != 59 and code != 44 and code != 126
        if code == c:
            return c == 42 or c == 47 or c == 60 or c == 62 or c == 46  # ** // << >> ..
        return code == 45 and c == 62  # ->
    if code < 65536:
        first = code & 255
        if first != code >> 8:
            return False
        if first == 46:
            return c == 46
        return c == 61 and first != 61
    return False


@compiled
def number_extends(s, c):
    """Whether byte `c` continues the pending number; moves the number's part along."""
    part = s[t.NUMBER_PART]
    digit = 48 <= c <= 57 or c == 95
    low = c | 32
    if part == t.D_RADIX:
        return digit or 97 <= low <= 102
    if part == t.D_IMAGINARY:
        return False
    if part == t.D_E:
        if digit or c == 43 or c == 45:
            s[t.NUMBER_PART] = t.D_EXPONENT
            return True
        return False
    if digit:
        if part == t.D_ZERO:
            s[t.NUMBER_PART] = t.D_DIGITS
        return True
    if low == 106:
        s[t.NUMBER_PART] = t.D_IMAGINARY
        return True
    if part == t.D_EXPONENT:
        return False
    if low == 101:
        s[t.NUMBER_PART] = t.D_E
        return True
    if c == 46 and part != t.D_FRACTION:
        s[t.NUMBER_PART] = t.D_FRACTION
        return True
    if part == t.D_ZERO and (low == 120 or low == 111 or low == 98):
        s[t.NUMBER_PART] = t.D_RADIX
        return True
    return False


@compiled
def flush(s, names):
    """Complete the pending token, as if the text ended here. `names`: the state that owns the table of names."""
    pending = s[t.PENDING]
    s[t.PENDING] = t.P_NONE
    if s[t.MODE] == t.MODE_STRING:
        if s[t.OPENING] == 2:
            end_string(s)
        elif s[t.BRACE] == 1:
            open_field(s, s[t.PENDING_START])
    elif s[t.MODE] == t.MODE_COMMENT or pending == t.P_NONE:
        pass
    elif pending == t.P_NAME:
        value = s[t.PENDING_HASH]
        word = word_id(value)
        if word == t.W_IMPORT or (0 < word <= t.LAST_HARD and s[t.LAST] != t.L_DOT):  # `from . import x`
            on_keyword(s, s[t.PENDING_START], word)
        else:
            on_name(s, names, s[t.PENDING_START], value, word, s[t.PENDING_TAIL])
    elif pending == t.P_NUMBER:
        on_literal(s, s[t.PENDING_START], t.L_NUMBER)
    elif pending == t.P_OPERATOR:
        on_operator(s, s[t.PENDING_START], s[t.OPERATOR_CODE])
    elif pending == t.P_INDENT:
        if s[t.DEPTH] > 0:
            s[t.LINE] = t.LINE_CONTINUED
        elif s[t.TOKENS] == 0:
            begin_line(s)
            s[t.BLANK] = 1 if s[t.NEWLINES] > 1 else 0


@compiled
def begin_string(s, start, quote, flags):
    """A string opens with `quote`; `flags` are its prefix letters' bits."""
    first = s[t.TOKENS] == 0 and s[t.DEPTH] == 0
    on_literal(s, start, t.L_STRING)
    b = t.BLOCKS_AT + s[t.BLOCK_DEPTH] * t.BLOCK_WIDTH
    if first and s[b + t.K_LAST] < 0 and s[b + t.K_KIND] <= t.K_CLASS and flags & (t.F_BYTES | t.F_FORMAT) == 0:
        flags |= t.F_DOC
    s[t.MODE] = t.MODE_STRING
    s[t.QUOTE] = quote
    s[t.TRIPLE] = 0
    s[t.FLAGS] = flags
    s[t.OPENING] = 1
    s[t.QUOTES] = 0
    s[t.ESCAPE] = t.E_NONE
    s[t.BRACE] = 0
    s[t.SPEC] = 0
    s[t.INSIDE] = t.I_START
    s[t.TEXT_START] = start


@compiled
def end_string(s):
    """Back to code after a string; the string is the last token."""
    s[t.MODE] = t.MODE_CODE
    s[t.OPENING] = 0
    s[t.BRACE] = 0
    s[t.SPEC] = 0
    s[t.LAST] = t.L_STRING
    s[t.LAST_START] = s[t.TEXT_START]
    s[t.TEXT_START] = -1


@compiled
def open_field(s, start):
    """An f-string's `{`: code until the matching `}`; the string waits in the bracket's row."""
    kept = s[t.QUOTE] | (s[t.TRIPLE] << 8) | (s[t.FLAGS] << 9) | (s[t.SPEC] << 16)
    text_start = s[t.TEXT_START]
    push(s, 123, t.ROLE_FIELD, t.S_FIELD, start, -1)
    b = level(s)
    s[b + t.B_STRING] = kept
    s[b + t.B_STRING_START] = text_start
    s[t.MODE] = t.MODE_CODE
    s[t.BRACE] = 0
    s[t.TEXT_START] = -1
    s[t.LAST] = t.L_OPEN
    s[t.LAST_START] = start
    s[t.RECEIVER] = t.R_NONE


@compiled
def back_to_string(s, b, spec):
    """Continue the f-string whose field is the bracket at row `b`; with `spec` in its format specification."""
    kept = s[b + t.B_STRING]
    s[t.MODE] = t.MODE_STRING
    s[t.QUOTE] = kept & 255
    s[t.TRIPLE] = (kept >> 8) & 1
    s[t.FLAGS] = (kept >> 9) & 127
    s[t.SPEC] = spec
    s[t.OPENING] = 0
    s[t.QUOTES] = 0
    s[t.ESCAPE] = t.E_NONE
    s[t.BRACE] = 0
    s[t.INSIDE] = t.I_START if spec else t.I_FIELD
    s[t.TEXT_START] = s[b + t.B_STRING_START]


@compiled
def text_class(c):
    """What a byte of a string's or comment's text is."""
    kind = t.BYTE_CLASS[c]
    if kind == t.LETTER:
        return t.I_WORD
    if kind == t.DIGIT:
        return t.I_NUMBER
    if kind == t.SPACE:
        return t.I_SPACE
    if kind == t.NEWLINE:
        return t.I_NEWLINE
    return t.I_PUNCTUATION


@compiled
def string_byte(s, c, p):
    """One byte while in a string. Returns False where the byte belongs to the code after the string."""
    quote = s[t.QUOTE]
    if s[t.OPENING] == 1:
        s[t.OPENING] = 0
        if c == quote:
            s[t.OPENING] = 2
            return True
    elif s[t.OPENING] == 2:
        s[t.OPENING] = 0
        if c == quote:
            s[t.TRIPLE] = 1
            return True
        end_string(s)
        return False
    formatted = s[t.FLAGS] & t.F_FORMAT != 0
    if s[t.BRACE] == 1:
        if c == 123:
            s[t.BRACE] = 0
            s[t.INSIDE] = t.I_PUNCTUATION
            return True
        open_field(s, s[t.PENDING_START])
        return False
    escape = s[t.ESCAPE]
    if escape != t.E_NONE:
        s[t.ESCAPE] = t.E_NONE
        if escape == t.E_BACKSLASH and not (formatted and (c == 123 or c == 125)):
            s[t.QUOTES] = 0
            s[t.INSIDE] = t.I_NEWLINE if c == 10 else t.I_ESCAPE
            if c == 13:
                s[t.ESCAPE] = t.E_RETURN
            elif c == 78 and formatted and s[t.FLAGS] & t.F_RAW == 0:
                s[t.ESCAPE] = t.E_NAMED
            return True
        if escape == t.E_RETURN and c == 10:
            s[t.INSIDE] = t.I_NEWLINE
            return True
        if escape == t.E_NAMED and c == 123:
            s[t.ESCAPE] = t.E_NAME
            return True
        if escape == t.E_NAME:
            if c == 125:
                return True
            if c != quote and c != 10:
                s[t.ESCAPE] = t.E_NAME
                return True
    if c == quote:
        if s[t.TRIPLE] == 0:
            end_string(s)
        else:
            s[t.QUOTES] += 1
            s[t.INSIDE] = t.I_PUNCTUATION
            if s[t.QUOTES] == 3:
                end_string(s)
        return True
    s[t.QUOTES] = 0
    if c == 92:
        s[t.ESCAPE] = t.E_BACKSLASH
        s[t.INSIDE] = t.I_ESCAPE
        return True
    if c == 10 and s[t.TRIPLE] == 0:  # an unfinished string ends with its line
        end_string(s)
        return False
    if formatted:
        if c == 123 and s[t.DEPTH] + 1 < t.MAX_BRACKETS:
            if s[t.SPEC] == 1:
                open_field(s, p)
            else:
                s[t.BRACE] = 1
                s[t.PENDING_START] = p
                s[t.INSIDE] = t.I_PUNCTUATION
            return True
        if c == 125 and s[t.SPEC] == 1:
            close_field(s)
            return True
    if t.BYTE_CLASS[c] != t.SPACE or s[t.INSIDE] != t.I_NEWLINE:  # indentation belongs to the newline
        s[t.INSIDE] = text_class(c)
    return True


@compiled
def close_field(s):
    """An f-string's `}`: pop the field, continue the string (or the specification the field stood in)."""
    b = level(s)
    s[t.DEPTH] -= 1
    back_to_string(s, b, (s[b + t.B_STRING] >> 16) & 1)
    s[t.INSIDE] = t.I_FIELD


@compiled
def on_newline(s):
    """A newline in code: ends the statement unless a bracket is open; the next line's column starts at 0."""
    if s[t.DEPTH] > 0 and s[level(s) + t.B_ROLE] == t.ROLE_LAMBDA and s[t.DEPTH] == 1:
        s[t.DEPTH] = 0
    if s[t.DEPTH] == 0 and s[t.TOKENS] > 0:
        end_statement(s)
    s[t.PENDING] = t.P_INDENT
    s[t.COLUMN] = 0
    s[t.NEWLINES] = 1


@compiled
def code_byte(s, c, p):
    """One byte in code, nothing pending."""
    kind = t.BYTE_CLASS[c]
    if kind == t.SPACE:
        return
    if kind == t.LETTER:
        s[t.PENDING] = t.P_NAME
        s[t.PENDING_START] = p
        s[t.PENDING_HASH] = ((t.HASH_SEED * t.HASH_FACTOR) ^ c) & t.HASH_MASK
        s[t.PENDING_LENGTH] = 1
        s[t.PENDING_TAIL] = c
        s[t.PREFIX] = prefix_bit(c)
    elif kind == t.DIGIT:
        s[t.PENDING] = t.P_NUMBER
        s[t.PENDING_START] = p
        s[t.NUMBER_PART] = t.D_ZERO if c == 48 else t.D_DIGITS
    elif kind == t.QUOTE_MARK:
        begin_string(s, p, c, 0)
    elif kind == t.NEWLINE:
        on_newline(s)
    elif kind == t.OPENER:
        on_open(s, p, c)
    elif kind == t.CLOSER:
        if c == 125:
            while s[t.DEPTH] > 0 and s[level(s) + t.B_ROLE] == t.ROLE_LAMBDA:
                s[t.DEPTH] -= 1
            if s[level(s) + t.B_ROLE] == t.ROLE_FIELD and s[t.OVERFLOW] == 0:
                close_field(s)
                return
        on_close(s, p, c)
    elif kind == t.HASH:
        s[t.MODE] = t.MODE_COMMENT
        s[t.INSIDE] = t.I_START
        s[t.TEXT_START] = p
    elif kind == t.BACKSLASH:
        s[t.PENDING] = t.P_BACKSLASH
    elif kind == t.OPERATOR:
        field = s[level(s) + t.B_ROLE] == t.ROLE_FIELD
        if c == 58 and field:
            begin_token(s, p)
            back_to_string(s, level(s), 1)
        elif c == 44 or c == 59 or c == 126:
            on_operator(s, p, c)
        else:
            s[t.PENDING] = t.P_OPERATOR
            s[t.PENDING_START] = p
            s[t.OPERATOR_CODE] = c
    # any other byte ($, ?, `, control characters) is no Python: nothing changes


@compiled
def prefix_bit(c):
    """Flag of a string prefix letter, 64 for any other letter."""
    low = c | 32
    if low == 114:
        return t.F_RAW
    if low == 98:
        return t.F_BYTES
    if low == 102:
        return t.F_FORMAT
    if low == 117:
        return t.F_UNICODE
    return 64


@compiled
def is_prefix(s):
    """Whether the pending name is a string prefix (r, b, f, u, rb, fr and their orders and cases)."""
    flags = s[t.PREFIX]
    if s[t.PENDING_LENGTH] == 1:
        return flags < 64
    return s[t.PENDING_LENGTH] == 2 and (flags == t.F_RAW | t.F_BYTES or flags == t.F_RAW | t.F_FORMAT)


@compiled
def has_pending(s):
    """Whether `flush` would change anything."""
    if s[t.MODE] == t.MODE_STRING:
        return s[t.OPENING] == 2 or s[t.BRACE] == 1
    return s[t.MODE] == t.MODE_CODE and s[t.PENDING] != t.P_NONE


@compiled
def continues(s, c):
    """Whether byte `c` may keep the pending token pending, so that `flush` would not be what reading `c` does."""
    pending = s[t.PENDING]
    if s[t.MODE] == t.MODE_STRING:
        return True
    kind = t.BYTE_CLASS[c]
    if pending == t.P_NAME:
        return kind == t.LETTER or kind == t.DIGIT or kind == t.QUOTE_MARK
    if pending == t.P_INDENT:
        return kind <= t.NEWLINE or kind >= t.HASH
    if pending == t.P_BACKSLASH:
        return True
    return kind == t.OPERATOR or kind == t.DIGIT or (kind == t.LETTER and pending == t.P_NUMBER)


@compiled
def step_byte(s, c, p):
    """Read one byte at offset `p`."""
    if s[t.MODE] == t.MODE_STRING:
        if string_byte(s, c, p):
            return
    elif s[t.MODE] == t.MODE_COMMENT:
        if c != 10:
            s[t.INSIDE] = text_class(c)
            return
        s[t.MODE] = t.MODE_CODE
        s[t.TEXT_START] = -1
        if s[t.PENDING] == t.P_INDENT:  # the comment had the line for itself: the statement before is complete
            s[t.COLUMN] = 0
            s[t.NEWLINES] = 1
            return
    pending = s[t.PENDING]
    if pending == t.P_NAME:
        kind = t.BYTE_CLASS[c]
        if kind == t.LETTER or kind == t.DIGIT:
            s[t.PENDING_HASH] = ((s[t.PENDING_HASH] * t.HASH_FACTOR) ^ c) & t.HASH_MASK
            if s[t.PENDING_LENGTH] < 1000:
                s[t.PENDING_LENGTH] += 1
            s[t.PENDING_TAIL] = c
            if s[t.PENDING_LENGTH] == 2:
                bit = prefix_bit(c)
                s[t.PREFIX] = 64 if s[t.PREFIX] & bit else s[t.PREFIX] | bit
            return
        if kind == t.QUOTE_MARK and is_prefix(s):
            s[t.PENDING] = t.P_NONE
            begin_string(s, s[t.PENDING_START], c, s[t.PREFIX])
            return
        flush(s, s)
    elif pending == t.P_OPERATOR:
        if operator_extends(s[t.OPERATOR_CODE], c) and not (
            c == 61 and s[t.OPERATOR_CODE] == 58 and s[level(s) + t.B_ROLE] == t.ROLE_FIELD
        ):
            s[t.OPERATOR_CODE] |= c << (8 if s[t.OPERATOR_CODE] < 256 else 16)
            return
        if s[t.OPERATOR_CODE] == 46 and 48 <= c <= 57:
            s[t.PENDING] = t.P_NUMBER
            s[t.NUMBER_PART] = t.D_FRACTION
            return
        flush(s, s)
    elif pending == t.P_INDENT:
        if c == 32:
            s[t.COLUMN] += 1
            return
        if c == 10:
            s[t.COLUMN] = 0
            s[t.NEWLINES] += 1
            return
        if c == 9:
            s[t.COLUMN] = (s[t.COLUMN] // 8 + 1) * 8
            return
        if c == 12:
            s[t.COLUMN] = 0
            return
        if c == 13:
            return
        if c == 35:  # a comment line is no statement: stay at the start of a line
            s[t.MODE] = t.MODE_COMMENT
            s[t.INSIDE] = t.I_START
            s[t.TEXT_START] = p
            return
        flush(s, s)
    elif pending == t.P_NUMBER:
        if number_extends(s, c):
            return
        flush(s, s)
    elif pending == t.P_BACKSLASH:
        if c == 13:
            return
        s[t.PENDING] = t.P_NONE
        if c == 10:
            return
    code_byte(s, c, p)
