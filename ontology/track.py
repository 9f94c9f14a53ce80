"""The track protocol: what the engine asks of a domain (code, images, a user's own)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from ontology.errors import ConstructibleError
from ontology.modules import Examples, Module
from ontology.registry import TRACKS
from ontology.routers import Router
from ontology.schema import Ontology


@runtime_checkable
class Track(Protocol):
    """A domain: where examples come from, how reads are computed, how an output is scored.

    Attributes:
        name: the name it is registered under.
        ontology: its concepts.
        router: what says which concept is in charge; None where every concept always is.
    """

    @property
    def name(self) -> str: ...

    @property
    def ontology(self) -> Ontology: ...

    @property
    def router(self) -> Router | None: ...

    def state_of(self, test: str | Mapping[str, Any]) -> npt.NDArray[np.integer[Any]] | None:
        """Return the router state row [F] that a concept's test describes; None where it tests no routing.

        Raises:
            ConstructibleError: the test cannot be understood, with the fix.
        """
        ...


class FittableTrack(Track, Protocol):
    """A track whose modules the engine's own plan (`ontology.build`) can fit."""

    def module(self, concept: str, *, nets: bool = True) -> Module:
        """Return a new module for a concept at the cut, not fitted; without `nets` a table or plain code."""
        ...

    def examples(self, concept: str, split: str) -> Examples:
        """Return the examples of a concept (of all leaves below it) in a split such as "train" or "test"."""
        ...

    def data_hash(self, concept: str) -> str:
        """Return a hash of all that the training examples of a concept depend on, their code included."""
        ...

    def score(self, modules: Mapping[str, Module], split: str) -> dict[str, float]:
        """Return the figures of a whole model, given the module of each member of a cut."""
        ...


def load_track(name: str) -> Track:
    """Return the track registered under a name (entry points `constructible.tracks`), made without arguments.

    Raises:
        UsageError: no track has that name.
        ConstructibleError: what is registered is no track.
    """
    made = TRACKS.load(name)()
    if not isinstance(made, Track):
        lacking = [part for part in ("name", "ontology", "router", "state_of") if not hasattr(made, part)]
        raise ConstructibleError(
            f"what is registered as the track {name!r} lacks {', '.join(lacking)}.",
            fix="implement ontology.track.Track",
        )
    return made
