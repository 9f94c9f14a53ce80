"""The `constructible` command: finds its groups by name and imports one only when it is used."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import click

from kernels.memory import keep_freed_memory
from ontology.errors import EXIT_DONE, EXIT_FAILED, EXIT_USAGE, ConstructibleError, did_you_mean
from ontology.registry import COMMANDS, Registry
from ontology.waiting import threads_wait_briefly

EXIT_INTERRUPTED = 130


class LazyGroup(click.Group):
    """A click group whose commands come from a registry of "module:attribute"."""

    registry: Registry = COMMANDS

    def list_commands(self, ctx: click.Context) -> list[str]:
        return self.registry.names()

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return self.registry.load(cmd_name) if cmd_name in self.registry.names() else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        known = self.registry.names()
        if args and args[0] not in known and not args[0].startswith("-"):
            ctx.fail(f"No such command {args[0]!r}." + did_you_mean(args[0], known))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List every command; one that cannot be imported is listed with the reason and hides no other."""
        rows: list[tuple[str, str]] = []
        for name in self.list_commands(ctx):
            try:
                command = self.get_command(ctx, name)
                rows.append((name, command.get_short_help_str(80) if command else ""))
            except ConstructibleError as error:
                rows.append((name, f"(broken: {error.message})"))
        if rows:
            with formatter.section("Commands"):
                formatter.write_dl(rows)


def _version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from ontology.environment import version

        click.echo(f"constructible {version()}")
        ctx.exit()


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Show the version.")
def constructible() -> None:
    """Models built from named concepts that a person can read, review and change.

    Results go to stdout (--json for machines), progress to stderr; the same command again resumes.
    Exit codes: 0 done, 1 failed, 2 bad usage, 3 a check failed.
    """


def run(group: click.Command, arguments: Sequence[str] | None = None) -> int:
    """Run a click command and return its exit code, as `exit_code` does."""
    return exit_code(lambda: group.main(args=None if arguments is None else list(arguments), standalone_mode=False))


def exit_code(action: Callable[[], Any]) -> int:
    """Do something and return the process's exit code; errors that a user can repair become one line on stderr.

    What returns an int decides the code itself. With CONSTRUCTIBLE_DEBUG=1 the traceback is shown as well.
    """
    try:
        result = action()
        return result if isinstance(result, int) else EXIT_DONE
    except ConstructibleError as error:
        return _report(str(error), error.exit_code)
    except click.ClickException as error:
        # From click 8.2 on a group without a command raises its whole help as the message.
        if isinstance(error, getattr(click.exceptions, "NoArgsIsHelpError", ())):
            click.echo(error.format_message())
            return EXIT_USAGE
        where = f" (see `{error.ctx.command_path} --help`)" if getattr(error, "ctx", None) else ""  # type: ignore[attr-defined]
        return _report(error.format_message() + where, EXIT_USAGE)
    except (KeyboardInterrupt, click.Abort):
        return _report("stopped; the same command again resumes where it can.", EXIT_INTERRUPTED)
    except MemoryError:
        return _report("out of memory. Fix: use less data, or a machine with more memory", EXIT_FAILED)
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        return _report(
            f"{place}{error.strerror or error}. Fix: check the path, its permissions and free space", EXIT_FAILED
        )


def _report(message: str, code: int) -> int:
    if os.environ.get("CONSTRUCTIBLE_DEBUG") == "1":
        traceback.print_exc()
    click.echo("error: " + " ".join(message.split("\n")), err=True)
    return code


def main() -> None:
    """Entry point of the console script."""
    threads_wait_briefly()
    keep_freed_memory()
    sys.exit(run(constructible))


if __name__ == "__main__":
    main()
