"""`compiled`: numba's `njit` with an on-disk cache that expires when any source that may be compiled in changes.

numba's own cache watches only the file that a function stands in: after a change to a file it calls into, it would go
on running the old machine code. The lexer calls nothing but itself, so its cache outlives changes to the rest.
Compiled functions let go of the interpreter's lock.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from numba import njit
from numba.core.caching import FunctionCache

_LEXER = (
    "lexer_tables.py", "lexer_state.py", "lexer_tokens.py", "lexer_bytes.py", "lexer.py", "pieces.py", "tokenizer.py",
    "check_lexer.py",
)  # fmt: skip
_MODEL = ("index.py", "counts.py", "ladder.py", "names.py", "reads.py", "mixing.py")


def _digest(folder: Path, names: tuple[str, ...] = _LEXER) -> str:
    digest = hashlib.sha256()
    for name in names:
        digest.update((folder / name).read_bytes())
    return digest.hexdigest()


FINGERPRINT = _digest(Path(__file__).parent)
_MODEL_FINGERPRINT = FINGERPRINT + _digest(Path(__file__).parent, _MODEL)


class _Cache(FunctionCache):
    """A cache whose keys hold the fingerprint of everything that may have been compiled in."""

    fingerprint = FINGERPRINT

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        if f"{function.__module__.rpartition('.')[2]}.py" in _MODEL:
            self.fingerprint = _MODEL_FINGERPRINT

    def _index_key(self, sig: Any, codegen: Any) -> tuple[Any, ...]:
        return (*super()._index_key(sig, codegen), self.fingerprint)


def compiled(function: Callable[..., Any]) -> Any:
    """Compile in nopython mode on first call, or load what an earlier process compiled from the same sources."""
    dispatcher: Any = njit(nogil=True)(function)
    dispatcher._cache = _Cache(function)
    return dispatcher
