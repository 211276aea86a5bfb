"""What all commands keep to: how wide their text is, and how bad input is told."""

from __future__ import annotations

import click

WIDTH = 80


class BadInput(click.ClickException):
    """What the user gave cannot be used; one paragraph on standard error and exit code 2."""

    exit_code = 2
