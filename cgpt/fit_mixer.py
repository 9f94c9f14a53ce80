"""Fits what decides between experts: escapes of the ladder, ranks of names, weights of the mixer.

All of it is measured on held-out files, which neither the tables nor the nets have seen.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cgpt import counts, mixing, names
from cgpt.data import TokenizedCorpus, views
from cgpt.index import LEVELS, CorpusIndex
from cgpt.ladder import climb, fit_escape
from cgpt.mixer import Mixer, bucket_of
from cgpt.model import by_concept, net_of_concept, outside_unigram, smoothed_unigram
from cgpt.nets import Nets
from cgpt.reads import Alphabet
from ontology.io import write_json
from ontology.routers import Router

MIN_POSITIONS = 200
"""With fewer held-out positions than this nothing is learned: the priors are used."""
_PRIOR_POSITIONS = 50


@dataclass(frozen=True)
class FittedMixing:
    """The learned tables and the held-out bits per token they reach, expert by expert and mixed."""

    escape_counts: np.ndarray
    escape_refined: np.ndarray
    rank_weights: np.ndarray
    outside: np.ndarray
    mixer: Mixer
    held_out_bits: dict[str, float]

    def save(self, folder: Path) -> None:
        """Write `ladder.json`, `names.json`, `outside.json` and `mixer.json`."""
        write_json(
            folder / "ladder.json",
            {
                "corpus_levels": list(LEVELS), "file_levels": list(counts.FILE_LEVELS),
                "escape_counts": self.escape_counts.tolist(), "escape_refined": self.escape_refined.tolist(),
            },
        )  # fmt: skip
        kinds = {"kinds": list(names.KINDS), "ranks": names.N_RANKS}
        write_json(folder / "names.json", {**kinds, "weights": self.rank_weights.tolist()})
        write_json(folder / "outside.json", {"outside": self.outside.tolist()})
        write_json(folder / "mixer.json", {**self.mixer.as_json(), "held_out_bits": self.held_out_bits})


def measure_outside(nets: Nets, net_of: np.ndarray, concept: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """float64[M]: how often each net's situation needs a token that the net cannot say, on files it did not learn from.

    Unfamiliar code brings more of them than the training files did; those count as PRIOR imagined positions.
    """
    outside = nets.outside.copy()
    for m in range(len(nets.concepts)):
        rows = np.flatnonzero(net_of[concept] == m)
        missing = len(rows) - int(np.isin(targets[rows], nets.vocabulary(m)).sum())
        outside[m] = (missing + _PRIOR_POSITIONS * nets.outside[m]) / (len(rows) + _PRIOR_POSITIONS)
    return outside


def net_probabilities(
    nets: Nets, net_of: np.ndarray, unigram: np.ndarray, concept: np.ndarray, reads: np.ndarray, targets: np.ndarray
) -> np.ndarray:
    """float64[m]: what the net in charge says of each target; the unigram where no net is."""
    out = unigram[targets].copy()
    for c, rows in by_concept(concept):
        m = int(net_of[c])
        if m < 0:
            continue
        own = nets.vocabulary(m)
        logits = nets.logits(m, reads[rows]).astype(np.float64)
        logits -= logits.max(1, keepdims=True)
        powers = np.exp(logits)
        place = np.minimum(np.searchsorted(own, targets[rows]), len(own) - 1)
        inside = own[place] == targets[rows]
        share = powers[np.arange(len(rows)), place] / powers.sum(1)
        spread = outside_unigram(unigram, own)[targets[rows]]
        out[rows] = np.where(inside, (1.0 - nets.outside[m]) * share, nets.outside[m] * spread)
    return out


def fit_mixing(
    corpus: TokenizedCorpus,
    alphabet: Alphabet,
    router: Router,
    nets: Nets | None,
    owner: dict[str, str],
) -> FittedMixing:
    """Measure everything on the held-out files, against tables of the other files."""
    files = corpus.mixer_files()
    index = CorpusIndex.build(corpus.joined(~corpus.held_out), alphabet.n_tokens)
    unigram = smoothed_unigram(index.unigram)
    parts: dict[str, list[np.ndarray]] = {}
    for view in views(corpus, files, alphabet):
        n = view.n + 1
        buckets, shares = np.zeros((n, counts.N_ALL_LEVELS), np.uint8), np.zeros((n, counts.N_ALL_LEVELS), np.float32)
        match = np.zeros(n, np.int32)
        counts.target_levels(*index.arrays(), view.history, view.previous, 1, n + 1, buckets, shares, match)
        row = {
            "buckets": buckets, "shares": shares, "match": match, "reads": view.reads[:n].copy(),
            "concept": router.route(view.fields[:n]), "targets": view.history[1 : n + 1].copy(),
            "offered": view.offered[:n].copy(), "slots": view.slots[:n].copy(),
        }  # fmt: skip
        for name, array in row.items():
            parts.setdefault(name, []).append(array)
    if not files or sum(map(len, parts["match"])) < MIN_POSITIONS:
        return _priors(router, nets)
    data = {name: np.concatenate(arrays) for name, arrays in parts.items()}
    targets, concept = data["targets"], data["concept"]
    base = unigram[targets]
    escape_counts = fit_escape(base, data["buckets"], data["shares"])
    p_counts = climb(base, data["buckets"], data["shares"], escape_counts)
    outside = np.zeros(0)
    if nets is not None:
        net_of = net_of_concept(tuple(router.concepts), nets, owner)
        outside = measure_outside(nets, net_of, concept, targets)
        nets = replace(nets, outside=outside)
        p_net = net_probabilities(nets, net_of, unigram, concept, data["reads"], targets)
        escape_refined = fit_escape(p_net, data["buckets"], data["shares"])
        p_refined = climb(p_net, data["buckets"], data["shares"], escape_refined)
    else:
        p_net, p_refined, escape_refined = base, p_counts, escape_counts
    rank_weights = names.fit_ranks(targets, data["offered"], data["slots"])
    p_names = np.zeros(len(targets))
    names.names_target(targets, base, data["offered"], data["slots"], rank_weights, p_names)
    by_expert = {"counts": p_counts, "net": p_net, "refined": p_refined, "names": p_names}
    depth = (data["buckets"][:, counts.N_LEVELS :] != counts.ABSENT).sum(1)
    bucket = bucket_of(data["match"], depth, data["slots"][:, 0] != names.NOTHING)
    silent = () if nets is not None else ("net", "refined")
    mixer = Mixer.fit(
        mixing.EXPERTS, router.concepts, concept, bucket, np.stack([by_expert[e] for e in mixing.EXPERTS], 1),
        needs_names=("names",), silent=silent,
    )  # fmt: skip
    mixed = mixer.mix(concept, bucket, np.stack([by_expert[e] for e in mixing.EXPERTS], 1))
    bits = {name: float(-np.log2(p).mean()) for name, p in by_expert.items() if name not in silent}
    bits["mixed"] = float(-np.log2(mixed).mean())
    return FittedMixing(escape_counts, escape_refined, rank_weights, outside, mixer, bits)


def _priors(router: Router, nets: Nets | None) -> FittedMixing:
    """What to believe where there is next to nothing to learn from: trust a level by its count alone."""
    escape = np.full((counts.N_ALL_LEVELS, counts.N_BUCKETS), 0.5)
    empty = np.zeros(0, dtype=np.int64)
    mixer = Mixer.fit(
        mixing.EXPERTS, router.concepts, empty, empty, np.zeros((0, len(mixing.EXPERTS))),
        needs_names=("names",), silent=() if nets is not None else ("net", "refined"),
    )  # fmt: skip
    rank_weights = 1.0 / (1.0 + np.arange(names.N_SLOTS) % names.N_RANKS)
    outside = nets.outside if nets is not None else np.zeros(0)
    return FittedMixing(escape, escape, rank_weights / rank_weights.sum(), outside, mixer, {})
