"""Rules: one restricted plain-Python function per class, from concept scores to the class's score.

A rule adds up what speaks for its class: concepts that should be there, and concepts that should not (`1 - s.wheel`),
each with a constant of at least zero, five to nine of them. The constants are fitted on scores of photographs that the
nodes did not learn from, rounded to two decimals, and written into the text; nothing else is trained above the nodes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ontology.checker import check_source
from ontology.errors import ConstructibleError
from ontology.restricted import Checked, NumberField
from vision.concepts import concept_name

MAX_TERMS = 9
OTHERS_WEIGHT = 0.5
"""How much telling a class from all others counts in the fit, beside telling the model's classes apart."""
OTHERS_PER_CLASS = 30
"""Photographs of each other class that the fit looks at."""
_L1 = 0.008
_STEPS = 400


@dataclass(frozen=True)
class Term:
    """One line of a rule: `weight` times the score of `concept`, or of its absence."""

    concept: str
    weight: float
    absent: bool = False


class Rule:
    """A checked rule of one class.

    Attributes:
        label: the class.
        source: its text.
        concepts: names of the concept scores it reads, in the order of their first use.
    """

    def __init__(self, label: str, source: str, concepts: Sequence[str], file: str | Path = "<rule>") -> None:
        self.label, self.source = label, source
        self._checked: Checked = check_source(
            source, arguments=("s",), attributes={"s": [NumberField(name) for name in concepts]}, returns="number",
            function="rule", file=file,
        )  # fmt: skip
        self.concepts = tuple(attribute for _, attribute in self._checked.used)
        self._call = self._checked.compile()

    def value(self, scores: Mapping[str, float]) -> float:
        """The class's score given the concepts' scores."""
        return float(self._call(*(float(scores[name]) for name in self.concepts)))

    def values(self, columns: Mapping[str, npt.NDArray[np.float64]]) -> npt.NDArray[np.float64]:
        """As `value`, for many pictures: the same function on each row, float64 [n]."""
        read = [columns[name].tolist() for name in self.concepts]
        n = len(next(iter(columns.values())))
        if not read:
            return np.full(n, float(self._call()))
        return np.array([float(self._call(*row)) for row in zip(*read, strict=True)])

    @cached_property
    def influence(self) -> dict[str, float]:
        """How far each concept can move the score: the difference between absent and present, the others at one half
        (a term's weight, where the rule is a plain sum)."""
        middle = dict.fromkeys(self.concepts, 0.5)
        return {
            name: self.value({**middle, name: 1.0}) - self.value({**middle, name: 0.0}) for name in self.concepts
        }  # fmt: skip


class RuleSet:
    """The rules of a model's classes.

    Attributes:
        rules: in the order of the classes.
    """

    def __init__(self, rules: Sequence[Rule]) -> None:
        self.rules = tuple(rules)

    @property
    def constants(self) -> int:
        """Constants in all rules: one per term, and one threshold each."""
        return sum(len(rule.concepts) + 1 for rule in self.rules)

    def values(self, scores: npt.NDArray[np.float64], names: Sequence[str]) -> npt.NDArray[np.float64]:
        """Class scores float64 [n, classes] from concept scores [n, concepts]; above zero means yes."""
        columns = {name: scores[:, i] for i, name in enumerate(names)}
        return np.stack([rule.values(columns) for rule in self.rules], axis=1)

    def save(self, folder: str | Path) -> None:
        """Write one file per class."""
        from ontology.io import write_text

        for rule in self.rules:
            write_text(Path(folder) / f"{concept_name(rule.label)}.py", rule.source)

    @classmethod
    def load(cls, folder: str | Path, classes: Sequence[str], concepts: Sequence[str]) -> RuleSet:
        """Read and check the rules of some classes.

        Raises:
            RestrictedError: a rule says something that is not allowed, with file and line.
        """
        rules = []
        for label in classes:
            path = Path(folder) / f"{concept_name(label)}.py"
            try:
                text = path.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise ConstructibleError(
                    f"the rule of {label!r} cannot be read ({error}).", fix="restore the file or build again", file=path
                ) from error
            rules.append(Rule(label, text, concepts, path))
        return cls(rules)


def rule_text(label: str, terms: Sequence[Term], threshold: float) -> str:
    """The text of a rule: what speaks for the class, strongest first, and what it has to exceed."""
    lines = [f'"""Is this {label}? Above zero means yes; the highest of all classes wins."""', "", "", "def rule(s):"]
    for i, term in enumerate(sorted(terms, key=lambda t: -t.weight)):
        read = f"(1 - s.{term.concept})" if term.absent else f"s.{term.concept}"
        lines.append(f"    score = {'score + ' if i else ''}{term.weight:g} * {read}")
    if not terms:
        lines.append("    score = 0")
    sign = "-" if threshold >= 0 else "+"
    lines.append(f"    return score {sign} {abs(threshold):g}")
    return "\n".join(lines) + "\n"


def harden(scores: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The 0/1 mode: a concept is there or not."""
    return (scores >= 0.5).astype(np.float64)


def fit_rules(
    scores: npt.NDArray[np.float64],
    labels: npt.NDArray[np.int64],
    classes: Sequence[int],
    truth: npt.NDArray[np.int8],
    names: Sequence[str],
    class_names: Sequence[str],
    *,
    max_terms: int = MAX_TERMS,
) -> RuleSet:
    """Fit the constants of the rules.

    A concept that the table calls true of a class may only speak for it by being there, one that it calls false only
    by being absent, an unclear one not at all.

    Args:
        scores: of photographs that the nodes did not learn from, float64 [n, concepts].
        labels: their classes, [n]; those outside of `classes` are "others".
        classes: the model's classes.
        truth: 1, 0 or -1, int8 [len(classes), concepts].
        class_names: one per class of the model.
    """
    rows = some_others(labels, classes)
    scores, labels = scores[rows], labels[rows]
    weights, thresholds = np.ones(truth.shape), np.zeros(len(classes))
    allowed = truth >= 0
    present = truth == 1
    for keep, strength in ((None, _L1), (max_terms + 4, _L1), (max_terms, 0.0)):
        if keep is not None:
            spread = weights * scores.std(0)[None, :]
            for c in range(len(classes)):
                order = np.argsort(-np.where(allowed[c], spread[c], -1.0), kind="stable")
                chosen = np.zeros(len(names), dtype=np.bool_)
                chosen[order[:keep]] = True
                allowed[c] &= chosen & (weights[c] > 0.02)
        weights, thresholds = _fit(scores, labels, classes, present, allowed, strength)
    rules = []
    for c, label in enumerate(class_names):
        terms = [
            Term(names[i], round(float(weights[c, i]), 2), absent=not present[c, i])
            for i in np.flatnonzero(allowed[c] & (weights[c] >= 0.05)).tolist()
        ]
        rules.append(Rule(label, rule_text(label, terms, round(float(thresholds[c]), 2)), names))
    return RuleSet(rules)


def some_others(labels: npt.NDArray[np.int64], classes: Sequence[int]) -> npt.NDArray[np.int64]:
    """All rows of the model's classes, the first few of each other class."""
    rows = []
    for label in np.unique(labels):
        own = np.flatnonzero(labels == label)
        rows.append(own if label in classes else own[:OTHERS_PER_CLASS])
    return np.sort(np.concatenate(rows)) if rows else np.zeros(0, np.int64)


def _fit(
    scores: npt.NDArray[np.float64],
    labels: npt.NDArray[np.int64],
    classes: Sequence[int],
    present: npt.NDArray[np.bool_],
    allowed: npt.NDArray[np.bool_],
    l1: float,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Weights [classes, concepts] and thresholds [classes] that minimise the cross entropy among the classes plus a
    balanced logistic loss of each against everything else, by projected Adam (the problem is convex)."""
    import torch

    x = torch.from_numpy(scores)
    own = {c: k for k, c in enumerate(classes)}
    target = torch.tensor([own.get(int(label), -1) for label in labels])
    inside = target >= 0
    per_class = torch.bincount(target[inside], minlength=len(classes)).double().clamp(min=1)
    pick = (1.0 / per_class)[target.clamp(min=0)] * inside / len(classes)
    yes = torch.nn.functional.one_hot(target.clamp(min=0), len(classes)).double() * inside[:, None]
    no = 1 - yes
    # Other classes weigh the same each; among the "no" of a class its rivals weigh as much as all others together.
    count = torch.bincount(torch.from_numpy(labels)).double().clamp(min=1)
    each = (1.0 / count)[torch.from_numpy(labels)]
    rivals, others = no * inside[:, None] * each[:, None], no * (~inside)[:, None] * each[:, None]
    negative = rivals / rivals.sum(0).clamp(min=1e-9)
    if bool((~inside).any()):
        negative = 0.3 * negative + 0.7 * others / others.sum(0).clamp(min=1e-9)
    positive = yes * each[:, None]
    positive = positive / positive.sum(0).clamp(min=1e-9)
    sign = torch.from_numpy(np.where(present, 1.0, -1.0))
    mask = torch.from_numpy(allowed.astype(np.float64))
    weights = (0.5 * mask).requires_grad_()
    thresholds = torch.zeros(len(classes), dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.Adam([weights, thresholds], lr=0.1)
    for step in range(_STEPS):
        for group in optimiser.param_groups:
            group["lr"] = 0.1 * (1 - step / _STEPS) + 0.002
        optimiser.zero_grad()
        signed = weights * mask * sign
        base = (weights * mask * (sign < 0)).sum(1)
        values = x @ signed.T + base - thresholds
        loss = -(torch.log_softmax(values, 1) * yes).sum(1) @ pick
        against = positive * torch.nn.functional.softplus(-values) + negative * torch.nn.functional.softplus(values)
        loss = loss + OTHERS_WEIGHT * against.sum() / len(classes) / 2 + l1 * (weights * mask).sum() / len(classes)
        loss.backward()
        optimiser.step()
        with torch.no_grad():
            weights.clamp_(min=0.0).mul_(mask)
    return weights.detach().numpy().copy(), thresholds.detach().numpy().copy()


def accuracy(values: npt.NDArray[np.float64], target: npt.NDArray[np.int64]) -> float:
    """Share of rows whose highest value is the target's."""
    return float((values.argmax(1) == target).mean()) if len(target) else float("nan")
