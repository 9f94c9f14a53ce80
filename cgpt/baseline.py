"""The root cut: one small transformer answers everything. The monolith that a constructed model is compared with.

Today's small transformer in transformers' own Qwen3 classes: RMSNorm, rotary positions, normalised queries and keys,
SwiGLU, tied embeddings, a hashed bigram embedding, outputs of each layer that start at zero. Matrices are trained with
Muon, embeddings and norms with AdamW at a rate of their own, with warm-up and a linear warm-down over the budget, on
the constructed model's tokens. A file is scored with overlapping windows, so that every token but a file's first few
has at least half a context to its left.
"""

from __future__ import annotations

import math
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int64, Integer, UInt16

from ontology.errors import ConstructibleError
from ontology.io import make_folder

END = 0  # token that ends every file; also what stands before a file's first token
WIDTH_STEP = 32
WIDTH_BY_DEPTH = 64  # wide and shallow: a layer less is a step sooner

Ids = UInt16[np.ndarray, "tokens"]  # of all documents, one after another
Offsets = Int64[np.ndarray, "documents_and_one"]  # where each document begins in the ids, and the end of the last


@dataclass(frozen=True)
class BaselineConfig:
    """Shape and training constants of the monolith.

    Attributes:
        vocab_size: tokens, `<end>` included.
        hidden_size: width; a multiple of `head_width`.
        layers: depth.
        intermediate_size: width of the SwiGLU layer.
        context: tokens that a position may look back over, and the length of a training row.
        batch_tokens: tokens per step; a multiple of `context`.
        learning_rate: peak for embeddings, reached after `warm_up` of the budget and falling to 0 over its last
            `warm_down`; that of norms is 0.3 of it.
        matrix_rate: the same for the matrices of the layers, trained with Muon (Jordan and others 2024).
        bf16: run matrix products in bfloat16 while training (weights, moments and scores stay float32).
        head_width: of an attention head. Attention costs by the head: of 64 it takes half the time of 32.
        bigram_rows: of the hashed bigram embedding (cgpt.transformer); 0 is none.
        bigram_width: of its rows.
        bigram_rate: its rate, as a share of `learning_rate`. A row is seen rarely, and Adam's step grows with rarity.
    """

    vocab_size: int
    hidden_size: int
    layers: int
    intermediate_size: int
    context: int = 256
    batch_tokens: int = 4096
    learning_rate: float = 4e-3
    matrix_rate: float = 2e-2
    warm_up: float = 0.03
    warm_down: float = 0.6
    clip_norm: float = 1.0
    bf16: bool = False
    seed: int = 0
    head_width: int = 32
    bigram_rows: int = 0
    bigram_width: int = 32
    bigram_rate: float = 0.3

    @property
    def parameters(self) -> int:
        """Trained floats: tied embeddings, four attention and three feed-forward matrices and four norms per layer,
        bigrams and the matrix that widens them."""
        width = self.hidden_size
        layer = 4 * width * width + 3 * width * self.intermediate_size + 2 * width + 2 * self.head_width
        bigrams = (self.bigram_rows + width) * self.bigram_width if self.bigram_rows else 0
        return self.vocab_size * width + self.layers * layer + width + bigrams

    @classmethod
    def of_size(cls, target_parameters: int, vocab_size: int, **options: Any) -> BaselineConfig:
        """The shape nearest to a number of parameters, among those about WIDTH_BY_DEPTH times as wide as deep.

        About a sixth is the bigrams' (their rows are a power of two). The feed-forward layer takes up what whole
        widths and depths leave over: 1.5 to 4 times the width.
        """
        options = {"bigram_rows": 2 ** round(math.log2(target_parameters / 6 / cls.bigram_width)), **options}
        best: tuple[float, BaselineConfig] | None = None
        for width in range(WIDTH_STEP, 1024 + 1, WIDTH_STEP):
            for layers in range(1, 25):
                shape = cls.of_shape(width, layers, vocab_size, **options)
                missing = (target_parameters - shape.parameters) / (3 * width * layers)
                wanted = shape.intermediate_size + 32 * round(missing / 32)
                shape = replace(shape, intermediate_size=min(max(wanted, 3 * width // 64 * 32), 4 * width))
                distance = abs(math.log(shape.parameters / target_parameters))
                by_depth, by_width = width / layers / WIDTH_BY_DEPTH, shape.intermediate_size / width * 3 / 8
                usual = abs(math.log(by_depth)) + abs(math.log(by_width))
                if best is None or distance + 0.05 * usual < best[0]:
                    best = distance + 0.05 * usual, shape
        assert best is not None
        return best[1]

    @classmethod
    def of_shape(cls, width: int, layers: int, vocab_size: int, **options: Any) -> BaselineConfig:
        """The usual proportions: SwiGLU of 8/3 times the width, rounded up to a multiple of 32.

        Heads are 64 wide where that gives two or more, and `bf16` is on where this processor has it in hardware,
        unless the options say otherwise.
        """
        from kernels.precision import multiplies_bfloat16

        options = {"bf16": multiplies_bfloat16(), "head_width": 32 if width % 64 or width < 128 else 64, **options}
        return cls(vocab_size, width, layers, -(-width * 8 // 3 // 32) * 32, **options)


class TokenStream:
    """All documents, each preceded by `<end>`, in a new order every epoch; any stretch of it by number alone.

    Args:
        ids: uint16[N], the documents' tokens one after another.
        offsets: int64[documents + 1], where each begins in `ids`.
        seed: of the order.
    """

    def __init__(self, ids: Ids, offsets: Offsets, seed: int) -> None:
        if len(offsets) < 2 or len(ids) == 0:
            raise ConstructibleError("there is no text to train on.", fix="give a corpus with at least one file")
        self.ids, self.offsets, self.seed = ids, offsets, seed
        self.epoch_tokens = len(ids) + len(offsets) - 1
        self._epochs: dict[int, np.ndarray] = {}

    def read(self, start: int, count: int) -> UInt16[np.ndarray, "count"]:
        """Tokens [start, start + count) of the endless stream, uint16[count]; a function of the seed and these."""
        parts = []
        while count > 0:
            epoch, position = divmod(start, self.epoch_tokens)
            parts.append(self._epoch(epoch)[position : position + count])
            start, count = start + len(parts[-1]), count - len(parts[-1])
        return np.concatenate(parts)

    def _epoch(self, epoch: int) -> UInt16[np.ndarray, "tokens"]:
        if epoch not in self._epochs:
            # A stretch touches two neighbours at most; older ones will not be asked for again.
            self._epochs = {number: tokens for number, tokens in self._epochs.items() if number == epoch - 1}
            order = np.random.default_rng((self.seed, epoch)).permutation(len(self.offsets) - 1)
            tokens, position = np.empty(self.epoch_tokens, np.uint16), 0
            for document in order:
                begin, end = int(self.offsets[document]), int(self.offsets[document + 1])
                tokens[position] = END
                tokens[position + 1 : position + 1 + end - begin] = self.ids[begin:end]
                position += 1 + end - begin
            self._epochs[epoch] = tokens
        return self._epochs[epoch]


class Baseline:
    """A trained monolith: scores token sequences, predicts the next token, is saved and loaded.

    Args:
        network: transformers' causal language model, in evaluation mode.
    """

    def __init__(self, network: Any) -> None:
        self.network = network
        self.context = int(network.config.max_position_embeddings)
        self.vocab_size = int(network.config.vocab_size)

    @property
    def parameters(self) -> int:
        """Trained floats; tied embeddings count once."""
        return sum(parameter.numel() for parameter in self.network.parameters())

    def score_tokens(
        self, ids: Integer[np.ndarray, "n"], batch_rows: int = 8
    ) -> tuple[Float64[np.ndarray, "n+1"], Bool[np.ndarray, "n+1"]]:
        """Cost of each token of one file and of its end, each given only what stands to its left.

        Args:
            ids: uint16[n], the file's tokens without `<end>`.
            batch_rows: windows per forward pass.

        Returns:
            bits float64[n + 1] and whether the most probable token was the right one, bool[n + 1]; the last entry is
            `<end>`, the first token is predicted from `<end>`.
        """
        import torch

        targets = np.append(ids, END).astype(np.int64)
        bits, correct = np.empty(len(targets)), np.empty(len(targets), bool)
        for places, logits in self.logit_blocks(ids, batch_rows):
            right = torch.from_numpy(targets[places])
            nats = torch.nn.functional.cross_entropy(logits, right, reduction="none")
            bits[places] = nats.double().numpy() / math.log(2)
            correct[places] = (logits.argmax(-1) == right).numpy()
        return bits, correct

    def logit_blocks(
        self, ids: Integer[np.ndarray, "n"], batch_rows: int = 8
    ) -> Iterator[tuple[Int64[np.ndarray, "k"], Any]]:
        """Logits at every boundary of one file, block by block: (boundaries, float32 tensor [k, vocab_size]).

        Windows overlap by half: a window's second half is scored, the first window whole.
        """
        import torch

        inputs = np.concatenate([[END], ids]).astype(np.int64)
        spans = list(windows(len(inputs), self.context))
        length = min(len(inputs), self.context)
        for first in range(0, len(spans), batch_rows):
            batch = spans[first : first + batch_rows]
            rows = np.stack([inputs[start : start + length] for start, _ in batch])
            with torch.inference_mode():
                hidden = self.network.model(input_ids=torch.from_numpy(rows), use_cache=False).last_hidden_state
                wanted = torch.cat([hidden[row, scored - start :] for row, (start, scored) in enumerate(batch)])
                logits = self.network.lm_head(wanted).float()
            yield np.concatenate([np.arange(scored, start + length) for start, scored in batch]), logits

    def learn(self, ids: Integer[np.ndarray, "n"], rate: float) -> None:
        """Take a step of plain gradient descent on each window of a file: dynamic evaluation.

        Args:
            ids: uint16[n], the file's tokens without `<end>`.
            rate: step size; the gradient of a window is cut to norm 1.
        """
        import torch

        tokens = torch.from_numpy(np.concatenate([[END], ids, [END]]).astype(np.int64))
        parameters = list(self.network.parameters())
        for begin in range(0, len(tokens) - 1, self.context):
            inputs, targets = tokens[begin : begin + self.context][: len(tokens) - 1 - begin], tokens[begin + 1 :]
            hidden = self.network.model(input_ids=inputs[None], use_cache=False).last_hidden_state[0]
            logits = self.network.lm_head(hidden).float()
            torch.nn.functional.cross_entropy(logits, targets[: len(inputs)]).backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            with torch.no_grad():
                for parameter in parameters:
                    if parameter.grad is not None:
                        parameter -= rate * parameter.grad
                        parameter.grad = None

    def next_log_probs(self, ids: Integer[np.ndarray, "n"]) -> Float64[np.ndarray, "vocab"]:
        """Natural log of the distribution after these tokens of a file: float64[vocab_size], sums to 1 as exp."""
        import torch

        inputs = np.concatenate([[END], ids]).astype(np.int64)[-self.context :]
        with torch.inference_mode():
            hidden = self.network.model(input_ids=torch.from_numpy(inputs)[None], use_cache=False).last_hidden_state
            return torch.log_softmax(self.network.lm_head(hidden[0, -1]).double(), -1).numpy()

    def save(self, folder: str | Path, extra: dict[str, Any] | None = None) -> Path:
        """Write what `AutoModelForCausalLM.from_pretrained(folder)` reads (safetensors), weights before `config.json`.

        Args:
            folder: made where missing; other files in it are left alone.
            extra: further JSON keys for `config.json`, which transformers carries along.

        Raises:
            ConstructibleError: the folder cannot be written.
        """
        folder = make_folder(folder)
        for key, value in (extra or {}).items():
            setattr(self.network.config, key, value)
        temporary: Path | None = None
        try:
            temporary = Path(tempfile.mkdtemp(prefix=".baseline.", suffix=".tmp", dir=folder))
            self.network.save_pretrained(temporary)
            # `config.json` last: a folder that has one is complete.
            for path in sorted(temporary.iterdir(), key=lambda path: (path.name == "config.json", path.name)):
                os.chmod(path, 0o644)
                os.replace(path, folder / path.name)
        except Exception as error:
            # safetensors raises its own error on a full disk, not an OSError.
            raise ConstructibleError(
                f"cannot be written ({error}).",
                fix="free space or choose another folder, then run the same command again",
                file=folder,
            ) from error
        finally:
            if temporary is not None:
                shutil.rmtree(temporary, ignore_errors=True)
        return folder

    @classmethod
    def load(cls, folder: str | Path) -> Baseline:
        """Read a folder that `save` wrote; raises ConstructibleError where it is not one."""
        from transformers import AutoModelForCausalLM

        import cgpt.transformer  # noqa: F401 (registers its classes)

        if not (Path(folder) / "config.json").is_file():
            raise ConstructibleError("no saved transformer here.", fix="build the model again", file=folder)
        try:
            network = AutoModelForCausalLM.from_pretrained(str(folder), local_files_only=True)
        except Exception as error:  # a broken file: transformers and safetensors raise many kinds
            raise ConstructibleError(
                f"the saved transformer cannot be read ({error}).", fix="build the model again", file=folder
            ) from error
        return cls(network.eval())


class BaselineTrainer:
    """Trains the monolith step by step; step number and seed decide the data, so a resumed run is exact.

    Args:
        config: shape and constants.
        ids: uint16[N], tokens of all documents.
        offsets: int64[documents + 1].
        threads: of torch, for the whole process; the arithmetic depends on it.

    Raises:
        ConstructibleError: there is no text, or a token lies outside the vocabulary.
    """

    def __init__(self, config: BaselineConfig, ids: Ids, offsets: Offsets, *, threads: int = 2) -> None:
        import torch

        from cgpt.transformer import build_network

        if config.batch_tokens % config.context:
            raise ConstructibleError(
                f"batch_tokens ({config.batch_tokens}) is no multiple of the context.",
                fix=f"use a multiple of {config.context}",
            )
        self.config = config
        self.stream = TokenStream(ids, offsets, config.seed)
        if int(ids.max()) >= config.vocab_size:
            raise ConstructibleError(
                f"token {int(ids.max())} lies outside the vocabulary of {config.vocab_size}.",
                fix="use the vocabulary of the tokenizer that made the tokens",
            )
        torch.set_num_threads(threads)
        self.network = build_network(config)
        self.network.train()
        self._named = dict(self.network.named_parameters())
        matrices: list[Any] = []
        groups: list[dict[str, Any]] = [
            {"params": [], "share": share} for share in (1.0, 0.3, config.bigram_rate)
        ]  # embeddings, norms, bigrams
        for name, parameter in self._named.items():
            if "embed" in name or "lm_head" in name:
                groups[2 if "bigram" in name else 0]["params"].append(parameter)
            else:
                (matrices if parameter.ndim == 2 else groups[1]["params"]).append(parameter)
        self._muon = torch.optim.Muon(matrices, lr=config.matrix_rate, momentum=0.95, weight_decay=0.0)
        groups = [group for group in groups if group["params"]]
        self._adam = torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.95), weight_decay=0.0, fused=True)
        self._fraction = 0.0

    @property
    def rows_per_step(self) -> int:
        """Tokens that one step learns from."""
        return self.config.batch_tokens

    def set_progress(self, fraction: float) -> None:
        """Say how much of the budget is used, 0 to 1: the learning rate follows it."""
        self._fraction = min(max(fraction, 0.0), 1.0)

    @property
    def schedule(self) -> float:
        """Share of the peak rates in the next step: linear warm-up, a plateau, a linear fall to 0 at the end."""
        config, fraction = self.config, self._fraction
        up = fraction / config.warm_up if config.warm_up else 1.0
        down = (1.0 - fraction) / config.warm_down if config.warm_down else 1.0
        # Never quite 0: a first step at fraction 0 must not be wasted.
        return max(min(up, down, 1.0), 0.01)

    def step(self, index: int) -> float:
        """Train on step number `index` (0-based); returns the mean loss in nats per token."""
        import torch

        from cgpt.output_loss import output_loss

        config = self.config
        tokens = self.stream.read(index * config.batch_tokens, config.batch_tokens + 1).astype(np.int64)
        inputs = torch.from_numpy(tokens[:-1].reshape(-1, config.context))
        targets = torch.from_numpy(tokens[1:])
        self._muon.param_groups[0]["lr"] = self.schedule * config.matrix_rate
        for group in self._adam.param_groups:
            group["lr"] = self.schedule * group["share"] * config.learning_rate
        with self._precision():
            hidden = self.network.model(input_ids=inputs, use_cache=False).last_hidden_state.flatten(0, 1)
        if config.bf16:
            hidden = hidden.to(torch.bfloat16)
        loss = output_loss(hidden, self.network.lm_head.weight, targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), config.clip_norm)
        for optimiser in (self._muon, self._adam):
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        return float(loss.detach())

    def state(self) -> dict[str, np.ndarray]:
        """Everything a resumed run needs, as copies: weights and the optimisers' moments by parameter name."""
        arrays: dict[str, np.ndarray] = {}
        for name, parameter in self._named.items():
            arrays[f"weight/{name}"] = parameter.detach().numpy().copy()
            for key, value in self._optimiser_of(parameter).state[parameter].items():
                arrays[f"{key}/{name}"] = value.numpy().copy()
        return arrays

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Go on from what `state` gave; raises ConstructibleError where it is of another shape."""
        import torch

        shapes = {name: tuple(parameter.shape) for name, parameter in self._named.items()}
        given = {key[7:]: array.shape for key, array in state.items() if key.startswith("weight/")}
        if shapes != given:
            raise ConstructibleError(
                "the saved state belongs to a transformer of another shape.", fix="build into another folder"
            )
        with torch.no_grad():
            for name, parameter in self._named.items():
                parameter.copy_(torch.from_numpy(np.array(state[f"weight/{name}"])))
                kept = {key: f"{key}/{name}" for key in ("step", "exp_avg", "exp_avg_sq", "momentum_buffer")}
                moments = {key: torch.from_numpy(np.array(state[at])) for key, at in kept.items() if at in state}
                if "step" in moments:
                    moments["step"] = moments["step"].reshape(())  # a file of tensors may hold a number as one entry
                if moments:
                    self._optimiser_of(parameter).state[parameter] = moments

    def _optimiser_of(self, parameter: Any) -> Any:
        matrices = self._muon.param_groups[0]["params"]
        return self._muon if any(parameter is other for other in matrices) else self._adam

    def model(self) -> Baseline:
        """The network as trained so far, for scoring; it shares the weights with this trainer."""
        return Baseline(self.network.eval())

    def _precision(self) -> AbstractContextManager[Any]:
        import torch

        return torch.autocast("cpu", torch.bfloat16) if self.config.bf16 else nullcontext()


def train_for(trainer: BaselineTrainer, *, seconds: float | None = None, steps: int | None = None) -> Iterator[float]:
    """Train alone, without the engine: yields the loss of each step until the budget is used.

    Args:
        trainer: fresh.
        seconds: wall-clock budget, or
        steps: number of steps. One of the two.
    """
    import time

    if (seconds is None) == (steps is None):
        raise ValueError("give seconds or steps")
    started, index = time.perf_counter(), 0
    while True:
        used = time.perf_counter() - started
        fraction = index / steps if steps is not None else used / (seconds or 1.0)
        if fraction >= 1.0:
            return
        trainer.set_progress(fraction)
        yield trainer.step(index)
        index += 1


def windows(length: int, context: int) -> Iterator[tuple[int, int]]:
    """(start, first position scored) of windows that overlap by half, all of min(length, context) positions."""
    yield 0, 0
    scored, stride = min(length, context), context // 2
    while scored < length:
        end = min(scored + stride, length)
        yield end - context, scored
        scored = end
