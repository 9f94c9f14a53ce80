"""`constructible kernels`: measure the operations on this machine."""

from __future__ import annotations

import csv
import json
import sys
from typing import Any

import click


@click.group()
def kernels() -> None:
    """Many tiny networks at once: which backend, how fast."""


@kernels.command()
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option("--quick", is_flag=True, help="A small selection, in under a minute.")
@click.option("--json", "as_json", is_flag=True, help="Rows as one JSON list.")
@click.option("--csv", "as_csv", is_flag=True, help="Rows as CSV.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--seconds", type=click.FloatRange(min=0.001), help="Per measurement.  [default: 0.6, quick 0.05]")
@click.option("--compiled/--no-compiled", default=True, help="Peers through torch.compile, too (takes minutes).")
@click.option("--only", default="", metavar="TEXT", help="Workloads whose name contains this, such as cnn or zipf.")
def bench(
    device: str, quick: bool, as_json: bool, as_csv: bool, seed: int, seconds: float | None, compiled: bool, only: str
) -> None:
    """Forward, forward+backward and training step against every other way to run the same networks.

    Peers run in the same process on the same inputs. A ratio is peer time / our time: above 1 we are faster.
    """
    if as_json and as_csv:
        raise click.UsageError("choose one of --json and --csv")
    import torch

    from kernels.bench import Settings
    from kernels.bench import bench as measure

    if device == "cuda" and not torch.cuda.is_available():
        raise click.UsageError(
            "--device cuda: torch sees no CUDA device here. Fix: leave the option out to use the CPU."
        )
    asked = Settings(device, quick, seed, seconds, compiled, only)
    found = measure(asked, lambda name: click.echo(f"measuring {name}", err=True))
    rows: list[dict[str, Any]] = []
    writer: Any = None
    for row in found:
        rows.append(row)
        if as_csv:  # as they come: a long run that is stopped keeps what it has measured
            writer = writer or csv.DictWriter(sys.stdout, list(row), lineterminator="\n")
            if len(rows) == 1:
                writer.writeheader()
            writer.writerow(row)
            sys.stdout.flush()
    if not rows:
        raise click.UsageError(f"--only {only}: no workload has this in its name. Fix: leave the option out")
    if as_json:
        click.echo(json.dumps(rows, indent=1))
    elif not as_csv:
        _print(rows)


def _print(rows: list[dict[str, Any]]) -> None:
    columns = ["workload", "mode", "backend", "ms", "best_peer", "ratio_to_best_peer", "ratio_to_loop"]
    lines = [columns, *[[str(row[c]) for c in columns] for row in rows]]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    for line in lines:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
