"""Headers of results as tables in a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from eval.tasks.base import Metric


def around(header: Mapping[str, Any], metric: Metric) -> str:
    """One figure with half the width of its interval: what fits into a narrow table."""
    figure = header["figures"][metric.name]
    text = metric.show(figure["value"])
    if figure["low"] is None or figure["high"] is None:
        return text
    return f"{text} ± {metric.show((figure['high'] - figure['low']) / 2).removesuffix(' %')}"


def label(header: Mapping[str, Any]) -> str:
    """The model's name, with its training seed where it is one of several."""
    model = header["model"]
    return model["name"] if model["seed"] is None else f"{model['name']} (seed {model['seed']})"


def print_results(headers: Sequence[Mapping[str, Any]]) -> None:
    """One table per task, a row per model, on standard output."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(soft_wrap=True)
    for task in dict.fromkeys(header["task"] for header in headers):
        chosen = [header for header in headers if header["task"] == task]
        metrics = [Metric(**metric) for metric in chosen[0]["metrics"]]
        console.print(Text(f"{task}: {chosen[0]['question']}", style="bold"))
        table = Table(box=None, pad_edge=False)
        for title in ("", *(label(header) for header in chosen)):
            table.add_column(Text(title), justify="right" if title else "left", overflow="fold")
        for metric in metrics:
            table.add_row(Text(metric.name), *(Text(around(header, metric)) for header in chosen))
        console.print(table)
        for header in chosen:
            if header["leaked"]:
                text = (
                    f"{label(header)} was trained on {len(header['leaked'])} of these files: {header['leaked'][0]} ..."
                )
                console.print(Text(text, style="bold red"))
        for header in chosen:
            if copied := header.get("copied"):
                text = (
                    f"parts of {len(copied)} of these files stand in the training of {label(header)}: {min(copied)} ..."
                )
                console.print(Text(text, style="bold red"))
        what = f"{chosen[0]['examples']} examples; 95 % intervals, bootstrap over {chosen[0]['clustered_by']}s"
        console.print(Text(what, style="dim"))
