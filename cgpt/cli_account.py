"""`constructible cgpt pack`, `unpack`, `check-record`, `without`, `forget`: commands that hold a model to account."""

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
@click.option(
    "--out", required=True, type=_PATH, help="The packed file; a folder for it, or for those of several FILES."
)
@click.option("--json", "as_json", is_flag=True, help="Print sizes as JSON.")
def pack(model: Path, files: tuple[Path, ...], out: Path, as_json: bool) -> None:
    """Pack FILES by arithmetic coding with MODEL, lossless, one packed file each.

    A packed file is for the machine and versions that made it. Beside its size stands what `score` claims.
    """
    from cgpt.pack import Packer
    from ontology.errors import UsageError
    from ontology.io import write_bytes
    from ontology.progress import Progress

    one = len(files) == 1 and not out.is_dir()
    targets = [out] if one else [out / (file.name + SUFFIX) for file in files]
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


def write_record(opened: ConstructedLM, data: bytes, name: str, out: Path, max_tokens: int) -> None:
    """Write the accountable record of a file, or of its first tokens; see `cgpt.record`."""
    from cgpt.record import record
    from ontology.io import write_text
    from ontology.progress import Progress

    n = len(opened.tokenizer.encode(data)) + 1
    with Progress().task("record", total=float(min(n, max_tokens)), unit="tokens") as task:
        made = record(opened, data, name, range(min(n, max_tokens)), task.advance)
    # On one line: a token's evidence takes about two thousand characters.
    write_text(out, json.dumps(made, ensure_ascii=False, separators=(",", ":")) + "\n")


@click.command("check-record")
@click.argument("model", type=_PATH)
@click.argument("record", type=_PATH)
@click.option("--json", "as_json", is_flag=True, help="Print what was found as JSON.")
def check_record(model: Path, record: Path, as_json: bool) -> None:
    """Check a RECORD that `explain --record` wrote with MODEL.

    All evidence is looked up and every distribution rebuilt from the record and the model's folder alone, by a program
    that shares no code with the model, then compared with the model's own. Exit code 3 where anything does not hold.
    """
    from cgpt.record import TOLERANCE, compare
    from ontology.errors import CheckFailed
    from ontology.io import read_json
    from ontology.progress import Progress

    value = read_json(record)
    total = float(len(value["tokens"])) if isinstance(value, dict) and isinstance(value.get("tokens"), list) else None
    with Progress().task("check", total=total, unit="positions") as task:
        found = compare(open_constructed(model), value, task.advance)
    if as_json:
        click.echo(json.dumps(found, indent=1))
    if found["failed"]:
        first, n = found["failed"][0], len(found["failed"])
        raise CheckFailed(
            f"{n} of {found['positions']} positions do not hold; the first is {first['at']}: {first['reason']}",
            fix="make the record again with this model, or find out who changed it", file=record,
        )  # fmt: skip
    if not as_json:
        click.echo(f"{record}: {found['positions']:,} positions hold; the largest difference of a probability is "
                   f"{found['largest_difference']:.1e} (allowed: {TOLERANCE:.0e})")  # fmt: skip


@click.command()
@click.argument("model", type=_PATH)
@click.argument("name")
@click.argument("paths", nargs=-1, required=True)
@click.option("--examples", type=click.IntRange(0), default=10, show_default=True, help="Show so many tokens.")
@click.option("--json", "as_json", is_flag=True, help="Print all figures as JSON.")
def without(model: Path, name: str, paths: tuple[str, ...], examples: int, as_json: bool) -> None:
    """Score PATHS with MODEL as it is and without the module NAME: a concept, a source (net, corpus, file, names) or a
    read. Shows the bits and the tokens that change; nothing is trained again."""
    from cgpt.ablate import ablate
    from cgpt.score import read_paths
    from ontology.progress import Progress

    opened, corpus = open_constructed(model), read_paths(paths)
    with Progress().task("without", total=float(corpus.total_bytes), unit="bytes") as task:
        found = ablate(opened, name, corpus.files, examples, task.advance)
    if as_json:
        click.echo(json.dumps(found.as_json(), indent=1))
        return
    per_byte, per_byte_without = found.bits / found.n_bytes, found.bits_without / found.n_bytes
    click.echo(f"{per_byte:.4f} bits per byte, {per_byte_without:.4f} without the {found.kind} {name!r}; "
               f"{found.changed:,} of {found.tokens:,} tokens change")  # fmt: skip
    for concept, row in sorted(
        found.per_concept.items(), key=lambda item: -abs(item[1]["bits_without"] - item[1]["bits"])
    ):
        click.echo(f"  {concept:<28} {row['bits_without'] - row['bits']:+10.1f} bits on {row['changed']:,.0f} tokens")
    for example in found.examples:
        place = f"{example.path}:{example.line}"
        click.echo(f"{place}: {example.before!r} -> {example.token!r}: {example.bits:.2f} bits, without it "
                   f"{example.bits_without:.2f} ({example.concept})")  # fmt: skip


@click.command()
@click.argument("model", type=_PATH)
@click.argument("sources", nargs=-1)
@click.option("--retrain", is_flag=True, help="Train the nets again, if any of them saw one of the files.")
@click.option("--steps", type=int, help="Training steps of --retrain (default: as the model was built).")
@click.option("--minutes", type=float, help="Budget of --retrain instead of steps.")
@click.option("--json", "as_json", is_flag=True, help="Print what was done as JSON.")
def forget(
    model: Path, sources: tuple[str, ...], retrain: bool, steps: int | None, minutes: float | None, as_json: bool
) -> None:
    """Forget SOURCES in the folder MODEL: paths, projects, or patterns such as 'dask/*'.

    Match index and tables become those of a build without them; the mixer and all smoothing is measured again. The
    tokenizer is kept as it is. The nets that saw them are named; only --retrain makes these forget as well.
    """
    from dataclasses import asdict

    from cgpt.forget import forget as run_forget
    from ontology.errors import UsageError
    from ontology.fit import Budget

    budget = None if steps is None and minutes is None else Budget(steps=steps, minutes=minutes)
    if budget is not None and not retrain:
        raise UsageError("a budget without --retrain.", fix="add --retrain")
    done = run_forget(model, sources, retrain, budget)
    if as_json:
        click.echo(
            json.dumps(asdict(done) | {"kept": ["tokenizer"] if done.retrained else ["tokenizer", "nets"]}, indent=1)
        )
        return
    click.echo(f"{model}: {len(done.files)} files forgotten; tables, match index and mixer are without them")
    click.echo("the tokenizer is kept: it learned its pieces when these files were there")
    if done.nets_that_saw:
        shown = ", ".join(f"{net} ({positions:,})" for net, positions in done.nets_that_saw.items())
        click.echo(f"nets that saw them (positions): {shown}; and what they share: {', '.join(done.shared)}")
    if done.retrained:
        click.echo("the nets were trained again without them")
    elif done.still_in_nets:
        click.echo(f"the nets still carry {done.still_in_nets} files; `forget {model} --retrain` removes them")
    else:
        click.echo("no net saw them")


COMMANDS = (pack, unpack, check_record, without, forget)
