"""What a model is measured on: small registered objects, imported when they are asked for.

Another package adds its own through the entry-point group `constructible.tasks`, as "module:attribute" of a `Task`.
"""

from __future__ import annotations

from eval.tasks.base import Example, Measured, Metric, Options, Task
from ontology.registry import Registry

__all__ = ["TASKS", "Example", "Measured", "Metric", "Options", "Task", "load_tasks"]

TASKS = Registry(
    "task",
    group="constructible.tasks",
    entries={
        "bits": "eval.tasks.language:BITS",
        "corrupted": "eval.tasks.images:CORRUPTED",
        "deletion": "eval.tasks.faithful:DELETION",
        "dynamic": "eval.tasks.dynamic:DYNAMIC",
        "few-shot": "eval.tasks.few_shot:FEW_SHOT",
        "image-replay": "eval.tasks.image_replay:IMAGE_REPLAY",
        "image-simulation": "eval.tasks.image_simulation:IMAGE_SIMULATION",
        "images": "eval.tasks.images:IMAGES",
        "intervention": "eval.tasks.faithful:INTERVENTION",
        "lines": "eval.tasks.lines:LINES",
        "memory": "eval.tasks.memory:MEMORY",
        "pairs": "eval.tasks.pairs:PAIRS",
        "replay": "eval.tasks.replay:REPLAY",
        "simulation": "eval.tasks.simulation:SIMULATION",
        "speed": "eval.tasks.speed:SPEED",
    },
)


def load_tasks(names: str) -> list[Task]:
    """The tasks of a list separated by commas, in its order, each once.

    Raises:
        UsageError: a name is unknown (with the nearest known one) or the list is empty.
        ConstructibleError: what is registered under a name is no `Task`.
    """
    from ontology.errors import ConstructibleError, UsageError

    wanted = list(dict.fromkeys(name.strip() for name in names.split(",") if name.strip()))
    if not wanted:
        raise UsageError("no task is named.", fix=f"choose from {', '.join(TASKS.names())}")
    found = []
    for name in wanted:
        task = TASKS.load(name)
        if not isinstance(task, Task):
            fix = "register an eval.tasks.Task"
            raise ConstructibleError(f"{TASKS.target(name)} is a {type(task).__name__}.", fix=fix)
        found.append(task)
    return found
