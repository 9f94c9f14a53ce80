"""Fits what decides between sources: ranks of names and the mixer's tables.

All of it is measured on held-out files, which neither the tables nor the nets have seen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cgpt import counts, dynamic, names
from cgpt.caches import CacheTables
from cgpt.data import TokenizedCorpus, views
from cgpt.index import CorpusIndex
from cgpt.mixer import FIRST_LEVEL, NAMES, NET, UNIGRAM, Mixer, Positions, confidence_step, first_name
from cgpt.model import in_chunks, powers_by_concept, smoothed_unigram
from cgpt.nets import Nets
from cgpt.reads import Alphabet, FileView
from ontology.io import write_json
from ontology.routers import Router

MIN_POSITIONS = 200
"""With fewer held-out positions than this nothing is learned: the mixer keeps its first guess."""


@dataclass(frozen=True)
class FittedMixing:
    """The learned tables, and the held-out bits per token they reach: source by source, mixed, with caches."""

    rank_weights: np.ndarray
    mixer: Mixer
    held_out_bits: dict[str, float]
    caches: CacheTables
    cache_bits: dict[str, float]

    def save(self, folder: Path) -> None:
        """Write `names.json`, `mixer.json` and `dynamic.json`."""
        kinds = {"kinds": list(names.KINDS), "ranks": names.N_RANKS}
        write_json(folder / "names.json", {**kinds, "weights": self.rank_weights.tolist()})
        write_json(folder / "mixer.json", {**self.mixer.as_json(), "held_out_bits": self.held_out_bits})
        dynamic.save_tables(folder / "dynamic.json", self.caches, self.cache_bits)


NetSays = Callable[[FileView, np.ndarray], tuple[np.ndarray, np.ndarray]]
"""(a file, the concept in charge at each of its boundaries) -> float64[n + 1] each: what the neural part says of the
token that came, and of its own first choice; 0 where it says nothing."""


def net_probabilities(
    nets: Nets, net_of: np.ndarray, concept: np.ndarray, reads: np.ndarray, targets: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """float64[m] each: what the net in charge says of the target and of its first choice; 0 where there is no net."""
    said, top = np.zeros(len(targets)), np.zeros(len(targets))
    known = nets.with_terms(reads)
    for rows in in_chunks(concept):
        powers, total = powers_by_concept(nets, net_of, concept[rows], known[rows])
        there = total > 0.0
        said[rows[there]] = powers[there, targets[rows[there]]] / total[there]
        top[rows[there]] = 1.0 / total[there]
    return said, top


def nets_say(nets: Nets, net_of: np.ndarray) -> NetSays:
    """What these nets say; `net_of` as `net_of_concept` gives it."""
    return lambda view, concept: net_probabilities(
        nets, net_of, concept, view.reads[: view.n + 1], view.history[1 : view.n + 2]
    )


def fit_mixing(
    corpus: TokenizedCorpus,
    index: CorpusIndex,
    alphabet: Alphabet,
    router: Router,
    net: NetSays | None,
    places: Sequence[tuple[str, str]] | None = None,
) -> FittedMixing:
    """Measure everything on the held-out files, against tables of the other files.

    `index` is of all files; `places` is (path, project) of every file of the corpus: what the caches of the dynamic
    setting go by.
    """
    files = corpus.mixer_files()
    index = index.of_files(~corpus.held_out)
    unigram = smoothed_unigram(index.unigram)
    parts: dict[str, list[np.ndarray]] = {}
    scopes = dynamic.Scopes()
    for file, view in zip(files, views(corpus, files, alphabet), strict=True):
        n = view.n + 1
        place = places[file] if places is not None else ("", str(file))
        cache_buckets, cache_shares = dynamic.said_by_caches(scopes, place, view.history, view.n, alphabet.n_tokens)
        buckets, shares = np.zeros((n, counts.N_ALL_LEVELS), np.uint8), np.zeros((n, counts.N_ALL_LEVELS), np.float32)
        match = np.zeros(n, np.int32)
        counts.target_levels(*index.arrays(), view.history, view.previous, 1, n + 1, buckets, shares, match)
        concept = router.route(view.fields[:n])
        said, top = net(view, concept) if net is not None else (np.zeros(n), np.zeros(n))
        row = {
            "buckets": buckets, "shares": shares, "concept": concept, "targets": view.history[1 : n + 1].copy(),
            "offered": view.offered[:n].copy(), "slots": view.slots[:n].copy(), "net": said, "top": top,
            "cache_buckets": cache_buckets, "cache_shares": cache_shares,
        }  # fmt: skip
        for name, array in row.items():
            parts.setdefault(name, []).append(array)
    start = Mixer.start(router.concepts, net is not None)
    if not files or sum(map(len, parts["targets"])) < MIN_POSITIONS:
        rank_weights = 1.0 / (1.0 + np.arange(names.N_SLOTS) % names.N_RANKS)
        return FittedMixing(rank_weights / rank_weights.sum(), start, {}, dynamic.no_opinion(len(router.concepts)), {})
    data = {name: np.concatenate(arrays) for name, arrays in parts.items()}
    targets = data["targets"]
    rank_weights = names.fit_ranks(targets, data["offered"], data["slots"])
    said = np.zeros((len(targets), start.by_concept.shape[1]), dtype=np.float32)
    said[:, UNIGRAM] = unigram[targets]
    said[:, FIRST_LEVEL:NAMES] = data["shares"]
    p_names = np.zeros(len(targets))
    names.names_target(targets, unigram[targets], data["offered"], data["slots"], rank_weights, p_names)
    said[:, NAMES] = p_names
    said[:, NET] = data["net"]
    seen = Positions(
        data["concept"], confidence_step(data["top"]), first_name(data["slots"]), data["buckets"], said
    )  # fmt: skip
    mixer = start.fit(seen)
    mixed = mixer.mix(seen)
    bits = {"mixed": float(-np.log2(mixed).mean())}
    if net is not None:
        bits["net"] = float(-np.log2(np.maximum(data["net"], 1e-12)).mean())
    caches, cache_bits = dynamic.fit_tables(
        dynamic.CachePositions(seen.concept, seen.confidence, mixed, data["cache_buckets"], data["cache_shares"]),
        len(router.concepts),
    )
    return FittedMixing(rank_weights, mixer, bits, caches, cache_bits)
