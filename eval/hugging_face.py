"""Any Hugging Face causal language model in a local folder, scored over the raw bytes of files like every other model.

Bits per byte do not depend on the tokenizer as long as it can say every byte: bytes that a tokenizer drops or replaces
by "unknown" are not counted as said (`FileScore.token_bytes`), and a comparison refuses the pair then.
"""

from __future__ import annotations

import math
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from cgpt import lexer
from cgpt.baseline import windows
from cgpt.corpus import SourceFile
from cgpt.model import HERE
from cgpt.score import FileScore
from eval.models import EvalModel, in_word
from ontology.errors import ConstructibleError
from ontology.routers import Router

MAX_CONTEXT = 2048
"""Longer contexts cost time and memory that grow with their square; a model that can do more is scored with this."""
BATCH_ROWS = 4


class HuggingFaceLM(EvalModel):
    """A transformers model and its tokenizer.

    Args:
        name: in tables.
        folder: local; nothing is fetched.
        network, tokenizer: opened already, for a caller that has them.
    """

    def __init__(self, name: str, folder: Path, network: Any, tokenizer: Any) -> None:
        if not tokenizer.is_fast:
            raise ConstructibleError(
                "this tokenizer does not say which bytes its tokens stand for.",
                fix="save the model with a fast tokenizer (tokenizer.json)", file=folder,
            )  # fmt: skip
        self.name, self.folder, self.network, self.tokenizer = name, folder, network.eval(), tokenizer
        self.abilities = frozenset({"score", "complete"})
        self.router = Router.load(HERE / "router.py", lexer.FIELDS)
        self.concepts = tuple(self.router.concepts)
        # The beginning of a file: its own token if there is one, else the one that ends the file before.
        ends = tokenizer.eos_token_id
        self.begin = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else ends
        self.end = ends

    @property
    def context(self) -> int:
        """Tokens that a window holds."""
        config = self.network.config
        limits = [getattr(config, name, None) for name in ("max_position_embeddings", "n_positions", "n_ctx")]
        return min(MAX_CONTEXT, next((int(limit) for limit in limits if limit), MAX_CONTEXT))

    @cached_property
    def parameters(self) -> int:  # pyright: ignore[reportIncompatibleMethodOverride] - read-only there as here
        """Trained floats; tied ones count once."""
        return sum(parameter.numel() for parameter in self.network.parameters())

    def opaque_parameters(self, score: FileScore) -> np.ndarray:
        """All of them act on every decision."""
        return np.full(len(score.bits), float(self.parameters))

    def score_file(self, file: SourceFile) -> FileScore:
        """See EvalModel. A model without tokens for begin or end is charged a uniform choice there."""
        ids, starts, said = self.tokenize(file.data)
        targets = np.append(ids, self.end if self.end is not None else 0)
        inputs = np.concatenate([[self.begin if self.begin is not None else 0], ids]).astype(np.int64)
        bits, correct = self._score(inputs, targets)
        uniform = math.log2(self.network.config.vocab_size)
        if self.begin is None:
            bits[0], correct[0] = uniform, False
        if self.end is None:
            bits[-1], correct[-1] = uniform, False
        fields, _ = lexer.run(np.frombuffer(file.data, dtype=np.uint8), np.append(starts, len(file.data)))
        concept = self.router.route(fields)
        return FileScore(file.path, file.project, len(file.data), bits, correct, concept, np.append(said, 0))

    def tokenize(self, data: bytes) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(ids int64[n], byte where each token starts int64[n], bytes that each stands for int32[n]) of a file."""
        text = data.decode("utf-8")
        made = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        ids = np.array(made["input_ids"], dtype=np.int64)
        offsets = np.array(made["offset_mapping"], dtype=np.int64).reshape(-1, 2)
        widths = np.array([len(letter.encode("utf-8")) for letter in text], dtype=np.int64)
        at = np.concatenate([[0], np.cumsum(widths)])
        said = np.zeros(len(ids), dtype=np.int32)
        done = 0
        for i, (first, last) in enumerate(offsets.tolist()):
            # Several tokens may share one letter (its bytes); the first of them stands for it.
            begin = max(first, done)
            if last > begin and ids[i] != self.tokenizer.unk_token_id:
                said[i] = at[last] - at[begin]
            done = max(done, last)
        return ids, at[offsets[:, 0]], said

    def _score(self, inputs: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Bits float64[n] and whether the most probable token was right, bool[n], with windows that overlap by half."""
        import torch

        bits, correct = np.empty(len(targets)), np.empty(len(targets), dtype=np.bool_)
        length = min(len(inputs), self.context)
        spans = list(windows(len(inputs), self.context))
        with torch.inference_mode():
            for first in range(0, len(spans), BATCH_ROWS):
                batch = spans[first : first + BATCH_ROWS]
                rows = np.stack([inputs[start : start + length] for start, _ in batch])
                logits = self.network(input_ids=torch.from_numpy(rows), use_cache=False).logits
                for row, (start, scored) in enumerate(batch):
                    places = slice(scored, start + length)
                    right = torch.from_numpy(targets[places])
                    wanted = logits[row, scored - start :].float()
                    nats = torch.nn.functional.cross_entropy(wanted, right, reduction="none")
                    bits[places] = nats.double().numpy() / math.log(2)
                    correct[places] = (wanted.argmax(-1) == right).numpy()
        return bits, correct

    @cached_property
    def _words(self) -> list[int]:
        """Tokens that would carry on a word."""
        texts = self.tokenizer.batch_decode([[i] for i in range(self.network.config.vocab_size)])
        return [i for i, text in enumerate(texts) if in_word(text[:1].encode("utf-8")[:1])]

    def complete(self, prompt: bytes, max_tokens: int, stop: bytes = b"", whole: bool = False) -> bytes:
        """See EvalModel; a prompt that is too long loses its beginning, and at most half a context is written."""
        import torch

        max_tokens = min(max_tokens, self.context // 2)
        ids, _, _ = self.tokenize(prompt)
        begin = [] if self.begin is None else [self.begin]
        room = max(self.context - max_tokens - len(begin), 1)
        given = torch.tensor([[*begin, *ids[-room:].tolist()]])
        options: dict[str, Any] = {"max_new_tokens": max_tokens, "do_sample": False, "pad_token_id": self.end or 0}
        if whole and in_word(prompt[-1:]):
            options["begin_suppress_tokens"] = self._words
        if stop:
            options |= {"stop_strings": [stop.decode()], "tokenizer": self.tokenizer}
        with torch.inference_mode():
            made = self.network.generate(given, attention_mask=torch.ones_like(given), **options)
        text = self.tokenizer.decode(made[0, given.shape[1] :], skip_special_tokens=True).encode("utf-8")
        return text.partition(stop)[0] if stop else text


def open_hugging_face(name: str, folder: Path) -> HuggingFaceLM:
    """Open a local folder with a transformers model and its tokenizer; nothing is fetched, no code of it is run.

    Raises:
        ConstructibleError: transformers is not installed, or the folder cannot be read as a causal language model with
            a fast tokenizer.
    """
    try:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        import cgpt.transformer  # noqa: F401 (registers the monolith's classes)
    except ImportError as error:
        fix = "pip install 'transformers>=5,<6'"
        raise ConstructibleError("the package 'transformers' is not installed.", fix=fix) from error
    try:
        network = AutoModelForCausalLM.from_pretrained(str(folder), local_files_only=True)
        tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    except Exception as error:  # transformers, tokenizers and safetensors raise many kinds for a broken folder
        raise ConstructibleError(
            f"this folder cannot be opened as a causal language model ({error}).",
            fix="save model and tokenizer there with save_pretrained", file=folder,
        ) from error  # fmt: skip
    return HuggingFaceLM(name, folder, network, tokenizer)
