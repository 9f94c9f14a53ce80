"""A run's results as one self-contained HTML page: what was measured, how the model decides, one file explained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cgpt.explain_page import viewer_html, viewer_script, viewer_style
from cgpt.page import asset, escape, fill, line_html, python_lines

_PAGE = Path(__file__).parent / "page"


def render_report(report: Mapping[str, Any]) -> str:
    """Return the page, ready to be written as UTF-8; it loads nothing and opens from disk.

    Args:
        report: a dict with these keys, each of which may be missing (its section is then left out)::

            {"title": str, "commit": str, "command": str, "created": str (ISO time), "environment": {name: text},
             "leaderboard": [{"name", "bits_per_byte", "bits_per_byte_low", "bits_per_byte_high", "accuracy",
                 "accuracy_low", "accuracy_high" (shares, 0 to 1), "parameters", "table_entries", "seconds",
                 "peak_rss_bytes", "bytes_per_token", "note"}],  # first row: constructed
             "comparison": {"ratio", "low", "high", "text"},  # constructed / baseline bits per byte
             "waterfall": [{"concept", "question", "group", "positions", "bytes", "constructed_bits", "baseline_bits"}],
             "router": {"source": str, "hits": {line: count}},
             "mixer": [{"concept", "positions", "weights": {expert: weight}}],
             "explain": explain record (see cgpt.explain),
             "completion": {"prompt": str, "completion": str},
             "skipped": [[path, reason]], "notes": [str]}

    Raises:
        ConstructibleError: the explain record is of another format.
    """
    sections = [
        ("result", "Result", _result(report)),
        ("waterfall", "Where the bits go", _waterfall(report.get("waterfall") or [])),
        ("explained", "One file, token by token", _explained(report.get("explain"))),
        ("router", "The router", _router(report.get("router"))),
        ("mixer", "Who is listened to", _mixer(report.get("mixer") or [])),
        ("completion", "A completion", _completion(report.get("completion"))),
        ("run", "The run", _run(report)),
    ]
    shown = [(key, heading, body) for key, heading, body in sections if body]
    title = str(report.get("title") or "Constructible report")
    return fill(
        asset("report.html", _PAGE),
        title=escape(title),
        subtitle=_subtitle(report),
        contents="".join(f'<a href="#{key}">{heading}</a>' for key, heading, _ in shown),
        sections="\n".join(
            f'<section id="{key}" aria-labelledby="h-{key}"><h2 id="h-{key}">{heading}</h2>{body}</section>'
            for key, heading, body in shown
        ),
        style=viewer_style() + asset("report.css", _PAGE),
        script=viewer_script() + asset("report.js", _PAGE),
    )


# Numbers as people read them. A thin space keeps digits and unit together.


def _figure(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _percent(share: float | None, digits: int = 1) -> str:
    return "–" if share is None else f"{100 * share:.{digits}f} %"


def _count(value: float | None) -> str:
    if value is None:
        return "–"
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:.3g}\u2009{unit}"
    return f"{value:,.0f}"


def _bytes(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value / 2**30:.2f}\u2009GiB" if value >= 2**30 else f"{value / 2**20:.0f}\u2009MiB"


def _interval(row: Mapping[str, Any], key: str, show: Any) -> str:
    low, high = row.get(f"{key}_low"), row.get(f"{key}_high")
    return "" if low is None or high is None else f'<span class="interval">{show(low)} to {show(high)}</span>'


def _width(part: float, whole: float) -> str:
    """A share of the full width in CSS percent."""
    return f"{100 * max(0.0, part) / whole:.3f}%" if whole > 0 else "0%"


def _subtitle(report: Mapping[str, Any]) -> str:
    parts = [escape(report[key]) for key in ("created",) if report.get(key)]
    if report.get("commit"):
        parts.append(f"commit <code>{escape(report['commit'])}</code>")
    if report.get("command"):
        parts.append(f"<code>{escape(report['command'])}</code>")
    return " · ".join(parts)


def _result(report: Mapping[str, Any]) -> str:
    rows = report.get("leaderboard") or []
    comparison = report.get("comparison")
    html = ""
    if comparison:
        between = ""
        if comparison.get("low") is not None and comparison.get("high") is not None:
            between = (
                f'<span class="interval">95&nbsp;% interval {comparison["low"]:.3f} to {comparison["high"]:.3f}</span>'
            )
        html += (
            f'<div class="headline"><span class="big">{_figure(comparison.get("ratio"))}</span>'
            f"<div><p>{escape(comparison.get('text', ''))}</p>{between}</div></div>"
        )
    if rows:
        html += _leaderboard(rows)
    if report.get("notes"):
        html += '<ul class="notes">' + "".join(f"<li>{escape(note)}</li>" for note in report["notes"]) + "</ul>"
    return html


def _leaderboard(rows: Sequence[Mapping[str, Any]]) -> str:
    ends = [row.get(key) for row in rows for key in ("bits_per_byte", "bits_per_byte_low", "bits_per_byte_high")]
    largest = max((float(end) for end in ends if end is not None), default=0.0)
    columns = (
        ("Model", "text"), ("Bits per byte", "number"), ("Next-token accuracy", "number"), ("Parameters", "number"),
        ("Table entries", "number"), ("Seconds", "number"), ("Peak memory", "number"), ("Bytes per token", "number"),
    )  # fmt: skip
    head = "".join(_sortable(label, kind, "ascending" if i == 1 else "none") for i, (label, kind) in enumerate(columns))
    body = ""
    for i, row in enumerate(sorted(rows, key=lambda row: _last_if_none(row.get("bits_per_byte")))):
        side = "ours" if row is rows[0] else "theirs"
        cells = [
            (row.get("bits_per_byte"), _figure(row.get("bits_per_byte")) + _interval(row, "bits_per_byte", _figure)
             + _whisker(row, largest, side)),
            (row.get("accuracy"), _percent(row.get("accuracy")) + _interval(row, "accuracy", _percent)),
            (row.get("parameters"), _count(row.get("parameters"))),
            (row.get("table_entries"), _count(row.get("table_entries"))),
            (row.get("seconds"), _figure(row.get("seconds"), 0)),
            (row.get("peak_rss_bytes"), _bytes(row.get("peak_rss_bytes"))),
            (row.get("bytes_per_token"), _figure(row.get("bytes_per_token"), 2)),
        ]  # fmt: skip
        note = f'<span class="note">{escape(row["note"])}</span>' if row.get("note") else ""
        body += (
            f'<tr class="{"best" if i == 0 else ""}"><th scope="row" data-sort="{escape(row.get("name", ""))}">'
            f'<span class="swatch {side}"></span>{escape(row.get("name", ""))}{note}</th>'
        )
        for (label, _), (value, text) in zip(columns[1:], cells, strict=True):
            body += f'<td data-label="{label}" data-sort="{"" if value is None else value}">{text}</td>'
        body += "</tr>"
    caption = '<caption class="visually-hidden">Leaderboard: lower bits per byte is better</caption>'
    return (
        f'<table class="leaderboard sortable">{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
        '<p class="muted small">Bits per byte over the raw bytes of held-out files, ends included: lower is better. '
        "Intervals: 95 %, bootstrap over files. Parameters are trained floats in nets; table entries are counted "
        "apart.</p>"
    )


def _last_if_none(value: Any) -> float:
    return float("inf") if value is None else float(value)


def _whisker(row: Mapping[str, Any], largest: float, side: str) -> str:
    """Point and interval on a scale from 0 that all rows share."""
    value, low, high = (row.get(f"bits_per_byte{end}") for end in ("", "_low", "_high"))
    if value is None or largest <= 0:
        return ""
    line = ""
    if low is not None and high is not None:
        line = f'<i style="left:{_width(low, largest)};width:{_width(high - low, largest)}"></i>'
    return f'<span class="whisker {side}" aria-hidden="true">{line}<b style="left:{_width(value, largest)}"></b></span>'


def _sortable(label: str, kind: str, order: str = "none") -> str:
    return f'<th scope="col" aria-sort="{order}" data-kind="{kind}"><button type="button">{label}</button></th>'


def _waterfall(rows: Sequence[Mapping[str, Any]]) -> str:
    if not rows:
        return ""
    n_bytes = sum(row["bytes"] for row in rows)
    n_positions = sum(row["positions"] for row in rows)
    if not n_bytes or not n_positions:
        return ""
    ours = [row["constructed_bits"] / n_bytes for row in rows]
    theirs = [row["baseline_bits"] / n_bytes for row in rows]
    widest = max([*ours, *theirs, 1e-12])
    total_ours, total_theirs = sum(ours), sum(theirs)
    order = sorted(range(len(rows)), key=lambda i: ours[i] - theirs[i])
    columns = (
        ("Concept", "text", "none"), ("Positions", "number", "none"), ("Constructed", "number", "none"),
        ("Baseline", "number", "none"), None, ("Saved", "number", "descending"),
    )  # fmt: skip
    body = ""
    for i in order:
        row, saved = rows[i], theirs[i] - ours[i]
        share = row["positions"] / n_positions
        group = f'<span class="group">{escape(row["group"])}</span>' if row.get("group") else ""
        name = escape(row["concept"])
        sign = "\u2212" if saved <= -5e-4 else "+" if saved >= 5e-4 else ""
        bars = "".join(
            f'<span class="hbar {side}"><i style="width:{_width(value, widest)}"></i><em>{value:.3f}</em></span>'
            for side, value in (("ours", ours[i]), ("theirs", theirs[i]))
        )
        body += (
            f'<tr data-saved="{saved:.6f}"><th scope="row" data-sort="{name}">{name}{group}'
            f'<span class="note">{escape(row.get("question", ""))}</span></th>'
            f'<td class="number" data-sort="{share}">{_percent(share)}</td>'
            f'<td class="number value" data-sort="{ours[i]}">{ours[i]:.3f}</td>'
            f'<td class="number value" data-sort="{theirs[i]}">{theirs[i]:.3f}</td>'
            f'<td class="pair" aria-hidden="true">{bars}</td>'
            f'<td data-sort="{saved}"><div class="fall"><span class="step" aria-hidden="true"><i></i></span>'
            f'<em class="{"good" if sign == "+" else "bad" if sign else ""}">{sign}{abs(saved):.3f}</em>'
            "</div></td></tr>"
        )
    head = "".join(_sortable(*column) if column else '<td class="pair"></td>' for column in columns)
    return (
        "<p>Each concept's part of the bits per byte. The router cuts both models' bits the same way, so the bars of "
        f"one colour add up to that model's figure: <strong>{total_ours:.3f}</strong> constructed, "
        f"<strong>{total_theirs:.3f}</strong> baseline. The steps under Saved lead from the baseline, at the right "
        "edge, to the constructed model.</p>"
        '<p class="legend"><span><i class="swatch ours"></i>constructed</span><span>'
        '<i class="swatch theirs"></i>baseline</span></p>'
        f'<table class="waterfall sortable" data-from="{total_theirs:.6f}">'
        '<caption class="visually-hidden">Bits per byte by concept, both models</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    )


def _explained(record: Mapping[str, Any] | None) -> str:
    if not record:
        return ""
    return (
        f"<p>Choose any token of <code>{escape(record['file'])}</code>: which concept was in charge, which router "
        "lines put it there, what each expert gave, and where it had seen it before.</p>"
        + viewer_html(record, "viewer")
    )


def _router(router: Mapping[str, Any] | None) -> str:
    if not router or not router.get("source"):
        return ""
    hits = {int(line): int(count) for line, count in (router.get("hits") or {}).items()}
    lines = python_lines(router["source"])
    while lines and not lines[-1]:
        lines.pop()
    largest = max(hits.values(), default=0)
    rows = ""
    for number, segments in enumerate(lines, 1):
        text = "".join(part for _, part in segments)
        count = hits.get(number, 0)
        # Only a line that decides something can be "never taken"; the rest has no count to show.
        decides = text.lstrip().startswith(("return ", "if ", "elif ")) and all(
            kind != "comment" for kind, _ in segments[:1]
        )
        label = _count(count) if count else "never" if decides else ""
        # The fourth root spreads counts that range over five decades.
        heat = 0.0 if not largest else (count / largest) ** 0.25
        rows += (
            f'<div class="row{" never" if decides and not count else ""}" style="--heat:{heat:.3f}">'
            f'<span class="hits">{label}</span>'
            f'<span class="no">{number}</span><code>{line_html(segments) or " "}</code></div>'
        )
    return (
        "<p>The program that puts one concept in charge of each position. The gutter counts how often a line was "
        "taken in the held-out files; a line never taken is marked.</p>"
        '<div class="router-source" tabindex="0" role="region" aria-label="Router source with line counts">'
        f"{rows}</div>"
    )


def _mixer(rows: Sequence[Mapping[str, Any]]) -> str:
    if not rows:
        return ""
    experts = list(dict.fromkeys(expert for row in rows for expert in row["weights"]))
    head = _sortable("Concept", "text") + _sortable("Positions", "number", "descending")
    head += "".join(_sortable(escape(expert), "number") for expert in experts)
    body = ""
    for row in sorted(rows, key=lambda row: -row["positions"]):
        body += f'<tr><th scope="row" data-sort="{escape(row["concept"])}">{escape(row["concept"])}</th>'
        body += f'<td data-sort="{row["positions"]}">{_count(row["positions"])}</td>'
        for expert in experts:
            weight = row["weights"].get(expert)
            heat = 0.0 if weight is None else max(0.0, min(1.0, float(weight)))
            body += f'<td class="heat" style="--heat:{heat:.3f}" data-sort="{"" if weight is None else weight}">'
            body += f"{_figure(weight, 2)}</td>"
        body += "</tr>"
    return (
        "<p>How much each expert's distribution counts, by concept, averaged over match lengths. Learned on files "
        "that the tables did not count.</p>"
        '<div class="scroll" tabindex="0" role="region" aria-label="Mixer weights">'
        f'<table class="mixer sortable"><caption class="visually-hidden">Mixer weights</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _completion(completion: Mapping[str, Any] | None) -> str:
    if not completion:
        return ""
    return (
        '<pre class="completion" tabindex="0" aria-label="Prompt, then completion">'
        f'<span class="prompt">{escape(completion.get("prompt", ""))}</span>'
        f"<ins>{escape(completion.get('completion', ''))}</ins></pre>"
        '<p class="muted small">Pale: the prompt. Marked: what the constructed model wrote.</p>'
    )


def _run(report: Mapping[str, Any]) -> str:
    html = ""
    facts = [(key, report.get(key)) for key in ("command", "commit", "created")]
    facts += list((report.get("environment") or {}).items())
    known = [(name, value) for name, value in facts if value not in (None, "")]
    if known:
        pairs = "".join(f"<dt>{escape(name)}</dt><dd><code>{escape(value)}</code></dd>" for name, value in known)
        html += f'<dl class="facts">{pairs}</dl>'
    skipped = report.get("skipped") or []
    if skipped:
        items = "".join(f"<li><code>{escape(path)}</code>: {escape(reason)}</li>" for path, reason in skipped)
        html += f"<details><summary>{len(skipped)} files left out</summary><ul>{items}</ul></details>"
    return html
