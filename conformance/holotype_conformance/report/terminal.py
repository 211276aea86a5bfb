"""Rules that all commands keep to: the width of their text, and the messages about bad input."""

from __future__ import annotations

import os
import sys

import click

WIDTH = 80


def carries(letters: str) -> bool:
    """Whether standard output has these letters in its encoding."""
    try:
        letters.encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def complain(text: str) -> None:
    """Write to standard error, if that leads anywhere."""
    try:
        click.echo(text, err=True)
    except OSError:
        hush("stderr")


def hush(name: str = "stdout") -> None:
    """From now on standard output leads nowhere: what it led to is closed, full or gone.

    What waits in its buffer goes there too, so that the end of the process finds nothing to fail on.
    """
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, getattr(sys, name).fileno())
    except (OSError, ValueError, AttributeError):
        setattr(sys, name, os.fdopen(os.dup(nowhere), "w", encoding="utf-8"))
    finally:
        os.close(nowhere)


def fill_closed_streams() -> None:
    """Give a process that was started with a closed standard stream one that leads nowhere.

    Else the next file that it opens takes the number of that stream, and gets what was meant for a reader.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115  to the end


class BadInput(click.ClickException):
    """Bad input of the user; one paragraph on standard error and exit code 2."""

    exit_code = 2
