"""Sections of the research post about studies of the image track (`vision study`): tables, differences, what failed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from eval.research_parts import Post, link
from ontology.io import read_json
from ontology.stats import adjusted_p
from vision.study import FORMAT, table

QUESTIONS = {
    "cuts": "Where do nets sit: one for all, or one for each feature?",
    "heads": "What does it cost to force the head above the nodes to be plain code?",
    "together": "Should nodes learn their own questions, or the classes together?",
    "growth": "What can be told of new classes with the nodes of old ones?",
    "pooling": "How does a map become one number?",
    "controls": "Does it matter what the nodes are told that classes show?",
}
_OLD = 2.8016
"""Standard errors that the smallest difference to be found had in files of before it knew of few clusters."""


def studies(results: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(path within the folder, content) of raw results of studies."""
    for path in sorted(results.rglob("*.json")):
        raw = read_json(path)
        if isinstance(raw, dict) and raw.get("format") == FORMAT and raw.get("rows"):
            yield path.relative_to(results).as_posix(), raw


def differences(results: Path) -> list[tuple[str, Mapping[str, Any], Mapping[str, Any], float]]:
    """(file, study, difference, q) of all studies, p-values adjusted for all differences of a study."""
    found = []
    for name, raw in studies(results):
        rows = raw.get("differences", [])
        p = [float("nan") if one.get("p_value") is None else float(one["p_value"]) for one in rows]
        found += [(name, raw, one, float(q)) for one, q in zip(rows, adjusted_p(p), strict=True)]
    return found


def words(raw: Mapping[str, Any], one: Mapping[str, Any], q: float) -> str:
    """A difference in one sentence."""
    text = f"{one['a']} less {one['b']}: {100 * one['difference']:+.1f}"
    low, high = one.get("difference_low"), one.get("difference_high")
    if low is None or high is None:
        return f"{text} points of photographs; one alone says nothing of chance"
    over = f", over {one['resampled']}" if one.get("resampled") else ""
    text += f" [{100 * low:+.1f}, {100 * high:+.1f}] points of photographs{over}"
    if told(one, q):
        return f"{text}, {'better' if one['difference'] > 0 else 'worse'} (q {q:.3f})"
    least, half = one.get("minimum_detectable"), (high - low) / 2
    if least is not None and least < half:  # filed when it knew nothing of few clusters
        least = half + 0.8416 * least / _OLD
    if low > 0 or high < 0:
        return f"{text}, not told from none with all differences of its study counted (q {q:.3f})"
    found = "" if least is None else f"; ±{100 * least:.1f} would be found 4 times in 5"
    return f"{text}, not told from none (q {q:.3f}{found})"


def told(one: Mapping[str, Any], q: float) -> bool:
    """Whether a difference is told from none, all of the post's looked at."""
    low, high = one.get("difference_low"), one.get("difference_high")
    return q <= 0.05 and low is not None and high is not None and (low > 0 or high < 0)


def sections(post: Post, results: Path) -> None:
    """A table and the differences of each study."""
    found = list(studies(results))
    if not found:
        return
    post.heading("Studies of the image track")
    every = differences(results)
    for name, raw in found:
        budget = f"{raw['minutes']:g} minutes" if raw.get("minutes") else f"{raw['steps']} steps"
        draws = len(raw["draws"])
        post.text(
            f"**{raw['study'][:1].upper()}{raw['study'][1:]}.** {QUESTIONS.get(raw['study'], '')} `{raw['data']}`, "
            f"{draws} draw{'s' if draws > 1 else ''} of classes, {budget} a training, judged on {raw['judged_on']} "
            "photographs."
        )  # fmt: skip
        lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in table(dict(raw)).splitlines()
                 if line.startswith("|")]  # fmt: skip
        post.table([*lines[0], "Raw results"], [[*cells, link(name)] for cells in lines[2:]])
        post.bullets([f"{words(of, one, q)} ({link(place)})." for place, of, one, q in every if place == name])


def short(results: Path) -> list[str]:
    """Nodes against the monolith, in a sentence for each study of cuts."""
    return [
        f"Images, {len(raw['draws'])} draws of classes: {words(raw, one, q)} ({link(name)})."
        for name, raw, one, q in differences(results) if raw["study"] == "cuts"
    ]  # fmt: skip


def lost(results: Path) -> list[str]:
    """Differences that are told from none and are a loss."""
    return [
        f"Images, {raw['study']}: {words(raw, one, q)} ({link(name)})."
        for name, raw, one, q in differences(results) if told(one, q) and one["difference"] < 0
    ]  # fmt: skip
