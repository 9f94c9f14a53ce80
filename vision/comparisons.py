"""Two rows of a table compared, photograph by photograph: as JSON values and in words."""

from __future__ import annotations

from typing import Any

import numpy as np

from ontology.stats import Comparison


def comparison(
    a: str, b: str, difference: Comparison, resampled: str, ratio: Comparison | None = None
) -> dict[str, Any]:  # fmt: skip
    """The difference (and ratio) of the rows `a` and `b`; None stands for what does not exist, since JSON has no nan.

    Args:
        resampled: what the interval resamples: draws, classes, photographs.
    """
    return {
        "a": a, "b": b, **difference.as_dict("difference"), "p_value": _known(difference.p_value),
        "minimum_detectable": _known(difference.minimum_detectable), "resampled": resampled,
        **(ratio.as_dict("ratio") if ratio else {}),
    }  # fmt: skip


def in_words(d: dict[str, Any]) -> str:
    """A `comparison` as a sentence; an interval, ratio or p-value that does not exist is left out."""
    text = f"{d['a']} - {d['b']}: {100 * d['difference']:+.1f} points"
    if d["difference_low"] is not None and d["difference_high"] is not None:
        text += f" ({100 * d['difference_low']:+.1f} to {100 * d['difference_high']:+.1f}, "
        text += f"resampling {d.get('resampled', 'classes')})"  # results of before did not say
    if d.get("ratio_low") is not None and d.get("ratio_high") is not None:
        text += f", {d['ratio']:.2f} times as much ({d['ratio_low']:.2f} to {d['ratio_high']:.2f})"
    if d["p_value"] is not None and d["minimum_detectable"] is not None:
        text += f", p {d['p_value']:.3f}; smallest difference that would be found {100 * d['minimum_detectable']:.1f}"
    return text + "."


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
