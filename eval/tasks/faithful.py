"""Faithfulness of the nets' explanations: deletion and insertion against a random order, and intervention.

An explanation ranks a net's reads by how far each moved the logit of the token. If the ranking says what the net rests
on, then taking the first reads away costs more bits than taking as many at random away, and giving the net only the
first ones brings back more than giving it as many at random. (Petsiuk and others 2018, sections 3 and 4.)

An intervention takes the net of one situation away: that must change predictions in its situation and nowhere else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import numpy as np

from cgpt.ablate import situations_of, without
from cgpt.reads import READS
from eval.models import EvalModel, Ours
from eval.tasks.base import Example, Measured, Metric, Task
from eval.tasks.language import files

POSITIONS = 24
"""Positions per file, chosen by hash."""
STEPS = (1, 2, 4, 8)
"""So many reads are taken away, or given back; the figures are averages over these."""
RANDOM_ORDERS = 4


def measure(model: EvalModel, example: Example) -> Iterable[Measured]:
    """Sums over positions of one file whose token the net in charge can say."""
    assert isinstance(model, Ours)
    inner: Any = model.model
    view = inner.view(inner.tokenizer.encode(example.data.data))
    concepts = inner.concepts_at(view)
    rng = np.random.default_rng(int(hashlib.sha256(example.id.encode()).hexdigest()[:12], 16))
    sums: dict[str, float] = dict.fromkeys(DELETION.columns, 0.0)
    for boundary in rng.permutation(view.n)[: 4 * POSITIONS].tolist():
        if sums["positions"] == POSITIONS:
            break
        m, target = int(inner.net_of[concepts[boundary]]), int(view.history[boundary + 1])
        shares = inner.nets.read_shares(m, view.reads[boundary], target) if m >= 0 else {}
        columns = np.array([READS.index(name) for name in shares], dtype=np.int64)
        if len(columns) < STEPS[-1]:
            continue  # too few reads
        ranked = columns[np.argsort(-np.array(list(shares.values())), kind="stable")]
        orders = [ranked, *(rng.permutation(columns) for _ in range(RANDOM_ORDERS))]
        whole = bits_without(inner.nets, m, view.reads[boundary], target, [[]])[0]
        empty = bits_without(inner.nets, m, view.reads[boundary], target, [columns.tolist()])[0]
        deleted = [bits_without(inner.nets, m, view.reads[boundary], target, [o[:k] for k in STEPS]) for o in orders]
        inserted = [bits_without(inner.nets, m, view.reads[boundary], target, [o[k:] for k in STEPS]) for o in orders]
        sums["positions"] += 1
        sums["all"] += empty - whole
        sums["deleted_ranked"] += float(np.mean(deleted[0])) - whole
        sums["deleted_random"] += float(np.mean(deleted[1:])) - whole
        sums["inserted_ranked"] += empty - float(np.mean(inserted[0]))
        sums["inserted_random"] += empty - float(np.mean(inserted[1:]))
    if sums["positions"]:
        sums["deletion_gain"] = sums["deleted_ranked"] - sums["deleted_random"]
        sums["insertion_gain"] = sums["inserted_ranked"] - sums["inserted_random"]
        yield Measured(sums)
    else:
        yield Measured({"positions": 0.0})


def bits_without(nets: Any, m: int, reads: np.ndarray, target: int, removed: list[Any]) -> np.ndarray:
    """float64[len(removed)]: bits net m gives `target` with each set of read columns taken away
    (they read "nothing")."""
    nothing = len(nets.output)  # the code after the last token: see cgpt.reads.vocabulary_size
    rows = np.repeat(reads[None], len(removed), axis=0)
    for row, columns in zip(rows, removed, strict=True):
        row[np.asarray(columns, dtype=np.int64)] = nothing
    logits = nets.logits(m, rows).astype(np.float64)
    top = logits.max(1)
    return (np.log(np.exp(logits - top[:, None]).sum(1)) + top - logits[:, target]) / np.log(2)


DELETION = Task(
    name="deletion",
    version=1,
    question="Do the reads that an explanation ranks first matter more to the net than others?",
    columns=(
        "positions", "deleted_ranked", "deleted_random", "inserted_ranked", "inserted_random", "all", "deletion_gain",
        "insertion_gain",
    ),
    metrics=(
        Metric("bits lost, ranked less random", "deletion_gain", "positions", digits=2),
        Metric("bits won, ranked less random", "insertion_gain", "positions", digits=2),
        Metric("bits lost without the first reads", "deleted_ranked", "positions", digits=2),
        Metric("bits lost without random reads", "deleted_random", "positions", "neither", digits=2),
        Metric("bits that all reads are worth", "all", "positions", "neither", digits=2),
    ),
    load=files,
    measure=measure,
    needs=frozenset({"nets"}),
)  # fmt: skip


def intervene(model: EvalModel, example: Example) -> Iterable[Measured]:
    """One file, scored with and without the net of one situation that occurs in it (chosen by hash)."""
    assert isinstance(model, Ours)
    before = model.score_file(example.data)
    present = [c for c in np.unique(before.concept).tolist() if model.model.net_of[c] >= 0]  # type: ignore[union-attr]
    if not present:
        yield Measured({"inside": 0.0, "outside": 0.0})
        return
    chosen = present[int(hashlib.sha256(f"intervene {example.id}".encode()).hexdigest()[:8], 16) % len(present)]
    name = model.concepts[chosen]
    ablated = without(model.model, name)  # type: ignore[arg-type]
    after = ablated.score_file(example.data.data, example.data.path, example.data.project)
    touched = np.isin(before.concept, [model.concepts.index(one) for one in situations_of(model.model, name)])  # type: ignore[arg-type]
    change = after.bits - before.bits
    values = {
        "inside": float(touched.sum()), "outside": float((~touched).sum()), "bits_inside": float(change[touched].sum()),
        "moved_inside": float((change[touched] != 0).sum()), "moved_outside": float((change[~touched] != 0).sum()),
    }  # fmt: skip
    yield Measured(values)
    yield Measured(values, name)


INTERVENTION = Task(
    name="intervention",
    version=1,
    question="Does taking a situation's net away change its own predictions, and no others?",
    columns=("inside", "outside", "bits_inside", "moved_inside", "moved_outside"),
    metrics=(
        Metric("predictions moved elsewhere", "moved_outside", "outside", "lower", percent=True, digits=4),
        Metric("predictions moved in the situation", "moved_inside", "inside", percent=True),
        Metric("bits added in the situation, per token", "bits_inside", "inside", digits=4),
    ),
    load=files,
    measure=intervene,
    needs=frozenset({"nets", "explain"}),
)
