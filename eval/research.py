"""`eval report`: a research post made from raw results, as Markdown and as one HTML page.

Every number in it is read from a results file and stands beside a link to that file; the words around them, methods,
limitations and threats included, say only what holds for any such run. Nothing is left out because it is unfavourable:
situations in which construction loses, refused pairs and failed replays have a section of their own.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cgpt.page import asset, escape, fill
from eval import decomposition as raw_curves
from eval import research_images as images
from eval import research_parts as parts
from eval.board import Entry, entries
from eval.compare import compare, figure_of
from eval.curves import control_words, curve_plot, decomposition
from eval.plots import dot_plot
from eval.records import read_header
from eval.scale import scale_plots, scaling
from eval.tables import around, label
from eval.tasks.base import Metric
from ontology.errors import CheckFailed, ConstructibleError, UsageError
from ontology.io import read_json, write_text

_PAGE = Path(__file__).parent / "page"
METHODS = (
    "A constructed model and a monolith (the same program cut at the root: one transformer) get the same files, "
    "seconds and, where both have nets, the same number of trained parameters within a tenth (image nodes and their "
    "monolith on average over draws; 21 % apart in one). Seconds run from raw "
    "files to the last artefact on one machine; work taken from a store counts with its original seconds.",
    "Bits per byte are over the raw bytes of held-out files, their ends included. Accuracy is the share of next tokens "
    "that were the most probable one; whole-token accuracy asks for all pieces of an identifier, operator or word.",
    "Intervals are 95 %, symmetric studentised bootstrap over files, or over projects where there are at least ten. "
    "Comparisons are paired by file; p-values are adjusted for all figures looked at (Benjamini and Hochberg). In "
    "simulations with known truth the intervals cover 95 % at 30 and at 100 clusters (tests/ontology/test_stats.py).",
    "A pair is called equal-budget only if the harness finds no difference in data, seconds, parameters, machine and "
    "threads, test bytes, task version, examples, their clusters, the code that measured, and the trainings that stand "
    "for seeds, and no test file, whole or in parts, among the training files. Accuracy is compared only between "
    "models that cut text into the same tokens.",
    "Tokenizers, tables and nets are made from the training files alone. Whatever was chosen by looking was chosen on "
    "validation projects or on training photographs held out, save early choices: some of the code track on packages "
    "of the quick start, learning rate and pooling of nodes on validation photographs. `test` projects are scored for "
    "publication only.",
)
LIMITS = (
    "Intervals over files say nothing about other training seeds, unless a row names several.",
    "A bare transformer has no counts of the corpus and no cache of the file. What counting alone gives is the row "
    "without nets; only the difference to that row can be due to nets.",
    "Minutes on one or two processor cores are a small budget. Nothing here says what a thousand times that gives.",
    "A test file counts as known if its lines are a training file's, or if at least 12 and 30 % of its lines stand in "
    "runs of five in training ([experiments/copies.md](experiments/copies.md)); a copy with every fifth line changed "
    "is not found.",
    "Contenders and curves of a single training seed say nothing of other seeds; where there are several, intervals "
    "hold for others as well.",
    "Photographs have 64 pixels a side and five classes at a time; nothing here is about large pictures or many "
    "classes.",
    "FLOPs are those of matrix products; counting, sorting and looking up are in the seconds only.",
)
THREATS = (
    "Whoever builds both sides may tune one of them more. The monolith's rates, batch and depth were chosen by short "
    "runs ([experiments/baseline_lr.md](experiments/baseline_lr.md)), not by a full sweep.",
    "Held-out packages of the standard library resemble the packages trained on more than strangers' code does.",
    "Some choices of the constructed model were made on the packages that the quick start scores "
    "([DESIGN.md](DESIGN.md)): that table is no blind test of them.",
    "Seconds are of one machine; another processor, or a GPU, would give the two sides other shares. Rows of one table "
    "may come from two machines (the raw results say which); only pairs of one machine are called equal.",
    "The authors of the constructed model also built the monoliths and this harness. Raw results, commands and commits "
    "are kept so that others can repeat them; nobody has yet.",
    "What was tried and did not help is listed where it was tried ([experiments/tried.md](experiments/tried.md), "
    "[experiments/vision_nodes.md](experiments/vision_nodes.md)); choices made on the way are not corrected for.",
)  # fmt: skip


@dataclass
class Post:
    """Blocks of a post in order; texts may hold `code`, **bold** and [links](places)."""

    title: str
    blocks: list[tuple[str, Any]] = field(default_factory=list)

    def heading(self, text: str) -> None:
        self.blocks.append(("heading", text))

    def text(self, text: str) -> None:
        self.blocks.append(("text", text))

    def bullets(self, items: Sequence[str]) -> None:
        if items:
            self.blocks.append(("bullets", list(items)))

    def table(self, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        if rows:
            self.blocks.append(("table", (list(head), [list(row) for row in rows])))

    def figure(self, name: str, svg: str, caption: str) -> None:
        if svg:
            # The name is that of a file: it stays the same as long as what it shows does.
            self.blocks.append(("figure", (re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_"), svg, caption)))


def write_post(results: Path, out: Path) -> list[Path]:
    """Write REPORT.md, report.html and the figures as SVG files into a folder.

    Links to raw results are relative to `out` and hold where `results` lies in it as `results`.

    Raises:
        UsageError: there are no results.
    """
    post = make_post(results)
    written = [write_text(out / "REPORT.md", to_markdown(post)), write_text(out / "report.html", to_html(post))]
    figures = {block[0]: block[1] for kind, block in post.blocks if kind == "figure"}
    for old in (out / "figures").glob("*.svg"):
        if old.stem not in figures:
            old.unlink()  # of results that are no longer there
    return written + [write_text(out / "figures" / f"{name}.svg", svg) for name, svg in figures.items()]


def make_post(results: Path) -> Post:
    """The post of a folder of raw results."""
    rows = entries(results)
    post = Post("Does construction work? What was measured")
    post.heading("In short")
    post.bullets([*parts.short(results), *images.short(results), *(_short(rows, board) for board in _boards(rows))])
    post.heading("Methods")
    for text in METHODS:
        post.text(text)
    post.heading("Results")
    for board in _boards(rows):
        chosen = [row for row in rows if row.board == board]
        post.text(f"**{board[:1].upper()}{board[1:]}.**")
        post.table(
            ("Model", "Bits per byte", "Accuracy", "Parameters", "Seconds", "Raw results"),
            [
                (row.figures.name, _interval(row, "bits_per_byte", 1, 3), _interval(row, "accuracy", 100, 1) + " %",
                 f"{row.figures.parameters:,}", _whole(row.figures.seconds), _link(row.raw))
                for row in chosen
            ],
        )  # fmt: skip
        post.figure(f"board {board}", _bars(chosen), f"Bits per byte, {board}; lower is better.")
        post.bullets(_comparisons(chosen, results))
    parts.contenders(post, results)
    _other_tasks(post, results)
    _raw_curves(post, results)
    parts.scales(post, results)
    images.sections(post, results)
    _curves(post, results)
    post.heading("Negative results")
    post.bullets(_negative(rows, results) or ["None found in these results, which is not the same as none."])
    post.heading("Limitations")
    post.bullets(LIMITS)
    post.heading("Threats to validity")
    post.bullets(THREATS)
    post.heading("Commands")
    commands = [row.command for row in rows] + [header["command"] for _, header in _headers(results)]
    for _, raw in parts.raw_files(results):
        commands += raw["commands"] if "commands" in raw else [raw["command"]]
    for command in dict.fromkeys(commands):
        post.text(f"`{command}`")
    return post


def _boards(rows: Sequence[Entry]) -> list[str]:
    return list(dict.fromkeys(row.board for row in rows))


_link = parts.link


def _whole(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}"


def _interval(row: Entry, name: str, scale: float, digits: int) -> str:
    value, low, high = (getattr(row.figures, f"{name}{end}") for end in ("", "_low", "_high"))
    ends = "" if low is None or high is None else f" [{scale * low:.{digits}f}, {scale * high:.{digits}f}]"
    return f"{scale * value:.{digits}f}{ends}"


def _short(rows: Sequence[Entry], board: str) -> str:
    best: dict[str, Entry] = {}
    for row in rows:
        if row.board == board:
            best.setdefault(row.kind, row)
    parts = [f"{row.figures.name} {_interval(row, 'bits_per_byte', 1, 3)} ({_link(row.raw)})" for row in best.values()]
    return f"{board}, best of each kind in bits per byte: " + "; ".join(parts) + "."


def _bars(rows: Sequence[Entry]) -> str:
    return dot_plot(
        [(one.name, one.bits_per_byte, one.bits_per_byte_low, one.bits_per_byte_high, row.kind == "constructed")
         for row in rows for one in [row.figures]],
        "bits per byte",
    )  # fmt: skip


def _comparisons(rows: Sequence[Entry], results: Path) -> list[str]:
    """Constructed against monolith, for every such pair of a board."""
    said = []
    for raw in dict.fromkeys(row.raw for row in rows if row.raw.endswith("quickstart.json")):
        found = read_json(results / raw).get("comparison") or {}
        if found.get("ratio") is not None:
            ends = f" [{found['low']:.3f}, {found['high']:.3f}]" if found.get("low") is not None else ""
            said.append(f"{found['text']} **{found['ratio']:.3f}**{ends} ({_link(raw)}).")
    files = [row for row in rows if row.raw.endswith(".parquet")]
    for ours in (row for row in files if row.kind == "constructed"):
        for theirs in (row for row in files if row.kind == "monolith"):
            said.append(_pair(ours, theirs, results))
    return said


def _pair(ours: Entry, theirs: Entry, results: Path) -> str:
    names = f"{ours.figures.name} less {theirs.figures.name}"
    try:
        compared = compare(_measured(results / ours.raw), _measured(results / theirs.raw), task="bits", unequal=True)
    except CheckFailed as error:
        return f"{names}: refused. {error.message}"
    one = figure_of(compared, "bits", "bits per byte")
    ends = one.comparison.as_dict("x")
    text = f"{names}: {one.metric.show(one.comparison.estimate, ends['x_low'], ends['x_high'])} bits per byte"
    standing = "an equal-budget pair" if compared.equal else "not an equal-budget pair: " + "; ".join(
        f"{objection.kind}, {objection.text}" for objection in compared.objections
    )  # fmt: skip
    return f"{text} ({standing}; {_link(ours.raw)}, {_link(theirs.raw)})."


def _measured(path: Path) -> Path:
    """All training seeds of a model where it has several."""
    return path.parent.parent if path.parent.name.startswith("seed-") else path


def _headers(results: Path) -> list[tuple[str, dict[str, Any]]]:
    return [(path.relative_to(results).as_posix(), read_header(path)) for path in sorted(results.rglob("*.parquet"))
            if path.parent.suffix != ".rows"]  # fmt: skip


def _other_tasks(post: Post, results: Path) -> None:
    found = [(raw, header) for raw, header in _headers(results) if header["task"] != "bits"]
    for task in dict.fromkeys(header["task"] for _, header in found):
        chosen = [(raw, header) for raw, header in found if header["task"] == task]
        metrics = [Metric(**metric) for metric in chosen[0][1]["metrics"]]
        post.text(f"**{task}.** {chosen[0][1]['question']}")
        post.table(
            ("Model", *(metric.name for metric in metrics), "Raw results"),
            [(label(header), *(around(header, metric) for metric in metrics), _link(raw)) for raw, header in chosen],
        )


def _curve_files(results: Path) -> list[tuple[str, dict[str, Any]]]:
    return [(name, raw) for name, raw in parts.raw_files(results) if raw_curves.is_raw(raw)]


def _raw_curves(post: Post, results: Path) -> None:
    """The decomposition curves that `eval curve-code` and `eval curve-images` measured."""
    for name, raw in _curve_files(results):
        found = raw_curves.lines(raw)
        if not found:
            continue
        heading = f"Decomposition: {raw['track']}"
        taken = ("heading", heading) in post.blocks
        post.heading(f"{heading} ({Path(name).stem.replace('_', ' ')})" if taken else heading)
        for text in raw["method"]:
            post.text(text)
        post.figure(Path(name).stem, raw_curves.figure(found), "Each cut, with its interval.")
        post.bullets([f"{line.words} ({_link(name)})" for line in found])
        post.bullets(
            [f"{raw_curves.control_words(line, step)} ({_link(name)})" for line in found
             for step in (*line.in_all, *line.controls)]
        )  # fmt: skip
        cuts = dict.fromkeys(cut for line in found for cut in (*line.points, *line.control_points))
        rows = []
        for cut in cuts:
            points = [line.points.get(cut) or line.control_points.get(cut) for line in found]
            cells = ["–" if one is None else raw_curves.shown(found[0].metric, one) for one in points]
            rows.append([cut, raw["words"].get(cut, ""), *cells, _link(name)])
        post.table(["Cut", "What it is", *(line.name for line in found), "Raw results"], rows)
        post.bullets([f"Not equal or missing: {text}." for text in raw_curves.warnings(raw)])


def _lost_steps(results: Path) -> list[str]:
    """What cutting finer costs, and controls that do no worse than what is meant."""
    said = []
    for name, raw in _curve_files(results):
        for line in raw_curves.lines(raw):
            said += [
                f"{raw['track']}, {line.name}: cutting from {step.upper} to {step.lower} loses "
                f"{raw_curves.shown(line.metric, step.loss)} {line.metric.name} ({_link(name)})."
                for step in line.steps
                if step.told and step.loss.estimate > 0
            ]
            said += [
                f"{raw['track']}, {line.name}: the control {step.lower} is not told from {step.upper}, or better: "
                f"{raw_curves.shown(line.metric, step.loss)} {line.metric.name} ({_link(name)})."
                for step in line.controls
                if not (step.told and step.loss.estimate > 0)
            ]
    return said


def _curves(post: Post, results: Path) -> None:
    """The decomposition curve of each folder that has several cuts, and power laws where there are several sizes."""
    models = [path.parents[path.parent.name.startswith("seed-")] for path in results.rglob("bits.parquet")]
    for folder in sorted({model.parent for model in models}):
        raw = folder.relative_to(results).as_posix()
        try:
            curves = decomposition(folder)
        except (UsageError, ConstructibleError):
            curves = []
        if any(len(curve.points) > 1 for curve in curves):
            post.heading(f"Decomposition: {raw}")
            post.figure(f"curve {raw}", curve_plot(curves), "Bits per byte against the cut.")
            post.bullets([f"{curve.words} ({_link(raw)})" for curve in curves])
            post.bullets([f"{control_words(one)} ({_link(raw)})" for curve in curves for one in curve.controls])
            post.bullets([f"Not equal ({curve.name}): {text}." for curve in curves for text in curve.warnings])
        try:
            laws = scaling(folder)
        except (UsageError, ConstructibleError):
            continue
        post.heading(f"Scale: {raw}")
        for axis, svg in scale_plots(laws):
            post.figure(f"scale {raw} {axis}", svg, f"Bits per byte against {axis}.")
        post.bullets([
            f"{law.kind}, {law.axis}: exponent {law.exponent:.3f} [{law.low:.3f}, {law.high:.3f}] ({_link(raw)}); "
            + ("turns back at " + "; ".join(law.turns) if law.turns else "no turn back beyond chance")
            for law in laws
        ])  # fmt: skip


def _negative(rows: Sequence[Entry], results: Path) -> list[str]:
    said = [*parts.lost(results), *_lost_steps(results), *images.lost(results)]
    for board in _boards(rows):
        chosen = [row for row in rows if row.board == board]
        ours = [row for row in chosen if row.kind == "constructed"]
        for other in (row for row in chosen if row.kind in ("monolith", "no nets")):
            worse = [row for row in ours if row.figures.bits_per_byte > other.figures.bits_per_byte]
            said += [
                f"{row.figures.name} is behind {other.figures.name} on {board}: "
                f"{row.figures.bits_per_byte:.3f} against {other.figures.bits_per_byte:.3f} ({_link(row.raw)})."
                for row in worse
            ]
    for raw in dict.fromkeys(row.raw for row in rows if row.raw.endswith("quickstart.json")):
        lost = [
            row
            for row in read_json(results / raw).get("waterfall", [])
            if row["constructed_bits"] > row["baseline_bits"]
        ]
        said += [
            f"In the situation `{row['concept']}` the constructed model needs {row['constructed_bits']:,.0f} bits, the "
            f"baseline {row['baseline_bits']:,.0f} ({_link(raw)})."
            for row in sorted(lost, key=lambda row: row["baseline_bits"] - row["constructed_bits"])
        ]
    for raw, header in _headers(results):
        first = Metric(**header["metrics"][0])
        value = header["figures"][first.name]["value"]
        if header["task"] == "replay" and value is not None and value < 1.0:
            said.append(
                f"{label(header)}: {first.show(value)} of the explanations were replayed, not all ({_link(raw)})."
            )
        for part, figures in header["parts"].items() if header["task"] == "pairs" else ():
            share = figures.get(first.name, {}).get("value")
            if share is not None and share <= 0.5:
                text = f"{label(header)} is right in {first.show(share)} of the pairs `{part}`"
                said.append(f"{text}: no better than a coin ({_link(raw)}).")
        if header.get("copied"):
            said.append(f"Parts of {len(header['copied'])} of the test files of {label(header)} stand in its training "
                        f"({_link(raw)}).")  # fmt: skip
        if header["leaked"]:
            said.append(f"{label(header)} was trained on {len(header['leaked'])} of its test files ({_link(raw)}).")
    return said


# Two forms of the same blocks


def to_markdown(post: Post) -> str:
    """The post as Markdown; figures are files beside it."""
    text = f"# {post.title}\n"
    for kind, block in post.blocks:
        if kind == "heading":
            text += f"\n## {block}\n"
        elif kind == "text":
            text += f"\n{block}\n"
        elif kind == "bullets":
            text += "\n" + "".join(f"- {item}\n" for item in block)
        elif kind == "table":
            head, rows = block
            lines = [head, ["---"] * len(head), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
            text += "\n" + "".join("| " + " | ".join(cells) + " |\n" for cells in lines)
        else:
            name, _, caption = block
            text += f"\n![{caption}](figures/{name}.svg)\n"
    return text


def to_html(post: Post) -> str:
    """The post as one page; figures stand in it."""
    sections, contents, open_section = "", "", False
    number = 0
    for kind, block in post.blocks:
        if kind == "heading":
            number += 1
            key = "result" if number == 1 else f"s{number}"
            sections += "</section>" if open_section else ""
            sections += f'<section id="{key}" class="post"><h2>{escape(block)}</h2>'
            contents += f'<a href="#{key}">{escape(block)}</a>'
            open_section = True
        elif kind == "text":
            sections += f"<p>{_inline(block)}</p>"
        elif kind == "bullets":
            sections += '<ul class="notes">' + "".join(f"<li>{_inline(item)}</li>" for item in block) + "</ul>"
        elif kind == "table":
            head, rows = block
            titles = "".join(f'<th scope="col" class="plain">{escape(cell)}</th>' for cell in head)
            body = ""
            for row in rows:
                cells = "".join(
                    f'<td data-label="{escape(title)}">{_inline(cell)}</td>'
                    for title, cell in zip(head[1:], row[1:], strict=True)
                )
                body += f'<tr><th scope="row">{_inline(row[0])}</th>{cells}</tr>'
            table = f'<table class="facts-table"><thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table>'
            sections += f'<div class="wide">{table}</div>'
        else:
            _, svg, caption = block
            sections += f'<figure class="plot">{svg}<figcaption>{escape(caption)}</figcaption></figure>'
    return fill(
        asset("report.html", _PAGE),
        title=escape(post.title),
        subtitle="Every number links to its raw result",
        contents=contents,
        sections=sections + ("</section>" if open_section else ""),
        style=asset("base.css") + asset("report.css", _PAGE) + asset("harness.css", _PAGE),
        script=asset("theme.js"),
    )


def _inline(text: str) -> str:
    """Escaped text with `code`, **bold** and links to places beside the page (anything with a scheme stays text)."""
    safe = escape(text)
    safe = re.sub(r"`([^`]+)`", r"<code>\1</code>", safe)
    safe = re.sub(r"\*\*([^*]+)\*\*", r"<strong>\1</strong>", safe)
    return re.sub(r"\[([^\]\[]+)\]\(([\w./ +-]+)\)", r'<a href="\2">\1</a>', safe)
