"""Latency: time to the first token, time per written byte, time to score; on this machine, now."""

from __future__ import annotations

import time
from collections.abc import Iterable
from weakref import WeakSet

from cgpt.corpus import SourceFile
from eval.models import EvalModel
from eval.tasks.base import Example, Measured, Metric, Options, Task
from eval.tasks.language import files

PROMPT_BYTES = 4000
TOKENS = 32
_WARM: WeakSet[EvalModel] = WeakSet()


def measure(model: EvalModel, example: Example) -> Iterable[Measured]:
    """One file: complete its first part twice (one token, then several), and score it."""
    file: SourceFile = example.data
    prompt = file.data[: min(len(file.data) // 2, PROMPT_BYTES)]
    prompt = prompt[: prompt.rfind(b"\n") + 1] or b"import os\n"
    if model not in _WARM:
        # What is compiled or read from disk on first use is not latency.
        model.complete(prompt, 2)
        model.score_file(SourceFile("warm.py", prompt, "", ""))
        _WARM.add(model)
    started = time.perf_counter()
    first = model.complete(prompt, 1)
    to_first = time.perf_counter() - started
    started = time.perf_counter()
    made = model.complete(prompt, TOKENS)
    rest = max(time.perf_counter() - started - to_first, 0.0)
    started = time.perf_counter()
    model.score_file(file)
    scoring = time.perf_counter() - started
    yield Measured({
        "first_ms": 1000 * to_first, "prompts": 1.0, "rest_ms": 1000 * rest, "written": max(len(made) - len(first), 0),
        "scoring_s": scoring, "scored_mb": len(file.data) / 1e6,
    })  # fmt: skip


def _few(options: Options) -> list[Example]:
    return [example for example in files(options) if len(example.data.data) >= 2000]


SPEED = Task(
    name="speed",
    version=1,
    question="How long does a prediction take here?",
    columns=("first_ms", "prompts", "rest_ms", "written", "scoring_s", "scored_mb"),
    metrics=(
        Metric("ms to the first token", "first_ms", "prompts", "lower", digits=1, measured_on_machine=True),
        Metric("ms per written byte", "rest_ms", "written", "lower", digits=2, measured_on_machine=True),
        Metric("seconds to score a MB", "scoring_s", "scored_mb", "lower", digits=1, measured_on_machine=True),
    ),
    load=_few,
    measure=measure,
    needs=frozenset({"score", "complete"}),
)
