"""Bits per byte, next-token and whole-lexical-token accuracy, in all and by situation."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np

from cgpt.corpus import SourceFile
from cgpt.pieces import pieces
from cgpt.score import FileScore, read_paths
from eval.models import EvalModel
from eval.tasks.base import Example, Measured, Metric, Options, Task


def files(options: Options) -> list[Example]:
    """The files to score, each an example; the cluster is its project."""
    corpus = read_paths([options.data])
    seen: dict[str, int] = {}
    examples = []
    for file in corpus.files:
        name = f"{file.project}/{file.path}" if not file.path.startswith(f"{file.project}/") else file.path
        seen[name] = seen.get(name, 0) + 1
        if seen[name] > 1:  # two snapshots of one file
            name = f"{name}#{seen[name]}"
        examples.append(Example(name, file.project, file, file.sha256, file.fingerprint, texts={file.path: file.data}))
    return examples


def first_by_hash(examples: Sequence[Example], limit: int | None, salt: str) -> list[Example]:
    """At most `limit` examples in an order of hashes: a smaller limit gives a part of a larger one."""
    order = sorted(examples, key=lambda example: hashlib.sha256(f"{salt} {example.id}".encode()).digest())
    return sorted(order[:limit], key=lambda example: example.id)


def lexical_spans(data: bytes) -> np.ndarray:
    """int64[k, 2]: begin and end of every lexical token of a file, the same for all models: identifiers, numbers,
    operators, brackets, quotes, and the words of strings and comments; white space belongs to none."""
    array = np.frombuffer(data, dtype=np.uint8)
    starts = pieces(array).astype(np.int64)
    spans = np.stack([starts, np.append(starts[1:], len(data))], axis=1) if len(starts) else np.zeros((0, 2), np.int64)
    visible = np.concatenate([[0], np.cumsum(~np.isin(array, np.frombuffer(b" \t\r\n\f", dtype=np.uint8)))])
    kept = spans[visible[spans[:, 1]] > visible[spans[:, 0]]]
    # A piece may carry the one space before it; a model need not predict it as a part of the word.
    return kept + np.stack([array[kept[:, 0]] == 32, np.zeros(len(kept), dtype=np.bool_)], axis=1)


def whole_tokens(data: bytes, score: FileScore) -> tuple[int, int]:
    """(lexical tokens all of whose model tokens were predicted right, lexical tokens) of a scored file."""
    spans = lexical_spans(data)
    ends = np.cumsum(score.token_bytes[:-1].astype(np.int64))
    starts = ends - score.token_bytes[:-1]
    wrong = np.concatenate([[0], np.cumsum(~score.correct[:-1])])
    # Model tokens from the one that holds the first byte to the one that holds the last.
    first = np.searchsorted(ends, spans[:, 0], side="right")
    last = np.searchsorted(starts, spans[:, 1], side="left")
    return int((wrong[last] == wrong[first]).sum()), len(spans)


def measure(model: EvalModel, example: Example) -> Iterable[Measured]:
    """One file: sums over the whole, and over each situation."""
    file: SourceFile = example.data
    score = model.score_file(file)
    right, spans = whole_tokens(file.data, score)
    opaque = model.opaque_parameters(score)
    yield Measured({
        "bits": float(score.bits.sum()), "bytes": len(file.data), "bytes_said": float(score.token_bytes.sum()),
        "tokens": len(score.bits), "correct": float(score.correct.sum()), "whole_correct": right,
        "whole_tokens": spans, "opaque": float(opaque.sum()),
    })  # fmt: skip
    size = len(model.concepts)
    sums = {
        "bits": np.bincount(score.concept, score.bits, size),
        "bytes": np.bincount(score.concept, score.token_bytes, size),
        "tokens": np.bincount(score.concept, None, size), "correct": np.bincount(score.concept, score.correct, size),
        "opaque": np.bincount(score.concept, opaque, size),
    }  # fmt: skip
    for c in np.flatnonzero(sums["tokens"]):
        yield Measured({name: float(column[c]) for name, column in sums.items()}, model.concepts[c])


BITS = Task(
    name="bits",
    version=1,
    question="How well does the model predict code that it has not seen, token by token?",
    columns=("bits", "bytes", "bytes_said", "tokens", "correct", "whole_correct", "whole_tokens", "opaque"),
    metrics=(
        Metric("bits per byte", "bits", "bytes", "lower", whole_bottom=True),
        Metric("next-token accuracy", "correct", "tokens", percent=True, own_units=True),
        Metric("whole-token accuracy", "whole_correct", "whole_tokens", percent=True),
        Metric("bytes per token", "bytes", "tokens", "neither", digits=2, own_units=True),
        Metric("opaque parameters per decision", "opaque", "tokens", "lower", digits=0),
    ),
    load=files,
    measure=measure,
    needs=frozenset({"score"}),
)
