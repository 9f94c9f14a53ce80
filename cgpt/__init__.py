"""The constructed language model of Python code: lexer state, tokenizer, situations, experts and their mixture.

Names are loaded when first used, so that importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cgpt.tokenizer import Tokenizer

_HOME = {"Tokenizer": "cgpt.tokenizer"}

__all__ = ["Tokenizer"]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
