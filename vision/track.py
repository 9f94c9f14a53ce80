"""The image track as the engine sees it: its concepts. A picture has every concept in charge, so there is no router."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

from ontology.schema import Ontology
from vision.concepts import load_library, to_ontology


class VisionTrack:
    """Concepts of photographs: classes made of parts, parts of features."""

    name = "vision"
    router = None

    @cached_property
    def ontology(self) -> Ontology:
        """The curated ontology that comes with the package, all its classes."""
        library = load_library()
        return to_ontology(library, tuple(library.classes))

    def state_of(self, test: str | Mapping[str, Any]) -> None:
        """No test of a concept is one of routing."""
        return None
