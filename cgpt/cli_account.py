"""`constructible cgpt pack`, `unpack`: commands that hold a model to account."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from cgpt.model import ConstructedLM

_PATH = click.Path(path_type=Path)
SUFFIX = ".cgp"


def open_constructed(folder: Path) -> ConstructedLM:
    """Open a constructed model; raises UsageError for a monolith."""
    from cgpt.model import ConstructedLM, load
    from ontology.errors import UsageError

    opened = load(folder)
    if not isinstance(opened, ConstructedLM):
        raise UsageError("a monolith.", fix="give a constructed model (any cut but root)", file=folder)
    return opened


def read_bytes(path: Path) -> bytes:
    """A file's bytes; raises ConstructibleError where it cannot be read."""
    from ontology.errors import ConstructibleError

    try:
        return path.read_bytes()
    except OSError as error:
        raise ConstructibleError(f"cannot be read ({error.strerror}).", fix="check the path", file=path) from error


@click.command()
@click.argument("model", type=_PATH)
@click.argument("files", nargs=-1, required=True, type=_PATH)
@click.option("--out", required=True, type=_PATH, help="The packed file; with several FILES a folder for them.")
@click.option("--json", "as_json", is_flag=True, help="Print sizes as JSON.")
def pack(model: Path, files: tuple[Path, ...], out: Path, as_json: bool) -> None:
    """Pack FILES by arithmetic coding with MODEL, lossless, one packed file each.

    A packed file is for the machine and versions that made it. Beside its size stands what `score` claims.
    """
    from cgpt.pack import Packer
    from ontology.errors import UsageError
    from ontology.io import write_bytes
    from ontology.progress import Progress

    targets = [out] if len(files) == 1 else [out / (file.name + SUFFIX) for file in files]
    if len(set(targets)) < len(targets):
        raise UsageError("two of the files have the same name.", fix="pack them into two folders", file=out)
    contents = [read_bytes(file) for file in files]
    opened, progress = open_constructed(model), Progress()
    packer, rows = Packer(opened), []
    with progress.task("pack", total=float(sum(map(len, contents))), unit="bytes") as task:
        for file, target, data in zip(files, targets, contents, strict=True):
            packed = packer.pack(data, task.advance)
            write_bytes(target, packed.data)
            claimed = float(opened.score_file(data).bits.sum()) / 8
            rows.append({"file": str(file), "out": str(target), "bytes": len(data), "packed_bytes": len(packed.data),
                         "score_bytes": claimed})  # fmt: skip
    if as_json:
        click.echo(json.dumps({"files": rows}, indent=1))
        return
    for row in rows:
        click.echo(
            f"{row['out']}: {row['bytes']:,} bytes in {row['packed_bytes']:,}; `score` claims {row['score_bytes']:,.1f}"
        )


@click.command()
@click.argument("model", type=_PATH)
@click.argument("packed", type=_PATH)
@click.option("--out", required=True, type=_PATH, help="The file to write.")
def unpack(model: Path, packed: Path, out: Path) -> None:
    """Unpack a PACKED file with the MODEL that packed it."""
    from cgpt.pack import Packer
    from ontology.io import write_bytes
    from ontology.progress import Progress

    progress, data = Progress(), read_bytes(packed)
    packer = Packer(open_constructed(model))
    with progress.task("unpack", unit="bytes") as task:
        original = packer.unpack(data, packed, task.advance, progress.note)
    write_bytes(out, original)
    click.echo(f"{out}: {len(original):,} bytes")


COMMANDS = (pack, unpack)
