"""``holotype bench``: how fast it is, how much it allocates, and whether that has got worse."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from fnmatch import fnmatchcase
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any, Literal

import click

from holotype_conformance.commands.check import (
    FAILED,
    OUTPUT,
    UNDECIDED,
    Unrunnable,
    load_specs,
    painter,
    require_writable,
    write_text,
)
from holotype_conformance.judge.time_limit import bad_limit
from holotype_conformance.report.terminal import BadInput
from holotype_conformance.run.orphans import adopted

if TYPE_CHECKING:
    from holotype_conformance.bench.records import BenchReport
    from holotype_conformance.bench.run import Found, Other
    from holotype_conformance.bench.side import Side
    from holotype_conformance.bench.workloads import Work
    from holotype_spec import Spec


@click.command("bench", short_help="How fast is an implementation, and has it got worse?")
@click.argument("target")
@click.option(
    "--spec",
    "specs",
    multiple=True,
    metavar="SPEC",
    help="TARGET is a model, of this spec; without, an attention kernel. May be repeated.",
)
@click.option(
    "--grid",
    type=click.Choice(["quick", "full"]),
    default="quick",
    show_default=True,
    help="How many configurations.",
)
@click.option("--only", multiple=True, metavar="GLOB", help="Only these configurations.")
@click.option("--gate", "gates", multiple=True, metavar="GLOB", help="Only these gates.")
@click.option(
    "--against",
    metavar="TARGET",
    help="Fail where it is slower than this one by more than 30 %.",
)
@click.option(
    "--against-version",
    metavar="VERSION",
    help="The same, 5 %, for TARGET at an earlier version: a commit, a wheel or a folder.",
)
@click.option("--device", default="cpu", show_default=True, help="Where tensors live: cpu, cuda, …")
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Same seed, same inputs.",
)
@click.option(
    "--json", "json_path", type=OUTPUT, metavar="FILE", help="Write JSON as pytest-benchmark does."
)
@click.option("--chart", type=OUTPUT, metavar="FILE", help="Draw throughput over length as SVG.")
@click.option(
    "--timeout",
    type=float,
    default=600.0,
    show_default=True,
    metavar="SECONDS",
    help="Processor time for one step of the work, 0 for no limit.",
)
@click.option("--verbose", is_flag=True, help="Show tracebacks and what TARGET printed.")
def bench(
    target: str,
    specs: tuple[str, ...],
    grid: Literal["quick", "full"],
    only: tuple[str, ...],
    gates: tuple[str, ...],
    against: str | None,
    against_version: str | None,
    device: str,
    seed: int,
    json_path: str | None,
    chart: str | None,
    timeout: float,
    verbose: bool,
) -> None:
    """How fast is the implementation TARGET, and has it got worse?

    TARGET is an attention kernel as for check-attention or, with --spec, a model as for check. It is measured on one
    thread, in CPU time, beside scaled_dot_product_attention and the reference, and held against gates: on counts, which
    are the same in every run, and on ratios of times that were taken in turns. Nothing wrong gets a time.

    Exit codes: 0 all gates are passed, 1 one is not, 2 bad input or nothing that ran, 3 it could not be run at all,
    4 undecided: some of it did not end in time.
    """
    for path in (json_path, chart):
        require_writable(path)
    if (complaint := bad_limit(timeout)) is not None:
        raise BadInput(f"--timeout: {complaint}")
    if against and against_version:
        raise BadInput("give --against or --against-version, not both")
    loaded = load_specs(specs) if specs else {}
    _check_gates(gates)
    works = _works(list(loaded.values()), grid, only)
    with ExitStack() as stack:
        start = partial(_started, stack, timeout=timeout, orphans=stack.enter_context(adopted()))
        with _reporting(target, verbose):
            ask = _open(target, tuple(loaded), device, seed)
            side = start(ask)
        with _reporting(against or against_version or "", verbose):
            other = _other(stack, start, ask, against, against_version)
        with _watching(len(works)) as watch, _reporting(target, verbose):
            report = _run(side, other, works, ask, grid, only, gates, watch)
    _write(report, json_path, chart)
    _conclude(report)


def _check_gates(globs: tuple[str, ...]) -> None:
    from holotype_conformance.bench.records import GATES

    for glob in globs:
        if not any(fnmatchcase(gate, glob) for gate in GATES):
            raise BadInput(f"--gate {glob!r} matches no gate: there are {', '.join(GATES)}")


def _works(specs: list[Spec], grid: Literal["quick", "full"], only: tuple[str, ...]) -> list[Work]:
    from holotype_conformance.bench.sizes import longest
    from holotype_conformance.bench.workloads import kernel_grid, model_grid

    works: list[Work] = [] if specs else list(kernel_grid(grid))
    for spec in specs:
        decodes = spec.architecture.structure != "encoder"
        works += model_grid(spec.name, grid, decodes=decodes, longest=longest(spec))
    chosen = [work for work in works if _asked(work.name, only)]
    if not chosen:
        raise BadInput(
            f"--only {' '.join(only)} matches no configuration: there are, among others,"
            f" {', '.join(repr(work.name) for work in works[:3])}"
        )
    return chosen


def _asked(name: str, globs: tuple[str, ...]) -> bool:
    return not globs or any(fnmatchcase(name, glob) for glob in globs)


def _open(target: str, specs: tuple[str, ...], device: str, seed: int) -> Any:
    from holotype_conformance.bench.protocol import Open

    kind: Literal["model", "attention"] = "model" if specs else "attention"
    return Open(target=target, kind=kind, specs=specs, seed=seed, device=device)


def _started(stack: ExitStack, ask: Any, **where: Any) -> Side:
    """A side in a process of its own, which ends with `stack`."""
    from holotype_conformance.bench.process import Process
    from holotype_conformance.bench.side import Side

    return Side(lambda: stack.enter_context(Process(**where)), ask)


def _other(
    stack: ExitStack,
    start: Callable[..., Side],
    ask: Any,
    against: str | None,
    version: str | None,
) -> Other | None:
    import msgspec

    from holotype_conformance.bench.pairs import OTHER_CODE, SAME_CODE
    from holotype_conformance.bench.run import Other

    if against is not None:
        side = start(msgspec.structs.replace(ask, target=against))
        return Other(side=side, title=side.opened.title, limit=OTHER_CODE, same_code=False)
    if version is None:
        return None
    from holotype_conformance.bench.versions import earlier

    place = earlier(version, ask.target, stack)
    ask = msgspec.structs.replace(ask, target=place.target)
    side = start(ask, paths=place.paths, folder=place.folder)
    return Other(side=side, title=place.title, limit=SAME_CODE, same_code=True)


@contextmanager
def _reporting(target: str, verbose: bool) -> Iterator[None]:
    """Turn what a side cannot do into our exit codes."""
    from holotype_conformance.bench.side import BadRequest, BenchError
    from holotype_conformance.report.text import clean

    try:
        yield
    except BenchError as error:
        if verbose and error.details:
            click.echo(clean(error.details), err=True)
        if isinstance(error, BadRequest):
            raise BadInput(clean(str(error))) from error
        hint = "" if verbose else " (--verbose shows more)"
        raise Unrunnable(clean(f"{target} could not be run at all: {error}{hint}")) from error


def _run(
    side: Side,
    other: Other | None,
    works: list[Work],
    ask: Any,
    grid: Literal["quick", "full"],
    only: tuple[str, ...],
    gates: tuple[str, ...],
    watch: Callable[[str], None],
) -> BenchReport:
    from holotype_conformance.bench.run import load, run
    from holotype_conformance.bench.workloads import memory_grid

    before = load()
    families = memory_grid(grid) if ask.kind == "attention" and not only else []
    found = run(side, works, families, other=other, gate_globs=gates or ("*",), watch=watch)
    return _report(found, side, other, ask, grid, (before, load()))


def _report(
    found: Found, side: Side, other: Other | None, ask: Any, grid: str, loads: tuple[float, float]
) -> BenchReport:
    from importlib.metadata import version

    from holotype_conformance.bench.records import BenchReport

    undecided = [each for each in found.measured if each.undecided]
    grown = [each for each in found.growth if each.undecided]
    return BenchReport(
        holotype=version("holotype"),
        target=ask.target,
        candidate=side.opened.title,
        kind=ask.kind,
        specs=ask.specs,
        against=other.title if other else None,
        grid=grid,
        seed=ask.seed,
        passed=all(verdict.passed for verdict in found.verdicts) and not (undecided or grown),
        environment=side.opened.environment,
        load=loads,
        control=found.control,
        measured=tuple(found.measured),
        growth=tuple(found.growth),
        gates=tuple(found.verdicts),
    )


@contextmanager
def _watching(total: int) -> Iterator[Callable[[str], None]]:
    """Says what is measured now: a bar on a terminal, elsewhere a line each, since it may take minutes."""
    if not sys.stderr.isatty():
        numbers = count(1)

        def tell(name: str) -> None:
            number = "" if name.startswith("memory ") else f"{next(numbers)} of {total}: "
            click.echo(f"{number}{name}", err=True)

        yield tell
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

    columns = (SpinnerColumn(), BarColumn(20), TextColumn("{task.description}"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("starting", total=total)

        def watch(name: str) -> None:
            step = 0 if name.startswith("memory ") else 1
            progress.update(task, description=name, advance=step)

        yield watch


def _write(report: BenchReport, json_path: str | None, chart: str | None) -> None:
    from holotype_conformance.bench.chart import svg
    from holotype_conformance.bench.storage import as_json
    from holotype_conformance.bench.text import bench_text

    if json_path is not None:
        write_text(json_path, as_json(report))
    if chart is not None:
        write_text(chart, svg(report))
    if "-" not in (json_path, chart):
        brush = painter()
        click.echo(bench_text(report, brush), color=brush.colour)


def _conclude(report: BenchReport) -> None:
    ran = any(each.lacks is None for each in report.measured)
    if not ran:
        raise BadInput(f"nothing was measured: {report.measured[0].lacks}")
    if report.failed():
        sys.exit(FAILED)
    if report.undecided():
        sys.exit(UNDECIDED)
