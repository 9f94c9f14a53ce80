"""Progress on stderr: a live line in a terminal, a plain line now and then in a log. Never on stdout."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress


def clock(seconds: float) -> str:
    """Format seconds as 0:07, 3:05 or 1:02:03; unknown (infinite or negative) as "?"."""
    if not 0 <= seconds < 1e7:
        return "?"
    minutes, rest = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def count(number: float) -> str:
    """Format a number for a progress line: 950, 12.3k, 4.5M."""
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= limit:
            return f"{number / limit:.1f}{unit}"
    return f"{number:.0f}"


class Progress:
    """One place that reports what a long command is doing.

    Args:
        stream: where to write; stderr by default.
        every_seconds: how often a plain line is written where the stream is not a terminal.
        quiet: write nothing at all.
    """

    def __init__(self, stream: TextIO | None = None, every_seconds: float = 10.0, quiet: bool = False) -> None:
        self._given = stream
        self.every_seconds, self.quiet = every_seconds, quiet
        self._started = time.monotonic()
        self._live: RichProgress | None = None

    @property
    def stream(self) -> TextIO:
        return self._given if self._given is not None else sys.stderr

    @property
    def _terminal(self) -> bool:
        return not self.quiet and self.stream.isatty()

    def note(self, text: str) -> None:
        """Write one line that stays."""
        if self.quiet:
            return
        if self._live is not None:
            self._live.console.print(text, markup=False, highlight=False)
        else:
            print(f"[{clock(time.monotonic() - self._started)}] {text}", file=self.stream, flush=True)

    @contextmanager
    def task(self, name: str, total: float | None = None, unit: str = "") -> Iterator[Task]:
        """Report one piece of work: `with progress.task("counting", files) as task: task.advance()`."""
        if not self._terminal or self._live is not None:
            yield Task(self, name, total, unit)
            return
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as RichProgress

        columns = [
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.fields[detail]}", markup=False),
        ]
        with RichProgress(*columns, console=Console(file=self.stream), transient=True, refresh_per_second=5) as live:
            self._live = live
            try:
                yield Task(self, name, total, unit, live.add_task(name, total=total, detail=""))
            finally:
                self._live = None


class Task:
    """A piece of work in progress; see `Progress.task`."""

    def __init__(self, progress: Progress, name: str, total: float | None, unit: str, live: int | None = None) -> None:
        self._progress, self.name, self.total, self.unit, self._live = progress, name, total, unit, live
        self.done = 0.0
        self._begun = self._told = time.monotonic()

    def advance(self, amount: float = 1.0, detail: str = "") -> None:
        """Count `amount` more as done."""
        self.update(self.done + amount, detail)

    def update(
        self, done: float, detail: str = "", seconds_left: float | None = None, total: float | None = None
    ) -> None:
        """Set how much is done; `detail` replaces the rate, `seconds_left` the estimate from the rate."""
        self.done, self.total = done, self.total if total is None else total
        now = time.monotonic()
        live = self._progress._live
        if live is None and (self._progress.quiet or now - self._told < self._progress.every_seconds):
            return
        text = self._text(now, detail, seconds_left)
        if live is not None and self._live is not None:
            live.update(self._live, completed=done, total=self.total, detail=text)  # type: ignore[arg-type]
        elif now - self._told >= self._progress.every_seconds:
            self._told = now
            share = f" {100 * done / self.total:.0f} %" if self.total else ""
            self._progress.note(f"{self.name}:{share} {text}")

    def _text(self, now: float, detail: str, seconds_left: float | None) -> str:
        rate = self.done / max(1e-9, now - self._begun)
        parts = [detail or f"{count(self.done)}{' ' + self.unit if self.unit else ''}, {count(rate)}/s"]
        if seconds_left is None and self.total and rate > 0:
            seconds_left = (self.total - self.done) / rate
        if seconds_left is not None:
            parts.append(f"{clock(seconds_left)} left")
        return ", ".join(parts)
