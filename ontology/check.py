"""Check an ontology with its router and its tests: what fails, and which branches no test takes."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ontology.errors import ConstructibleError
from ontology.graph import depths, is_tree, leaves, leaves_under
from ontology.routers import Router, uncovered_branches
from ontology.schema import Ontology, OntologyError
from ontology.track import Track


@dataclass(frozen=True)
class Problem:
    """One thing wrong, with its place and fix."""

    message: str
    fix: str
    file: str
    line: int | None

    @classmethod
    def of(cls, error: ConstructibleError, file: str) -> Problem:
        """Make it from an error; `file` stands in where the error names none."""
        return cls(error.message, error.fix, str(error.file or file), error.line)

    def __str__(self) -> str:
        return str(ConstructibleError(self.message, fix=self.fix, file=self.file or None, line=self.line))


@dataclass
class Report:
    """What a check found. `facts` are counts of what was looked at; the check passed if there are no `problems`."""

    facts: dict[str, Any] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def summary(self) -> str:
        """Return the facts as one line."""
        facts = self.facts
        if not facts:
            return "nothing else was checked"
        parts = [f"{facts['concepts']} concepts, {facts['leaves']} leaves, depth {facts['depth']}, a {facts['shape']}"]
        if "routing_tests" in facts:
            parts.append(f"{facts['routing_tests_passed']} of {facts['routing_tests']} routing tests pass")
        else:
            parts.append(f"{facts['tests']} tests, not run without a track")
        if "branches" in facts:
            parts.append(f"{facts['branches_covered']} of {facts['branches']} branches covered")
        return "; ".join(parts)

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "passed": not self.problems, "facts": self.facts, "problems": [asdict(problem) for problem in self.problems]
        }  # fmt: skip


def check(path: str | Path, *, track: Track | None = None, router: str | Path | None = None) -> Report:
    """Check an ontology file and, with a track, its router and tests.

    Args:
        track: interprets the tests and declares the router's state.
        router: a router file to check in place of the track's own.
    """
    report = Report()
    try:
        ontology = Ontology.load(path)
    except OntologyError as error:
        report.problems = [Problem.of(each, str(path)) for each in (error, *error.others)]
        return report
    except ConstructibleError as error:
        report.problems = [Problem.of(error, str(path))]
        return report
    report.facts = {
        "concepts": len(ontology.concepts), "leaves": len(leaves(ontology)), "depth": max(depths(ontology).values()),
        "shape": "tree" if is_tree(ontology) else "graph",
        "tests": sum(len(concept.tests) for concept in ontology.concepts),
    }  # fmt: skip
    if track is None or (track.router is None and router is None):
        return report
    try:
        used = _router(track, router)
    except ConstructibleError as error:
        report.problems.append(Problem.of(error, str(router or path)))
        return report
    _check_names(ontology, used, report)
    rows = _run_tests(ontology, track, used, report)
    if rows:
        missing = uncovered_branches(used, np.stack(rows))
        report.facts |= {"branches": len(used.branches()), "branches_covered": len(used.branches()) - len(missing)}
        for branch in missing:
            fix = "add a test that takes it to the concept it leads to"
            report.problems.append(Problem(f"no test takes this branch ({branch.text}).", fix, used.file, branch.line))
    else:
        report.problems.append(
            Problem(
                "there are no routing tests, so no branch is covered.", "give each concept `tests`", str(path), None
            )
        )
    return report


def _router(track: Track, router: str | Path | None) -> Router:
    if router is None:
        assert track.router is not None
        return track.router
    if track.router is None:
        raise ConstructibleError("this track has no router state.", fix="check without --router")
    return Router.load(router, track.router.fields, track.router.helpers)


def _check_names(ontology: Ontology, router: Router, report: Report) -> None:
    """Every concept that the router returns is a leaf, and every leaf is returned."""
    bottom = leaves(ontology)
    for name in router.concepts:
        if name not in bottom:
            what = "has children" if name in ontology else "is not in the ontology"
            line = router.line_of(name)
            report.problems.append(
                Problem(f"the router returns {name!r}, which {what}.", "return a leaf's name", router.file, line)
            )
    for name in bottom:
        if name not in router.concepts:
            problem = Problem(
                f"the router never returns the leaf {name!r}.", "return it somewhere, or remove the leaf",
                ontology.file, ontology.line(name),
            )  # fmt: skip
            report.problems.append(problem)


def _run_tests(ontology: Ontology, track: Track, router: Router, report: Report) -> list[np.ndarray]:
    rows: list[np.ndarray] = []
    passed = 0
    for concept in ontology.concepts:
        expected = leaves_under(ontology, concept.name)
        for i, test in enumerate(concept.tests):
            line = ontology.line(concept.name, "tests", i)
            try:
                row = track.state_of(test)
                if row is None:
                    continue
                trace = router.trace(row)
            except ConstructibleError as error:
                report.problems.append(Problem(f"the test {test!r}: {error.message}", error.fix, ontology.file, line))
                continue
            rows.append(np.asarray(row))
            if trace.concept in expected:
                passed += 1
                continue
            lines = ", ".join(map(str, trace.lines))
            message = f"the test {test!r} of {concept.name!r} leads to {trace.concept!r} (router lines {lines})."
            report.problems.append(Problem(message, "correct the router or the test", ontology.file, line))
        if not concept.tests and not concept.children:
            report.problems.append(
                Problem(
                    f"the leaf {concept.name!r} has no tests.", "add some", ontology.file, ontology.line(concept.name)
                )
            )
    report.facts |= {"routing_tests": len(rows), "routing_tests_passed": passed}
    return rows
