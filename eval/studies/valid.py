"""What `--valid` keeps out and what it costs: `python -m eval.studies.valid MODEL CORPUS [--completions 10000]`.

Prompts are beginnings of unseen files that compile and end at a border between statements. From each one the model
completes a statement with and without `--valid` (without: until the lexer says that a statement has ended). Counted are
errors by kind (`cgpt.valid.python_error`), and how often the completion is the statement that did stand there, exactly
and by edit similarity. Prompt i depends on the seed and i alone; results are kept every few completions, and the same
command again resumes. Writes OUT.json and prints the summary.
"""

from __future__ import annotations

import argparse
import difflib
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from cgpt.complete import Sampling, complete, steps
from cgpt.corpus import Corpus, read_corpus
from cgpt.model import ConstructedLM, MonolithLM, load
from cgpt.valid import KINDS, Checker, python_error
from ontology.environment import describe
from ontology.io import read_json, write_json
from ontology.main import exit_code
from ontology.progress import Progress
from ontology.stats import bootstrap_ratio

FORMAT = "constructible-valid-study/1"
MAX_PROMPT_BYTES = 20_000
EVERY = 25


class Follower(Checker):
    """A checker that lets everything pass and only says where a statement has ended."""

    def __init__(self, prompt: bytes) -> None:
        super().__init__(prompt)
        self._start = len(prompt)

    def length(self, piece: bytes, soft: bool = True) -> int:
        """All of `piece`."""
        return len(piece)

    def accept(self, piece: bytes, soft: bool = True) -> bytes:
        """Read `piece` up to where a statement ends in it."""
        for end in (at + 1 for at, byte in enumerate(piece) if byte == 10):
            if Checker(self.text + piece[:end]).has_ended(self._start):
                self.ended = True
                piece = piece[:end]
                break
        self._n = self._write(piece)
        return piece


def prompt_of(corpus: Corpus, seed: int, number: int) -> tuple[bytes, bytes, int]:
    """(prompt, the statement that followed, file) number `number`: the same whatever else was drawn."""
    random = np.random.default_rng((seed, number))
    while True:
        which = int(random.integers(len(corpus.files)))
        data = corpus.files[which].data
        lines = data.splitlines(keepends=True)
        at = int(random.integers(len(lines)))
        prompt = b"".join(lines[:at])
        if len(prompt) > MAX_PROMPT_BYTES or python_error(prompt) is not None:
            continue
        follower = Follower(prompt)
        truth = follower.accept(data[len(prompt) :])
        if follower.ended and truth.strip():
            return prompt, truth, which


def one(model: ConstructedLM | MonolithLM, corpus: Corpus, number: int, options: argparse.Namespace) -> dict[str, Any]:
    """Both completions from one prompt, judged."""
    prompt, truth, which = prompt_of(corpus, options.seed, number)
    row: dict[str, Any] = {"number": number, "file": which}
    for name in ("free", "valid"):
        started = time.monotonic()
        closed = b""
        if name == "valid":
            made = complete(model, prompt, options.max_tokens, options.temperature, number, valid=True)
            text, count, closed = made.text, len(made.steps), made.closed
        else:
            follower = Follower(prompt)
            sampling = Sampling(options.temperature, seed=number)
            found = list(steps(model, prompt, options.max_tokens, sampling, checker=follower))
            text, count = b"".join(step.text for step in found), len(found)
        error = python_error(prompt + text)
        row[name] = {
            "error": error[0] if error else "", "message": error[1] if error else "", "tokens": count,
            "exact": text.strip() == truth.strip(), "closed": len(closed),
            "similarity": difflib.SequenceMatcher(None, text.strip(), truth.strip(), autojunk=False).ratio(),
            "seconds": time.monotonic() - started,
        }  # fmt: skip
    return row


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Errors by kind, exact matches and similarity with 95 % intervals over files, for both ways."""
    files = sorted({row["file"] for row in rows})
    place = {file: k for k, file in enumerate(files)}
    result: dict[str, Any] = {"completions": len(rows), "files": len(files)}
    ones = np.zeros(len(files))
    np.add.at(ones, [place[row["file"]] for row in rows], 1.0)
    for name in ("free", "valid"):
        kinds = [row[name]["error"] for row in rows]
        messages: dict[str, int] = {}
        for row in rows:
            if row[name]["message"]:
                key = f"{row[name]['error']}: {row[name]['message']}"
                messages[key] = messages.get(key, 0) + 1
        entry: dict[str, Any] = {
            "errors": {kind: kinds.count(kind) for kind in KINDS}, "compile": kinds.count(""),
            "closed_by_code": sum(row[name]["closed"] > 0 for row in rows),
            "tokens": sum(row[name]["tokens"] for row in rows),
            "messages": dict(sorted(messages.items(), key=lambda item: -item[1])[:20]),
        }  # fmt: skip
        for figure in ("exact", "similarity"):
            sums = np.zeros(len(files))
            np.add.at(sums, [place[row["file"]] for row in rows], [float(row[name][figure]) for row in rows])
            entry |= bootstrap_ratio(sums, ones).as_dict(figure)
        result[name] = entry
    return result


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Do what is left to do, and write the result."""
    key = {
        "format": FORMAT, "model": str(options.model), "corpus": str(options.corpus), "seed": options.seed,
        "temperature": options.temperature, "max_tokens": options.max_tokens,
    }  # fmt: skip
    rows: list[dict[str, Any]] = []
    if options.out.exists():
        kept = read_json(options.out)
        rows = kept["rows"] if kept.get("key") == key else []
    corpus, model = read_corpus(str(options.corpus)), load(options.model)
    result: dict[str, Any] = {}
    with Progress().task("complete", total=float(options.completions), unit="statements") as task:
        task.advance(len(rows))
        while len(rows) < options.completions:
            rows.append(one(model, corpus, len(rows), options))
            task.advance(1)
            if len(rows) % EVERY == 0 or len(rows) == options.completions:
                write_json(options.out, {"key": key, "environment": describe(), "rows": rows})
    rows = rows[: options.completions]
    result = {"key": key, "environment": describe(), "summary": summary(rows), "rows": rows}
    write_json(options.out, result)
    return result["summary"]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("corpus", help="unseen files: a folder, a Parquet file, stdlib:held-out")
    parser.add_argument("--completions", type=int, default=10_000)
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--max-tokens", type=int, default=96)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/valid.json"))
    print(json.dumps(run(parser.parse_args()), indent=1))


if __name__ == "__main__":
    sys.exit(exit_code(main))
