"""Building blocks of the self-contained pages: assets, a one-pass template, JSON inside HTML, Python highlighting.

Everything a page needs is inside the page: no network, no framework, opens from disk.
"""

from __future__ import annotations

import html
import json
import keyword
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

_FOLDER = Path(__file__).parent
_SLOT = re.compile(r"\{\{(\w+)\}\}")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_KEYWORDS = "|".join(keyword.kwlist)
_PYTHON = re.compile(
    r'(?P<string>"""[\s\S]*?(?:"""|\Z)|\'\'\'[\s\S]*?(?:\'\'\'|\Z)|"(?:\\.|[^"\\\n])*"?|\'(?:\\.|[^\'\\\n])*\'?)'
    r"|(?P<comment>#[^\n]*)"
    rf"|(?P<keyword>\b(?:{_KEYWORDS})\b)"
    r"|(?P<number>\b\d[\w.]*)"
)


def asset(name: str, folder: Path = _FOLDER) -> str:
    """Text of a page's template, style or script (a file beside this module, or in `folder`)."""
    return (folder / name).read_text(encoding="utf-8")


def fill(template: str, **values: str) -> str:
    """Replace each `{{name}}` in one pass, so that nothing inside a value is ever taken for a slot.

    Raises:
        KeyError: the template has a slot that `values` does not name.
    """
    return _SLOT.sub(lambda slot: values[slot.group(1)], template)


def escape(text: object) -> str:
    """Text for an element or a quoted attribute; control characters, which HTML does not allow, become U+FFFD."""
    return html.escape(_CONTROL.sub("\ufffd", _valid(str(text))), quote=True)


def script_json(value: Any) -> str:
    """Compact ASCII JSON that cannot end the script element it stands in, whatever the strings hold.

    `<`, `>` and `&` become \\u escapes, so neither `</script>` nor `<!--` can occur; nan and infinity, which JSON does
    not have, become null; the page is plain ASCII here, so no byte of a string can break its encoding.
    """
    text = json.dumps(_clean(value), separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def python_lines(source: str) -> list[list[tuple[str, str]]]:
    """Source -> per line a list of (class, text), class one of "", string, comment, keyword, number."""
    lines: list[list[tuple[str, str]]] = [[]]
    for kind, text in _segments(source.replace("\r\n", "\n").replace("\r", "\n")):
        first, *rest = text.split("\n")
        if first:
            lines[-1].append((kind, first))
        for part in rest:
            lines.append([(kind, part)] if part else [])
    return lines


def line_html(segments: list[tuple[str, str]]) -> str:
    """One line of `python_lines` as HTML."""
    return "".join(
        f'<span class="py-{kind}">{escape(text)}</span>' if kind else escape(text) for kind, text in segments
    )


def _segments(source: str) -> Iterator[tuple[str, str]]:
    end = 0
    for match in _PYTHON.finditer(source):
        yield "", source[end : match.start()]
        yield match.lastgroup or "", match.group()
        end = match.end()
    yield "", source[end:]


def _clean(value: Any) -> Any:
    """The value with floats at five digits, non-finite ones as None, numpy scalars as Python's, and keys that hold None
    left out (evidence without a file is common, and pages are large)."""
    kind = type(value)
    if kind is str or kind is int or kind is bool or value is None:
        return value
    if kind is float:
        return float(f"{value:.5g}") if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _clean(item) for key, item in value.items() if item is not None}
    if isinstance(value, (list, tuple)):
        return [_clean(item) for item in value]
    if hasattr(value, "tolist"):
        return _clean(value.tolist())
    return value


def _valid(text: str) -> str:
    """Lone surrogates (undecodable bytes of a path) cannot be written as UTF-8."""
    return text.encode("utf-8", "replace").decode("utf-8")
