"""Errors that a person can act on: each names the place and the fix, and carries its exit code."""

from __future__ import annotations

from pathlib import Path

EXIT_DONE, EXIT_FAILED, EXIT_USAGE, EXIT_CHECK = 0, 1, 2, 3


class ConstructibleError(Exception):
    """Something went wrong that the user can repair.

    Args:
        message: what is wrong, one sentence.
        fix: what to do about it, one sentence.
        file: the file at fault, where there is one.
        line: 1-based line in that file, where there is one.
    """

    exit_code = EXIT_FAILED

    def __init__(
        self,
        message: str,
        *,
        fix: str = "",
        file: str | Path | None = None,
        line: int | None = None,
    ) -> None:
        self.message, self.fix, self.file, self.line = message, fix, file, line
        super().__init__(str(self))

    def __str__(self) -> str:
        place = ""
        if self.file is not None:
            place = f"{self.file}:{self.line}: " if self.line is not None else f"{self.file}: "
        return f"{place}{self.message}" + (f" Fix: {self.fix}" if self.fix else "")


class UsageError(ConstructibleError):
    """The command, option or value given makes no sense."""

    exit_code = EXIT_USAGE


class CheckFailed(ConstructibleError):
    """A check that was asked for ran and did not pass."""

    exit_code = EXIT_CHECK


class MissingExtra(ConstructibleError):
    """An optional package is not installed; the message names the extra that brings it."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(
            f"the package {package!r} is not installed.",
            fix=f"pip install 'constructible[{extra}]'",
        )


def did_you_mean(name: str, known: list[str]) -> str:
    """Return ' Did you mean ...?' for the nearest known name, or the list when none is near."""
    import difflib

    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f" Did you mean {near[0]!r}?" if near else f" Known: {', '.join(sorted(known))}."
