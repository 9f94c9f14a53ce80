"""Results on disk: one Parquet file per model and task, a row per example and part, the header in its footer.

`read_header` reads the footer alone. While a task runs its rows lie in a folder of small finished files beside it, so
that a killed run loses at most the last few seconds.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from eval.tasks.base import WHOLE, Example, Measured, Metric, Task
from ontology.errors import ConstructibleError
from ontology.io import explain_os_errors, write_atomic

FORMAT = "constructible-eval/1"
_KEY = b"constructible"
_FIXED = ("example", "cluster", "part", "sha256", "detail")


def schema(task: Task) -> pa.Schema:
    """Columns of a task's results."""
    return pa.schema(
        [(name, pa.string()) for name in _FIXED] + [(name, pa.float64()) for name in task.columns]
    )  # fmt: skip


def rows_of(example: Example, measured: Iterable[Measured], task: Task) -> list[dict[str, Any]]:
    """Rows of one example.

    Raises:
        ConstructibleError: the task gave a column that it does not declare.
    """
    rows = []
    for one in measured:
        if unknown := sorted(one.values.keys() - set(task.columns)):
            fix = "name it in the task's columns"
            raise ConstructibleError(f"the task {task.name!r} gave an undeclared column {unknown[0]!r}.", fix=fix)
        detail = "" if one.detail is None else json.dumps(one.detail, ensure_ascii=False, sort_keys=True)
        fixed = {"example": example.id, "cluster": example.cluster, "part": one.part, "sha256": example.sha256}
        rows.append({**fixed, "detail": detail, **{name: one.values.get(name) for name in task.columns}})
    return rows


def write_rows(
    path: Path, rows: Sequence[Mapping[str, Any]], task: Task, header: Mapping[str, Any] | None = None
) -> None:
    """Write a Parquet file atomically, the header in its metadata."""
    text = json.dumps(header, sort_keys=True, ensure_ascii=False) if header is not None else "{}"
    table = pa.Table.from_pylist(list(rows), schema(task)).replace_schema_metadata({_KEY: text.encode("utf-8")})
    write_atomic(path, lambda target: pq.write_table(table, target, compression="zstd"))


def read_header(path: str | Path) -> dict[str, Any]:
    """The header of a results file, without reading a row.

    Raises:
        ConstructibleError: it is no results file of this format.
    """
    try:
        with explain_os_errors(path):
            metadata = pq.read_metadata(path).metadata or {}
        header = json.loads(metadata.get(_KEY, b"{}"))
    except (pa.ArrowException, ValueError) as error:
        raise ConstructibleError(f"not a results file ({error}).", fix="run `eval run` again", file=path) from error
    if header.get("format") != FORMAT:
        raise ConstructibleError(f"not a results file of {FORMAT}.", fix="run `eval run` again", file=path)
    return header


@dataclass(frozen=True)
class Results:
    """A results file: `header`, and whole examples and parts as columns.

    `examples`, `clusters`, `sha256` are [n]; `values` float64[n] by column (nan: not measured); `parts` maps a part to
    its columns over the same n examples (0 where the part does not occur); `details` [n] JSON texts.
    """

    path: Path
    header: dict[str, Any]
    examples: list[str]
    clusters: list[str]
    sha256: list[str]
    values: dict[str, np.ndarray]
    parts: dict[str, dict[str, np.ndarray]]
    details: list[str]

    @property
    def metrics(self) -> list[Metric]:
        """The task's figures as they were when it ran."""
        return [Metric(**metric) for metric in self.header["metrics"]]


def read_results(path: str | Path) -> Results:
    """Read a results file whole."""
    path = Path(path)
    header = read_header(path)
    table = pq.read_table(path)
    columns = {name: table.column(name).to_pylist() for name in _FIXED}
    names = [name for name in table.column_names if name not in _FIXED]
    numbers = {name: table.column(name).to_numpy().astype(np.float64) for name in names}
    whole = [i for i, part in enumerate(columns["part"]) if part == WHOLE]
    at = {columns["example"][row]: i for i, row in enumerate(whole)}
    parts: dict[str, dict[str, np.ndarray]] = {}
    for row, part in enumerate(columns["part"]):
        if part == WHOLE:
            continue
        sums = parts.setdefault(part, {name: np.zeros(len(whole)) for name in names})
        for name in names:
            sums[name][at[columns["example"][row]]] = numbers[name][row]
    return Results(
        path, header, [columns["example"][i] for i in whole], [columns["cluster"][i] for i in whole],
        [columns["sha256"][i] for i in whole], {name: numbers[name][whole] for name in names}, parts,
        [columns["detail"][i] for i in whole],
    )  # fmt: skip


class Shards:
    """Rows of a task that is not finished, in small files that each appear whole.

    Args:
        folder: theirs alone.
        key: of the measurement; rows of another key are dropped.
    """

    def __init__(self, folder: Path, task: Task, key: str) -> None:
        self.folder, self.task, self.key = folder, task, key
        self.rows: list[dict[str, Any]] = []
        for path in sorted(folder.glob("*.parquet")):
            metadata = json.loads((pq.read_metadata(path).metadata or {}).get(_KEY, b"{}"))
            if metadata.get("key") == key:
                self.rows += pq.read_table(path).to_pylist()
            else:
                path.unlink()
        self._written = len(self.rows)

    @property
    def done(self) -> set[str]:
        """Examples that are measured."""
        return {row["example"] for row in self.rows}

    def add(self, rows: Sequence[dict[str, Any]]) -> None:
        """Take the rows of one example."""
        self.rows += rows

    def keep(self, holds: Callable[[dict[str, Any]], bool]) -> None:
        """Leave out rows that do not count here; files that are written already stay as they are."""
        written = [row for row in self.rows[: self._written] if holds(row)]
        self.rows = written + [row for row in self.rows[self._written :] if holds(row)]
        self._written = len(written)

    def flush(self) -> None:
        """Write what is new."""
        if len(self.rows) > self._written:
            number = len(list(self.folder.glob("*.parquet"))) if self.folder.is_dir() else 0
            write_rows(self.folder / f"{number:05d}.parquet", self.rows[self._written :], self.task, {"key": self.key})
            self._written = len(self.rows)

    def drop(self) -> None:
        """Remove the folder: its rows are in the finished file."""
        shutil.rmtree(self.folder, ignore_errors=True)
