"""``holotype report``: the report of a run that is over, from what it left behind."""

from __future__ import annotations

import click

from holotype_conformance.commands.check import OUTPUT, tell
from holotype_conformance.report.outputs import Outputs
from holotype_conformance.report.terminal import BadInput


@click.command("report", short_help="What did an earlier run find?")
@click.argument("file", type=click.Path())
@click.option("--json", "json_path", type=OUTPUT, metavar="FILE", help="Write it as JSON.")
@click.option("--junit", "junit_path", type=OUTPUT, metavar="FILE", help="Write it as JUnit XML.")
@click.option("--html", "html_path", type=OUTPUT, metavar="FILE", help="Write it as one HTML page.")
@click.option("--verbose", is_flag=True, help="Show tracebacks and what the candidate printed.")
def report(
    file: str,
    json_path: str | None,
    junit_path: str | None,
    html_path: str | None,
    verbose: bool,
) -> None:
    """What did the run find whose results FILE holds?

    FILE is what `check --json` or `check-attention --json` wrote, or the FILE.partial that stands beside an output
    while a run goes on, and stays there if the run is killed: what it had judged is in it.

    Exit codes are those of `check`.
    """
    from holotype_conformance.run.journal import read_reports
    from holotype_spec.reading import Unreadable

    paths = {"json": json_path, "junit": junit_path, "html": html_path}
    outputs = Outputs(paths, inputs=[file])
    try:
        reports = read_reports(file)
    except Unreadable as error:
        raise BadInput(str(error)) from error
    tell(reports, outputs, verbose=verbose)
