"""The accountable record of a file: for each token all that its prediction rests on, and no probability of it.

From a record and the model's folder every distribution can be rebuilt by `cgpt.check_record`, which shares no code with
the model, and all evidence looked up by `cgpt.check_evidence`; docs/cgpt_accountability.md describes the format.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from cgpt import counts, names
from cgpt.check_evidence import EvidenceChecker
from cgpt.check_record import Checker, Refused
from cgpt.explain import Explainer, counted_places
from cgpt.mixer import confidence_step
from cgpt.model import ConstructedLM, Position
from cgpt.pack import model_checksum
from cgpt.reads import READS, FileView
from ontology.errors import ConstructibleError, UsageError
from ontology.graph import paths

FORMAT = "constructible-record/2"
TOLERANCE = 1e-6
"""A rebuilt probability may differ from the model's by this much."""


def record(
    model: ConstructedLM,
    data: bytes,
    file: str = "",
    boundaries: Iterable[int] | None = None,
    advance: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """The record of a file at some boundaries (0 to its number of tokens, whose target is the end of the file) or all.

    `advance` is told of each position done.

    Raises:
        UsageError: the model was changed since its folder was opened, so that nobody could check the record.
    """
    if model.variant:
        raise UsageError(f"a model{model.variant} has no folder to check a record against.", fix="use the whole model")
    ids = model.tokenizer.encode(data)
    view, explainer = model.view(ids), Explainer(model)
    tokens = []
    for boundary in range(view.n + 1) if boundaries is None else boundaries:
        tokens.append(_token(model, explainer, view, boundary, int(ids[boundary]) if boundary < view.n else 0))
        if advance is not None:
            advance(1)
    concepts = sorted({token["concept"] for token in tokens})
    return {
        "format": FORMAT,
        "file": file,
        "model": model_checksum(model.folder).hex(),
        "ids": ids.tolist(),
        "reads": list(READS),
        "surroundings": _surroundings(view),
        "concepts": {
            name: {"question": model.ontology[name].question, "path": list(paths(model.ontology, name)[0])}
            for name in concepts
        },
        "tokens": tokens,
    }


def _token(model: ConstructedLM, explainer: Explainer, view: FileView, boundary: int, target: int) -> dict[str, Any]:
    at = model.position(view, boundary)
    trace = model.router.trace(view.fields[boundary])
    experts = explainer.sources(view, at, target)
    total = sum(expert["weight"] * expert["probability"] for expert in experts)
    bits = -np.log2(at.distribution[target])
    m = int(model.net_of[at.concept])
    declared = [] if model.nets is None or m < 0 else np.flatnonzero(model.nets.declared[m]).tolist()
    context = view.history[max(boundary + 1 - at.corpus_match, 1) : boundary + 1]
    return {
        "at": boundary,
        "target": target,
        "text": explainer.text(target),
        "concept": trace.concept,
        "lines": trace.lines,
        "corpus": {"longest": at.corpus_match, "context": explainer.context(context), "slices": _slices(at)},
        "file": [places for level in range(counts.N_FILE_LEVELS) if (places := counted_places(view, level, boundary))],
        "places": {
            place.name: places
            for k, place in enumerate(counts.PLACES)
            if (places := counted_places(view, counts.N_FILE_LEVELS + k, boundary))
        },
        "names": _names(view, boundary),
        "confidence": 0 if at.net_distribution is None else int(confidence_step(at.net_distribution.max())),
        "reads": {READS[column]: int(view.reads[boundary, column]) for column in declared},
        "experts": [
            {
                "name": expert["name"], "evidence": expert["evidence"],
                "bits": float(bits * expert["weight"] * expert["probability"] / total),
            }
            for expert in experts
        ],
    }  # fmt: skip


def _slices(at: Position) -> list[list[int]]:
    """[first, last + 1] entry of the match index at each corpus level, short contexts first."""
    found = [level for level in range(counts.N_LEVELS) if at.buckets[level] != counts.ABSENT]
    return [[int(at.low[level]), int(at.high[level])] for level in found]


def _surroundings(view: FileView) -> dict[str, Any]:
    """What places are told by, at every boundary: `states`, the lexer's states that occur; `state`, which of them is in
    force; `reads`, the values of the reads that count."""
    rows = slice(0, view.n + 1)
    states, at = np.unique(view.fields[rows], axis=0, return_inverse=True)
    names = sorted({name for place in counts.PLACES for name in place.reads if name != counts.PLAIN})
    return {
        "states": states.tolist(), "state": at.reshape(-1).tolist(),
        "reads": {name: view.reads[rows, READS.index(name)].tolist() for name in names},
    }  # fmt: skip


def _names(view: FileView, boundary: int) -> list[list[int]]:
    """[piece offered, slot of its kind and rank] of the names in scope."""
    rows = zip(view.offered[boundary].tolist(), view.slots[boundary].tolist(), strict=True)
    return [[offered, slot] for offered, slot in rows if slot != names.NOTHING]


def compare(
    model: ConstructedLM, record: dict[str, Any], advance: Callable[[int], None] | None = None
) -> dict[str, Any]:
    """Check a record: is its evidence true, and do the distributions rebuilt from it alone equal the model's?

    Returns:
        `positions`, `largest_difference` between a rebuilt probability and the model's, and `failed`: a list of
        {"at", "reason"}.

    Raises:
        ConstructibleError: it is no record, or one of another model.
    """
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise ConstructibleError(f"not a record of format {FORMAT!r}.", fix="make one with `explain --record`")
    if record.get("model") != model_checksum(model.folder).hex():
        raise ConstructibleError(
            "the record is of another model.", fix="give the model that made it", file=model.folder
        )
    record, view = _opened(model, record)
    index = load_file(model.folder / "index.safetensors")
    checker, evidence = Checker(model.folder, index), EvidenceChecker(model.folder, index)
    failed, largest = [], 0.0
    for token in record["tokens"]:
        try:
            evidence.check(record, token)
            rebuilt = checker.check(record, token)
            difference = float(np.abs(rebuilt - model.position(view, token["at"]).distribution).max())
            largest = max(largest, difference)
            if difference > TOLERANCE:
                raise Refused(f"the rebuilt distribution differs by {difference:.1e} from the model's")
        except (Refused, KeyError, IndexError, TypeError, ValueError) as error:
            failed.append({"at": token.get("at"), "reason": f"{error}" if isinstance(error, Refused) else repr(error)})
        if advance is not None:
            advance(1)
    return {"positions": len(record["tokens"]), "largest_difference": largest, "failed": failed}


def _opened(model: ConstructedLM, record: dict[str, Any]) -> tuple[dict[str, Any], FileView]:
    """A record with arrays for its lists, and the model's own view of the file; raises ConstructibleError where what it
    needs is missing, of another kind, or empty."""
    try:
        said, ids = record["surroundings"], np.array(record["ids"], dtype=np.uint16)
        surroundings = {
            "states": said["states"], "state": np.array(said["state"]),
            "reads": {name: np.array(values) for name, values in said["reads"].items()},
        }  # fmt: skip
        if not record["tokens"] or ids.ndim != 1 or (len(ids) and int(ids.max()) >= model.tokenizer.vocab_size):
            raise ValueError("no position, or a token that there is not")
        return {**record, "ids": ids, "surroundings": surroundings}, model.view(ids)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ConstructibleError(
            f"not a whole record ({type(error).__name__}: {error}).", fix="make one with `explain --record`"
        ) from error
