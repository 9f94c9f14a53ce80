"""`compiled`: numba's `njit` with an on-disk cache that expires when any source that may be compiled in changes.

The lexer calls nothing but itself, so its cache outlives changes to the rest. Compiled functions let go of the
interpreter's lock.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from numba import njit

from kernels import numba_cache
from kernels.numba_cache import cache_by_sources, fingerprint

_LEXER = (
    "lexer_tables.py", "lexer_state.py", "lexer_tokens.py", "lexer_bytes.py", "lexer.py", "pieces.py", "tokenizer.py",
    "check_lexer.py", "valid_numbers.py", "valid_rules.py",
    "valid_bytes.py",
)  # fmt: skip
_MODEL = ("index.py", "counts.py", "mixer.py", "names.py", "reads.py", "caches.py", "mixing.py", "pointers.py")
_HERE = Path(__file__).parent

FINGERPRINT = fingerprint(_HERE / name for name in _LEXER)
_MODEL_FINGERPRINT = FINGERPRINT + fingerprint(
    [*(_HERE / name for name in _MODEL), Path(numba_cache.__file__).with_name("numba_math.py")]
)


def compiled(function: Callable[..., Any]) -> Any:
    """Compile in nopython mode on first call, or load what an earlier process compiled from the same sources."""
    return _cached(function, parallel=False)


def compiled_parallel(function: Callable[..., Any]) -> Any:
    """As `compiled`, with the rounds of `prange` shared out among the threads."""
    return _cached(function, parallel=True)


def _cached(function: Callable[..., Any], parallel: bool) -> Any:
    of_model = f"{function.__module__.rpartition('.')[2]}.py" in _MODEL
    return cache_by_sources(
        njit(nogil=True, parallel=parallel)(function), _MODEL_FINGERPRINT if of_model else FINGERPRINT
    )
