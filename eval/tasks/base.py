"""What a task is: examples, a measurement of one example, and figures that are ratios of sums over examples."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ontology.errors import UsageError

if TYPE_CHECKING:
    from eval.models import EvalModel

WHOLE = ""
"""The `part` of a row that stands for the whole example."""


@dataclass(frozen=True)
class Options:
    """What a person chooses about the examples; part of a result's identity.

    Attributes:
        data: corpus whose files are scored: a folder, a .py or .parquet file, `stdlib:held-out`.
        train: corpus the models were trained on, for the tasks that compare with it.
        benchmarks: folder of published benchmark files.
        limit: take at most this many examples, chosen by hash, so that a smaller limit takes a part of a larger one.
    """

    data: str = "stdlib:held-out"
    train: str | None = None
    benchmarks: Path | None = None
    limit: int | None = None

    def benchmark(self, name: str) -> Path:
        """Path of a benchmark file; raises UsageError where the folder or the file is missing."""
        base = os.environ.get("CONSTRUCTIBLE_DATA")
        folder = self.benchmarks or (Path(base) / "benchmarks" if base else None)
        if folder is None:
            raise UsageError(f"this task needs {name}.", fix="give its folder with --benchmarks")
        if not (folder / name).is_file():
            raise UsageError("no such benchmark file.", fix="give its folder with --benchmarks", file=folder / name)
        return folder / name


@dataclass(frozen=True)
class Example:
    """One thing to measure on: `id` unique in its task, `cluster` what resembles each other (a project), `data` what
    the measurement is handed, `sha256` of that data, `fingerprint` of the file it came from where it is a file; `texts`
    the files' bytes by name where copied parts of them can be looked for, `fingerprints` of all of them where there are
    several (a project)."""

    id: str
    cluster: str
    data: Any
    sha256: str
    fingerprint: str = ""
    fingerprints: tuple[str, ...] = ()
    texts: Mapping[str, bytes] = field(default_factory=dict)

    def known_to(self, training_files: frozenset[str]) -> bool:
        """Whether one of its files is among those of a training, by their fingerprints."""
        return self.fingerprint in training_files or any(one in training_files for one in self.fingerprints)


@dataclass(frozen=True)
class Measured:
    """Numbers of one example, or of one part of it (a situation): `values` by column, `detail` for a person."""

    values: Mapping[str, float]
    part: str = WHOLE
    detail: Any = None


@dataclass(frozen=True)
class Metric:
    """A figure: sum of one column by sum of another.

    Attributes:
        name: as in tables, with its unit in words where it has one.
        top, bottom: columns.
        better: which way is better.
        percent: show as percent.
        digits: after the point.
        whole_bottom: a part's figure is over the whole examples' `bottom`, so that the parts add up to the whole.
        measured_on_machine: depends on the machine (a latency): two machines are never compared.
        own_units: counted in the model's own tokens: models that cut the same text otherwise are not compared in it.
    """

    name: str
    top: str
    bottom: str
    better: Literal["lower", "higher", "neither"] = "higher"
    percent: bool = False
    digits: int = 3
    whole_bottom: bool = False
    measured_on_machine: bool = False
    own_units: bool = False

    def show(self, value: float | None, low: float | None = None, high: float | None = None) -> str:
        """The figure for a person, with its interval where there is one."""
        if value is None or not math.isfinite(value):
            return "–"
        scale, unit, digits = (100, " %", max(self.digits - 2, 0)) if self.percent else (1, "", self.digits)
        text = f"{scale * value:.{digits}f}{unit}"
        return text if low is None or high is None else f"{text} [{scale * low:.{digits}f}, {scale * high:.{digits}f}]"


@dataclass(frozen=True)
class Task:
    """A measurement that any number of models can be put through.

    Attributes:
        name: unique.
        version: raised whenever the examples or the arithmetic change: other versions are never compared.
        question: what it answers, one sentence.
        columns: numbers that `measure` gives.
        metrics: figures made of them; the first is the task's headline.
        needs: what a model must be able to do (see `EvalModel.abilities`).
        load: the examples, the same in every process.
        measure: rows of one example: one for the whole, and any number of parts.
        uses: the options that its examples depend on.
    """

    name: str
    version: int
    question: str
    columns: tuple[str, ...]
    metrics: tuple[Metric, ...]
    load: Callable[[Options], Sequence[Example]]
    measure: Callable[[EvalModel, Example], Iterable[Measured]]
    needs: frozenset[str] = field(default_factory=frozenset)
    uses: tuple[str, ...] = ("data",)

    def options(self, options: Options) -> dict[str, Any]:
        """The options that this task depends on, as JSON."""
        kept = {name: value for name, value in asdict(options).items() if name in (*self.uses, "limit")}
        # Files may lie anywhere; their content is in the examples' hashes, and results are published.
        return {
            name: place_free(value) if isinstance(value, str) else value
            for name, value in kept.items() if name != "benchmarks"
        }  # fmt: skip


def place_free(text: str) -> str:
    """A command or the name of data without the folders of the machine it ran on: of absolute paths the last name."""
    return re.sub(r"(?<![\w.])/[^\s=:]*/([^\s/=:]+)", r"\1", text)
