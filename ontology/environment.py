"""What a run was made with: versions, machine, memory, and the seconds it has used."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import platform
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from threadpoolctl import ThreadpoolController

from ontology.errors import ConstructibleError
from ontology.io import read_json, write_json

PACKAGES = (
    "constructible", "numpy", "torch", "triton", "numba", "tokenizers", "transformers", "safetensors", "datasets",
    "pyarrow", "networkx", "pydantic", "pydivsufsort", "kernels",
)  # fmt: skip
LEDGER_FORMAT = "constructible-ledger/1"


def version() -> str:
    """Return the installed version of this distribution, or "0 (not installed)"."""
    return _version("constructible") or "0 (not installed)"


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def describe() -> dict[str, Any]:
    """Return what a run depends on: Python, platform, processor, threads, package versions, and the git commit where
    the current folder is a checkout. Imports none of the packages it names."""
    return {
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "platform": platform.platform(),
        "cpu": cpu_model(),
        "cpus": usable_cpus(),
        "threads": threads(),
        "memory_bytes": _memory_bytes(),
        "packages": {name: found for name in PACKAGES if (found := _version(name)) is not None},
        "git": _git(),
    }


def usable_cpus() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads() -> int:
    """Return the threads that numeric libraries will use: torch's own number if it is loaded, else the setting."""
    torch = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "get_num_threads"):
        return int(torch.get_num_threads())
    setting = os.environ.get("OMP_NUM_THREADS", "")
    return int(setting) if setting.isdigit() and int(setting) > 0 else usable_cpus()


_products = threading.Lock()
_inside: list[Any] = []  # a limit for every one who is inside; the first one's knows what it was before


@contextmanager
def single_threaded_products() -> Iterator[None]:
    """Let numpy multiply matrices on one thread meanwhile, whoever else is inside as well.

    Results then do not depend on how many threads there are, and callers on several threads do not get in each other's
    way. What was set before holds again when the last one has left. Enter it on the main thread first: OpenBLAS heeds
    no other (measured with numpy 2.4.6).
    """
    with _products:
        _inside.append(_controller().limit(limits=1, user_api="blas") if not _inside else None)
    try:
        yield
    finally:
        with _products:
            if len(_inside) == 1:
                _inside[0].restore_original_limits()
            _inside.pop()


@functools.cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController()


def cpu_model() -> str:
    """Return the processor's name."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.lower().startswith(("model name", "hardware")):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass  # not Linux: ask the platform module
    return platform.processor() or platform.machine()


def peak_rss_bytes() -> int:
    """Return the most memory this process has held at once, in bytes."""
    try:
        # The kernel hands `ru_maxrss` on from a parent to its child, a large parent's peak would be ours.
        for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass  # not Linux
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak) if sys.platform == "darwin" else int(peak) * 1024


def _memory_bytes() -> int:
    import psutil

    return int(psutil.virtual_memory().total)


def _git() -> dict[str, Any] | None:
    """Commit of the checkout that this code runs from, wherever it was called, and whether anything outside of docs is
    `changed` there; None for an installed copy."""
    here = str(Path(__file__).resolve().parent)

    def ask(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", here, *arguments], capture_output=True, text=True, timeout=10, check=False
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    # An installed copy may lie in another project's checkout, which does not know it.
    commit = ask("rev-parse", "HEAD") if ask("ls-files", "--error-unmatch", "environment.py") else None
    if commit is None:
        return None
    # Studies write their results to docs as they go, which does not make the next row another code's.
    return {"commit": commit, "changed": bool(ask("status", "--porcelain", "-uno", "--", ":/", ":(exclude,top)docs"))}


class Ledger:
    """Wall-clock seconds a build has used, by job, kept in a file so that a killed build knows what it used.

    An entry belongs to a key: where a job's inputs change its seconds start again at zero.

    Args:
        path: the JSON file; created when the first seconds are charged.
        every_seconds: how often the file is brought up to date while a job runs.
    """

    def __init__(self, path: str | Path, every_seconds: float = 2.0) -> None:
        self.path, self.every_seconds = Path(path), every_seconds
        self._jobs: dict[str, dict[str, Any]] = {}
        self._running: tuple[str, float, float] | None = None  # name, seconds before, started at
        self._written = 0.0
        self._lock = threading.RLock()
        if self.path.exists():
            stored = read_json(self.path)
            if not isinstance(stored, dict) or stored.get("format") != LEDGER_FORMAT:
                raise ConstructibleError(
                    "not a ledger of this version.", fix="move it away or use a new folder", file=path
                )
            self._jobs = stored["jobs"]

    @property
    def seconds(self) -> float:
        """All seconds used so far."""
        with self._lock:
            self._update()
            return float(sum(job["seconds"] for job in self._jobs.values()))

    def of(self, name: str) -> float:
        """Seconds used so far by one job."""
        with self._lock:
            self._update()
            return float(self._jobs.get(name, {}).get("seconds", 0.0))

    def jobs(self) -> dict[str, float]:
        """Seconds of each job."""
        with self._lock:
            self._update()
            return {name: float(job["seconds"]) for name, job in sorted(self._jobs.items())}

    def key(self, name: str) -> str | None:
        """The key a job's seconds belong to, None where it has none."""
        with self._lock:
            return self._jobs.get(name, {}).get("key")

    def keep(self, keys: dict[str, str]) -> None:
        """Forget entries that were made under a key and are not among these names with these keys; entries without a
        key (work outside of a plan) stay."""
        with self._lock:
            self._jobs = {name: job for name, job in self._jobs.items() if job["key"] in ("", keys.get(name))}

    def split(self, name: str, keys: dict[str, str]) -> None:
        """Divide the seconds of one entry equally among others, given with their keys."""
        with self._lock:
            seconds = float(self._jobs.pop(name)["seconds"])
            for member, key in keys.items():
                self._jobs[member] = {"key": key, "seconds": round(seconds / len(keys), 3)}
            self.write()

    def credit(self, name: str, key: str, seconds: float) -> None:
        """Enter work that was taken over finished, with the seconds it took when it was done."""
        with self._lock:
            self._jobs[name] = {"key": key, "seconds": float(seconds)}
            self.write()

    @contextmanager
    def charge(self, name: str, key: str = "", *, again: bool = False) -> Iterator[None]:
        """Charge the seconds of a `with` block to a job; they add to those it used before under the same key.

        Args:
            again: start at zero although the key is the same (for work that is done anew on every run).
        """
        with self._lock:
            if self._running is not None:
                raise ConstructibleError(
                    f"{name!r} is charged inside of {self._running[0]!r}.", fix="charge one at a time"
                )
            before = self._jobs.get(name)
            kept = float(before["seconds"]) if before and before["key"] == key and not again else 0.0
            self._jobs[name] = {"key": key, "seconds": kept}
            self._running = (name, kept, time.monotonic())
            self.write()
        stop = threading.Event()
        # A thread keeps the file fresh even while a job sits in one long native call.
        keeper = threading.Thread(target=self._keep, args=(stop,), name="ledger", daemon=True)
        keeper.start()
        try:
            yield
        finally:
            stop.set()
            keeper.join()
            with self._lock:
                self._update()
                self._running = None
                self.write()

    def write(self) -> None:
        """Bring the file up to date."""
        with self._lock:
            self._update()
            total = float(sum(job["seconds"] for job in self._jobs.values()))
            write_json(self.path, {"format": LEDGER_FORMAT, "seconds": round(total, 3), "jobs": self._jobs})
            self._written = time.monotonic()

    def _update(self) -> None:
        if self._running is not None:
            name, before, started = self._running
            self._jobs[name]["seconds"] = round(before + time.monotonic() - started, 3)

    def _keep(self, stop: threading.Event) -> None:
        while not stop.wait(self.every_seconds):
            try:
                self.write()
            except ConstructibleError:
                return  # a full disk: the job's own writes report it
