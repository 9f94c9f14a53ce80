"""Plain nodes: the cut below the leaves. A concept is answered by a line of plain code over the primitives, no net.

A plain node adds up at most six readings of the primitives, each with a constant: how much of a channel there is
`everywhere` in the picture, in its `middle`, and where it is `strongest` (the mean of its largest quarter). They are
chosen and weighed by least squares on the photographs that a net would learn from; the text is all there is of it, may
be edited, and is checked when it is read. Like a net's, its evidence becomes a probability by slope and offset.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ontology.checker import check_source
from ontology.errors import ConstructibleError
from ontology.io import read_json, write_json, write_text
from ontology.restricted import Checked, NumberField
from vision.bank import CHANNELS, GRID, REACH
from vision.nodes import FORMAT as NET_FORMAT
from vision.nodes import Node, Pooling, balanced_weights

FORMAT = "constructible-plain-node/1"
MAX_READS = 6
WHERE = ("everywhere", "middle", "strongest")
READS: tuple[str, ...] = tuple(f"{channel}_{where}" for channel in CHANNELS for where in WHERE)
"""What a plain node may read, each a number in [0, 1]."""
_MIDDLE = slice(GRID // 4, GRID - GRID // 4)
_STRONGEST = GRID * GRID // 4
_RIDGE = 1e-3


@dataclass(frozen=True)
class PlainShape:
    """What a plain node may look at, by the scale that its concept declares; the counterpart of `NodeShape`."""

    scale: float

    @property
    def channels(self) -> npt.NDArray[np.int64]:
        """Primitives whose reach, from one cell, stays within the scale rounded up to a whole cell."""
        cap = math.ceil(round(self.scale * GRID, 6)) / GRID
        return np.array([i for i, reach in enumerate(REACH) if 1 / GRID + reach <= cap + 1e-9])

    @property
    def receptive_field(self) -> float:
        """What one cell of its map depends on at most, as a fraction of the side."""
        return 1 / GRID + max(REACH[i] for i in self.channels)

    @property
    def parameters(self) -> int:
        """Trained numbers in nets: none. Its constants stand in its text."""
        return 0

    @property
    def pooling(self) -> Pooling:
        """Its evidence is the mean of its map."""
        return "average"


@dataclass(frozen=True)
class PlainNode:
    """One concept in plain code.

    Attributes:
        source: a restricted function `evidence(p)` over `READS`.
        slope, offset: probability = sigmoid(slope * evidence + offset); slope > 0.
    """

    name: str
    shape: PlainShape
    source: str
    slope: float = 1.0
    offset: float = 0.0
    file: str = "<plain>"

    @cached_property
    def _checked(self) -> Checked:
        allowed = [f"{CHANNELS[i]}_{where}" for i in self.shape.channels for where in WHERE]
        return check_source(
            self.source, arguments=("p",), attributes={"p": [NumberField(name) for name in allowed]}, returns="number",
            function="evidence", file=self.file,
        )  # fmt: skip

    @property
    def reads(self) -> tuple[str, ...]:
        """The readings its text uses, in the order of their first use."""
        return tuple(name for _, name in self._checked.used)

    @cached_property
    def coefficients(self) -> dict[str, float]:
        """How much each reading moves the evidence from nothing to all, the others at zero."""
        call, reads = self._checked.compile(), self.reads
        zero = float(call(*([0.0] * len(reads))))
        return {
            name: float(call(*(float(j == i) for j in range(len(reads))))) - zero for i, name in enumerate(reads)
        }  # fmt: skip

    def pooled(self, primitives: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
        """Evidence of pictures, float64 [n]; the text, run on each picture's readings."""
        call = self._checked.compile()
        columns = [reading(primitives, name).tolist() for name in self.reads]
        if not columns:
            return np.full(len(primitives), float(call()))
        return np.array([float(call(*row)) for row in zip(*columns, strict=True)])

    def maps(self, primitives: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Where the evidence comes from, float32 [n, 16, 16]; where the text is a plain sum, the mean of a map is the
        picture's evidence less the text's constant."""
        out = np.zeros((len(primitives), GRID, GRID), dtype=np.float32)
        for name, weight in self.coefficients.items():
            channel, where = name.rsplit("_", 1)
            cells = primitives[:, CHANNELS.index(channel)].astype(np.float32) / np.float32(255)
            out += np.float32(weight) * cells * _share(cells, where)
        return out

    def save(self, folder: str | Path, about: Mapping[str, Any] | None = None) -> None:
        """Write `plain.py` and `node.json`."""
        write_text(Path(folder) / "plain.py", self.source)
        write_json(
            Path(folder) / "node.json",
            {"format": FORMAT, "name": self.name, "scale": self.shape.scale, "slope": self.slope,
             "offset": self.offset, "parameters": 0, "constants": len(self.reads),
             "receptive_field": self.shape.receptive_field, "reads": list(self.reads), "about": dict(about or {})},
        )  # fmt: skip

    @classmethod
    def load(cls, folder: str | Path) -> PlainNode:
        """Read and check a plain node's folder.

        Raises:
            ConstructibleError: files are missing or of another version; RestrictedError where the text says something
                that is not allowed, with file and line.
        """
        path = Path(folder) / "node.json"
        said = read_json(path)
        if said.get("format") != FORMAT:
            raise ConstructibleError(f"has the format {said.get('format')!r}.", fix="build the model again", file=path)
        if not said["slope"] > 0:
            raise ConstructibleError("the slope is not above zero.", fix="build the model again", file=path)
        text = Path(folder) / "plain.py"
        try:
            source = text.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConstructibleError(
                f"the plain code of {said['name']!r} cannot be read ({error}).",
                fix="restore the file or build again", file=text,
            ) from error  # fmt: skip
        shape = PlainShape(said["scale"])
        node = cls(said["name"], shape, source, float(said["slope"]), float(said["offset"]), str(text))
        _ = node._checked  # a text that is not allowed is refused now, not at the first picture
        return node


def load_node(folder: str | Path) -> Node | PlainNode:
    """Open a node's folder, net or plain; see their `load`."""
    said = read_json(Path(folder) / "node.json")
    known = isinstance(said, dict) and said.get("format") in (FORMAT, NET_FORMAT)
    return PlainNode.load(folder) if known and said["format"] == FORMAT else Node.load(folder)


def reading(primitives: npt.NDArray[np.uint8], name: str) -> npt.NDArray[np.float64]:
    """One reading of pictures' primitives [n, channels, 16, 16], float64 [n] in [0, 1]."""
    channel, where = name.rsplit("_", 1)
    cells = primitives[:, CHANNELS.index(channel)]
    if where == "middle":
        cells = cells[:, _MIDDLE, _MIDDLE]
    flat = cells.reshape(len(cells), -1)
    if where == "strongest":
        flat = np.partition(flat, flat.shape[1] - _STRONGEST, axis=1)[:, -_STRONGEST:]
    return flat.mean(1, dtype=np.float64) / 255


def readings(primitives: npt.NDArray[np.uint8], rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """All `READS` of some pictures, float64 [rows, reads]."""
    out = np.empty((len(rows), len(READS)))
    for begin in range(0, len(rows), 1000):
        part = np.asarray(primitives[rows[begin : begin + 1000]])
        for i, name in enumerate(READS):
            out[begin : begin + 1000, i] = reading(part, name)
    return out


def fit_plain(
    names: Sequence[str],
    shapes: Sequence[PlainShape],
    table: npt.NDArray[np.int8],
    read: npt.NDArray[np.float64],
    labels: npt.NDArray[np.int64],
    questions: Mapping[str, str] | None = None,
) -> list[PlainNode]:
    """Write the text of plain nodes, uncalibrated.

    For each concept readings are taken one after the other, each time the one that lowers the squared error most
    (forward selection), true and false sides and the classes of a side weighing alike.

    Args:
        table: truth, int8 [classes, concepts].
        read: `readings` of the pictures to learn from, float64 [n, reads].
        labels: their classes, [n].
    """
    weights = balanced_weights(table, labels)
    mean, spread = read.mean(0), np.maximum(read.std(0), 1e-4)
    x = (read - mean) / spread
    made = []
    for i, (name, shape) in enumerate(zip(names, shapes, strict=True)):
        allowed = np.zeros(len(READS), dtype=np.bool_)
        for channel in shape.channels:
            allowed[len(WHERE) * channel : len(WHERE) * (channel + 1)] = True
        w = weights[:, i]
        y = np.where(table[labels, i] == 1, 1.0, -1.0)
        places, beta = _select(x, y, w / w.sum(), allowed)
        question = (questions or {}).get(name, name.replace("_", " "))
        made.append(PlainNode(name, shape, _text(question, places, beta / spread[places])))
    return made


def _select(
    x: npt.NDArray[np.float64], y: npt.NDArray[np.float64], w: npt.NDArray[np.float64], allowed: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Places and weights of the chosen columns; means are taken out, so that there is no constant."""
    x, y = x - w @ x, y - w @ y
    gram = (x * w[:, None]).T @ x + _RIDGE * np.eye(x.shape[1])
    with_y = x.T @ (w * y)
    chosen: list[int] = []
    for _ in range(MAX_READS):
        # What a column would still explain after those chosen: squared partial covariance over partial variance.
        if chosen:
            solved = np.linalg.solve(gram[np.ix_(chosen, chosen)], np.column_stack([gram[chosen], with_y[chosen]]))
            variance = np.diag(gram) - (gram[chosen] * solved[:, :-1]).sum(0)
            covariance = with_y - gram[:, chosen] @ solved[:, -1]
        else:
            variance, covariance = np.diag(gram).copy(), with_y
        gain = np.where(allowed & (variance > 10 * _RIDGE), covariance**2 / np.maximum(variance, _RIDGE), -1.0)
        gain[chosen] = -1.0
        best = int(gain.argmax())
        if gain[best] <= (1e-4 if chosen else -0.5):
            break
        chosen.append(best)
    places = np.array(chosen, dtype=np.int64)
    return places, np.asarray(np.linalg.solve(gram[np.ix_(places, places)], with_y[places]), dtype=np.float64)


def _text(question: str, places: npt.NDArray[np.int64], weights: npt.NDArray[np.float64]) -> str:
    said = " ".join(question.replace('"""', "'").replace("\\", "/").split())
    lines = [f'"""{said} Positive speaks for it, negative against it."""', "", "", "def evidence(p):"]
    for k, (place, weight) in enumerate(zip(places, weights, strict=True)):
        sign = "score - " if k and weight < 0 else "score + " if k else "-" if weight < 0 else ""
        lines.append(f"    score = {sign}{abs(weight):.3g} * p.{READS[place]}")
    return "\n".join([*lines, "    return score" if len(places) else "    return 0"]) + "\n"


def _share(cells: npt.NDArray[np.floating[Any]], where: str) -> npt.NDArray[np.floating[Any]]:
    """By how much each cell counts in a reading, float32 [n, 16, 16], 1 on average."""
    out = np.ones_like(cells)
    if where == "middle":
        out[:] = 0
        out[:, _MIDDLE, _MIDDLE] = 4
    elif where == "strongest":
        flat = cells.reshape(len(cells), -1)
        top = np.argpartition(flat, flat.shape[1] - _STRONGEST, axis=1)[:, -_STRONGEST:]
        picked = np.zeros_like(flat)
        np.put_along_axis(picked, top, np.float32(GRID * GRID / _STRONGEST), axis=1)
        out = picked.reshape(cells.shape)
    return out
