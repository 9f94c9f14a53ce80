"""Build the toy track from a command line, for tests that kill it: OUT STORE steps|minutes NUMBER."""

from __future__ import annotations

import sys

from ontology.build import NetOptions, plan
from ontology.fit import Budget, fit
from ontology.graph import cut
from ontology.main import run
from ontology.store import Store
from tests.ontology.toy_track import ToyTrack


def build(out: str, store: str, kind: str, number: str) -> None:
    track = ToyTrack(rows=1500)
    jobs = plan(track, cut(track.ontology, "leaves"), options=NetOptions(checkpoint_seconds=0.05))
    budget = Budget(steps=int(number)) if kind == "steps" else Budget(minutes=float(number))
    fitted = fit(jobs, out, Store(store), budget)
    print(f"done {fitted.total_seconds:.2f}")


if __name__ == "__main__":
    import click

    sys.exit(run(click.Command("toy", callback=lambda: build(*sys.argv[1:])), []))
