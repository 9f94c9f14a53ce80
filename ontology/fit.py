"""Fit: run the jobs of a plan in dependency order, each once, resumable at any moment.

A job's files go to the content-addressed store under a key of all that it depends on, and from there into the run
folder. What is in the store is not done again and counts with its original seconds. Jobs of one `group` that are still
to be done run together (nets of one shape in one batched call).
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ontology.environment import Ledger, describe, peak_rss_bytes, threads
from ontology.errors import ConstructibleError, UsageError, did_you_mean
from ontology.io import explain_os_errors, make_folder, read_json, remove_leftovers, write_json
from ontology.progress import Progress
from ontology.store import Entry, Store, Work, materialise, store_key
from ontology.training import Trained, Trainer, train

__all__ = ["Budget", "Fitted", "Job", "JobContext", "Trained", "Trainer", "fit", "order_jobs", "train"]

FORMAT = "constructible-fit/1"


@dataclass(frozen=True)
class Budget:
    """How much a build may do: a number of steps per training (repeats bit for bit), or minutes in total."""

    steps: int | None = None
    minutes: float | None = None

    def __post_init__(self) -> None:
        if self.steps is not None and self.minutes is not None:
            raise UsageError("steps and minutes are both given.", fix="give --steps or --minutes")
        if self.steps is not None and self.steps < 1:
            raise UsageError(f"{self.steps} steps is no budget.", fix="give --steps 1 or more")
        if self.minutes is not None and not 0 < self.minutes < 1e6:
            raise UsageError(f"{self.minutes} minutes is no budget.", fix="give --minutes above 0")

    @property
    def seconds(self) -> float | None:
        """The minutes in seconds."""
        return None if self.minutes is None else 60.0 * self.minutes


@dataclass(frozen=True)
class Job:
    """One piece of work that leaves files.

    Attributes:
        name: unique in the plan.
        key_parts: JSON values that, with the keys of the jobs it depends on, say all that the result depends on: spec,
            data hash, code hash, seed. For `net` jobs budget and threads are added.
        depends: names of jobs whose files it reads.
        run: does the work: reads `context.inputs`, writes into `context.folder`.
        kind: "net" for trainings (they share the budget), else what the job makes.
        share: weight among the `net` jobs still to be done when the seconds left are divided; above 0.
        reserve_seconds: how long it will take at most, kept back from the trainings before it; or a function that says
            it from the seconds of the jobs done so far ({name: seconds}), which tell how fast this machine is.
        place: folder of its files inside the run folder, "" for the run folder itself, None to keep them in the store.
        modules: how many modules it makes, for the progress shown.
        group: jobs of one group have the same `run`, which is called once for those of them that are still to be done.
    """

    name: str
    key_parts: Mapping[str, Any]
    run: Callable[[JobContext], None]
    depends: tuple[str, ...] = ()
    kind: Literal["data", "plain", "table", "net"] = "table"
    share: float = 1.0
    reserve_seconds: float | Callable[[Mapping[str, float]], float] = 0.0
    place: str | None = ""
    modules: int = 1
    group: str | None = None


@dataclass
class JobContext:
    """What a running job may use.

    Attributes:
        folder: where its files go; empty at the start.
        checkpoint: a folder that survives a kill, for this job's key alone.
        inputs: for each dependency the folder of its files.
        out: the run folder.
        steps: the budget's steps, None where the budget is time.
        members: for a group the context of each member by name; otherwise the job's own.
    """

    name: str
    folder: Path
    checkpoint: Path
    inputs: dict[str, Path]
    out: Path
    steps: int | None
    progress: Progress
    members: dict[str, JobContext] = field(default_factory=dict)
    _seconds_left: Callable[[], float] = lambda: float("inf")
    _done_text: Callable[[], str] = lambda: ""

    def seconds_left(self) -> float:
        """Seconds this job may still use: its share of the budget, less what was used (also by killed attempts) and
        what later jobs have reserved. Infinite where the budget is not time."""
        return self._seconds_left()

    def done_text(self) -> str:
        """Text for progress: how many of the plan's modules are done."""
        return self._done_text()

    def log(self, **values: Any) -> None:
        """Append one line to the run folder's `metrics.jsonl`."""
        path = self.out / "metrics.jsonl"
        with explain_os_errors(path), open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps({"job": self.name, **values}) + "\n")


@dataclass(frozen=True)
class Fitted:
    """A finished plan.

    Attributes:
        keys: each job's store key.
        folders: each job's files in the store.
        seconds: each job's seconds, as first spent where work was reused.
        total_seconds: of the whole build, other charged work included.
        reused, done: names of the jobs taken from the store and of those run now.
    """

    keys: dict[str, str]
    folders: dict[str, Path]
    seconds: dict[str, float]
    total_seconds: float
    reused: tuple[str, ...]
    done: tuple[str, ...]


def order_jobs(jobs: Sequence[Job]) -> list[Job]:
    """Return jobs so that each follows those it depends on, otherwise in the given order.

    Raises:
        ConstructibleError: a name appears twice, a dependency is unknown, or jobs depend on each other in a circle.
    """
    by_name: dict[str, Job] = {}
    for job in jobs:
        if job.name in by_name:
            raise ConstructibleError(f"two jobs are named {job.name!r}.", fix="rename one")
        reserve = 0.0 if callable(job.reserve_seconds) else job.reserve_seconds
        if not 0 < job.share < float("inf") or not 0 <= reserve < float("inf"):
            raise ConstructibleError(
                f"the job {job.name!r} has the share {job.share} and reserves {reserve} s.",
                fix="use a share above 0 and a reserve of 0 or more",
            )
        by_name[job.name] = job
    ordered: dict[str, Job] = {}
    for job in jobs:
        for name in job.depends:
            if name not in by_name:
                hint = did_you_mean(name, list(by_name))
                raise ConstructibleError(
                    f"the job {job.name!r} depends on the unknown job {name!r}.{hint}", fix="add it"
                )
    while len(ordered) < len(jobs):
        ready = [j for j in jobs if j.name not in ordered and all(name in ordered for name in j.depends)]
        if not ready:
            stuck = [job.name for job in jobs if job.name not in ordered]
            raise ConstructibleError(f"jobs wait for each other: {', '.join(stuck)}.", fix="remove a dependency")
        ordered[ready[0].name] = ready[0]
    return list(ordered.values())


def job_keys(jobs: Sequence[Job], budget: Budget) -> dict[str, str]:
    """Return the store key of each job of a plan."""
    keys: dict[str, str] = {}
    if any(job.kind == "net" for job in jobs):
        import torch  # noqa: F401  so that `threads` gives torch's number now and at every later call
    for job in order_jobs(jobs):
        parts: dict[str, Any] = {
            "format": FORMAT, "name": job.name, "kind": job.kind, "parts": dict(job.key_parts),
            "depends": {name: keys[name] for name in job.depends},
        }  # fmt: skip
        if job.kind == "net":
            parts |= {"steps": budget.steps, "minutes": budget.minutes, "threads": threads()}
            parts |= {"share": job.share} if budget.minutes is not None else {}
        keys[job.name] = store_key(**parts)
    return keys


def fit(
    jobs: Sequence[Job],
    out: str | Path,
    store: Store | None = None,
    budget: Budget | None = None,
    progress: Progress | None = None,
    ledger: Ledger | None = None,
) -> Fitted:
    """Run a plan into a run folder; the same call again resumes.

    Args:
        jobs: in any order.
        out: the run folder; gets the jobs' files, `ledger.json`, `fit.json`, `metrics.jsonl`, `environment.json`.
        store: where finished work is kept; a folder inside `out` by default.
        budget: steps or minutes for trainings.
        ledger: the build's clock, where other work was charged to it before; `out`/ledger.json by default.

    Raises:
        ConstructibleError: what a job raised, or a folder that cannot be used. Finished jobs are kept.
    """
    out = make_folder(out)
    run = _Run(jobs, out, store or Store(out / ".store"), budget or Budget(), progress or Progress(), ledger)
    with _only_one(out):
        remove_leftovers(out)
        return run.all()


class _Run:
    def __init__(
        self, jobs: Sequence[Job], out: Path, store: Store, budget: Budget, progress: Progress, ledger: Ledger | None
    ) -> None:
        self.jobs = order_jobs(jobs)
        self.out, self.store, self.budget, self.progress = out, store, budget, progress
        self.ledger = ledger or Ledger(out / "ledger.json")
        self.keys = job_keys(self.jobs, budget)
        self.entries: dict[str, Entry] = {}
        self.done: list[str] = []
        self.files: dict[str, str] = {}  # path in the run folder -> job
        self.previous = self._previous_files()

    def all(self) -> Fitted:
        self.store.sweep()
        pending = self._find_finished()
        self.ledger.keep({**self.keys, **{f"group {name}": _group_key(keys) for name, keys in pending.items()}})
        reused = tuple(self.entries)
        if reused:
            self.progress.note(f"{len(reused)} of {len(self.jobs)} jobs are in the store already")
        for job in self.jobs:
            if job.name not in self.entries:
                self._run_group([job] if job.group is None else self._members(job))
        self._remove_stale()
        self._write_manifest()
        path, peak = self.out / "environment.json", peak_rss_bytes()
        if path.exists():
            # A build that resumes, or has nothing left to do, needs less than the one that did the work.
            peak = max(peak, int(read_json(path).get("peak_rss_bytes") or 0))
        write_json(path, {**describe(), "peak_rss_bytes": peak})
        self.ledger.write()
        return Fitted(
            keys=self.keys,
            folders={name: entry.folder for name, entry in self.entries.items()},
            seconds={job.name: self.ledger.of(job.name) for job in self.jobs},
            total_seconds=self.ledger.seconds,
            reused=reused,
            done=tuple(self.done),
        )

    def _find_finished(self) -> dict[str, list[str]]:
        """Take over what the store has; return for each group the keys that are still to be done."""
        pending: dict[str, list[str]] = {}
        for job in self.jobs:
            key = self.keys[job.name]
            entry = self.store.find(key)
            if entry is not None:
                # In this run folder's own ledger the seconds may be more: attempts that were killed count too.
                spent = self.ledger.of(job.name) if self.ledger.key(job.name) == key else 0.0
                self.ledger.credit(job.name, key, max(spent, entry.seconds))
                self._finish(job, entry)
            elif job.group is not None:
                pending.setdefault(job.group, []).append(key)
        return pending

    def _members(self, first: Job) -> list[Job]:
        """The jobs of a group that are to be done and can be done now."""
        members = [
            job for job in self.jobs
            if job.group == first.group and job.name not in self.entries and all(d in self.entries for d in job.depends)
        ]  # fmt: skip
        odd = [job.name for job in members if job.run is not first.run]
        if odd:
            raise ConstructibleError(
                f"{first.name!r} and {odd[0]!r} are one group with two ways to run.", fix="give them the same `run`"
            )
        return members

    def _run_group(self, members: list[Job]) -> None:
        label = members[0].name if len(members) == 1 else f"{members[0].group} ({len(members)} jobs)"
        charged = members[0].name if len(members) == 1 else f"group {members[0].group}"
        key = self.keys[charged] if len(members) == 1 else _group_key([self.keys[job.name] for job in members])
        with ExitStack() as stack:
            # Locks are taken in one order everywhere, so that two builds never wait for each other.
            by_key = sorted(members, key=lambda job: self.keys[job.name])
            works = {job.name: stack.enter_context(self.store.work(self.keys[job.name])) for job in by_key}
            shared = works[members[0].name] if len(members) == 1 else stack.enter_context(self.store.work(key))
            # While this process waited for the lock another build may have finished some of them.
            found = {name: entry for name in works if (entry := self.store.find(self.keys[name])) is not None}
            if found:
                for name, entry in found.items():
                    self.ledger.credit(name, entry.key, entry.seconds)
                    self._finish(next(job for job in members if job.name == name), entry)
            else:
                self.progress.note(f"{label} ...")
                with self.ledger.charge(charged, key):
                    contexts = {job.name: self._context(job, works[job.name], members, charged) for job in members}
                    whole = contexts[members[0].name]
                    if len(members) > 1:
                        whole = self._context(members[0], shared, members, charged)
                        whole.name = label
                    whole.members = contexts
                    members[0].run(whole)
                    for job in members:
                        seconds = lambda: self.ledger.of(charged) / len(members)  # noqa: E731
                        self._finish(job, self.store.publish(works[job.name], job.name, seconds))
                        self.done.append(job.name)
                if len(members) > 1:
                    self.ledger.split(charged, {job.name: self.keys[job.name] for job in members})
                    self.store.discard(shared)
        rest = [job for job in members if job.name not in self.entries]
        if rest:
            self._run_group(rest)

    def _context(self, job: Job, work: Work, members: list[Job], charged: str) -> JobContext:
        work.clear()
        context = JobContext(
            name=job.name,
            folder=work.files,
            checkpoint=work.checkpoint,
            inputs={name: self.entries[name].folder for name in job.depends},
            out=self.out,
            steps=self.budget.steps,
            progress=self.progress,
            _seconds_left=lambda: self._seconds_left(members, charged),
            _done_text=self._done_text,
        )
        context.members = {job.name: context}
        return context

    def _seconds_left(self, members: list[Job], charged: str) -> float:
        if self.budget.seconds is None:
            return float("inf")
        own = self.ledger.of(charged)
        mine = {job.name for job in members}
        waiting = [job for job in self.jobs if job.name not in self.entries and job.name not in mine]
        free = self.budget.seconds - (self.ledger.seconds - own) - sum(self._reserve(job) for job in waiting)
        if members[0].kind == "net":
            weight = sum(job.share for job in members)
            free *= weight / (weight + sum(job.share for job in waiting if job.kind == "net"))
        return max(0.0, free - own)

    def _reserve(self, job: Job) -> float:
        if not callable(job.reserve_seconds):
            return job.reserve_seconds
        return max(0.0, job.reserve_seconds({name: self.ledger.of(name) for name in self.entries}))

    def _done_text(self) -> str:
        made = sum(job.modules for job in self.jobs if job.name in self.entries)
        return f"modules {made} of {sum(job.modules for job in self.jobs)}"

    def _finish(self, job: Job, entry: Entry) -> None:
        self.entries[job.name] = entry
        if job.place is None:
            return
        for path in entry.files:
            full = (Path(job.place) / path).as_posix()
            if full in self.files:
                raise ConstructibleError(
                    f"the jobs {self.files[full]!r} and {job.name!r} both write {full}.", fix="give one another `place`"
                )
            self.files[full] = job.name
        self._write_manifest(self.previous)
        materialise(entry, self.out, job.place)

    def _previous_files(self) -> set[str]:
        path = self.out / "fit.json"
        if not path.exists():
            return set()
        manifest = read_json(path)
        if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
            raise ConstructibleError("another program's file is in the way.", fix="use an empty folder", file=path)
        return set(manifest["files"])

    def _remove_stale(self) -> None:
        """Remove files that an earlier plan left in the run folder and this one does not make."""
        for name in sorted(self.previous - set(self.files)):
            path = self.out / name
            if path.resolve().is_relative_to(self.out.resolve()):
                with explain_os_errors(path):
                    path.unlink(missing_ok=True)

    def _write_manifest(self, more: set[str] | None = None) -> None:
        write_json(
            self.out / "fit.json",
            {
                "format": FORMAT,
                "jobs": {
                    job.name: {
                        "key": self.keys[job.name],
                        "kind": job.kind,
                        **({"group": job.group} if job.group else {}),
                    }
                    for job in self.jobs
                },
                "files": dict(sorted({**dict.fromkeys(more or (), ""), **self.files}.items())),
            },
        )


def _group_key(keys: list[str]) -> str:
    return store_key(group=sorted(keys))


@contextmanager
def _only_one(out: Path) -> Iterator[None]:
    """Refuse to build into a folder that another process is building into."""
    path = out / ".lock"
    with explain_os_errors(path), open(path, "a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConstructibleError(
                "another process is building into this folder.", fix="wait for it, or choose another folder", file=out
            ) from error
        yield
