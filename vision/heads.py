"""What does a small inference head learn on top of the nodes, and what does it cost to force it to be plain code?

Four heads read the same concept scores: the **table** alone (the mean of what the table calls true of a class less the
mean of what it calls false; nothing is fitted), the **rules** (readable constants of at least zero, in the direction
that the table allows), a **signed linear** head, and a **small net** (16 hidden units). Their partial dependence
(Friedman 2001, section 8.2) is measured: the mean share of a class over photographs in which one concept is set to 0,
0.1 ... 1 and all else is left as it is. A head that answers *less* to a concept that its class has uses the node
against its name; the predecessor's signed heads did, and so hid nodes whose sign was wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ontology.io import write_text
from vision.build import Recipe
from vision.model import Constructed, probabilities
from vision.together import composition

if TYPE_CHECKING:
    from vision.study import Study

Floats = npt.NDArray[np.float64]
Head = Callable[[Floats], Floats]
"""Concept scores [n, k] -> class scores [n, classes]."""
GRID = np.linspace(0, 1, 11)
HIDDEN = 16
SHOWN = 4
_STEPS = 400
_DECAY = 1e-3
_COLOURS = {"table": "#888888", "rules": "#1f6f50", "signed linear": "#b8860b", "small net": "#b03060"}


def table_head(truth: npt.NDArray[np.int8]) -> Head:
    """Nothing fitted: the mean of the concepts that are true of a class less the mean of those that are false.

    Args:
        truth: 1 true, 0 false, -1 unclear, int8 [classes, k].
    """
    weights = composition(truth, np.float64)
    return lambda scores: scores @ weights


def fit_head(scores: Floats, labels: npt.NDArray[np.int64], classes: int, hidden: int, seed: int = 0) -> Head:
    """Fit a softmax head without any constraint: linear, or with one hidden layer of rectified units."""
    import torch
    import torch.nn.functional as F

    generator = torch.Generator().manual_seed(seed)
    k = scores.shape[1]
    sizes = [(k, classes)] if hidden == 0 else [(k, hidden), (hidden, classes)]
    weights = [torch.randn(a, b, generator=generator, dtype=torch.float64) * (2.0 / a) ** 0.5 for a, b in sizes]
    biases = [torch.zeros(b, dtype=torch.float64) for _, b in sizes]
    tensors = [t.requires_grad_() for t in (*weights, *biases)]
    x, y = torch.from_numpy(np.asarray(scores, dtype=np.float64)), torch.from_numpy(labels)
    share = (1.0 / torch.bincount(y, minlength=classes).clamp(min=1))[y].double()

    def forward(inputs: Any) -> Any:
        for i, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
            inputs = (torch.relu(inputs) if i else inputs - 0.5) @ weight + bias
        return inputs

    optimiser = torch.optim.Adam(tensors, lr=0.02)
    with torch.enable_grad():
        for _ in range(_STEPS):
            optimiser.zero_grad()
            loss = (F.cross_entropy(forward(x), y, reduction="none") * share).sum() / classes
            loss = loss + _DECAY * sum((weight**2).sum() for weight in weights)
            loss.backward()
            optimiser.step()

    def answer(inputs: Floats) -> Floats:
        with torch.no_grad():
            return forward(torch.from_numpy(np.asarray(inputs, dtype=np.float64))).numpy()

    return answer


def responses(head: Head, scores: Floats) -> Floats:
    """Partial dependence of each class's share on each concept, float64 [k, classes, 11]."""
    k = scores.shape[1]
    out = []
    for j in range(k):
        moved = np.repeat(scores[None], len(GRID), axis=0)
        moved[:, :, j] = GRID[:, None]
        share = probabilities(head(moved.reshape(-1, k))).reshape(len(GRID), len(scores), -1)
        out.append(share.mean(1).T)
    return np.stack(out)


def changes(head: Head, scores: Floats) -> Floats:
    """How far each class's score moves, on average, from a concept's absence to its presence, [k, classes], less the
    mean over classes: what all classes gain alike decides nothing."""
    out = []
    for j in range(scores.shape[1]):
        without, present = scores.copy(), scores.copy()
        without[:, j], present[:, j] = 0.0, 1.0
        out.append((head(present) - head(without)).mean(0))
    moved = np.stack(out)
    return moved - moved.mean(1, keepdims=True)


def against_table(change: Floats, truth: npt.NDArray[np.int8]) -> float:
    """Share of what a head makes of concepts that runs against the table: over all pairs of a class that has a concept
    and one that has it not, how far the concept's presence moves the second ahead of the first, as a share of how far
    it moves the two apart in either direction.

    Args:
        change: see `changes`.
        truth: int8 [classes, k].
    """
    apart = change[:, :, None] - change[:, None, :]
    pairs = (truth.T == 1)[:, :, None] & (truth.T == 0)[:, None, :]
    total = float(np.abs(apart[pairs]).sum())
    return float(np.maximum(-apart[pairs], 0).sum()) / total if total else 0.0


def draw(
    curves: dict[str, Floats], classes: Sequence[str], names: Sequence[str], truth: npt.NDArray[np.int8]
) -> str:  # fmt: skip
    """An SVG: for each class the concepts that its small net (or last head) answers to most, one line per head. All
    panels have the same scale, from 0 to the largest share that occurs, rounded up to a tenth."""
    import math
    from html import escape

    wide, tall, left, top = 150, 96, 128, 46
    last = list(curves.values())[-1]
    highest = max(0.1, math.ceil(10 * max(float(curve.max()) for curve in curves.values())) / 10)
    body = []
    for c, label in enumerate(classes):
        y0 = top + c * (tall + 34)
        body.append(f'<text x="8" y="{y0 + tall / 2:.0f}" font-weight="bold">{escape(label)}</text>')
        for share, y in ((f"{highest:.0%}", y0 + 9), ("0", y0 + tall)):
            body.append(f'<text x="{left - 4}" y="{y}" font-size="9" text-anchor="end" fill="#777">{share}</text>')
        moved = np.abs(last[:, c, -1] - last[:, c, 0])
        for place, j in enumerate(int(i) for i in np.argsort(-moved, kind="stable")[:SHOWN]):
            x0 = left + place * (wide + 24)
            mark = {1: "has it", 0: "has it not", -1: "unclear"}[int(truth[c, j])]
            title = f"{names[j].replace('_', ' ')} ({mark})"
            body.append(f'<rect x="{x0}" y="{y0}" width="{wide}" height="{tall}" fill="none" stroke="#bbb"/>')
            body.append(f'<text x="{x0}" y="{y0 - 5}" font-size="11">{escape(title)}</text>')
            for head, curve in curves.items():
                heights = y0 + tall * (1 - curve[j, c] / highest)
                points = " ".join(f"{x0 + wide * x:.1f},{y:.1f}" for x, y in zip(GRID, heights, strict=True))
                body.append(f'<polyline points="{points}" fill="none" stroke="{_COLOURS[head]}" stroke-width="2"/>')
    legend = "".join(
        f'<text x="{left + 130 * i}" y="18" fill="{_COLOURS[head]}">{head}</text>' for i, head in enumerate(curves)
    )
    width, height = left + SHOWN * (wide + 24), top + len(classes) * (tall + 34)
    said = "Across: the score of a concept, 0 to 1. Up: the mean share of the class."
    legend += f'<text x="{left}" y="{height - 12}" font-size="11" fill="#555">{said}</text>'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" '
        f'font-size="12"><title>Mean share of a class against the score of a concept, by head</title>'
        f'<rect width="{width}" height="{height}" fill="white"/>{legend}{"".join(body)}</svg>\n'
    )


def judge_heads(
    taught: Floats, labels: npt.NDArray[np.int64], scores: Floats, target: npt.NDArray[np.int64],
    truth: npt.NDArray[np.int8], rules: Head, constants: int, seed: int = 0,
) -> tuple[dict[str, dict[str, Any]], dict[str, Floats]]:  # fmt: skip
    """Fit the heads, and return the figures and the responses of each.

    Args:
        taught, labels: concept scores [m, k] that heads are fitted to, and their classes.
        scores, target: concept scores [n, k] to judge on, and their classes.
        truth: int8 [classes, k].
        rules: the model's rules, of `constants` constants.
    """
    n, k = truth.shape
    heads = {
        "table": (table_head(truth), 0), "rules": (rules, constants),
        "signed linear": (fit_head(taught, labels, n, 0, seed), n * (k + 1)),
        "small net": (fit_head(taught, labels, n, HIDDEN, seed), HIDDEN * (k + 1) + n * (HIDDEN + 1)),
    }  # fmt: skip
    some = taught[:: max(1, len(taught) // 200)]
    curves = {name: responses(head, some) for name, (head, _) in heads.items()}
    change = {name: changes(head, some) for name, (head, _) in heads.items()}
    rows = {}
    for name, (head, size) in heads.items():
        right = head(scores).argmax(1) == target
        like = 0.0
        if change[name].any() and change["rules"].any():
            like = np.corrcoef(change[name].ravel(), change["rules"].ravel())[0, 1]
        rows[name] = {
            "accuracy": float(right.mean()), "photographs": len(target), "parameters": size,
            "against_table": against_table(change[name], truth), "like_the_rules": float(like),
            "right": right.astype(int).tolist(),
        }  # fmt: skip
    return rows, curves


def heads(study: Study) -> dict[str, list[dict[str, Any]]]:
    """The same nodes under four heads; writes a figure for each draw."""
    from vision.growth import collect

    results = []
    for seed, classes in study.draws:
        model = study.model(f"leaves-{seed}", Recipe(classes=classes, seed=seed))
        assert isinstance(model, Constructed)
        truth = np.zeros((len(classes), len(model.bank.names)), dtype=np.int8)
        for j, name in enumerate(model.bank.names):
            said = model.concepts[name]
            truth[:, j] = [1 if c in said["true_of"] else -1 if c in said["unclear_of"] else 0 for c in classes]
        images = study.validation
        target = images.labels_in(classes)
        scores = model.concept_scores(images.pixels[target >= 0])
        taught = np.asarray(model.evidence.scores, dtype=np.float64)
        names = model.bank.names
        rows, curves = judge_heads(
            taught, model.evidence.labels, scores, target[target >= 0], truth, model.values_of,
            model.rules.constants, seed,
        )  # fmt: skip
        write_text(study.out / f"heads-{seed}.svg", draw(curves, classes, names, truth))
        own = [int(c) for c in target[target >= 0]]
        results.append({"rows": [{"label": label, **row} for label, row in rows.items()], "target": own})
    rows, difference = collect(results)
    study.differences = [difference(name, "rules") for name in ("table", "signed linear", "small net")]
    return rows
