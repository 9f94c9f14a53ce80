"""A small corpus and a small model for tests, made from this interpreter's own library."""

from __future__ import annotations

from pathlib import Path

from cgpt.build import Recipe, build
from cgpt.corpus import Corpus, SourceFile, read_corpus
from cgpt.nets import NetShape
from ontology.environment import usable_cpus
from ontology.fit import Budget, Fitted
from ontology.progress import Progress

SHAPE = NetShape(d_in=8, hidden=32, d_out=16, batch_rows=256)
TRAIN_BYTES, HELD_OUT_BYTES = 600_000, 120_000


def small_corpus(limit: int = TRAIN_BYTES) -> Corpus:
    """Some of the training packages, spread over the alphabet; the same files under the same interpreter."""
    return _thin(read_corpus("stdlib:train"), limit)


def unseen_files(limit: int = HELD_OUT_BYTES) -> list[SourceFile]:
    """Files of held-out packages."""
    return _thin(read_corpus("stdlib:held-out"), limit).files


def _thin(corpus: Corpus, limit: int) -> Corpus:
    files = sorted((file for file in corpus.files if len(file.data) < 30_000), key=lambda file: file.sha256)
    kept, size = [], 0
    for file in files:
        if size + len(file.data) <= limit:
            kept.append(file)
            size += len(file.data)
    return Corpus(sorted(kept, key=lambda file: file.path), [], corpus.name)


def build_small(out: Path, cut: str = "leaves", steps: int = 40, seed: int = 0, corpus: Corpus | None = None) -> Fitted:
    """Build a model that is bad but whole, on as many threads as a new process would use."""
    import torch

    torch.set_num_threads(usable_cpus())
    recipe = Recipe(cut=cut, seed=seed, vocab_size=1024, shape=SHAPE, parameters=60_000)
    return build(corpus or small_corpus(), out, Budget(steps=steps), recipe, progress=Progress(quiet=True))


if __name__ == "__main__":
    import sys

    build_small(Path(sys.argv[1]), steps=int(sys.argv[2]))
