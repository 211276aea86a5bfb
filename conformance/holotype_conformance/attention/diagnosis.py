"""Diagnosis of a kernel: with which single change the formula agrees with what the kernel did.

The kernel is observed again on the failing case and on a larger one of the same kind, in the most precise dtype that
it takes, and compared with the float64 formula changed in each way of a small catalogue. What explains the failure
agrees to rounding with both; nothing else comes near by chance.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from holotype_conformance.attention import oracle
from holotype_conformance.attention.budget import error, rounding
from holotype_conformance.attention.cases import AttentionCase, Problem, as_array
from holotype_conformance.attention.subject import KernelSubject
from holotype_conformance.property import Property, Violation
from holotype_conformance.records import Diagnosis

SLACK = 4.0  # times the floor of a comparison with the formula: a change may amplify rounding
Array = NDArray[np.float64]
Visible = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What the formula is computed from."""

    q: Array
    k: Array
    v: Array
    visible: Visible | None
    scale: float


@dataclass(frozen=True, kw_only=True)
class Change:
    """One way in which kernels are wrong; `made` returns None where it would change nothing."""

    slug: str
    title: str
    made: Callable[[Terms, AttentionCase], Terms | None]


def _mask(draw: Callable[[int, int, int], Visible], *masks: str) -> Any:
    """A change of the mask where one of `masks` is told as arguments; `draw` is given queries, keys and the size."""

    def made(terms: Terms, case: AttentionCase) -> Terms | None:
        if case.mask not in masks or case.form != "arguments":
            return None
        return replace(terms, visible=draw(case.queries, case.keys, case.size)[None, None])

    return made


def _upper_left(queries: int, keys: int, size: int) -> Visible:
    return np.tri(queries, keys, dtype=bool)


def _window_upper_left(queries: int, keys: int, size: int) -> Visible:
    away = np.arange(queries)[:, None] - np.arange(keys)
    return (away >= 0) & (away < size)


def _everything(queries: int, keys: int, size: int) -> Visible:
    return oracle.full(queries, keys)


def _tiled(terms: Terms, case: AttentionCase) -> Terms | None:
    group = case.heads // case.kv_heads
    if group == 1 or case.kv_heads == 1:
        return None
    return replace(
        terms,
        k=np.tile(terms.k, (1, group, 1, 1)),
        v=np.tile(terms.v, (1, group, 1, 1)),
    )


def _inverted(terms: Terms, case: AttentionCase) -> Terms | None:
    if terms.visible is None or case.form == "arguments":
        return None
    return replace(terms, visible=~terms.visible)


CHANGES = (
    Change(
        slug="scale.missing",
        title="the scale is missing",
        made=lambda terms, case: replace(terms, scale=1.0),
    ),
    Change(
        slug="scale.twice",
        title="the scale is applied twice",
        made=lambda terms, case: replace(terms, scale=terms.scale**2),
    ),
    Change(
        slug="scale.inverse",
        title="the scale is multiplied by where it is divided",
        made=lambda terms, case: replace(terms, scale=1.0 / terms.scale),
    ),
    Change(
        slug="heads.tiled",
        title="key-value heads are tiled (0 1 0 1) instead of repeated (0 0 1 1)",
        made=_tiled,
    ),
    Change(
        slug="causal.upper-left",
        title="the causal diagonal starts at the first key instead of ending at the last",
        made=_mask(_upper_left, "causal"),
    ),
    Change(
        slug="causal.one-ahead",
        title="each query sees one key beyond the diagonal",
        made=_mask(lambda n, m, size: oracle.distance(n, m) >= -1, "causal"),
    ),
    Change(
        slug="causal.hides-self",
        title="the diagonal itself is hidden",
        made=_mask(lambda n, m, size: oracle.distance(n, m) >= 1, "causal"),
    ),
    Change(
        slug="causal.ignored",
        title="causal is ignored",
        made=_mask(_everything, "causal"),
    ),
    Change(
        slug="window.wider",
        title="the window is one wider",
        made=_mask(lambda n, m, size: oracle.window(n, m, size + 1), "window"),
    ),
    Change(
        slug="window.narrower",
        title="the window is one narrower",
        made=_mask(lambda n, m, size: oracle.window(n, m, size - 1), "window"),
    ),
    Change(
        slug="window.upper-left",
        title="the window's diagonal starts at the first key instead of ending at the last",
        made=_mask(_window_upper_left, "window"),
    ),
    Change(
        slug="window.ignored",
        title="the window is ignored",
        made=_mask(lambda n, m, size: oracle.causal(n, m), "window"),
    ),
    Change(
        slug="band.causal",
        title="a window without causal is causal",
        made=_mask(oracle.window, "band"),
    ),
    Change(
        slug="band.wider",
        title="the band is one wider on each side",
        made=_mask(lambda n, m, size: oracle.band(n, m, size + 1), "band"),
    ),
    Change(
        slug="band.ignored",
        title="a window without causal is ignored",
        made=_mask(_everything, "band"),
    ),
    Change(
        slug="mask.ignored",
        title="the mask is ignored",
        made=lambda terms, case: None if case.form == "arguments" else replace(terms, visible=None),
    ),
    Change(
        slug="mask.inverted",
        title="true in a mask hides instead of showing",
        made=_inverted,
    ),
)


def diagnose(
    subject: KernelSubject, property_: Property, case: Any, violation: Violation
) -> list[Diagnosis]:
    """What explains a failure, best first; empty when nothing in the catalogue does."""
    if not isinstance(case, AttentionCase):
        return []
    try:
        scenes = [
            _observed(subject, each) for each in (_plain(subject, case), _larger(subject, case))
        ]
    except Violation:  # it has no result to compare
        return []
    if all(_residual(*scene, lambda terms, _: terms) <= _near(scene[0]) for scene in scenes):
        return []  # the result is right: the failure is one of gradients, say
    return sorted(_agreeing(scenes), key=lambda found: found.residual or 0.0)


def _agreeing(scenes: list[tuple[Problem, AttentionCase, torch.Tensor]]) -> Iterator[Diagnosis]:
    for change in CHANGES:
        residuals = [_residual(*scene, change.made) for scene in scenes]
        if all(r <= _near(scene[0]) for r, scene in zip(residuals, scenes, strict=True)):
            yield Diagnosis(
                deviation=change.slug,
                title=f"agrees with the formula if {change.title}",
                residual=max(residuals),
            )


def _near(problem: Problem) -> float:
    return SLACK * rounding(problem.call.q.dtype)


def _plain(subject: KernelSubject, case: AttentionCase) -> AttentionCase:
    """The case without what only its property makes of it, in the most precise dtype."""
    names = {field.name for field in msgspec.structs.fields(AttentionCase)}
    facts = {name: value for name, value in msgspec.structs.asdict(case).items() if name in names}
    return AttentionCase(**facts | {"dtype": subject.dtype})


def _larger(subject: KernelSubject, case: AttentionCase) -> AttentionCase:
    """A rich case of the same kind: small ones look alike under many changes."""
    few, many = 13, 19
    grouped = case.heads != case.kv_heads
    found: AttentionCase = msgspec.structs.replace(
        _plain(subject, case),
        queries=few if case.queries < case.keys else many,
        keys=few if case.queries > case.keys else many,
        batch=2,
        heads=6 if grouped else 2,
        kv_heads=2,
        head_dim=12,
        size=5,
    )
    return found


def _observed(
    subject: KernelSubject, case: AttentionCase
) -> tuple[Problem, AttentionCase, torch.Tensor]:
    problem = subject.problem(case)
    return problem, case, subject.output(problem.call, finite=False)


def _residual(
    problem: Problem,
    case: AttentionCase,
    output: torch.Tensor,
    made: Callable[[Terms, AttentionCase], Terms | None],
) -> float:
    """How far the kernel is from the formula with a change, at queries that see a key in it; infinite for no change."""
    call = problem.call
    terms = made(
        Terms(
            q=as_array(call.q),
            k=as_array(call.k),
            v=as_array(call.v),
            visible=problem.visible,
            scale=call.q.shape[-1] ** -0.5,
        ),
        case,
    )
    if terms is None:
        return float("inf")
    found = oracle.attention(terms.q, terms.k, terms.v, visible=terms.visible, scale=terms.scale)
    rows = found.weights.any(-1, keepdims=True)
    seen = output.masked_fill(~torch.from_numpy(rows).to(output.device), 0.0)
    return error(seen, found.output, found.output_size)
