"""Progress, when a person is watching: one line on standard error that goes away at the end."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from holotype_conformance.judge.records import AnyEvent, Collected, Finished, Request, Started
from holotype_conformance.run.supervisor import Record

Watch = Callable[[AnyEvent, Record], None]


@contextmanager
def watching(request: Request) -> Iterator[Watch]:
    """A listener to the events of a run, which draws only on a terminal."""
    if not sys.stderr.isatty():
        yield lambda event, record: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn

    columns = (
        SpinnerColumn(),
        BarColumn(20),
        MofNCompleteColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(f"importing {request.target}", total=None)

        def watch(event: AnyEvent, record: Record) -> None:
            match event:
                case Collected():
                    progress.update(task, total=len(record.plan))
                case Started(spec=spec, property=slug):
                    progress.update(task, description=f"{spec} {slug}")
                case Finished():
                    progress.update(task, completed=len(record.results))

        yield watch
