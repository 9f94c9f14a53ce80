"""A transformer joined with the constructed model's tables and caches: what construction adds to counting.

It takes the place of the nets, everything else is the constructed model's: the same index over the same files, the same
caches of the file's own past, the same names in scope, and a mixer of the same form fitted to it on the same files.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cgpt import mixing
from cgpt.baseline import Baseline
from cgpt.data import TokenizedCorpus
from cgpt.fit_mixer import fit_mixing
from cgpt.mixer import Mixer
from cgpt.model import ConstructedLM
from cgpt.reads import FileView
from cgpt.score import FileScore

_CHUNK_ROWS = 512


class JoinedLM:
    """A transformer in the place of the nets of a `plain` model.

    Args:
        plain: a model of the cut `plain`; its tables are used, its mixer is not.
        baseline: trained on the same tokens, the files held out for the mixer aside.
        mixer: fitted by `fit_joined`.
    """

    def __init__(self, plain: ConstructedLM, baseline: Baseline, mixer: Mixer) -> None:
        self.plain, self.baseline, self.mixer = plain, baseline, mixer
        self.concepts, self.tokenizer = plain.concepts, plain.tokenizer
        self.parameters, self.table_entries = baseline.parameters, plain.table_entries

    def score_file(self, data: bytes, path: str = "", project: str = "") -> FileScore:
        """Score one file: float64 bits of every token and of its end."""
        model = self.plain
        ids = model.tokenizer.encode(data)
        view = model.view(ids)
        n = view.n + 1
        concept = model.concepts_at(view)
        probability, best, parts = np.zeros(n), np.zeros(n, np.int64), np.zeros((n, len(mixing.SOURCES)))
        for places, logits in self.baseline.logit_blocks(ids):
            for begin in range(0, len(places), _CHUNK_ROWS):
                rows = places[begin : begin + _CHUNK_ROWS]
                powers, total = _powers(logits[begin : begin + _CHUNK_ROWS].numpy())
                for c in np.unique(concept[rows]).tolist():
                    here = concept[rows] == c
                    p, b, w = np.zeros(here.sum()), np.zeros(here.sum(), np.int64), np.zeros((here.sum(), 5))
                    mixing.score_rows(
                        *model.index.arrays(), view.history, view.previous, view.offered, view.slots, rows[here],
                        *self.mixer.tables(c), model.unigram, powers[here], total[here], model.rank_weights, p, b, w,
                    )  # fmt: skip
                    probability[rows[here]], best[rows[here]], parts[rows[here]] = p, b, w
        lengths = np.append([len(model.tokenizer.token_bytes[i]) for i in ids.tolist()], 0).astype(np.int32)
        correct = best == view.history[1 : n + 1]
        return FileScore(path, project, int(lengths.sum()), -np.log2(probability), correct, concept, lengths)


def fit_joined(tokens: Path, plain: ConstructedLM, baseline: Baseline) -> Mixer:
    """The mixer for a transformer beside the tables; `tokens` is the build's `tokens.safetensors`."""
    return fit_mixing(
        TokenizedCorpus.load(tokens), plain.alphabet, plain.router, lambda view, _: _says(baseline, view)
    ).mixer


def _says(baseline: Baseline, view: FileView) -> tuple[np.ndarray, np.ndarray]:
    """What the transformer says of each target of a file, and of its own first choice: float64[n + 1] each."""
    n = view.n + 1
    targets, said, top = view.history[1 : n + 1], np.zeros(n), np.zeros(n)
    for places, logits in baseline.logit_blocks(view.history[1 : view.n + 1]):
        powers, total = _powers(logits.numpy())
        said[places] = powers[np.arange(len(places)), targets[places]] / total
        top[places] = 1.0 / total
    return said, top


def _powers(logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """As `cgpt.nets.Nets.powers`."""
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers, powers.sum(1, dtype=np.float64)
