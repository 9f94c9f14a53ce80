"""The leaderboard: one row per model, the same figures as a table, as JSON and as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class Row:
    """One model's figures on one held-out set.

    Attributes:
        name: the model.
        bits_per_byte: over raw UTF-8 bytes, file ends included; lower is better.
        accuracy: share of next tokens that were the most probable one, 0 to 1.
        parameters: trained floats in nets.
        seconds: wall clock from raw files to the last artefact; None where nobody measured it.
        bits_per_byte_low .. accuracy_high: 95 % interval; None where there is none.
        table_entries: counts and stored positions, never mixed into `parameters`.
        peak_rss_bytes: peak memory of the build.
        bytes_per_token: of the model's own tokenizer on the held-out files.
        note: what a reader should know.
    """

    name: str
    bits_per_byte: float
    accuracy: float
    parameters: int
    seconds: float | None
    bits_per_byte_low: float | None = None
    bits_per_byte_high: float | None = None
    accuracy_low: float | None = None
    accuracy_high: float | None = None
    table_entries: int | None = None
    peak_rss_bytes: int | None = None
    bytes_per_token: float | None = None
    note: str = ""


def row_dicts(rows: Sequence[Row | Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows as JSON objects, best bits per byte first.

    Raises:
        TypeError: a mapping has a key that `Row` does not have, or lacks one that it needs.
    """
    typed = [row if isinstance(row, Row) else Row(**row) for row in rows]
    return [asdict(row) for row in sorted(typed, key=lambda row: row.bits_per_byte)]


def to_markdown(rows: Sequence[Row | Mapping[str, Any]]) -> str:
    """A Markdown table, best bits per byte first; ends with a newline."""
    header, lines = [title for title, _ in _COLUMNS], []
    for row in row_dicts(rows):
        lines.append([show(row).replace("|", "\\|").replace("\n", " ") for _, show in _COLUMNS])
    table = [header, ["---"] + ["---:"] * (len(header) - 2) + ["---"], *lines]
    return "".join("| " + " | ".join(cells) + " |\n" for cells in table)


def print_table(rows: Sequence[Row | Mapping[str, Any]], console: Console | None = None) -> None:
    """Print the table, then the notes, with rich; on standard output unless a console is given. Fits 80 columns."""
    from rich.console import Console as RichConsole
    from rich.table import Table
    from rich.text import Text

    console = console or RichConsole()
    dicts = row_dicts(rows)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title, _ in _NARROW:
        table.add_column(
            title, justify="left" if title == "model" else "right", no_wrap=title != "model", overflow="fold"
        )
    for row in dicts:
        # Text, not markup: a model's name or note may hold square brackets.
        table.add_row(*(Text(show(row)) for _, show in _NARROW))
    console.print(table)
    for row in dicts:
        if row["note"]:
            console.print(Text(f"{row['name']}: {row['note']}", style="dim"))


def _with_interval(key: str, scale: float, digits: int, unit: str) -> Any:
    def show(row: Mapping[str, Any]) -> str:
        value, low, high = (row[f"{key}{end}"] for end in ("", "_low", "_high"))
        text = f"{scale * value:.{digits}f}{unit}"
        return text if low is None or high is None else f"{text} [{scale * low:.{digits}f}, {scale * high:.{digits}f}]"

    return show


def _whole(key: str) -> Any:
    return lambda row: "" if row[key] is None else f"{row[key]:,.0f}"


def _plus_minus(key: str, scale: float, digits: int, unit: str) -> Any:
    """Half the width of the interval instead of its ends: what fits into 80 columns."""

    def show(row: Mapping[str, Any]) -> str:
        value, low, high = (row[f"{key}{end}"] for end in ("", "_low", "_high"))
        around = "" if low is None or high is None else f" ± {scale * (high - low) / 2:.{digits}f}"
        return f"{scale * value:.{digits}f}{around}{unit}"

    return show


def _short(value: float | None) -> str:
    if value is None:
        return ""
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:.3g} {unit}"
    return f"{value:.0f}"


_COLUMNS: tuple[tuple[str, Any], ...] = (
    ("model", lambda row: row["name"]),
    ("bits/byte [95 %]", _with_interval("bits_per_byte", 1.0, 3, "")),
    ("accuracy [95 %]", _with_interval("accuracy", 100.0, 1, " %")),
    ("parameters", _whole("parameters")),
    ("table entries", _whole("table_entries")),
    ("seconds", _whole("seconds")),
    ("peak MiB", lambda row: "" if row["peak_rss_bytes"] is None else f"{row['peak_rss_bytes'] / 2**20:,.0f}"),
    ("note", lambda row: row["note"]),
)

_NARROW: tuple[tuple[str, Any], ...] = (
    _COLUMNS[0],
    ("bits/byte", _plus_minus("bits_per_byte", 1.0, 3, "")),
    ("accuracy", _plus_minus("accuracy", 100.0, 1, " %")),
    ("params", lambda row: _short(row["parameters"])),
    ("entries", lambda row: _short(row["table_entries"])),
    ("seconds", _whole("seconds")),
    ("MiB", lambda row: "" if row["peak_rss_bytes"] is None else f"{row['peak_rss_bytes'] / 2**20:.0f}"),
)
