"""The constructed language model of Python code: lexer state, tokenizer, situations, experts and their mixture.

Names are loaded when first used, so that importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

_HOME = {
    "ConstructedLM": "cgpt.model",
    "MonolithLM": "cgpt.model",
    "Recipe": "cgpt.build",
    "Tokenizer": "cgpt.tokenizer",
    "load": "cgpt.model",
    "read_corpus": "cgpt.corpus",
    "score_files": "cgpt.score",
}
"""Public names and the modules they live in."""

__all__ = sorted(_HOME)  # pyright: ignore[reportUnsupportedDunderAll]

if TYPE_CHECKING:
    from cgpt.model import load as load


def __getattr__(name: str) -> Any:
    if name in _HOME:
        value = getattr(import_module(_HOME[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
