"""`constructible cgpt complete`: what a finished model is used for, and the options of that."""

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
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--explain", is_flag=True, help="Show for each token the concept in charge and what it rests on.")
@click.option("--json", "as_json", is_flag=True)
def complete(
    model: Path, file: str, max_tokens: int, line: bool, valid: bool, temperature: float, top_k: int, top_p: float,
    seed: int, explain: bool, as_json: bool,
) -> None:  # fmt: skip
    """Complete FILE (- reads standard input) and print what is added."""
    from cgpt.complete import complete as run_complete
    from cgpt.model import load

    if line and valid:
        raise UsageError("--line and --valid end at different places.", fix="give one of them")
    prompt = read_input(file)
    opened = load(model)
    made = run_complete(
        opened, prompt, max_tokens, temperature, seed, top_k=top_k, top_p=top_p, line=line, valid=valid
    )  # fmt: skip
    text = made.text.decode("utf-8", "replace")
    rows = _explained(opened, made) if explain else None
    if as_json:
        tokens = [{"text": s.text.decode("utf-8", "replace"), "probability": s.probability} for s in made.steps]
        result = {
            "completion": text, "healed": made.healed.decode("utf-8", "replace"),
            "closed": made.closed.decode("utf-8", "replace"), "tokens": tokens,
        }  # fmt: skip
        click.echo(json.dumps(result | ({"explain": rows} if rows is not None else {}), indent=1))
        return
    if rows is None:
        click.echo(text, nl=not text.endswith("\n"))
        return
    for row in rows:
        largest = sorted(row["experts"], key=lambda e: -e["share"])[:3]
        shares = "  ".join(f"{e['name']} {e['share']:.0%}" for e in largest)
        click.echo(f"{row['text']!r:>18}  p={2 ** -row['bits']:.2f}  {row['concept']:<24} {shares}")
        strongest = largest[0]
        for item in strongest["evidence"][:1]:
            where = f" [{item['file']}:{item['line']}, {item['licence']}]" if item["file"] else ""
            click.echo(f"{'':>20}{strongest['name']}: {item['text']}{where}")


COMMANDS = (complete,)


def _explained(opened: LanguageModel, made: Completion) -> list[dict]:
    """The record of each generated token; none for a monolith."""
    import numpy as np

    from cgpt.complete import heal_point
    from cgpt.explain import Explainer
    from cgpt.model import ConstructedLM

    if not isinstance(opened, ConstructedLM):
        return []
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
