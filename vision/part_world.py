"""The part world: objects drawn from parts by plain code, with a pixel-exact mask of each part.

What the truth is in a photograph nobody knows exactly; here it is known. So every figure that judges a node can be
tried on nodes that are right and on nodes that are wrong in a known way, and the whole track runs without any data.

A drawing: a background of random colours and clutter, one object of a class, its parts one over the other. The class
decides which parts are there, never their colour, place or size, nor the background; a `Tie` breaks that on purpose.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

SIDE = 64
_FINE = 2 * SIDE  # drawn twice as large, then averaged

Floats = npt.NDArray[np.float32]
Split = Literal["train", "validation"]

CLASSES: dict[str, tuple[str, ...]] = {
    "bus": ("box_body", "wheels", "windows"),
    "tractor": ("box_body", "wheels", "chimney"),
    "tram": ("box_body", "wheels", "windows", "stripes"),
    "house": ("box_body", "windows", "chimney"),
    "factory": ("box_body", "windows", "chimney", "stripes"),
    "cup": ("box_body", "handle", "dots"),
    "basket": ("box_body", "handle", "stripes"),
    "teapot": ("round_body", "handle", "dots"),
    "scooter": ("round_body", "wheels", "handle"),
    "bee": ("round_body", "wings", "antennae", "stripes"),
    "butterfly": ("round_body", "wings", "antennae"),
    "ladybird": ("round_body", "legs", "antennae", "dots"),
    "bird": ("round_body", "wings", "legs"),
    "tiger": ("round_body", "legs", "ears", "stripes"),
    "leopard": ("round_body", "legs", "ears", "dots"),
    "cat": ("round_body", "ears", "whiskers"),
    "daisy": ("round_body", "petals"),
    "sunflower": ("round_body", "petals", "dots"),
    "robot": ("box_body", "legs", "antennae"),
    "toaster_bug": ("box_body", "wings", "legs"),
    "balloon": ("round_body", "whiskers", "stripes"),
    "lantern": ("box_body", "petals", "handle"),
    "owl_box": ("box_body", "ears", "windows"),
    "comb": ("box_body", "whiskers"),
}
"""Class -> the parts it has; every part is in at least three classes and missing from many."""

PARTS: dict[str, tuple[str, str, float]] = {
    "box_body": ("shape", "Is there a large box?", 1.0),
    "round_body": ("shape", "Is there a large oval?", 1.0),
    "wheels": ("part", "Are there dark wheels with a light hub?", 0.35),
    "windows": ("part", "Are there rows of light square windows?", 0.35),
    "chimney": ("part", "Does a narrow block stand on top?", 0.35),
    "handle": ("part", "Is there a ring-shaped handle at the side?", 0.35),
    "stripes": ("texture", "Are there dark parallel stripes?", 0.2),
    "dots": ("texture", "Are there dark dots?", 0.2),
    "wings": ("part", "Are there two pale wings?", 0.35),
    "antennae": ("part", "Are there two thin feelers with knobs?", 0.35),
    "legs": ("part", "Are there thin upright legs?", 0.35),
    "ears": ("part", "Are there two pointed ears?", 0.35),
    "whiskers": ("part", "Are there thin lines that fan out from the sides?", 0.35),
    "petals": ("part", "Is there a ring of petals?", 0.35),
}
"""Part -> kind, question, and how much of the picture one must see to recognise it."""

BEHIND = ("petals", "wings", "handle", "legs", "ears", "antennae", "chimney", "whiskers")
IN_FRONT = ("stripes", "dots", "windows", "wheels")


@dataclass(frozen=True)
class Tie:
    """A correlation made on purpose: where `part` is present the background is green with probability `strength`, and
    where it is missing with probability 1 - `strength`. 0.5 is no correlation."""

    part: str
    strength: float = 0.95


@dataclass(frozen=True)
class Drawing:
    """One picture: pixels uint8 [64, 64, 3]; for each part a bool mask [64, 64] of where it shows; the object's box
    x0, y0, x1, y1 (inclusive pixels); whether its background is the green one of a `Tie`."""

    label: str
    pixels: npt.NDArray[np.uint8]
    masks: dict[str, npt.NDArray[np.bool_]]
    box: tuple[int, int, int, int]
    green: bool


def draw(label: str, rng: np.random.Generator, tie: Tie | None = None) -> Drawing:
    """Draw one picture of a class; everything but the class is decided by `rng`."""
    parts = CLASSES[label]
    green = tie is not None and bool(rng.random() < (tie.strength if tie.part in parts else 1 - tie.strength))
    canvas = _background(rng, green)
    frame = _Frame(rng)
    masks: dict[str, Floats] = {}
    body = "box_body" if "box_body" in parts else "round_body"
    colour = _colour(rng)
    for name in [*(n for n in BEHIND if n in parts), body, *(n for n in IN_FRONT if n in parts)]:
        if name == body:
            mask = frame.box(0, 0, frame.width, frame.height) if body == "box_body" else frame.oval(
                0, 0, frame.width, frame.height
            )  # fmt: skip
            masks[name], paint = mask, colour
        else:
            mask, paint = _DRAW[name](frame, rng, masks.get(body), colour)
            masks[name] = mask
        shade = 1.0 - 0.16 * frame.y[..., None] * float(rng.random())  # light from above, more or less
        canvas = canvas * (1 - mask[..., None]) + mask[..., None] * np.clip(paint * shade, 0, 1)
        if name not in IN_FRONT:  # what is drawn later hides what is behind; texture does not hide the body
            for other in masks:
                if other != name:
                    masks[other] = masks[other] * (1 - mask)
    canvas += rng.normal(0, 0.02, canvas.shape).astype(np.float32)
    pixels = np.clip(_shrink(canvas) * 255 + 0.5, 0, 255).astype(np.uint8)
    shown = {name: _shrink(mask[..., None])[..., 0] > 0.4 for name, mask in masks.items()}
    everything = np.logical_or.reduce(list(shown.values()))
    rows, columns = np.flatnonzero(everything.any(1)), np.flatnonzero(everything.any(0))
    box = (int(columns[0]), int(rows[0]), int(columns[-1]), int(rows[-1]))
    return Drawing(label, pixels, shown, box, green)


def draw_set(
    split: Split, per_class: int, *, seed: int = 0, classes: Sequence[str] | None = None, tie: Tie | None = None
) -> list[Drawing]:
    """Draw `per_class` pictures of each class, class by class; splits and seeds never share a picture."""
    drawn = []
    for label in classes or CLASSES:
        for i in range(per_class):
            drawn.append(draw(label, _rng(split, seed, label, i), tie))
    return drawn


def mask_array(drawings: Sequence[Drawing], part: str) -> npt.NDArray[np.bool_]:
    """Masks of a part, bool [n, 64, 64]; nothing where a picture lacks it."""
    empty = np.zeros((SIDE, SIDE), dtype=np.bool_)
    return np.stack([drawing.masks.get(part, empty) for drawing in drawings])


def library_text() -> str:
    """The part world's concepts and classes in the format of `vision.concepts`."""
    lines = [
        "name: part_world", "version: 1", "description: Objects drawn from parts by plain code.", "features:",
    ]  # fmt: skip
    for name, (kind, question, scale) in PARTS.items():
        lines.append(f'  - {{name: {name}, question: "{question}", kind: {kind}, scale: {scale}}}')
    lines.append("classes:")
    for label, parts in CLASSES.items():
        whole = [part for part in parts if PARTS[part][0] in ("shape", "texture")]
        rest = [part for part in parts if part not in whole]
        lines.append(f"  - name: {label}")
        if rest:
            lines.append("    parts: {" + ", ".join(f"{part}_part: [{part}]" for part in rest) + "}")
        lines.append(f"    whole: [{', '.join(whole)}]")
    return "\n".join(lines) + "\n"


def encoded_pictures(
    split: Split, seed: int = 0, per_class: tuple[int, int] = (120, 40)
) -> Iterator[tuple[str, bytes, str, tuple[int, int, int, int]]]:
    """Yield path, PNG bytes, label and box of every picture of a split (train, validation: so many of each class)."""
    for label in CLASSES:
        for i in range(per_class[0] if split == "train" else per_class[1]):
            drawing = draw(label, _rng(split, seed, label, i))
            yield f"{label}/{split}_{i:04d}.png", _png(drawing.pixels), label, drawing.box


def write_world(
    folder: str | Path, per_class: tuple[int, int] = (120, 40), *, seed: int = 0, tie: Tie | None = None
) -> Path:
    """Write a part world as a data set: Parquet files, `masks.safetensors` of the validation pictures (one packed bit
    per pixel, [n, 64, 8] by part), and `ontology.yaml`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from ontology.io import make_folder, save_tensors, write_atomic, write_text

    folder = make_folder(folder)
    splits: tuple[tuple[Split, int], ...] = (("train", per_class[0]), ("validation", per_class[1]))
    for split, count in splits:
        drawings = draw_set(split, count, seed=seed, tie=tie)
        table = pa.table(
            {
                "image": [
                    {"bytes": _png(d.pixels), "path": f"{d.label}_{i % count:04d}.png"} for i, d in enumerate(drawings)
                ],
                "name": [d.label for d in drawings],
                "box": pa.array([list(d.box) for d in drawings], type=pa.list_(pa.int16())),
            }
        )
        write_atomic(folder / f"{split}.parquet", lambda path, table=table: pq.write_table(table, path))
        if split == "validation":
            packed = {part: np.packbits(mask_array(drawings, part), axis=2) for part in PARTS}
            save_tensors(folder / "masks.safetensors", packed)
    write_text(folder / "ontology.yaml", library_text())
    return folder


def _rng(split: str, seed: int, label: str, index: int) -> np.random.Generator:
    digest = hashlib.sha256(f"{split} {seed} {label} {index}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "big"))


def _png(pixels: npt.NDArray[np.uint8]) -> bytes:
    from vision.data import pillow_image

    file = io.BytesIO()
    pillow_image().fromarray(pixels).save(file, "PNG", compress_level=1)
    return file.getvalue()


def _shrink(canvas: Floats) -> Floats:
    return canvas.reshape(SIDE, 2, SIDE, 2, -1).mean((1, 3))


def _colour(rng: np.random.Generator, low: float = 0.25, high: float = 0.95) -> Floats:
    return rng.uniform(low, high, 3).astype(np.float32)


def _shade(red: float, green: float, blue: float) -> Floats:
    return np.array([red, green, blue], dtype=np.float32)


def _smooth_noise(rng: np.random.Generator, cells: int) -> Floats:
    """Random values between cells x cells points, bilinear, [fine, fine] in [0, 1]."""
    grid = rng.random((cells + 1, cells + 1)).astype(np.float32)
    at = np.linspace(0, cells - 1e-3, _FINE)
    low, share = at.astype(int), (at % 1).astype(np.float32)
    rows = grid[low] * (1 - share[:, None]) + grid[low + 1] * share[:, None]
    return (rows[:, low] * (1 - share) + rows[:, low + 1] * share).astype(np.float32)


def _background(rng: np.random.Generator, green: bool) -> Floats:
    """Two colours blended by noise, then clutter: blobs, bars and speckle that look like no part."""
    first, second = _colour(rng, 0.1, 0.9), _colour(rng, 0.1, 0.9)
    if green:
        first, second = _shade(0.15, 0.55, 0.15), _shade(0.3, 0.75, 0.25)
    blend = _smooth_noise(rng, int(rng.integers(1, 7)))[..., None]
    canvas = first * blend + second * (1 - blend)
    line = np.linspace(-1, 1, _FINE, dtype=np.float32)
    y, x = np.meshgrid(line, line, indexing="ij")
    for _ in range(int(rng.integers(0, 5))):
        cx, cy, size, turn = *rng.uniform(-1, 1, 2), rng.uniform(0.05, 0.3), rng.uniform(0, np.pi)
        along = (x - cx) * np.cos(turn) + (y - cy) * np.sin(turn)
        across = (y - cy) * np.cos(turn) - (x - cx) * np.sin(turn)
        shape = np.maximum(np.abs(along) / 3, np.abs(across)) if rng.random() < 0.4 else np.hypot(along, across * 1.7)
        mask = _soft(size - shape)[..., None] * np.float32(rng.uniform(0.3, 0.9))
        tint = first if green else _colour(rng, 0.05, 0.95)
        canvas = canvas * (1 - mask) + tint * mask
    return (canvas + 0.05 * (_smooth_noise(rng, 24)[..., None] - 0.5)).astype(np.float32)


def _soft(distance: Floats) -> Floats:
    """Coverage from a signed distance (positive inside), one fine pixel soft."""
    return np.clip(distance * (_FINE / 2) + 0.5, 0, 1).astype(np.float32)


class _Frame:
    """Where the object is: centre, size, a small turn. Shapes are given in its own coordinates, y down."""

    def __init__(self, rng: np.random.Generator) -> None:
        size = rng.uniform(0.75, 1.05)
        turn = rng.uniform(-0.2, 0.2)
        self.width, self.height = float(rng.uniform(0.36, 0.48)), float(rng.uniform(0.26, 0.38))
        line = np.linspace(-1, 1, _FINE, dtype=np.float32)
        y, x = np.meshgrid(line, line, indexing="ij")
        x, y = (x - rng.uniform(-0.15, 0.15)) / size, (y - rng.uniform(-0.12, 0.12)) / size
        self.x = (x * np.cos(turn) + y * np.sin(turn)).astype(np.float32)
        self.y = (y * np.cos(turn) - x * np.sin(turn)).astype(np.float32)

    def box(self, cx: float, cy: float, half_width: float, half_height: float) -> Floats:
        """A rectangle."""
        inside = np.maximum(np.abs(self.x - cx) - half_width, np.abs(self.y - cy) - half_height)
        return _soft(-inside)

    def oval(self, cx: float, cy: float, half_width: float, half_height: float, turn: float = 0.0) -> Floats:
        """An ellipse."""
        x, y = self.x - cx, self.y - cy
        along, across = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
        return _soft((1 - np.hypot(along / half_width, across / half_height)) * min(half_width, half_height))

    def line(self, x0: float, y0: float, x1: float, y1: float, half_width: float) -> Floats:
        """A straight stroke with round ends."""
        dx, dy = x1 - x0, y1 - y0
        t = np.clip(((self.x - x0) * dx + (self.y - y0) * dy) / (dx * dx + dy * dy), 0, 1)
        return _soft(half_width - np.hypot(self.x - x0 - t * dx, self.y - y0 - t * dy))


def _any(masks: Sequence[Floats]) -> Floats:
    return np.maximum.reduce(list(masks)).astype(np.float32)


Painter = Callable[[_Frame, np.random.Generator, "Floats | None", Floats], "tuple[Floats, Floats]"]


def _wheels(f: _Frame, rng: np.random.Generator, body: Floats | None, colour: Floats) -> tuple[Floats, Floats]:
    radius, apart, y = rng.uniform(0.12, 0.16), f.width * rng.uniform(0.55, 0.75), f.height
    whole = _any([f.oval(s * apart, y, radius, radius) for s in (-1, 1)])
    hub = _any([f.oval(s * apart, y, radius * 0.4, radius * 0.4) for s in (-1, 1)])
    dark = _colour(rng, 0.02, 0.15)
    return whole, (dark + hub[..., None] * (np.float32(0.8) - dark)).astype(np.float32)


def _windows(f: _Frame, rng: np.random.Generator, body: Floats | None, colour: Floats) -> tuple[Floats, Floats]:
    n, size = int(rng.integers(3, 5)), rng.uniform(0.05, 0.065)
    places = np.linspace(-0.75, 0.75, n) * f.width
    rows = (-0.55 * f.height, 0.05 * f.height)
    return _any([f.box(x, y, size, size) for x in places for y in rows]), _colour(rng, 0.85, 1.0)


def _chimney(f: _Frame, rng: np.random.Generator, body: Floats | None, colour: Floats) -> tuple[Floats, Floats]:
    x, tall = rng.uniform(-0.5, 0.5) * f.width, rng.uniform(0.16, 0.24)
    return f.box(x, -f.height - tall, rng.uniform(0.06, 0.09), tall + 0.05), _colour(rng)


def _handle(f: _Frame, rng: np.random.Generator, body: Floats | None, colour: Floats) -> tuple[Floats, Floats]:
    x, r = f.width + 0.09, rng.uniform(0.16, 0.2)
    return np.clip(f.oval(x, 0, r, r) - f.oval(x, 0, r - 0.07, r - 0.07), 0, 1), colour * np.float32(0.75)


def _stripes(f: _Frame, rng: np.random.Generator, body: Floats | None, colour: Floats) -> tuple[Floats, Floats]:
    turn, period = rng.uniform(-0.5, 0.5), rng.uniform(0.13, 0.18)
    wave = np.cos((f.x * np.cos(turn) + f.y * np.sin(turn)) * (2 * np.pi / period))
    mask = np.clip(wave * 4 + 0.3, 0, 1) * (1 if body is None else body)
    return mask.astype(np.float32), colour * np.float32(rng.uniform(0.1, 0.3))


def _dots(f: _Frame, rng: np.random.Generator, body: Floats | None, colour: Floats) -> tuple[Floats, Floats]:
    period, radius = rng.uniform(0.19, 0.24), rng.uniform(0.05, 0.065)
    row = np.round(f.y / period)
    x = (f.x + 0.5 * period * (row % 2) + period / 2) % period - period / 2
    mask = _soft(radius - np.hypot(x, f.y - row * period)) * (1 if body is None else body)
    return mask.astype(np.float32), colour * np.float32(rng.uniform(0.05, 0.25))


def _wings(f: _Frame, rng: np.random.Generator, body: Floats | None, colour: Floats) -> tuple[Floats, Floats]:
    long, wide, lean = rng.uniform(0.26, 0.34), rng.uniform(0.13, 0.18), rng.uniform(0.5, 0.9)
    x, y = f.width * 0.75, -f.height * 0.9
    pair = [f.oval(s * x, y, long, wide, -s * lean) for s in (-1, 1)]
    return _any(pair) * np.float32(0.85), _colour(rng, 0.8, 1.0)


def _antennae(f: _Frame, rng: np.random.Generator, body: Floats | None, colour: Floats) -> tuple[Floats, Floats]:
    x, tall = rng.uniform(0.14, 0.22), rng.uniform(0.26, 0.34)
    strokes = []
    for s in (-1, 1):
        strokes += [f.line(s * 0.06, -f.height + 0.03, s * x, -f.height - tall, 0.022),
                    f.oval(s * x, -f.height - tall, 0.055, 0.055)]  # fmt: skip
    return _any(strokes), _colour(rng, 0.0, 0.2)


def _legs(f: _Frame, rng: np.random.Generator, body: Floats | None, colour: Floats) -> tuple[Floats, Floats]:
    n, long = int(rng.integers(3, 5)), rng.uniform(0.26, 0.34)
    places = np.linspace(-0.7, 0.7, n) * f.width
    strokes = [f.line(x, 0, x + rng.uniform(-0.03, 0.03), f.height + long, 0.03) for x in places]
    return _any(strokes), _colour(rng, 0.0, 0.3)


def _ears(f: _Frame, rng: np.random.Generator, body: Floats | None, colour: Floats) -> tuple[Floats, Floats]:
    tall, wide = rng.uniform(0.26, 0.34), rng.uniform(0.11, 0.14)
    masks = []
    for s in (-1, 1):
        x = f.x - s * f.width * 0.62
        y = f.y + f.height * 0.55 + tall  # 0 at the tip
        masks.append(_soft(np.minimum(y * (wide / tall) - np.abs(x), tall * 1.2 - y)))
    return _any(masks), colour * np.float32(0.85)


def _whiskers(f: _Frame, rng: np.random.Generator, body: Floats | None, colour: Floats) -> tuple[Floats, Floats]:
    long = rng.uniform(0.24, 0.32)
    strokes = []
    for s in (-1, 1):
        for lean in (-0.5, 0.0, 0.5):
            x, y = s * f.width * 0.85, lean * 0.2
            strokes.append(f.line(x, y, x + s * long, y + lean * long, 0.018))
    return _any(strokes), _shade(0.95, 0.95, 0.95) if rng.random() < 0.5 else _shade(0.05, 0.05, 0.05)


def _petals(f: _Frame, rng: np.random.Generator, body: Floats | None, colour: Floats) -> tuple[Floats, Floats]:
    n, long = int(rng.integers(9, 13)), rng.uniform(0.14, 0.19)
    masks = []
    for angle in np.linspace(0, 2 * np.pi, n, endpoint=False):
        x, y = np.cos(angle) * (f.width + 0.07), np.sin(angle) * (f.height + 0.07)
        masks.append(f.oval(x, y, long, 0.075, float(np.arctan2(y, x))))
    return _any(masks), _colour(rng, 0.6, 1.0)


_DRAW: dict[str, Painter] = {
    "wheels": _wheels, "windows": _windows, "chimney": _chimney, "handle": _handle, "stripes": _stripes,
    "dots": _dots, "wings": _wings, "antennae": _antennae, "legs": _legs, "ears": _ears, "whiskers": _whiskers,
    "petals": _petals,
}  # fmt: skip
