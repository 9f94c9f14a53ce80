"""`constructible eval curve`, `curve-code`, `curve-images` and `scale`: curves and what measures them."""

from __future__ import annotations

import json
from pathlib import Path

import click

_FILE = click.Path(dir_okay=False, path_type=Path)


@click.command()
@click.argument("run", type=click.Path(exists=True, path_type=Path))
@click.option("--svg", type=_FILE, help="Write the figure as well.")
@click.option("--pages", type=click.Path(file_okay=False, path_type=Path),
              help="Write the page and the figure of a raw results file into this folder.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True)
def curve(run: Path, svg: Path | None, pages: Path | None, as_json: bool) -> None:
    """The decomposition curve: quality against the cut, what each step costs, and where the largest drop is.

    RUN is a raw results file that `curve-code` or `curve-images` wrote, or a folder that `eval run --out RUN` filled
    (models of the kind nets-only make a second curve there, the neural part alone).
    """
    from ontology.errors import UsageError

    if run.is_file():
        _show_raw(run, svg, pages, as_json)
    elif pages is not None:
        raise UsageError("--pages needs a raw results file.", fix="give what `eval curve-code` wrote", file=run)
    else:
        _show_folder(run, svg, as_json)


def _show_raw(path: Path, svg: Path | None, pages: Path | None, as_json: bool) -> None:
    from eval import decomposition
    from ontology.io import write_text

    raw = decomposition.read_raw(path)
    found = decomposition.lines(raw)
    if svg is not None:
        write_text(svg, decomposition.figure(found))
    if pages is not None:
        for written in decomposition.write_pages(path, pages):
            click.echo(written, err=True)
    if as_json:
        click.echo(json.dumps(decomposition.as_json(found, raw), indent=1))
        return
    for text in decomposition.warnings(raw):
        click.echo(f"not equal or missing: {text}")
    for line in found:
        click.echo(line.name)
        for cut, one in [*line.points.items(), *line.control_points.items()]:
            click.echo(f"  {cut:<18} {decomposition.shown(line.metric, one)}")
        click.echo(f"  {line.words}")
        for step in (*line.in_all, *line.controls):
            click.echo(f"  {decomposition.control_words(line, step)}")


def _show_folder(run: Path, svg: Path | None, as_json: bool) -> None:
    from eval.curves import control_words, curve_plot, decomposition
    from ontology.io import write_text

    curves = decomposition(run)
    if svg is not None:
        write_text(svg, curve_plot(curves))
    if as_json:
        rows = [
            {
                "curve": one.name, "answer": one.words, "warnings": one.warnings,
                "controls": [control_words(control) for control in one.controls],
                "cuts": [{"cut": p.cut, "bits_per_byte": p.value, "low": p.low, "high": p.high,
                          "parameters": p.parameters, "seeds": len(p.side.results)} for p in one.points],
                "steps": [{"step": s.part, **s.comparison.as_dict("bits"), "q_value": s.q_value, "verdict": s.verdict}
                          for s in one.steps],
            }
            for one in curves
        ]  # fmt: skip
        click.echo(json.dumps(rows, indent=1))
        return
    for one in curves:
        click.echo(one.name)
        for p in one.points:
            ends = "" if p.low is None or p.high is None else f" [{p.low:.3f}, {p.high:.3f}]"
            click.echo(
                f"  {p.cut:<16} {p.value:.3f}{ends}  {p.parameters:,.0f} parameters, {len(p.side.results)} seeds"
            )
        for text in one.warnings:
            click.echo(f"  not equal: {text}")
        click.echo(f"  {one.words}")
        for control in one.controls:
            click.echo(f"  {control_words(control)}")


_RAW = Path("docs/results")
_PAGES = Path("docs/experiments")


@click.command("curve-code")
@click.option("--train", default="stdlib:train", show_default=True, help="Corpus to build from.")
@click.option("--test", default="stdlib:held-out", show_default=True, help="Files to score, of other projects.")
@click.option("--train-bytes", type=click.IntRange(10_000), help="Take a sample of so many bytes of the corpus.")
@click.option("--test-bytes", type=click.IntRange(1_000), help="Score a sample of so many bytes.")
@click.option("--steps", type=click.IntRange(1), help="Training steps of each cut (default: 1000).")
@click.option("--minutes", type=click.FloatRange(min=0, min_open=True), help="Minutes of each cut instead of steps.")
@click.option("--seeds", type=click.IntRange(1), default=3, show_default=True)
@click.option("--hidden", type=click.IntRange(2, 4096), default=256, show_default=True,
              help="Width of a net at the cut of all situations; the other cuts are fitted to its size.")  # fmt: skip
@click.option("--vocab", type=click.IntRange(512, 65000), help="Size of the alphabet (default: 4096 or 8192).")
@click.option("--only", multiple=True, help="These cuts and controls alone; several times for several.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=Path("runs/code_curve"),
              show_default=True, help="Folder for tables and nets.")  # fmt: skip
@click.option("--raw", type=_FILE, default=_RAW / "code_curve.json", show_default=True, help="Raw results.")
@click.option("--pages", type=click.Path(file_okay=False, path_type=Path), default=_PAGES, show_default=True,
              help="Folder for the page and the figure.")  # fmt: skip
def curve_code(
    train: str, test: str, train_bytes: int | None, test_bytes: int | None, steps: int | None, minutes: float | None,
    seeds: int, hidden: int, vocab: int | None, only: tuple[str, ...], out: Path, raw: Path, pages: Path,
) -> None:  # fmt: skip
    """Build the code track's cuts with equal parameters and measure what each costs; the same command resumes.

    From one unrouted net over few and all situations and situations split by answer kind to no nets at all, each alone
    and with the same tables and caches; beside them a transformer, a random grouping and a random router.
    """
    from dataclasses import replace

    from cgpt.nets import NetShape
    from eval.code_curve import CONTROLS, CUTS, Settings, run
    from eval.decomposition import write_pages
    from ontology.errors import UsageError, did_you_mean

    if steps is not None and minutes is not None:
        raise UsageError("steps and minutes are both given.", fix="give --steps or --minutes")
    for name in only:
        if name not in (*CUTS, *CONTROLS):
            hint = did_you_mean(name, [*CUTS, *CONTROLS])
            raise UsageError(f"no cut or control is called {name!r}.{hint}", fix=f"use {', '.join((*CUTS, *CONTROLS))}")
    settings = Settings(
        train, test, out, None if minutes is not None else steps or 1000, minutes, seeds, train_bytes, test_bytes,
        vocab, replace(NetShape(), hidden=hidden), only,
    )  # fmt: skip
    run(settings, _said(), raw)
    for path in write_pages(raw, pages):
        click.echo(path)


@click.command("curve-images")
@click.option("--data", default="part-world", show_default=True,
              help="Photographs: a folder of class folders, Parquet files, or part-world.")  # fmt: skip
@click.option("--classes", default="random:5", show_default=True, help="random:N draws N classes anew for each draw.")
@click.option("--draws", type=click.IntRange(1), default=5, show_default=True)
@click.option("--steps", type=click.IntRange(1), help="Training steps of each net (default: 500).")
@click.option("--minutes", type=click.FloatRange(min=0, min_open=True), help="Minutes of each cut instead of steps.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=Path("runs/image_curve"),
              show_default=True, help="Folder for what is built.")  # fmt: skip
@click.option("--raw", type=_FILE, default=_RAW / "image_curve.json", show_default=True, help="Raw results.")
@click.option("--pages", type=click.Path(file_okay=False, path_type=Path), default=_PAGES, show_default=True,
              help="Folder for the page and the figure.")  # fmt: skip
def curve_images(
    data: str, classes: str, draws: int, steps: int | None, minutes: float | None, out: Path, raw: Path, pages: Path
) -> None:  # fmt: skip
    """Build the image track's cuts for draws of classes and measure what each costs; the same command resumes.

    From one network over classes, parts and features to plain code, and a random ontology beside them. Intervals are
    over draws.
    """
    from eval.decomposition import write_pages
    from eval.image_curve import run
    from ontology.fit import Budget

    budget = Budget(steps=500 if steps is None and minutes is None else steps, minutes=minutes)
    run(data, classes, draws, budget, out, _said(), raw)
    for path in write_pages(raw, pages):
        click.echo(path)


@click.command()
@click.argument("run", type=click.Path(exists=True, path_type=Path))
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="Folder for the figures (SVG).")
@click.option("--raw", type=_FILE, help="Write the raw results of a folder as one file.")
@click.option("--axis", "axes", multiple=True,
              type=click.Choice(["training bytes", "training positions", "parameters", "seconds", "training FLOPs"]),
              help="Fit laws along this only (default: all that moved); several times for several.")  # fmt: skip
@click.option("--note", "notes", multiple=True, help="A paragraph for the page of how the models were made.")
@click.option("--also", type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="Take along the sweeps of an earlier raw file that RUN does not have.")  # fmt: skip
@click.option("--pages", type=click.Path(file_okay=False, path_type=Path),
              help="Write the page and the figures into this folder.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True)
def scale(
    run: Path, out: Path | None, raw: Path | None, axes: tuple[str, ...], notes: tuple[str, ...], also: Path | None,
    pages: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Quality against data, parameters, seconds and FLOPs: power laws with intervals, and where a curve turns back.

    RUN is a folder that `eval run --out RUN` filled, one whose subfolders (sweeps: one thing changed on purpose) it
    filled, or a raw results file.
    """
    from dataclasses import asdict

    from eval.scale import collect, law_words, read_raw, save, scale_plots, scaling, take_along
    from eval.scale_page import write_pages
    from ontology.errors import UsageError
    from ontology.io import write_text

    if run.is_file() and (axes or notes):
        raise UsageError(
            "--axis and --note go into a raw file when it is made.", fix="give the folder that it was made of", file=run
        )
    if pages is not None and raw is None and (run.is_dir() or also is not None):
        raise UsageError("--pages are written from a raw file.", fix="add --raw FILE", file=run)
    found = collect(run, notes, axes) if run.is_dir() else read_raw(run)
    if also is not None:
        found = take_along(found, read_raw(also), also)
    laws = scaling(found)
    if out is not None:
        for name, svg in scale_plots(laws):
            write_text(out / f"{name.replace(' ', '_')}.svg", svg)
    if raw is not None:
        save(found, raw)
    if pages is not None:
        for written in write_pages(raw or run, pages):
            click.echo(written, err=True)
    if as_json:
        click.echo(json.dumps([asdict(law) for law in laws], indent=1))
        return
    for law in laws:
        click.echo(law_words(law))


def _said() -> str:
    """The command as given, folders by their last name."""
    context, words = click.get_current_context(), []
    for option in context.command.params:
        value = context.params[option.name or ""]
        source = context.get_parameter_source(option.name or "")
        if source is None or source.name != "COMMANDLINE":
            continue
        for one in value if isinstance(value, tuple) else (value,):
            shown = Path(one).name if isinstance(one, Path) or "/" in str(one) else str(one)
            words.append(f"{option.opts[0]} {shown}" if " " not in shown else f"{option.opts[0]} '{shown}'")
    return " ".join(["constructible eval", context.info_name or "", *words])


COMMANDS = (curve, curve_code, curve_images, scale)
