"""A model folder, opened: the whole way from pixels to a class, in reading order.

pixels -> primitives -> feature nodes -> concept scores -> rules -> class        (constructed, any cut but root)
pixels -> one network -> class                                                  (monolith, root cut)
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ontology.errors import ConstructibleError
from ontology.io import load_tensors, read_json
from vision.bank import in_blocks
from vision.nodes import NodeBank
from vision.plain import load_node
from vision.rules import RuleSet, harden

FORMAT = "constructible-vision/1"


class Recogniser(Protocol):
    """What every cut gives.

    Attributes:
        classes: what it tells apart.
        size: side of the pictures it takes, in pixels.
        parameters: trained numbers in nets.
        config: what it was built from.
    """

    classes: tuple[str, ...]
    size: int
    config: dict[str, Any]

    @property
    def parameters(self) -> int: ...

    def values(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
        """Class scores float64 [n, classes] of pictures uint8 [n, size, size, 3]; above zero means "yes, this"."""
        ...

    def shares(self, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Class scores as probabilities that add up to one, [n, classes]."""
        ...


@dataclass(frozen=True)
class Evidence:
    """Photographs that the rules were fitted on, to point at: pixels, concept scores, class, name at the source."""

    pixels: npt.NDArray[np.uint8]
    scores: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]
    paths: tuple[str, ...]


class Constructed:
    """A constructed model.

    Attributes:
        bank: its nodes.
        rules: its rules.
        mode: "soft" (rules see probabilities) or "hard" (0 or 1).
        concepts: for each node its question, kind, and what it is true of.
    """

    def __init__(self, folder: Path, config: dict[str, Any]) -> None:
        self.folder, self.config = folder, config
        self.classes: tuple[str, ...] = tuple(config["classes"])
        self.size, self.mode = int(config["size"]), str(config["mode"])
        said: list[dict[str, Any]] = read_json(folder / "concepts.json")["concepts"]
        self.concepts = {concept["name"]: concept for concept in said}
        self.bank = NodeBank([load_node(folder / "nodes" / name) for name in self.concepts])
        self.rules = RuleSet.load(folder / "rules", self.classes, self.bank.names)

    @property
    def parameters(self) -> int:
        """Trained numbers in nets; the rules' constants are counted apart."""
        return self.bank.parameters

    def concept_scores(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
        """What the nodes say, float64 [n, concepts] in [0, 1], four decimals."""
        return np.concatenate([self.bank.scores(block) for block in in_blocks(pixels)])

    def values_of(self, scores: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Class scores from concept scores: the rules and nothing else."""
        return self.rules.values(harden(scores) if self.mode == "hard" else scores, self.bank.names)

    def values(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
        """Class scores of pictures; see `Recogniser`."""
        return self.values_of(self.concept_scores(pixels))

    def shares(self, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """See `Recogniser`: a softmax over the rules' values."""
        return probabilities(values)

    @cached_property
    def evidence(self) -> Evidence:
        """The photographs that the rules were fitted on, of the model's own classes."""
        tensors = load_tensors(self.folder / "evidence.safetensors")
        paths = read_json(self.folder / "evidence.json")["paths"]
        return Evidence(tensors["pixels"], tensors["scores"], np.array(tensors["labels"]), tuple(paths))


class RootModel:
    """A monolith behind the same interface; it names no concept."""

    def __init__(self, folder: Path, config: dict[str, Any]) -> None:
        from vision.monolith import Monolith

        self.folder, self.config = folder, config
        self.classes: tuple[str, ...] = tuple(config["classes"])
        self.size = int(config["size"])
        self.monolith = Monolith.load(folder / "monolith")

    @property
    def parameters(self) -> int:
        """Trained numbers."""
        return self.monolith.parameters

    def values(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
        """Log odds of each class against the model's other classes, float64 [n, classes]."""
        return log_odds(self.monolith.values(pixels))

    def shares(self, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """See `Recogniser`: those of the network's own softmax, of which `values` are the log odds."""
        shares = 1.0 / (1.0 + np.exp(-values))
        return shares / shares.sum(1, keepdims=True)


def load(folder: str | Path) -> Constructed | RootModel:
    """Open a model folder.

    Raises:
        ConstructibleError: it is none, of another version, or damaged.
    """
    folder = Path(folder)
    if not (folder / "config.json").exists():
        raise ConstructibleError("no model in this folder.", fix="build one: constructible vision build", file=folder)
    config = read_json(folder / "config.json")
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise ConstructibleError(
            "not a model of the image track, or of another version.", fix="build it again", file=folder / "config.json"
        )
    return RootModel(folder, config) if config["cut"] == "root" else Constructed(folder, config)


def log_odds(logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Logits [n, classes] as log odds of each class against the others."""
    share = np.clip(probabilities(logits), 1e-12, 1 - 1e-12)
    return np.log(share) - np.log1p(-share)


def probabilities(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Class scores [n, classes] as shares that add up to one."""
    shifted = np.exp(values - values.max(1, keepdims=True))
    return shifted / shifted.sum(1, keepdims=True)
