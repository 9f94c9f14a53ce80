"""Measure how the situations share the positions of real code: `python -m cgpt.check_situations CORPUS...`.

Prints a Markdown table. A position is a place before a token or before the end of a file, under an 8192-token tokenizer
trained on the first corpus. A CORPUS is anything that `constructible cgpt build` takes, such as `stdlib`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cgpt.lexer import FIELDS, run
from cgpt.tokenizer import Tokenizer
from ontology.graph import leaves
from ontology.main import exit_code
from ontology.routers import Router
from ontology.schema import Ontology

FOLDER = Path(__file__).parent / "ontologies" / "python"
VOCABULARY = 8192
CATCH_ALL = "operand"


@dataclass(frozen=True)
class Shares:
    """Shares of all positions by situation; `states` distinct router states were met in `positions`."""

    shares: dict[str, float]
    positions: int
    states: int


def measure(documents: Iterable[bytes], tokenizer: Tokenizer, router: Router) -> Shares:
    """Route every position of the documents."""
    counts = np.zeros(len(router.concepts), np.int64)
    states = np.empty((0, len(FIELDS)), np.uint8)
    for document in documents:
        ends = np.cumsum(np.append(0, tokenizer.lengths[tokenizer.encode(document)]))
        fields, _ = run(np.frombuffer(document, np.uint8), ends)
        states = np.unique(np.concatenate([states, np.unique(fields, axis=0)]), axis=0)
        counts += np.bincount(router.route(fields), minlength=len(counts))
    total = int(counts.sum())
    return Shares(dict(zip(router.concepts, (counts / max(total, 1)).tolist(), strict=True)), total, len(states))


def main(arguments: list[str]) -> int:
    """Print the table; 0 where no situation holds more than 25 % and the catch-all less than 2 %, else 3."""
    from cgpt.corpus import read_corpus

    ontology, router = Ontology.load(FOLDER / "ontology.yaml"), Router.load(FOLDER / "router.py", FIELDS)
    corpora = {name: [source.data for source in read_corpus(name).files] for name in arguments or ["stdlib"]}
    tokenizer = Tokenizer.train(next(iter(corpora.values())), VOCABULARY)
    measured = {name: measure(documents, tokenizer, router) for name, documents in corpora.items()}
    print("| situation | question | " + " | ".join(Path(name).name for name in measured) + " |")
    print("|---|---|" + "---:|" * len(measured))
    for name in leaves(ontology):
        row = " | ".join(f"{found.shares[name]:.2%}" for found in measured.values())
        print(f"| {name} | {ontology[name].question} | {row} |")
    print("| *positions* | | " + " | ".join(f"{found.positions:,}" for found in measured.values()) + " |")
    print("| *distinct router states* | | " + " | ".join(f"{found.states:,}" for found in measured.values()) + " |")
    fine = all(max(found.shares.values()) <= 0.25 and found.shares[CATCH_ALL] < 0.02 for found in measured.values())
    return 0 if fine else 3


if __name__ == "__main__":
    sys.exit(exit_code(lambda: main(sys.argv[1:])))
