"""`constructible vision ontology`: check a concept library, show a class, draft one from phrases."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ontology.errors import CheckFailed, UsageError

if TYPE_CHECKING:
    from vision.concepts import Library

_FILE = click.Path(path_type=Path)
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group()
def ontology() -> None:
    """Look at what classes are made of: parts and features that a photograph shows."""


@ontology.command()
@click.argument("file", type=_FILE)
@click.option("--data", type=_FILE, help="Parquet file or image folder: report classes that it does not have.")
@click.option("--minimum", type=click.IntRange(0),
              help="Classes that must have, and must lack, each feature (default: 3; 1 below 6 classes).")  # fmt: skip
@_JSON
def check(file: Path, data: Path | None, minimum: int | None, as_json: bool) -> None:
    """Check FILE (or a curated library by name: tiny_imagenet, imagenette224): can each feature be seen and learned?"""
    from vision.concept_checks import check as run_check

    report = run_check(file, minimum=minimum, data=data)
    if as_json:
        click.echo(json.dumps(report.to_json(), indent=1))
    else:
        for finding in report.findings:
            click.echo(str(finding))
        click.echo(report.summary())
    if report.problems:
        raise CheckFailed(f"{len(report.problems)} problems in {file}.", fix="do what each line says")


@ontology.command()
@click.argument("name", metavar="CLASS")
@click.option("--file", type=_FILE, help="Library to look in (default: the curated ones).")
@click.option("--dataset", help="Curated library to look in: tiny_imagenet or imagenette224 (default: both).")
@_JSON
def show(name: str, file: Path | None, dataset: str | None, as_json: bool) -> None:
    """Print CLASS (a label or a WordNet id) as its parts and features, each with its question."""
    library = _find(name, file, dataset)
    entry = library.entry(name)
    if as_json:
        features = {each: library.features[each].model_dump(mode="json") for each in (*entry.features, *entry.unclear)}
        value = {"class": entry.model_dump(mode="json"), "features": features}
        click.echo(json.dumps(value, indent=1, ensure_ascii=False))
        return
    others = [other for other in library.classes.values() if other.name != entry.name]
    head = f"{entry.name} {entry.wnid or ''}".strip()
    click.echo(head + (f": {' < '.join([entry.human_name, *entry.is_a])}" if entry.is_a else ""))
    groups = list(entry.groups.items())
    for i, (group, names) in enumerate(groups):
        last = i == len(groups) - 1
        click.echo(f"{'└─' if last else '├─'} {group.replace('_', ' ')}")
        for j, each in enumerate(names):
            feature = library.features[each]
            shared = sum(each in other.features for other in others)
            branch = ("   " if last else "│  ") + ("└─" if j == len(names) - 1 else "├─")
            also = f"also of {shared} other classes" if shared else "of this class alone"
            click.echo(f"{branch} {each} [{feature.kind} {feature.scale}, {also}] {feature.question}")
    if entry.unclear:
        click.echo(f"unclear: {', '.join(entry.unclear)}")


@ontology.command()
@click.argument("phrases", type=_FILE)
@click.option(
    "--classes",
    required=True,
    help="Labels or WordNet ids, comma between (`label=name in PHRASES` where they differ); a file of them; or all.",
)
@click.option("--out", required=True, type=_FILE, help="The YAML file to write.")
@click.option("--wordnet", type=_FILE, help="JSON of WordNet records by id: is-a chains, other names, parts.")
@click.option("--base", default="features", show_default=True,
              help="Curated library whose features are used again where phrases speak of them; or `none`.")  # fmt: skip
@click.option("--minimum", type=click.IntRange(1),
              help="Drop features that fewer drafted classes have (default: 3; 1 below 6 classes).")  # fmt: skip
@click.option("--force", is_flag=True, help="Write over a file that is there.")
@_JSON
def draft(
    phrases: Path, classes: str, out: Path, wordnet: Path | None, base: str, minimum: int | None, force: bool,
    as_json: bool,
) -> None:  # fmt: skip
    """Draft a library from PHRASES (JSON: label -> phrases; text: `label: phrase; phrase`; or an attribute matrix).

    What is drafted is marked `draft: true`: read each entry, correct it, remove the mark.
    """
    from ontology.io import write_text
    from vision.phrases import draft as run_draft
    from vision.phrases import read_phrases, read_wordnet, to_yaml

    if out.exists() and not force:
        raise UsageError("is there already, perhaps corrected by hand.", fix="choose another name or --force", file=out)
    listed = Path(classes).read_text(encoding="utf-8").split("\n") if Path(classes).is_file() else classes.split(",")
    wanted = None if classes == "all" else [label.strip() for label in listed if label.strip()]
    made = run_draft(
        read_phrases(phrases), wanted, name=out.stem, base=None if base == "none" else base, minimum=minimum,
        wordnet=read_wordnet(wordnet) if wordnet is not None else None,
    )  # fmt: skip
    write_text(out, to_yaml(made.library, base=None if base == "none" else base))
    if as_json:
        click.echo(json.dumps({"out": str(out)} | made.to_json(), indent=1, ensure_ascii=False))
        return
    for reason, dropped in sorted(made.dropped.items(), key=lambda row: -len(row[1])):
        click.echo(f"{len(dropped)} phrases dropped: it {reason}, for example {dropped[0]!r}", err=True)
    for label, key in made.read_as.items():
        click.echo(f"{label!r} is read as {key!r}", err=True)
    click.echo(f"{out}: {made.summary()}")


def _find(name: str, file: Path | None, dataset: str | None) -> Library:
    """The library asked for; without one, the first curated library that has the class."""
    from vision.concepts import DATASETS, load_library

    if file is not None:
        return load_library(file)
    if dataset is not None:
        return load_library(dataset=dataset)
    libraries = [load_library(dataset=each) for each in DATASETS]
    for library in libraries:
        if library.has(name):
            return library
    return libraries[0]
