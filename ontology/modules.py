"""Modules: what answers a concept. One interface for plain code, tables and nets, one folder format for all.

A module is handed the reads it declares and nothing else. Its folder holds `module.json` (format, class, reads,
settings, checksum) and `tensors.safetensors`; never code, never pickle.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from jaxtyping import Float64

from ontology.errors import ConstructibleError, did_you_mean
from ontology.io import load_tensors, make_folder, read_json, save_tensors, sha256_file, write_json
from ontology.registry import Registry
from ontology.schema import ModuleKind

FORMAT = "constructible-module/1"
Arrays = Mapping[str, npt.NDArray[Any]]

# Folders name classes and functions by these registered names only: loading one never imports what it asks for.
MODULE_CLASSES = Registry(
    "module class",
    group="constructible.modules",
    entries={
        "plain": "ontology.modules:PlainModule",
        "count-table": "ontology.tables:CountTable",
        "mlp": "ontology.nets:NetModule",
    },
)
PLAIN_FUNCTIONS = Registry("plain function", group="constructible.plain_functions")


class HandedReads(Mapping[str, npt.NDArray[Any]]):
    """The declared reads of one module, read-only; asking for any other is an error. `rows` says how many there are,
    also for a module that reads nothing."""

    def __init__(self, owner: str, arrays: dict[str, npt.NDArray[Any]], rows: int) -> None:
        self._owner, self._arrays, self.rows = owner, arrays, rows

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        if name not in self._arrays:
            raise ConstructibleError(
                f"the module {self._owner!r} asks for the read {name!r}, which it does not declare."
                + did_you_mean(name, list(self._arrays)),
                fix="add it to the concept's `reads`, or do without",
            )
        return self._arrays[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def __contains__(self, name: object) -> bool:
        return name in self._arrays


@dataclass(frozen=True)
class Examples:
    """What a module is fitted to.

    Attributes:
        reads: by name, arrays whose first axis is the row.
        targets: the answers, one per row: int [rows] for classes, float [rows, answers] for scores.
    """

    reads: Arrays
    targets: npt.NDArray[Any]

    def __len__(self) -> int:
        return len(self.targets)


def hand_reads(module: Module, reads: Arrays) -> HandedReads:
    """Return the reads that a module declares, as read-only arrays, and nothing else.

    An array that is a view into a larger one is copied, so that nothing else can be reached through it.

    Raises:
        ConstructibleError: a declared read is missing, or the reads differ in their number of rows.
    """
    handed: dict[str, npt.NDArray[Any]] = {}
    rows = len(next(iter(reads.values()))) if reads else 0
    for name in module.reads:
        if name not in reads:
            raise ConstructibleError(
                f"the module {module.name!r} declares the read {name!r}, which is not given."
                + did_you_mean(name, list(reads)),
                fix="provide it in the track, or correct the concept's `reads`",
            )
        array = np.asarray(reads[name])
        if array.ndim == 0 or len(array) != rows:
            raise ConstructibleError(
                f"the read {name!r} has shape {list(array.shape)} where {rows} rows are expected.",
                fix="give every read one row per example",
            )
        view = array.copy() if array.base is not None else array.view()
        view.flags.writeable = False
        handed[name] = view
    return HandedReads(module.name, handed, rows)


class Module(ABC):
    """What answers a concept. Subclasses implement the methods with an underscore and see declared reads only.

    Attributes:
        name: the concept it answers.
        reads: the names of the inputs it is handed.
    """

    kind: ClassVar[ModuleKind]
    registered: ClassVar[str]

    def __init__(self, name: str, reads: Sequence[str]) -> None:
        if len(set(reads)) != len(reads):
            raise ConstructibleError(f"the module {name!r} declares a read twice.", fix="remove one")
        self.name, self.reads = name, tuple(reads)

    def fit(self, examples: Examples) -> None:
        """Learn from examples; the module sees its declared reads and the targets."""
        self._fit(hand_reads(self, examples.reads), examples.targets)

    def predict(self, reads: Arrays) -> Float64[np.ndarray, "rows answers"]:
        """Return the answers, float64 [rows, answers]: log-probabilities, or scores where the module says so."""
        return self._predict(hand_reads(self, reads))

    def explain(self, reads: Arrays) -> list[list[dict[str, Any]]]:
        """Return for each row its evidence: a list of {"kind", "text", "value"}, strongest first."""
        return self._explain(hand_reads(self, reads))

    @property
    def parameters(self) -> int:
        """Trained floats in nets; 0 for tables and plain code."""
        return 0

    @property
    def entries(self) -> int:
        """Entries of tables; 0 for nets and plain code."""
        return 0

    def save(self, folder: str | Path, metadata: Mapping[str, Any] | None = None) -> None:
        """Write the module's folder: tensors first, then `module.json` with their checksum."""
        folder = make_folder(folder)
        tensors = self._tensors()
        described: dict[str, Any] = {
            "format": FORMAT, "class": self.registered, "kind": self.kind, "name": self.name, "reads": list(self.reads),
            "parameters": self.parameters, "entries": self.entries, "settings": self.settings(), "tensors": None,
            "metadata": dict(metadata or {}),
        }  # fmt: skip
        if tensors:
            path = save_tensors(folder / "tensors.safetensors", tensors)
            described["tensors"] = {"file": path.name, "sha256": sha256_file(path), "names": sorted(tensors)}
        write_json(folder / "module.json", described)

    @abstractmethod
    def _fit(self, reads: HandedReads, targets: npt.NDArray[Any]) -> None: ...

    @abstractmethod
    def _predict(self, reads: HandedReads) -> Float64[np.ndarray, "rows answers"]: ...

    @abstractmethod
    def _explain(self, reads: HandedReads) -> list[list[dict[str, Any]]]: ...

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """JSON values from which, with the tensors, `_restore` makes the module again."""

    @abstractmethod
    def _tensors(self) -> dict[str, npt.NDArray[Any]]: ...

    @classmethod
    @abstractmethod
    def _restore(cls, name: str, reads: Sequence[str], settings: dict[str, Any], tensors: Arrays) -> Module: ...


def load_module(folder: str | Path) -> Module:
    """Read a module's folder.

    Raises:
        ConstructibleError: a file is missing or broken, the checksum does not fit, the format is of another version,
            or the class is not registered.
    """
    path = Path(folder) / "module.json"
    described = read_json(path)
    again = "build the model again"
    if not isinstance(described, dict) or not str(described.get("format", "")).startswith("constructible-module/"):
        raise ConstructibleError("not a module's description.", fix=again, file=path)
    if described["format"] != FORMAT:
        raise ConstructibleError(
            f"the module has the format {described['format']!r}; this version reads {FORMAT!r}.",
            fix="update constructible, or build the model again", file=path,
        )  # fmt: skip
    missing = {"class", "kind", "name", "reads", "settings", "tensors"} - described.keys()
    if missing:
        raise ConstructibleError(f"the description lacks {sorted(missing)}.", fix=again, file=path)
    if described["class"] not in MODULE_CLASSES.names():
        hint = did_you_mean(str(described["class"]), MODULE_CLASSES.names())
        raise ConstructibleError(
            f"the module class {described['class']!r} is not registered.{hint}",
            fix="install the package that brings it (entry points `constructible.modules`)", file=path,
        )  # fmt: skip
    tensors: Arrays = {}
    if described["tensors"] is not None:
        stored = path.parent / Path(str(described["tensors"]["file"])).name
        if not stored.exists():
            raise ConstructibleError("no such file.", fix=again, file=stored)
        if sha256_file(stored) != described["tensors"]["sha256"]:
            raise ConstructibleError(
                "the tensors do not fit their checksum: the file was changed.", fix=again, file=stored
            )
        tensors = load_tensors(stored)
    cls: type[Module] = MODULE_CLASSES.load(described["class"])
    try:
        return cls._restore(described["name"], described["reads"], described["settings"], tensors)
    except (KeyError, TypeError, ValueError) as error:
        raise ConstructibleError(
            f"the settings do not make a {cls.__name__} ({error!r}).", fix=again, file=path
        ) from error


class PlainModule(Module):
    """Plain Python that a person reviews: a registered function of the declared reads.

    Args:
        function: a name in `PLAIN_FUNCTIONS`; it takes the handed reads and returns float [rows, answers].
    """

    kind = "plain"
    registered = "plain"

    def __init__(self, name: str, reads: Sequence[str], function: str) -> None:
        super().__init__(name, reads)
        self.function = function
        self._call = PLAIN_FUNCTIONS.load(function)

    def _fit(self, reads: HandedReads, targets: npt.NDArray[Any]) -> None:
        """Plain code learns nothing."""

    def _predict(self, reads: HandedReads) -> Float64[np.ndarray, "rows answers"]:
        answers = np.asarray(self._call(reads), dtype=np.float64)
        if answers.ndim != 2 or len(answers) != reads.rows:
            raise ConstructibleError(
                f"the plain function {self.function!r} returned shape {list(answers.shape)}.",
                fix=f"return [rows, answers], here [{reads.rows}, answers]",
            )
        return answers

    def _explain(self, reads: HandedReads) -> list[list[dict[str, Any]]]:
        return [
            [{"kind": "plain", "text": f"{self.function} answers {int(row.argmax())}", "value": float(row.max())}]
            for row in self._predict(reads)
        ]

    def settings(self) -> dict[str, Any]:
        return {"function": self.function}

    def _tensors(self) -> dict[str, npt.NDArray[Any]]:
        return {}

    @classmethod
    def _restore(cls, name: str, reads: Sequence[str], settings: dict[str, Any], tensors: Arrays) -> PlainModule:
        return cls(name, reads, settings["function"])
