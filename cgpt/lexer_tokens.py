"""What each token does to the lexer's state: statements, brackets and the slots inside them.

Every function here changes the int32 state array `s` in place (legend in `cgpt.lexer_tables`) and takes O(1) time,
save that closing a bracket pops what was pushed before. Nothing looks ahead.
"""

from __future__ import annotations

from cgpt import lexer_tables as t
from cgpt.compiled import compiled
from cgpt.lexer_state import (
    begin_line,
    begin_operand,
    begin_token,
    block,
    end_statement,
    level,
    push,
    recall_name,
    remember_name,
)


@compiled
def bind(s, slot, word):
    """What kind of name an identifier becomes by standing in this slot; N_SEEN where it binds nothing special."""
    if slot == t.S_DEF_NAME:
        return t.N_FUNCTION
    if slot == t.S_CLASS_NAME:
        return t.N_CLASS
    if slot == t.S_IMPORT_MODULE:
        return t.N_MODULE if s[t.LAST] != t.L_DOT else t.N_SEEN
    if slot == t.S_IMPORT_NAME:
        return t.N_IMPORTED
    if slot == t.S_IMPORT_AS:
        return t.N_MODULE if s[t.STATEMENT] == t.K_IMPORT else t.N_IMPORTED
    return t.N_SEEN


@compiled
def on_name(s, names, start, value, word, tail):
    """An identifier that is no hard keyword. `names` is the state whose name table is read (and, unless the state is
    a provisional copy, written)."""
    if s[t.TOKENS] == 0 or s[t.LAST] == t.L_BLOCK_COLON or s[t.LAST] == t.L_SEMICOLON:
        if word == t.W_CASE and s[block(s) + t.K_KIND] == t.K_MATCH:
            begin_token(s, start)
            s[t.STATEMENT] = t.K_CASE
            s[t.BRACKETS_AT + t.B_SLOT] = t.S_PATTERN
            s[t.LAST] = t.L_KEYWORD
            s[t.LAST_START] = start
            return
        begin_operand(s, start)
        s[t.FIRST_WORD] = word
    else:
        begin_operand(s, start)
    slot = s[level(s) + t.B_SLOT]
    if s[t.LAST] != t.L_DOT:
        s[t.RECEIVER] = t.R_NONE
        s[t.RECEIVER_START] = -1
    kind = recall_name(names, value)
    if word == t.W_SELF or word == t.W_CLS:
        s[t.NAME_KIND] = t.N_SELF
    elif kind > t.N_SEEN:
        s[t.NAME_KIND] = kind
    elif word >= t.W_SUPER:
        s[t.NAME_KIND] = t.N_BUILTIN
    elif kind == t.N_SEEN:
        s[t.NAME_KIND] = t.N_SEEN
    elif tail == 95:
        s[t.NAME_KIND] = t.N_UNFINISHED
    else:
        s[t.NAME_KIND] = t.N_NEW
    if s[t.PROVISIONAL] == 0:
        remember_name(s, value, bind(s, slot, word))
    if (s[t.STATEMENT] == t.K_DEF or s[t.STATEMENT] == t.K_CLASS or s[t.STATEMENT] == t.K_DECORATOR) and s[
        t.OWN_NAME
    ] < 0:
        s[t.OWN_NAME] = start
    if s[t.STATEMENT] == t.K_FROM and s[t.MODULE_NAME] < 0:
        s[t.MODULE_NAME] = start
    if slot == t.S_FOR_TARGET and s[t.FOR_TARGET] < 0:
        s[t.FOR_TARGET] = start
    s[t.LAST] = t.L_NAME
    s[t.LAST_START] = start
    s[t.NAME_START] = start
    s[t.CLOSED_SUPER] = 1 if word == t.W_SUPER else 0


@compiled
def on_keyword(s, start, word):
    """A hard keyword: at the start of a statement it says what the statement is, else where its parts begin."""
    if s[t.DEPTH] > 0 and s[t.LINE] == t.LINE_CONTINUED and t.WORD_RECOVERS[word] == 1:
        end_statement(s)  # a bracket was left open: this keyword can only start a statement
        begin_line(s)
    fresh = s[t.TOKENS] == 0 or s[t.LAST] == t.L_BLOCK_COLON or s[t.LAST] == t.L_SEMICOLON
    if fresh or s[t.STATEMENT] == t.K_ASYNC:
        begin_token(s, start)
        s[t.STATEMENT] = t.WORD_STATEMENT[word]
        s[t.BRACKETS_AT + t.B_SLOT] = t.WORD_SLOT[word]
    else:
        begin_token(s, start)
    b = level(s)
    slot = s[b + t.B_SLOT]
    last = t.L_KEYWORD
    if word >= t.W_NONE:
        last = t.L_CONSTANT
    elif word == t.W_AND or word == t.W_OR or word == t.W_NOT or word == t.W_ELSE:
        last = t.L_LOGICAL
        if word == t.W_ELSE and fresh:
            last = t.L_KEYWORD
    elif word == t.W_IS:
        last = t.L_COMPARISON
    elif word == t.W_IN:
        if slot == t.S_FOR_TARGET:
            s[b + t.B_SLOT] = t.S_FOR_ITERABLE
        elif slot == t.S_COMP_TARGET:
            s[b + t.B_SLOT] = t.S_COMP_ITERABLE
        else:
            last = t.L_COMPARISON
    elif word == t.W_IF and not fresh:
        if slot == t.S_COMP_ITERABLE or slot == t.S_COMP_CONDITION:
            s[b + t.B_SLOT] = t.S_COMP_CONDITION
        elif slot == t.S_PATTERN and s[t.DEPTH] == 0:
            s[b + t.B_SLOT] = t.S_CONDITION
        else:
            last = t.L_LOGICAL
    elif word == t.W_FOR and s[t.DEPTH] > 0:
        s[b + t.B_SLOT] = t.S_COMP_TARGET
    elif word == t.W_AS:
        if s[t.STATEMENT] == t.K_IMPORT or s[t.STATEMENT] == t.K_FROM:
            s[b + t.B_SLOT] = t.S_IMPORT_AS
        else:
            s[b + t.B_SLOT] = t.S_AS_TARGET
    elif word == t.W_IMPORT and s[t.STATEMENT] == t.K_FROM:
        s[b + t.B_SLOT] = t.S_IMPORT_NAME
    elif word == t.W_LAMBDA:
        push(s, 76, t.ROLE_LAMBDA, t.S_LAMBDA_PARAMETER, start, -1)
    s[t.LAST] = last
    s[t.LAST_START] = start
    s[t.RECEIVER] = t.R_NONE
    s[t.RECEIVER_START] = -1


@compiled
def on_literal(s, start, last):
    """A number, string or ellipsis (`last` says which) starts or is complete."""
    begin_operand(s, start)
    s[t.LAST] = last
    s[t.LAST_START] = start
    s[t.RECEIVER] = t.R_NONE
    s[t.RECEIVER_START] = -1


@compiled
def on_dot(s, start):
    """A dot: say of what kind the receiver is, and where its last identifier starts."""
    last = s[t.LAST]
    kind = t.R_OTHER
    at = -1
    if last == t.L_NAME:
        at = s[t.NAME_START]
        if s[t.RECEIVER] != t.R_NONE:
            kind = t.R_ATTRIBUTE
        elif s[t.NAME_KIND] == t.N_SELF:
            kind = t.R_SELF
        elif s[t.NAME_KIND] == t.N_MODULE:
            kind = t.R_MODULE
        elif s[t.NAME_KIND] == t.N_IMPORTED:
            kind = t.R_IMPORTED
        elif s[t.NAME_KIND] == t.N_CLASS:
            kind = t.R_CLASS
        else:
            kind = t.R_NAME
    elif last == t.L_CLOSE_CALL:
        at = s[t.CLOSED_CALLEE]
        kind = t.R_SUPER if s[t.CLOSED_SUPER] == 1 else t.R_CALL
    elif last == t.L_CLOSE_SUBSCRIPT:
        at = s[t.CLOSED_CALLEE]
        kind = t.R_ITEM
    elif last == t.L_STRING:
        at = s[t.LAST_START]
        kind = t.R_STRING
    elif s[t.STATEMENT] == t.K_FROM:
        kind = t.R_RELATIVE
    begin_token(s, start)
    s[t.RECEIVER] = kind
    s[t.RECEIVER_START] = at
    s[t.LAST] = t.L_DOT
    s[t.LAST_START] = start


@compiled
def on_comma(s, start):
    """A comma: the item is complete, the slot falls back to what the bracket or statement asks for."""
    begin_token(s, start)
    b = level(s)
    role = s[b + t.B_ROLE]
    slot = s[b + t.B_SLOT]
    if s[b + t.B_ITEM] != start:
        s[b + t.B_PREVIOUS_ITEM] = s[b + t.B_ITEM]
    if slot != t.S_COMP_TARGET:
        s[b + t.B_ITEM] = -1
        s[b + t.B_TOKENS] = 0
        s[b + t.B_ARGUMENT_NAME] = -1
    s[b + t.B_COMMAS] += 1
    if slot == t.S_COMP_TARGET:
        pass
    elif role == t.ROLE_CALL or role == t.ROLE_DECORATOR_CALL:
        s[b + t.B_SLOT] = t.S_ARGUMENT
    elif role == t.ROLE_BASES:
        s[b + t.B_SLOT] = t.S_BASE
    elif role == t.ROLE_PARAMETERS:
        s[b + t.B_SLOT] = t.S_PARAMETER
    elif role == t.ROLE_LAMBDA:
        s[b + t.B_SLOT] = t.S_LAMBDA_PARAMETER
    elif role == t.ROLE_BRACE:
        s[b + t.B_SLOT] = t.S_KEY
    elif role == t.ROLE_IMPORT:
        s[b + t.B_SLOT] = t.S_IMPORT_NAME
    elif role == t.ROLE_GROUP and s[t.STATEMENT] == t.K_WITH and slot == t.S_AS_TARGET:
        s[b + t.B_SLOT] = t.S_GROUP
    elif s[t.DEPTH] == 0:
        if s[t.STATEMENT] == t.K_IMPORT:
            s[b + t.B_SLOT] = t.S_IMPORT_MODULE
        elif s[t.STATEMENT] == t.K_FROM and slot == t.S_IMPORT_AS:
            s[b + t.B_SLOT] = t.S_IMPORT_NAME
        elif s[t.STATEMENT] == t.K_WITH:
            s[b + t.B_SLOT] = t.S_WITH_ITEM
    s[t.LAST] = t.L_COMMA
    s[t.LAST_START] = start


@compiled
def on_colon(s, start):
    """A colon: ends a header, a lambda's parameters, a key, or introduces an annotation or a slice part."""
    b = level(s)
    role = s[b + t.B_ROLE]
    statement = s[t.STATEMENT]
    begin_token(s, start)
    s[t.LAST] = t.L_COLON
    s[t.LAST_START] = start
    if role == t.ROLE_LAMBDA:
        s[t.DEPTH] -= 1
    elif role == t.ROLE_PARAMETERS:
        s[b + t.B_SLOT] = t.S_ANNOTATION
    elif role == t.ROLE_BRACE:
        if s[b + t.B_SLOT] == t.S_KEY:
            s[b + t.B_SLOT] = t.S_VALUE
    elif s[t.DEPTH] == 0:
        if statement == t.K_EXPRESSION and s[t.FIRST_WORD] == t.W_MATCH and s[b + t.B_SLOT] == t.S_EXPRESSION:
            statement = t.K_MATCH
            s[t.STATEMENT] = statement
        if t.K_DEF <= statement <= t.LAST_BLOCK:
            s[t.LAST] = t.L_BLOCK_COLON
            s[b + t.B_SLOT] = t.S_SIMPLE
            s[t.HEADER_KIND] = statement
            s[t.HEADER_FIRST] = s[t.LINE_FIRST]
            s[t.HEADER_NAME] = s[t.OWN_NAME]
        elif s[b + t.B_SLOT] == t.S_EXPRESSION:
            s[b + t.B_SLOT] = t.S_ANNOTATION


@compiled
def on_assign(s, start):
    """A single `=`: assignment, keyword argument or default, by where it stands."""
    b = level(s)
    role = s[b + t.B_ROLE]
    slot = s[b + t.B_SLOT]
    alone = s[b + t.B_TOKENS] == 1 and s[t.LAST] == t.L_NAME
    begin_token(s, start)
    if role == t.ROLE_CALL or role == t.ROLE_DECORATOR_CALL or role == t.ROLE_BASES:
        if alone and (slot == t.S_ARGUMENT or slot == t.S_BASE or slot == t.S_PATTERN):
            s[b + t.B_ARGUMENT_NAME] = s[b + t.B_ITEM]
            s[b + t.B_SLOT] = t.S_ARGUMENT_VALUE
    elif role == t.ROLE_PARAMETERS or role == t.ROLE_LAMBDA:
        s[b + t.B_ARGUMENT_NAME] = s[b + t.B_ITEM]
        s[b + t.B_SLOT] = t.S_DEFAULT
    elif s[t.DEPTH] == 0:
        if s[t.ASSIGN_TARGET] < 0:
            s[t.ASSIGN_TARGET] = s[t.LINE_FIRST]
        s[b + t.B_SLOT] = t.S_RHS
    s[t.LAST] = t.L_ASSIGN
    s[t.LAST_START] = start


@compiled
def on_operator(s, start, code):
    """An operator of one to three bytes (`code` = its bytes, first byte in the low 8 bits) is complete."""
    first = code & 255
    second = (code >> 8) & 255
    third = (code >> 16) & 255
    if first == 46:  # .
        if third == 46:
            on_literal(s, start, t.L_CONSTANT)
            if s[t.STATEMENT] == t.K_FROM:
                s[t.LAST] = t.L_DOT
                s[t.RECEIVER] = t.R_RELATIVE
        else:
            on_dot(s, start)
            if second == 46:
                on_dot(s, start + 1)
        return
    if first == 44:
        on_comma(s, start)
        return
    if first == 58 and second == 0:
        on_colon(s, start)
        return
    if first == 61 and second == 0:
        on_assign(s, start)
        return
    operand_before = t.L_NAME <= s[t.LAST] <= t.LAST_OPERAND
    if first == 64 and second == 0 and s[t.TOKENS] == 0:
        begin_token(s, start)
        s[t.STATEMENT] = t.K_DECORATOR
        s[t.BRACKETS_AT + t.B_SLOT] = t.S_DECORATOR
        s[t.LAST] = t.L_AT
        s[t.LAST_START] = start
        return
    begin_token(s, start)
    if s[t.STATEMENT] == t.K_NONE:
        s[t.STATEMENT] = t.K_EXPRESSION
        s[t.BRACKETS_AT + t.B_SLOT] = t.S_EXPRESSION
    b = level(s)
    last = t.L_ARITHMETIC
    if first == 59:  # ;
        last = t.L_SEMICOLON
        s[b + t.B_SLOT] = t.S_STATEMENT
    elif first == 45 and second == 62:  # ->
        last = t.L_ARROW
        if s[t.DEPTH] == 0:
            s[b + t.B_SLOT] = t.S_RETURN_ANNOTATION
    elif first == 58:  # :=
        last = t.L_ASSIGN
    elif first == 33 and second == 0:  # ! before a conversion in an f-string's field
        last = t.L_BANG
        if s[b + t.B_ROLE] == t.ROLE_FIELD:
            s[b + t.B_SLOT] = t.S_CONVERSION
    elif (second == 61 and (first == 61 or first == 33)) or (
        (first == 60 or first == 62) and second != first  # < > <= >=
    ):
        last = t.L_COMPARISON
    elif second == 61 or third == 61:  # augmented assignment
        last = t.L_AUGMENTED
        if s[t.DEPTH] == 0:
            s[t.ASSIGN_TARGET] = s[t.LINE_FIRST]
            s[b + t.B_SLOT] = t.S_RHS
    elif first == 42 and not operand_before:
        last = t.L_STAR
    s[t.LAST] = last
    s[t.LAST_START] = start
    s[t.RECEIVER] = t.R_NONE
    s[t.RECEIVER_START] = -1


@compiled
def on_open(s, start, kind):
    """An opening bracket: its role follows from what stands before it."""
    last = s[t.LAST]
    after_operand = last == t.L_NAME or (t.L_STRING <= last <= t.L_CLOSE_GROUP)
    outer_slot = s[level(s) + t.B_SLOT]
    statement = s[t.STATEMENT]
    at_base = s[t.DEPTH] == 0
    callee = -1
    if last == t.L_NAME:
        callee = s[t.NAME_START]
    elif last == t.L_CLOSE_CALL or last == t.L_CLOSE_SUBSCRIPT:
        callee = s[t.CLOSED_CALLEE]
    begin_token(s, start)
    if s[t.STATEMENT] == t.K_NONE or s[t.STATEMENT] == t.K_ASYNC:
        s[t.STATEMENT] = t.K_EXPRESSION
        s[t.BRACKETS_AT + t.B_SLOT] = t.S_EXPRESSION
    role = t.ROLE_GROUP
    slot = t.S_GROUP
    typing = outer_slot == t.S_ANNOTATION or outer_slot == t.S_RETURN_ANNOTATION
    if kind == 40:
        if at_base and statement == t.K_DEF and outer_slot == t.S_DEF_NAME:
            role = t.ROLE_PARAMETERS
            slot = t.S_PARAMETER
        elif at_base and statement == t.K_CLASS and outer_slot == t.S_CLASS_NAME:
            role = t.ROLE_BASES
            slot = t.S_BASE
        elif statement == t.K_FROM or statement == t.K_IMPORT:
            role = t.ROLE_IMPORT
            slot = t.S_IMPORT_NAME
        elif after_operand and last != t.L_STRING:
            role = t.ROLE_DECORATOR_CALL if at_base and statement == t.K_DECORATOR else t.ROLE_CALL
            slot = t.S_PATTERN if outer_slot == t.S_PATTERN else t.S_ARGUMENT
        elif outer_slot == t.S_PATTERN:
            slot = t.S_PATTERN
        elif outer_slot == t.S_COMP_TARGET or outer_slot == t.S_FOR_TARGET:
            slot = t.S_GROUP
    elif kind == 91:
        if after_operand:
            role = t.ROLE_SUBSCRIPT
            slot = t.S_ANNOTATION if typing else t.S_SUBSCRIPT
        else:
            role = t.ROLE_LIST
            slot = t.S_ELEMENT
            if typing:
                slot = t.S_ANNOTATION
            elif outer_slot == t.S_PATTERN:
                slot = t.S_PATTERN
    else:
        role = t.ROLE_BRACE
        slot = t.S_KEY
    push(s, kind, role, slot, start, callee)
    s[t.LAST] = t.L_OPEN
    s[t.LAST_START] = start
    s[t.RECEIVER] = t.R_NONE
    s[t.RECEIVER_START] = -1


@compiled
def on_close(s, start, kind):
    """A closing bracket: pop to its opener; a closer that closes nothing changes nothing."""
    if s[t.OVERFLOW] > 0:
        s[t.OVERFLOW] -= 1
        s[t.LAST] = t.L_CLOSE_GROUP
        s[t.LAST_START] = start
        return
    wanted = 40 if kind == 41 else kind - 2
    depth = s[t.DEPTH]
    while depth > 0:
        b = t.BRACKETS_AT + depth * t.BRACKET_WIDTH
        if s[b + t.B_KIND] == wanted or s[b + t.B_ROLE] == t.ROLE_FIELD:
            break
        depth -= 1
    b = t.BRACKETS_AT + depth * t.BRACKET_WIDTH
    if depth == 0 or s[b + t.B_KIND] != wanted:
        begin_token(s, start)
        s[t.LAST] = t.L_CLOSE_GROUP
        s[t.LAST_START] = start
        return
    role = s[b + t.B_ROLE]
    s[t.DEPTH] = depth - 1
    begin_token(s, start)
    last = t.L_CLOSE_GROUP
    if role == t.ROLE_CALL or role == t.ROLE_DECORATOR_CALL:
        last = t.L_CLOSE_CALL
        s[t.CLOSED_SUPER] = 1 if s[b + t.B_START] >= 0 and s[b + t.B_COMMAS] == 0 and super_call(s, b) else 0
    elif role == t.ROLE_SUBSCRIPT:
        last = t.L_CLOSE_SUBSCRIPT
    elif role == t.ROLE_PARAMETERS:
        last = t.L_CLOSE_HEADER
        s[t.BRACKETS_AT + t.B_SLOT] = t.S_DEF_END
    elif role == t.ROLE_BASES:
        last = t.L_CLOSE_HEADER
        s[t.BRACKETS_AT + t.B_SLOT] = t.S_CLASS_END
    s[t.CLOSED_CALLEE] = s[b + t.B_CALLEE]
    s[t.LAST] = last
    s[t.LAST_START] = start
    s[t.RECEIVER] = t.R_NONE
    s[t.RECEIVER_START] = -1


@compiled
def super_call(s, b):
    """Whether the call at row `b` was `super()` with nothing in it."""
    return s[t.CLOSED_SUPER] == 1 and s[b + t.B_ITEM] < 0
