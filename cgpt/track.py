"""The code track as the engine sees it: its ontology, its router, and what a test of a concept means."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np

from cgpt import lexer
from cgpt.model import HERE
from ontology.errors import ConstructibleError
from ontology.routers import Router
from ontology.schema import Ontology


class CodeTrack:
    """Situations in Python code; a concept's test is the text to the left of a position."""

    name = "cgpt"

    @cached_property
    def ontology(self) -> Ontology:
        """The Python ontology that comes with the package."""
        return Ontology.load(HERE / "ontology.yaml")

    @cached_property
    def router(self) -> Router:
        """The router that comes with the package."""
        return Router.load(HERE / "router.py", lexer.FIELDS)

    def state_of(self, test: str | Mapping[str, Any]) -> np.ndarray:
        """uint8[F]: the lexer's state after the text of a test."""
        if not isinstance(test, str):
            raise ConstructibleError(
                "a test of the code track is the text to the left of a position.", fix="give a string"
            )
        data = np.frombuffer(test.encode("utf-8"), dtype=np.uint8)
        return lexer.run(data, np.array([len(data)]))[0][0]
