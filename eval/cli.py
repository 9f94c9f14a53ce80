"""`constructible eval`: comparisons that a person can run."""

from __future__ import annotations

import json
from pathlib import Path

import click


@click.group("eval")
def eval_() -> None:
    """Measure constructed models against monoliths, fairly, with intervals."""


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
