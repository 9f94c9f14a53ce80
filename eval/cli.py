"""`constructible eval`: comparisons that a person can run."""

from __future__ import annotations

import json
from pathlib import Path

import click

from eval import cli_curve


@click.group("eval")
def eval_() -> None:
    """Measure constructed models against monoliths, fairly, with intervals."""


for command_ in cli_curve.COMMANDS:
    eval_.add_command(command_)


@eval_.command()
@click.option("--minutes", type=click.FloatRange(min=0, min_open=True), default=3.0, show_default=True,
              help="Time budget of each of the two models, from raw files to the last artefact.")  # fmt: skip
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=Path("runs/quickstart"),
              show_default=True, help="Folder for the two models, the leaderboard and the report.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the leaderboard as JSON rows.")
def quickstart(minutes: float, out: Path, as_json: bool) -> None:
    """Build a constructed code model and its baseline from this interpreter's standard library, and compare them.

    The same command again continues where it stopped.
    """
    from eval.leaderboard import print_table, row_dicts
    from eval.quickstart import run_quickstart

    report = run_quickstart(out=out, minutes=minutes)
    if as_json:
        click.echo(json.dumps(row_dicts(report["leaderboard"]), indent=1))
        return
    print_table(report["leaderboard"])
    comparison = report.get("comparison")
    if comparison:
        low, high = comparison.get("low"), comparison.get("high")
        interval = "" if low is None or high is None else f" [{low:.3f}, {high:.3f}]"
        click.echo(f"\n{comparison['text']} {comparison['ratio']:.3f}{interval}")
    click.echo(f"Report: {out / 'report.html'}")


@eval_.command()
@click.argument("models", nargs=-1, required=True, metavar="MODEL...")
@click.option("--tasks", "task_names", required=True, help="Tasks, separated by commas; `eval tasks` lists them.")
@click.option("--data", default="stdlib:held-out", show_default=True,
              help="Files to score: a folder, a .py or .parquet file, stdlib:held-out.")  # fmt: skip
@click.option("--train", help="Corpus the models were built from, for the tasks that compare with it.")
@click.option("--benchmarks", type=click.Path(file_okay=False, path_type=Path), help="Folder of published benchmarks.")
@click.option("--limit", type=click.IntRange(1), help="At most this many examples per task.")
@click.option("--without-known", is_flag=True,
              help="Leave out files that a MODEL was trained on, whole or (with --train) in parts.")  # fmt: skip
@click.option("--seeds", type=click.IntRange(1), help="A MODEL that holds {seed} stands for this many, from 0.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=Path("runs/eval"), show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print the headers of all results as JSON.")
def run(
    models: tuple[str, ...], task_names: str, data: str, train: str | None, benchmarks: Path | None,
    limit: int | None, without_known: bool, seeds: int | None, out: Path, as_json: bool,
) -> None:  # fmt: skip
    """Measure each MODEL on tasks; the same command again measures only what is missing.

    MODEL is [NAME=][KIND:]FOLDER: a model of ours at any cut, or a Hugging Face causal language model. KIND nets-only
    takes the neural part alone, shuffled-router lets the wrong nets answer.
    """
    from eval.models import open_specs
    from eval.records import read_header
    from eval.runner import run as run_tasks
    from eval.tables import print_results
    from eval.tasks import Options, load_tasks

    options = Options(data, train, benchmarks, limit)
    command = " ".join(["constructible eval run", *models, f"--tasks {task_names}", f"--data {data}",
                        *([f"--train {train}"] if train else []), *([f"--limit {limit}"] if limit else []),
                        *([f"--benchmarks {benchmarks}"] if benchmarks else []),
                        *(["--without-known"] if without_known else []),
                        *([f"--seeds {seeds}"] if seeds else [])])  # fmt: skip
    specs, tasks = open_specs(models, seeds), load_tasks(task_names)
    paths = run_tasks(specs, tasks, options, out, command=command, without_known=without_known)
    headers = [read_header(path) for path in paths]
    if as_json:
        click.echo(json.dumps([{"path": str(p), **h} for p, h in zip(paths, headers, strict=True)], indent=1))
    else:
        print_results(headers)


@eval_.command("tasks")
@click.option("--json", "as_json", is_flag=True)
def tasks_(as_json: bool) -> None:
    """List what can be measured."""
    from eval.tasks import TASKS

    rows = [(name, TASKS.load(name)) for name in TASKS.names()]
    if as_json:
        listed = [
            {"name": name, "version": t.version, "question": t.question, "metrics": [m.name for m in t.metrics]}
            for name, t in rows
        ]
        click.echo(json.dumps(listed, indent=1))
        return
    for name, task in rows:
        click.echo(f"{name:<18} {task.question}")


@eval_.command()
@click.argument("a", type=click.Path(path_type=Path))
@click.argument("b", type=click.Path(path_type=Path))
@click.option("--task", help="This task only (default: every one that both have).")
@click.option("--unequal", is_flag=True, help="Compare although budgets differ; the page says so.")
@click.option("--clock", type=click.Choice(["seconds", "flops"]), default="seconds", show_default=True,
              help="What the work of a budget is.")  # fmt: skip
@click.option("--html", type=click.Path(dir_okay=False, path_type=Path), help="Write a page as well.")
@click.option("--json", "as_json", is_flag=True)
def compare(a: Path, b: Path, task: str | None, unequal: bool, clock: str, html: Path | None, as_json: bool) -> None:
    """Compare two models' results, A and B: folders (or files) that `eval run` wrote.

    A pair whose budgets are not equal, or whose figures are not about the same bytes, is refused with every reason
    (exit code 3).
    """
    from eval.compare import compare as run_compare
    from eval.compare_page import as_text, render
    from ontology.io import write_text

    compared = run_compare(a, b, task=task, unequal=unequal, clock=clock)  # type: ignore[arg-type]
    if html is not None:
        write_text(html, render(compared))
    click.echo(json.dumps(compared.as_json(), indent=1) if as_json else as_text(compared))


@eval_.command()
@click.option("--results", type=click.Path(exists=True, file_okay=False, path_type=Path), default=Path("docs/results"),
              show_default=True, help="Folder of raw results: quickstart.json, and what `eval run` wrote.")  # fmt: skip
@click.option("--format", "form", type=click.Choice(["table", "md", "csv", "html"]), default="table", show_default=True)
@click.option("--write", type=click.Path(file_okay=False, path_type=Path),
              help="Write LEADERBOARD.md and leaderboard.html into this folder.")  # fmt: skip
def leaderboard(results: Path, form: str, write: Path | None) -> None:
    """Make the leaderboard from raw results."""
    from eval.board import entries, print_boards, to_csv, to_markdown, write_board
    from eval.board_page import render

    if write is not None:
        for path in write_board(results, write):
            click.echo(path)
        return
    rows = entries(results)
    if form == "table":
        print_boards(rows)
    else:
        click.echo({"md": to_markdown, "csv": to_csv, "html": render}[form](rows), nl=False)


@eval_.command()
@click.option("--results", type=click.Path(exists=True, file_okay=False, path_type=Path), default=Path("docs/results"),
              show_default=True, help="Folder of raw results.")  # fmt: skip
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=Path("runs/report"), show_default=True,
              help="Folder for REPORT.md, report.html and the figures.")  # fmt: skip
def report(results: Path, out: Path) -> None:
    """Write a research post from raw results: methods, results, negative results, limits, every number linked."""
    from eval.research import write_post

    for path in write_post(results, out):
        click.echo(path)


@eval_.command()
@click.option("--docs", type=click.Path(exists=True, file_okay=False, path_type=Path), default=Path("docs"),
              show_default=True, help="Folder that holds results/ and experiments/; the pages go there.")  # fmt: skip
def publish(docs: Path) -> None:
    """Make all pages of raw results again: leaderboard, research post, curves, scale, contenders. Measures nothing."""
    from eval.publish import publish as publish_all

    for path in publish_all(docs):
        click.echo(path)


@eval_.command()
@click.option("--train", default="stdlib:train", show_default=True, help="Corpus to build from.")
@click.option("--test", default="stdlib:held-out", show_default=True, help="Files to score.")
@click.option("--minutes", type=click.FloatRange(min=0, min_open=True), multiple=True, default=(3.0,),
              show_default=True, help="Budget of each build; give it several times for several budgets.")  # fmt: skip
@click.option("--steps", type=click.IntRange(1), help="Training steps instead of minutes.")
@click.option("--cut", "cuts", multiple=True, default=("leaves",), show_default=True,
              help="Cuts beside root, leaves and plain; several times for several.")  # fmt: skip
@click.option("--seeds", type=click.IntRange(1), default=1, show_default=True)
@click.option("--benchmarks", type=click.Path(file_okay=False, path_type=Path), help="Adds the task `lines`.")
@click.option("--limit", type=click.IntRange(1), help="At most this many examples per task.")
@click.option("--models", default="runs/bench", show_default=True, help="Folder for what is built.")
@click.option("--results", default="docs/results/bench", show_default=True,
              help="Folder for raw results, below docs/results to be on the leaderboard.")  # fmt: skip
def bench(
    train: str, test: str, minutes: tuple[float, ...], steps: int | None, cuts: tuple[str, ...], seeds: int,
    benchmarks: Path | None, limit: int | None, models: str, results: str,
) -> None:  # fmt: skip
    """Build constructed models, monoliths and tables at each budget and seed, and measure all of them. Takes hours.

    The same command again resumes. Afterwards `eval leaderboard --write docs` and `eval report --out docs` make the
    pages.
    """
    from eval.bench import Plan
    from eval.bench import bench as run_bench

    asked = f"--steps {steps}" if steps is not None else " ".join(f"--minutes {m:g}" for m in minutes)
    command = " ".join(["constructible eval bench", f"--train {train} --test {test}", asked,
                        *(f"--cut {cut}" for cut in cuts), f"--seeds {seeds}",
                        *([f"--limit {limit}"] if limit else []),
                        *([f"--benchmarks {benchmarks}"] if benchmarks else [])])  # fmt: skip
    plan = Plan(train, test, minutes, steps, cuts, seeds, models=Path(models), results=Path(results),
                benchmarks=benchmarks, limit=limit)  # fmt: skip
    for path in run_bench(plan, command):
        click.echo(path)


@eval_.command("random-router")
@click.argument("out", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--data", default="stdlib:held-out", show_default=True, help="Text whose states the questions divide.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
def random_router_(out: Path, data: str, seed: int) -> None:
    """Write a router of random questions to OUT, a control to build with `cgpt build --router OUT`."""
    import numpy as np

    from cgpt import lexer
    from cgpt.model import HERE
    from cgpt.score import read_paths
    from eval.controls import random_router
    from ontology.io import write_text
    from ontology.routers import Router

    states = []
    for file in read_paths([data]).files[:100]:
        text = np.frombuffer(file.data, dtype=np.uint8)
        states.append(lexer.run(text, np.arange(0, len(text), 7))[0])
    concepts = Router.load(HERE / "router.py", lexer.FIELDS).concepts
    click.echo(write_text(out, random_router(concepts, lexer.FIELDS, np.concatenate(states), seed)))
