"""The neural part: one small network per concept at the cut, all trained together in one batched call.

A network is handed the declared reads of its concept and nothing else. It is what its own situation needs on top of
six modules that all networks share and that have names of their own: `token_embeddings`, `read_projection` (what a
token means in the place of each read), `answer_projection`, `output_embeddings`, `output_bias`, `pointer_projection`.

    x = sum over its reads of own_gate[read] * (token_embeddings[token there] @ read_projection[read])   [hidden]
    h = silu(x + own_bias)                                                                               [hidden]
    y = h @ (answer_projection + own_answer) + own_answer_bias                                           [d_out]
    logits = y @ output_embeddings + output_bias                                                         [V]
    logits[token in a read that points] += softplus(h @ pointer_projection + own_pointer_bias)[read]     cgpt.pointers

Where one read has a value that a specialist knows (`cgpt.specialists`), its gates, own_bias and own_answer_bias are
added to those of the net. A read that is not declared has no term in the sum. Every network may answer with every
token: a vocabulary and a bias of its own for each made routing lose (docs/experiments/nets.md). Training runs through
`kernels`; using a model needs numpy and numba alone.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cgpt import pointers
from cgpt.reads import READS, vocabulary_size
from cgpt.specialists import Split, find
from kernels.numba_amx import bfloat16_bits, from_bfloat16_bits, pack_table, powers_of_product
from kernels.numba_softmax import powers_
from kernels.numba_terms import distinct, silu_of_sums
from ontology.errors import ConstructibleError, did_you_mean
from ontology.io import load_tensors, save_tensors

if TYPE_CHECKING:
    import torch

    import kernels


@dataclass(frozen=True)
class NetShape:
    """Sizes that all networks of a cut share, and how they are trained; see docs/experiments/nets.md."""

    d_in: int = 48
    hidden: int = 256
    d_out: int = 64
    learning_rate: float = 8e-3
    own_rate: float = 0.3
    """Learning rate of a network's own parameters, gates aside, by that of the shared ones."""
    beta2: float = 0.999
    """Adam's memory of squared gradients; a short one turns the tiny gradients of rare tokens into full steps."""
    batch_rows: int = 1024


_FEW_ROWS, _MANY_ROWS = 16, 1 << 16
"""Up to so few rows terms of the first layer are not shared; of more rows than the other not all at once."""

OWN = ("gate", "b1", "w2", "b2", "b_pointer")
SPECIAL = ("special_gate", "special_b1", "special_b2")
SHARED = ("embeddings", "w1", "w2_shared", "output", "bias", "w_pointer")
SHARED_NAMES = {
    "embeddings": "token_embeddings", "w1": "read_projection", "w2_shared": "answer_projection",
    "output": "output_embeddings", "bias": "output_bias", "w_pointer": "pointer_projection",
}  # fmt: skip


@dataclass(frozen=True)
class ReadsWithTerms:
    """Reads of some rows, with what every token comes to in the place of a read: `terms` of the first layer.

    Attributes:
        reads: uint16[rows, R].
        place: int32[rows, R], the term of each.
        terms: float32[P, H], token_embeddings[token] @ read_projection[read] of the pairs that occur.
    """

    reads: np.ndarray
    place: np.ndarray
    terms: np.ndarray

    def __len__(self) -> int:
        return len(self.reads)

    def __getitem__(self, rows: np.ndarray | slice) -> ReadsWithTerms:
        return ReadsWithTerms(self.reads[rows], self.place[rows], self.terms)


def _plain(reads: np.ndarray | ReadsWithTerms) -> np.ndarray:
    return reads.reads if isinstance(reads, ReadsWithTerms) else reads


@dataclass(frozen=True)
class Nets:
    """Networks of M concepts; R = N_READS, V tokens, H hidden.

    Shapes: `declared` bool[M, R]; shared `embeddings` float32[vocabulary_size(V), d_in], `w1` [R, d_in, H],
    `w2_shared` [H, d_out], `output` [V, d_out], `bias` [V], `w_pointer` [H, P]; own `gate` [M, R], `b1` [M, H], `w2`
    [M, H, d_out], `b2` [M, d_out], `b_pointer` [M, P]; `pointer_columns` int64[P] the reads that point. Specialists:
    `split` int32[M] read that net m is split by (-1: none), `special_net` and `special_value` int32[S] in ascending
    order, `special_gate` float32[S, R], `special_b1` [S, H], `special_b2` [S, d_out].
    """

    concepts: tuple[str, ...]
    declared: np.ndarray
    embeddings: np.ndarray
    w1: np.ndarray
    w2_shared: np.ndarray
    output: np.ndarray
    gate: np.ndarray
    b1: np.ndarray
    w2: np.ndarray
    b2: np.ndarray
    bias: np.ndarray
    w_pointer: np.ndarray
    b_pointer: np.ndarray
    pointer_columns: np.ndarray
    split: np.ndarray
    special_net: np.ndarray
    special_value: np.ndarray
    special_gate: np.ndarray
    special_b1: np.ndarray
    special_b2: np.ndarray

    def split_values(self, module: np.ndarray, reads: np.ndarray) -> np.ndarray:
        """int64[rows]: what stands in the read that each row's net is split by; -1 where it is not split."""
        column = self.split[module]
        values = reads[np.arange(len(reads)), np.maximum(column, 0)].astype(np.int64)
        return np.where((column >= 0) & (module >= 0), values, -1)

    def with_terms(self, reads: np.ndarray) -> np.ndarray | ReadsWithTerms:
        """Rows of `reads` uint16[rows, R], to be taken by their number as from the array that they were.

        A file of 4,000 tokens has about 9,000 different pairs of a token and a read, of 24 that a net looks at in every
        row; each is multiplied once. Very many rows stay as they are, since all their terms would take much memory.
        """
        if not _FEW_ROWS < len(reads) <= _MANY_ROWS:
            return reads
        place, tokens, starts = distinct(reads, len(self.embeddings))
        terms = np.empty((len(tokens), self.w1.shape[2]), np.float32)
        embedded = self.embeddings[tokens]
        for column, (begin, end) in enumerate(zip(starts[:-1], starts[1:], strict=True)):
            np.matmul(embedded[begin:end], self.w1[column], out=terms[begin:end])
        return ReadsWithTerms(reads, place, terms)

    def logits(self, m: int, reads: np.ndarray | ReadsWithTerms) -> np.ndarray:
        """float32[rows, V] from `reads` uint16[rows, R], with terms or without; undeclared ones have no influence."""
        answers, gates = self._answers(m, reads)
        logits = answers @ self.output.T + self.bias
        pointers.add_to(logits, _plain(reads), self.pointer_columns, gates)
        return logits

    def _answers(self, m: int, reads: np.ndarray | ReadsWithTerms) -> tuple[np.ndarray, np.ndarray]:
        """(float32[rows, d_out] what goes into the output layer, float32[rows, P] the pointers' gates)."""
        known = reads if isinstance(reads, ReadsWithTerms) else self.with_terms(reads)
        if isinstance(known, ReadsWithTerms):
            h, special = self._hidden(m, known)
        elif len(known) <= _FEW_ROWS:
            h, special = self._hidden_of_few(m, known)
        else:
            parts = [known[at : at + _MANY_ROWS] for at in range(0, len(known), _MANY_ROWS)]
            answers, gates = zip(*(self._answers(m, part) for part in parts), strict=True)
            return np.concatenate(answers), np.concatenate(gates)
        answers = h @ (self.w2_shared + self.w2[m]) + self.b2[m]
        there = np.flatnonzero(special >= 0)
        answers[there] += self.special_b2[special[there]]
        gates = pointers.gate(h @ self.w_pointer + self.b_pointer[m]) * self.declared[m, self.pointer_columns]
        return answers, gates

    def _hidden(self, m: int, known: ReadsWithTerms) -> tuple[np.ndarray, np.ndarray]:
        """(float32[rows, H], int64[rows] specialist in charge or -1)."""
        special = self._special(m, known.reads)
        h = silu_of_sums(
            known.place, np.flatnonzero(self.declared[m]), self.gate[m], self.b1[m], special, self.special_gate,
            self.special_b1, known.terms,
        )  # fmt: skip
        return h, special

    def _hidden_of_few(self, m: int, reads: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """As `_hidden`, one token at a time: no copy of the weights."""
        special = self._special(m, reads)
        gate, x = self._own(m, special)
        columns = np.flatnonzero(self.declared[m])
        gated = self.embeddings[reads[:, columns]] * gate[:, columns, None]
        for k, column in enumerate(columns):
            x += gated[:, k] @ self.w1[column]
        return x / (1.0 + np.exp(-np.clip(x, -80.0, 80.0))), special

    def _own(self, m: int, special: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(gates float32[rows, R], own_bias float32[rows, H]) in force where `special` int64[rows] are in charge."""
        gate, bias = (np.repeat(part[m : m + 1], len(special), 0) for part in (self.gate, self.b1))
        there = np.flatnonzero(special >= 0)
        gate[there] += self.special_gate[special[there]]
        bias[there] += self.special_b1[special[there]]
        return gate, bias

    def _special(self, m: int, reads: np.ndarray) -> np.ndarray:
        """int64[rows]: the specialist of net m in charge, or -1."""
        module = np.full(len(reads), m)
        return find(self.special_net, self.special_value, module, self.split_values(module, reads))

    def bits(self, m: int, reads: np.ndarray | ReadsWithTerms, targets: np.ndarray) -> np.ndarray:
        """float64[rows]: what each target costs under network m alone."""
        powers, total = self.powers(m, reads)
        return -np.log2(powers[np.arange(len(targets)), targets] / total)

    def powers(self, m: int, reads: np.ndarray | ReadsWithTerms) -> tuple[np.ndarray, np.ndarray]:
        """(float32[rows, V] probabilities relative to that of the first choice, float64[rows] their sums)."""
        return self.powers_by_group([(m, slice(None))], reads)

    def powers_by_group(
        self, groups: Iterable[tuple[int, np.ndarray | slice]], reads: np.ndarray | ReadsWithTerms
    ) -> tuple[np.ndarray, np.ndarray]:
        """As `powers`, for rows of several networks: `groups` has (network or -1 for none, its rows).

        The output embeddings belong to all, so the largest product is one for all rows. Where there is no network the
        sum is 0, and what stands in its place in the powers means nothing.
        """
        answers = np.zeros((len(reads), self.output.shape[1]), dtype=np.float32)
        gates = np.zeros((len(reads), self.w_pointer.shape[1]), dtype=np.float32)
        silent = []
        for m, rows in groups:
            if m < 0:
                silent.append(rows)
            else:
                answers[rows], gates[rows] = self._answers(m, reads[rows])
        if len(reads) > _FEW_ROWS and self._packed_output is not None:
            powers, sums = powers_of_product(answers, self._packed_output, self.bias)
        else:
            powers = answers @ self.output.T
            sums = powers_(powers, self.bias)
        for rows in silent:
            sums[rows] = 0.0
        pointers.point(powers, sums, _plain(reads), self.pointer_columns, gates)
        return powers, sums

    @functools.cached_property
    def _packed_output(self) -> np.ndarray | None:
        """The output embeddings as a matrix unit reads them; None where there is none for them."""
        return pack_table(self.output)

    def read_shares(self, m: int, reads: np.ndarray, token: int) -> dict[str, float]:
        """How far each read moved the logit of `token`, to first order (gradient times input): {read: logit change}.

        `reads` uint16[R] of one position.
        """
        columns = np.flatnonzero(self.declared[m])
        gate, b1 = self._own(m, self._special(m, reads[None]))
        terms = np.einsum("rd,rdh->rh", self.embeddings[reads[columns]], self.w1[columns]) * gate[0, columns, None]
        x = terms.sum(0) + b1[0]
        sigmoid = 1.0 / (1.0 + np.exp(-np.clip(x, -80.0, 80.0)))
        slope = sigmoid * (1.0 + x * (1.0 - sigmoid))
        pointed = self.declared[m, self.pointer_columns] & (reads[self.pointer_columns] == token)
        gates = pointers.gate((x * sigmoid) @ self.w_pointer + self.b_pointer[m]) * pointed
        # The slope of softplus is 1 - exp(-softplus).
        back = (self.w2_shared + self.w2[m]) @ self.output[token] - self.w_pointer @ np.expm1(-gates)
        moved = np.zeros(len(READS))
        moved[columns] = terms @ (slope * back)
        # A read that points at the token would take all its gate with it.
        moved[self.pointer_columns] += gates
        return {READS[c]: float(moved[c]) for c in columns}

    def own_parameters(self, m: int) -> int:
        """Trained numbers that belong to network m alone, its specialists left aside."""
        declared = int(self.declared[m].sum() + self.declared[m, self.pointer_columns].sum())
        return declared + sum(getattr(self, name)[m].size for name in ("b1", "w2", "b2"))

    @property
    def special_parameters(self) -> int:
        """Trained numbers of all specialists."""
        declared = int(self.declared[self.special_net].sum())
        return declared + self.special_b1.size + self.special_b2.size

    @property
    def shared_parameters(self) -> dict[str, int]:
        """Trained numbers of the shared, named modules."""
        return {SHARED_NAMES[name]: getattr(self, name).size for name in SHARED}

    @property
    def parameters(self) -> int:
        """All trained numbers."""
        own = sum(self.own_parameters(m) for m in range(len(self.concepts)))
        return own + self.special_parameters + sum(self.shared_parameters.values())

    def save(self, path: str | Path) -> None:
        """Write one safetensors file; the concepts' names are in it."""
        tensors = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "concepts"}
        tensors["concept_names"] = np.frombuffer("\n".join(self.concepts).encode(), dtype=np.uint8)
        save_tensors(path, tensors)

    @staticmethod
    def load(path: str | Path) -> Nets:
        """Read what `save` wrote."""
        tensors = load_tensors(path)
        concepts = tuple(tensors.pop("concept_names").tobytes().decode().split("\n"))
        return Nets(concepts, **tensors)


@dataclass(frozen=True)
class Examples:
    """Training positions: `reads` uint16[N, N_READS], `module` int16[N] network in charge, `targets` uint16[N]."""

    reads: np.ndarray
    module: np.ndarray
    targets: np.ndarray


def declared_reads(declared: Sequence[Sequence[str]]) -> np.ndarray:
    """bool[M, N_READS]: which reads each concept declares; raises ConstructibleError for a read there is not."""
    table = np.zeros((len(declared), len(READS)), dtype=np.bool_)
    for m, reads in enumerate(declared):
        for name in reads:
            if name not in READS:
                hint = did_you_mean(name, list(READS))
                raise ConstructibleError(f"unknown read {name!r}.{hint}", fix="declare a read there is")
            table[m, READS.index(name)] = True
    return table


class NetTrainer:
    """Trains all networks of a cut on random batches of positions (the engine's Trainer protocol).

    Batch `index` is a function of (seed, index) alone, so a training that was killed continues to the same result.
    """

    pointer_columns = pointers.COLUMNS
    """The reads that point at tokens: none where the output layer answers with something else."""

    def __init__(
        self,
        concepts: Sequence[str],
        declared: np.ndarray,
        examples: Examples,
        vocab_size: int,
        shape: NetShape,
        seed: int = 0,
        split: Split | None = None,
    ) -> None:
        import torch

        import kernels

        self.concepts, self.declared, self.examples = tuple(concepts), declared, examples
        self.vocab_size, self.shape, self.seed = vocab_size, shape, seed
        self.grown = split or Split.none(len(self.concepts))
        n_special = len(self.grown.net)
        self.rows_per_step = shape.batch_rows
        self._fraction = 0.0
        n_modules, n_reads = declared.shape
        counts = np.bincount(examples.targets, minlength=vocab_size) + 0.5
        bias = np.log(counts / counts.sum())
        # One vocabulary for all networks: to the output layer they are one module.
        self.vocabulary = kernels.Vocabulary.own([vocab_size])
        self._everyone = kernels.route(torch.zeros(shape.batch_rows, dtype=torch.int64), n_modules=1)

        generator = torch.Generator().manual_seed(seed)

        def normal(*size: int, std: float) -> torch.Tensor:
            return torch.randn(*size, generator=generator) * std

        embedding_std = 0.3
        fan_in = float(declared.sum(1).mean()) * shape.d_in * embedding_std**2
        # The last row stands for a read that is not declared: zeros, never trained.
        embeddings = normal(vocabulary_size(vocab_size) + 1, shape.d_in, std=embedding_std)
        embeddings[-1] = 0.0
        self._own = [
            torch.ones(n_modules, n_reads),
            torch.zeros(n_modules, shape.hidden),
            torch.zeros(n_modules, shape.hidden, shape.d_out),
            torch.zeros(n_modules, shape.d_out),
            torch.zeros(n_modules, len(self.pointer_columns)),
        ]
        # One more, of zeros and never trained, stands for positions without a specialist.
        self._special = (
            [torch.zeros(n_special + 1, size) for size in (n_reads, shape.hidden, shape.d_out)] if n_special else []
        )
        self._shared = [
            embeddings,
            normal(n_reads * shape.d_in, shape.hidden, std=fan_in**-0.5),
            normal(shape.hidden, shape.d_out, std=shape.hidden**-0.5),
            normal(vocab_size, shape.d_out, std=shape.d_out**-0.5),
            torch.from_numpy(bias).float(),
            torch.zeros(shape.hidden, len(self.pointer_columns)),
        ]
        self._rule = kernels.AdamRule(beta1=0.9, beta2=shape.beta2, eps=1e-8)
        self._gate_state, self._own_state = kernels.AdamState.of(self._own[:1]), kernels.AdamState.of(self._own[1:])
        self._special_state = kernels.AdamState.of(self._special) if n_special else None
        self._shared_states = [kernels.AdamState.of([p[None]]) for p in self._shared]
        self._declared = torch.from_numpy(declared)

    def set_progress(self, fraction: float) -> None:
        """Set how much of the training is over: warm up over 2 %, hold, fall in a straight line over the last 60 %."""
        self._fraction = fraction

    def _rate(self) -> float:
        f = self._fraction
        return self.shape.learning_rate * max(0.01, min(1.0, f / 0.02 if f < 0.02 else 1.0, (1.0 - f) / 0.6))

    def answers(self, rows: np.ndarray) -> kernels.Plan:
        """Which of the output layer's vocabularies each row of a batch is answered from: here there is one."""
        return self._everyone

    def step(self, index: int) -> float:
        """Make one batch: forward, loss, backward, Adam. Returns the mean loss in nats per token."""
        import torch

        import kernels

        rows = np.random.default_rng((self.seed, index)).integers(0, len(self.examples.targets), self.rows_per_step)
        module_of, reads_of = self.examples.module[rows].astype(np.int64), self.examples.reads[rows]
        module, reads = torch.from_numpy(module_of), torch.from_numpy(reads_of.astype(np.int64))
        targets = torch.from_numpy(self.examples.targets[rows].astype(np.int64))
        found = self.grown.at(module_of, reads_of)
        specialist = torch.from_numpy(np.where(found < 0, len(self.grown.net), found))
        reads = torch.where(self._declared[module], reads, len(self._shared[0]) - 1)
        leaves = [p.requires_grad_() for p in (*self._own, *self._shared, *self._special)]
        gate, b1, w2, b2, b_pointer, embeddings, w1, w2_shared, output, bias, w_pointer, *special = leaves
        plan = kernels.route(module, n_modules=len(self.concepts))
        # `embedding`, not indexing, whose gradient torch adds up in another order at every run with several threads.
        pick = torch.nn.functional.embedding
        gates, biases = pick(module, gate), pick(module, b1)
        if special:
            gates, biases = gates + pick(specialist, special[0]), biases + pick(specialist, special[1])
        with kernels.bfloat16_products():
            x = kernels.embedding_linear(
                reads, gates, embeddings, w1.unflatten(0, (len(READS), -1)), padding=len(embeddings) - 1,
                precision="bfloat16",
            )  # fmt: skip
            h = torch.nn.functional.silu(x + biases)
            y = kernels.ragged_linear(h, w2, b2, plan) + h @ w2_shared
            if special:
                y = y + pick(specialist, special[2])
            loss = kernels.ragged_softmax_xent(
                y, targets, output, bias, self.vocabulary, self.answers(rows), precision="bfloat16"
            )
            pointed = pointers.pointed_at(reads_of, self.declared[module_of], self.pointer_columns)
            pointer_gates = torch.nn.functional.softplus(h @ w_pointer + pick(module, b_pointer))
            loss = pointers.pointed_loss(loss, targets, y, output, bias, pointed, pointer_gates).mean()
            grads = torch.autograd.grad(loss, leaves)
        for p in leaves:
            p.requires_grad_(False)
        n_own, rate = len(self._own), self._rate()
        for part, state, share in (
            (slice(0, 1), self._gate_state, 1.0), (slice(1, n_own), self._own_state, self.shape.own_rate),
        ):  # fmt: skip
            kernels.adam_step_(
                self._own[part], list(grads[part]), state, rate * share, active=plan.touched, rule=self._rule
            )
        shared_grads, special_grads = grads[n_own : n_own + len(SHARED)], grads[n_own + len(SHARED) :]
        for p, grad, state in zip(self._shared, shared_grads, self._shared_states, strict=True):
            kernels.adam_step_([p[None]], [grad[None]], state, rate, rule=self._rule)
        if self._special_state is not None:
            active = torch.zeros(len(self._special[0]), dtype=torch.bool)
            active[specialist] = True
            active[-1] = False
            kernels.adam_step_(
                self._special, list(special_grads), self._special_state, rate * self.shape.own_rate, active=active,
                rule=self._rule,
            )  # fmt: skip
        return float(loss.detach())

    def _tensors(self) -> dict[str, torch.Tensor]:
        named = {f"own_{k}": p for k, p in enumerate(self._own)}
        named |= {f"shared_{k}": p for k, p in enumerate(self._shared)}
        named |= {f"special_{k}": p for k, p in enumerate(self._special)}
        states = [("gate", self._gate_state), ("own", self._own_state)]
        if self._special_state is not None:
            states.append(("special_moments", self._special_state))
        states += [(f"shared_{k}", state) for k, state in enumerate(self._shared_states)]
        for label, state in states:
            named |= {f"{label}_first_{k}": t for k, t in enumerate(state.first)}
            named |= {f"{label}_second_{k}": t for k, t in enumerate(state.second)}
            named[f"{label}_step"] = state.step
        return named

    def state(self) -> dict[str, np.ndarray]:
        """Copies of parameters and moments."""
        return {name: tensor.numpy().copy() for name, tensor in self._tensors().items()}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Continue from what `state` returned."""
        import torch

        for name, tensor in self._tensors().items():
            tensor.copy_(torch.from_numpy(np.array(state[name])))

    def finish(self) -> Nets:
        """The networks as they are now."""
        own = {name: p.numpy().copy() for name, p in zip(OWN, self._own, strict=True)}
        own["gate"] = np.where(self.declared, own["gate"], np.float32(0))
        net = self.grown.net
        sizes = (len(READS), self.shape.hidden, self.shape.d_out)
        special = [p[:-1].numpy().copy() for p in self._special] or [np.zeros((0, n), np.float32) for n in sizes]
        special[0] = np.where(self.declared[net], special[0], np.float32(0))
        embeddings, w1, w2_shared, output, bias, w_pointer = (p.numpy().copy() for p in self._shared)
        # As training multiplies it where the processor multiplies bfloat16, and as a matrix unit can.
        output = from_bfloat16_bits(bfloat16_bits(output))
        return Nets(
            concepts=self.concepts, declared=self.declared, embeddings=embeddings[:-1],
            w1=w1.reshape(len(READS), self.shape.d_in, self.shape.hidden), w2_shared=w2_shared,
            output=output, bias=bias, w_pointer=w_pointer, pointer_columns=self.pointer_columns, **own,
            split=self.grown.column, special_net=net, special_value=self.grown.value,
            **dict(zip(SPECIAL, special, strict=True)),
        )  # fmt: skip
