"""Routers: restricted plain Python that says which concept is in charge, in batch form and with a trace.

A router's inputs are a small finite state, so a batch is decided once per distinct state and scattered back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ontology.checker import check_source
from ontology.errors import ConstructibleError
from ontology.restricted import Branch, Checked, Helper, NumberField, RestrictedError, StateField

__all__ = [
    "Branch", "Helper", "NumberField", "RestrictedError", "Router", "StateField", "Trace", "check_source",
    "uncovered_branches",
]  # fmt: skip

_CHUNK_ROWS = 1 << 20
_DENSE_LIMIT = 1 << 22  # codes below this are renumbered with a lookup table instead of a sort


@dataclass(frozen=True)
class Trace:
    """One decision: the concept in charge, the `lines` taken (tests that held, assignments, the return), and the
    lines of tests that were `passed` over because they did not hold."""

    concept: str
    lines: list[int]
    passed: list[int]


class Router:
    """A checked router over the given state fields.

    Attributes:
        concepts: the names it can return, in order of appearance; `route` returns indices into it.
        fields: the state fields, in the order of a row's columns.
        source, file: the router's text and where it was read from.
        helpers: the functions it may call.
    """

    def __init__(self, checked: Checked, fields: Sequence[StateField]) -> None:
        self._checked = checked
        self.fields = tuple(fields)
        self.source, self.file, self.helpers = checked.source, checked.file, checked.helpers
        self.concepts = checked.names
        self._index = {name: i for i, name in enumerate(self.concepts)}
        columns = {field.name: i for i, field in enumerate(self.fields)}
        self._columns = [columns[name] for _, name in checked.used]
        self._sizes = [self.fields[column].size for column in self._columns]
        self._decide = checked.compile()
        self._decide_traced = checked.compile(trace=True)
        self._memo: dict[bytes, int] = {}

    @classmethod
    def load(
        cls, path: str | Path, fields: Sequence[StateField], helpers: Mapping[str, Helper] | None = None
    ) -> Router:
        """Read and check a router file holding `def route(state)`.

        Raises:
            RestrictedError: with file, line and reason, where the file says something that is not allowed.
        """
        path = Path(path)
        try:
            source = path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise RestrictedError("not UTF-8 text.", fix="save the router as UTF-8", file=path) from error
        except OSError as error:
            raise ConstructibleError(f"cannot be read ({error.strerror}).", fix="check the path", file=path) from error
        return cls.parse(source, fields, helpers, file=path)

    @classmethod
    def parse(
        cls,
        source: str,
        fields: Sequence[StateField],
        helpers: Mapping[str, Helper] | None = None,
        file: str | Path = "<router>",
    ) -> Router:
        """Check a router given as text; see `load`."""
        names = [field.name for field in fields]
        if len(set(names)) != len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise ConstructibleError(f"the state field {twice!r} is declared twice.", fix="rename one", file=file)
        checked = check_source(
            source,
            arguments=("state",),
            attributes={"state": tuple(fields)},
            helpers=helpers,
            function="route",
            file=file,
        )
        return cls(checked, fields)

    def route(self, fields: npt.ArrayLike) -> npt.NDArray[np.int32]:
        """Decide every row.

        Args:
            fields: integer codes [m, F], one column per state field.

        Returns:
            int32 [m], indices into `concepts`.

        Raises:
            ConstructibleError: a code is outside of its field's values, or the shape is wrong.
        """
        rows = self._rows(fields)
        out = np.empty(len(rows), np.int32)
        for begin in range(0, len(rows), _CHUNK_ROWS):
            part = rows[begin : begin + _CHUNK_ROWS]
            first, inverse = self._distinct(part)
            out[begin : begin + _CHUNK_ROWS] = self._decide_rows(part[first])[inverse]
        return out

    def trace(self, row: npt.ArrayLike) -> Trace:
        """Decide one row [F] and name the lines taken."""
        rows = self._rows(np.asarray(row)[None])
        self._check_codes(rows)
        events: list[int] = []
        concept = self._decide_traced(events.append, *self._values(rows[0, self._columns].tolist()))
        return Trace(concept, [line for line in events if line > 0], [-line for line in events if line < 0])

    def branches(self) -> list[Branch]:
        """List every branch, outermost first."""
        return self._checked.branches()

    def line_of(self, concept: str) -> int | None:
        """Return the first line that returns a concept."""
        return self._checked.return_lines.get(concept)

    def state(self, row: npt.ArrayLike) -> dict[str, str | int | bool]:
        """Return a row [F] as the named values that the router sees."""
        rows = self._rows(np.asarray(row)[None])
        for column in range(len(self.fields)):
            self._check_column(rows[:, column], column)
        return {field.name: field.decode(int(code)) for field, code in zip(self.fields, rows[0], strict=True)}

    def row(self, **values: str | int | bool) -> npt.NDArray[np.int64]:
        """Return the row [F] with the named values; fields not named take their first value."""
        known = {field.name: i for i, field in enumerate(self.fields)}
        row = np.zeros(len(self.fields), np.int64)
        for name, value in values.items():
            if name not in known:
                raise ConstructibleError(
                    f"the router's state has no field {name!r}.", fix=f"use one of {sorted(known)}"
                )
            field = self.fields[known[name]]
            if isinstance(value, str):
                if isinstance(field.values, int) or value not in field.values:
                    raise ConstructibleError(f"{value!r} is not a value of {name!r}.", fix=f"use one of {field.values}")
                row[known[name]] = field.values.index(value)
            else:
                row[known[name]] = int(value)
        return row

    def line_hits(self, fields: npt.ArrayLike) -> dict[int, int]:
        """Count for each line of the router how many of the rows [m, F] took it; lines never taken count 0."""
        hits = dict.fromkeys(self._checked.lines, 0)
        for event, count in self._events(fields).items():
            if event > 0:
                hits[event] += count
        return hits

    def _events(self, fields: npt.ArrayLike) -> dict[int, int]:
        """Count trace events (a line taken, or minus the line of a test that did not hold) over rows [m, F]."""
        rows = self._rows(fields)
        counts: dict[int, int] = {}
        for begin in range(0, len(rows), _CHUNK_ROWS):
            part = rows[begin : begin + _CHUNK_ROWS]
            first, inverse = self._distinct(part)
            times = np.bincount(inverse, minlength=len(first)).tolist()
            for values, weight in zip(part[first][:, self._columns].tolist(), times, strict=True):
                events: list[int] = []
                self._decide_traced(events.append, *self._values(values))
                for event in events:
                    counts[event] = counts.get(event, 0) + weight
        return counts

    def _values(self, codes: list[int]) -> list[str | int | bool]:
        return [self.fields[column].decode(code) for column, code in zip(self._columns, codes, strict=True)]

    def _rows(self, fields: npt.ArrayLike) -> np.ndarray:
        rows = np.asarray(fields)
        if rows.ndim != 2 or rows.shape[1] != len(self.fields) or rows.dtype.kind not in "iub":
            raise ConstructibleError(
                f"router rows must be integers of shape [m, {len(self.fields)}], not {rows.dtype} {list(rows.shape)}.",
                fix="pass one column per state field",
            )
        return rows

    def _check_codes(self, rows: np.ndarray) -> None:
        for column in self._columns:
            self._check_column(rows[:, column], column)

    def _check_column(self, codes: np.ndarray, column: int) -> None:
        field = self.fields[column]
        if len(codes) and (int(codes.max()) >= field.size or int(codes.min()) < 0):
            worst = int(codes.max()) if int(codes.max()) >= field.size else int(codes.min())
            raise ConstructibleError(
                f"the state field {field.name!r} has the code {worst}, outside of its {field.size} values.",
                fix="declare the value or correct the state",
            )

    def _distinct(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return (a row index for each distinct state [k], the distinct state of each row [m])."""
        # Only columns that the router reads count. They are folded one by one into a number below `size`; whenever
        # it could outgrow the lookup table the numbers in use are renumbered 0..k-1.
        codes, size = np.zeros(len(rows), np.int64), 1
        for column, card in zip(self._columns, self._sizes, strict=True):
            values = rows[:, column].astype(np.int64)
            self._check_column(values, column)
            if size * card > _DENSE_LIMIT:
                codes, size = _renumber(codes, size)
            codes = codes * card + values
            size *= card
        codes, size = _renumber(codes, size)
        first = np.zeros(size, np.int64)
        first[codes] = np.arange(len(rows))
        return first, codes

    def _decide_rows(self, rows: np.ndarray) -> npt.NDArray[np.int32]:
        used = np.ascontiguousarray(rows[:, self._columns].astype(np.int64))
        out = np.empty(len(used), np.int32)
        for i, codes in enumerate(used):
            key = codes.tobytes()
            decision = self._memo.get(key)
            if decision is None:
                decision = self._index[self._decide(*self._values(codes.tolist()))]
                self._memo[key] = decision
            out[i] = decision
        return out


def _renumber(codes: np.ndarray, size: int) -> tuple[np.ndarray, int]:
    """Renumber the codes in use to 0..k-1, keeping their order; return (codes, k)."""
    # A lookup table is filled whole, so for few codes a sort is quicker: one state while a text is typed.
    if size > min(max(_DENSE_LIMIT, 4 * len(codes)), 64 * len(codes)):
        distinct, inverse = np.unique(codes, return_inverse=True)
        return inverse.reshape(-1), max(1, len(distinct))
    present = np.zeros(size, np.bool_)
    present[codes] = True
    number = np.cumsum(present, dtype=np.int64) - 1
    return number[codes], max(1, int(present.sum()))


def uncovered_branches(router: Router, rows: npt.ArrayLike) -> list[Branch]:
    """List the branches of the router that none of the rows [m, F] takes, outermost first."""
    return router._checked.uncovered(set(router._events(rows)))
