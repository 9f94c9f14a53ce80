"""Tunes the monolith at equal seconds: bigrams, heads, rates, batch, context and shape, one after another.

    python -m eval.studies.baseline_lr --corpus DATA/train.parquet --validation DATA/validation.parquet

Chosen on validation files, or, without `--validation`, on about a tenth of the corpus' projects, which are then not
trained on; never on those held out for a comparison. A run that is in the results file is not run again, so the same
command continues an interrupted study.

The seconds are not the wall's: what one step takes is measured beforehand, in turns with the first setting's, and the
least of several counts. So others at work on the machine change neither the number of steps nor the result.
"""

from __future__ import annotations

import hashlib
import math
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import click
import numpy as np

from cgpt.baseline import BaselineConfig, BaselineTrainer, train_for
from cgpt.corpus import Corpus, load_sample, read_corpus, sample_by_hash
from ontology.errors import UsageError
from ontology.io import read_json, write_json, write_text
from ontology.main import run

FORMAT = "constructible-study/2"
STAGES = ("bigrams", "heads", "rates", "batch", "context", "shape", "seeds")


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
    """One setting of everything that is tuned, named as in BaselineConfig."""

    learning_rate: float
    matrix_rate: float
    hidden_size: int
    layers: int
    intermediate_size: int
    batch_tokens: int
    context: int
    head_width: int
    bigram_rows: int
    bigram_width: int = 32
    bigram_rate: float = 0.3
    seed: int = 0

    def changed(self, **values: Any) -> Point:
        return replace(self, **values)

    def config(self, vocab_size: int) -> BaselineConfig:
        """The monolith at this point."""
        return replace(BaselineConfig.of_shape(self.hidden_size, self.layers, vocab_size), **asdict(self))

    @property
    def work(self) -> Point:
        """What a step's seconds depend on: all but rates and seed."""
        return self.changed(learning_rate=0.0, matrix_rate=0.0, bigram_rate=0.0, seed=0)


def split_validation(corpus: Corpus) -> tuple[Corpus, Corpus]:
    """(train, validation): about a tenth of the projects, by the hash of their names."""

    def is_validation(project: str) -> bool:
        return hashlib.sha256(project.encode()).digest()[0] % 10 == 0

    train = corpus.select(lambda file: not is_validation(file.project), f"{corpus.name}, tuned on")
    return train, corpus.select(lambda file: is_validation(file.project), f"{corpus.name}, chosen by")


def prepare(train: Corpus, validation: Corpus, vocab_size: int) -> Text:
    """Tokenise both with a tokenizer that has seen the training part only."""
    from cgpt.tokenizer import Tokenizer

    tokenizer = Tokenizer.train((file.data for file in train.files), vocab_size)
    ids, offsets = tokenizer.encode_many([file.data for file in train.files])
    files = [(tokenizer.encode(file.data), len(file.data)) for file in validation.files]
    return Text(tokenizer.vocab_size, ids, offsets, files, f"{train.data_hash} {validation.data_hash}")


def step_seconds(text: Text, points: Sequence[Point], threads: int, turns: int = 8) -> list[float]:
    """What a step of each point takes while nobody disturbs it: the least of several, taken in turns."""
    trainers = [
        BaselineTrainer(point.config(text.vocab_size), text.ids, text.offsets, threads=threads) for point in points
    ]
    clock = time.process_time if threads == 1 else time.perf_counter
    least = [math.inf] * len(points)
    for turn in range(turns):
        for number, trainer in enumerate(trainers):
            begin = clock()
            trainer.step(turn)
            least[number] = min(least[number], clock() - begin)
    return least


def measure(text: Text, point: Point, seconds: float, step: float, threads: int) -> dict[str, Any]:
    """Train at one point for the seconds, each step counted as `step`, and score the validation files.

    Bits are per byte of raw text.
    """
    config = point.config(text.vocab_size)
    trainer = BaselineTrainer(config, text.ids, text.offsets, threads=threads)
    steps = sum(1 for _ in train_for(trainer, steps=max(1, round(seconds / step))))
    bits = hits = tokens = total_bytes = 0.0
    model = trainer.model()
    for ids, size in text.validation:
        file_bits, correct = model.score_tokens(ids)
        bits, hits = bits + float(file_bits.sum()), hits + int(correct.sum())
        tokens, total_bytes = tokens + len(file_bits), total_bytes + size
    return {
        **asdict(point),
        "bits_per_byte": round(bits / total_bytes, 5),
        "accuracy": round(hits / tokens, 5),
        "parameters": config.parameters,
        "steps": steps,
        "step_seconds": round(step, 4),
        "bf16": config.bf16,
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


Run = Callable[[Point], float]  # bits per byte at a point: lower is better


def climb(best: Point, name: str, run: Run, factor: float = 2.0) -> Point:
    """Divide or multiply one number for as long as that helps."""
    for step in (1 / factor, factor):
        while True:
            value = getattr(best, name) * step
            candidate = best.changed(**{name: float(f"{value:.2g}") if name.endswith("rate") else round(value)})
            if run(candidate) >= run(best):
                break
            best = candidate
    return best


def without_bigrams(point: Point) -> Point:
    """The table's parameters put into the feed-forward layers."""
    freed = point.bigram_rows * point.bigram_width // (3 * point.hidden_size * point.layers)
    return point.changed(bigram_rows=0, intermediate_size=(point.intermediate_size + freed) // 32 * 32)


def search(start: Point, run: Run, shape_list: Sequence[BaselineConfig] = (), stages: Iterable[str] = STAGES) -> Point:
    """Improve one thing after another from `start`, in the order of STAGES."""
    best = start
    for stage in STAGES:
        if stage not in stages:
            continue
        if stage == "bigrams":
            best = min((best, without_bigrams(best), best.changed(bigram_rate=0.1)), key=run)
        elif stage == "heads":
            best = min((best, best.changed(head_width=32)), key=run)
        elif stage == "rates":
            best = climb(climb(best, "learning_rate", run), "matrix_rate", run)
        elif stage == "batch":
            best = climb(best, "batch_tokens", run)
        elif stage == "context":
            best = min((best, best.changed(context=best.context // 2)), key=run)
        elif stage == "shape":
            names = ("hidden_size", "layers", "intermediate_size", "head_width")
            shaped = [best.changed(**{name: getattr(shape, name) for name in names}) for shape in shape_list]
            best = min((best, *shaped), key=run)
        else:  # is the difference more than what another seed makes?
            for seed in (1, 2):
                for point in dict.fromkeys((start, without_bigrams(start), best)):
                    run(point.changed(seed=seed))
    return best


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The runs as a Markdown table, best first."""
    names = ["bits/byte", "accuracy", "rate of embeddings", "rate of matrices", "width x depth x SwiGLU", "batch"]
    names += ["context", "head", "bigrams", "their rate", "seed", "parameters", "steps", "seconds per step"]
    lines = [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    for row in sorted(rows, key=lambda row: row["bits_per_byte"]):
        bigrams = f"{row['bigram_rows']:,} x {row['bigram_width']}" if row["bigram_rows"] else "-"
        rate = f"{row['bigram_rate'] * row['learning_rate']:.2g}" if row["bigram_rows"] else "-"
        lines.append(
            f"| {row['bits_per_byte']:.4f} | {row['accuracy']:.1%} | {row['learning_rate']:.2g} "
            f"| {row['matrix_rate']:.2g} | {row['hidden_size']} x {row['layers']} x {row['intermediate_size']} "
            f"| {row['batch_tokens']:,} | {row['context']} | {row['head_width']} | {bigrams} "
            f"| {rate} | {row['seed']} "
            f"| {row['parameters']:,} | {row['steps']:,} | {row['step_seconds']:.3f} |"
        )
    return "\n".join(lines)


def document(record: dict[str, Any]) -> str:
    """The write-up of the study."""
    setting = record["setting"]
    options = f"--seconds {setting['seconds']:g} --parameters {setting['parameters']} --threads {setting['threads']}"
    arithmetic = "bfloat16" if all(row["bf16"] for row in record["rows"]) else "float32"
    return (
        "# Tuning the monolithic baseline\n\n"
        f"`python -m eval.studies.baseline_lr {options}` with the corpora named here, products in {arithmetic}: "
        f"{setting['train_bytes']:,} bytes to train on ({setting['train']}), {setting['validation_bytes']:,} to choose "
        f"by ({setting['validation']}), {setting['vocab_size']:,} tokens. A setting's number of steps is the seconds "
        "divided by what its step takes while nobody disturbs it (`seconds per step`), so that others at work on the "
        "machine do not count. Rows of equal size differ in where the parameters are.\n\n"
        + table(record["rows"])
        + "\n"
    )


@click.command()
@click.option("--seconds", type=float, default=100.0, show_default=True, help="Training budget of each run.")
@click.option("--parameters", type=int, default=3_100_000, show_default=True, help="Size aimed at.")
@click.option("--vocab-size", type=int, default=8192, show_default=True, help="Tokens.")
@click.option("--learning-rate", type=float, default=4e-3, show_default=True, help="Where the search starts.")
@click.option("--matrix-rate", type=float, default=2e-2, show_default=True, help="Where the search starts.")
@click.option("--batch-tokens", type=int, default=4096, show_default=True, help="Where the search starts.")
@click.option("--threads", type=int, default=1, show_default=True, help="Threads of torch.")
@click.option("--stage", "stages", multiple=True, type=click.Choice(STAGES), help="Only this part; may be repeated.")
@click.option("--max-runs", type=int, default=None, help="Stop after this many new runs; the same command continues.")
@click.option("--corpus", default="stdlib:train", show_default=True, help="What to train on.")
@click.option("--sample", default=None, help="Only this committed list of its files (cgpt/samples).")
@click.option("--train-bytes", type=int, default=16_000_000, show_default=True, help="At most; files by hash.")
@click.option("--validation", default=None, help="What to choose by; by default a tenth of the corpus' projects.")
@click.option("--validation-bytes", type=int, default=300_000, show_default=True, help="At most; files by hash.")
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
    matrix_rate: float,
    batch_tokens: int,
    threads: int,
    stages: tuple[str, ...],
    max_runs: int | None,
    corpus: str,
    sample: str | None,
    train_bytes: int,
    validation: str | None,
    validation_bytes: int,
    out: Path,
) -> None:
    """Search for the baseline's best settings and write the table down."""
    train = read_corpus(corpus)
    train = load_sample(sample, train) if sample else train
    train, chosen = (train, read_corpus(validation)) if validation else split_validation(train)
    train, chosen = sample_by_hash(train, train_bytes), sample_by_hash(chosen, validation_bytes)
    text = prepare(train, chosen, vocab_size)
    setting = {
        "seconds": seconds, "parameters": parameters, "vocab_size": text.vocab_size, "threads": threads,
        "data_hash": text.data_hash, "train": _shown(train), "train_bytes": train.total_bytes,
        "validation": _shown(chosen), "validation_bytes": chosen.total_bytes,
    }  # fmt: skip
    path = out / "baseline_lr.json"
    record = read_json(path) if path.is_file() else {}
    if record.get("setting") != setting:
        if record:
            click.echo(f"{path} is of another setting and is replaced.", err=True)
        record = {"format": FORMAT, "setting": setting, "rows": []}
    done = {_point_of(row): row["bits_per_byte"] for row in record["rows"]}
    costs = {_point_of(row).work: row["step_seconds"] for row in record["rows"]}
    shape = BaselineConfig.of_size(parameters, text.vocab_size)
    start = Point(
        learning_rate,
        matrix_rate,
        shape.hidden_size,
        shape.layers,
        shape.intermediate_size,
        batch_tokens,
        shape.context,
        shape.head_width,
        shape.bigram_rows,
    )
    runs = 0

    def cost(point: Point) -> float:
        if point.work not in costs:
            if point.work == start.work:
                (costs[point.work],) = step_seconds(text, [point], threads)
            else:  # by the ratio, since the whole machine may be slower today
                reference, other = step_seconds(text, [start, point], threads)
                costs[point.work] = cost(start) * other / reference
        return costs[point.work]

    def run(point: Point) -> float:
        nonlocal runs
        if point not in done:
            if max_runs is not None and runs >= max_runs:
                raise _Enough
            runs += 1
            row = measure(text, point, seconds, cost(point), threads)
            record["rows"].append(row)
            done[point] = row["bits_per_byte"]
            write_json(path, record)
            write_text(out / "baseline_lr.md", document(record))
            click.echo(f"{point} -> {row['bits_per_byte']:.4f} bits/byte, {row['steps']} steps", err=True)
        return done[point]

    try:
        found = [
            BaselineConfig.of_shape(width, layers, text.vocab_size)
            for width, layers in shapes(parameters, text.vocab_size)
        ]
        search(start, run, found, stages or STAGES)
    except _Enough:
        click.echo(f"stopped after {runs} runs; the same command continues.", err=True)
    click.echo(table(record["rows"]))


class _Enough(Exception):
    """As many runs were made as were asked for."""


def _point_of(row: dict[str, Any]) -> Point:
    return Point(**{field.name: row[field.name] for field in fields(Point)})


def _shown(corpus: Corpus) -> str:
    """The corpus' name without the folder that it lies in on this machine."""
    return corpus.name.rsplit("/", 1)[-1]


if __name__ == "__main__":
    sys.exit(run(main))
