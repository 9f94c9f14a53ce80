"""The shared engine: concepts, routers, modules, fitting.

Public names load on first use, so that importing the package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_HOME = {
    "Budget": "fit", "Job": "fit", "JobContext": "fit", "train": "training",
    "CheckFailed": "errors", "ConstructibleError": "errors", "MissingExtra": "errors", "UsageError": "errors",
    "Concept": "schema", "Ontology": "schema", "Cut": "graph", "cut": "graph",
    "CountTable": "tables", "Examples": "modules", "Module": "modules", "NetModule": "nets", "PlainModule": "modules",
    "load_module": "modules", "Helper": "routers", "NumberField": "routers", "Router": "routers",
    "StateField": "routers", "Trace": "routers", "check_source": "routers", "uncovered_branches": "routers",
    "Store": "store", "Track": "track", "load_track": "track",
}  # fmt: skip

__all__ = sorted(_HOME)  # pyright: ignore[reportUnsupportedDunderAll]

if TYPE_CHECKING:
    from ontology.errors import CheckFailed as CheckFailed
    from ontology.errors import ConstructibleError as ConstructibleError
    from ontology.errors import MissingExtra as MissingExtra
    from ontology.errors import UsageError as UsageError
    from ontology.fit import Budget as Budget
    from ontology.fit import Job as Job
    from ontology.fit import JobContext as JobContext
    from ontology.graph import Cut as Cut
    from ontology.graph import cut as cut
    from ontology.modules import Examples as Examples
    from ontology.modules import Module as Module
    from ontology.modules import PlainModule as PlainModule
    from ontology.modules import load_module as load_module
    from ontology.nets import NetModule as NetModule
    from ontology.routers import Helper as Helper
    from ontology.routers import NumberField as NumberField
    from ontology.routers import Router as Router
    from ontology.routers import StateField as StateField
    from ontology.routers import Trace as Trace
    from ontology.routers import check_source as check_source
    from ontology.routers import uncovered_branches as uncovered_branches
    from ontology.schema import Concept as Concept
    from ontology.schema import Ontology as Ontology
    from ontology.store import Store as Store
    from ontology.tables import CountTable as CountTable
    from ontology.track import Track as Track
    from ontology.track import load_track as load_track
    from ontology.training import train as train


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'ontology' has no attribute {name!r}")
    return getattr(importlib.import_module(f"ontology.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
