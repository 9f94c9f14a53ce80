"""A comparison as text and as one self-contained page."""

from __future__ import annotations

from pathlib import Path

from cgpt.page import asset, escape, fill
from eval.compare import Compared, Difference

_PAGE = Path(__file__).parent / "page"


def as_text(compared: Compared) -> str:
    """Lines for a terminal."""
    lines = [f"A = {compared.a}, B = {compared.b}: {_standing(compared)}"]
    lines += [f"  unequal, {one.kind}: {one.text}" for one in compared.objections]
    for one in compared.differences:
        lines.append(
            f"{one.task}, {one.metric.name}: A {one.metric.show(one.a)}, B {one.metric.show(one.b)}; "
            f"A - B = {_interval(one)}, q = {one.q_value:.3g}: {one.verdict}"
        )
    lines += _left_out(compared)
    lines.append(_method(compared))
    return "\n".join(lines)


def render(compared: Compared) -> str:
    """The page; it loads nothing and opens from disk."""
    objections = "".join(f"<li><strong>{escape(o.kind)}</strong>: {escape(o.text)}</li>" for o in compared.objections)
    verdict = f"<p><strong>{escape(_standing(compared))}</strong></p>"
    verdict += f'<ul class="notes">{objections}</ul>' if objections else ""
    verdict += "".join(f"<p>{escape(text)}</p>" for text in _left_out(compared))
    sections = [
        ("result", "Result", verdict + _table(compared.differences, "Figure") + f"<p>{escape(_method(compared))}</p>"),
        ("situations", "By situation", _table(compared.parts, "Situation") if compared.parts else ""),
    ]
    shown = [row for row in sections if row[2]]
    return fill(
        asset("report.html", _PAGE),
        title=escape(f"{compared.a} against {compared.b}"),
        subtitle=f"A is {escape(compared.a)}, B is {escape(compared.b)}",
        contents="".join(f'<a href="#{key}">{heading}</a>' for key, heading, _ in shown),
        sections="\n".join(
            f'<section id="{key}" aria-labelledby="h-{key}"><h2 id="h-{key}">{heading}</h2>{body}</section>'
            for key, heading, body in shown
        ),
        style=asset("base.css") + asset("report.css", _PAGE) + asset("harness.css", _PAGE),
        script=asset("theme.js") + asset("report.js", _PAGE),
    )


def _standing(compared: Compared) -> str:
    if compared.equal:
        return f"an equal-budget pair (same data; {compared.clock} and parameters within {compared.tolerance:.0%})"
    return "NOT an equal-budget pair"


def _left_out(compared: Compared) -> list[str]:
    if not compared.left_out:
        return []
    return [f"Not compared, because each counts in tokens of its own: {'; '.join(compared.left_out)}."]


def _method(compared: Compared) -> str:
    n = len(compared.differences) + len(compared.parts)
    units = dict.fromkeys(compared.clustered_by.values())
    tasks = {unit: ", ".join(task for task, by in compared.clustered_by.items() if by == unit) for unit in units}
    resampled = " and ".join(f"{unit}s" + (f" ({tasks[unit]})" if len(units) > 1 else "") for unit in units)
    few = "example" in units and compared.projects > 1
    over = f", of {compared.projects} projects: nothing about other projects" if few else ""
    return (
        f"Paired bootstrap over {resampled}{over}, 95 % intervals; q: p-values adjusted for the "
        f"{len(compared.differences)} figures (and apart from them the {len(compared.parts)} of situations) looked at "
        f"here, Benjamini and Hochberg, rate 5 %."
        if n
        else "Nothing to compare."
    )


def _interval(one: Difference) -> str:
    c, show = one.comparison, one.metric.show
    ends = c.as_dict("x")
    return show(c.estimate, ends["x_low"], ends["x_high"])


def _table(rows: list[Difference], first: str) -> str:
    head = ((first, "text"), ("Figure", "text"), ("A", "number"), ("B", "number"), ("A − B [95 %]", "number"),
            ("q", "number"), ("Verdict", "text"))  # fmt: skip
    head = head if first == "Situation" else (head[0], *head[2:])
    cells = "".join(
        f'<th scope="col" aria-sort="none" data-kind="{kind}"><button type="button">{label}</button></th>'
        for label, kind in head
    )
    body = ""
    for one in sorted(rows, key=lambda row: -abs(row.comparison.estimate)) if first == "Situation" else rows:
        name = one.part if first == "Situation" else f"{one.task}: {one.metric.name}"
        body += f'<tr><th scope="row" data-sort="{escape(name)}">{escape(name)}</th>'
        if first == "Situation":
            body += f'<td data-label="Figure" data-sort="{escape(one.metric.name)}">{escape(one.metric.name)}</td>'
        for label, value, text in (
            ("A", one.a, one.metric.show(one.a)), ("B", one.b, one.metric.show(one.b)),
            ("A − B", one.comparison.estimate, _interval(one)), ("q", one.q_value, f"{one.q_value:.3g}"),
        ):  # fmt: skip
            body += f'<td data-label="{label}" data-sort="{value}">{escape(text)}</td>'
        body += f'<td data-label="Verdict" data-sort="{escape(one.verdict)}">{escape(one.verdict)}</td></tr>'
    table = f'<table class="sortable facts-table"><thead><tr>{cells}</tr></thead><tbody>{body}</tbody></table>'
    return f'<div class="wide">{table}</div>'
