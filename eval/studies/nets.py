"""Study of the neural part alone: shape, learning rates, routing: `python -m eval.studies.nets [--steps N]`.

Every variant trains for the same number of steps on the same files and is judged on the files that the mixer would
learn from (training packages; never held-out packages). Results go to docs/experiments/nets.json and nets.md; variants
that are there already are not run again.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from cgpt import lexer
from cgpt.corpus import read_corpus
from cgpt.data import TokenizedCorpus, held_out_files, training_rows
from cgpt.fit_mixer import net_probabilities
from cgpt.model import HERE
from cgpt.nets import Examples, NetShape, NetTrainer, declared_reads
from cgpt.reads import READS, Alphabet
from cgpt.tokenizer import Tokenizer
from ontology.environment import describe, threads
from ontology.io import read_json, write_json, write_text
from ontology.main import exit_code
from ontology.progress import Progress
from ontology.routers import Router
from ontology.schema import Ontology
from ontology.waiting import threads_wait_briefly

RESULTS = Path("docs/experiments/nets.json")
BASE = NetShape()
VARIANTS: dict[str, dict[str, Any]] = {
    "situations, declared reads": {},
    "one net, every read, no routing": {"routing": "one"},
    "one net, hidden 384": {"routing": "one", "shape": {"hidden": 384}},
    "situations, every read": {"reads": "all"},
    "random situations, every read": {"routing": "random", "reads": "all"},
    "own rate 1": {"shape": {"own_rate": 1.0}},
    "own rate 0.1": {"shape": {"own_rate": 0.1}},
    "beta2 0.98": {"shape": {"beta2": 0.98}},
    "learning rate 5e-3": {"shape": {"learning_rate": 5e-3}},
    "learning rate 1.2e-2": {"shape": {"learning_rate": 1.2e-2}},
    "hidden 384": {"shape": {"hidden": 384}},
    "d_in 32": {"shape": {"d_in": 32}},
    "d_in 64": {"shape": {"d_in": 64}},
    "d_out 96": {"shape": {"d_out": 96}},
}


def run(steps: int, corpus_name: str, only: list[str]) -> None:
    """Run the variants that are missing and write both files."""
    import torch

    torch.set_num_threads(threads())
    progress = Progress()
    corpus = read_corpus(corpus_name)
    vocab_size = 4096
    tokenizer = Tokenizer.train([file.data for file in corpus.files], vocab_size)
    ids, offsets = tokenizer.encode_many([file.data for file in corpus.files])
    data = TokenizedCorpus(ids, offsets, held_out_files(corpus.files))
    ontology, router = Ontology.load(HERE / "ontology.yaml"), Router.load(HERE / "router.py", lexer.FIELDS)
    alphabet = Alphabet.of(tokenizer)
    train = training_rows(data, np.flatnonzero(~data.held_out).tolist(), alphabet, router)
    judge = training_rows(data, data.mixer_files(), alphabet, router)
    judge_bytes = sum(len(corpus.files[i].data) for i in data.mixer_files())
    key = {"steps": steps, "corpus": corpus.data_hash}
    stored = read_json(RESULTS) if RESULTS.exists() else {"runs": {}}
    runs = stored["runs"]
    for name in only or list(VARIANTS):
        variant = VARIANTS[name]
        if runs.get(name, {}).get("key") == key:
            continue
        shape = replace(BASE, **variant.get("shape", {}))
        concepts, train_module, judge_module = _modules(variant.get("routing"), router, train, judge)
        every = variant.get("reads") == "all" or variant.get("routing") == "one"
        reads = [list(READS) if every else list(ontology[name].reads) for name in concepts]
        trainer = NetTrainer(
            concepts, declared_reads(reads), Examples(train[0], train_module, train[2]), vocab_size, shape
        )
        started, losses = time.monotonic(), []
        with progress.task(name, total=float(steps)) as task:
            for step in range(steps):
                trainer.set_progress(step / steps)
                losses.append(trainer.step(step))
                task.advance(1)
        seconds = time.monotonic() - started
        nets = trainer.finish()
        net_of = np.arange(len(concepts), dtype=np.int32)
        p, _ = net_probabilities(nets, net_of, judge_module.astype(np.int64), judge[0], judge[2])
        runs[name] = {
            "key": key, "bits_per_byte": float(-np.log2(p).sum() / judge_bytes), "parameters": nets.parameters,
            "train_bits": float(np.mean(losses[-100:]) / np.log(2)), "seconds": round(seconds, 1),
            "shape": asdict(shape),
        }  # fmt: skip
        write_json(RESULTS, {"environment": describe(), "steps": steps, "corpus": corpus_name, "runs": runs})
        write_text(RESULTS.with_suffix(".md"), _page(steps, corpus_name, runs))


def _modules(
    routing: str | None, router: Router, train: tuple[np.ndarray, ...], judge: tuple[np.ndarray, ...]
) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Concepts and the module of every training and judged position."""
    if routing == "one":
        return ["python"], np.zeros(len(train[1]), np.int16), np.zeros(len(judge[1]), np.int16)
    if routing == "random":
        # A situation that says nothing: drawn from the last token and the depth, as many as there are real ones.
        random = np.random.default_rng(0).integers(0, len(router.concepts), 1 << 16)
        return (
            list(router.concepts),
            random[train[0][:, 0].astype(np.int64) * 7 % (1 << 16)].astype(np.int16),
            random[judge[0][:, 0].astype(np.int64) * 7 % (1 << 16)].astype(np.int16),
        )
    return list(router.concepts), train[1].astype(np.int16), judge[1].astype(np.int16)


def _page(steps: int, corpus_name: str, runs: dict[str, Any]) -> str:
    rows = "\n".join(
        f"| {name} | {row['bits_per_byte']:.4f} | {row['parameters']:,} | {row['seconds']:.0f} |"
        for name, row in sorted(runs.items(), key=lambda item: item[1]["bits_per_byte"])
    )
    return f"""# The neural part alone

`python -m eval.studies.nets --steps {steps} --corpus {corpus_name}`: bits per byte of the nets by themselves (no
counts, no names) on the files that the mixer learns from, after {steps} steps of {BASE.batch_rows} positions; one
seed, so differences below about 0.5 % mean nothing. Seconds are of a shared machine. Unless said otherwise:
{asdict(BASE)}.

| variant | bits/byte | parameters | seconds |
| --- | ---: | ---: | ---: |
{rows}
"""


def main() -> None:
    """Command line."""
    threads_wait_briefly()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--corpus", default="stdlib:train")
    parser.add_argument("--only", nargs="*", default=[], choices=list(VARIANTS))
    options = parser.parse_args()
    run(options.steps, options.corpus, options.only)


if __name__ == "__main__":
    sys.exit(exit_code(main))
