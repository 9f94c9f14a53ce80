"""The published leaderboard, made from the raw results that are kept: `docs/results/`.

Raw results are of three makes: `quickstart.json` (what `eval quickstart` files), folders of `eval run`, and, beside
their folder, `experiments/contenders.json` (`eval.studies.contenders`). Nothing is typed in: a row's figures, its cost,
its commit and its command all come from the file that the row names.
"""

from __future__ import annotations

import csv
import io
import posixpath
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from eval import contenders_rows
from eval.leaderboard import Row, print_table
from eval.records import Results, read_header, read_results
from ontology.errors import ConstructibleError, UsageError
from ontology.io import read_json, write_text
from ontology.stats import bootstrap_ratio

RESULTS = Path("docs/results")
MARKDOWN, PAGE = "LEADERBOARD.md", "leaderboard.html"
KEPT_EXAMPLES = 200
"""Of a row's raw results so many examples are shown in the page; the file has all."""


@dataclass(frozen=True)
class Entry:
    """One row: a model on a set of files.

    Attributes:
        board: what was scored; only rows of one board are comparable.
        kind: "constructed", "monolith", "no nets", "other", or what `contenders_rows.KINDS` adds.
        figures: as in `leaderboard.Row`.
        opaque: trained numbers that acted on a decision, on average.
        faithful: share of predictions whose explanation was replayed by the independent checker; None: not checked.
        commit, command: of the run; several commits, where training seeds were built at more than one, with commas.
        raw: path of the raw results, relative to the results folder; `facts` what the page shows of them.
    """

    board: str
    kind: str
    figures: Row
    opaque: float | None
    faithful: float | None
    commit: str
    command: str
    raw: str
    facts: dict[str, Any]


def entries(results: Path = RESULTS) -> list[Entry]:
    """All rows, boards together, best bits per byte first.

    Raises:
        UsageError: the folder holds no results.
    """
    found: list[Entry] = []
    for path in sorted(results.rglob("*.json")):
        found += _quickstart(path, path.relative_to(results).as_posix())
    seeds: dict[Path, list[Path]] = {}
    for path in sorted(results.rglob("bits.parquet")):
        model = path.parent.parent if path.parent.name.startswith("seed-") else path.parent
        seeds.setdefault(model, []).append(path)
    found += [_contender(one) for one in contenders_rows.read(results)]
    for paths in seeds.values():
        each = [_run(path, path.relative_to(results).as_posix()) for path in paths]
        found += [_together(each, [read_results(path) for path in paths])] if len(each) > 1 else each
    if not found:
        raise UsageError("no results here.", fix="give the folder that holds quickstart.json or `eval run`'s results",
                         file=results)  # fmt: skip
    return sorted(found, key=lambda entry: (entry.board, entry.figures.bits_per_byte, entry.figures.name))


def place_of(raw: str) -> str:
    """Where raw results lie, seen from the folder of the pages."""
    return posixpath.normpath(f"results/{raw}")


def _contender(one: contenders_rows.Contender) -> Entry:
    row = contenders_rows.row_of(one)
    opaque = {"no nets": 0.0, "monolith": float(row.parameters)}.get(one.kind)
    commit = ", ".join(dict.fromkeys(str(run["commit"]) for run in one.runs if run.get("commit")))
    return Entry(
        one.board, one.kind, row, opaque, None, commit, contenders_rows.command_of(one), one.raw,
        contenders_rows.facts_of(one),
    )  # fmt: skip


def _quickstart(path: Path, raw: str) -> list[Entry]:
    results = read_json(path)
    if not isinstance(results, dict) or "leaderboard" not in results:
        return []  # a summary of another make
    facts = {key: results.get(key) for key in ("command", "commit", "created", "environment", "comparison", "files")}
    rows = []
    for values in results["leaderboard"]:
        row = Row(**values)
        kind = "monolith" if row.name.startswith("baseline") else "no nets" if not row.parameters else "constructed"
        rows.append(
            Entry(
                f"standard library, {results['files']} files of held-out packages", kind, row,
                0.0 if not row.parameters else float(row.parameters) if kind == "monolith" else None, None,
                results["commit"], results["command"], raw,
                facts | {"figures": values, "situations": _situations(results, kind)},
            )
        )  # fmt: skip
    return rows


def _situations(results: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    column = {"constructed": "constructed_bits", "monolith": "baseline_bits"}.get(kind)
    total = sum(row["bytes"] for row in results.get("waterfall", []))
    if column is None or not total:
        return []
    return [
        {"situation": row["concept"], "positions": row["positions"], "bits per byte": round(row[column] / total, 4)}
        for row in results["waterfall"]
    ]


def _run(path: Path, raw: str) -> Entry:
    header, results = read_header(path), read_results(path)
    figures, budget = header["figures"], header["budget"]

    def of(name: str) -> dict[str, Any]:
        return figures[name]

    bits, accuracy, model = of("bits per byte"), of("next-token accuracy"), header["model"]
    if bits["value"] is None:
        raise ConstructibleError("these results have no bits per byte.", fix="run the task again", file=path)
    notes = [f"trained on {len(header['leaked'])} of these files"] if header["leaked"] else []
    if header.get("copied"):
        notes.append(f"parts of {len(header['copied'])} of these files stand in its training")
    notes += ["its training data is not known"] if header["leaked"] is None else []
    notes += [model["kind"]] if model["kind"] else []
    control = model.get("control") or ""
    notes += [f"a control: {control}"] if control else []
    row = Row(
        model["name"] if model["seed"] is None else f"{model['name']} (seed {model['seed']})", bits["value"],
        accuracy["value"], budget["parameters"] or 0, budget["seconds"],
        bits["low"], bits["high"], accuracy["low"], accuracy["high"], budget["table_entries"], budget["peak_rss_bytes"],
        of("bytes per token")["value"], "; ".join(notes),
    )  # fmt: skip
    kind = "control" if control else {"root": "monolith", "plain": "no nets", None: "other"}.get(
        budget["cut"], "constructed"
    )  # fmt: skip
    replayed = path.with_name("replay.parquet")
    faithful = None
    if replayed.is_file():
        checked = read_header(replayed)
        if checked["model"]["fingerprint"] == model["fingerprint"]:  # else it is of an earlier model of this name
            faithful = checked["figures"][checked["metrics"][0]["name"]]["value"]
    names = list(results.values)
    examples = [
        {"file": name, **{column: _short(results.values[column][i]) for column in names}}
        for i, name in enumerate(results.examples[:KEPT_EXAMPLES])
    ]
    parts = [
        {"situation": part, **{name: _short(one["value"]) for name, one in rows.items()}}
        for part, rows in header["parts"].items()
    ]
    facts = {
        key: header[key] for key in ("command", "created", "environment", "budget", "options", "examples", "figures")
    }
    git = header["environment"].get("git") or {}
    commit = (git.get("commit") or "") + ("+" if git.get("changed") else "")
    # Files of one name may hold other bytes: a board is of the same examples, whatever they are called.
    board = f"{header['options']['data']}, {header['examples']} files ({header['examples_hash'][:6]})"
    return Entry(
        board, kind, row, of("opaque parameters per decision")["value"], faithful, commit, header["command"], raw,
        facts | {"situations": parts, "scored files": examples},
    )  # fmt: skip


def _together(rows: Sequence[Entry], results: Sequence[Results]) -> Entry:
    """One row for the training seeds of a model: means, and intervals that hold for other seeds as well.

    Raises:
        ConstructibleError: the seeds were not scored on the same examples.
    """
    first = results[0]
    order = first.examples
    at = [{name: i for i, name in enumerate(one.examples)} for one in results]
    if any(set(one.examples) != set(order) for one in results):
        fix = "run all seeds with the same --data and --limit"
        raise ConstructibleError("its seeds were not scored on the same files.", fix=fix, file=first.path)
    if len({one.header["model"]["fingerprint"] for one in results}) < len(results):
        raise ConstructibleError("one model stands here under several seeds.", fix="measure each training once",
                                 file=first.path)  # fmt: skip
    clusters = first.clusters if first.header["clustered_by"] == "project" else None

    def columns(name: str) -> np.ndarray:
        return np.array(
            [one.values[name][[i[example] for example in order]] for one, i in zip(results, at, strict=True)]
        )

    figures = [row.figures for row in rows]

    def mean(name: str) -> Any:
        values = [getattr(one, name) for one in figures]
        return None if None in values else sum(values) / len(values)

    bits = bootstrap_ratio(columns("bits"), columns("bytes"), clusters, seeds=True).as_dict("bits_per_byte")
    accuracy = bootstrap_ratio(columns("correct"), columns("tokens"), clusters, seeds=True).as_dict("accuracy")
    note = "; ".join([f"{len(rows)} training seeds", *([figures[0].note] if figures[0].note else [])])
    merged: dict[str, Any] = asdict(figures[0]) | bits | accuracy | {
        "name": first.header["model"]["name"], "note": note, "parameters": round(mean("parameters")),
        "seconds": mean("seconds"), "peak_rss_bytes": mean("peak_rss_bytes"), "table_entries": mean("table_entries"),
    }  # fmt: skip
    shares = [row.faithful for row in rows if row.faithful is not None]
    opaque = [row.opaque for row in rows if row.opaque is not None]
    return replace(
        rows[0], figures=Row(**merged), faithful=min(shares) if len(shares) == len(rows) else None,
        opaque=sum(opaque) / len(opaque) if opaque else None,
        facts=rows[0].facts | {"seeds": [{"raw": row.raw, "figures": row.facts["figures"]} for row in rows]},
    )  # fmt: skip


def _short(value: float | None) -> float | None:
    return None if value is None or value != value else float(f"{value:.6g}")


# How the columns read. `None` and nan are an en dash: not measured is not zero.


def _number(value: float | None, digits: int = 0) -> str:
    return "–" if value is None or value != value else f"{value:,.{digits}f}"


def _interval(value: float, low: float | None, high: float | None, scale: float, digits: int, unit: str = "") -> str:
    ends = "" if low is None or high is None else f" [{scale * low:.{digits}f}, {scale * high:.{digits}f}]"
    return f"{scale * value:.{digits}f}{unit}{ends}"


COLUMNS: tuple[tuple[str, str, Callable[[Entry], Any], Callable[[Entry], str]], ...] = (
    ("Model", "text", lambda e: e.figures.name, lambda e: e.figures.name),
    ("Kind", "text", lambda e: e.kind, lambda e: e.kind),
    ("Bits per byte [95 %]", "number", lambda e: e.figures.bits_per_byte,
     lambda e: _interval(e.figures.bits_per_byte, e.figures.bits_per_byte_low, e.figures.bits_per_byte_high, 1, 3)),
    ("Accuracy [95 %]", "number", lambda e: e.figures.accuracy,
     lambda e: _interval(e.figures.accuracy, e.figures.accuracy_low, e.figures.accuracy_high, 100, 1, " %")),
    ("Parameters", "number", lambda e: e.figures.parameters, lambda e: _number(e.figures.parameters)),
    ("Opaque per decision", "number", lambda e: e.opaque, lambda e: _number(e.opaque)),
    ("Faithful share", "number", lambda e: e.faithful,
     lambda e: "–" if e.faithful is None else f"{100 * e.faithful:.2f} %"),
    ("Table entries", "number", lambda e: e.figures.table_entries, lambda e: _number(e.figures.table_entries)),
    ("Seconds", "number", lambda e: e.figures.seconds, lambda e: _number(e.figures.seconds)),
    ("Peak MiB", "number", lambda e: e.figures.peak_rss_bytes,
     lambda e: _number(None if e.figures.peak_rss_bytes is None else e.figures.peak_rss_bytes / 2**20)),
    ("Commit", "text", lambda e: e.commit,
     lambda e: ", ".join(one[:12] + "+" * one.endswith("+") for one in e.commit.split(", ")) or "–"),
)  # fmt: skip
"""(title, kind of sorting, value, text) of each column."""


def to_markdown(rows: Sequence[Entry]) -> str:
    """docs/LEADERBOARD.md."""
    text = (
        "# Leaderboard\n\nMade by `constructible eval leaderboard --write docs` from the raw results in "
        "[results/](results/); a test holds the two equal. The same with sorting, filters and every row's raw results: "
        "[leaderboard.html](leaderboard.html).\n\nBits per byte are over the raw bytes of held-out files, ends "
        "included: lower is better. Intervals: 95 %, bootstrap over files (over projects where there are at least "
        "ten); only rows of several training seeds say anything about other seeds. Seconds run from raw files to the "
        "last artefact. "
        "Parameters are trained numbers in nets; table entries are counted apart; opaque: the parameters that acted on "
        "a decision. Faithful: share of predictions whose explanation an independent checker rebuilt. A dash was not "
        "measured. Only rows of one table are comparable.\n"
    )
    for board in dict.fromkeys(row.board for row in rows):
        chosen = [row for row in rows if row.board == board]
        text += f"\n## {board[:1].upper()}{board[1:]}\n\n"
        text += "| " + " | ".join(title for title, *_ in COLUMNS) + " | Raw results |\n"
        text += "| " + " | ".join("---" if kind == "text" else "---:" for _, kind, *_ in COLUMNS) + " | --- |\n"
        for row in chosen:
            cells = [show(row).replace("|", "\\|").replace("\n", " ") for *_, show in COLUMNS]
            text += "| " + " | ".join(cells) + f" | [{Path(row.raw).name}]({place_of(row.raw)}) |\n"
        for command in dict.fromkeys(row.command for row in chosen):
            text += f"\n    {command}\n"
    return text


def to_csv(rows: Sequence[Entry]) -> str:
    """All rows with all figures, unrounded."""
    out = io.StringIO()
    figures = list(Row.__dataclass_fields__)
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["board", "kind", *figures, "opaque", "faithful", "commit", "command", "raw"])
    for row in rows:
        values = asdict(row.figures)
        writer.writerow([row.board, row.kind, *(values[name] for name in figures), row.opaque, row.faithful,
                         row.commit, row.command, row.raw])  # fmt: skip
    return out.getvalue()


def print_boards(rows: Sequence[Entry]) -> None:
    """Every board as a table on standard output."""
    from rich.console import Console
    from rich.text import Text

    console = Console()
    for board in dict.fromkeys(row.board for row in rows):
        console.print(Text(board, style="bold"))
        print_table([row.figures for row in rows if row.board == board], console)


def write_board(results: Path, docs: Path) -> list[Path]:
    """Write the Markdown and the page into a folder; `results` must lie in it as `results` for the links to hold."""
    from eval.board_page import render

    rows = entries(results)
    return [write_text(docs / MARKDOWN, to_markdown(rows)), write_text(docs / PAGE, render(rows))]
