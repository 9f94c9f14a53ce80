"""`constructible ontology`: check, show and cut an ontology file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ontology.errors import CheckFailed, UsageError

if TYPE_CHECKING:
    from ontology.schema import Ontology

_FILE = click.argument("file", type=click.Path(path_type=Path), required=False)
_TRACK = click.option("--track", "track_name", metavar="NAME", help="Track that interprets tests, for example cgpt.")
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group()
def ontology() -> None:
    """Look at an ontology: its concepts, its router, its cuts."""


@ontology.command()
@_FILE
@_TRACK
@click.option("--router", type=click.Path(path_type=Path), help="Router to check in place of the track's own.")
@_JSON
def check(file: Path | None, track_name: str | None, router: Path | None, as_json: bool) -> None:
    """Check FILE (or the track's own ontology): its form, its router, its tests, the branches that no test takes."""
    from ontology.check import check as run_check
    from ontology.track import load_track

    if router is not None and track_name is None:
        raise UsageError("a router's state comes from its track.", fix="add --track NAME")
    track = load_track(track_name) if track_name else None
    path = _path(file, track.ontology if track else None)
    report = run_check(path, track=track, router=router)
    if as_json:
        click.echo(json.dumps(report.to_json(), indent=1))
    else:
        for problem in report.problems:
            click.echo(str(problem))
        click.echo(report.summary())
    if report.problems:
        raise CheckFailed(f"{len(report.problems)} problems in {path}.", fix="do what each line says")


@ontology.command()
@_FILE
@_TRACK
@_JSON
def show(file: Path | None, track_name: str | None, as_json: bool) -> None:
    """Print the concepts of FILE (or of the track's own ontology) as a tree, with their questions."""
    loaded = _load(file, track_name)
    if as_json:
        click.echo(json.dumps(loaded.model_dump(mode="json"), indent=1, ensure_ascii=False))
        return
    shown: set[str] = set()
    click.echo(f"{loaded.name} {loaded.version}" + (f": {loaded.description.strip()}" if loaded.description else ""))

    def tell(name: str, indent: str, branch: str) -> None:
        concept = loaded[name]
        again = " (see above)" if name in shown and concept.children else ""
        click.echo(f"{indent}{branch}{name} [{concept.module}] {concept.question}{again}")
        if again:
            return
        shown.add(name)
        below = indent + {"": "", "├─ ": "│  ", "└─ ": "   "}[branch]
        for i, child in enumerate(concept.children):
            tell(child, below, "└─ " if i == len(concept.children) - 1 else "├─ ")

    tell(loaded.root, "", "")


@ontology.command()
@_FILE
@_TRACK
@click.option("--cut", "spec", metavar="SPEC", help="Show one cut: root, leaves, plain, a depth, or names.")
@_JSON
def cuts(file: Path | None, track_name: str | None, spec: str | None, as_json: bool) -> None:
    """List the cuts through FILE (or through the track's own ontology): which concepts get modules at each depth."""
    from ontology.graph import cut, depths

    loaded = _load(file, track_name)
    specs = [spec] if spec else ["root", *map(str, range(1, max(depths(loaded).values()))), "leaves", "plain"]
    found = [cut(loaded, each) for each in specs]
    if as_json:
        values = [
            {"spec": each.spec, "concepts": each.concepts, "owners": each.owners, "nets": each.nets} for each in found
        ]
        click.echo(json.dumps(values, indent=1))
        return
    for each in found:
        members = (
            ", ".join(each.concepts) if spec or len(each.concepts) <= 6 else ", ".join(each.concepts[:6]) + ", ..."
        )
        click.echo(f"{each.spec}: {len(each.concepts)} modules{'' if each.nets else ' without nets'}: {members}")


def _path(file: Path | None, own: Ontology | None) -> Path:
    if file is not None:
        return file
    if own is None:
        raise UsageError("no ontology is named.", fix="give a FILE or --track NAME")
    return Path(own.file)


def _load(file: Path | None, track_name: str | None) -> Ontology:
    from ontology.schema import Ontology
    from ontology.track import load_track

    if file is None and track_name is not None:
        return load_track(track_name).ontology
    return Ontology.load(_path(file, None))
