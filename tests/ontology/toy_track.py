"""A third track on tabular data: it proves that the engine knows nothing of code or images.

Rows describe parcels. The router looks at the mode of transport; each mode asks its own question about the delivery
class, with a net, a table or plain code. The data is made from a seed, so the true rule is known.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ontology.graph import leaves_under, reads_under
from ontology.modules import PLAIN_FUNCTIONS, Examples, HandedReads, Module, PlainModule
from ontology.nets import NetModule
from ontology.routers import Router, StateField
from ontology.schema import Ontology
from ontology.tables import CountTable

HERE = Path(__file__).parent / "toy"
MODES = ("road", "rail", "air", "sea", "hand")
FIELDS = (StateField("mode", MODES), StateField("fragile", ("no", "yes")), StateField("zone", 4))
CODES = {"mode": 5, "fragile": 2, "zone": 4}
WIDTHS = {"weight": 1, "size": 2}
N_CLASSES = 3


def on_time(reads: HandedReads) -> np.ndarray:
    """A parcel carried by hand into zones 0 and 1 is early, else it is in time."""
    early = (reads["zone"] < 2)[:, None]
    return np.log(np.where(early, [[0.9, 0.05, 0.05]], [[0.05, 0.9, 0.05]]))


if "toy-on-time" not in PLAIN_FUNCTIONS.names():
    PLAIN_FUNCTIONS.add("toy-on-time", f"{__name__}:on_time")


def table(seed: int, rows: int) -> dict[str, np.ndarray]:
    """Make `rows` parcels: the reads, and `answer` (0 early, 1 in time, 2 late) by a rule of their mode, some noise."""
    rng = np.random.default_rng(seed)
    columns: dict[str, np.ndarray] = {
        "mode": rng.choice(5, rows, p=(0.4, 0.2, 0.2, 0.15, 0.05)),
        "fragile": rng.integers(0, 2, rows),
        "zone": rng.integers(0, 4, rows),
        "weight": rng.gamma(2.0, 2.0, rows).astype(np.float32),
        "size": rng.normal(size=(rows, 2)).astype(np.float32),
    }
    mode, weight, size, zone = columns["mode"], columns["weight"], columns["size"], columns["zone"]
    answer = np.select(
        [mode == 0, mode == 1, mode == 2, mode == 3],
        [
            (weight > 3).astype(int) + (size[:, 0] > 0),
            (size[:, 0] * size[:, 1] > 0) * 2,
            (columns["fragile"] + zone) % 3,
            1 + (weight * (1 + zone) > 10),
        ],
        default=np.where(zone < 2, 0, 1),
    )
    noise = rng.random(rows) < 0.05
    columns["answer"] = np.where(noise, rng.integers(0, N_CLASSES, rows), answer)
    return columns


class ToyTrack:
    """Parcels; see the module's docstring. `rows` is the size of each split."""

    name = "toy"

    def __init__(self, rows: int = 4000, hidden: int = 16) -> None:
        self.ontology = Ontology.load(HERE / "ontology.yaml")
        self.router: Router = Router.load(HERE / "router.py", FIELDS)
        self.rows, self.hidden = rows, hidden
        self._splits: dict[str, dict[str, np.ndarray]] = {}

    def state_of(self, test: str | Mapping[str, Any]) -> np.ndarray | None:
        values = dict(part.split("=") for part in test.split()) if isinstance(test, str) else dict(test)
        numbers = {name: int(value) if str(value).isdigit() else value for name, value in values.items()}
        return self.router.row(**numbers)

    def split(self, name: str) -> dict[str, np.ndarray]:
        if name not in self._splits:
            columns = table({"train": 1, "test": 2}[name], self.rows)
            rows = np.stack([columns[field.name] for field in FIELDS], axis=1)
            names = np.array(self.router.concepts)
            self._splits[name] = {**columns, "concept": names[self.router.route(rows)]}
        return self._splits[name]

    def module(self, concept: str, *, nets: bool = True) -> Module:
        reads = reads_under(self.ontology, concept)
        kind = self.ontology[concept].module
        if kind == "plain":
            return PlainModule(concept, reads, "toy-on-time")
        if kind == "table" or not nets:
            coded = [read for read in reads if read in CODES]
            return CountTable(concept, coded, CODES, N_CLASSES)
        inputs = {read: CODES.get(read, 0) for read in reads}
        return NetModule(concept, reads, inputs, N_CLASSES, self.hidden, widths=WIDTHS)

    def examples(self, concept: str, split: str) -> Examples:
        columns = self.split(split)
        here = np.isin(columns["concept"], leaves_under(self.ontology, concept))
        reads = {read: columns[read][here] for read in ("mode", "fragile", "zone", "weight", "size")}
        return Examples(reads, columns["answer"][here])

    def data_hash(self, concept: str) -> str:
        examples = self.examples(concept, "train")
        digest = hashlib.sha256(examples.targets.tobytes())
        for read in sorted(examples.reads):
            digest.update(np.ascontiguousarray(examples.reads[read]).tobytes())
        return digest.hexdigest()

    def score(self, modules: Mapping[str, Module], split: str) -> dict[str, float]:
        right, bits, rows = 0, 0.0, 0
        for concept, module in modules.items():
            examples = self.examples(concept, split)
            if not len(examples):
                continue
            log_probs = module.predict(examples.reads)
            right += int((log_probs.argmax(1) == examples.targets).sum())
            bits -= float(log_probs[np.arange(len(examples)), examples.targets].sum() / np.log(2))
            rows += len(examples)
        return {"accuracy": right / rows, "bits_per_row": bits / rows, "rows": float(rows)}
