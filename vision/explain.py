"""Why a model said what it said about one picture: maps, the rule with its numbers, what would change the answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ontology.errors import ConstructibleError
from vision.bank import primitives
from vision.data import decode
from vision.model import Constructed, Recogniser
from vision.rules import Rule, harden


@dataclass(frozen=True)
class Prediction:
    """What a model said about one file.

    Attributes:
        pixels: uint8 [size, size, 3]; None where the file could not be read, `problem` says why.
        label: the class with the highest score.
        shares: of each class, in the model's order; they add up to one.
        values: class scores; above zero means "yes, this".
        scores: concept scores, empty for a monolith.
        changed: concept scores that were set by hand.
    """

    path: str
    pixels: npt.NDArray[np.uint8] | None
    label: str = ""
    shares: tuple[float, ...] = ()
    values: tuple[float, ...] = ()
    scores: dict[str, float] = field(default_factory=dict)
    changed: dict[str, float] = field(default_factory=dict)
    problem: str = ""

    def as_json(self) -> dict[str, Any]:
        """JSON values, without the pixels."""
        if self.pixels is None:
            return {"path": self.path, "problem": self.problem}
        return {"path": self.path, "label": self.label, "shares": list(self.shares), "values": list(self.values),
                "concepts": self.scores, "set_by_hand": self.changed}  # fmt: skip


@dataclass(frozen=True)
class Explanation:
    """One explained picture.

    Attributes:
        terms: of the winning class's rule, strongest first: concept, question, score, how much it adds compared with
            its worst value, and what the answer would be at that value.
        maps: for each concept of those rules, probability by cell, float32 [16, 16].
        nearest: the most similar photographs of the winning class that the rules were fitted on: index in the model's
            evidence and distance in concept scores.
    """

    path: str
    prediction: Prediction
    terms: tuple[dict[str, Any], ...]
    rivals: tuple[dict[str, Any], ...]
    maps: dict[str, npt.NDArray[np.float32]]
    nearest: tuple[tuple[int, float], ...]
    rule: str

    def as_json(self) -> dict[str, Any]:
        """JSON values; maps to three decimals."""
        return {
            "path": self.path, "label": self.prediction.label, "terms": list(self.terms), "rivals": list(self.rivals),
            "rule": self.rule, "nearest": [{"evidence": i, "distance": d} for i, d in self.nearest],
            "maps": {name: np.round(m.astype(float), 3).tolist() for name, m in self.maps.items()},
        }  # fmt: skip

    def lines(self) -> list[str]:
        """The explanation as text."""
        out = []
        for term in self.terms:
            said = f"{term['concept']} {term['score']:.2f}" + (" (set by hand)" if term["set_by_hand"] else "")
            without = f"{'with' if term['absent'] else 'without'} it: {term['then_label']} {term['then_share']:.0%}"
            out.append(f"{'no ' if term['absent'] else ''}{said:<28} {term['adds']:+.2f}   {without}")
        return out


def predict_files(
    model: Recogniser, paths: Sequence[str | Path], changes: Mapping[str, float] | None = None
) -> list[Prediction]:
    """Name the class of each file; one that cannot be read is listed with its problem.

    Args:
        changes: concept scores to set by hand before the rules are asked.
    """
    found = []
    for path in paths:
        try:
            pixels = decode(Path(path).read_bytes(), model.size)[0]
        except OSError as error:
            found.append(Prediction(str(path), None, problem=f"cannot be read ({error.strerror})"))
            continue
        except ConstructibleError as error:
            found.append(Prediction(str(path), None, problem=error.message))
            continue
        found.append(predict_pixels(model, pixels, str(path), changes))
    return found


def predict_pixels(
    model: Recogniser, pixels: npt.NDArray[np.uint8], path: str, changes: Mapping[str, float] | None = None
) -> Prediction:
    """Name the class of one picture, uint8 [size, size, 3]."""
    scores: dict[str, float] = {}
    if isinstance(model, Constructed):
        row = model.concept_scores(pixels[None])[0]
        scores = dict(zip(model.bank.names, row.tolist(), strict=True)) | dict(changes or {})
        values = model.values_of(np.array([list(scores.values())]))
    else:
        values = model.values(pixels[None])
    label = model.classes[int(values[0].argmax())]
    shares = model.shares(values)[0].tolist()
    return Prediction(path, pixels, label, tuple(shares), tuple(values[0].tolist()), scores, dict(changes or {}))


def explain_picture(model: Constructed, said: Prediction, *, n_nearest: int = 4) -> Explanation:
    """Explain a prediction of a constructed model.

    Raises:
        ConstructibleError: the picture could not be read.
    """
    if said.pixels is None:
        raise ConstructibleError(f"{said.path}: {said.problem}", fix="give a picture that can be read")
    order = np.argsort(-np.array(said.values), kind="stable")  # of equals the first, as in the answer
    winner = int(order[0])
    terms = _terms(model, said, model.rules.rules[winner])
    rivals = []
    for c in order[1:3]:
        rule = model.rules.rules[int(c)]
        best = _terms(model, said, rule)
        rivals.append({"class": rule.label, "value": said.values[int(c)], "share": said.shares[int(c)],
                       "lacks": [t["concept"] for t in best if t["adds"] < 0.5 * abs(t["influence"])][:3]})  # fmt: skip
    wanted = [term["concept"] for term in terms]
    places = {name: i for i, name in enumerate(model.bank.names)}
    logits = model.bank.maps(primitives(said.pixels[None]))[0]
    maps = {}
    for name in wanted:
        node = model.bank.nodes[places[name]]
        maps[name] = (1 / (1 + np.exp(-np.clip(logits[places[name]] * node.slope + node.offset, -30, 30)))).astype(
            np.float32
        )
    return Explanation(
        said.path, said, tuple(terms), tuple(rivals), maps, _nearest(model, said, winner, n_nearest),
        model.rules.rules[winner].source,
    )  # fmt: skip


def as_rules_see(model: Constructed, scores: Mapping[str, float]) -> dict[str, float]:
    """Concept scores as the model's rules take them: as they are, or 0 and 1."""
    return {name: float(score >= 0.5) if model.mode == "hard" else score for name, score in scores.items()}


def _terms(model: Constructed, said: Prediction, rule: Rule) -> list[dict[str, Any]]:
    """Each concept of a rule: what it adds compared with its worst value, and the answer at that value."""
    seen = as_rules_see(model, said.scores)
    value = rule.value(seen)
    terms = []
    for name in rule.concepts:
        influence = rule.influence[name]
        worst = 0.0 if influence >= 0 else 1.0
        then = model.rules.values(_row({**seen, name: worst}), model.bank.names)
        then_shares = model.shares(then)[0]
        terms.append(
            {"concept": name, "question": model.concepts[name]["question"], "score": said.scores[name],
             "absent": influence < 0, "influence": influence, "adds": value - rule.value({**seen, name: worst}),
             "set_by_hand": name in said.changed, "then_label": model.classes[int(then_shares.argmax())],
             "then_share": float(then_shares.max())}
        )  # fmt: skip
    return sorted(terms, key=lambda term: -term["adds"])


def _row(scores: Mapping[str, float]) -> npt.NDArray[np.float64]:
    return np.array([list(scores.values())], dtype=np.float64)


def _nearest(model: Constructed, said: Prediction, winner: int, n: int) -> tuple[tuple[int, float], ...]:
    """Photographs of the winning class nearest in the concepts of its rule, each weighed by its influence."""
    rule = model.rules.rules[winner]
    places = [model.bank.names.index(name) for name in rule.concepts]
    rows = np.flatnonzero(model.evidence.labels == winner)
    if not len(rows) or not places:
        return ()
    weights = np.array([abs(rule.influence[name]) for name in rule.concepts])
    here = np.array([said.scores[name] for name in rule.concepts])
    there = model.evidence.scores[rows][:, places].astype(np.float64)
    if model.mode == "hard":
        here, there = harden(here), harden(there)
    distance = (np.abs(there - here) * weights).sum(1) / weights.sum()
    best = np.argsort(distance, kind="stable")[:n]
    return tuple((int(rows[i]), float(distance[i])) for i in best)
