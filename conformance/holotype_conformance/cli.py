"""The command line: ``holotype``, a group of the commands that `COMMANDS` names.

Commands are imported when they are called for, so that ``holotype list`` pays for nothing that it does not use.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from difflib import get_close_matches
from functools import partial
from importlib import import_module
from textwrap import wrap
from typing import Any

import click

from holotype_conformance.report.terminal import WIDTH, complain, fill_closed_streams, hush

COMMANDS = {
    "bench": "bench:bench",
    "audit": "audit:audit",
    "check": "check:check",
    "check-attention": "check_attention:check_attention",
    "diff": "catalogue:diff_specs",
    "explain": "explain:explain",
    "identify": "identify:identify_file",
    "list": "catalogue:list_specs",
    "masks": "masks:masks",
    "report": "report:report",
    "show": "catalogue:show_spec",
}
INTERRUPTED = 130
GONE = 141  # as shells tell of what ended because nobody read its output any more
BROKEN = 3  # nothing was judged, as when a candidate cannot be run


class LazyGroup(click.Group):
    """A group whose commands live in modules that are imported on demand."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands in the order of the alphabet."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """The command `name`, imported."""
        if name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[name].partition(":")
        command: click.Command = getattr(
            import_module(f"holotype_conformance.commands.{module}"), attribute
        )
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does it, and a misspelt name is told which are most like it."""
        if args[0] not in COMMANDS and (near := get_close_matches(args[0], COMMANDS)):
            ctx.fail(f"No such command {args[0]!r}: did you mean {' or '.join(near)}?")
        return super().resolve_command(ctx, args)

    def main(  # type: ignore[override]  # click's has overloads, and takes the same
        self, args: Sequence[str] | None = None, *, standalone_mode: bool = True, **options: Any
    ) -> Any:
        """As click does it, with the right exit code where a stream is closed, full or read no more."""
        if not standalone_mode:
            return super().main(args, standalone_mode=False, **options)
        fill_closed_streams()
        try:
            code = super().main(args, standalone_mode=False, **options)
        except click.ClickException as error:
            try:
                error.show()
            except OSError:  # an error that has no place to be told in keeps its exit code
                hush("stderr")
            code = error.exit_code
        except click.Abort:
            complain("interrupted")
            code = INTERRUPTED
        sys.exit(code if isinstance(code, int) else 0)

    def invoke(self, ctx: click.Context) -> Any:
        """Run, and never let a mistake of ours end with the exit code that means "does not conform"."""
        try:
            return super().invoke(ctx)
        except click.ClickException as error:
            if sys.stderr.isatty():  # a file or a pipe gets whole lines, in which one can search
                vars(error)["format_message"] = partial(folded, error.format_message())
            raise
        except (click.exceptions.Exit, click.Abort):
            raise
        except BrokenPipeError:
            hush()  # whoever read it has had enough
            raise click.exceptions.Exit(GONE) from None
        except OSError as error:
            sys.stdout = sys.stderr  # what is left of the output has no place to go
            where = error.filename or "the output"
            complain(f"Error: {where} cannot be read or written: {error.strerror}")
            raise click.exceptions.Exit(BROKEN) from error
        except KeyboardInterrupt:
            complain("interrupted")
            raise click.exceptions.Exit(INTERRUPTED) from None
        except Exception as error:
            if "--verbose" in sys.argv:
                traceback.print_exc()
            complain(
                f"Error: holotype itself failed with {type(error).__name__}: {error}."
                " This is a mistake of ours; --verbose shows where."
            )
            raise click.exceptions.Exit(BROKEN) from error


def folded(message: str) -> str:
    """An error as lines of eighty columns, the first of which follows "Error: "; addresses and paths stay whole."""
    prefix = "Error: "
    lines = [
        part
        for line in f"{prefix}{message}".splitlines()
        for part in wrap(line, WIDTH, break_long_words=False, break_on_hyphens=False) or [""]
    ]
    return "\n".join(lines).removeprefix(prefix)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="holotype", prog_name="holotype")
def main() -> None:
    """Is an implementation the language model that it claims to be?

    Specs say what documented models are; `check` holds an implementation against one, `check-attention` an
    attention kernel against the formula.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(
                errors="replace"
            )  # an output that cannot carry a letter is no reason to die
