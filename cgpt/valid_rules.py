"""What no grammar of Python takes, said of two neighbouring tokens: the soft rules of `cgpt.valid_bytes`.

Every rule looks at the lexer's state alone (and at the bytes of the word in question), takes O(1) time and is wrong on
the safe side: it may let pass what the grammar refuses, and refuses next to nothing that the grammar takes.
"""

from __future__ import annotations

import numpy as np

from cgpt import lexer_tables as t
from cgpt.compiled import compiled
from cgpt.lexer_state import word_id

INFIX_WORDS = ("and", "or", "not", "in", "is", "if", "else", "for", "async", "as", "import", "from", "except",
               "finally")  # fmt: skip
(_AND, _OR, _NOT, _IN, _IS, _IF, _ELSE, _FOR, _ASYNC, _AS, _IMPORT, _FROM, _EXCEPT, _FINALLY) = (
    1 << k for k in range(14)
)
AFTER_TRY = _EXCEPT | _FINALLY | 1 << 20
"""What may start a statement after the block of a `try`."""
_INFIX = np.zeros((len(INFIX_WORDS), 8), np.uint8)
for _k, _text in enumerate(INFIX_WORDS):
    _INFIX[_k, : len(_text)] = np.frombuffer(_text.encode(), np.uint8)
_ALWAYS = _AND | _OR | _NOT | _IN | _IS | _IF | _ELSE
_NONE_ELSE, PREFIX = 1 << 20, 1 << 21  # no word but these; or the prefix of a string that joins on to a string

# Hard keywords by what they may follow: see `word_fits`.
_OPERAND_WORDS = np.zeros(64, np.bool_)
_OPERAND_WORDS[[t.W_NONE, t.W_TRUE, t.W_FALSE, t.W_NOT, t.W_LAMBDA, t.W_AWAIT, t.W_YIELD]] = True
_NO_START = np.zeros(64, np.bool_)
_NO_START[[t.W_AND, t.W_OR, t.W_IN, t.W_IS, t.W_AS]] = True
_COMPOUND = np.zeros(64, np.bool_)
_COMPOUND[[t.W_DEF, t.W_CLASS, t.W_IF, t.W_FOR, t.W_WHILE, t.W_WITH, t.W_TRY, t.W_ASYNC, t.W_ELIF, t.W_ELSE,
           t.W_EXCEPT, t.W_FINALLY]] = True  # fmt: skip

_FOLLOWS = np.zeros((64, 6), np.uint8)
_FOLLOWS[t.W_ELIF, :2] = t.W_IF, t.W_ELIF
_FOLLOWS[t.W_ELSE, :6] = t.W_IF, t.W_ELIF, t.W_FOR, t.W_WHILE, t.W_EXCEPT, t.W_ASYNC
_FOLLOWS[t.W_EXCEPT, :2] = t.W_TRY, t.W_EXCEPT
_FOLLOWS[t.W_FINALLY, :3] = t.W_TRY, t.W_EXCEPT, t.W_ELSE


@compiled
def innermost(s):
    """Row of the innermost bracket that is no lambda's parameter list; the row of the statement where none is open."""
    depth = s[t.DEPTH]
    while depth > 0 and s[t.BRACKETS_AT + depth * t.BRACKET_WIDTH + t.B_ROLE] == t.ROLE_LAMBDA:
        depth -= 1
    return t.BRACKETS_AT + depth * t.BRACKET_WIDTH


@compiled
def operand(last):
    """Whether an operand has just ended."""
    return t.L_NAME <= last <= t.LAST_OPERAND


@compiled
def may_end_statement(s):
    """Soft: whether a newline may end the statement in `s`, where nothing is pending."""
    last = s[t.LAST]
    slot = s[t.BRACKETS_AT + t.B_SLOT]
    statement = s[t.STATEMENT]
    if last == t.L_BLOCK_COLON or last == t.L_SEMICOLON:
        return True
    if t.K_DEF <= statement <= t.LAST_BLOCK or statement == t.K_ASYNC:
        return False  # a header without its colon
    if last == t.L_KEYWORD:
        simple = statement == t.K_SIMPLE and (slot == t.S_SIMPLE or slot == t.S_RAISE_VALUE)
        return simple or slot == t.S_RETURN_VALUE
    if statement == t.K_FROM and slot != t.S_IMPORT_NAME and slot != t.S_IMPORT_AS:
        return False
    if last == t.L_STAR:
        return statement == t.K_FROM
    return operand(last) or (last == t.L_COMMA and statement != t.K_FROM and statement != t.K_IMPORT)


@compiled
def may_close(s):
    """Soft: whether the innermost bracket may close after the last token."""
    last = s[t.LAST]
    b = innermost(s)
    role = s[b + t.B_ROLE]
    if s[b + t.B_ROLE] != s[t.BRACKETS_AT + s[t.DEPTH] * t.BRACKET_WIDTH + t.B_ROLE]:
        return False  # a lambda without its colon
    if role == t.ROLE_FIELD:
        return operand(last) or last == t.L_ASSIGN or last == t.L_COMMA
    if last == t.L_OPEN:
        return role != t.ROLE_SUBSCRIPT and role != t.ROLE_IMPORT
    if last == t.L_COLON:
        return role == t.ROLE_SUBSCRIPT
    if last == t.L_ARITHMETIC or last == t.L_STAR:
        return role == t.ROLE_PARAMETERS
    return operand(last) or last == t.L_COMMA


@compiled
def _may_colon(s):
    """Soft: whether a colon may follow."""
    last = s[t.LAST]
    b = t.BRACKETS_AT + s[t.DEPTH] * t.BRACKET_WIDTH
    role = s[b + t.B_ROLE]
    slot = s[b + t.B_SLOT]
    if role == t.ROLE_LAMBDA:
        return operand(last) or last == t.L_KEYWORD or last == t.L_COMMA
    if role == t.ROLE_SUBSCRIPT:
        return operand(last) or last == t.L_OPEN or last == t.L_COLON or last == t.L_COMMA
    if role == t.ROLE_BRACE:
        return operand(last) and slot == t.S_KEY
    if role == t.ROLE_PARAMETERS:
        return operand(last) and slot == t.S_PARAMETER
    if role == t.ROLE_FIELD:
        return operand(last) or last == t.L_ASSIGN
    if s[t.DEPTH] > 0:  # :=
        return last == t.L_NAME and (role == t.ROLE_GROUP or role == t.ROLE_CALL or role == t.ROLE_LIST)
    statement = s[t.STATEMENT]
    if statement == t.K_DEF:
        return last == t.L_CLOSE_HEADER or (slot == t.S_RETURN_ANNOTATION and operand(last))
    if last == t.L_KEYWORD:
        return slot == t.S_SIMPLE and t.K_DEF <= statement <= t.LAST_BLOCK or slot == t.S_EXCEPT_TYPE
    if not operand(last):
        return False
    if statement == t.K_LOOP:
        return slot != t.S_FOR_TARGET
    if t.K_DEF <= statement <= t.LAST_BLOCK:
        return True
    target = last == t.L_NAME or last == t.L_CLOSE_SUBSCRIPT or s[t.FIRST_WORD] == t.W_MATCH
    return statement == t.K_EXPRESSION and slot == t.S_EXPRESSION and target


@compiled
def only_names(slot):
    """Whether a slot takes names and little else: no literals, no brackets, few operators, no infix words."""
    target = slot == t.S_FOR_TARGET or slot == t.S_COMP_TARGET
    header = slot == t.S_DEF_NAME or slot == t.S_CLASS_NAME
    return target or header or slot == t.S_PARAMETER or slot == t.S_LAMBDA_PARAMETER


@compiled
def _name_operator(s, slot, c):
    """Soft: whether an operator that starts with byte `c` may stand in a slot of `only_names`."""
    if slot == t.S_FOR_TARGET or slot == t.S_COMP_TARGET:
        return c == 44 or c == 46 or c == 42
    if slot == t.S_DEF_NAME or slot == t.S_CLASS_NAME:
        return c == 58 and slot == t.S_CLASS_NAME
    return c == 44 or c == 58 or c == 42 or c == 47 or (c == 61 and s[t.LAST] == t.L_NAME)


@compiled
def imports(s):
    """Whether the position is within an import statement."""
    last = s[t.LAST]
    begun = last != t.L_START and last != t.L_SEMICOLON and last != t.L_BLOCK_COLON
    return begun and (s[t.STATEMENT] == t.K_FROM or s[t.STATEMENT] == t.K_IMPORT)


@compiled
def _import_operator(s, slot, c):
    """Soft: whether an operator that starts with byte `c` may stand in an import statement."""
    if c == 46:
        return slot != t.S_IMPORT_NAME and slot != t.S_IMPORT_AS
    if c == 42:
        return s[t.LAST] == t.L_KEYWORD and s[t.STATEMENT] == t.K_FROM
    return (c == 44 and slot != t.S_FROM_MODULE) or c == 59


@compiled
def _inside(s, kind):
    """Whether a block of this kind is open within the innermost class (and for a loop, within the innermost def)."""
    for depth in range(s[t.BLOCK_DEPTH], 0, -1):
        found = s[t.BLOCKS_AT + depth * t.BLOCK_WIDTH + t.K_KIND]
        if found == kind:
            return True
        if found == t.K_CLASS or found == t.K_DEF:
            return False
    return False


@compiled
def infix_words(s):
    """Soft: bits of the INFIX_WORDS that may stand after an operand."""
    allowed = _ALWAYS
    statement = s[t.STATEMENT]
    if s[t.DEPTH] > 0:
        allowed |= _FOR | _ASYNC
    if (statement == t.K_IMPORT or statement == t.K_FROM or statement == t.K_WITH or statement == t.K_EXCEPT
            or statement == t.K_CASE or statement == t.K_ASYNC):  # fmt: skip
        allowed |= _AS
    slot = s[t.BRACKETS_AT + s[t.DEPTH] * t.BRACKET_WIDTH + t.B_SLOT]
    if only_names(slot):
        allowed = _IN if slot == t.S_FOR_TARGET or slot == t.S_COMP_TARGET else 0
    elif statement == t.K_FROM:
        allowed = _IMPORT if s[t.BRACKETS_AT + t.B_SLOT] == t.S_FROM_MODULE else _AS
    elif statement == t.K_IMPORT:
        allowed = _AS
    elif statement == t.K_SIMPLE and s[t.BRACKETS_AT + t.B_SLOT] == t.S_RAISE_VALUE:
        allowed |= _FROM
    if s[t.LAST] == t.L_CLOSE_HEADER:
        allowed = 0
    return allowed | _NONE_ELSE | (PREFIX if s[t.LAST] == t.L_STRING else 0)


@compiled
def prefix_letter(c):
    low = c | 32
    return low == 114 or low == 98 or low == 102


@compiled
def infix_prefix(allowed, data, begin, end, whole):
    """Whether data[begin:end] starts (`whole`: is) one of the allowed infix words."""
    for k in range(len(_INFIX)):
        if allowed & (1 << k) and end - begin < _INFIX.shape[1]:
            same = True
            for i in range(end - begin):
                same = same and data[begin + i] == _INFIX[k, i]
            if same and (not whole or _INFIX[k, end - begin] == 0):
                return True
    return False


@compiled
def sibling(s, data):
    """Number of the word that the statement before in this block begins with, 0 where it is no known word."""
    p = s[t.BLOCKS_AT + s[t.BLOCK_DEPTH] * t.BLOCK_WIDTH + t.K_LAST]
    if p < 0:
        return 0
    while p > 0 and data[p - 1] != 10:  # `if x: y` ends with another statement than it began with
        p -= 1
    while data[p] == 32 or data[p] == 9:
        p += 1
    value = t.HASH_SEED
    while p < len(data) and t.BYTE_CLASS[data[p]] == t.LETTER:
        value = ((value * t.HASH_FACTOR) ^ int(data[p])) & t.HASH_MASK
        p += 1
    return word_id(value)


@compiled
def _follows_sibling(s, data, word):
    """Soft: whether the statement before in this block is one that `elif`, `else`, `except` or `finally` goes with."""
    before = sibling(s, data)
    for k in range(_FOLLOWS.shape[1]):  # noqa: SIM110 - compiled
        if before != 0 and _FOLLOWS[word, k] == before:
            return True
    return False


@compiled
def in_open_try(s, start):
    """Whether the text ends in the block of a `try` that stands at byte `start` or later and has no handler yet."""
    for depth in range(1, s[t.BLOCK_DEPTH] + 1):
        b = t.BLOCKS_AT + depth * t.BLOCK_WIDTH
        if s[b + t.K_KIND] == t.K_TRY and s[b + t.K_HEADER] >= start:
            return True
    return False


@compiled
def word_fits(s, data, word):
    """Soft: whether hard keyword `word` may stand after the last token, which is no operand."""
    last = s[t.LAST]
    if only_names(s[t.BRACKETS_AT + s[t.DEPTH] * t.BRACKET_WIDTH + t.B_SLOT]):
        return word == t.W_IN
    if word == t.W_RETURN and last == t.L_START and not _inside(s, t.K_DEF):
        return False
    if (word == t.W_BREAK or word == t.W_CONTINUE) and last == t.L_START and not _inside(s, t.K_LOOP):
        return False
    if last == t.L_START or last == t.L_BLOCK_COLON or last == t.L_SEMICOLON:
        if _FOLLOWS[word, 0] != 0 and not _follows_sibling(s, data, word):
            return False
        return not _NO_START[word] and not (_COMPOUND[word] and last != t.L_START)
    if last == t.L_KEYWORD or last == t.L_DOT:
        return True
    return _OPERAND_WORDS[word] or (word == t.W_IN and (last == t.L_COMMA or last == t.L_LOGICAL))


@compiled
def operator_fits(s, c):
    """Soft: whether an operator that starts with byte `c` may follow the last token."""
    last = s[t.LAST]
    slot = s[t.BRACKETS_AT + s[t.DEPTH] * t.BRACKET_WIDTH + t.B_SLOT]
    if only_names(slot) and not _name_operator(s, slot, c):
        return False
    if imports(s) and not _import_operator(s, slot, c):
        return False
    if c == 58:
        return _may_colon(s)
    if c == 44:
        if last == t.L_STAR or last == t.L_ARITHMETIC:
            return s[innermost(s) + t.B_ROLE] == t.ROLE_PARAMETERS
        return (operand(last) and last != t.L_CLOSE_HEADER) or last == t.L_COLON
    if c == 59:
        return s[t.DEPTH] == 0 and s[t.TOKENS] > 0 and may_end_statement(s) and last != t.L_BLOCK_COLON
    if c == 126:
        return not operand(last)
    if c == 46:
        return last != t.L_CLOSE_HEADER
    if last == t.L_CLOSE_HEADER:
        return c == 45 and s[t.STATEMENT] == t.K_DEF  # ->
    if operand(last):
        return True
    if c == 64:
        return s[t.TOKENS] == 0 and s[t.DEPTH] == 0
    if c == 47:
        return last == t.L_COMMA
    if c == 61 and last == t.L_COMMA and s[t.DEPTH] == 0:
        return s[t.STATEMENT] == t.K_EXPRESSION  # x, = y
    if c == 61 or c == 33:
        return s[innermost(s) + t.B_ROLE] == t.ROLE_FIELD and last != t.L_OPEN
    return (c == 43 or c == 45 or c == 42) and last != t.L_DOT


@compiled
def operator_ends(s, code):
    """Soft: whether the operator `code` is whole, where a longer one might have been meant."""
    last = s[t.LAST]
    role = s[t.BRACKETS_AT + s[t.DEPTH] * t.BRACKET_WIDTH + t.B_ROLE]
    statement = s[t.STATEMENT]
    if code == 46:
        return operand(last) or statement == t.K_FROM
    if code == 46 + (46 << 8):
        return statement == t.K_FROM
    if last == t.L_CLOSE_HEADER or code == 45 + (62 << 8):
        return last == t.L_CLOSE_HEADER and (code == 45 + (62 << 8) or code == 58)
    if code == 58:
        return not (role == t.ROLE_GROUP or role == t.ROLE_CALL or role == t.ROLE_LIST)
    if code == 61:
        if s[t.DEPTH] == 0:
            return statement == t.K_EXPRESSION or s[t.FIRST_WORD] == t.W_TYPE
        named = role == t.ROLE_CALL or role == t.ROLE_DECORATOR_CALL or role == t.ROLE_BASES
        return named or role == t.ROLE_PARAMETERS or role == t.ROLE_LAMBDA or role == t.ROLE_FIELD
    second, third = (code >> 8) & 255, code >> 16
    if third == 61 or (second == 61 and code & 255 not in (61, 33, 60, 62, 58)):  # augmented assignment
        return s[t.DEPTH] == 0 and statement == t.K_EXPRESSION
    return True
