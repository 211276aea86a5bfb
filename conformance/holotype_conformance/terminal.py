"""What all commands keep to: how wide their text is, and how bad input is told."""

from __future__ import annotations

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


class BadInput(click.ClickException):
    """What the user gave cannot be used; one paragraph on standard error and exit code 2."""

    exit_code = 2
