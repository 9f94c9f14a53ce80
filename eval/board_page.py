"""The leaderboard as one self-contained page: sorts, filters, opens a row's raw results."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cgpt.page import asset, escape, fill, script_json
from eval.board import COLUMNS, Entry, place_of

_PAGE = Path(__file__).parent / "page"


def render(rows: Sequence[Entry]) -> str:
    """The page; it loads nothing and opens from disk; links to raw files are relative to its folder."""
    head = "".join(
        f'<th scope="col" aria-sort="none" data-kind="{kind}"><button type="button">{escape(title)}</button></th>'
        for title, kind, *_ in COLUMNS
    )
    body = ""
    for i, row in enumerate(rows):
        words = escape(f"{row.figures.name} {row.kind} {row.board} {row.figures.note} {row.command}".lower())
        body += f'<tr data-board="{escape(row.board)}" data-kind="{escape(row.kind)}" data-words="{words}">'
        for number, (title, _, value, show) in enumerate(COLUMNS):
            plain = value(row)
            key = "" if plain is None or plain != plain else plain
            if number == 0:
                side = "ours" if row.kind == "constructed" else "theirs"
                notes = [row.board[:1].upper() + row.board[1:], *([row.figures.note] if row.figures.note else [])]
                note = "".join(f'<span class="note">{escape(text)}</span>' for text in notes)
                body += (
                    f'<th scope="row" data-sort="{escape(key)}"><span class="swatch {side}"></span>{escape(show(row))}'
                    f"{note}</th>"
                )
            else:
                value_text, bracket, ends = show(row).partition(" [")
                ends = f' <span class="interval">[{escape(ends)}</span>' if bracket else ""
                body += f'<td data-label="{escape(title)}" data-sort="{escape(key)}">{escape(value_text)}{ends}</td>'
        button = f'<button type="button" class="raw-button" data-row="{i}">open</button>'
        body += f'<td data-label="Raw results">{button}</td></tr>'
    boards = list(dict.fromkeys(row.board for row in rows))
    kinds = sorted({row.kind for row in rows})
    filters = (
        '<div class="filters" role="search"><input type="search" id="words" placeholder="Filter by words" '
        'aria-label="Filter by words">' + _choice("board", "All files", boards) + _choice("kind", "All kinds", kinds)
    )
    filters += '<output id="shown" aria-live="polite"></output></div>'
    table = (
        '<div class="wide"><table class="sortable facts-table board"><caption class="visually-hidden">Leaderboard: '
        f"lower bits per byte is better</caption><thead><tr>{head}"
        '<th scope="col" class="plain">Raw results</th></tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )
    explained = (
        '<p class="muted small">Bits per byte over the raw bytes of held-out files, ends included: lower is better. '
        "Only rows of the same files are comparable. Seconds run from raw files to the last artefact. Parameters are "
        "trained numbers in nets; table entries are counted apart. A dash was not measured. Made by "
        "<code>constructible eval leaderboard --write docs</code> from the raw results beside this page.</p>"
    )
    dialog = (
        '<dialog class="raw" aria-labelledby="raw-title"><header><h2 id="raw-title"></h2><button type="button" '
        'class="button" data-close>Close</button></header><div id="raw-body"></div></dialog>'
    )
    raw = [
        {
            "name": row.figures.name,
            "board": row.board,
            "raw": place_of(row.raw),
            "commit": row.commit,
            "facts": row.facts,
        }
        for row in rows
    ]
    data = f'<script type="application/json" id="raw-data">{script_json(raw)}</script>'
    return fill(
        asset("report.html", _PAGE),
        title="Leaderboard",
        subtitle="Constructed models and monoliths, at measured budgets",
        contents='<a href="LEADERBOARD.md">The same as Markdown</a>',
        sections=f'<section id="result" aria-label="Leaderboard">{filters}{table}{explained}</section>{dialog}{data}',
        style=asset("base.css") + asset("report.css", _PAGE) + asset("harness.css", _PAGE),
        script=asset("theme.js") + asset("report.js", _PAGE) + asset("board.js", _PAGE),
    )


def _choice(name: str, every: str, values: Sequence[str]) -> str:
    options = "".join(f'<option value="{escape(value)}">{escape(value)}</option>' for value in values)
    return f'<select id="{name}" aria-label="{escape(every)}"><option value="">{every}</option>{options}</select>'
