"""Drawing cases with Hypothesis: from a seed alone, whatever else lies on this machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar
from unittest.mock import patch

import hypothesis
from hypothesis import HealthCheck, Phase, Verbosity
from hypothesis.internal.conjecture import providers
from hypothesis.strategies import SearchStrategy

T = TypeVar("T")


def draw(
    strategy: SearchStrategy[T],
    run: Callable[[T], None],
    *,
    seed: int,
    examples: int,
    shrink: bool = True,
) -> None:
    """Call `run` with so many examples of `strategy`, until it raises; what it raised is raised for the smallest one.

    Raises:
        Unsatisfiable: the strategy has no example.
    """

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=examples,
        database=None,
        deadline=None,
        derandomize=False,
        phases=(Phase.generate, Phase.shrink) if shrink else (Phase.generate,),
        suppress_health_check=tuple(HealthCheck),
        report_multiple_bugs=False,
        verbosity=Verbosity.quiet,
        print_blob=False,
    )
    @hypothesis.given(example=strategy)
    def each(example: T) -> None:
        run(example)

    with _only_our_constants():
        each()


@contextmanager
def _only_our_constants() -> Iterator[None]:
    """Keep Hypothesis from mixing numbers that stand in the user's own modules into the cases.

    It would read all these modules, remember them in a folder `.hypothesis`, and draw other cases from the same
    seed where other files lie about. There is no setting for it; a version that works otherwise is left alone.
    """
    read = getattr(providers, "_get_local_constants", None)
    known = getattr(providers, "_local_constants", None)
    if read is None or known is None:
        yield
        return
    with patch.object(providers, "_get_local_constants", lambda: known):
        yield
