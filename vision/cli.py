"""`constructible vision`: build, score, predict and judge image recognisers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ontology.progress import Progress
    from vision.concepts import Library
    from vision.data import ImageSet
    from vision.explain import Explanation, Prediction

from vision.cli_judge import fidelity, probe, replay, study, track
from vision.cli_ontology import ontology

_FOLDER = click.Path(path_type=Path)
_DATA_HELP = "DATA: a folder of class folders, Parquet files, a hub dataset's id, or part-world."


@click.group()
def vision() -> None:
    """The constructed image recogniser: tiny nets named after parts and features, composed by plain rules."""


for _command in (ontology, fidelity, probe, replay, track, study):
    vision.add_command(_command)


@vision.command(epilog=_DATA_HELP)
@click.argument("data")
@click.option("--classes", default="random:5", show_default=True, help="a,b,c or random:N or all.")
@click.option("--out", required=True, type=_FOLDER, help="Folder of the model.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--minutes", type=float, help="Wall-clock budget from photographs to the last artefact (default: 5).")
@click.option("--steps", type=int, help="Training steps instead of minutes: the result repeats bit for bit.")
@click.option("--cut", default="leaves", show_default=True,
              help="Where nets sit: root (one net), classes, parts, leaves, plain (none), depth, names.")  # fmt: skip
@click.option("--ontology", "ontology_file", type=_FOLDER, help="Your own concepts (YAML).")
@click.option("--mode", type=click.Choice(["soft", "hard"]), default="soft", show_default=True,
              help="Rules see probabilities, or 0 and 1.")  # fmt: skip
@click.option("--pooling", default="average", show_default=True,
              type=click.Choice(["average", "max", "lse", "annealed", "topk", "linear_softmax"]),
              help="How a node's map becomes one number.")  # fmt: skip
@click.option("--terms", type=click.IntRange(1, 40), default=9, show_default=True, help="Most concepts in a rule.")
@click.option("--others/--no-others", default=True, show_default=True,
              help="Learn from the photographs of the data's other classes as well.")  # fmt: skip
@click.option("--shared", is_flag=True,
              help="Nodes learn for all classes alike: builds of other classes find them in the --store.")  # fmt: skip
@click.option("--parameters", type=click.IntRange(5_000), help="Of the root cut's network; the leaf cut's by default.")
@click.option("--size", type=click.Choice(["64", "128"]), default="64", show_default=True, help="Pixels of a side.")
@click.option("--store", type=_FOLDER, help="Folder for finished work that several builds share.")
@click.option("--limit", type=click.IntRange(1), help="Read at most so many photographs of each class.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def build(
    data: str, classes: str, out: Path, seed: int, minutes: float | None, steps: int | None, cut: str,
    ontology_file: Path | None, mode: str, pooling: str, terms: int, others: bool, shared: bool,
    parameters: int | None, size: str, store: Path | None, limit: int | None, as_json: bool,
) -> None:  # fmt: skip
    """Build a recogniser of some classes of DATA. The same command again resumes a build that was stopped."""
    from ontology.environment import Ledger
    from ontology.fit import Budget
    from ontology.io import make_folder
    from ontology.progress import Progress
    from ontology.store import Store
    from vision.build import Recipe, choose_classes
    from vision.build import build as run_build
    from vision.data import list_classes, read_images

    budget = Budget(steps=steps, minutes=5.0 if minutes is None and steps is None else minutes)
    progress = Progress()
    chosen = choose_classes(classes, list_classes(data), seed)
    ledger = Ledger(make_folder(out) / "ledger.json")
    images = read_images(data, size=int(size), limit_per_class=limit)
    ledger.credit("photographs", "", images.seconds)
    tell_skipped(images, progress)
    library = find_library(data, images, ontology_file)
    recipe = Recipe(
        classes=chosen, cut=cut, seed=seed, mode=mode, pooling=pooling,  # type: ignore[arg-type]
        max_terms=terms, others=others, shared=shared, parameters=parameters,
    )  # fmt: skip
    fitted = run_build(
        images, library, out, budget, recipe, store=None if store is None else Store(store), progress=progress,
        ledger=ledger,
    )  # fmt: skip
    if as_json:
        result = {"out": str(out), "classes": list(chosen), "seconds": fitted.total_seconds, "jobs": ledger.jobs(),
                  "reused": list(fitted.reused), "photographs": len(images),
                  "skipped": [list(row) for row in images.skipped]}  # fmt: skip
        click.echo(json.dumps(result, indent=1))
    else:
        click.echo(f"{out}: {', '.join(chosen)}; {len(images)} photographs, {fitted.total_seconds:.0f} s in all")


@vision.command(epilog=_DATA_HELP)
@click.argument("model", type=_FOLDER)
@click.argument("data")
@click.option("--own-classes", is_flag=True, help="Read the model's classes only: no negatives from others.")
@click.option("--limit", type=click.IntRange(1), help="Read at most so many photographs of each class.")
@click.option("--json", "as_json", is_flag=True, help="Print all figures as JSON.")
def score(model: Path, data: str, own_classes: bool, limit: int | None, as_json: bool) -> None:
    """Score MODEL on the validation photographs of DATA."""
    from ontology.progress import Progress
    from vision.data import read_images
    from vision.model import load
    from vision.score import score as run_score

    opened = load(model)
    images = read_images(
        data, "validation", size=opened.size, classes=opened.classes if own_classes else None, limit_per_class=limit
    )
    tell_skipped(images, Progress())
    result = run_score(opened, images)
    if as_json:
        click.echo(json.dumps(result.as_json(), indent=1))
        return
    from rich.console import Console
    from rich.table import Table

    figures = result.as_json()
    table = Table(box=None, pad_edge=False)
    for column in ("class", "photographs", "precision", "recall", "one vs rest"):
        table.add_column(column, justify="left" if column == "class" else "right")
    for name, row in figures["per_class"].items():
        table.add_row(name, str(row["photographs"]), f"{row['precision']:.1%}", f"{row['recall']:.1%}",
                      f"{row['one_vs_rest']['balanced']:.1%}")  # fmt: skip
    table.add_row("all", str(figures["photographs"]), f"accuracy {figures['accuracy']:.1%}",
                  f"F1 {figures['macro_f1']:.3f}", f"{figures['balanced_one_vs_rest']:.1%}", style="bold")  # fmt: skip
    Console(soft_wrap=True).print(table)


@vision.command()
@click.argument("model", type=_FOLDER)
@click.argument("images", nargs=-1, required=True, type=_FOLDER)
@click.option("--explain", is_flag=True, help="Show the rule with its numbers, and what would change the answer.")
@click.option("--html", type=click.Path(path_type=Path, dir_okay=False), help="Write a page that shows it all.")
@click.option("--set", "changes", multiple=True, metavar="CONCEPT=VALUE",
              help="Set a concept's score by hand (0 to 1) and see what the rules say.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True)
def predict(
    model: Path, images: tuple[Path, ...], explain: bool, html: Path | None, changes: tuple[str, ...], as_json: bool
) -> None:  # fmt: skip
    """Name the class of IMAGES."""
    from ontology.errors import UsageError
    from ontology.io import write_text
    from vision.explain import explain_picture, predict_files
    from vision.explain_page import render_page
    from vision.model import Constructed, load

    opened = load(model)
    if not isinstance(opened, Constructed) and (explain or html or changes):
        raise UsageError("a monolith has nothing to explain.", fix="give a constructed model (any cut but root)")
    found = predict_files(opened, images, read_changes(opened, changes))
    records = []
    if isinstance(opened, Constructed) and (explain or html):
        records = [explain_picture(opened, item) for item in found if item.pixels is not None]
    if html is not None:
        write_text(html, render_page(opened, records))  # type: ignore[arg-type]
    if as_json:
        rows = [item.as_json() for item in found]
        click.echo(json.dumps({"predictions": rows, "explanations": [r.as_json() for r in records]}, indent=1))
    else:
        _tell(found, records if explain else [])
        if html is not None:
            click.echo(str(html))
    if all(item.pixels is None for item in found):
        from ontology.errors import ConstructibleError

        raise ConstructibleError("none of the pictures could be read.", fix="give JPEG, PNG or WebP files")


def _tell(found: Sequence[Prediction], records: Sequence[Explanation]) -> None:
    """One line for each picture, and below it those of its explanation, where there is one."""
    by_path = {record.path: record for record in records}
    for item in found:
        if item.pixels is None:
            click.echo(f"{item.path}: left out ({item.problem})")
            continue
        click.echo(f"{item.path}: {item.label}  {max(item.shares):.0%}")
        for line in by_path[item.path].lines() if item.path in by_path else ():
            click.echo(f"    {line}")


def read_changes(opened: Any, changes: tuple[str, ...]) -> dict[str, float]:
    """Read `concept=value` pairs; raise UsageError where a concept or value makes no sense."""
    from ontology.errors import UsageError, did_you_mean

    out: dict[str, float] = {}
    for change in changes:
        name, _, text = change.partition("=")
        if name not in opened.concepts:
            raise UsageError(
                f"there is no concept {name!r}.{did_you_mean(name, list(opened.concepts))}", fix="name one"
            )
        try:
            value = float(text)
        except ValueError:
            value = -1.0
        if not 0 <= value <= 1:
            raise UsageError(f"{text!r} is no score of {name!r}.", fix="give a number from 0 to 1")
        out[name] = value
    return out


def find_library(data: str, images: ImageSet, given: Path | None) -> Library:
    """The concepts of a data set: the given file, `ontology.yaml` beside the data, the part world's own, or the
    curated ontology that knows most of its classes.

    Raises:
        UsageError: none knows any of the classes.
    """
    from ontology.errors import UsageError
    from vision.concepts import DATASETS, Library, load_library
    from vision.data import PART_WORLD

    if given is not None:
        return Library.load(given)
    if PART_WORLD.fullmatch(data):
        from vision.part_world import library_text

        return Library.parse(library_text(), "part_world")
    if (Path(data) / "ontology.yaml").is_file():
        return Library.load(Path(data) / "ontology.yaml")
    curated = [load_library(dataset=name) for name in DATASETS]
    best = max(curated, key=lambda library: sum(library.has(name) for name in images.classes))
    if not any(best.has(name) for name in images.classes):
        raise UsageError(
            f"no curated ontology describes the classes of {data} ({', '.join(images.classes[:3])} ...).",
            fix="draft one with `constructible vision ontology draft`, then give it with --ontology",
        )
    return best


def tell_skipped(images: ImageSet, progress: Progress) -> None:
    """Say how many photographs were left out, and why the first ones were."""
    if images.skipped:
        shown = "; ".join(f"{path}: {reason}" for path, reason in images.skipped[:3])
        progress.note(
            f"{len(images.skipped)} photographs left out ({shown}{'; ...' if len(images.skipped) > 3 else ''})"
        )
