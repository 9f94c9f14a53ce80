"""Where a completion comes from, by licence and project; and a model that uses the files of some licences alone.

`allowing` takes files out of the match index: their positions are no longer among the sorted ones, so counts, matches
and the unigram are those of an index built without them (a test holds the two equal). What was *learned* from all
files stays: the nets, the mixer's weights, the alphabet. A report names the nets' share as their own.

`provenance` divides the probability of every generated token among what it rests on, exactly as the model adds it up:
each corpus position that was counted, the file's own past, names in scope, the net, the unigram.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from cgpt import counts, mixing
from cgpt.complete import Completion, heal_point
from cgpt.index import CorpusIndex
from cgpt.model import ConstructedLM, Position, smoothed_unigram
from cgpt.reads import FileView
from ontology.errors import UsageError

OWN = {
    "net": "learned from the training files", "file": "the prompt and the completion itself",
    "names": "the prompt and the completion itself", "smoothing": "no text at all",
}  # fmt: skip
"""What shares without a licence rest on."""


@dataclass(frozen=True)
class Share:
    """A part of a completion's probability.

    `source` is `corpus` (counts and matches) or `unigram`, which have `licence` and `project`, or one of OWN.
    `log_probability` is its share of the completion's log probability, each token's divided as its probability is;
    `tokens` its share where every token counts alike. Both sum to one over a report.
    """

    source: str
    licence: str
    project: str
    log_probability: float
    tokens: float


@dataclass(frozen=True)
class Provenance:
    """The shares of a completion, largest first, and its bits."""

    n_tokens: int
    bits: float
    shares: list[Share]

    def as_json(self) -> dict[str, Any]:
        """JSON value."""
        return {"tokens": self.n_tokens, "bits": self.bits, "shares": [asdict(share) for share in self.shares]}

    def by_licence(self) -> dict[str, float]:
        """Share of log probability by licence; what has none stands under its source."""
        sums: dict[str, float] = {}
        for share in self.shares:
            key = share.licence or share.source
            sums[key] = sums.get(key, 0.0) + share.log_probability
        return dict(sorted(sums.items(), key=lambda item: -item[1]))


def file_borders(index: CorpusIndex) -> np.ndarray:
    """int64[files + 1]: positions of the separators; file i stands between borders i and i + 1."""
    return np.flatnonzero(np.asarray(index.tokens) == 0)


def files_at(borders: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """int64[m]: the file that each position of the index belongs to; its end is its own."""
    return np.searchsorted(borders, positions) - 1


_Part = Callable[[int], tuple[bool, int]]
"""Reads a part of an expression from a word on: whether it is satisfied, and where it ends."""


def permits(licence: str, allowed: Sequence[str]) -> bool:
    """Whether an SPDX expression is satisfied by `allowed`: one side of an OR is enough, of an AND both are needed, and
    AND binds closer. A licence WITH an exception is one name. What is no expression permits nothing."""
    known = {" ".join(name.split()).lower() for name in allowed}
    words = re.sub(r"([()])", r" \1 ", licence).split()

    def joined(at: int, word: str, part: _Part, join: Callable[[tuple[bool, bool]], bool]) -> tuple[bool, int]:
        holds, at = part(at)
        while words[at : at + 1] == [word]:
            other, at = part(at + 1)
            holds = join((holds, other))
        return holds, at

    def either(at: int) -> tuple[bool, int]:
        return joined(at, "OR", lambda begin: joined(begin, "AND", one, all), any)

    def one(at: int) -> tuple[bool, int]:
        if words[at : at + 1] == ["("]:
            holds, at = either(at + 1)
            return holds and words[at : at + 1] == [")"], at + 1
        end = at
        while end < len(words) and words[end] not in ("(", ")", "AND", "OR"):
            end += 1
        if end == at:  # a name is missing: beyond the end, so that the whole is no expression
            return False, len(words) + 1
        return " ".join(words[at:end]).lower() in known, end

    holds, end = either(0)
    return holds and end == len(words)


def allowing(model: ConstructedLM, licences: Sequence[str]) -> ConstructedLM:
    """The model with evidence from files under these licences alone; the model itself stays as it is.

    The list may name licences that no file has.

    Raises:
        UsageError: no training file is left.
    """
    present = sorted({source.licence for source in model.sources})
    keep = np.array([permits(source.licence, licences) for source in model.sources], dtype=np.bool_)
    if not keep.any():
        raise UsageError(f"no training file is under {', '.join(licences)}.", fix=f"allow some of {', '.join(present)}")
    restricted = copy.copy(model)
    restricted.variant += f" allowing {', '.join(sorted(licences))}"
    restricted.index = model.index.of_files(keep)
    restricted.unigram = smoothed_unigram(restricted.index.unigram)
    return restricted


class _Ledger:
    """Adds up shares by (source, licence, project) for one model."""

    def __init__(self, model: ConstructedLM) -> None:
        self.model = model
        self.borders = file_borders(model.index)
        names = sorted({(source.licence, source.project) for source in model.sources})
        place = {name: g for g, name in enumerate(names)}
        self.groups = names
        self.group_of = np.array([place[source.licence, source.project] for source in model.sources], dtype=np.int64)
        order = np.asarray(model.index.order)
        groups = self.group_of[files_at(self.borders, order)]
        size = len(model.unigram)
        flat = np.bincount(groups * size + np.asarray(model.index.followers), minlength=len(names) * size)
        self.unigram_counts = flat.reshape(len(names), size)

    def divide(self, view: FileView, at: Position, target: int) -> dict[tuple[str, str, str], float]:
        """Parts of the target's probability; they sum to it."""
        parts: dict[tuple[str, str, str], float] = {}

        def add(source: str, weights: np.ndarray) -> None:
            for g in np.flatnonzero(weights):
                key = (source, *self.groups[g])
                parts[key] = parts.get(key, 0.0) + float(weights[g])

        index = self.model.index
        for level in range(counts.N_LEVELS):
            weight = float(at.level_weights[level])
            if at.buckets[level] == counts.ABSENT or weight <= 0.0:
                continue
            low, high = int(at.low[level]), int(at.high[level])
            hits = low + np.flatnonzero(index.followers[low:high] == target)
            found = self.group_of[files_at(self.borders, np.asarray(index.order[hits]))]
            add("corpus", np.bincount(found, minlength=len(self.groups)) * (weight / (high - low)))
        unigram = float(at.parts[mixing.S_UNIGRAM] * self.model.unigram[target])
        seen = self.unigram_counts[:, target]
        if seen.sum():
            add("unigram", seen * (unigram / seen.sum()))
        else:
            parts["smoothing", "", ""] = unigram
        file = 0.0
        for level in range(counts.N_LEVELS, counts.N_ALL_LEVELS):
            span = slice(at.starts[level], at.starts[level + 1])
            file += float(at.level_weights[level] * at.entry_shares[span][at.entry_tokens[span] == target].sum())
        parts["file", "", ""] = file
        net = 0.0 if at.net_distribution is None else float(at.parts[mixing.S_NET] * at.net_distribution[target])
        parts["net", "", ""] = net
        # The names expert is what is left of the sum that the model has made.
        parts["names", "", ""] = max(0.0, float(at.distribution[target]) - sum(parts.values()))
        return parts


def provenance(model: ConstructedLM, made: Completion) -> Provenance:
    """What the tokens of a completion rest on; what plain code added to close it is no token."""
    ledger = _Ledger(model)
    ids, _ = heal_point(model, made.prompt)
    view = model.view(ids)
    rows: list[dict[tuple[str, str, str], float]] = []
    bits = np.zeros(len(made.steps))
    for i, step in enumerate(made.steps):
        at = model.position(view, view.n)
        parts = ledger.divide(view, at, step.token)
        total = sum(parts.values())
        rows.append({key: value / total for key, value in parts.items()})
        bits[i] = -np.log2(step.probability)
        view.extend(np.array([step.token], dtype=np.uint16))
    weights = bits / bits.sum() if bits.sum() > 0.0 else np.full(len(bits), 1.0 / max(len(bits), 1))
    keys = sorted({key for row in rows for key, value in row.items() if value > 0.0})
    shares = [
        Share(
            *key,
            log_probability=float(sum(w * row.get(key, 0.0) for w, row in zip(weights, rows, strict=True))),
            tokens=float(np.mean([row.get(key, 0.0) for row in rows])),
        )
        for key in keys
    ]
    return Provenance(len(rows), float(bits.sum()), sorted(shares, key=lambda share: -share.log_probability))


def licence_table(model: ConstructedLM) -> list[dict[str, Any]]:
    """The training files by licence: `licence`, `files`, `tokens`, `projects`; most tokens first."""
    sizes = np.diff(file_borders(model.index)) - 1
    rows: dict[str, dict[str, Any]] = {}
    for source, size in zip(model.sources, sizes.tolist(), strict=True):
        row = rows.setdefault(source.licence, {"licence": source.licence, "files": 0, "tokens": 0, "projects": set()})
        row["files"] += 1
        row["tokens"] += size
        row["projects"].add(source.project)
    found = sorted(rows.values(), key=lambda row: -row["tokens"])
    return [{**row, "projects": len(row["projects"])} for row in found]
