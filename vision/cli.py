"""`constructible vision`: the place of the image track, which does not exist yet and says so."""

from __future__ import annotations

from typing import NoReturn

import click

from ontology.errors import UsageError


def _refuse() -> NoReturn:
    raise UsageError(
        "the image track is not built yet, so `vision` has no commands.",
        fix="use the code track: constructible cgpt --help",
    )


class _NotBuilt(click.Group):
    """A group that refuses every command by the same clear line, instead of "no such command"."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> NoReturn:
        _refuse()


@click.group(cls=_NotBuilt, invoke_without_command=True)
def vision() -> None:
    """Constructed image recogniser (not built yet: there are no commands here)."""
    _refuse()
