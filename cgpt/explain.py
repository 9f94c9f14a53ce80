"""Explains a file token by token: which concept was in charge, what each source said, and what that rests on.

The record's sources are the experts taken apart into disjoint parts (`mixing.SOURCES`): the probability of a token is
the sum over sources of weight times probability, and every part of it names its evidence: the net with the reads that
moved it, corpus counts with file, line and licence, earlier places in this file, names in scope.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from cgpt import counts, mixing, names
from cgpt.index import LEVELS
from cgpt.model import ConstructedLM, Position
from cgpt.reads import READS, FileView
from ontology.graph import paths

FORMAT = "constructible-explain/1"
SHOWN = 3
"""Pieces of evidence per source, at most."""
ALTERNATIVES = 5


class Explainer:
    """Explains positions of files under one model."""

    def __init__(self, model: ConstructedLM) -> None:
        self.model = model
        self.borders = np.flatnonzero(model.index.tokens == 0)
        self.newlines = np.array([text.count(b"\n") for text in model.tokenizer.token_bytes])

    def text(self, token: int) -> str:
        """A token for a person."""
        return "<end>" if token == 0 else self.model.tokenizer.token_bytes[token].decode("utf-8", "replace")

    def place(self, position: int) -> tuple[str, int, str]:
        """(path, line, licence) of a position of the index."""
        file = int(np.searchsorted(self.borders, position)) - 1
        start = int(self.borders[file]) + 1
        line = 1 + int(self.newlines[self.model.index.tokens[start:position]].sum())
        source = self.model.sources[file]
        # A token that begins with line breaks stands at their end.
        skipped = self.model.tokenizer.token_bytes[int(self.model.index.tokens[position])]
        line += len(skipped) - len(skipped.lstrip(b"\r\n")) if skipped.strip() else 0
        path = source.path if source.project in source.path else f"{source.project}: {source.path}"
        return path, line, source.licence

    def token(self, view: FileView, boundary: int, target: int) -> dict[str, Any]:
        """The record of one token: what was said of `target` at this boundary."""
        model = self.model
        at = model.position(view, boundary)
        trace = model.router.trace(view.fields[boundary])
        sources = self.sources(view, at, target)
        total = sum(source["weight"] * source["probability"] for source in sources)
        for source in sources:
            source["share"] = source["weight"] * source["probability"] / total if total > 0 else 0.0
        top = np.argsort(-at.distribution, kind="stable")[:ALTERNATIVES]
        declared = model.ontology[trace.concept].reads
        return {
            "text": self.text(target),
            "bits": float(-np.log2(at.distribution[target])),
            "concept": trace.concept,
            "lines": trace.lines,
            "state": model.router.state(view.fields[boundary]),
            "bucket": {
                "corpus_match": at.corpus_match, "file_match": at.file_depth,
                "names": int(view.slots[boundary, 0] != names.NOTHING),
            },
            "experts": sources,
            "top": [{"text": self.text(int(v)), "probability": float(at.distribution[v])} for v in top],
            "reads": {name: view.read_text(boundary, READS.index(name)) for name in declared},
        }  # fmt: skip

    def sources(self, view: FileView, at: Position, target: int) -> list[dict[str, Any]]:
        """Weight, probability of the target and evidence of each of `mixing.SOURCES`."""
        said = {
            "net": 0.0 if at.net_distribution is None else float(at.net_distribution[target]),
            "corpus": self._levels(at, target, range(counts.N_LEVELS)),
            "file": self._levels(at, target, range(counts.N_LEVELS, counts.N_ALL_LEVELS)),
            "names": self._names_probability(view, at.boundary, target),
            "unigram": float(self.model.unigram[target]),
        }
        evidence = {
            "net": self._net_evidence(view, at, target), "corpus": self._corpus_evidence(at, target),
            "file": self._file_evidence(view, at, target), "names": self._names_evidence(view, at.boundary, target),
            "unigram": [],
        }  # fmt: skip
        return [
            {"name": name, "weight": float(weight), "probability": said[name], "evidence": evidence[name]}
            for name, weight in zip(mixing.SOURCES, at.parts, strict=True)
        ]

    def _levels(self, at: Position, target: int, levels: range) -> float:
        """What a group of levels says of the target: their average by weight."""
        weight = float(at.level_weights[levels.start : levels.stop].sum())
        if weight <= 0.0:
            return 0.0
        said = 0.0
        for level in levels:
            begin, end = at.starts[level], at.starts[level + 1]
            hit = at.entry_tokens[begin:end] == target
            said += float(at.level_weights[level]) * float(at.entry_shares[begin:end][hit].sum())
        return said / weight

    def context(self, tokens: np.ndarray) -> str:
        """Tokens as text for a person."""
        return b"".join(self.model.tokenizer.token_bytes[int(token)] for token in tokens).decode("utf-8", "replace")

    def _corpus_evidence(self, at: Position, target: int) -> list[dict[str, Any]]:
        """Places in the corpus where the longest matching context was followed by the target."""
        index = self.model.index
        for level in range(counts.N_LEVELS - 1, -1, -1):
            if at.buckets[level] == counts.ABSENT:
                continue
            low, high = int(at.low[level]), int(at.high[level])
            hits = np.flatnonzero(index.followers[low:high] == target)
            if not len(hits):
                continue
            shown = []
            for hit in hits[:SHOWN]:
                position = int(index.order[low + int(hit)])
                file, line, licence = self.place(position)
                context = self.context(index.tokens[max(position - LEVELS[level], 0) : position])
                text = f"after {context!r}: {len(hits)} of {high - low}"
                shown.append(_evidence("match", text, len(hits) / (high - low), file, line, licence, position))
            return shown
        return []

    def _file_evidence(self, view: FileView, at: Position, target: int) -> list[dict[str, Any]]:
        """Earlier places in this file where the longest repeated context was followed by the target; where none was,
        those of the first kind of surroundings under which it came."""
        for level in (*range(counts.N_FILE_LEVELS - 1, -1, -1), *range(counts.N_FILE_LEVELS, counts.N_FILE_COLUMNS)):
            shown = []
            for position in counted_places(view, level, at.boundary):
                if int(view.history[position]) != target:
                    continue
                line = 1 + int(self.newlines[view.history[1:position]].sum())
                if level < counts.N_FILE_LEVELS:
                    context = self.context(view.history[max(position - counts.FILE_LEVELS[level], 1) : position])
                    text = f"in this file after {context!r}"
                else:
                    text = f"in this file at a place of the same {counts.PLACES[level - counts.N_FILE_LEVELS].name}"
                shown.append(_evidence("cache", text, 1.0, line=line))
                if len(shown) == SHOWN:
                    break
            if shown:
                return shown
        return []

    def _names_probability(self, view: FileView, boundary: int, target: int) -> float:
        offered, slots = view.offered[boundary], view.slots[boundary]
        present = (slots != names.NOTHING) & (offered != names.END_OF_NAME)
        weights = self.model.rank_weights[np.where(present, slots, 0)] * present
        total = float(weights.sum())
        return float(weights[offered == target].sum()) / total if total > 0.0 else 0.0

    def _names_evidence(self, view: FileView, boundary: int, target: int) -> list[dict[str, Any]]:
        shown = []
        for offered, slot in zip(view.offered[boundary], view.slots[boundary], strict=True):
            if slot == names.NOTHING:
                break
            if offered == target:
                kind, rank = divmod(int(slot), names.N_RANKS)
                text = f"{names.KINDS[kind]}, {rank + 1}. most recently used"
                value = float(self.model.rank_weights[slot])
                shown.append(_evidence("name", text, value))
        return shown[:SHOWN]

    def _net_evidence(self, view: FileView, at: Position, target: int) -> list[dict[str, Any]]:
        m = int(self.model.net_of[at.concept])
        if self.model.nets is None or m < 0:
            return []
        shares = self.model.nets.read_shares(m, view.reads[at.boundary], target)
        shown = []
        for name in sorted(shares, key=lambda name: -abs(shares[name]))[:SHOWN]:
            text = f"{name} = {view.read_text(at.boundary, READS.index(name))!r} moved its logit by {shares[name]:+.2f}"
            shown.append(_evidence("net", text, shares[name]))
        return shown


def counted_places(view: FileView, level: int, boundary: int) -> list[int]:
    """Positions of this file that one of `counts.FILE_COLUMNS` counts at a boundary, latest first."""
    most = counts.RECENT if level < counts.N_FILE_LEVELS else counts.PLACES[level - counts.N_FILE_LEVELS].recent
    found, position = [], int(view.previous[level, boundary + 1])
    while position >= 0 and len(found) < most:
        found.append(position)
        position = int(view.previous[level, position])
    return found


def _evidence(
    kind: str, text: str, value: float, file: str | None = None, line: int | None = None, licence: str | None = None,
    position: int | None = None,
) -> dict[str, Any]:  # fmt: skip
    """One piece of evidence; `position` is a place in the match index."""
    return {
        "kind": kind, "text": text, "value": value, "file": file, "line": line, "licence": licence,
        "position": position,
    }  # fmt: skip


def explain(model: ConstructedLM, data: bytes, file: str = "", max_tokens: int | None = None) -> dict[str, Any]:
    """The record of a file (or of its first `max_tokens` tokens); see FORMAT and `cgpt.explain_page`."""
    ids = model.tokenizer.encode(data)
    ids = ids if max_tokens is None else ids[:max_tokens]
    view = model.view(ids)
    explainer = Explainer(model)
    tokens = []
    for boundary in range(view.n):
        record = explainer.token(view, boundary, int(ids[boundary]))
        tokens.append({"start": int(view.ends[boundary]), "end": int(view.ends[boundary + 1]), **record})

    concepts = sorted({token["concept"] for token in tokens})
    return {
        "format": FORMAT,
        "file": file,
        "text": view.text.decode("utf-8", "replace"),
        "router_source": model.router.source,
        "experts": list(mixing.SOURCES),
        "concepts": {
            name: {"question": model.ontology[name].question, "path": list(paths(model.ontology, name)[0])}
            for name in concepts
        },
        "tokens": tokens,
    }
