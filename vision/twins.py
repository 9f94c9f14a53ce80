"""Twins: nodes like a model's own, trained once more with something changed, and what they say of photographs.

Judging nodes and most studies ask "and if it had never seen this class", "and with another seed", "and with another
column of the table". Twins that must not see the same classes are trained together, for the same steps as all others,
on photographs in which nothing of these classes occurs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ontology.environment import threads
from ontology.fit import Job, JobContext, train
from ontology.io import load_tensors, read_json, save_tensors, write_json
from vision.bank import in_blocks
from vision.build import Plan
from vision.nodes import Node, NodeBank
from vision.plain import PlainNode, PlainShape, fit_plain, readings
from vision.train_nodes import NodePlan, NodeTrainer, calibrated

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Twins:
    """What trained twins say.

    Attributes:
        column: place of each twin by name.
        pooled: evidence by set of photographs ("held": the plan's held-out ones, "validation"), float64 [n, twins].
        slope, offset: calibration; a slope of 0 where a twin answers the opposite question, so that it says nothing.
    """

    column: dict[str, int]
    pooled: dict[str, Floats]
    slope: Floats
    offset: Floats

    def scores(self, names: Sequence[str], purpose: str, part: str) -> Floats:
        """Calibrated scores of the twins NAME@PURPOSE, [n, names]; one half where there is none."""
        out = np.full((len(self.pooled[part]), len(names)), 0.5)
        for i, name in enumerate(names):
            j = self.column.get(f"{name}@{purpose}")
            if j is not None:
                z = self.pooled[part][:, j] * self.slope[j] + self.offset[j]
                out[:, i] = np.round(1 / (1 + np.exp(-np.clip(z, -30, 30))), 4)
        return out

    def has(self, purpose: str) -> bool:
        """Whether there is any twin NAME@PURPOSE."""
        return any(name.endswith(f"@{purpose}") for name in self.column)

    def evidence(self, name: str, purpose: str, part: str) -> Floats:
        """Pooled evidence of the twin NAME@PURPOSE, [n]."""
        return self.pooled[part][:, self.column[f"{name}@{purpose}"]]


@dataclass(frozen=True)
class TwinGroup:
    """Twins that are trained together.

    Attributes:
        twins: what is trained; see `usable`.
        unseen: classes of which they see no photograph, not even a part of one; in their columns these are -1.
    """

    twins: tuple[NodePlan, ...]
    unseen: tuple[int, ...] = ()

    def job(self, name: str, key: Mapping[str, Any], run: Callable[[JobContext], None], nodes: int) -> Job:
        """The job that trains them; in a budget of minutes it gets as many shares as there are more of them than nodes
        of the model."""
        parts = {**key, "spec": twin_spec(self.twins), "unseen": list(self.unseen)}
        return Job(name, parts, run, ("primitives",), kind="net", place=None, modules=len(self.twins),
                   share=len(self.twins) / nodes)  # fmt: skip

    def rows(self, plan: Plan) -> npt.NDArray[np.int64]:
        """The photographs of the plan that they learn from."""
        return plan.learn[~np.isin(plan.labels[plan.learn], self.unseen)]

    def trainer(self, plan: Plan, maps: npt.NDArray[np.uint8]) -> NodeTrainer:
        """Trains each on its own, as `build` does; the classes of the model that they see are favoured."""
        own = [c for c in plan.favoured if c not in self.unseen]
        return NodeTrainer(self.twins, maps, plan.labels, self.rows(plan), seed=plan.recipe.seed, own=own)


def train_twins(
    context: JobContext, plan: Plan, group: TwinGroup, maps: npt.NDArray[np.uint8],
    validation: npt.NDArray[np.uint8], trainer: NodeTrainer | None = None,
    parts: Mapping[str, npt.NDArray[np.int64]] | None = None, keep_nodes: bool = False,
) -> None:  # fmt: skip
    """Train twins together, calibrate them, keep what they say of the photographs in the job's folder.

    Args:
        maps: primitives of the plan's photographs.
        validation: pixels of photographs that no twin learns from, uint8 [n, side, side, 3].
        trainer: another one than the group's own.
        parts: further sets of the plan's photographs to answer about, by name, rows.
        keep_nodes: save the nodes themselves as well, for those who look at maps.
    """
    twins = group.twins
    table = np.stack([twin.truth for twin in twins], axis=1)
    nodes: Sequence[Node | PlainNode]
    if plan.cut.nets:
        import torch

        torch.set_num_threads(threads())
        trainer = trainer or group.trainer(plan, maps)
        train(trainer, context)
        nodes = trainer.finish()
    else:
        shapes = [PlainShape(twin.shape.scale) for twin in twins]
        rows = group.rows(plan)
        nodes = fit_plain([t.name for t in twins], shapes, table, readings(maps, rows), plan.labels[rows])
    bank = NodeBank(nodes)
    held = bank.pooled(maps[plan.held])
    good, _ = calibrated(nodes, table, held, plan.labels[plan.held])
    steady = {node.name: node for node in good}
    found = np.concatenate([bank.pooled(block) for block in in_blocks(validation)])
    slope = np.array([steady[n.name].slope if n.name in steady else 0.0 for n in nodes])
    offset = np.array([steady[n.name].offset if n.name in steady else 0.0 for n in nodes])
    if keep_nodes:
        for node in nodes:
            steady.get(node.name, node).save(context.folder / "nodes" / node.name)
    more = {f"part.{name}": bank.pooled(maps[rows]) for name, rows in (parts or {}).items()}
    save_tensors(
        context.folder / "twins.safetensors",
        {"part.validation": found, "part.held": held, "slope": slope, "offset": offset, **more},
    )
    write_json(context.folder / "twins.json", {"names": [twin.name for twin in twins]})


def load_twins(*folders: Path) -> Twins:
    """What `train_twins` kept, of several groups side by side."""
    names = [name for folder in folders for name in read_json(folder / "twins.json")["names"]]
    stored = [load_tensors(folder / "twins.safetensors") for folder in folders]
    whole = {key: np.concatenate([np.asarray(part[key]) for part in stored], axis=-1) for key in stored[0]}
    pooled = {key.removeprefix("part."): value for key, value in whole.items() if key.startswith("part.")}
    return Twins({name: i for i, name in enumerate(names)}, pooled, whole["slope"], whole["offset"])


def without(column: npt.NDArray[np.int8], classes: Sequence[int]) -> npt.NDArray[np.int8]:
    """A column of the table in which some classes are no example of anything."""
    out = column.copy()
    out[list(classes)] = -1
    return out


def usable(twins: Sequence[NodePlan]) -> tuple[NodePlan, ...]:
    """Those that have a true and a false class to learn from."""
    return tuple(twin for twin in twins if (twin.truth == 1).any() and (twin.truth == 0).any())


def twin_spec(twins: Sequence[NodePlan]) -> list[list]:
    """What decides their training, as JSON values, for a job's key."""
    return [
        [t.name, t.seed_name, t.truth.tolist(), t.shape.scale, list(t.shape.hidden), t.shape.pooling] for t in twins
    ]
