"""The shipped net module, and the trainer that trains all nets of one shape in one batched call."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
from jaxtyping import Float32, Float64

from ontology.errors import ConstructibleError
from ontology.modules import Arrays, Examples, HandedReads, Module, hand_reads

if TYPE_CHECKING:
    from kernels import AdamState

Loss = Literal["softmax", "logistic", "mse"]


class NetModule(Module):
    """A small network: the encoded reads, linear, activation, linear.

    Args:
        inputs: for each read 0 if it is numeric ([rows] or [rows, k], standardised), or its number of values if it
            holds codes 0 .. n - 1 (one-hot).
        widths: for numeric reads of several columns, how many; 1 otherwise.
        n_answers: number of answers.
        hidden: hidden units.
        loss: "softmax" predicts log-probabilities of classes; "logistic" and "mse" predict scores.
        max_params: most trained floats allowed, where there is a limit.

    Raises:
        ConstructibleError: the net would have more parameters than `max_params`.
    """

    kind = "net"
    registered = "mlp"

    def __init__(
        self,
        name: str,
        reads: Sequence[str],
        inputs: Mapping[str, int],
        n_answers: int,
        hidden: int = 32,
        *,
        loss: Loss = "softmax",
        activation: str = "relu",
        widths: Mapping[str, int] | None = None,
        max_params: int | None = None,
    ) -> None:
        super().__init__(name, reads)
        self.inputs = {read: int(inputs[read]) for read in self.reads}
        self.widths = {read: int((widths or {}).get(read, 1)) for read in self.reads}
        self.n_answers, self.hidden, self.loss, self.activation = int(n_answers), int(hidden), loss, activation
        self.n_inputs = sum(size or self.widths[read] for read, size in self.inputs.items())
        if self.n_inputs < 1 or self.hidden < 1 or self.n_answers < 1:
            raise ConstructibleError(
                f"the net {name!r} has no inputs, hidden units or answers.", fix="declare its reads"
            )
        if max_params is not None and self.parameters > max_params:
            raise ConstructibleError(
                f"the net {name!r} would have {self.parameters} parameters, more than its {max_params}.",
                fix="use fewer hidden units or reads, or raise `max_params`",
            )
        self.shift = np.zeros(self.n_inputs, np.float32)
        self.scale = np.ones(self.n_inputs, np.float32)
        shapes = ((self.n_inputs, self.hidden), (self.hidden,), (self.hidden, self.n_answers), (self.n_answers,))
        self.weights = [np.zeros(shape, np.float32) for shape in shapes]

    @property
    def parameters(self) -> int:
        return (self.n_inputs + 1) * self.hidden + (self.hidden + 1) * self.n_answers

    @property
    def shape(self) -> tuple[Any, ...]:
        """Nets of equal shape can be stacked."""
        return (self.n_inputs, self.hidden, self.n_answers, self.activation, self.loss)

    def prepare(self, examples: Examples) -> tuple[Float32[np.ndarray, "rows inputs"], npt.NDArray[Any]]:
        """Fit the standardisation and return encoded inputs float32 [rows, inputs] and targets for the trainer."""
        reads = hand_reads(self, examples.reads)
        raw = self._raw(reads)
        numeric = np.concatenate([np.full(size or self.widths[r], size == 0) for r, size in self.inputs.items()])
        if len(raw):
            spread = raw.std(0, dtype=np.float64)
            self.shift = np.where(numeric, raw.mean(0, dtype=np.float64), 0.0).astype(np.float32)
            self.scale = np.where(numeric & (spread > 1e-6), spread, 1.0).astype(np.float32)
        targets = np.asarray(examples.targets)
        if self.loss == "softmax":
            if len(targets) and not 0 <= int(targets.min()) <= int(targets.max()) < self.n_answers:
                raise ConstructibleError(
                    f"an answer of {self.name!r} is outside of 0..{self.n_answers - 1}.", fix="check the track"
                )
            return (raw - self.shift) / self.scale, targets.astype(np.int64)
        return (raw - self.shift) / self.scale, targets.astype(np.float32).reshape(len(targets), self.n_answers)

    def _raw(self, reads: HandedReads) -> Float32[np.ndarray, "rows inputs"]:
        columns: list[npt.NDArray[np.float32]] = []
        for read, size in self.inputs.items():
            values = reads[read]
            if size == 0:
                part = np.asarray(values, np.float32).reshape(len(values), int(np.prod(values.shape[1:])))
                if part.shape[1] != self.widths[read]:
                    raise ConstructibleError(
                        f"the net {self.name!r} takes {self.widths[read]} columns of {read!r}, not {part.shape[1]}.",
                        fix="declare its width",
                    )
                if not np.isfinite(part).all():
                    raise ConstructibleError(
                        f"the read {read!r} holds values that are not finite.", fix="check the track"
                    )
            else:
                if len(values) and not 0 <= int(values.min()) <= int(values.max()) < size:
                    raise ConstructibleError(
                        f"the read {read!r} has a code outside of 0..{size - 1}.", fix="check the track"
                    )
                part = np.zeros((len(values), size), np.float32)
                part[np.arange(len(values)), values.astype(np.int64)] = 1.0
            columns.append(part)
        return np.concatenate(columns, axis=1)

    def _fit(self, reads: HandedReads, targets: npt.NDArray[Any]) -> None:
        trainer = StackedTrainer([self], {self.name: Examples(dict(reads), targets)})
        for step in range(500):
            trainer.set_progress(step / 500)
            trainer.step(step)
        trainer.finish()

    def _predict(self, reads: HandedReads) -> Float64[np.ndarray, "rows answers"]:
        return self._forward((self._raw(reads) - self.shift) / self.scale)

    def _forward(self, encoded: Float32[np.ndarray, "rows inputs"]) -> Float64[np.ndarray, "rows answers"]:
        first, first_bias, second, second_bias = self.weights
        answers = (_ACTIVATIONS[self.activation](encoded @ first + first_bias) @ second + second_bias).astype(
            np.float64
        )
        if self.loss != "softmax":
            return answers
        answers -= answers.max(1, keepdims=True)
        return answers - np.log(np.exp(answers).sum(1, keepdims=True))

    def _explain(self, reads: HandedReads) -> list[list[dict[str, Any]]]:
        """Evidence of a read: how much the best answer's value falls when the read is replaced by its average."""
        encoded = (self._raw(reads) - self.shift) / self.scale
        answers = self._forward(encoded)
        best = answers.argmax(1)
        rows, begin = np.arange(len(best)), 0
        told: list[list[dict[str, Any]]] = [[] for _ in best]
        for read, size in self.inputs.items():
            end = begin + (size or self.widths[read])
            without = encoded.copy()
            without[:, begin:end] = 0.0
            change = answers[rows, best] - self._forward(without)[rows, best]
            for i, row in enumerate(told):
                text = f"{read} = {np.array2string(np.asarray(reads[read][i]), precision=4)} for answer {int(best[i])}"
                row.append({"kind": "net", "text": text, "value": float(change[i])})
            begin = end
        return [sorted(row, key=lambda item: -abs(item["value"])) for row in told]

    def settings(self) -> dict[str, Any]:
        return {
            "inputs": self.inputs, "widths": self.widths, "n_answers": self.n_answers, "hidden": self.hidden,
            "loss": self.loss, "activation": self.activation,
        }  # fmt: skip

    def _tensors(self) -> dict[str, npt.NDArray[Any]]:
        named = dict(zip(("first", "first_bias", "second", "second_bias"), self.weights, strict=True))
        return {**named, "shift": self.shift, "scale": self.scale}

    @classmethod
    def _restore(cls, name: str, reads: Sequence[str], settings: dict[str, Any], tensors: Arrays) -> NetModule:
        net = cls(
            name, reads, settings["inputs"], settings["n_answers"], settings["hidden"], loss=settings["loss"],
            activation=settings["activation"], widths=settings["widths"],
        )  # fmt: skip
        found = [np.asarray(tensors[key]) for key in ("first", "first_bias", "second", "second_bias")]
        if [array.shape for array in found] != [array.shape for array in net.weights]:
            raise ValueError("the tensors have other shapes than the settings say")
        net.weights, net.shift, net.scale = found, np.asarray(tensors["shift"]), np.asarray(tensors["scale"])
        return net


def _relu(x: Float32[np.ndarray, "rows hidden"]) -> Float32[np.ndarray, "rows hidden"]:
    return np.maximum(x, 0.0)


def _silu(x: Float32[np.ndarray, "rows hidden"]) -> Float32[np.ndarray, "rows hidden"]:
    return x * (0.5 * (1.0 + np.tanh(0.5 * x))).astype(np.float32)


_ACTIVATIONS = {"relu": _relu, "silu": _silu}


class StackedTrainer:
    """Trains nets of one shape together: each step takes rows for every net and makes one batched update.

    A net's loss is the mean over its own rows and its seed comes from its name, so what it learns does not depend on
    which other nets are in the stack. Nets without examples keep their first weights. Deterministic for one seed,
    thread count and set of versions.

    Args:
        modules: nets of equal `shape`.
        examples: for each net by name what it learns from.
        rows_per_module: rows of each net in a step.
        learning_rate: the highest; it rises over the first 2 % and falls to 2 % of itself at the end.
        seed: of the first weights and of the order of rows.
        backend: of `kernels`. Fixed by default: left to `kernels` (None) the choice depends on the whole stack, and so
            would the last bits of what a net learns.
    """

    def __init__(
        self,
        modules: Sequence[NetModule],
        examples: Mapping[str, Examples],
        *,
        rows_per_module: int = 64,
        learning_rate: float = 3e-3,
        seed: int = 0,
        backend: str | None = "cpu",
    ) -> None:
        import torch

        from kernels import AdamState, MLPStack, route

        if not modules:
            raise ConstructibleError("no nets to train.", fix="give at least one")
        odd = [module.name for module in modules if module.shape != modules[0].shape]
        if odd:
            raise ConstructibleError(
                f"the nets {modules[0].name!r} and {odd[0]!r} differ in shape.", fix="group nets by their `shape`"
            )
        self.loss, self.learning_rate, self.rows_per_module = modules[0].loss, learning_rate, rows_per_module
        self.backend = backend
        width, hidden, answers, activation, _ = modules[0].shape
        self.modules: list[NetModule] = []
        starts: list[MLPStack] = []
        self._seeds: list[int] = []
        self._inputs, self._targets = [], []
        for module in modules:
            # Seeded by its name, a net's training is the same in whatever company it is trained.
            own_seed = int.from_bytes(hashlib.sha256(f"{seed} {module.name}".encode()).digest()[:6], "big")
            start = MLPStack.init(1, (width, hidden, answers), activation, seed=own_seed)
            module.weights = [tensor[0].numpy().copy() for tensor in start.params]
            inputs, targets = module.prepare(examples[module.name])
            if len(inputs):
                self.modules.append(module)
                self._seeds.append(own_seed)
                starts.append(start)
                self._inputs.append(torch.from_numpy(np.ascontiguousarray(inputs)))
                self._targets.append(torch.from_numpy(np.ascontiguousarray(targets)))
        if not self.modules:
            raise ConstructibleError("none of the nets has examples.", fix="give more data")
        self.rows_per_step = rows_per_module * len(self.modules)
        self._stack = MLPStack(
            [torch.cat(layer) for layer in zip(*(start.weights for start in starts), strict=True)],
            [torch.cat(layer) for layer in zip(*(start.biases for start in starts), strict=True)],  # type: ignore[arg-type]
            activation,
        )
        self._adam: AdamState = AdamState.of(self._stack.params)
        self._fraction = 0.0
        self._plan = route(
            torch.repeat_interleave(torch.arange(len(self.modules)), rows_per_module), n_modules=len(self.modules)
        )

    def set_progress(self, fraction: float) -> None:
        """Tell how much of the training is over, 0 to 1; it sets the learning rate of the next step."""
        self._fraction = min(1.0, max(0.0, fraction))

    def step(self, index: int) -> float:
        """Make step `index` and return the mean loss in nats; the rows depend on seed and index alone."""
        import torch

        from kernels import train_step_

        inputs, targets = [], []
        for i, seed in enumerate(self._seeds):
            rng = np.random.default_rng((seed, index))
            rows = torch.from_numpy(rng.integers(0, len(self._inputs[i]), self.rows_per_module))
            inputs.append(self._inputs[i][rows])
            targets.append(self._targets[i][rows])
        losses = train_step_(
            torch.cat(inputs), torch.cat(targets), self._stack, self._plan, self._adam, self._rate(),
            loss=self.loss, backend=self.backend,
        )  # fmt: skip
        return float(losses.mean())

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """Return all that training needs to continue exactly: weights and optimizer."""
        return {name: tensor.detach().cpu().numpy().copy() for name, tensor in self._named().items()}

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """Continue from a `state`; raise ConstructibleError where it belongs to another training."""
        import torch

        named = self._named()
        if set(named) != set(state) or any(tuple(named[n].shape) != state[n].shape for n in named):
            raise ConstructibleError("the checkpoint belongs to another training.", fix="delete it and run again")
        for name, tensor in named.items():
            tensor.copy_(torch.from_numpy(np.array(state[name])))

    def finish(self) -> None:
        """Hand the trained weights to the modules."""
        params = [tensor.detach().cpu().numpy() for tensor in self._stack.params]
        for i, module in enumerate(self.modules):
            module.weights = [np.array(tensor[i]) for tensor in params]

    def _rate(self) -> float:
        warm = min(1.0, (self._fraction + 1e-3) / 0.02)
        return self.learning_rate * warm * (0.02 + 0.98 * (1.0 - self._fraction))

    def _named(self) -> dict[str, Any]:
        named: dict[str, Any] = {"adam.step": self._adam.step}
        kinds = {"param": self._stack.params, "adam.first": self._adam.first, "adam.second": self._adam.second}
        for kind, tensors in kinds.items():
            named.update({f"{kind}.{i}": tensor for i, tensor in enumerate(tensors)})
        return named
