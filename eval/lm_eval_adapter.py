"""Our models inside lm-evaluation-harness (`pip install 'constructible[harness]'`).

    from eval.lm_eval_adapter import register
    register()                                   # adds the model type "constructible"
    lm_eval.simple_evaluate(model="constructible", model_args="pretrained=runs/quickstart/constructed", tasks=[...])

What it asks of a model is answered by the very score that `eval run` uses, so the two cannot drift apart. That harness
leaves the end of a document out of its likelihood; ours counts it, as a token of its own, so it is dropped here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cgpt.corpus import SourceFile
from eval.models import EvalModel, open_model, parse_spec
from ontology.errors import MissingExtra

NAME = "constructible"
DEFAULT_TOKENS = 256


class Answers:
    """The three questions of that harness, answered by one of our models."""

    def __init__(self, model: EvalModel) -> None:
        self.model = model

    def rolling(self, text: str) -> float:
        """Natural log of the probability of a whole text, its end left out."""
        return -math.log(2) * float(self._bits(text)[0].sum())

    def continuation(self, context: str, continuation: str) -> tuple[float, bool]:
        """Natural log of the probability of a continuation, and whether greedy decoding gives it.

        Tokens count that reach beyond the context; one that lies across its end counts whole, for all continuations
        alike.
        """
        bits, correct, ends = self._bits(context + continuation)
        beyond = ends > len(context.encode("utf-8"))
        return -math.log(2) * float(bits[beyond].sum()), bool(correct[beyond].all())

    def generate(self, context: str, until: Sequence[str], max_tokens: int) -> str:
        """Greedy text up to the first of the strings in `until`."""
        stop = until[0].encode("utf-8") if len(until) == 1 else b""
        text = self.model.complete(context.encode("utf-8"), max_tokens, stop).decode("utf-8", "replace")
        for one in until:
            text = text.partition(one)[0] if one else text
        return text

    def _bits(self, text: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        score = self.model.score_file(SourceFile("text.py", text.encode("utf-8"), "", ""))
        return score.bits[:-1], score.correct[:-1], np.cumsum(score.token_bytes[:-1].astype(np.int64))


def harness_class() -> type:
    """The model class for that harness.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        from lm_eval.api.model import LM  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise MissingExtra("lm-eval", "harness") from error

    class ConstructibleLM(LM):
        """`model_args`: pretrained=[KIND:]FOLDER, as for `eval run`."""

        def __init__(self, pretrained: str, **_: Any) -> None:
            super().__init__()
            self.answers = Answers(open_model(parse_spec(pretrained)))

        @classmethod
        def create_from_arg_string(cls, arg_string: str, additional_config: dict | None = None) -> Any:
            options = dict(part.split("=", 1) for part in arg_string.split(",") if "=" in part)
            return cls(**options)

        @classmethod
        def create_from_arg_obj(cls, arg_dict: dict, additional_config: dict | None = None) -> Any:
            return cls(**arg_dict)

        def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
            return [self.answers.continuation(*request.args) for request in requests]

        def loglikelihood_rolling(self, requests: list[Any]) -> list[float]:
            return [self.answers.rolling(request.args[0]) for request in requests]

        def generate_until(self, requests: list[Any]) -> list[str]:
            return [self.answers.generate(*_arguments(*request.args)) for request in requests]

    return ConstructibleLM


def _arguments(context: str, options: Mapping[str, Any]) -> tuple[str, list[str], int]:
    until = options.get("until") or []
    return context, [until] if isinstance(until, str) else list(until), int(options.get("max_gen_toks", DEFAULT_TOKENS))


def register() -> None:
    """Make `constructible` a model type of that harness; a second call changes nothing.

    Raises:
        MissingExtra: it is not installed.
    """
    made = harness_class()
    from lm_eval.api.registry import register_model  # pyright: ignore[reportMissingImports]

    if NAME not in _REGISTERED:
        register_model(NAME)(made)
        _REGISTERED.add(NAME)


def harness_model(folder: str | Path) -> Any:
    """A model for `lm_eval.simple_evaluate(model=...)`, opened."""
    return harness_class()(str(folder))


_REGISTERED: set[str] = set()
