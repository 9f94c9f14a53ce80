"""`constructible vision fidelity | probe | replay | track | study`: judge nodes, check predictions, run the whole track
and the studies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

_FOLDER = click.Path(path_type=Path)


@click.command()
@click.argument("model", type=_FOLDER)
@click.argument("data")
@click.option("--minutes", type=float, help="Wall-clock budget (default: 10).")
@click.option("--steps", type=int, help="Training steps of the twins, instead of minutes.")
@click.option("--limit", type=click.IntRange(1), help="As it was given to the build.")
@click.option("--json", "as_json", is_flag=True, help="Print all figures as JSON.")
def fidelity(
    model: Path, data: str, minutes: float | None, steps: int | None, limit: int | None, as_json: bool
) -> None:  # fmt: skip
    """Judge the nodes of MODEL, built from DATA: do they do what they are named for?

    Writes fidelity.json and cards.html into MODEL/fidelity. The same command again resumes.
    """
    from ontology.fit import Budget
    from ontology.progress import Progress

    budget = Budget(steps=steps, minutes=10.0 if minutes is None and steps is None else minutes)
    figures = run_fidelity(model, data, budget, Progress(), limit=limit)
    if as_json:
        click.echo(json.dumps(figures, indent=1))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in ("concept", "unseen classes", "p", "above random", "polarity", "place", "faithful"):
        table.add_column(column, justify="left" if column == "concept" else "right")
    for name, row in sorted(figures["nodes"].items(), key=lambda item: -(item[1]["transfer"]["auroc"] or 0)):
        moved, place = row["transfer"], row["place"]
        number = lambda value: "-" if value is None else f"{value:.2f}"  # noqa: E731
        shown = (moved["auroc"], moved["p_value"], row["selectivity"], row["polarity"], place and place["pointing"])
        table.add_row(name, *map(number, shown), "yes" if row["faithful"] else "no")
    Console(soft_wrap=True).print(table)
    summary = figures["summary"]
    click.echo(
        f"{len(summary['faithful'])} of {summary['nodes']} nodes are faithful and carry "
        f"{summary['rule_weight_on_faithful']:.0%} of the rules' weight; {figures['random_concepts_that_pass']} of "
        f"{len(figures['random_concepts'])} random concepts would pass."
    )
    said, shared = figures["leakage"], figures["overlap"]
    click.echo(f"{leakage_text(said)}\n{overlap_text(shared)}\n{model / 'fidelity' / 'cards.html'}")


@click.command()
@click.argument("model", type=_FOLDER)
@click.argument("data")
@click.option("--random", "n_random", type=click.IntRange(2, 400), default=40, show_default=True,
              help="Untrained nodes to probe beside the model's.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print all figures as JSON.")
def probe(model: Path, data: str, n_random: int, as_json: bool) -> None:
    """Ask every node of MODEL about every other concept, on the validation photographs of DATA. Trains nothing.

    Leakage: what scores say beyond their concepts (OIS, NIS). Overlap: what nodes carry beside their own concept,
    against untrained nodes. Leaves MODEL as it is.
    """
    figures = run_probe(model, data, n_random)
    if as_json:
        click.echo(json.dumps(figures, indent=1))
        return
    click.echo(f"{leakage_text(figures['leakage'])}\n{overlap_text(figures['overlap'])}")
    for row in figures["leakage"]["worst"][:5]:
        click.echo(f"  {row['score']} knows {row['knows']}: {row['auroc']:.2f}, its truth {row['auroc_of_truth']:.2f}")


def run_probe(folder: Path, data: str, n_random: int = 40) -> dict[str, Any]:
    """Leakage and overlap of a model's nodes on held-out photographs; see `vision.leakage`, `vision.overlap`."""
    import numpy as np

    from ontology.errors import UsageError
    from vision.bank import in_blocks
    from vision.data import read_images
    from vision.fidelity import as_json_values
    from vision.leakage import leakage
    from vision.model import Constructed, load
    from vision.overlap import overlap, random_nodes

    opened = load(folder)
    if not isinstance(opened, Constructed):
        raise UsageError("a monolith has no nodes to probe.", fix="give a model of another cut", file=folder)
    images = read_images(data, "validation", size=opened.size)
    classes = [name for name in images.classes if name in opened.config["trained_on"]]
    place = {name: i for i, name in enumerate(classes)}
    labels = images.labels_in(classes)
    names = list(opened.bank.names)
    truth = np.zeros((len(classes), len(names)), dtype=np.int8)
    for i, name in enumerate(names):
        truth[[place[c] for c in opened.concepts[name]["true_of"] if c in place], i] = 1
        truth[[place[c] for c in opened.concepts[name]["unclear_of"] if c in place], i] = -1
    maps = np.concatenate(list(in_blocks(images.pixels)))
    pooled = opened.bank.pooled(maps)
    chance = random_nodes(opened.bank.nodes, n_random).pooled(maps)
    return as_json_values(
        {"format": "constructible-probe/1", "photographs": int((labels >= 0).sum()), "classes": len(classes),
         "random_nodes": n_random,
         "leakage": leakage(opened.bank.calibrate(pooled), labels, truth, names).as_json(),
         "overlap": overlap(pooled, labels, truth, names, chance).as_json()}
    )  # fmt: skip


@click.command()
@click.argument("model", type=_FOLDER)
@click.argument("data")
@click.option("--limit", type=click.IntRange(1), help="Read at most so many photographs of each class.")
@click.option("--json", "as_json", is_flag=True)
def replay(model: Path, data: str, limit: int | None, as_json: bool) -> None:
    """Check that predictions of MODEL on the validation photographs of DATA follow from its files: concept scores from
    the nodes, class scores from the rules bit for bit, by code that the model does not use. Exits 3 where one does not.
    """
    from ontology.errors import CheckFailed, UsageError
    from vision.bank import primitives
    from vision.data import read_images
    from vision.model import Constructed, load
    from vision.replay import compare, record

    opened = load(model)
    if not isinstance(opened, Constructed):
        raise UsageError("a monolith has nothing to replay.", fix="give a model of another cut", file=model)
    images = read_images(data, "validation", size=opened.size, limit_per_class=limit)
    found: dict[str, Any] = {"predictions": 0, "replayed": 0, "failed": []}
    for begin in range(0, len(images), 500):
        pixels = images.pixels[begin : begin + 500].copy()
        said = json.loads(json.dumps(record(opened, pixels, images.paths[begin : begin + 500])))
        part = compare(model, said, primitives(pixels))
        found = {key: found[key] + part[key] for key in found}
    failed = found["failed"]
    text = f"{found['replayed']:,} of {found['predictions']:,} predictions replay"
    click.echo(json.dumps(found, indent=1) if as_json else text)
    if failed:
        raise CheckFailed(f"{text}; {failed[0]['name']}: {failed[0]['why'][0]}.", fix="build the model again")


def leakage_text(said: dict[str, Any]) -> str:
    """Leakage in a line."""
    number = lambda key: "unknown" if said[key] is None else f"{said[key]:.3f}"  # noqa: E731
    return (
        f"Leakage: OIS {number('ois')} ({number('ois_low')} to {number('ois_high')}; 0 is pure), NIS {number('nis')} "
        f"({number('nis_low')} to {number('nis_high')}; of the table itself {number('nis_of_truth')})."
    )


def overlap_text(said: dict[str, Any]) -> str:
    """Overlap in a line."""
    number = lambda key: "unknown" if said[key] is None else f"{said[key]:.0%}"  # noqa: E731
    return (
        f"Overlap: nodes carry {number('carried_share')} of the other concepts (random nodes "
        f"{number('carried_share_of_random_nodes')}); {number('own_is_strongest')} answer their own most strongly."
    )


@click.command()
@click.argument("data", default="")
@click.option("--out", type=_FOLDER, default=Path("runs/vision"), show_default=True)
@click.option("--classes", default="random:5", show_default=True)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--minutes", type=float, help="Budget of each model (default: 5); twice as much for judging nodes.")
@click.option("--steps", type=int, help="Training steps of each model instead of minutes.")
@click.option("--cuts", default="leaves,root", show_default=True, help="Models to compare.")
@click.option("--ontology", "ontology_file", type=_FOLDER, help="Your own concepts (YAML).")
@click.option("--json", "as_json", is_flag=True, help="Print the leaderboard as JSON.")
def track(
    data: str, out: Path, classes: str, seed: int, minutes: float | None, steps: int | None, cuts: str,
    ontology_file: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """The whole track: build, compare, judge, show. DATA: what $CONSTRUCTIBLE_DATA has, else part-world."""
    from ontology.fit import Budget
    from ontology.progress import Progress
    from vision.runs import run_track

    budget = Budget(steps=steps, minutes=5.0 if minutes is None and steps is None else minutes)
    chosen = tuple(cut.strip() for cut in cuts.split(",") if cut.strip())
    board = run_track(data or None, out, classes, seed, budget, chosen, Progress(), ontology_file)
    click.echo(json.dumps(board, indent=1) if as_json else (out / "leaderboard.md").read_text(encoding="utf-8"))
    if not as_json:
        cards = out / chosen[0] / "fidelity" / "cards.html"
        click.echo(f"{out / 'report.html'}{f', {cards}' if cards.exists() else ''}")


@click.command()
@click.argument("which", type=click.Choice(["pooling", "cuts", "controls", "fidelity", "growth", "together", "heads"]))
@click.argument("data")
@click.option("--out", required=True, type=_FOLDER)
@click.option("--classes", default="random:5", show_default=True)
@click.option("--draws", default="0,1", show_default=True, help="Seeds of the classes, separated by commas.")
@click.option("--minutes", type=float, help="Budget of each model (default: 5).")
@click.option("--steps", type=int, help="Training steps of each model instead of minutes.")
@click.option("--only", default="", help="Rows of `cuts` to build, for example root,leaves-own (default: all).")
@click.option("--ontology", "ontology_file", type=_FOLDER, help="Your own concepts (YAML).")
@click.option("--choosing", is_flag=True,
              help="Judge on training photographs left out of learning, not on validation photographs.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True)
def study(
    which: str, data: str, out: Path, classes: str, draws: str, minutes: float | None, steps: int | None, only: str,
    ontology_file: Path | None, choosing: bool, as_json: bool,
) -> None:  # fmt: skip
    """Settle a question by measurement: pooling, cuts, controls, fidelity (do nodes do what they are named for, over
    draws), growth (new classes by rule alone, few photographs), together (nodes trained through a fixed composition, or
    apart), heads (what sits on top of the nodes). The same command again resumes."""
    from ontology.errors import UsageError
    from ontology.fit import Budget
    from ontology.progress import Progress
    from vision.study import run_study

    seeds = [text.strip() for text in draws.split(",") if text.strip()]
    if not seeds or not all(text.isdigit() for text in seeds):
        raise UsageError(f"{draws!r} are no seeds.", fix="give numbers, for example --draws 0,1,2")
    budget = Budget(steps=steps, minutes=5.0 if minutes is None and steps is None else minutes)
    made = run_study(which, data, out, classes, [int(text) for text in seeds], budget, Progress(),
                     [name.strip() for name in only.split(",") if name.strip()], choosing, ontology_file)  # fmt: skip
    click.echo(json.dumps(made, indent=1) if as_json else (out / "study.md").read_text(encoding="utf-8"))


def run_fidelity(
    folder: Path, data: str, budget: Any, progress: Any, *, limit: int | None = None
) -> dict[str, Any]:  # fmt: skip
    """Judge a model and write its cards; return the figures."""
    from ontology.errors import UsageError
    from ontology.io import read_json, write_text
    from ontology.store import Store
    from vision.build import plan_of
    from vision.cards import render_cards
    from vision.concepts import Library
    from vision.data import read_images
    from vision.fidelity import find_masks, judge
    from vision.model import Constructed, load

    opened = load(folder)
    if not isinstance(opened, Constructed):
        raise UsageError("a monolith has no nodes to judge.", fix="give a model of another cut", file=folder)
    images = read_images(data, size=opened.size, limit_per_class=limit)
    validation = read_images(data, "validation", size=opened.size)
    plan = plan_of(opened.config, images, Library.load(folder / "ontology.yaml"))
    out = folder / "fidelity"
    judge(opened, plan, validation, out, budget, masks=find_masks(data, validation), store=Store(folder / ".store"),
          progress=progress)  # fmt: skip
    figures = read_json(out / "fidelity.json")
    write_text(out / "cards.html", render_cards(opened, validation, figures))
    return figures
