"""``holotype check``: hold an implementation against one spec or several."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click
import msgspec

from holotype_conformance.judge.time_limit import bad_limit, bad_seed
from holotype_conformance.report.outputs import Outputs
from holotype_conformance.report.outputs import require_writable as require_writable
from holotype_conformance.report.outputs import write_text as write_text
from holotype_conformance.report.terminal import WIDTH, BadInput, carries, complain, hush

if TYPE_CHECKING:
    from holotype_conformance.judge.records import AnyEvent, DType, Report, Request
    from holotype_conformance.report.text import Painter
    from holotype_conformance.run.run_record import Record
    from holotype_spec import Spec

FAILED, UNRUNNABLE, UNDECIDED = 1, 3, 4
SECONDS = {"quick": 60.0, "full": 600.0}
OUTPUT = click.Path(dir_okay=False, allow_dash=True)


class Unrunnable(click.ClickException):
    """The candidate could not be run at all."""

    exit_code = UNRUNNABLE


Command = Callable[..., None]


def _refusing(complaint: Callable[[Any], str | None]) -> Callable[..., Any]:
    """A callback of click that refuses a value of which `complaint` has something to say."""

    def callback(_context: click.Context, _parameter: click.Parameter, value: Any) -> Any:
        if value is not None and (said := complaint(value)) is not None:
            raise click.BadParameter(said)
        return value

    return callback


def run_options(*, things: str, drawn: str, subject: str) -> Callable[[Command], Command]:
    """The options of every command that checks something, in the order of its help.

    The help calls what is checked `subject`; `things` live on a device, and a seed decides what is `drawn`.
    """
    options = [
        click.option(
            "--property",
            "properties",
            multiple=True,
            metavar="GLOB",
            help="Only these properties. May be repeated.",
        ),
        click.option(
            "--profile",
            type=click.Choice(["quick", "full"]),
            default="quick",
            show_default=True,
            help="How many cases are drawn.",
        ),
        click.option(
            "--device",
            default="cpu",
            show_default=True,
            help=f"Where {things} live: cpu, cuda, cuda:N.",
        ),
        click.option(
            "--dtype",
            "dtypes",
            type=click.Choice(["float64", "float32", "bfloat16", "float16"]),
            multiple=True,
            help="Compare numbers in this one only. May be repeated.",
        ),
        click.option(
            "--seed",
            type=click.IntRange(min=0),
            callback=_refusing(bad_seed),
            default=0,
            show_default=True,
            help=f"Same seed, same cases and {drawn}.",
        ),
        click.option("--case", metavar="JSON", help="Run exactly this case of one property."),
        click.option(
            "--timeout",
            type=click.FloatRange(min=0),
            callback=_refusing(bad_limit),
            metavar="SECONDS",
            help="Processor time for one property; 0 for no limit.  [default: 60, or 600 in full]",
        ),
        click.option(
            "--expected-failures",
            type=click.Path(dir_okay=False),
            metavar="FILE",
            help='Known failures, TOML lines: "property" = "reason". Strict.',
        ),
        click.option(
            "--json",
            "json_path",
            type=OUTPUT,
            metavar="FILE",
            help="Write the results as JSON; - for standard output.",
        ),
        click.option(
            "--junit",
            "junit_path",
            type=OUTPUT,
            metavar="FILE",
            help="Write the results as JUnit XML.",
        ),
        click.option(
            "--html",
            "html_path",
            type=OUTPUT,
            metavar="FILE",
            help="Write the results as one HTML page.",
        ),
        click.option(
            "--verbose", is_flag=True, help=f"Show tracebacks and what the {subject} printed."
        ),
    ]

    def add(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return add


@click.command("check", short_help="Is an implementation the model that a spec describes?")
@click.argument("target")
@click.option(
    "--spec",
    "specs",
    multiple=True,
    metavar="SPEC",
    help="What it claims to be (see holotype list). May be repeated.",
)
@run_options(things="models", drawn="weights", subject="candidate")
def check(
    target: str,
    specs: tuple[str, ...],
    properties: tuple[str, ...],
    profile: Literal["quick", "full"],
    device: str,
    dtypes: tuple[DType, ...],
    seed: int,
    case: str | None,
    timeout: float | None,
    expected_failures: str | None,
    json_path: str | None,
    junit_path: str | None,
    html_path: str | None,
    verbose: bool,
) -> None:
    """Is the implementation TARGET the model that SPEC describes?

    TARGET is package.module:attribute or path/to/file.py:attribute, where the attribute is a function
    build(spec) -> torch.nn.Module or a Candidate; or an adapter: reference, hf, hf:ClassName.

    Exit codes: 0 it conforms, 1 it does not, 2 bad input or nothing that ran, 3 it could not be run at all, 4
    undecided: no number was compared, or something that it must do did not end, or the suite went wrong.
    """
    from holotype_conformance.judge.records import Request
    from holotype_spec import count_parameters

    paths = {"json": json_path, "junit": junit_path, "html": html_path}
    outputs = Outputs(paths, inputs=[expected_failures, *specs])
    loaded = load_specs(specs)
    request = Request(
        target=target,
        specs=tuple(loaded),
        properties=properties,
        profile=profile,
        seed=seed,
        device=device,
        dtypes=dtypes,
        case=json_object(case),
        limit=SECONDS[profile] if timeout is None else timeout,
        expected=expected(expected_failures),
        written={spec.name: written for written, spec in loaded.items()},
    )
    parameters = {
        spec.name: None if spec.family.generic else count_parameters(spec).total
        for spec in loaded.values()
    }
    carry_out(request, parameters, outputs, verbose=verbose)


# Reading what was given -------------------------------------------------------------------------------------------


def load_specs(specs: Sequence[str]) -> dict[str, Spec]:
    """The name as it was written -> spec, each spec once."""
    from holotype_spec import SpecError, UnknownSpec, load

    if not specs:
        raise BadInput("nothing to check against: give --spec SPEC (`holotype list` names all)")
    loaded: dict[str, Spec] = {}
    for written in specs:
        try:
            spec = load(written)
        except (UnknownSpec, SpecError) as error:
            raise BadInput(f"{error}{_generic_instead(written, error)}") from error
        if spec in loaded.values():
            continue
        if any(spec.name == other.name for other in loaded.values()):
            raise BadInput(f"two different specs are called {spec.name!r}: check them in two runs")
        loaded[written if ".toml" in written else spec.name] = spec
    return loaded


def _generic_instead(written: str, error: Exception) -> str:
    """A hint at what can be checked of a model of which too little is known, if that is the fault."""
    from holotype_spec import NoSpec, Sketch, UndisclosedValue, find

    if not isinstance(error, NoSpec):
        return ""
    entry = find(written)
    if not isinstance(entry, Sketch):
        return ""
    try:
        structure = entry.known.architecture.structure
        kind = "causal-decoder" if structure == "decoder" else structure
    except UndisclosedValue:  # raised when the value is used, not when it is fetched
        return (
            "; the generic specs (`holotype list --family generic`) ask for no more than its kind"
        )
    return f"; --spec {kind} checks what needs to know no more than that"


def json_object(case: str | None) -> str | None:
    """`case`, if it is a JSON object."""
    if case is None:
        return None
    from holotype_spec.reading import Unreadable, parse_json

    told = case if len(case) <= 200 else f"{case[:200]}…"
    try:
        value = parse_json(case, f"--case {told!r}")
    except Unreadable as error:
        raise BadInput(f"{error}; copy it from a rerun line") from error
    if not isinstance(value, dict):
        raise BadInput(f"--case {told!r}: expected a JSON object; copy it from a rerun line")
    return case


def expected(path: str | None) -> dict[str, str]:
    """The list of expected failures in a file."""
    from holotype_conformance.judge.expected_failures import ExpectedError, read_expected

    if path is None:
        return {}
    try:
        return read_expected(Path(path))
    except ExpectedError as error:
        raise BadInput(str(error)) from error


# Running ----------------------------------------------------------------------------------------------------------


def carry_out(
    request: Request, parameters: dict[str, int | None], outputs: Outputs, *, verbose: bool
) -> None:
    """Run the request, write and show what came of it, and leave with the exit code that it has."""
    from importlib.metadata import version

    from holotype_conformance.run.journal import Begun, journal, reports_of

    begun = Begun(holotype=version("holotype"), request=request, parameters=parameters)
    with journal(outputs.journal, begun) as kept:
        record = supervised(request, verbose=verbose, also=kept.watch)
        kept.end()
        tell(reports_of(begun, record), outputs, verbose=verbose, written=kept.remove)


def supervised(
    request: Request, *, verbose: bool, also: Callable[[AnyEvent, Record], None] | None = None
) -> Record:
    """The record of the request's run; of a candidate that cannot be run, the reason. `also` sees every event.

    Raises:
        BadInput: the request makes no sense.
    """
    from holotype_conformance.run.progress import watching
    from holotype_conformance.run.supervisor import (
        CandidateUnrunnable,
        Record,
        RequestRejected,
        supervise,
    )

    try:
        with watching(request) as watch:

            def both(event: AnyEvent, record: Record) -> None:
                watch(event, record)
                if also is not None:
                    also(event, record)

            return supervise(request, both)
    except CandidateUnrunnable as error:
        if verbose and error.details:
            complain(error.details)
        return Record(unusable={spec: str(error) for spec in request.specs})
    except RequestRejected as error:
        if verbose and error.details:
            complain(error.details)
        raise BadInput(str(error)) from error


def report(request: Request, record: Record, spec: str, *, parameters: int | None) -> Report:
    """One spec's part of a run."""
    from importlib.metadata import version

    from holotype_conformance.run.journal import Begun, reports_of

    alone = msgspec.structs.replace(request, specs=(spec,))
    begun = Begun(holotype=version("holotype"), request=alone, parameters={spec: parameters})
    return reports_of(begun, record)[0]


# Saying what came of it -------------------------------------------------------------------------------------------


def tell(
    reports: list[Report],
    outputs: Outputs,
    *,
    verbose: bool,
    written: Callable[[], None] = lambda: None,
) -> None:
    """Write every output, show the text, call `written` if nothing failed, and leave with the exit code.

    Raises:
        BadInput: an output cannot be written; everything else was.
    """
    complaints = outputs.write(reports)
    if not complaints:
        written()
    if not outputs.on_screen:
        show(reports, verbose=verbose)
    if complaints:
        kept = outputs.journal
        hint = f"; `holotype report {kept}` has the results" if kept and kept.exists() else ""
        raise BadInput("; ".join(complaints) + hint)
    conclude(reports, verbose=verbose)


def show(reports: list[Report], *, verbose: bool) -> None:
    """The reports as text on standard output."""
    from holotype_conformance.report.text import report_text

    brush = painter()
    texts = [
        report_text(report, brush, verbose=verbose)
        for report in reports
        if report.unusable is None or len(reports) > 1
    ]
    try:
        if texts:
            click.echo("\n\n".join(texts), color=brush.colour)
    except OSError:  # closed, full or gone: the exit code still says what came of it
        hush()


def painter() -> Painter:
    from holotype_conformance.report.text import MARKS, Painter

    terminal = sys.stdout.isatty()
    plain = "NO_COLOR" in os.environ or os.environ.get("TERM") == "dumb"
    unicode = carries("".join([*MARKS.values(), "…·"]))
    columns = shutil.get_terminal_size((WIDTH, 24)).columns if terminal else WIDTH
    return Painter(colour=terminal and not plain, unicode=unicode, width=min(max(columns, 50), 100))


def conclude(reports: list[Report], *, verbose: bool) -> None:
    """The exit code, and on standard error what keeps a run from being a verdict."""
    from holotype_conformance.report.text import clean

    name = reports[0].interrupted or ""
    if name in signal.Signals.__members__:
        left = sum(report.counts["not-run"] for report in reports)
        complain(f"interrupted by {name}: {left} properties were not run")
        sys.exit(128 + signal.Signals[name])
    if all(report.unusable is not None for report in reports):
        first = reports[0]
        reason = clean(f"{first.candidate} could not be run at all: {first.unusable}")
        hint = "" if verbose else " (--verbose shows more)"
        raise Unrunnable(f"{reason}{hint}")
    verdicts = {report.verdict for report in reports}
    if "does-not-conform" in verdicts:
        sys.exit(FAILED)
    if any(report.unusable is not None for report in reports):
        sys.exit(UNRUNNABLE)
    idle = [report.spec for report in reports if report.verdict == "not-run"]
    if idle:
        raise BadInput(
            f"nothing ran for {', '.join(idle)}: every property that was asked for was skipped,"
            " so that there is no verdict"
        )
    if "undecided" in verdicts:
        sys.exit(UNDECIDED)
