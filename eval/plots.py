"""Vector figures: points with intervals, joined by lines, as SVG text that follows the page's theme."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from cgpt.page import escape

WIDTH, HEIGHT = 640, 320
_LEFT, _LEGEND, _TOP, _BOTTOM = 64, 150, 16, 48
_LETTER = 6.4
"""Width of a letter of the legend, about."""
_COLOURS = ("var(--ours, #1f77b4)", "var(--keyword, #6f3aa8)", "var(--good, #1b6b3a)", "var(--bad, #a3341f)",
            "var(--muted, #5a626b)", "var(--number, #9a4a00)")  # fmt: skip

_STYLE = (
    "<style>text{font:12px system-ui,sans-serif;fill:var(--ink,#1c2024)}.grid{stroke:var(--line,#e2dfd8)}"
    ".axis{stroke:var(--muted,#5a626b)}</style>"
)


@dataclass(frozen=True)
class Point:
    """A figure `y` at `x`, with the ends of its interval where it has one; `label` is what stands below it."""

    x: float
    y: float
    low: float | None = None
    high: float | None = None
    label: str = ""


@dataclass(frozen=True)
class Series:
    """Points of one line, in order of x; not `joined`: points that stand for themselves."""

    name: str
    points: Sequence[Point]
    dashed: bool = False
    joined: bool = True


def line_plot(
    series: Sequence[Series], x_title: str, y_title: str, *, log_x: bool = False, log_y: bool = False, title: str = ""
) -> str:
    """An SVG of 640 x 320 units; an empty text where there is nothing to draw.

    Raises:
        ValueError: a logarithmic axis and a value that is not above 0.
    """
    points = [point for one in series for point in one.points]
    if not points:
        return ""
    for log, values in ((log_x, [p.x for p in points]), (log_y, [p.y for p in points])):
        if log and min(values) <= 0:
            raise ValueError("a logarithmic axis needs values above 0")
    ys = [value for p in points for value in (p.y, p.low, p.high) if value is not None and (value > 0 or not log_y)]
    right = round(max(_LEGEND, min(260.0, 34 + _LETTER * max(len(one.name) for one in series))))
    x_low, x_high = _range([p.x for p in points], log_x)
    y_low, y_high = _range(ys, log_y)

    def at_x(x: float) -> float:
        share = (math.log(x / x_low) / math.log(x_high / x_low)) if log_x else (x - x_low) / (x_high - x_low)
        return _LEFT + share * (WIDTH - _LEFT - right)

    def at_y(y: float) -> float:
        y = max(y, y_low)
        share = (math.log(y / y_low) / math.log(y_high / y_low)) if log_y else (y - y_low) / (y_high - y_low)
        return HEIGHT - _BOTTOM - share * (HEIGHT - _TOP - _BOTTOM)

    parts = [f'<line class="axis" x1="{_LEFT}" x2="{WIDTH - right}" y1="{HEIGHT - _BOTTOM}" y2="{HEIGHT - _BOTTOM}"/>']
    for tick in _ticks(y_low, y_high, log_y):
        y = at_y(tick)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{_shown(tick)}</text>')
    labels = {point.x: point.label for point in points if point.label}
    crowded = sum(map(len, labels.values())) * _LETTER > 0.8 * (WIDTH - _LEFT - right)
    for x, label in labels.items():
        for row, words in enumerate(label.split(" ", 1) if crowded else [label]):
            y = HEIGHT - _BOTTOM + (14 + 12 * row if crowded else 18)
            parts.append(f'<text x="{at_x(x):.1f}" y="{y}" text-anchor="middle">{escape(words)}</text>')
    if not labels:
        for tick in _ticks(x_low, x_high, log_x):
            parts.append(
                f'<text x="{at_x(tick):.1f}" y="{HEIGHT - _BOTTOM + 18}" text-anchor="middle">{_shown(tick)}</text>'
            )
    for number, one in enumerate(series):
        colour = _COLOURS[number % len(_COLOURS)]
        path = " ".join(f"{'M' if i == 0 else 'L'}{at_x(p.x):.1f} {at_y(p.y):.1f}" for i, p in enumerate(one.points))
        dash = ' stroke-dasharray="5 4"' if one.dashed else ""
        if one.joined:
            parts.append(f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>')
        for p in one.points:
            if p.low is not None and p.high is not None:
                parts.append(
                    f'<line x1="{at_x(p.x):.1f}" x2="{at_x(p.x):.1f}" y1="{at_y(p.low):.1f}" y2="{at_y(p.high):.1f}" '
                    f'stroke="{colour}" stroke-width="1.5"/>'
                )
            parts.append(f'<circle cx="{at_x(p.x):.1f}" cy="{at_y(p.y):.1f}" r="3.5" fill="{colour}"/>')
        y = _TOP + 14 + 20 * number
        parts.append(f'<circle cx="{WIDTH - right + 18}" cy="{y - 4}" r="4" fill="{colour}"/>')
        parts.append(f'<text x="{WIDTH - right + 28}" y="{y}">{escape(one.name)}</text>')
    parts.append(
        f'<text x="{(_LEFT + WIDTH - right) / 2}" y="{HEIGHT - 6}" text-anchor="middle">{escape(x_title)}</text>'
    )
    parts.append(
        f'<text transform="translate(14 {(HEIGHT - _BOTTOM + _TOP) / 2}) rotate(-90)" text-anchor="middle">'
        f"{escape(y_title)}</text>"
    )
    name = escape(title or f"{y_title} by {x_title}")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{name}">'
        f"{_STYLE}{''.join(parts)}</svg>"
    )


def dot_plot(
    rows: Sequence[tuple[str, float, float | None, float | None, bool]], x_title: str, *, title: str = ""
) -> str:
    """Figures with their intervals below each other, as an SVG; an empty text where there is nothing to draw.

    Args:
        rows: (name, figure, low, high, whether it stands out) from top to bottom.
        x_title: what the figures are.
        title: for those who cannot see it.
    """
    if not rows:
        return ""
    left = round(min(340.0, 24 + _LETTER * max(len(row[0]) for row in rows)))
    low, high = _range([value for row in rows for value in row[1:4] if value is not None], False)
    height, bottom = 56 + 26 * len(rows), 26 * len(rows) + 12

    def at(x: float) -> float:
        return left + (x - low) / (high - low) * (WIDTH - left - 24)

    parts = [f'<line class="axis" x1="{left}" x2="{WIDTH - 24}" y1="{bottom}" y2="{bottom}"/>']
    for tick in _ticks(low, high, False):
        parts.append(f'<line class="grid" x1="{at(tick):.1f}" x2="{at(tick):.1f}" y1="8" y2="{bottom}"/>')
        parts.append(f'<text x="{at(tick):.1f}" y="{bottom + 16}" text-anchor="middle">{_shown(tick)}</text>')
    for number, (name, value, below, above, stands_out) in enumerate(rows):
        y, colour = 22 + 26 * number, _COLOURS[0 if stands_out else 4]
        parts.append(f'<text x="{left - 12}" y="{y + 4}" text-anchor="end">{escape(name)}</text>')
        if below is not None and above is not None:
            parts.append(f'<line x1="{at(below):.1f}" x2="{at(above):.1f}" y1="{y}" y2="{y}" stroke="{colour}" '
                         'stroke-width="2"/>')  # fmt: skip
        parts.append(f'<circle cx="{at(value):.1f}" cy="{y}" r="4.5" fill="{colour}"/>')
    parts.append(f'<text x="{(left + WIDTH - 24) / 2}" y="{height - 6}" text-anchor="middle">{escape(x_title)}</text>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-label="{escape(title or x_title)}">{_STYLE}{"".join(parts)}</svg>'
    )


def _range(values: Sequence[float], log: bool) -> tuple[float, float]:
    low, high = min(values), max(values)
    if log:
        margin = max((high / low) ** 0.06, 1.05)
        return low / margin, high * margin
    margin = 0.08 * (high - low) or abs(high) * 0.1 or 1.0
    return low - margin, high + margin


def _ticks(low: float, high: float, log: bool) -> list[float]:
    if log:
        decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        found = [m * 10.0**d for d in decades for m in (1, 2, 5) if low <= m * 10.0**d <= high]
        return found if 2 <= len(found) <= 8 else found[:: max(1, len(found) // 6)] or [low, high]
    step = 10.0 ** math.floor(math.log10((high - low) / 4))
    step = next(step * m for m in (1, 2, 5, 10) if (high - low) / (step * m) <= 6)
    first = math.ceil(low / step)
    return [round(i * step, 12) for i in range(first, math.floor(high / step) + 1)]


def _shown(value: float) -> str:
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= limit:
            return f"{value / limit:.3g} {unit}"
    return f"{value:.3g}"
