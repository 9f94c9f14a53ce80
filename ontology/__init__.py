"""The shared engine: concepts, routers, modules, fitting.

Public names load on first use, so that importing the package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "Ontology": "schema", "Concept": "schema", "Cut": "graph", "cut": "graph",
    "Router": "routers", "StateField": "routers", "NumberField": "routers", "Helper": "routers", "Trace": "routers",
    "check_source": "routers", "uncovered_branches": "routers",
    "ConstructibleError": "errors", "UsageError": "errors", "CheckFailed": "errors", "MissingExtra": "errors",
}  # fmt: skip

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
