"""Made-up properties and subjects, for the tests of the engine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from holotype_conformance.judge.engine import Settings, judge
from holotype_conformance.judge.property import ALL_DTYPES, Case, Property
from holotype_conformance.judge.records import Result
from holotype_conformance.judge.subject import Subject


class Sizes(Case, frozen=True, kw_only=True):
    size: int
    kind: str = "plain"


def claim(check: Any, **facts: Any) -> Property:
    usual: dict[str, Any] = {
        "slug": "group.claim",
        "clause": "A clause.",
        "level": "should",
        "meaning": "A meaning.",
        "catches": (),
        "needs": (),
        "applies": lambda spec: None,
        "cases": lambda subject: st.just(Sizes(size=1)),
        "case_type": Sizes,
        "check": check,
        "examples": 3,
    }
    return Property(**usual | facts)


class Made(Subject):
    def __init__(self, **facts: Any) -> None:
        vars(self).update({"spec": None, "seed": 0, "asked": ALL_DTYPES} | facts)


def subject(**facts: Any) -> Any:
    return Made(**facts)


def run(check: Any, *, settings: Settings | None = None, on: Any = None, **facts: Any) -> Result:
    return judge(on or subject(), claim(check, **facts), settings or Settings(limit=0))


def raising(error: BaseException) -> Callable[..., Any]:
    def check(*_: Any, **__: Any) -> Any:
        raise error

    return check


def passing(*_: Any) -> None:
    pass
