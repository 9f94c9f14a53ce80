"""Python's number literals as a machine: for `cgpt.valid_bytes`, byte by byte."""

from __future__ import annotations

from cgpt.compiled import compiled

# What a number looks like so far. After N_BAD follow states that need another byte, then those that may end.
(N_BAD, N_UNDERSCORE, N_LEADING, N_RADIX_X, N_RADIX_O, N_RADIX_B, N_HEX_UNDERSCORE, N_OCT_UNDERSCORE,
 N_BIN_UNDERSCORE, N_FRACTION_UNDERSCORE, N_E, N_E_SIGN, N_E_UNDERSCORE, N_ZERO_UNDERSCORE, N_ZERO, N_ZEROS, N_DIGITS,
 N_HEX, N_OCT, N_BIN, N_POINT, N_FRACTION, N_EXPONENT, N_IMAGINARY) = range(24)  # fmt: skip
N_COMPLETE = N_ZERO


@compiled
def number_step(state, c):
    """The number's next state after byte `c`, N_BAD where no number goes on so."""
    digit = 48 <= c <= 57
    low = c | 32
    if state == N_ZERO and low == 120:
        return N_RADIX_X
    if state == N_ZERO and low == 111:
        return N_RADIX_O
    if state == N_ZERO and low == 98:
        return N_RADIX_B
    if state in (N_RADIX_X, N_HEX_UNDERSCORE, N_HEX):
        if digit or 97 <= low <= 102:
            return N_HEX
        return N_HEX_UNDERSCORE if c == 95 and state != N_HEX_UNDERSCORE else N_BAD
    if state in (N_RADIX_O, N_OCT_UNDERSCORE, N_OCT):
        if 48 <= c <= 55:
            return N_OCT
        return N_OCT_UNDERSCORE if c == 95 and state != N_OCT_UNDERSCORE else N_BAD
    if state in (N_RADIX_B, N_BIN_UNDERSCORE, N_BIN):
        if c == 48 or c == 49:
            return N_BIN
        return N_BIN_UNDERSCORE if c == 95 and state != N_BIN_UNDERSCORE else N_BAD
    if state in (N_ZERO, N_ZEROS, N_LEADING):
        if c == 48 and state != N_LEADING:
            return N_ZEROS
        if digit:
            return N_LEADING  # 012 is no number, 012.5 is
        if c == 95:
            return N_ZERO_UNDERSCORE if state != N_LEADING else N_BAD
    elif state == N_ZERO_UNDERSCORE:
        return N_ZEROS if c == 48 else N_BAD
    elif state in (N_DIGITS, N_UNDERSCORE):
        if digit:
            return N_DIGITS
        if c == 95 and state == N_DIGITS:
            return N_UNDERSCORE
        if state == N_UNDERSCORE:
            return N_BAD
    elif state in (N_POINT, N_FRACTION, N_FRACTION_UNDERSCORE):
        if digit:
            return N_FRACTION
        if c == 95 and state == N_FRACTION:
            return N_FRACTION_UNDERSCORE
        if state == N_FRACTION_UNDERSCORE or c == 46:
            return N_BAD
    elif state in (N_E, N_E_SIGN, N_E_UNDERSCORE, N_EXPONENT):
        if digit:
            return N_EXPONENT
        if state == N_E and (c == 43 or c == 45):
            return N_E_SIGN
        if state == N_EXPONENT and c == 95:
            return N_E_UNDERSCORE
        return N_IMAGINARY if state == N_EXPONENT and low == 106 else N_BAD
    else:
        return N_BAD
    if c == 46:
        return N_POINT
    if low == 101:
        return N_E
    return N_IMAGINARY if low == 106 else N_BAD
