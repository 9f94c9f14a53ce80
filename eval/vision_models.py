"""Image models behind the harness: ours at any cut, and Hugging Face image classifiers in a local folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from eval.models import EvalModel
from ontology.errors import ConstructibleError
from ontology.io import read_json
from vision.data import ImageSet, read_images
from vision.model import Constructed, load, probabilities

BATCH = 250
Pixels = npt.NDArray[np.uint8]


class ImageModel(EvalModel):
    """A model that gives scores to classes; above zero means "yes, this"."""

    classes: tuple[str, ...]
    size: int
    abilities = frozenset({"classify"})

    def class_values(self, pixels: Pixels) -> npt.NDArray[np.float64]:
        """float64[n, classes] of pictures uint8[n, size, size, 3]."""
        raise NotImplementedError

    def shares(self, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Probabilities of the classes, float64[n, classes], from class values."""
        return probabilities(values)

    def features(self, pixels: Pixels) -> npt.NDArray[np.float64]:
        """float64[n, d]: what it says of pictures before it decides, or else its class values."""
        return np.concatenate([self.class_values(pixels[i : i + BATCH]) for i in range(0, len(pixels), BATCH)])

    def values_of(self, source: str, change: str, apply: Callable[[Pixels], Pixels]) -> tuple[ImageSet, Any]:
        """(the source's held-out photographs at this model's size, float64[n, classes]), worked out once per `change`
        of the pictures."""
        key = (source, change)
        if key not in self._values:
            images = read_images(source, "validation", size=self.size)
            parts = [
                self.class_values(apply(np.array(images.pixels[i : i + BATCH]))) for i in range(0, len(images), BATCH)
            ]
            self._values[key] = images, np.concatenate(parts)
        return self._values[key]

    def __init__(self) -> None:
        self._values: dict[tuple[str, str], tuple[ImageSet, Any]] = {}


class OurImages(ImageModel):
    """A model of the image track."""

    def __init__(self, name: str, folder: Path) -> None:
        super().__init__()
        self.name, self.folder = name, folder
        self.model = load(folder)
        self.classes, self.size = self.model.classes, self.model.size
        if isinstance(self.model, Constructed):
            self.abilities = self.abilities | {"replay-images"}
            if self.model.parameters:
                self.abilities = self.abilities | {"imitate"}

    def features(self, pixels: Pixels) -> npt.NDArray[np.float64]:
        """See ImageModel: concept scores where there are concepts."""
        return self.model.concept_scores(pixels) if isinstance(self.model, Constructed) else super().features(pixels)

    def class_values(self, pixels: Pixels) -> npt.NDArray[np.float64]:
        """See ImageModel."""
        return self.model.values(pixels)

    def shares(self, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """See ImageModel: the model's own."""
        return self.model.shares(values)

    @property
    def parameters(self) -> int:
        """See EvalModel."""
        return self.model.parameters


class HuggingFaceImages(ImageModel):
    """A transformers image classifier; its own mean and deviation, the picture scaled to its own size."""

    def __init__(self, name: str, folder: Path, network: Any, settings: dict[str, Any]) -> None:
        super().__init__()
        self.name, self.folder, self.network = name, folder, network.eval()
        labels = network.config.id2label
        self.classes = tuple(str(labels[i]) for i in range(len(labels)))
        size = settings.get("size", 224)
        side = (size.get("height") or size.get("shortest_edge") or 224) if isinstance(size, dict) else size
        self.size = int(side)
        self.mean = np.array(settings.get("image_mean", [0.5] * 3), dtype=np.float32)
        self.deviation = np.array(settings.get("image_std", [0.5] * 3), dtype=np.float32)

    def class_values(self, pixels: Pixels) -> npt.NDArray[np.float64]:
        """See ImageModel: log odds of each class against the others."""
        import torch

        scaled = (pixels.astype(np.float32) / 255 - self.mean) / self.deviation
        with torch.inference_mode():
            logits = self.network(pixel_values=torch.from_numpy(scaled.transpose(0, 3, 1, 2).copy())).logits
        powers = np.exp(logits.double().numpy() - logits.double().numpy().max(1, keepdims=True))
        share = np.clip(powers / powers.sum(1, keepdims=True), 1e-12, 1 - 1e-12)
        return np.log(share) - np.log1p(-share)

    def shares(self, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """See ImageModel: those of the network's own softmax."""
        return _of_log_odds(values)

    @property
    def parameters(self) -> int:
        """See EvalModel."""
        return sum(parameter.numel() for parameter in self.network.parameters())


def _of_log_odds(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return 1 / (1 + np.exp(-values))


def open_ours(name: str, folder: Path) -> OurImages:
    """Open a model folder of the image track; raises ConstructibleError where it is none."""
    return OurImages(name, folder)


def open_classifier(name: str, folder: Path) -> HuggingFaceImages:
    """Open a local transformers image classifier; nothing is fetched.

    Raises:
        ConstructibleError: the folder cannot be read as one.
    """
    try:
        from transformers import AutoModelForImageClassification

        network = AutoModelForImageClassification.from_pretrained(str(folder), local_files_only=True)
    except Exception as error:  # transformers and safetensors raise many kinds for a broken folder
        raise ConstructibleError(
            f"this folder cannot be opened as an image classifier ({error}).",
            fix="save the model there with save_pretrained", file=folder,
        ) from error  # fmt: skip
    path = folder / "preprocessor_config.json"
    return HuggingFaceImages(name, folder, network, read_json(path) if path.is_file() else {})
