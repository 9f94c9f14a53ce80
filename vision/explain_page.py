"""Explained pictures as one self-contained HTML page: no script, no network, opens from disk."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vision.explain import Explanation, as_rules_see
from vision.model import Constructed

_FOLDER = Path(__file__).parent / "page"


def render_page(model: Constructed, records: Sequence[Explanation]) -> str:
    """Return the page of some explained pictures, ready to be written as UTF-8."""
    pictures = [_picture(model, record) for record in records]
    title = f"Why: {', '.join(Path(r.path).name for r in records[:3])}{' ...' if len(records) > 3 else ''}"
    subtitle = (
        f"{len(model.classes)} classes, {len(model.bank.nodes)} feature nodes of at most "
        f"{max(n.shape.parameters for n in model.bank.nodes):,} parameters, {model.rules.constants} constants in rules"
    )
    return render("page.html", title=title, subtitle=subtitle, pictures=pictures)


def render(template: str, **values: Any) -> str:
    """Fill one of the templates in `vision/page`; everything that is not marked safe is escaped."""
    import jinja2

    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    style = (_FOLDER / "style.css").read_text(encoding="utf-8")
    return environment.from_string((_FOLDER / template).read_text(encoding="utf-8")).render(style=style, **values)


def data_url(pixels: npt.NDArray[np.uint8]) -> str:
    """A picture uint8 [h, w, 3] as a PNG inside a URL."""
    from vision.data import pillow_image

    file = io.BytesIO()
    pillow_image().fromarray(np.ascontiguousarray(pixels)).save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def heat(pixels: npt.NDArray[np.uint8], values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Lay a map of probabilities [h, w] over a picture: where it is low the picture fades, where high it glows."""
    from vision.data import pillow_image

    side = pixels.shape[0]
    image_module = pillow_image()
    smooth = image_module.fromarray((np.clip(values, 0, 1) * 255).astype(np.uint8)).resize(
        (side, side), image_module.Resampling.BICUBIC
    )
    strength = (np.asarray(smooth, dtype=np.float32) / 255.0)[..., None]
    grey = pixels.mean(2, keepdims=True) * 0.35 + 25
    glow = np.array([255.0, 120.0, 0.0], dtype=np.float32)
    lit = pixels * 0.65 + glow * 0.35
    return np.clip(grey * (1 - strength) + lit * strength, 0, 255).astype(np.uint8)


def _picture(model: Constructed, record: Explanation) -> dict[str, Any]:
    said = record.prediction
    assert said.pixels is not None
    terms = []
    for term in record.terms:
        change = "with" if term["absent"] else "without"
        terms.append(
            {"concept": term["concept"], "title": term["concept"].replace("_", " "), "absent": term["absent"],
             "question": term["question"], "score": f"{term['score']:.2f}", "adds": f"{term['adds']:+.2f}",
             "image": data_url(heat(said.pixels, record.maps[term["concept"]])),
             "counterfactual": f"{change} it: {term['then_label']} {term['then_share']:.0%}"
             + (" (score set by hand)" if term["set_by_hand"] else "")}
        )  # fmt: skip
    order = np.argsort(-np.array(said.values), kind="stable")
    rivals = [
        {"name": r["class"], "why": f"lacks {', '.join(n.replace('_', ' ') for n in r['lacks'])}" if r["lacks"]
         else f"scores {r['value']:.2f}"}
        for r in record.rivals
    ]  # fmt: skip
    return {
        "path": record.path, "label": said.label, "share": f"{max(said.shares):.0%}",
        "image": data_url(said.pixels), "terms": terms, "rivals": rivals,
        "classes": [{"name": model.classes[c], "value": f"{said.values[c]:+.2f}",
                     "percent": round(100 * said.shares[c])} for c in order],
        "rule": fill_rule(record.rule, as_rules_see(model, said.scores)),
        "nearest": [{"image": data_url(np.array(model.evidence.pixels[i])), "path": model.evidence.paths[i],
                     "distance": f"{d:.2f} apart"} for i, d in record.nearest],
    }  # fmt: skip


def fill_rule(source: str, scores: Mapping[str, float]) -> list[dict[str, str]]:
    """The lines of a rule, each that reads a score with the numbers put in."""
    lines = []
    for text in source.rstrip().splitlines():
        filled = re.sub(r"\bs\.([A-Za-z]\w*)", lambda m: f"{scores.get(m[1], float('nan')):.4g}", text.strip())
        lines.append({"text": text, "filled": filled if filled != text.strip() else ""})
    return lines
