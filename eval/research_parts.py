"""Sections of the research post: contenders at equal budgets, scale, and what is said in short."""

from __future__ import annotations

import posixpath
from pathlib import Path
from typing import Any, Protocol

from eval import contenders_rows, decomposition, scale
from eval.scale_page import gap_words
from ontology.io import read_json


class Post(Protocol):
    """What a section needs of `research.Post`."""

    def heading(self, text: str) -> None: ...
    def text(self, text: str) -> None: ...
    def bullets(self, items: Any) -> None: ...
    def table(self, head: Any, rows: Any) -> None: ...
    def figure(self, name: str, svg: str, caption: str) -> None: ...


def link(raw: str) -> str:
    """A link to raw results, from the folder of the pages."""
    place = posixpath.normpath(f"results/{raw}")
    return f"[{posixpath.basename(place)}]({place})"


def raw_files(results: Path) -> list[tuple[str, dict[str, Any]]]:
    """JSON files of raw results: (path within the folder, content), those of curves and of scale."""
    found = [(path.relative_to(results).as_posix(), read_json(path)) for path in sorted(results.rglob("*.json"))]
    return [(name, raw) for name, raw in found if decomposition.is_raw(raw) or scale.is_raw(raw)]


def contenders(post: Post, results: Path) -> None:
    """Models at equal budgets on unseen projects, in figures and in ratios."""
    found = contenders_rows.read(results)
    for board in dict.fromkeys(one.board for one in found):
        chosen = [one for one in found if one.board == board]
        pairs = [one for one in contenders_rows.ratios(found) if one.ours.board == board]
        if pairs:
            post.text(f"**Contenders: {board}.** Constructed against each other model of its minutes, paired by file:")
        post.bullets([f"{contenders_rows.ratio_words(one)} ({link(one.ours.raw)})." for one in pairs])
        if len(chosen) > 1:
            caption = f"Bits per byte against the seconds of the build, {board}; lower is better."
            post.figure(f"contenders {board}", contenders_rows.figure(found, board), caption)
    post.bullets([f"Not equal: {text}." for text in contenders_rows.unlike(found)])


def scales(post: Post, results: Path) -> None:
    """Studies of scale from their raw files."""
    for name, raw in raw_files(results):
        if not scale.is_raw(raw):
            continue
        laws = scale.scaling(raw)
        post.heading("Scale")
        for text in raw["method"]:
            post.text(text)
        for axis, svg in scale.scale_plots(laws):
            post.figure(f"{Path(name).stem} {axis}", svg, f"Bits per byte: {axis}.")
        post.bullets([f"{scale.law_words(law)} ({link(name)})." for law in laws])
        if found := scale.gaps(raw):
            post.text("Constructed / monolith in bits per byte where both were built at the same size:")
            post.bullets([f"{gap_words(gap)} ({link(name)})." for gap in found])


def short(results: Path) -> list[str]:
    """The answers in a sentence each."""
    said = []
    found = contenders_rows.read(results)
    newest = {one.board: one.version for one in reversed(found)}
    for one in contenders_rows.ratios(found):
        if one.ours.version != newest[one.ours.board]:
            continue  # superseded by the current version's
        if one.other.model in ("gpt", "gpt+tables", "unrouted") and one.ours.board.endswith("static"):
            said.append(f"At equal minutes on unseen projects: {contenders_rows.ratio_words(one)} "
                        f"({link(one.ours.raw)}).")  # fmt: skip
    for name, raw in raw_files(results):
        if decomposition.is_raw(raw):
            said += [f"Decomposition, {raw['track']}: {line.words} ({link(name)})" for line in decomposition.lines(raw)]
        elif scale.is_raw(raw):
            laws = scale.scaling(raw)
            main = {"data": "training bytes", "work": "seconds", "parameters": "parameters"}
            seen = [law for law in laws if main.get(law.sweep, law.axis) == law.axis and law.kind != "no nets"]
            said += [f"Scale: {scale.law_words(law)} ({link(name)})." for law in seen]
            turned = [law for law in laws if law.turns]
            if not turned:
                said.append(f"No curve of scale turns back up beyond chance ({link(name)}).")
    return said


def lost(results: Path) -> list[str]:
    """Comparisons of contenders in which the constructed model does not win, and curves that turn back up."""
    said = [
        f"{one.ours.board}: {contenders_rows.ratio_words(one)} ({link(one.ours.raw)})."
        for one in contenders_rows.ratios(contenders_rows.read(results))
        if not (one.told and one.ratio.estimate < 1)
    ]
    for name, raw in raw_files(results):
        if scale.is_raw(raw):
            said += [
                f"{law.sweep + ': ' if law.sweep else ''}{law.kind} turns back up with {law.axis} at "
                f"{'; '.join(law.turns)} ({link(name)})."
                for law in scale.scaling(raw) if law.turns
            ]  # fmt: skip
            said += [
                f"The monolith needs fewer bits: {gap_words(gap)} ({link(name)})."
                for gap in scale.gaps(raw) if gap.ratio.estimate >= 1
            ]  # fmt: skip
    return said
