"""Diagnosis: which deviation, or which two, make the reference agree with a candidate that disagrees with it.

What the candidate did on the failing case is observed again, through the cache where the case reads through one, and
compared with what the reference does once it deviates in each way of the catalogue. A deviation that explains the
failure agrees to rounding; nothing else comes near by chance. It is held against other regions then, and its name says
where it agrees alone: see `holotype_conformance.models.scenes`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import combinations
from typing import Any
from weakref import WeakKeyDictionary

from torch import Tensor

from holotype_conformance.judge.elimination import surviving
from holotype_conformance.judge.property import Property, Violation
from holotype_conformance.judge.records import Diagnosis
from holotype_conformance.judge.regions import Sight, limit
from holotype_conformance.judge.tolerance import relative_error
from holotype_conformance.models.adapters.reference import ReferenceCandidate
from holotype_conformance.models.cases import BatchCase
from holotype_conformance.models.deviations import DeviatedCandidate, Deviation, applicable
from holotype_conformance.models.scenes import Scene, phrase
from holotype_conformance.models.subject import Subject

ROUNDING = 100  # times the floor: a deviation may amplify rounding,
NEAR = 1e-3  # but to no more than this, or all that is said of a coarse candidate would be near
CLEARLY = 10  # times nearer than the reference as it is
IN_FLOAT32 = 10  # times the reference's own error in float32
NEAREST = 8  # deviations whose pairs are tried when no single one explains
PATIENCE = 3  # failures that nothing explains before only what explained others is tried

Deviations = tuple[Deviation, ...]


@dataclass(frozen=True, kw_only=True)
class Found:
    """The explanation of a failure, and where it holds: "" for everywhere, None where no words say it."""

    deviations: Deviations
    residual: float
    limit: str | None


@dataclass
class Memory:
    """The memory of a subject's diagnoses: the same bug breaks many properties.

    Attributes:
        explanations: what has explained a failure.
        unexplained: how many failures nothing has explained.
        observed: by whom and scene, what was seen; None for what could not be run.
        sights: by explanation, where it was held against the candidate.
        others: by deviations, the reference with them.
        steps: by explanation, the most tokens of an input that is still like a short one.
    """

    explanations: list[Deviations] = field(default_factory=list)
    unexplained: int = 0
    observed: dict[tuple[Any, ...], Tensor | None] = field(default_factory=dict)
    others: dict[Deviations, Subject] = field(default_factory=dict)
    sights: dict[Deviations, list[Sight]] = field(default_factory=dict)
    steps: dict[Deviations, int] = field(default_factory=dict)


_MEMORIES: WeakKeyDictionary[Subject, Memory] = WeakKeyDictionary()


def diagnose(
    subject: Subject, property_: Property, case: Any, violation: Violation
) -> list[Diagnosis]:
    """The explanations of a failure, best first; empty when nothing in the catalogue is one.

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
    watch = Watch(subject)
    # A failure in gradients, dropout or memory leaves the outputs right: there is nothing to compare.
    if all(Seen(watch=watch, scene=each).is_right for each in (scene, *scene.enlarged())):
        return []
    found = sorted(_explanations(watch, scene), key=lambda each: each.residual)
    return [_described(subject, each) for each in found]


class Watch:
    """Looks at a subject, at the reference and at deviations of it, and remembers what was seen."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.memory = _MEMORIES.setdefault(subject, Memory())

    def residual(self, scene: Scene, deviations: Deviations = ()) -> float:
        """The distance of the candidate from a reference that deviates in these ways; infinite if one cannot run."""
        return _apart(self.candidate(scene), self.reference(scene, deviations))

    def agrees(self, scene: Scene, deviations: Deviations = ()) -> bool:
        """Whether they are the same to rounding."""
        return self.residual(scene, deviations) <= self.rounding(scene)

    def is_wrong(self, scene: Scene) -> bool:
        """Whether the candidate has outputs, and they are not the reference's."""
        return self.candidate(scene) is not None and not self.agrees(scene)

    def rounding(self, scene: Scene) -> float:
        """The residual that is rounding; in float32 it is measured."""
        limits, widest = self.subject.limits, self.subject.widest
        floor = max(self.subject.floor, limits.outputs(widest))
        floor = max(floor, min(ROUNDING * floor, NEAR))
        if scene.dtype == "float64":
            return floor
        exact = replace(scene, dtype="float64", regime=scene.setup("").drawn)
        return max(floor, IN_FLOAT32 * _apart(self.reference(scene), self.reference(exact)))

    def candidate(self, scene: Scene) -> Tensor | None:
        """The outputs of the candidate in a scene; None if it cannot run."""
        return self._observed("candidate", scene, self.subject, scene.path)

    def reference(self, scene: Scene, deviations: Deviations = ()) -> Tensor | None:
        """The outputs of the reference, or of one that deviates."""
        anywhere = replace(scene, path="fused", gradients=False)
        return self._observed(deviations, anywhere, self._other(deviations), "fused")

    def _other(self, deviations: Deviations) -> Subject:
        """The reference under the spec of the subject; that without deviations and those that explain are kept."""
        memory = self.memory
        if deviations in memory.others:
            return memory.others[deviations]
        candidate = DeviatedCandidate(*deviations) if deviations else ReferenceCandidate()
        other = self.subject.alike(candidate)
        if not deviations or deviations in memory.explanations:
            memory.others[deviations] = other
        return other

    def _observed(self, whom: object, scene: Scene, other: Subject, path: str) -> Tensor | None:
        observed, key = self.memory.observed, (whom, *scene.key)
        if key not in observed:
            try:
                observed[key] = scene.observe(other, path)
            except Violation:
                observed[key] = None
        return observed[key]


@dataclass(frozen=True, kw_only=True)
class Seen:
    """The outputs of a candidate in a scene, as the judge's elimination looks at them."""

    watch: Watch
    scene: Scene

    @property
    def near(self) -> float:
        """The residual that is rounding."""
        return self.watch.rounding(self.scene)

    @property
    def is_right(self) -> bool:
        """Whether there is nothing to explain."""
        return not self.watch.is_wrong(self.scene)

    def residual(self, deviations: Deviations) -> float:
        """The distance of the candidate from the reference with these deviations."""
        return self.watch.residual(self.scene, deviations)


def _apart(actual: Tensor | None, expected: Tensor | None) -> float:
    if actual is None or expected is None:
        return float("inf")
    return relative_error(actual, expected)


# What explains a failure ----------------------------------------------------------------------------------------


def _explanations(watch: Watch, scene: Scene) -> list[Found]:
    """The explanations of an earlier failure, else single deviations, else pairs of the nearest ones.

    Of several those are given that agree everywhere; one that agrees in some regions alone is given with them.
    """
    memory = watch.memory
    found = list(_agreeing(watch, scene, memory.explanations))
    if found or memory.unexplained >= PATIENCE:
        return _widest(found)
    ranked = sorted(_singles(watch, scene), key=lambda each: each[0])
    near = sum(residual <= watch.rounding(scene) for residual, _ in ranked)
    nearest = [deviation for _, deviation in ranked[: max(near, NEAREST)]]
    found = list(_agreeing(watch, scene, [(each,) for each in nearest]))
    if not found:
        found = list(_agreeing(watch, scene, combinations(nearest[:NEAREST], 2)))
    elif not any(each.limit == "" for each in found):
        found += _completed(watch, scene, found[0].deviations)
    memory.unexplained += not found
    return _widest(found)


def _completed(watch: Watch, scene: Scene, deviations: Deviations) -> list[Found]:
    """With what is wrong beside the deviations, where the candidate is neither right nor agrees with them alone."""
    (home, *_) = scene.enlarged()
    strange = [
        each
        for each in home.elsewhere()
        if watch.is_wrong(each) and not watch.agrees(each, deviations)
    ]
    if not strange:
        return []
    pairs = [(*deviations, each) for each in _nameable(watch) if each not in deviations]
    return list(_agreeing(watch, scene, [x for x in pairs if watch.agrees(strange[0], x)]))


def _widest(found: Sequence[Found]) -> list[Found]:
    everywhere = [each for each in found if each.limit == ""]
    return everywhere or [each for each in found if each.limit is not None]


def _singles(watch: Watch, scene: Scene) -> Iterator[tuple[float, Deviation]]:
    for deviation in _nameable(watch):
        yield watch.residual(scene, (deviation,)), deviation


def _nameable(watch: Watch) -> Iterator[Deviation]:
    return (each for each in applicable(watch.subject.spec) if not each.equivalent)


def _agreeing(watch: Watch, scene: Scene, candidates: Iterable[Deviations]) -> Iterator[Found]:
    """Those that agree with the candidate to rounding on the failing case and on a rich one like it."""
    left = surviving(dict.fromkeys(candidates, 0.0), Seen(watch=watch, scene=scene))
    for deviations, residual in left.items():
        if CLEARLY * residual >= watch.residual(scene):
            continue  # the reference as it is comes as near
        for home in scene.enlarged():
            near = surviving({deviations: residual}, Seen(watch=watch, scene=home))
            if not near:
                continue
            if deviations not in watch.memory.explanations:
                watch.memory.explanations.append(deviations)
            where = _limit(watch, home, deviations)
            yield Found(deviations=deviations, residual=near[deviations], limit=where)
            break


# Where it does --------------------------------------------------------------------------------------------------


def _limit(watch: Watch, home: Scene, deviations: Deviations) -> str | None:
    """The regions in which the deviations agree with the candidate, of all in which they make a difference."""
    memory = watch.memory
    sights = memory.sights.setdefault(deviations, [])
    if not sights:
        sights += _sights(watch, (home, *home.elsewhere()), deviations)
    elif all(each.region != home.region for each in sights):
        sights += _sights(watch, [home], deviations)
    return limit(sights, partial(_words, watch, home, deviations))


def _words(
    watch: Watch, home: Scene, deviations: Deviations, axis: str, values: Sequence[str]
) -> str:
    if axis != "length":
        return phrase(axis, values)
    known = watch.memory.steps
    if deviations not in known:
        known[deviations] = _step(watch, home, deviations)
    return f"{'beyond' if 'long' in values else 'up to'} {known[deviations]} tokens"


def _sights(watch: Watch, scenes: Iterable[Scene], deviations: Deviations) -> Iterator[Sight]:
    """Regions in which it makes a difference, and whether the candidate makes the same one."""
    for scene in scenes:
        tells = _tells(watch, scene, deviations)
        if tells is not None:
            yield Sight(region=scene.region, agrees=tells)


def _tells(watch: Watch, scene: Scene, deviations: Deviations) -> bool | None:
    """Whether the candidate agrees; None where it cannot be told: one cannot run, or there is no difference."""
    deviated, right = watch.reference(scene, deviations), watch.reference(scene)
    if watch.candidate(scene) is None or deviated is None:
        return None
    agrees = watch.agrees(scene, deviations)
    differs = _apart(deviated, right) > watch.rounding(scene)
    return agrees if differs or not agrees else None


def _step(watch: Watch, home: Scene, deviations: Deviations) -> int:
    """The most tokens with which an input is still like a short one, found by halving."""
    low, high = sorted(each.case.length for each in (home, *home.of_other_length()))
    short = _tells(watch, home.sized(length=low), deviations)
    while high - low > 1:
        middle = (low + high) // 2
        if _tells(watch, home.sized(length=middle), deviations) == short:
            low = middle
        else:
            high = middle
    return low


def _described(subject: Subject, found: Found) -> Diagnosis:
    titles = " and ".join(deviation.title(subject.spec) for deviation in found.deviations)
    where = f", {found.limit}" if found.limit else ""
    return Diagnosis(
        deviation=" + ".join(deviation.slug for deviation in found.deviations),
        title=f"agrees with {subject.spec.name} if {titles}{where}",
        residual=found.residual,
    )
