"""One explained file as one self-contained HTML page: choose a token and see why the model said what it said."""

from __future__ import annotations

import codecs
from collections.abc import Mapping, Sequence
from typing import Any

from cgpt.page import asset, escape, fill, python_lines, script_json
from ontology.errors import ConstructibleError

FORMAT = "constructible-explain/1"
UNFINISHED = "\u25af"
"""Shown for a token that ends inside a UTF-8 character; the token that completes the character shows it."""


def render_explain(record: Mapping[str, Any], *, title: str | None = None) -> str:
    """Return the page for an explain record (see `cgpt.explain`), ready to be written as UTF-8.

    The page holds one element per token and one line of JSON per token; that JSON is parsed when the token is chosen,
    so a file of 20,000 tokens opens as quickly as a short one.

    Args:
        record: `{"format": "constructible-explain/1", "file", "text", "router_source", "experts", "concepts",
            "tokens"}`; each token has start, end (bytes), text, bits, concept, and where known lines, state, bucket,
            experts, top, reads.
        title: heading; the file's name by default.

    Raises:
        ConstructibleError: the record is of another format, or a part of it is missing.
    """
    name = str(title or record.get("file", "explained file"))
    return fill(
        asset("explain.html"),
        title=escape(name),
        summary=escape(_summary(record)),
        style=asset("base.css") + asset("viewer.css"),
        viewer=viewer_html(record),
        script=viewer_script(),
    )


def viewer_html(record: Mapping[str, Any], element_id: str = "viewer") -> str:
    """The viewer's element and its data, for a page that also has `viewer_style()` and `viewer_script()`."""
    overview, details = pack_record(record)
    lines = "\n".join(script_json(detail) for detail in details)
    label = escape(f"Explained file {record['file']}")
    target = f'data-for="{element_id}"'
    return (
        f'<section class="viewer" id="{element_id}" aria-label="{label}">'
        "<noscript>This view needs JavaScript; nothing is loaded from the network.</noscript></section>\n"
        f'<script type="application/json" {target} class="viewer-overview">{script_json(overview)}</script>\n'
        f'<script type="text/plain" {target} class="viewer-details">{lines}</script>'
    )


def viewer_style() -> str:
    """CSS of the viewer, theme included."""
    return asset("base.css") + asset("viewer.css")


def viewer_script() -> str:
    """JavaScript that finds every viewer on the page and brings it to life."""
    return asset("theme.js") + asset("panel.js") + asset("viewer.js")


def pack_record(record: Mapping[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Split a record into what drawing needs (columns over tokens) and what one token's panel needs.

    State rows repeat a great deal, so distinct ones are kept once, in the overview, and tokens hold their index.
    """
    if record.get("format") != FORMAT:
        raise ConstructibleError(
            f"not an explain record: format is {record.get('format')!r}.", fix=f"make one of format {FORMAT!r}"
        )
    try:
        tokens: Sequence[Mapping[str, Any]] = record["tokens"]
        concepts = [
            {"name": name, "question": concept.get("question", ""), "path": list(concept.get("path") or [name])}
            for name, concept in record["concepts"].items()
        ]
        index = {concept["name"]: i for i, concept in enumerate(concepts)}
        states: dict[tuple[tuple[str, Any], ...], int] = {}
        details = []
        for token in tokens:
            # A concept that the record forgot to describe is still shown by its name.
            if token["concept"] not in index:
                index[token["concept"]] = len(concepts)
                concepts.append({"name": token["concept"], "question": "", "path": [token["concept"]]})
            state = tuple((str(key), value) for key, value in token.get("state", {}).items())
            row = {"state": states.setdefault(state, len(states))}
            row |= {key: token[key] for key in ("lines", "bucket", "experts", "top", "reads") if token.get(key)}
            details.append(row)
        experts = [str(name) for name in record["experts"]]
        overview = {
            "file": record["file"],
            "experts": experts,
            "concepts": concepts,
            "router": python_lines(record.get("router_source", "")),
            "states": [dict(state) for state in states],
            "shown": shown_texts(str(record["text"]), tokens),
            "start": [token["start"] for token in tokens],
            "end": [token["end"] for token in tokens],
            "bits": [token["bits"] for token in tokens],
            "concept": [index[token["concept"]] for token in tokens],
            "leader": [_leader(token, experts) for token in tokens],
        }
    except KeyError as error:
        raise ConstructibleError(f"the explain record has no {error}.", fix="make the record again") from error
    return overview, details


def shown_texts(text: str, tokens: Sequence[Mapping[str, Any]]) -> list[str]:
    """What to draw for each token: its slice of the text, with a character shown where it is completed.

    Where the byte offsets are not those of `text` in UTF-8 (undecodable bytes were replaced), each token's own text.
    """
    data = text.encode("utf-8", "surrogatepass")
    if not tokens or tokens[-1]["end"] != len(data):
        return [str(token["text"]) for token in tokens]
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    shown = []
    for token in tokens:
        piece = data[token["start"] : token["end"]]
        shown.append(decoder.decode(piece) or (UNFINISHED if piece else ""))
    return shown


def _leader(token: Mapping[str, Any], experts: Sequence[str]) -> int:
    """Index of the expert with the largest share, -1 where none is named."""
    shares = token.get("experts") or []
    if not shares:
        return -1
    best = max(shares, key=lambda expert: expert.get("share") or 0.0)
    return experts.index(best["name"]) if best["name"] in experts else -1


def _summary(record: Mapping[str, Any]) -> str:
    tokens = record.get("tokens") or []
    n_bytes = len(str(record.get("text", "")).encode("utf-8", "surrogatepass"))
    bits = sum(float(token["bits"]) for token in tokens)
    per_byte = f"{bits / n_bytes:.3f} bits per byte, " if n_bytes else ""
    return f"{per_byte}{len(tokens):,} tokens, {n_bytes:,} bytes"
