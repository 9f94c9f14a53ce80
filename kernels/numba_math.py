"""Numba building blocks in float32 that LLVM turns into vector code: exp, sigmoid, erf, bfloat16 rounding.

The C library's exp is a call per element; these are branch-free polynomials, so that a plain loop over an array becomes
vector instructions on any machine. Worst errors are asserted in the tests.
"""

# pyright: reportCallIssue=false
# (an intrinsic's first parameter is filled in by numba)
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import numpy as np
from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from kernels.numba_cache import cache_by_sources, fingerprint
from kernels.processor import features

# No fast-math flags: LLVM compiles these functions more than once (alone, inlined, again after linking), and a sum that
# it may re-order came out differently in the process that compiled than in those that loaded the code from the cache.
# The order of sums and the fused multiply-adds are written down instead (`fma`, numba_panels.sum_row).
# Division by zero gives infinity, as in numpy; Python's exception would be a branch in every loop that divides.
INLINE: dict[str, Any] = {"inline": "always", "error_model": "numpy"}
_SOURCES = fingerprint(sorted(Path(__file__).parent.glob("numba_*.py")))
LOG2E, LN2_HIGH, LN2_LOW = np.float32(1.4426950408889634), np.float32(0.693359375), np.float32(-2.12194440e-4)
HALF, ONE = np.float32(0.5), np.float32(1.0)
# Arguments whose exp is a normal number and whose power of two, 2^-126 to 2^127, is one too.
EXP_LOW, EXP_HIGH = np.float32(-87.3365), np.float32(88.37)
# exp(r) on |r| <= ln 2 / 2: coefficients of the Taylor series from r^2 on, degree 7 (error below one ulp).
C2, C3, C4 = np.float32(1 / 2), np.float32(1 / 6), np.float32(1 / 24)
C5, C6, C7 = np.float32(1 / 120), np.float32(1 / 720), np.float32(1 / 5040)


def _has_fma() -> bool:
    return bool(features().get("fma", False)) or not binding.get_process_triple().startswith(("x86_64", "i686"))


HAS_FMA = _has_fma()  # without it LLVM would call the C library for every element


def fused(builder: Any, a: Any, b: Any, c: Any) -> Any:
    """LLVM code for a b + c on floats or vectors of them: rounded once where the machine can."""
    if not HAS_FMA:
        return builder.fadd(builder.fmul(a, b), c)
    kind = f"v{a.type.count}f32" if isinstance(a.type, ir.VectorType) else "f32"
    signature = ir.FunctionType(a.type, [a.type] * 3)
    return builder.call(cgutils.get_or_insert_function(builder.module, signature, f"llvm.fma.{kind}"), (a, b, c))


def compiled(signature: str, parallel: bool = False) -> Callable[[Callable[..., Any]], Any]:
    """Compile for one signature, at once, or load what an earlier process compiled from the same sources."""

    def decorate(function: Callable[..., Any]) -> Any:
        dispatcher = compiled_when_called(function, parallel)
        dispatcher.compile(signature)
        dispatcher.disable_compile()
        return dispatcher

    return decorate


def compiled_when_called(function: Callable[..., Any], parallel: bool = False, constants: str = "") -> Any:
    """As `compiled`, for whatever it is called with: an array may be a read-only map of a file.

    constants: what a function made by another one has of its own, since its source does not tell.
    """
    dispatcher = numba.njit(error_model="numpy", nogil=True, parallel=parallel)(function)
    return cache_by_sources(dispatcher, _SOURCES + constants)


class NamedType(ir.Type):
    """A type of LLVM that llvmlite does not name."""

    def __init__(self, name: str) -> None:
        self.name = name

    def _to_string(self) -> str:
        return self.name

    def __eq__(self, other: object) -> bool:
        return isinstance(other, NamedType) and other.name == self.name

    def __hash__(self) -> int:
        return hash(self.name)


@intrinsic
def fma(typingctx: Any, a: Any, b: Any, c: Any) -> Any:
    """a b + c in float32."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return fused(builder, *args)

    return types.float32(types.float32, types.float32, types.float32), codegen


@intrinsic
def bits_of(typingctx: Any, value: Any) -> Any:
    """The 32 bits of a float32 as int32."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.IntType(32))

    return types.int32(types.float32), codegen


@intrinsic
def float_of(typingctx: Any, value: Any) -> Any:
    """The float32 that has these 32 bits."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.FloatType())

    return types.float32(types.int32), codegen


@numba.njit(**INLINE)
def _exp_rest(x: Any, n: Any) -> Any:
    """exp(x - n ln 2) for |x - n ln 2| <= ln 2 / 2."""
    r = fma(-n, LN2_LOW, fma(-n, LN2_HIGH, x))
    poly = fma(r, fma(r, fma(r, C7, C6), C5), C4)
    return fma(r, fma(r, fma(r, fma(r, poly, C3), C2), ONE), ONE)


@numba.njit(**INLINE)
def exp32(x: Any) -> Any:
    """exp(x); exactly 0 below -87.3 (no denormals), held at 2.4e38 above 88.4. NaN stays NaN."""
    clipped = min(max(x, EXP_LOW), EXP_HIGH)
    n = np.floor(fma(clipped, LOG2E, HALF))
    power = _exp_rest(clipped, n) * float_of((np.int32(n) + np.int32(127)) << np.int32(23))
    return power if x >= EXP_LOW else (np.float32(0.0) if x < EXP_LOW else x)


@numba.njit(**INLINE)
def exp_negative32(x: Any) -> Any:
    """exp(x) for x <= 0, held at 1e-38 below -87.3: half the work of exp32, for softmax. NaN stays NaN."""
    clipped = EXP_LOW if x < EXP_LOW else x
    n = np.floor(fma(clipped, LOG2E, HALF))
    return _exp_rest(clipped, n) * float_of((np.int32(n) + np.int32(127)) << np.int32(23))


@numba.njit(**INLINE)
def sigmoid32(x: Any) -> Any:
    return ONE / (ONE + exp32(-x))


@numba.njit(**INLINE)
def normal_cdf32(x: Any) -> Any:
    """(1 + erf(x / sqrt 2)) / 2, by a Chebyshev fit of erfc (Numerical Recipes, 2nd ed., section 6.2)."""
    z = abs(x) * np.float32(0.7071067811865476)
    t = ONE / fma(HALF, z, ONE)
    poly = np.float32(0.17087277)
    poly = fma(t, poly, np.float32(-0.82215223))
    poly = fma(t, poly, np.float32(1.48851587))
    poly = fma(t, poly, np.float32(-1.13520398))
    poly = fma(t, poly, np.float32(0.27886807))
    poly = fma(t, poly, np.float32(-0.18628806))
    poly = fma(t, poly, np.float32(0.09678418))
    poly = fma(t, poly, np.float32(0.37409196))
    poly = fma(t, poly, np.float32(1.00002368))
    poly = fma(t, poly, np.float32(-1.26551223))
    tail = HALF * t * exp32(fma(-z, z, poly))
    sign = bits_of(x) & np.int32(-0x80000000)  # set by bits: a branch here would keep the loop scalar
    return HALF + float_of(bits_of(HALF - tail) | sign)


@numba.njit(**INLINE)
def order_key(x: Any) -> Any:
    """An int32 that sorts as the float32 does: a maximum of integers becomes vector code, one of floats does not."""
    bits = bits_of(x)
    return bits ^ ((bits >> np.int32(31)) & np.int32(0x7FFFFFFF))


@numba.njit(**INLINE)
def from_order_key(key: Any) -> Any:
    return float_of(key ^ ((key >> np.int32(31)) & np.int32(0x7FFFFFFF)))


@numba.njit(**INLINE)
def to_bfloat16(x: Any) -> Any:
    """Upper 16 bits of a float32, rounded to the nearest, ties to even; NaN is not handled."""
    bits = bits_of(x)
    return np.uint16((bits + np.int32(0x7FFF) + ((bits >> np.int32(16)) & np.int32(1))) >> np.int32(16))
