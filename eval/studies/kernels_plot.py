"""A figure of a kernels benchmark: `python -m eval.studies.kernels_plot docs/benchmarks/kernels-cpu-xeon.csv`.

Reads the CSV that `constructible kernels bench --csv` writes and draws an SVG beside it: for each workload how many
times faster than the best peer we are, forward, forward and backward, and in a whole step. Right of the line at 1 we
are faster. Prints the table of means that docs/benchmarks/README.md holds.
"""

from __future__ import annotations

import argparse
import csv
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from cgpt.page import escape
from ontology.errors import ConstructibleError
from ontology.io import write_text
from ontology.main import exit_code

MODES = {"forward": "#1f77b4", "forward+backward": "#9a4a00", "step": "#1b6b3a"}
LEFT, WIDTH, LINE, TOP = 250, 760, 22, 46
MEANS = {
    "ragged (Zipf, 30 % empty), against the best torch path": (
        lambda work: not work.is_cnn and work.spread != "uniform", "best_peer"),
    "uniform, against stacked baddbmm": (lambda work: work.spread == "uniform", "baddbmm"),
    "uniform, against the best peer, compiled ones too": (lambda work: work.spread == "uniform", "best_peer"),
    "M >= 1024, against a Python loop over the modules": (
        lambda work: not work.is_cnn and work.modules >= 1024, "loop"),
    "feature nodes, against the best torch path": (lambda work: work.is_cnn, "best_peer"),
}  # fmt: skip
"""What is averaged over: which workloads, and whose time over ours."""


class _Workload:
    """What a workload's name says: `1024x64x32-32-8/zipf`, `cnn-64x32x42-16-24-1/own`."""

    def __init__(self, name: str) -> None:
        sizes, _, self.spread = name.partition("/")
        self.is_cnn = sizes.startswith("cnn-")
        self.modules = int(sizes.removeprefix("cnn-").split("x")[0])


def means(rows: Sequence[Mapping[str, str]]) -> str:
    """Geometric means of ratios, with the smallest and the largest, as a Markdown table: a column for each mode."""
    lines = [
        "| geometric mean (smallest to largest row) | " + " | ".join(MODES) + " |",
        "| --- |" + " --- |" * len(MODES),
    ]
    for name, (chosen, peer) in MEANS.items():
        cells = []
        for mode in MODES:
            found = [
                float(row[f"ratio_to_{peer}"]) for row in rows
                if row["mode"] == mode and row.get(f"ratio_to_{peer}") and chosen(_Workload(row["workload"]))
            ]  # fmt: skip
            mean = math.exp(sum(map(math.log, found)) / len(found)) if found else math.nan
            cells.append(f"{_short(mean)} ({_short(min(found))} to {_short(max(found))})" if found else "–")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _short(ratio: float) -> str:
    return f"{ratio:.1f}" if ratio < 9.95 else f"{ratio:.0f}"


def draw(rows: Sequence[Mapping[str, str]], title: str) -> str:
    """The SVG of a benchmark's rows; those without a ratio are left out.

    Raises:
        ConstructibleError: no row has a ratio.
    """
    found = [(r["workload"], r["mode"], float(r["ratio_to_best_peer"]), r["best_peer"])
             for r in rows if r.get("ratio_to_best_peer")]  # fmt: skip
    if not found:
        raise ConstructibleError("no row has a ratio_to_best_peer.", fix="write it with `kernels bench --csv`")
    names = list(dict.fromkeys(name for name, *_ in found))
    low = math.log2(min(0.5, *(ratio for _, _, ratio, _ in found)))
    high = math.log2(max(4.0, *(ratio for _, _, ratio, _ in found))) + 0.1
    height = TOP + LINE * len(names) + 40

    def across(ratio: float) -> float:
        return LEFT + (math.log2(ratio) - low) / (high - low) * (WIDTH - LEFT - 20)

    bottom = TOP + LINE * len(names)
    parts = [f'<text x="{LEFT}" y="16" font-weight="600">{escape(title)}</text>']
    for i, (mode, colour) in enumerate(MODES.items()):
        parts.append(f'<circle cx="{LEFT + 6 + 150 * i}" cy="31" r="5" fill="{colour}"/>')
        parts.append(f'<text x="{LEFT + 16 + 150 * i}" y="35">{mode}</text>')
    for power in range(math.ceil(low), math.floor(high) + 1):
        kind = "one" if power == 0 else "grid"
        x = across(2.0**power)
        parts.append(f'<line class="{kind}" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{bottom}"/>')
        parts.append(f'<text x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{2.0**power:g}x</text>')
    for i, name in enumerate(names):
        y = TOP + LINE * i + LINE / 2
        parts.append(f'<text x="{LEFT - 10}" y="{y + 4:.1f}" text-anchor="end">{escape(name)}</text>')
        for workload, mode, ratio, peer in found:
            if workload == name and mode in MODES:
                said = escape(f"{name}, {mode}: {ratio:g} times {peer}")
                parts.append(
                    f'<circle cx="{across(ratio):.1f}" cy="{y:.1f}" r="5" fill="{MODES[mode]}" opacity="0.85">'
                    f"<title>{said}</title></circle>"
                )
    parts.append(f'<text x="{(LEFT + WIDTH) / 2}" y="{bottom + 34}" text-anchor="middle">'
                 "time of the best peer / our time</text>")  # fmt: skip
    style = (
        "<style>text{font:12px system-ui,sans-serif;fill:#1c2024}.grid{stroke:#e2dfd8}"
        ".one{stroke:#5a626b;stroke-width:1.5}</style>"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-label="{escape(title)}"><rect width="{WIDTH}" height="{height}" fill="#fff"/>'
        f"{style}{''.join(parts)}</svg>\n"
    )


def read(source: Path) -> list[dict[str, str]]:
    """The rows of a benchmark's CSV."""
    with source.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def write(source: Path, target: Path | None = None) -> Path:
    """Draw a benchmark's CSV into an SVG, by default beside it; return the SVG's path."""
    rows = read(source)
    first = rows[0] if rows else {}
    loads = [float(r["load_average"]) for r in rows if r.get("load_average")]
    busy = f", load {min(loads):g} to {max(loads):g}" if loads else ""
    about = f"{first.get('device', '')}, {first.get('threads', '?')} threads{busy}"
    target = target or source.with_suffix(".svg")
    write_text(target, draw(rows, about))
    return target


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("csv", type=Path)
    parser.add_argument("--out", type=Path, help="the SVG (default: beside the CSV)")
    options = parser.parse_args()
    print(write(options.csv, options.out))
    print(means(read(options.csv)))


if __name__ == "__main__":
    sys.exit(exit_code(main))
