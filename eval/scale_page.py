"""The page of a study of scale, made of its raw results: laws, figures, and constructed against monolith by size."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from eval.scale import AXES, Gap, PowerLaw, gaps, law_words, read_raw, scale_plots, scaling
from ontology.io import write_text


def gap_words(gap: Gap) -> str:
    """Constructed against monolith at one size, in one sentence."""
    c = gap.ratio
    told = "" if c.significant else " (not told from 1)"
    where = f"{gap.sweep}, " if gap.sweep else ""
    return f"{where}{_size(gap.axis, gap.x)}: {c.estimate:.3f} [{c.low:.3f}, {c.high:.3f}]{told}"


def answers(raw: Mapping[str, Any], laws: list[PowerLaw]) -> list[str]:
    """What the study says, in sentences."""
    said = [f"{law_words(law)}." for law in laws]
    turned = [law for law in laws if law.turns]
    if not turned:
        said.append("No curve turns back up beyond chance within these sizes, so there is no sign of double descent.")
    return said


def page(raw: Mapping[str, Any], figures: list[tuple[str, str]], raw_name: str) -> str:
    """The Markdown page; `figures` are (title, file name)."""
    laws, git = scaling(raw), raw["environment"].get("git") or {}
    commits = sorted({str(model["budget"].get("commit"))[:12] for model in raw["models"]})
    files, projects = raw["examples"]["names"], set(raw["examples"]["clusters"])
    # One build may stand in several sweeps.
    builds = len({(model["name"], model["seed"], tuple(model["bits"])) for model in raw["models"]})
    text = "# Scale: bits per byte against data, work and parameters\n\n"
    text += "".join(f"{paragraph}\n\n" for paragraph in raw["method"])
    for one in raw.get("earlier", []):
        its_git, names = one["environment"].get("git") or {}, ", ".join(one["sweeps"])
        text += (
            f"Taken along from earlier results, measured at commit `{str(its_git.get('commit'))[:12]}` on "
            f"{one['environment'].get('cpu')}: {names}. {' '.join(one['method'])}\n\n"
        )
    text += (
        f"Scored on {len(files)} files ({sum(raw['examples']['sizes']):,} bytes, {len(projects)} projects), measured "
        f"at commit `{str(git.get('commit'))[:12]}`, built at {', '.join(f'`{one}`' for one in commits)}; "
        f"{builds} builds, {raw['environment'].get('cpu')}, {raw['environment'].get('threads')} threads. "
        f"Raw results: [{raw_name}]({raw_name}); the page is made of them by `constructible eval scale "
        f"{Path(raw_name).name} --pages docs/experiments`.\n\n## The answer\n\n"
    )
    text += "".join(f"- {sentence}\n" for sentence in answers(raw, laws))
    if found := gaps(raw):
        text += "\nConstructed / monolith in bits per byte, below 1 where the constructed model needs fewer:\n\n"
        text += "".join(f"- {gap_words(gap)}\n" for gap in found)
    text += (
        "\nIntervals are 95 %: over files (over projects where there are at least ten), and over training seeds where "
        "a law says that it has several. An exponent is of these sizes; nothing here says where it ends.\n\n"
    )
    text += "".join(f"![{title}]({name})\n\n" for title, name in figures)
    text += "## Figures\n\n| sweep | model | seeds | bits per byte | " + " | ".join(AXES) + " |\n"
    text += "| --- | --- | ---: | ---: |" + " ---: |" * len(AXES) + "\n"
    size = float(np.sum(raw["examples"]["sizes"]))
    rows: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for model in raw["models"]:
        rows.setdefault((model["sweep"], model["name"]), []).append(model)
    for (sweep, name), models in sorted(rows.items(), key=lambda row: (row[0][0], row[1][0]["kind"], _order(row[1]))):
        value = float(np.mean([sum(model["bits"]) / size for model in models]))
        cells = []
        for key in AXES.values():
            known = [model["budget"][key] for model in models if model["budget"].get(key) is not None]
            cells.append(f"{np.mean(known):,.4g}" if known and np.mean(known) >= 1e7 else f"{np.mean(known):,.0f}"
                         if known else "–")  # fmt: skip
        text += f"| {sweep} | {name} | {len(models)} | {value:.4f} | " + " | ".join(cells) + " |\n"
    return text


def _order(models: list[Mapping[str, Any]]) -> tuple[float, ...]:
    budget = models[0]["budget"]
    return tuple(float(budget.get(key) or 0.0) for key in AXES.values())


def _size(axis: str, x: float) -> str:
    shown = f"{x / 1e6:.3g} M" if x >= 1e6 else f"{x:,.0f}"
    return f"{shown} {axis}" if axis != "seconds" else f"{x:,.0f} seconds"


def write_pages(path: Path, folder: Path) -> list[Path]:
    """Write scale.md and its figures (named after the raw file) into a folder."""
    raw = read_raw(path)
    figures, written = [], []
    for name, svg in scale_plots(scaling(raw)):
        file = f"{path.stem}_{name.replace(' ', '_')}.svg"
        written.append(write_text(folder / file, svg))
        figures.append((f"Bits per byte: {name}", file))
    try:
        raw_name = Path("..", path.resolve().relative_to(folder.resolve().parent)).as_posix()
    except ValueError:
        raw_name = path.name
    return [write_text(folder / f"{path.stem}.md", page(raw, figures, raw_name)), *written]
