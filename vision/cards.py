"""Node cards: what a reviewer needs to see of each node, as one self-contained page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from vision.bank import CHANNELS, in_blocks, primitives
from vision.data import ImageSet
from vision.explain_page import data_url, heat, render
from vision.fidelity_metrics import spread
from vision.model import Constructed
from vision.nodes import Node, NodeBank
from vision.plain import PlainNode
from vision.visualise import STEPS, visualise

MOST, LEAST = 8, 4


def render_cards(
    model: Constructed,
    images: ImageSet,
    fidelity: Mapping[str, Any] | None = None,
    *,
    title: str = "Node cards",
    made_by_steps: int = STEPS,
) -> str:
    """Return the page: for each node what it fires on most and least, its mean heat map, what it reads, its figures.

    Args:
        images: photographs that the nodes did not learn from.
        fidelity: what `vision.fidelity` wrote, where there is one.
        made_by_steps: steps of the picture made for each node (see `vision.visualise`); 0 makes none.
    """
    maps = np.concatenate(list(in_blocks(images.pixels)))
    scores = model.bank.scores(maps)
    made = visualise(model.bank.nodes, steps=made_by_steps) if made_by_steps else None
    cards = []
    for i, node in enumerate(model.bank.nodes):
        cards.append(_card(model, images, node, scores[:, i], maps, (fidelity or {}).get("nodes", {}).get(node.name)))
        if made is not None:
            score = float(model.bank.scores(primitives(made[i : i + 1]))[0, i])
            cards[-1] |= {"made": data_url(made[i]), "made_score": f"{score:.2f}"}
    weight = {
        node.name: sum(abs(rule.influence.get(node.name, 0.0)) for rule in model.rules.rules)
        for node in model.bank.nodes
    }
    cards.sort(key=lambda card: -weight[card["name"]])
    summary = (fidelity or {}).get("summary", {})
    return render(
        "cards.html", title=title, cards=cards, summary=summary_rows(summary), classes=", ".join(model.classes)
    )


def _card(
    model: Constructed, images: ImageSet, node: Node | PlainNode, scores: npt.NDArray[np.float64],
    maps: npt.NDArray[np.uint8], judged: Mapping[str, Any] | None,
) -> dict[str, Any]:  # fmt: skip
    order = np.argsort(-scores, kind="stable")
    # No more than two of a class among the most, so that one class cannot hide what else it fires on.
    most, seen = [], dict.fromkeys(range(len(images.classes)), 0)
    for row in order:
        if seen[int(images.labels[row])] < 2 and len(most) < MOST:
            most.append(int(row))
            seen[int(images.labels[row])] += 1
    least = order[::-1][:LEAST].tolist()
    bank = NodeBank([node])
    shown = [*most, *least]
    evidence = _probability(bank.maps(maps[shown])[:, 0], node)
    said = model.concepts[node.name]
    true_rows = np.flatnonzero(np.isin(images.labels, [images.classes.index(c) for c in said["true_of"]
                                                       if c in images.classes]))  # fmt: skip
    true_rows = spread(true_rows, 200)
    mean = _probability(bank.maps(maps[true_rows])[:, 0], node).mean(0) if len(true_rows) else np.zeros((16, 16))
    flat = np.full((96, 96, 3), 205, dtype=np.uint8)
    figures = []
    if judged is not None:
        moved = judged["transfer"]
        figures = [
            ("classes never seen", _interval(moved)), ("polarity", _number(judged["polarity"])),
            ("above random concepts", _number(judged["selectivity"], sign=True)),
            ("picture statistics alone", _number(judged["controls"]["picture_statistics"])),
            ("class memoriser", _number(judged["controls"]["class_memoriser"])),
        ]  # fmt: skip
        if judged.get("place"):
            place = judged["place"]
            figures += [
                (
                    f"points into the {place['truth']}",
                    f"{place['pointing']:.0%} (centre {place['pointing_centre']:.0%})",
                ),
                ("evidence inside", f"{place['energy_inside']:.0%} (area {place['area']:.0%})"),
                ("rests on the object", _number(place["locality"])),
            ]
    return {
        "name": node.name, "title": node.name.replace("_", " "), "question": said["question"],
        "verdict": "" if judged is None else "faithful" if judged["faithful"] else "not shown to be faithful",
        "most": [_shot(images, row, evidence[k], float(scores[row])) for k, row in enumerate(most)],
        "least": [_shot(images, row, evidence[len(most) + k], float(scores[row])) for k, row in enumerate(least)],
        "mean": data_url(heat(flat, mean.astype(np.float32))), "figures": figures,
        "about": f"{node.shape.parameters:,} parameters, sees {node.shape.receptive_field:.0%} of the side; true of "
        + ", ".join(said["true_of"]),
        "reads": ", ".join(f"{name} {value:+.2f}" for name, value in reads(node)),
    }  # fmt: skip


def reads(node: Node | PlainNode, n: int = 6) -> list[tuple[str, float]]:
    """The primitives that move a node most: change of the map's mean when a channel rises by a tenth everywhere, from
    an even picture; what plain code under it the node leans on."""
    import torch

    from vision.nodes import node_maps

    if isinstance(node, PlainNode):
        change = {name.replace("_", " "): 0.1 * value * node.slope for name, value in node.coefficients.items()}
        return sorted(change.items(), key=lambda item: -abs(item[1]))[:n]
    channels = node.shape.channels
    base = torch.full((len(channels) + 1, len(channels), 16, 16), 0.2)
    base[torch.arange(len(channels)), torch.arange(len(channels))] += 0.1
    with torch.inference_mode():
        answers = node_maps(base, [torch.from_numpy(w[None]) for w in node.weights], node.shape)[:, 0].mean((1, 2))
    change = (answers[:-1] - answers[-1]).numpy() * node.slope
    order = np.argsort(-np.abs(change), kind="stable")[:n]
    return [(CHANNELS[channels[i]].replace("_", " "), float(change[i])) for i in order]


def _probability(maps: npt.NDArray[np.float32], node: Node | PlainNode) -> npt.NDArray[np.float32]:
    return (1 / (1 + np.exp(-np.clip(maps * node.slope + node.offset, -30, 30)))).astype(np.float32)


def _shot(images: ImageSet, row: int, evidence: npt.NDArray[np.float32], score: float) -> dict[str, str]:
    pixels = np.array(images.pixels[row])
    return {"image": data_url(pixels), "heat": data_url(heat(pixels, evidence)), "score": f"{score:.2f}",
            "label": images.classes[int(images.labels[row])]}  # fmt: skip


def _interval(moved: Mapping[str, Any]) -> str:
    if moved["auroc"] is None:
        return "too few classes"
    return f"{moved['auroc']:.2f} ({moved['low']:.2f} to {moved['high']:.2f}), p {moved['p_value']:.3f}"


def _number(value: float | None, *, sign: bool = False) -> str:
    return "unknown" if value is None else f"{value:+.2f}" if sign else f"{value:.2f}"


def summary_rows(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(what, percentage) of the summary that `vision fidelity` writes; nothing where there is none."""
    if not summary:
        return []
    rows = [
        ("accuracy", summary["accuracy"]), ("with faithful nodes alone", summary["accuracy_faithful_only"]),
        ("with nodes of another seed, same rules", summary["accuracy_swapped_nodes"]),
        ("classes new to every node, by rule alone", summary["accuracy_new_classes_by_rule_alone"]),
        ("rules' weight on faithful nodes", summary["rule_weight_on_faithful"]),
        ("nodes with positive polarity", summary["positive_polarity_share"]),
    ]  # fmt: skip
    return [(name, "none" if value is None else f"{value:.1%}") for name, value in rows]
