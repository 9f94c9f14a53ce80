"""Simulation scoring of explanations, without an API: can a module be imitated from its question and its reads alone?

A simulator is plain code, written from a situation's question and the meaning of its reads before any output of a net
was looked at: a short list of tokens that somebody who only knows the question would name, and what the reads say
followed here before and is in scope. Scored against the net: correlation of log-probabilities over the net's likeliest
tokens, Jensen-Shannon divergence of the two, and the divergence of the whole model's output when the simulator answers
in the net's place. Control: the list of another situation (a shuffled name), with the same reads.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterable
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from cgpt.model import ConstructedLM
from cgpt.reads import READS
from eval.models import EvalModel, Ours
from eval.tasks.base import Example, Measured, Metric, Task
from eval.tasks.language import files

POSITIONS = 16
"""Positions per file, chosen by hash among the situations that have a simulator."""
TOP = 50
LINE_END = "<line end>"
GUESSES: dict[str, str] = {
    "module_statement": "def class import from if @ # _",
    "class_statement": 'def @ # """ class',
    "function_statement": "if return self for # raise try with else def",
    "nested_statement": "return if self raise continue break # else for",
    "first_statement": '""" if self return for raise # pass try',
    "statement_end": f"{LINE_END} :",
    "import_module": "os sys re typing collections time . logging functools",
    "import_name": f", {LINE_END} Any Optional ( as",
    "attribute_of_self": "_ name data assert get",
    "attribute_of_value": "append join get split format items name strip startswith",
    "function_header": "( ) : _ get set test ->",
    "class_header": "( ) : object Exception",
    "parameter": "self , ) = * : None",
    "annotation": "str int Optional List None bool",
    "decorator": "property staticmethod classmethod",
    "after_attribute_of_self": f"( . = ) {LINE_END} ,",
    "after_attribute": f"( . ) = , {LINE_END} [",
    "after_statement_name": "= . ( , += [",
    "after_argument_name": ", ) = . ( [",
    "after_name_in_condition": ": . == is in and ( not",
    "after_name_in_value": f"( . {LINE_END} , ) [",
    "after_bracket": f"{LINE_END} ) , : . ]",
    "after_literal": f", ) {LINE_END} : ] %",
    "first_argument": ") self ' \" name None",
    "next_argument": "self None True ' name 0",
    "subscript": "0 : - 1 '",
    "operand": "self None 0 1 ' len",
    "assigned_value": "None [ self { 0 ' True",
    "condition": "not self isinstance len",
    "return_value": f"self None True False {LINE_END} [ ( _",
    "exception": "ValueError TypeError KeyError Exception RuntimeError (",
}
"""Situation -> tokens that its question suggests, likeliest first; each next one gets three quarters of the weight."""
_FILE = [READS.index(name) for name in ("file_5", "file_3", "file_2", "file_1")]
_NAMES = [READS.index(name) for name in ("names_1", "names_2", "names_3", "names_4")]
_SHARES = {"guess": 0.45, "file": 0.35, "names": 0.15, "even": 0.05}


class Simulator:
    """Plain-code imitations of a model's nets: distributions over its tokens from reads alone."""

    def __init__(self, model: ConstructedLM) -> None:
        self.size = len(model.tokenizer.token_bytes)
        by_text: dict[str, list[int]] = {}
        for token, text in enumerate(model.tokenizer.token_bytes):
            if not text:
                continue
            shown = LINE_END if not text.strip() and b"\n" in text else text.decode("utf-8", "replace").strip(" ")
            by_text.setdefault(shown, []).append(token)
        self.guesses = {name: self._spread(words.split(" "), by_text) for name, words in _joined(GUESSES).items()}
        # Each list's shuffled name: the next situation that has one.
        names = sorted(self.guesses)
        self.other = dict(zip(names, [*names[1:], names[0]], strict=True))

    def _spread(self, words: list[str], by_text: dict[str, list[int]]) -> np.ndarray:
        p = np.zeros(self.size)
        for rank, word in enumerate(words):
            tokens = by_text.get(word.replace("\x00", " "), [])
            if tokens:
                p[tokens] += 0.75**rank / len(tokens)
        return p / p.sum() if p.sum() else np.full(self.size, 1 / self.size)

    def distribution(self, name: str, declared: np.ndarray, reads: np.ndarray) -> np.ndarray:
        """float64[V] for one row of reads uint16[R], of which only the `declared` bool[R] are looked at."""
        p = np.full(self.size, _SHARES["even"] / self.size)
        left = _SHARES["guess"]
        for columns, share in ((_FILE, _SHARES["file"]), (_NAMES, _SHARES["names"])):
            said = [int(reads[c]) for c in columns if declared[c] and int(reads[c]) < self.size]
            if said:
                weights = 0.5 ** np.arange(len(said))
                np.add.at(p, said, share * weights / weights.sum())
            else:
                left += share
        return p + left * self.guesses[name]


def _joined(guesses: dict[str, str]) -> dict[str, str]:
    """The lists with the one word that holds a space made whole."""
    return {name: words.replace(LINE_END, LINE_END.replace(" ", "\x00")) for name, words in guesses.items()}


def divergence(p: np.ndarray, q: np.ndarray) -> float:
    """Jensen-Shannon divergence in bits, 0 to 1."""
    middle = (p + q) / 2
    return float(sum(0.5 * np.sum(x[x > 0] * np.log2(x[x > 0] / middle[x > 0])) for x in (p, q)))


def correlation(p: np.ndarray, q: np.ndarray) -> float:
    """Pearson's, of log-probabilities over the likeliest tokens of `p`; 0 where one of the two does not vary."""
    top = np.argsort(-p, kind="stable")[:TOP]
    a, b = np.log(np.maximum(p[top], 1e-12)), np.log(np.maximum(q[top], 1e-12))
    if a.std() < 1e-9 or b.std() < 1e-9:
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])


_SIMULATORS: WeakKeyDictionary[ConstructedLM, Simulator] = WeakKeyDictionary()


def measure(model: EvalModel, example: Example) -> Iterable[Measured]:
    """Sums over positions of one file, and by situation."""
    assert isinstance(model, Ours) and isinstance(model.model, ConstructedLM)
    inner: Any = model.model
    if inner not in _SIMULATORS:
        _SIMULATORS[inner] = Simulator(inner)
    simulator = _SIMULATORS[inner]
    view = inner.view(inner.tokenizer.encode(example.data.data))
    concepts = inner.concepts_at(view)[: view.n]
    able = np.array([i for i, name in enumerate(model.concepts) if name in simulator.guesses and inner.net_of[i] >= 0])
    rng = np.random.default_rng(int(hashlib.sha256(f"simulate {example.id}".encode()).hexdigest()[:12], 16))
    chosen = rng.permutation(np.flatnonzero(np.isin(concepts, able)))[:POSITIONS]
    rows: dict[str, dict[str, float]] = {}
    for boundary in sorted(chosen.tolist()):
        name, m = model.concepts[concepts[boundary]], int(inner.net_of[concepts[boundary]])
        reads = view.reads[boundary]
        powers, total = inner.nets.powers(m, reads[None])
        net = powers[0].astype(np.float64) / float(total[0])
        whole = inner.position(view, boundary).distribution
        found = {"positions": 1.0}
        for key, of in (("own", name), ("shuffled", simulator.other[name])):
            said = simulator.distribution(of, inner.nets.declared[m], reads)
            found[f"correlation_{key}"] = correlation(net, said)
            found[f"net_{key}"] = divergence(net, said)
            found[f"output_{key}"] = divergence(whole, replaced(inner, said).position(view, boundary).distribution)
        row = rows.setdefault(name, dict.fromkeys(SIMULATION.columns, 0.0))
        for key, value in found.items():
            row[key] += value
    yield Measured({key: sum(row[key] for row in rows.values()) for key in SIMULATION.columns})
    for name, row in rows.items():
        yield Measured(row, name)


def replaced(model: Any, said: np.ndarray) -> Any:
    """The model with this distribution float64[V] in the place of every net's answer."""
    made = copy.copy(model)
    powers = (said / said.max()).astype(np.float32)  # relative to the first choice: see Nets.powers
    total = float(powers.sum(dtype=np.float64))
    made._nets_say = lambda concept, reads: (np.repeat(powers[None], len(reads), axis=0), np.full(len(reads), total))
    return made


SIMULATION = Task(
    name="simulation",
    version=1,
    question="Can the nets be imitated by plain code that knows their questions and reads?",
    columns=(
        "positions", "correlation_own", "correlation_shuffled", "net_own", "net_shuffled", "output_own",
        "output_shuffled",
    ),
    metrics=(
        Metric("correlation with the net", "correlation_own", "positions"),
        Metric("the same, shuffled names", "correlation_shuffled", "positions", "neither"),
        Metric("divergence from the net in bits", "net_own", "positions", "lower"),
        Metric("divergence, shuffled names", "net_shuffled", "positions", "neither"),
        Metric("change of the output in bits", "output_own", "positions", "lower"),
        Metric("change of the output, shuffled names", "output_shuffled", "positions", "neither"),
    ),
    load=files,
    measure=measure,
    needs=frozenset({"nets", "explain"}),
)  # fmt: skip
