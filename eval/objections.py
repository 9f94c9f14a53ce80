"""Every reason why two results may not stand beside each other, with its size.

Objections are of two kinds. Some make the figures themselves incomparable (other bytes, missing examples, a leaked test
file, one training counted as several): such a pair is never compared. Others say that the budgets differ (data, seconds
or FLOPs, parameters, machine) or that something could not be checked: such a pair is refused as well, and compared only
by a person who asks for it, under the list of what is unequal.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from eval.budgets import Budget
from eval.records import Results

Clock = Literal["seconds", "flops"]
TOLERANCE = 0.1
"""Seconds, FLOPs and parameters may differ by this share of the smaller one."""


@dataclass(frozen=True)
class Objection:
    """One reason why a pair is not equal: its `kind`, whether the figures are `invalid` beside each other, and what
    differs by how much."""

    kind: str
    invalid: bool
    text: str


@dataclass(frozen=True)
class Side:
    """One model on one task: its results, one per training seed."""

    name: str
    results: tuple[Results, ...]

    @property
    def header(self) -> dict[str, Any]:
        """Of the first seed."""
        return self.results[0].header

    @property
    def budgets(self) -> list[Budget]:
        """What each seed's model cost."""
        return [Budget.from_json(one.header["budget"]) for one in self.results]


def refusal(objections: Sequence[Objection], unequal: bool) -> bool:
    """Whether the pair may not be compared."""
    return any(one.invalid for one in objections) or (bool(objections) and not unequal)


def objections_to(a: Side, b: Side, clock: Clock = "seconds", tolerance: float = TOLERANCE) -> list[Objection]:
    """Every reason why two results are not those of an equal-budget pair."""
    found = [*_about_figures(a, b), *_about_knowledge(a, b), *_about_seeds(a, b, clock, tolerance)]
    return found + _about_budgets(a, b, clock, tolerance)


def _about_figures(a: Side, b: Side) -> list[Objection]:
    found: list[Objection] = []

    def object_to(kind: str, text: str) -> None:
        found.append(Objection(kind, True, text))

    versions = [{one.header["task_version"] for one in side.results} for side in (a, b)]
    if versions[0] != versions[1] or len(versions[0]) > 1:
        shown = [" and ".join(map(str, sorted(found))) for found in versions]
        object_to("task version", f"{a.name} was measured with version {shown[0]} of {a.header['task']}, "
                  f"{b.name} with version {shown[1]}")  # fmt: skip
    if len(a.results) != len(b.results):
        object_to("training seeds", f"{a.name} has {len(a.results)}, {b.name} has {len(b.results)}")
    bytes_of = [[dict(zip(one.examples, one.sha256, strict=True)) for one in side.results] for side in (a, b)]
    everything = [hashes for side in bytes_of for hashes in side]
    ids = [set(hashes) for hashes in everything]
    union, shared = set().union(*ids), set.intersection(*ids)
    if union - shared:
        object_to("missing examples", f"{len(union - shared)} of {len(union)} were not measured on both sides, "
                  f"such as {min(union - shared)}")  # fmt: skip
    differ = sorted(i for i in shared if len({hashes[i] for hashes in everything}) > 1)
    if differ:
        object_to("different test bytes", f"{len(differ)} of {len(shared)} examples, such as {differ[0]}")
    for side in (a, b):
        counts = Counter(side.results[0].sha256)
        if twice := sum(number - 1 for number in counts.values()):
            object_to("examples counted twice", f"{twice} of {side.name}'s {len(side.results[0].sha256)} are copies of "
                      "others of them; intervals would be too narrow")  # fmt: skip
        short = [(one, *_bytes(one)) for one in side.results if {"bytes", "bytes_said"} <= one.values.keys()]
        for _, raw, said in [row for row in short if row[1] != row[2]][:1]:
            text = f"{side.name}'s tokens stand for {said:,.0f} of {raw:,.0f} bytes; its bits are for less text"
            object_to("bytes of the tokenizer", text)
    if not (union - shared):
        _about_rows(a, b, object_to)
    kinds = [side.header["model"].get("classes") for side in (a, b)]
    if None not in kinds and set(kinds[0]) != set(kinds[1]):
        object_to("classes", f"{a.name} tells {len(kinds[0])} classes apart, {b.name} {len(kinds[1])}, of which "
                  f"{len(set(kinds[0]) & set(kinds[1]))} are the same")  # fmt: skip
    if any(metric.measured_on_machine for metric in a.results[0].metrics):
        places = [_place(one.header["environment"]) for side in (a, b) for one in side.results]
        if len(set(places)) > 1:
            object_to("measured on different machines", " and ".join(sorted(set(places))))
    return found


def _bytes(one: Results) -> tuple[float, float]:
    return float(one.values["bytes"].sum()), float(one.values["bytes_said"].sum())


def _about_rows(a: Side, b: Side, object_to: Callable[[str, str], None]) -> None:
    """What can be wrong although both have the same examples."""
    defined = [[(m.name, m.top, m.bottom) for m in one.metrics] for side in (a, b) for one in side.results]
    if any(found != defined[0] for found in defined):
        object_to("figures defined otherwise", f"{a.header['task']} gives {_names(defined)}")
        return
    order = a.results[0].examples
    labels = [_in_order(one, order, one.clusters) for side in (a, b) for one in side.results]
    differ = [name for name, *given in zip(order, *labels, strict=True) if len(set(given)) > 1]
    if differ:
        object_to("clusters", f"{len(differ)} examples belong to other projects on the two sides, such as {differ[0]}")
    for metric in a.results[0].metrics:
        known = []
        for side in (a, b):
            for one in side.results:
                none = [np.nan] * len(order)
                columns = [_in_order(one, order, one.values.get(name, none)) for name in (metric.top, metric.bottom)]
                known.append(np.isfinite(np.array(columns, dtype=np.float64)).all(0))
        unlike = int((np.any(known, axis=0) & ~np.all(known, axis=0)).sum())
        if unlike and all(one.any() for one in known):
            text = f"{metric.name} of {unlike} of {len(order)} examples is there on one side only"
            object_to("figures missing", text)
            return


def _names(defined: list[list[tuple[str, str, str]]]) -> str:
    rows = sorted({", ".join(" / ".join(one[1:]) for one in found) for found in defined})
    return " on one side and ".join(rows) + " on the other"


def _in_order(one: Results, order: Sequence[str], values: Any) -> list[Any]:
    at = {name: i for i, name in enumerate(one.examples)}
    return [values[at[name]] for name in order]


def _about_knowledge(a: Side, b: Side) -> list[Objection]:
    """What a model may know of the test files."""
    found: list[Objection] = []
    for side in (a, b):
        leaked = sorted({name for one in side.results for name in one.header["leaked"] or []})
        if leaked:
            text = f"{side.name} was trained on {len(leaked)} of the files it is tested on, such as {leaked[0]}"
            found.append(Objection("leaked test file", True, text))
        copied: dict[str, float] = {}
        for one in side.results:
            copied |= one.header.get("copied") or {}
        if rest := sorted((-share, name) for name, share in copied.items() if name not in leaked):
            text = (
                f"{len(rest)} of the files {side.name} is tested on stand in parts in its training, such as "
                f"{-rest[0][0]:.0%} of {rest[0][1]} (eval run --without-known leaves them out)"
            )
            found.append(Objection("copied parts of test files", True, text))
    unlisted = [s.name for s in (a, b) if any(one.header["leaked"] is None for one in s.results)]
    if unlisted:
        text = f"{' and '.join(unlisted)} may know the test files; nothing can tell"
        found.append(Objection("training files not listed", False, text))
    unread = [s.name for s in (a, b) if s.name not in unlisted and any(_unread(one) for one in s.results)]
    if unread:
        text = f"for {' and '.join(unread)}; eval run --train CORPUS looks for them"
        found.append(Objection("copied parts not looked for", False, text))
    return found


def _unread(one: Results) -> bool:
    return one.header.get("copied") is None


def _about_seeds(a: Side, b: Side, clock: Clock, tolerance: float) -> list[Objection]:
    """Whether training seeds are trainings of one recipe, each counted once."""
    found: list[Objection] = []
    prints = [[one.header["model"]["fingerprint"] for one in side.results] for side in (a, b)]
    for side, own in zip((a, b), prints, strict=True):
        seeds = [seed for budget in side.budgets if (seed := budget.seed) is not None]
        if len(set(own)) < len(own):
            text = f"{side.name} holds one model {len(own) - len(set(own)) + 1} times under several seeds"
            found.append(Objection("training seeds repeated", True, text))
        elif len(set(seeds)) < len(seeds):
            text = f"{side.name} was built {len(seeds)} times, with {len(set(seeds))} seeds"
            found.append(Objection("training seeds repeated", True, text))
        for name, attribute in (("data", "data_hash"), ("cut", "cut")):
            if len({getattr(budget, attribute) for budget in side.budgets}) > 1:
                found.append(Objection("unlike seeds", True, f"{side.name}'s seeds are not of one {name}"))
        work = "seconds" if clock == "seconds" else "train_flops"
        for attribute in (work, "parameters"):
            values = [getattr(budget, attribute) for budget in side.budgets]
            known = [float(value) for value in values if value is not None]
            if len(known) > 1 and max(known) - min(known) > 2 * tolerance * min(known):
                text = f"{side.name}'s seeds have from {min(known):,.0f} to {max(known):,.0f} {attribute}"
                found.append(Objection("unlike seeds", False, text))
    if set(prints[0]) & set(prints[1]):
        found.append(Objection("the same model", False, f"{a.name} and {b.name} are one model under two names"))
    codes = {code for side in (a, b) for one in side.results if (code := one.header.get("code")) is not None}
    if len(codes) > 1:
        text = "the code that answers or measures was changed in between; eval run again measures anew"
        found.append(Objection("measured by different code", False, text))
    return found


def _about_budgets(a: Side, b: Side, clock: Clock, tolerance: float) -> list[Objection]:
    found: list[Objection] = []
    budgets = (a.budgets, b.budgets)

    def object_to(kind: str, text: str) -> None:
        found.append(Objection(kind, False, text))

    data = [{(one.data_hash, one.data_bytes) for one in side} for side in budgets]
    unknown = [side.name for side, rows in zip((a, b), data, strict=True) if any(h is None for h, _ in rows)]
    if unknown:
        object_to("training data unknown", f"nothing says what {' and '.join(unknown)} was built from")
    elif data[0] != data[1]:
        unit = "files" if any(size is None for rows in data for _, size in rows) else "bytes"
        sizes = [float(max(getattr(one, f"data_{unit}") or 0 for one in rows)) for rows in budgets]
        same = f"the same number of {unit}, other files"
        more = same if sizes[0] == sizes[1] else _by(a, b, sizes[0], sizes[1], unit)
        object_to("training data", more)
    work = ("seconds", "s", "seconds") if clock == "seconds" else ("FLOPs", "FLOPs", "train_flops")
    for kind, unit, attribute in (work, ("parameters", "", "parameters")):
        means = [[getattr(one, attribute) for one in rows] for rows in budgets]
        missing = [side.name for side, rows in zip((a, b), means, strict=True) if None in rows]
        if missing:
            object_to(f"{kind} not measured", " and ".join(missing))
            continue
        first, second = (float(np.mean(rows)) for rows in means)
        if abs(first - second) > tolerance * min(first, second):
            object_to(kind, _by(a, b, first, second, unit))
    for kind, attribute in (("machine", "cpu"), ("threads", "threads")):
        values = [{getattr(one, attribute) for one in rows} for rows in budgets]
        if clock == "seconds" and values[0] != values[1] and None not in values[0] | values[1]:
            shown = [", ".join(map(str, sorted(v, key=str))) for v in values]
            object_to(kind, f"{a.name} was built on {shown[0]}, {b.name} on {shown[1]}")
    return found


def _by(a: Side, b: Side, first: float, second: float, unit: str) -> str:
    more, less = (a, b) if first > second else (b, a)
    high, low = max(first, second), min(first, second)
    share = f"{100 * (high / low - 1):.0f} % more" if low else "all against none"
    return f"{more.name} has {high:,.0f}{' ' + unit if unit else ''}, {less.name} {low:,.0f} ({share})"


def _place(environment: dict[str, Any]) -> str:
    return f"{environment.get('cpu')}, {environment.get('threads')} threads"
