"""Does a property kill a deviation? One verdict for each pair, without shrinking, as fast as that can be had."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from typing import Literal

import hypothesis
import pytest
from hypothesis import HealthCheck, Phase, Verbosity

from holotype_conformance.judge.engine import reason_to_skip
from holotype_conformance.judge.precision import arithmetic
from holotype_conformance.judge.property import Case, Property, Skip, Violation
from holotype_conformance.models.deviations.candidate import DeviatedCandidate
from holotype_conformance.models.deviations.deviation import Deviation
from holotype_conformance.models.properties import all_properties
from holotype_conformance.models.subject import Subject
from holotype_spec.schema import Spec

Verdict = Literal["killed", "passed", "skipped", "error"]

# What is likely to kill the deviations of a group, tried before everything else.
LIKELY = {
    "backends": ("devices.*",),
    "batch": ("batch.*",),
    "compiled": ("devices.captured", "devices.compiled"),
    "devices": ("devices.*",),
    "threads": ("devices.*",),
    "training": ("modes.train-without-dropout",),
    "cache": ("cache.*",),
    "dropout": ("modes.*",),
    "embeddings": ("agreement.logits",),
    "gradient": ("agreement.gradients", "parameters.count"),
    "inputs": ("interface.inputs-unchanged",),
    "interface": ("interface.*",),
    "mask": ("agreement.logits", "causality.*", "padding.*"),
    "norm": ("agreement.logits", "agreement.faint-logits", "agreement.bfloat16"),
    "parameters": ("parameters.*",),
    "deep-norm": ("agreement.logits",),
    "mixture": ("causality.*", "agreement.logits"),
    "prefix": ("causality.*", "agreement.logits"),
    "two-positions": ("agreement.logits", "positions.*"),
    "positions": ("positions.*", "batch.order"),
    "rotary": ("agreement.logits", "agreement.bfloat16"),
    "softmax": ("agreement.logits", "agreement.long-rows"),
    "state": ("modes.*",),
    "storage": ("storage.*",),
}


class _Broken(Exception):
    """A case does not hold."""


def judge(subject: Subject, property_: Property) -> Verdict:
    """Draw the property's cases, in the quick profile, until one fails."""
    if reason_to_skip(subject, property_) is not None:
        return "skipped"
    with warnings.catch_warnings(), arithmetic():
        warnings.simplefilter("ignore")
        try:
            _run(subject, property_)
        except _Broken:
            return "killed"
        except (pytest.skip.Exception, Skip):
            return "skipped"
        except Exception:  # a mistake of the property's, which the engine reports as such
            return "error"
    return "passed"


def _run(subject: Subject, property_: Property) -> None:
    broken: list[Violation] = []

    @hypothesis.seed(subject.seed)
    @hypothesis.settings(
        max_examples=property_.examples,
        database=None,
        deadline=None,
        phases=(Phase.generate,),
        suppress_health_check=tuple(HealthCheck),
        report_multiple_bugs=False,
        verbosity=Verbosity.quiet,
        print_blob=False,
    )
    @hypothesis.given(case=property_.cases(subject))
    def holds(case: Case) -> None:
        if broken:  # Hypothesis repeats the case that failed
            raise _Broken from broken[0]
        try:
            subject.check(property_, case)
        except Violation as violation:
            broken.append(violation)
            raise _Broken from violation

    holds()


def subject(deviation: Deviation, spec: Spec) -> Subject:
    """The deviated model under the spec it is held to, on one path: a deviation is the same on all."""
    return Subject(DeviatedCandidate(deviation, paths=("fused",)), spec)


def verdicts(deviation: Deviation, spec: Spec) -> Iterator[tuple[Property, Verdict]]:
    """Every property's verdict, the likely killers first."""
    deviated = subject(deviation, spec)
    likely = set(_likely(deviation))
    for property_ in in_likely_order(deviation, all_properties()):
        left_out = property_.costly and property_.slug not in likely  # it would take an hour
        yield property_, "skipped" if left_out else judge(deviated, property_)


def killer(deviation: Deviation, spec: Spec) -> Property | None:
    """The first property that kills, a `must` if one does; None for a survivor."""
    killers = (each for each, verdict in verdicts(deviation, spec) if verdict == "killed")
    should = None
    for property_ in killers:
        if property_.level == "must":
            return property_
        should = should or property_
    return should


def _likely(deviation: Deviation) -> tuple[str, ...]:
    return LIKELY.get(deviation.slug.partition(".")[0], ("agreement.logits",))


def in_likely_order(deviation: Deviation, properties: Iterable[Property]) -> list[Property]:
    """Those first that are likely to kill the deviation."""
    likely = _likely(deviation)

    def rank(property_: Property) -> int:
        group = property_.slug.partition(".")[0] + ".*"
        ranks = [i for i, name in enumerate(likely) if name in (property_.slug, group)]
        return min(ranks, default=len(likely))

    return sorted(properties, key=rank)
