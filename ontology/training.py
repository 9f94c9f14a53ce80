"""The training loop: steps or seconds, checkpoints that continue exactly, progress, metrics."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from kernels.memory import keep_freed_memory
from ontology.errors import ConstructibleError, UsageError
from ontology.io import load_tensors, save_tensors
from ontology.progress import count

if TYPE_CHECKING:
    from ontology.fit import JobContext

_META = "training.json"


class Trainer(Protocol):
    """What `train` can train. `rows_per_step`, where it exists, is used for the rate shown."""

    def set_progress(self, fraction: float) -> None:
        """Be told before each step how much of the training is over, 0 to 1 (for the learning rate)."""
        ...

    def step(self, index: int) -> float:
        """Make step `index` and return its mean loss; with equal state and index it must do the same."""
        ...

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """Return copies of everything that the next steps depend on."""
        ...

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """Continue from what `state` returned."""
        ...


@dataclass
class Trained:
    """How a training went: steps made, seconds used (over all attempts), and (step, mean loss) about once a second.

    Seconds and losses depend on the clock: keep them out of artefacts that must repeat bit for bit.
    """

    steps: int
    seconds: float
    losses: list[tuple[int, float]] = field(default_factory=list)


def train(
    trainer: Trainer,
    context: JobContext,
    *,
    steps: int | None = None,
    seconds: float | None = None,
    checkpoint_seconds: float = 10.0,
    keep_seconds: float = 0.0,
    name: str = "training",
) -> Trained:
    """Train until a number of steps or seconds is reached, continuing from the context's checkpoint.

    With steps the result depends on nothing but the trainer, however often the process is killed in between. With
    seconds, those of earlier attempts count.

    Args:
        steps: how many; None takes the budget's.
        seconds: how many at most; None takes the job's part of the budget's minutes.
        checkpoint_seconds: how often the state is saved.
        keep_seconds: of the job's part of the budget, for what the job does after training.
        name: tells the checkpoints of several trainings in one job apart.

    Raises:
        UsageError: neither steps nor seconds are given by argument or budget.
        ConstructibleError: the loss is no longer finite.
    """
    keep_freed_memory()
    if steps is None and seconds is None:
        steps = context.steps
    timed = steps is None
    if timed and seconds is None and context.seconds_left() == float("inf"):
        raise UsageError("nothing says how long to train.", fix="give --steps or --minutes")
    path = context.checkpoint / f"{name}.safetensors"
    before = _load(trainer, path, context)
    index, used, losses = before.steps, before.seconds, before.losses
    started = saved = noted = time.monotonic()
    rows_per_step = int(getattr(trainer, "rows_per_step", 0))
    first_index, recent, recent_steps = index, 0.0, 0

    def trained() -> Trained:
        return Trained(index, used + time.monotonic() - started, losses)

    with context.progress.task(context.name, total=1.0) as task:
        while True:
            elapsed = time.monotonic() - started
            if steps is not None:
                left = None
                fraction, over = (index / steps if steps else 1.0), index >= steps
            else:
                if seconds is None:
                    left = max(0.0, context.seconds_left() - keep_seconds)
                else:
                    left = max(0.0, seconds - used - elapsed)
                fraction = min(1.0, (used + elapsed) / max(1e-9, used + elapsed + left))
                over = left <= 0.0 and index > 0
            now = time.monotonic()
            if recent_steps and (over or now - noted >= 1.0):
                mean = recent / recent_steps
                if not np.isfinite(mean):
                    raise ConstructibleError(
                        f"the loss of {context.name!r} is {mean} at step {index}.", fix="use a lower learning rate"
                    )
                rate = rows_per_step * (index - first_index) / max(1e-9, now - started)
                context.log(step=index, loss=mean, seconds=round(used + elapsed, 2), rows_per_second=round(rate),
                            rows=index * rows_per_step)  # fmt: skip
                losses.append((index, mean))
                if left is None and steps is not None and index > first_index:
                    left = (steps - index) * elapsed / (index - first_index)
                shown = f"step {index}" + (f" of {steps}" if steps is not None else "")
                rows = f", {count(rate)} rows/s" if rows_per_step else ""
                detail = f"{context.done_text()}, {shown}{rows}, loss {mean:.4f}"
                task.update(fraction, detail, seconds_left=left)
                noted, recent, recent_steps = now, 0.0, 0
            if over:
                break
            if now - saved >= checkpoint_seconds:
                _save(trainer, path, trained())
                saved = time.monotonic()
            trainer.set_progress(fraction)
            recent += trainer.step(index)
            recent_steps += 1
            index += 1
    result = trained()
    _save(trainer, path, result)
    return result


def _save(trainer: Trainer, path: Path, trained: Trained) -> None:
    state = trainer.state()
    if _META in state:
        raise ConstructibleError(f"a trainer's state may not use the name {_META!r}.", fix="rename that array")
    meta = json.dumps({"steps": trained.steps, "seconds": trained.seconds, "losses": trained.losses}).encode()
    save_tensors(path, {**state, _META: np.frombuffer(meta, np.uint8)})


def _load(trainer: Trainer, path: Path, context: JobContext) -> Trained:
    if not path.exists():
        return Trained(0, 0.0)
    tensors = load_tensors(path)
    meta = json.loads(tensors.pop(_META).tobytes())
    trainer.restore(tensors)
    context.progress.note(f"{context.name}: continues at step {meta['steps']}")
    return Trained(meta["steps"], meta["seconds"], [(int(step), float(loss)) for step, loss in meta["losses"]])
