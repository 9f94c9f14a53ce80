"""numba's on-disk cache, made to expire when any source that may be compiled in changes.

numba's own cache watches only the file that a function stands in: after a change to a file it calls into, it would go
on running the old machine code.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from numba.core.caching import FunctionCache


def fingerprint(files: Iterable[Path]) -> str:
    """Digest of these files' contents, in this order."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()


class _Cache(FunctionCache):
    """A cache whose keys hold the fingerprint of everything that may have been compiled in."""

    def __init__(self, function: Callable[..., Any], sources: str) -> None:
        super().__init__(function)
        self.sources = sources

    def _index_key(self, sig: Any, codegen: Any) -> tuple[Any, ...]:
        return (*super()._index_key(sig, codegen), self.sources)


def cache_by_sources(dispatcher: Any, sources: str) -> Any:
    """Let a dispatcher (made by `numba.njit` without `cache`) load and keep its machine code under `sources`."""
    dispatcher._cache = _Cache(dispatcher.py_func, sources)
    return dispatcher
