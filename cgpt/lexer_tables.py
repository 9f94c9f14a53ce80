"""Names and numbers of the lexer: the layout of its state, the words it knows, the values of the router's fields.

The lexer (`cgpt.lexer`) is compiled by numba and works on one int32 array; this file is the legend of that array.
Plain Python and numpy only, so that reading the legend costs nothing.
"""

from __future__ import annotations

import builtins
import keyword

import numpy as np

# ---------------------------------------------------------------- byte classes
OTHER, SPACE, NEWLINE, LETTER, DIGIT, QUOTE_MARK, OPENER, CLOSER, OPERATOR, HASH, BACKSLASH = range(11)

BYTE_CLASS = np.zeros(256, np.uint8)
for _c in b" \t\f\r":
    BYTE_CLASS[_c] = SPACE
BYTE_CLASS[10] = NEWLINE
for _c in b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_":
    BYTE_CLASS[_c] = LETTER
BYTE_CLASS[128:] = LETTER  # any character beyond ASCII counts as a letter: identifiers may hold them
for _c in b"0123456789":
    BYTE_CLASS[_c] = DIGIT
for _c in b"\"'":
    BYTE_CLASS[_c] = QUOTE_MARK
for _c in b"([{":
    BYTE_CLASS[_c] = OPENER
for _c in b")]}":
    BYTE_CLASS[_c] = CLOSER
for _c in b"+-*/%@&|^~<>=!:;,.":
    BYTE_CLASS[_c] = OPERATOR
BYTE_CLASS[ord("#")] = HASH
BYTE_CLASS[ord("\\")] = BACKSLASH

# ---------------------------------------------------------------- words
HASH_SEED, HASH_FACTOR, HASH_MASK = 5381, 1000003, (1 << 30) - 1


def word_hash(word: bytes) -> int:
    """The 30-bit hash that the lexer keeps of an identifier while it reads it byte by byte."""
    value = HASH_SEED
    for byte in word:
        value = ((value * HASH_FACTOR) ^ byte) & HASH_MASK
    return value


_HARD = (
    "def class import from if elif else while for with try except finally return raise assert del global nonlocal "
    "pass break continue async await yield lambda and or not in is as None True False"
).split()
assert sorted(_HARD) == sorted(keyword.kwlist)
(W_DEF, W_CLASS, W_IMPORT, W_FROM, W_IF, W_ELIF, W_ELSE, W_WHILE, W_FOR, W_WITH, W_TRY, W_EXCEPT, W_FINALLY, W_RETURN,
 W_RAISE, W_ASSERT, W_DEL, W_GLOBAL, W_NONLOCAL, W_PASS, W_BREAK, W_CONTINUE, W_ASYNC, W_AWAIT, W_YIELD, W_LAMBDA,
 W_AND, W_OR, W_NOT, W_IN, W_IS, W_AS, W_NONE, W_TRUE, W_FALSE) = range(1, 36)  # fmt: skip
LAST_HARD = W_FALSE
W_MATCH, W_CASE, W_TYPE, W_SELF, W_CLS, W_SUPER, W_BUILTIN, W_BUILTIN_CLASS = range(36, 44)
_SOFT = {"match": W_MATCH, "case": W_CASE, "type": W_TYPE, "self": W_SELF, "cls": W_CLS, "super": W_SUPER}
WORDS: dict[str, int] = {word: number for number, word in enumerate(_HARD, start=1)} | _SOFT
# A fixed list, not the running interpreter's: the same text must have the same state under every Python version.
_FUNCTIONS = (
    "abs aiter all anext any ascii bin breakpoint callable chr compile delattr dir divmod eval exec format getattr "
    "globals hasattr hash help hex id input isinstance issubclass iter len locals max min next oct open ord pow print "
    "repr round setattr sorted sum vars __import__"
).split()
_CLASSES = (
    "bool bytearray bytes classmethod complex dict enumerate filter float frozenset int list map memoryview object "
    "property range reversed set slice staticmethod str tuple zip BaseException Exception ArithmeticError "
    "AssertionError AttributeError EOFError FileExistsError FileNotFoundError ImportError IndexError InterruptedError "
    "IsADirectoryError KeyError KeyboardInterrupt LookupError ModuleNotFoundError NameError NotADirectoryError "
    "NotImplementedError OSError OverflowError PermissionError RecursionError RuntimeError StopAsyncIteration "
    "StopIteration SyntaxError SystemExit TimeoutError TypeError UnicodeDecodeError UnicodeEncodeError UnicodeError "
    "ValueError ZeroDivisionError DeprecationWarning RuntimeWarning UserWarning Warning ConnectionError "
    "BrokenPipeError ChildProcessError GeneratorExit NotImplemented"
).split()
WORDS |= {word: W_BUILTIN for word in _FUNCTIONS} | {word: W_BUILTIN_CLASS for word in _CLASSES}
assert all(hasattr(builtins, word) for word in _FUNCTIONS + _CLASSES)

WORD_SLOTS = 1024
WORD_HASHES = np.full(WORD_SLOTS, -1, np.int32)
WORD_IDS = np.zeros(WORD_SLOTS, np.uint8)
for _word, _number in WORDS.items():
    _slot = word_hash(_word.encode()) % WORD_SLOTS
    while WORD_HASHES[_slot] >= 0:
        assert WORD_HASHES[_slot] != word_hash(_word.encode()), "two known words share a hash"
        _slot = (_slot + 1) % WORD_SLOTS
    WORD_HASHES[_slot], WORD_IDS[_slot] = word_hash(_word.encode()), _number

# ---------------------------------------------------------------- values of the router's fields
TEXTS = ("code", "comment", "line_comment", "docstring", "string", "triple_string", "bytes", "fstring", "format_spec")
(T_CODE, T_COMMENT, T_LINE_COMMENT, T_DOCSTRING, T_STRING, T_TRIPLE, T_BYTES, T_FSTRING, T_SPEC) = range(len(TEXTS))

INSIDES = ("none", "start", "word", "number", "space", "escape", "punctuation", "newline", "field")
(I_NONE, I_START, I_WORD, I_NUMBER, I_SPACE, I_ESCAPE, I_PUNCTUATION, I_NEWLINE, I_FIELD) = range(len(INSIDES))

SLOTS = (
    "statement", "expression", "right_hand_side", "annotation", "return_annotation", "def_name", "def_end",
    "class_name", "class_end", "condition", "for_target", "for_iterable", "with_item", "as_target", "except_type",
    "import_module", "from_module", "import_name", "import_as", "return_value", "raise_value", "names", "simple",
    "decorator", "pattern", "lambda_parameter", "argument", "argument_value", "parameter", "default", "subscript",
    "element", "group", "key", "value", "comprehension_target", "comprehension_iterable", "comprehension_condition",
    "field", "conversion", "base",
)  # fmt: skip
(S_STATEMENT, S_EXPRESSION, S_RHS, S_ANNOTATION, S_RETURN_ANNOTATION, S_DEF_NAME, S_DEF_END, S_CLASS_NAME,
 S_CLASS_END, S_CONDITION, S_FOR_TARGET, S_FOR_ITERABLE, S_WITH_ITEM, S_AS_TARGET, S_EXCEPT_TYPE, S_IMPORT_MODULE,
 S_FROM_MODULE, S_IMPORT_NAME, S_IMPORT_AS, S_RETURN_VALUE, S_RAISE_VALUE, S_NAMES, S_SIMPLE, S_DECORATOR, S_PATTERN,
 S_LAMBDA_PARAMETER, S_ARGUMENT, S_ARGUMENT_VALUE, S_PARAMETER, S_DEFAULT, S_SUBSCRIPT, S_ELEMENT, S_GROUP, S_KEY,
 S_VALUE, S_COMP_TARGET, S_COMP_ITERABLE, S_COMP_CONDITION, S_FIELD, S_CONVERSION,
 S_BASE) = range(len(SLOTS))  # fmt: skip

LASTS = (
    "start", "name", "constant", "number", "string", "close_call", "close_subscript", "close_group", "close_header",
    "open", "comma", "colon", "block_colon", "assign", "augmented", "arithmetic", "comparison", "logical", "dot",
    "star", "arrow", "at", "keyword", "semicolon", "bang",
)  # fmt: skip
(L_START, L_NAME, L_CONSTANT, L_NUMBER, L_STRING, L_CLOSE_CALL, L_CLOSE_SUBSCRIPT, L_CLOSE_GROUP, L_CLOSE_HEADER,
 L_OPEN, L_COMMA, L_COLON, L_BLOCK_COLON, L_ASSIGN, L_AUGMENTED, L_ARITHMETIC, L_COMPARISON, L_LOGICAL, L_DOT, L_STAR,
 L_ARROW, L_AT, L_KEYWORD, L_SEMICOLON, L_BANG) = range(len(LASTS))  # fmt: skip
LAST_OPERAND = L_CLOSE_HEADER  # name .. close_header end an operand

NAMES = ("none", "unfinished", "new", "seen", "function", "class", "module", "imported", "self", "builtin")
(N_NONE, N_UNFINISHED, N_NEW, N_SEEN, N_FUNCTION, N_CLASS, N_MODULE, N_IMPORTED, N_SELF,
 N_BUILTIN) = range(len(NAMES))  # fmt: skip

RECEIVERS = (
    "none", "self", "module", "imported", "class", "name", "attribute", "call", "super", "item", "string", "relative",
    "other",
)  # fmt: skip
(R_NONE, R_SELF, R_MODULE, R_IMPORTED, R_CLASS, R_NAME, R_ATTRIBUTE, R_CALL, R_SUPER, R_ITEM, R_STRING, R_RELATIVE,
 R_OTHER) = range(len(RECEIVERS))  # fmt: skip

LINES = ("no", "first", "same", "dedent", "continued")
(LINE_NO, LINE_FIRST_IN_BLOCK, LINE_SAME, LINE_DEDENT, LINE_CONTINUED) = range(len(LINES))

# Statement kinds; those up to LAST_BLOCK own a block.
(K_NONE, K_DEF, K_CLASS, K_IF, K_LOOP, K_WITH, K_TRY, K_EXCEPT, K_MATCH, K_CASE, K_ELSE, K_EXPRESSION, K_IMPORT,
 K_FROM, K_DECORATOR, K_ASYNC, K_SIMPLE) = range(17)  # fmt: skip
LAST_BLOCK = K_ELSE
BLOCKS = ("module", "function", "class", "condition", "loop", "with", "try", "except", "match", "case", "else")

# What a hard keyword at the start of a statement makes of it: statement kind and slot.
WORD_STATEMENT = np.full(64, K_EXPRESSION, np.uint8)
WORD_SLOT = np.full(64, S_EXPRESSION, np.uint8)
for _w, _kind, _first_slot in (
    (W_DEF, K_DEF, S_DEF_NAME), (W_CLASS, K_CLASS, S_CLASS_NAME), (W_IMPORT, K_IMPORT, S_IMPORT_MODULE),
    (W_FROM, K_FROM, S_FROM_MODULE), (W_IF, K_IF, S_CONDITION), (W_ELIF, K_IF, S_CONDITION),
    (W_ELSE, K_ELSE, S_SIMPLE), (W_WHILE, K_LOOP, S_CONDITION), (W_FOR, K_LOOP, S_FOR_TARGET),
    (W_WITH, K_WITH, S_WITH_ITEM), (W_TRY, K_TRY, S_SIMPLE), (W_EXCEPT, K_EXCEPT, S_EXCEPT_TYPE),
    (W_FINALLY, K_ELSE, S_SIMPLE), (W_RETURN, K_SIMPLE, S_RETURN_VALUE), (W_RAISE, K_SIMPLE, S_RAISE_VALUE),
    (W_ASSERT, K_SIMPLE, S_CONDITION), (W_DEL, K_SIMPLE, S_NAMES), (W_GLOBAL, K_SIMPLE, S_NAMES),
    (W_NONLOCAL, K_SIMPLE, S_NAMES), (W_PASS, K_SIMPLE, S_SIMPLE), (W_BREAK, K_SIMPLE, S_SIMPLE),
    (W_CONTINUE, K_SIMPLE, S_SIMPLE), (W_ASYNC, K_ASYNC, S_STATEMENT), (W_YIELD, K_SIMPLE, S_RETURN_VALUE),
):  # fmt: skip
    WORD_STATEMENT[_w], WORD_SLOT[_w] = _kind, _first_slot
# Keywords that cannot stand at the start of a line inside brackets: seeing one there means a bracket was never closed.
WORD_RECOVERS = np.zeros(64, np.uint8)
for _w in (
    W_DEF, W_CLASS, W_IMPORT, W_ELIF, W_WHILE, W_WITH, W_TRY, W_EXCEPT, W_FINALLY, W_RETURN, W_RAISE, W_ASSERT, W_DEL,
    W_GLOBAL, W_NONLOCAL, W_PASS, W_BREAK, W_CONTINUE,
):  # fmt: skip
    WORD_RECOVERS[_w] = 1

# ---------------------------------------------------------------- layout of the state: scalars
MODE_CODE, MODE_STRING, MODE_COMMENT = range(3)
(P_NONE, P_NAME, P_NUMBER, P_OPERATOR, P_INDENT, P_BACKSLASH) = range(6)
# Parts of a number: digits, a leading zero, after 0x/0o/0b, after the point, after e, exponent digits, after j.
(D_DIGITS, D_ZERO, D_RADIX, D_FRACTION, D_E, D_EXPONENT, D_IMAGINARY) = range(7)
# Escapes in strings: none, after a backslash, after backslash + CR, after \N, inside \N{...}.
(E_NONE, E_BACKSLASH, E_RETURN, E_NAMED, E_NAME) = range(5)
# String flags; also the bits that the prefix letters set.
F_RAW, F_BYTES, F_FORMAT, F_UNICODE, F_DOC = 1, 2, 4, 8, 16

(MODE, PENDING, PENDING_START, PENDING_HASH, PENDING_LENGTH, PENDING_TAIL, PREFIX, OPERATOR_CODE, NUMBER_PART, COLUMN,
 NEWLINES, QUOTE, TRIPLE, FLAGS, OPENING, QUOTES, ESCAPE, BRACE, SPEC, INSIDE, TEXT_START, COMMENT_OWN_LINE, DEPTH,
 OVERFLOW, BLOCK_DEPTH, LAST, LAST_START, NAME_START, NAME_KIND, RECEIVER, RECEIVER_START, CLOSED_CALLEE,
 CLOSED_SUPER, STATEMENT, TOKENS, LINE_FIRST, LINE_SECOND, PREVIOUS_FIRST, PREVIOUS_SECOND, ASSIGN_TARGET, FIRST_WORD,
 HEADER_KIND, HEADER_FIRST, HEADER_NAME, OWN_NAME, DECORATOR, LINE, MODULE_NAME, LINE_START, PROVISIONAL, BLANK,
 FOR_TARGET, BOUND_NAME) = range(53)  # fmt: skip
SCALARS = 64

# Brackets: level 0 is the statement itself; each level is one row.
MAX_BRACKETS = 64
(B_KIND, B_ROLE, B_START, B_CALLEE, B_SLOT, B_ITEM, B_TOKENS, B_ARGUMENT_NAME, B_PREVIOUS_ITEM, B_COMMAS, B_STRING,
 B_STRING_START) = range(12)  # fmt: skip
BRACKET_WIDTH = 12
(ROLE_STATEMENT, ROLE_CALL, ROLE_PARAMETERS, ROLE_SUBSCRIPT, ROLE_LIST, ROLE_BRACE, ROLE_GROUP, ROLE_BASES,
 ROLE_DECORATOR_CALL, ROLE_IMPORT, ROLE_FIELD, ROLE_LAMBDA) = range(12)  # fmt: skip
BRACKETS_AT = SCALARS

# Blocks: level 0 is the module.
MAX_BLOCKS = 64
(K_INDENT, K_KIND, K_HEADER, K_NAME, K_LAST) = range(5)
BLOCK_WIDTH = 5
BLOCKS_AT = BRACKETS_AT + MAX_BRACKETS * BRACKET_WIDTH

# Names seen in this file: a bounded hash table, four places per name, what is oldest there gives way.
NAME_SLOTS = 2048
NAME_PROBES = 4
NAMES_AT = BLOCKS_AT + MAX_BLOCKS * BLOCK_WIDTH
STATE_SIZE = NAMES_AT + NAME_SLOTS
