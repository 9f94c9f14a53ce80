"""Lazy registries: a name leads to "module:attribute", which is imported only when it is asked for."""

from __future__ import annotations

import importlib
import importlib.metadata
from collections.abc import Mapping
from typing import Any

from ontology.errors import ConstructibleError, UsageError, did_you_mean


class Registry:
    """Names of one kind of thing, each with the place of its code.

    Args:
        kind: what an entry is, for messages ("command", "track").
        group: entry-point group through which other packages add entries; read at the first look-up.
        entries: names known from the start.
    """

    def __init__(self, kind: str, group: str | None = None, entries: Mapping[str, str] | None = None) -> None:
        self.kind, self.group = kind, group
        self._targets: dict[str, str] = {}
        self._discovered = group is None
        for name, target in (entries or {}).items():
            self.add(name, target)

    def add(self, name: str, target: str) -> None:
        """Register "module:attribute" under a name.

        Raises:
            ConstructibleError: the name already leads elsewhere, or the target has no colon.
        """
        if target.count(":") != 1 or not all(target.split(":")):
            raise ConstructibleError(
                f"the {self.kind} {name!r} has the target {target!r}.", fix='write "module:attribute"'
            )
        if self._targets.get(name, target) != target:
            raise ConstructibleError(
                f"the {self.kind} {name!r} is registered twice: {self._targets[name]} and {target}.",
                fix="rename one, or uninstall the package that brings it",
            )
        self._targets[name] = target

    def names(self) -> list[str]:
        """Return all registered names, sorted."""
        self._discover()
        return sorted(self._targets)

    def target(self, name: str) -> str:
        """Return the "module:attribute" of a name; raise UsageError with the nearest name where there is none."""
        self._discover()
        if name not in self._targets:
            known = did_you_mean(name, list(self._targets)) if self._targets else " None is registered."
            raise UsageError(f"no {self.kind} {name!r}.{known}", fix=f"use a {self.kind} that is registered")
        return self._targets[name]

    def load(self, name: str) -> Any:
        """Import and return what a name leads to.

        Raises:
            UsageError: the name is unknown.
            ConstructibleError: its module cannot be imported or lacks the attribute.
        """
        module, attribute = self.target(name).split(":")
        try:
            value: Any = importlib.import_module(module)
            for part in attribute.split("."):
                value = getattr(value, part)
        except (ImportError, AttributeError) as error:
            raise ConstructibleError(
                f"the {self.kind} {name!r} ({module}:{attribute}) cannot be loaded: {error}.",
                fix="install what is missing, or uninstall the package that registers it",
            ) from error
        return value

    def _discover(self) -> None:
        if self._discovered or self.group is None:
            return
        self._discovered = True
        for entry in importlib.metadata.entry_points(group=self.group):
            self.add(entry.name, entry.value.replace(" ", ""))


COMMANDS = Registry("command", group="constructible.commands")
TRACKS = Registry("track", group="constructible.tracks")
