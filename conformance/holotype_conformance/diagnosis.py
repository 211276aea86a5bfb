"""Diagnosis: which deviation, or which two, make the reference agree with a candidate that disagrees with it.

What the candidate did on the failing case is observed again, through the cache where the case reads through one, and
compared with what the reference does once it deviates in each way of the catalogue. A deviation that explains the
failure agrees to rounding; nothing else comes near by chance.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import combinations
from typing import Any
from weakref import WeakKeyDictionary

import msgspec
from torch import Tensor

from holotype_conformance.compare import relative_error
from holotype_conformance.deviations import DeviatedCandidate, Deviation, applicable
from holotype_conformance.properties.agreement import AgreementCase, agreement_inputs
from holotype_conformance.properties.caching import ChunkCase, read_in_chunks
from holotype_conformance.properties.cases import BatchCase, Padding, batch_inputs
from holotype_conformance.property import Property, Violation
from holotype_conformance.records import Diagnosis
from holotype_conformance.subject import Subject, real_rows
from holotype_reference.weights import Regime

ROUNDING = 100  # times the floor: a deviation may amplify rounding
NEAREST = 8  # deviations whose pairs are tried when no single one explains
PATIENCE = 3  # failures that nothing explains before only what explained others is tried

Found = tuple[float, tuple[Deviation, ...]]


@dataclass
class Memory:
    """What diagnosing a subject has taught: the same bug breaks many properties."""

    explanations: list[tuple[Deviation, ...]] = field(default_factory=list)
    unexplained: int = 0


_MEMORIES: WeakKeyDictionary[Subject, Memory] = WeakKeyDictionary()


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A case on one path of the candidate, in the regime of weights that showed the failure."""

    subject: Subject
    case: BatchCase
    path: str
    regime: Regime

    def observe(self, other: Subject, path: str) -> Tensor:
        """(real positions, vocabulary): what `other` makes of the case."""
        model = other.model(self.case.setup(path, regime=self.regime))
        if isinstance(self.case, AgreementCase):
            inputs = agreement_inputs(self.subject, self.case)
        else:
            inputs = batch_inputs(self.subject, self.case)
        rows = real_rows(inputs)
        if isinstance(self.case, ChunkCase):
            return read_in_chunks(other, model, inputs, self.case.cuts)[rows]
        return other.forward(model, inputs).logits[rows]

    @cached_property
    def seen(self) -> Tensor:
        """What the candidate made of it."""
        return self.observe(self.subject, self.path)

    def residual(self, *deviations: Deviation) -> float:
        """How far the candidate is from a reference that deviates in these ways; infinite if that cannot run."""
        candidate = DeviatedCandidate(*deviations)
        other = self.subject.alike(candidate)
        try:
            return relative_error(self.seen, self.observe(other, candidate.paths[0]))
        except Violation:
            return float("inf")

    def enlarged(self) -> tuple[Scene, ...]:
        """Rich cases of the same kind, with and without padding: small ones look alike under many deviations."""
        larger: dict[str, Any] = {"length": 19, "batch": 3, "layers": 2}
        if isinstance(self.case, ChunkCase):
            larger["cuts"] = (5, 6, 13)
        same = msgspec.structs.replace(self.case, **larger)
        if not self.subject.has("attention-mask"):
            return (replace(self, case=same),)
        other: Padding = "right" if self.case.padding == "none" else "none"
        changed = msgspec.structs.replace(same, padding=other)
        return replace(self, case=same), replace(self, case=changed)


def diagnose(
    subject: Subject, property_: Property, case: Any, violation: Violation
) -> list[Diagnosis]:
    """What explains a failure, best first; empty when nothing in the catalogue does.

    Only candidates that take weights can be compared with the reference, and only cases that are a batch.
    """
    if not isinstance(case, BatchCase) or not subject.has("weights"):
        return []
    scene = Scene(
        subject=subject,
        case=case,
        path=violation.facts.get("path", subject.paths[0]),
        regime="faint" if "faint" in property_.slug else "bold",
    )
    try:
        scenes = (scene, *scene.enlarged())
        unlike = max(each.residual() for each in scenes) > ROUNDING * subject.floor
    except Violation:  # the candidate has no outputs to compare
        return []
    # A failure in gradients, dropout or memory leaves the outputs right: there is nothing to compare either.
    found = _explanations(scenes) if unlike else []
    return [_described(subject, *each) for each in sorted(found, key=lambda each: each[0])]


def _explanations(scenes: tuple[Scene, ...]) -> list[Found]:
    """What explained an earlier failure, else single deviations, else pairs of the nearest ones."""
    memory = _MEMORIES.setdefault(scenes[0].subject, Memory())
    found = list(_agreeing(scenes, memory.explanations))
    if found or memory.unexplained >= PATIENCE:
        return found
    ranked = sorted(_singles(scenes[0]), key=lambda each: each[0])
    found = list(_agreeing(scenes, [deviations for _, deviations in ranked[:NEAREST]]))
    if not found:
        nearest = [deviations[0] for _, deviations in ranked[:NEAREST]]
        found = list(_agreeing(scenes, combinations(nearest, 2)))
    memory.explanations += [deviations for _, deviations in found]
    memory.unexplained += not found
    return found


def _singles(scene: Scene) -> Iterator[Found]:
    for deviation in applicable(scene.subject.spec):
        if not deviation.equivalent:
            yield scene.residual(deviation), (deviation,)


def _agreeing(
    scenes: tuple[Scene, ...], candidates: Iterable[tuple[Deviation, ...]]
) -> Iterator[Found]:
    """Those that agree with the candidate to rounding in all scenes."""
    for deviations in candidates:
        residual = 0.0
        for scene in scenes:
            residual = max(residual, scene.residual(*deviations))
            if residual > ROUNDING * scene.subject.floor:
                break
        else:
            yield residual, deviations


def _described(subject: Subject, residual: float, deviations: tuple[Deviation, ...]) -> Diagnosis:
    titles = " and ".join(deviation.title(subject.spec) for deviation in deviations)
    return Diagnosis(
        deviation=" + ".join(deviation.slug for deviation in deviations),
        title=f"agrees with {subject.spec.name} if {titles}",
        residual=residual,
    )
