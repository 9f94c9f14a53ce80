"""`constructible cgpt`: build, score and explain code models; `cli_use` and `cli_account` hold the other commands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cgpt import cli_account, cli_use
from cgpt.cli_use import constructed, read_input

if TYPE_CHECKING:
    from ontology.progress import Progress

_MODEL = click.Path(path_type=Path)


@click.group()
def cgpt() -> None:
    """The constructed language model of Python code."""


for command in (*cli_account.COMMANDS, *cli_use.COMMANDS):
    cgpt.add_command(command)


@cgpt.command()
@click.argument("corpus")
@click.option("--out", required=True, type=_MODEL, help="Folder of the model.")
@click.option("--minutes", type=float, help="Wall-clock budget from raw files to the last artefact (default: 3).")
@click.option("--steps", type=int, help="Training steps instead of minutes: the result repeats bit for bit.")
@click.option("--cut", default="leaves", show_default=True,
              help="Where nets sit: root (one transformer), a depth, names, leaves, plain (no nets).")  # fmt: skip
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--vocab", type=click.IntRange(512, 65000), help="Size of the alphabet (default: 4096 or 8192).")
@click.option("--parameters", type=click.IntRange(10_000), default=3_000_000, show_default=True,
              help="About how many parameters the transformer of the root cut has.")  # fmt: skip
@click.option("--hidden", type=click.IntRange(8, 4096), help="Width of the nets' hidden layer (default: 256).")
@click.option(
    "--specialists", type=click.IntRange(0), help="Grow at most so many specialists (default: 6000; 0: none)."
)
@click.option("--ontology", type=click.Path(path_type=Path), help="Your own ontology.yaml.")
@click.option("--router", type=click.Path(path_type=Path), help="Your own router.py.")
@click.option("--store", type=click.Path(path_type=Path), help="Folder for finished work that several builds share.")
@click.option("--limit-mb", type=click.FloatRange(min=0, min_open=True), help="Read at most this much of the corpus.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def build(
    corpus: str, out: Path, minutes: float | None, steps: int | None, cut: str, seed: int, vocab: int | None,
    parameters: int, hidden: int | None, specialists: int | None, ontology: Path | None, router: Path | None,
    store: Path | None, limit_mb: float | None, as_json: bool,
) -> None:  # fmt: skip
    """Build a model of CORPUS: a folder of .py files, a Parquet file, a hub dataset id, or `stdlib`.

    The same command again resumes a build that was stopped.
    """
    from cgpt.build import HERE, Recipe
    from cgpt.build import build as run_build
    from cgpt.corpus import read_corpus
    from cgpt.nets import NetShape
    from cgpt.specialists import MAX_SPECIALISTS
    from ontology.environment import Ledger
    from ontology.fit import Budget
    from ontology.io import make_folder
    from ontology.progress import Progress
    from ontology.store import Store

    budget = Budget(steps=steps, minutes=3.0 if minutes is None and steps is None else minutes)
    recipe = Recipe(
        cut=cut, seed=seed, vocab_size=vocab, parameters=parameters,
        shape=NetShape() if hidden is None else NetShape(hidden=hidden),
        specialists=MAX_SPECIALISTS if specialists is None else specialists,
        ontology=ontology or HERE / "ontology.yaml", router=router or HERE / "router.py",
    )  # fmt: skip
    progress = Progress()
    ledger = Ledger(make_folder(out) / "ledger.json")
    with ledger.charge("corpus", again=True):
        files = read_corpus(corpus, None if limit_mb is None else int(limit_mb * 1e6))
    _tell_skipped(files.skipped, progress)
    fitted = run_build(
        files, out, budget, recipe, store=None if store is None else Store(store), progress=progress, ledger=ledger
    )
    if as_json:
        result = {"out": str(out), "seconds": fitted.total_seconds, "jobs": fitted.seconds, "files": len(files.files),
                  "bytes": files.total_bytes, "skipped": [list(row) for row in files.skipped]}  # fmt: skip
        click.echo(json.dumps(result, indent=1))
    else:
        click.echo(f"{out}: {len(files.files)} files, {files.total_bytes:,} bytes, {fitted.total_seconds:.0f} s in all")


@cgpt.command()
@click.argument("model", type=_MODEL)
@click.argument("paths", nargs=-1, required=True)
@click.option("--setting", type=click.Choice(("static", "dynamic")), default="static", show_default=True,
              help="static: each file by itself; dynamic: each file is learned after it was scored.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print all figures as JSON.")
def score(model: Path, paths: tuple[str, ...], setting: str, as_json: bool) -> None:
    """Score MODEL on PATHS: .py files, folders or Parquet files it has not seen."""
    from cgpt.dynamic import dynamic, in_order
    from cgpt.model import load
    from cgpt.score import known_files, read_paths, score_files
    from ontology.progress import Progress

    progress = Progress()
    opened = load(model)
    corpus = read_paths(paths)
    _tell_skipped(corpus.skipped, progress)
    if known := known_files(model, corpus.files):
        progress.note(f"{known} of {len(corpus.files)} files are in the training corpus: figures on them are of memory")
    with progress.task("score", total=float(corpus.total_bytes), unit="bytes") as task:
        files = in_order(corpus.files) if setting == "dynamic" else corpus.files
        result = score_files(dynamic(opened) if setting == "dynamic" else opened, files, task.advance)
    if as_json:
        click.echo(
            json.dumps(
                result.as_json()
                | {"setting": setting, "known_files": known, "skipped": [list(row) for row in corpus.skipped]},
                indent=1,
            )
        )
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in ("concept", "tokens", "bits/byte", "accuracy"):
        table.add_column(column, justify="left" if column == "concept" else "right")
    rows = sorted(result.per_concept().items(), key=lambda row: -row[1]["bits"])
    for name, row in rows:
        table.add_row(name, f"{row['tokens']:,}", f"{row['bits_per_byte']:.4f}", f"{row['accuracy']:.1%}")
    total = f"{result.n_tokens.sum():,}"
    table.add_row("all", total, f"{result.bits_per_byte:.4f}", f"{result.accuracy:.1%}", style="bold")
    Console(soft_wrap=True).print(table)


@cgpt.command()
@click.argument("model", type=_MODEL)
@click.argument("file")
@click.option("--html", type=click.Path(path_type=Path, dir_okay=False), help="The page to write.")
@click.option("--record", type=click.Path(path_type=Path, dir_okay=False),
              help="Write the record that `check-record` checks.")  # fmt: skip
@click.option("--max-tokens", type=click.IntRange(1), default=3000, show_default=True,
              help="Explain this many of the file's tokens, from its start.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the record as JSON.")
def explain(
    model: Path, file: str, html: Path | None, record: Path | None, max_tokens: int, as_json: bool
) -> None:  # fmt: skip
    """Explain every token of FILE: as a page, as a record from which each distribution can be rebuilt, or as JSON."""
    from cgpt.explain import explain as run_explain
    from cgpt.explain_page import render_explain
    from cgpt.model import load
    from ontology.errors import UsageError
    from ontology.io import write_text

    if html is None and record is None and not as_json:
        raise UsageError("nothing to write.", fix="give --html, --record or --json")
    opened, data = constructed(load(model), model), read_input(file)
    if record is not None:
        cli_account.write_record(opened, data, Path(file).name, record, max_tokens)
    explained = run_explain(opened, data, Path(file).name, max_tokens) if html is not None or as_json else {}
    if html is not None:
        write_text(html, render_explain(explained))
    click.echo(json.dumps(explained) if as_json else "\n".join(str(path) for path in (html, record) if path))


def _tell_skipped(skipped: list[tuple[str, str]], progress: Progress) -> None:
    if skipped:
        shown = "; ".join(f"{path}: {reason}" for path, reason in skipped[:3])
        progress.note(f"{len(skipped)} files left out ({shown}{'; ...' if len(skipped) > 3 else ''})")
