"""`constructible cgpt complete` and `export`: what a finished model is used for."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ontology.errors import ConstructibleError, UsageError

if TYPE_CHECKING:
    from cgpt.complete import Completion
    from cgpt.model import ConstructedLM, LanguageModel

_MODEL = click.Path(path_type=Path)


@click.command()
@click.argument("model", type=_MODEL)
@click.argument("file", default="-")
@click.option("--max-tokens", type=click.IntRange(1), default=64, show_default=True)
@click.option("--line", is_flag=True, help="Complete to the end of the line.")
@click.option("--valid", is_flag=True,
              help="Complete to the end of a statement, free of tokenize, bracket and indentation errors.")  # fmt: skip
@click.option("--temperature", type=click.FloatRange(0.0), default=0.0, show_default=True,
              help="0 takes the most probable token.")  # fmt: skip
@click.option("--top-k", type=click.IntRange(0), default=0, show_default=True,
              help="Draw from this many most probable tokens (0: all).")  # fmt: skip
@click.option("--top-p", type=click.FloatRange(0.0, 1.0, min_open=True), default=1.0, show_default=True,
              help="Draw from the most probable tokens that hold this share of the probability.")  # fmt: skip
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--allow", metavar="LICENCES",
              help="SPDX names with commas between: use counts and matches of files under these alone.")  # fmt: skip
@click.option("--provenance", is_flag=True, help="Show what the completion rests on, by licence and project.")
@click.option("--explain", is_flag=True, help="Show for each token the concept in charge and what it rests on.")
@click.option("--json", "as_json", is_flag=True)
def complete(
    model: Path, file: str, max_tokens: int, line: bool, valid: bool, temperature: float, top_k: int, top_p: float,
    seed: int, allow: str | None, provenance: bool, explain: bool, as_json: bool,
) -> None:  # fmt: skip
    """Complete FILE (- reads standard input) and print what is added."""
    from cgpt.complete import complete as run_complete
    from cgpt.model import load

    if line and valid:
        raise UsageError("--line and --valid end at different places.", fix="give one of them")
    prompt = read_input(file)
    opened = load(model)
    if allow is not None:
        opened = constructed(opened, model).allowing(*(name.strip() for name in allow.split(",") if name.strip()))
    made = run_complete(
        opened, prompt, max_tokens, temperature, seed, top_k=top_k, top_p=top_p, line=line, valid=valid
    )  # fmt: skip
    text = made.text.decode("utf-8", "replace")
    rows = _explained(constructed(opened, model), made) if explain else None
    origin = None
    if provenance:
        from cgpt.provenance import provenance as run_provenance

        origin = run_provenance(constructed(opened, model), made)
    if as_json:
        tokens = [{"text": s.text.decode("utf-8", "replace"), "probability": s.probability} for s in made.steps]
        result = {
            "completion": text, "healed": made.healed.decode("utf-8", "replace"),
            "closed": made.closed.decode("utf-8", "replace"), "tokens": tokens,
        }  # fmt: skip
        result |= ({"explain": rows} if rows is not None else {}) | ({"provenance": origin.as_json()} if origin else {})
        click.echo(json.dumps(result, indent=1))
        return
    if rows is None:
        click.echo(text, nl=not text.endswith("\n"))
    for row in rows or []:
        largest = sorted(row["experts"], key=lambda e: -e["share"])[:3]
        shares = "  ".join(f"{e['name']} {e['share']:.0%}" for e in largest)
        click.echo(f"{row['text']!r:>18}  p={2 ** -row['bits']:.2f}  {row['concept']:<24} {shares}")
        strongest = largest[0]
        for item in strongest["evidence"][:1]:
            where = f" [{item['file']}:{item['line']}, {item['licence']}]" if item["file"] else ""
            click.echo(f"{'':>20}{strongest['name']}: {item['text']}{where}")
    if origin is not None:
        from cgpt.provenance import OWN

        click.echo(
            f"\n{origin.n_tokens} tokens, {origin.bits:.1f} bits; shares of the log probability (of the tokens):"
        )
        for share in origin.shares:
            if share.log_probability >= 0.0005 or share.tokens >= 0.0005:
                rest = f"{share.licence}  {share.project}" if share.licence else OWN.get(share.source, "")
                click.echo(f"{share.log_probability:>7.1%} ({share.tokens:.1%})  {share.source:<9} {rest}")


@click.command()
@click.argument("model", type=_MODEL)
@click.option("--hf", "out", required=True, type=click.Path(path_type=Path, file_okay=False),
              help="The folder to write, for AutoModelForCausalLM and AutoTokenizer (trust_remote_code).")  # fmt: skip
@click.option("--score", "paths", multiple=True, metavar="PATH",
              help="Score the model on this file or folder for its card; may be repeated.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True)
def export(model: Path, out: Path, paths: tuple[str, ...], as_json: bool) -> None:
    """Export MODEL for Hugging Face transformers, with a model card of measured numbers."""
    from cgpt.export_hf import export as run_export
    from cgpt.model import load
    from cgpt.model_card import Measured
    from cgpt.score import known_files, read_paths, score_files
    from ontology.progress import Progress

    opened = constructed(load(model), model)
    measured = None
    if paths:
        corpus = read_paths(paths)
        with Progress().task("score", total=float(corpus.total_bytes), unit="bytes") as task:
            measured = Measured(
                paths, score_files(opened, corpus.files, task.advance), known_files(model, corpus.files)
            )
    run_export(opened, out, measured)
    click.echo(json.dumps({"out": str(out)}) if as_json else str(out))


COMMANDS = (complete, export)


def _explained(opened: ConstructedLM, made: Completion) -> list[dict]:
    """The record of each generated token."""
    import numpy as np

    from cgpt.complete import heal_point
    from cgpt.explain import Explainer

    explainer = Explainer(opened)
    ids, _ = heal_point(opened, made.prompt)
    view = opened.view(ids)
    rows = []
    for step in made.steps:
        rows.append(explainer.token(view, view.n, step.token))
        view.extend(np.array([step.token], dtype=np.uint16))
    return rows


def constructed(opened: LanguageModel, folder: Path) -> ConstructedLM:
    """The model, if it is a constructed one; raises UsageError for a monolith."""
    from cgpt.model import ConstructedLM

    if not isinstance(opened, ConstructedLM):
        raise UsageError(
            "a monolith has nothing to explain.", fix="give a constructed model (any cut but root)", file=folder
        )
    return opened


def read_input(file: str) -> bytes:
    """The bytes of a file, or of standard input where it is `-`."""
    if file == "-":
        return sys.stdin.buffer.read()
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise ConstructibleError(f"cannot be read ({error.strerror}).", fix="check the path", file=file) from error
