"""Tunes the monolith: learning rate, shape, batch and context, one after another, for a number of seconds each.

    python -m eval.studies.baseline_lr --seconds 180

Chosen on a part of the *training* packages of the standard library, never on those held out for the comparison. A
run that is in the results file is not run again, so the same command continues an interrupted study. Run it on a
quiet machine: the seconds are the budget.
"""

from __future__ import annotations

import hashlib
import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

from cgpt.baseline import BaselineConfig, BaselineTrainer, train_for
from cgpt.corpus import Corpus, read_corpus, sample_by_hash
from ontology.errors import UsageError
from ontology.io import read_json, write_json, write_text

FORMAT = "constructible-study/1"


@dataclass(frozen=True)
class Text:
    """Tokens to train on, and files to choose by (tokens and number of bytes of each)."""

    vocab_size: int
    ids: np.ndarray
    offsets: np.ndarray
    validation: list[tuple[np.ndarray, int]]
    data_hash: str


@dataclass(frozen=True)
class Point:
    """One setting of everything that is tuned."""

    learning_rate: float
    hidden_size: int
    layers: int
    batch_tokens: int
    context: int
    matrix_rate: float = 2e-2

    def changed(self, **values: Any) -> Point:
        return Point(**{**self.__dict__, **values})


def split_validation(corpus: Corpus) -> tuple[Corpus, Corpus]:
    """(train, validation): about a tenth of the packages, by the hash of their names."""

    def is_validation(project: str) -> bool:
        return hashlib.sha256(project.encode()).digest()[0] % 10 == 0

    train = corpus.select(lambda file: not is_validation(file.project), f"{corpus.name}, tuned on")
    return train, corpus.select(lambda file: is_validation(file.project), f"{corpus.name}, chosen by")


def prepare(corpus: Corpus, vocab_size: int, validation_bytes: int) -> Text:
    """Tokenise both parts with a tokenizer that has seen the training part only."""
    from cgpt.tokenizer import Tokenizer

    train, validation = split_validation(corpus)
    tokenizer = Tokenizer.train((file.data for file in train.files), vocab_size)
    ids, offsets = tokenizer.encode_many([file.data for file in train.files])
    chosen = sample_by_hash(validation, validation_bytes).files
    files = [(tokenizer.encode(file.data), len(file.data)) for file in chosen]
    return Text(tokenizer.vocab_size, ids, offsets, files, corpus.data_hash)


def measure(text: Text, point: Point, seconds: float, threads: int, seed: int) -> dict[str, Any]:
    """Train at one point for the seconds and score the validation files; bits are per byte of raw text."""
    config = BaselineConfig.of_shape(
        point.hidden_size,
        point.layers,
        text.vocab_size,
        learning_rate=point.learning_rate,
        matrix_rate=point.matrix_rate,
        batch_tokens=point.batch_tokens,
        context=point.context,
        seed=seed,
    )
    trainer = BaselineTrainer(config, text.ids, text.offsets, threads=threads)
    started, losses = time.perf_counter(), []
    for loss in train_for(trainer, seconds=seconds):
        losses.append(loss)
    used = time.perf_counter() - started
    bits = hits = tokens = total_bytes = 0.0
    model = trainer.model()
    for ids, size in text.validation:
        file_bits, correct = model.score_tokens(ids)
        bits, hits = bits + float(file_bits.sum()), hits + int(correct.sum())
        tokens, total_bytes = tokens + len(file_bits), total_bytes + size
    return {
        **point.__dict__,
        "bits_per_byte": round(bits / total_bytes, 5),
        "accuracy": round(hits / tokens, 5),
        "parameters": config.parameters,
        "steps": len(losses),
        "tokens_per_second": round(len(losses) * config.batch_tokens / used),
        "seconds": round(used, 2),
        "bf16": config.bf16,
        "load": round(os.getloadavg()[0], 2),  # above the number of threads: others were at work, do not trust it
    }


def shapes(target: int, vocab_size: int) -> list[tuple[int, int]]:
    """(width, depth) of about `target` parameters, from narrow and deep to wide and shallow."""
    found = []
    for width in (32, 64, 96, 128, 160, 192, 256, 320):
        sizes = {layers: BaselineConfig.of_shape(width, layers, vocab_size).parameters for layers in range(1, 17)}
        layers = min(sizes, key=lambda layers: abs(math.log(sizes[layers] / target)))
        if abs(sizes[layers] / target - 1) < 0.15:
            found.append((width, layers))
    if not found:
        raise UsageError(f"no shape has about {target:,} parameters.", fix="ask for more, or use fewer tokens")
    return found


def search(
    start: Point, run: Callable[[Point], float], shape_list: Sequence[tuple[int, int]], rounds: int = 1
) -> Point:
    """Improve one setting after another from `start`; `run` gives the bits per byte of a point, lower is better."""
    best = start
    for _ in range(rounds):
        for factor in (0.5, 2.0, 4.0):
            best = min((best, start.changed(learning_rate=start.learning_rate * factor)), key=run)
        for factor in (0.5, 2.0, 4.0):
            best = min((best, best.changed(matrix_rate=start.matrix_rate * factor)), key=run)
        for width, layers in shape_list:
            best = min((best, best.changed(hidden_size=width, layers=layers)), key=run)
        for batch_tokens in (best.batch_tokens // 2, best.batch_tokens * 2):
            best = min((best, best.changed(batch_tokens=batch_tokens)), key=run)
        best = min((best, best.changed(context=best.context // 2)), key=run)
        # The best rate moves with the shape and the batch.
        for factor in (1 / math.sqrt(2), math.sqrt(2)):
            candidate = best.changed(learning_rate=float(f"{best.learning_rate * factor:.2g}"))
            best = min((best, candidate), key=run)
        start = best
    return best


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The runs as a Markdown table, best first."""
    names = ["bits/byte", "accuracy", "rate of embeddings", "rate of matrices", "width x depth", "batch", "context"]
    names += ["parameters", "steps", "tokens/s", "load"]
    lines = [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    for row in sorted(rows, key=lambda row: row["bits_per_byte"]):
        lines.append(
            f"| {row['bits_per_byte']:.4f} | {row['accuracy']:.1%} | {row['learning_rate']:.2g} "
            f"| {row['matrix_rate']:.2g} | {row['hidden_size']} x {row['layers']} | {row['batch_tokens']:,} "
            f"| {row['context']} | {row['parameters']:,} | {row['steps']:,} "
            f"| {row['tokens_per_second']:,} | {row['load']:.1f} |"
        )
    return "\n".join(lines)


def document(record: dict[str, Any]) -> str:
    """The write-up of the study."""
    setting = record["setting"]
    options = f"--seconds {setting['seconds']:g} --parameters {setting['parameters']}"
    return (
        "# Tuning the monolithic baseline\n\n"
        f"`python -m eval.studies.baseline_lr {options}` on {setting['threads']} threads, seed {setting['seed']}. "
        "Trained on about nine tenths of the packages of the corpus and chosen on the others (with the standard "
        "library: of its training packages; the "
        "held-out ones were not looked at). One seed per row: differences under about 1 % are noise. `load` above the "
        "number of threads means that the machine was shared and the row is too pessimistic.\n\n"
        + table(record["rows"])
        + "\n"
    )


@click.command()
@click.option("--seconds", type=float, default=180.0, show_default=True, help="Training budget of each run.")
@click.option("--parameters", type=int, default=3_000_000, show_default=True, help="Size aimed at.")
@click.option("--vocab-size", type=int, default=8192, show_default=True, help="Tokens.")
@click.option("--learning-rate", type=float, default=8e-3, show_default=True, help="Where the search starts.")
@click.option("--batch-tokens", type=int, default=4096, show_default=True, help="Where the search starts.")
@click.option("--validation-bytes", type=int, default=300_000, show_default=True, help="Text to choose by.")
@click.option("--threads", type=int, default=2, show_default=True, help="Threads of torch.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of weights and data order.")
@click.option("--max-runs", type=int, default=None, help="Stop after this many new runs; the same command continues.")
@click.option("--corpus", default="stdlib:train", show_default=True, help="A tenth of its projects chooses.")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("docs/experiments"),
    show_default=True,
    help="Folder for baseline_lr.json and baseline_lr.md.",
)
def main(
    seconds: float,
    parameters: int,
    vocab_size: int,
    learning_rate: float,
    batch_tokens: int,
    validation_bytes: int,
    threads: int,
    seed: int,
    max_runs: int | None,
    corpus: str,
    out: Path,
) -> None:
    """Search for the baseline's best settings and write the table down."""
    text = prepare(read_corpus(corpus), vocab_size, validation_bytes)
    setting = {
        "seconds": seconds, "parameters": parameters, "vocab_size": text.vocab_size, "threads": threads, "seed": seed,
        "data_hash": text.data_hash, "validation_bytes": validation_bytes,
    }  # fmt: skip
    path = out / "baseline_lr.json"
    record = read_json(path) if path.is_file() else {}
    if record.get("setting") != setting:
        if record:
            click.echo(f"{path} is of another setting and is replaced.", err=True)
        record = {"format": FORMAT, "setting": setting, "rows": []}
    done = {_point_of(row): row["bits_per_byte"] for row in record["rows"]}
    runs = 0

    def run(point: Point) -> float:
        nonlocal runs
        if point not in done:
            if max_runs is not None and runs >= max_runs:
                raise _Enough
            runs += 1
            row = measure(text, point, seconds, threads, seed)
            record["rows"].append(row)
            done[point] = row["bits_per_byte"]
            write_json(path, record)
            write_text(out / "baseline_lr.md", document(record))
            click.echo(f"{point} -> {row['bits_per_byte']:.4f} bits/byte, {row['steps']} steps", err=True)
        return done[point]

    candidates = shapes(parameters, text.vocab_size)
    width, layers = min(candidates, key=lambda shape: abs(math.log(shape[0] / shape[1] / 48)))
    try:
        search(Point(learning_rate, width, layers, batch_tokens, 256), run, candidates)
    except _Enough:
        click.echo(f"stopped after {runs} runs; the same command continues.", err=True)
    click.echo(table(record["rows"]))


class _Enough(Exception):
    """As many runs were made as were asked for."""


def _point_of(row: dict[str, Any]) -> Point:
    return Point(**{name: row[name] for name in Point.__dataclass_fields__})


if __name__ == "__main__":
    main()
