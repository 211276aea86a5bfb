"""One run inside the process that runs the candidate: the request made into objects."""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from fnmatch import fnmatchcase
from functools import cached_property, partial
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from typing import Any

import msgspec
import torch

import holotype_spec
from holotype_conformance.judge.declaring import DeclarationError
from holotype_conformance.judge.engine import Settings, judge
from holotype_conformance.judge.expected_failures import expect, expectation
from holotype_conformance.judge.given_case import CaseError, read_case
from holotype_conformance.judge.guard import CandidateUnusable, is_ours
from holotype_conformance.judge.precision import arithmetic, settings
from holotype_conformance.judge.process_state import undisturbed
from holotype_conformance.judge.property import Property, Violation
from holotype_conformance.judge.records import (
    Broken,
    Declaration,
    Diagnosis,
    Environment,
    Event,
    Finished,
    Judged,
    Planned,
    Rejected,
    Request,
    Result,
    Smoke,
    Started,
    Trying,
    Unusable,
    encodable,
)
from holotype_conformance.judge.renamed import names_of
from holotype_conformance.judge.texts import REASON, bounded, message_of, type_of
from holotype_conformance.judge.time_limit import bad_limit, bad_seed, is_time_up, time_limit
from holotype_conformance.suites import suite_of

MEND = (
    "expected cpu, or cuda or cuda:N where torch was built with CUDA and nvidia-smi lists a GPU; leave out"
    " --device for the CPU"
)
ALWAYS_NAMED = ("holotype", "torch", "numpy", "hypothesis", "pytest")


class RequestError(ValueError):
    """A request that makes no sense: the message says what was expected."""


class Session:
    """A request, resolved: a candidate, what it is held against, and the properties of its suite that were asked for.

    Args:
        request: what the user asked for.
        candidate: what `request.target` names.
        notify: is passed every event.
        smoked: names of the specs whose first run is known to work.

    Raises:
        RequestError: a glob matches no property, the case is not one, the device is not there, a list of
            expected failures names what does not exist, or the candidate declares what cannot be.
    """

    def __init__(
        self,
        request: Request,
        candidate: Any,
        *,
        notify: Callable[[Event], None] = lambda event: None,
        smoked: Iterable[str] = (),
    ) -> None:
        self.request = request
        self.candidate = candidate
        self.notify = notify
        self.suite = suite_of(request.kind)
        self.specs = self.suite.specs(request.specs)
        self.properties = select(request.properties, self.suite.properties())
        self._smoked = set(smoked)
        self._subjects: dict[str, Any] = {}
        self._shared: Any = None  # a subject made anew once, for all failures that may share it
        self._changed_at_first: dict[str, None] = {}  # by a first run; told with the next result
        self._check()
        self.declared = {spec.name: self._declared(spec) for spec in self.specs}

    @property
    def subject_of(self) -> Callable[..., Any]:
        """Makes a subject of a candidate and a spec."""
        return self.suite.subject

    def new_subject(self, spec: Any, candidate: Any = None) -> Any:
        """The subject of the properties: the candidate, or another like it, under `spec`."""
        request = self.request
        return self.subject_of(
            self.candidate if candidate is None else candidate,
            spec,
            seed=request.seed,
            device=request.device,
            dtypes=request.dtypes,
        )

    def diagnose(
        self, subject: Any, property_: Property, case: Any, violation: Violation
    ) -> Sequence[Diagnosis]:
        """Explanations of a failure, best first."""
        return self.suite.diagnose(subject, property_, case, violation)

    def _check(self) -> None:
        for complaint in (bad_limit(self.request.limit), bad_seed(self.request.seed)):
            if complaint is not None:
                raise RequestError(complaint)
        check_device(self.request.device)
        check_expected(
            self.request.expected, [spec.name for spec in self.specs], self.suite.slugs()
        )
        for spec in self.specs:
            if refusal := self.suite.refusal(self.candidate, spec):
                raise RequestError(f"{self.request.target} against {spec.name}: {refusal}")
        if self.request.case is None:
            return
        if len(self.properties) != 1 or len(self.specs) != 1:
            raise RequestError(
                "a case belongs to one property of one spec: give exactly one of each"
            )
        try:
            read_case(self.properties[0], self.request.case)
        except CaseError as error:
            raise RequestError(str(error)) from error

    def _declared(self, spec: Any) -> tuple[Declaration, ...]:
        try:
            return self.suite.declarations(self.candidate, spec)
        except DeclarationError as error:
            raise RequestError(
                f"{self.request.target} declares what cannot be: {encodable(str(error))}"
            ) from error

    def subject(self, spec: Any) -> Any:
        """The candidate under `spec`; one for all properties, so that models are built once."""
        if spec.name not in self._subjects:
            self._subjects[spec.name] = self.new_subject(spec)
        return self._subjects[spec.name]

    def smoke(self, spec: Any) -> None:
        """Run the candidate once, unless that is known to work.

        Raises:
            CandidateUnusable: it could not be run at all.
        """
        if spec.name in self._smoked:
            return
        self.notify(Smoke(spec=spec.name))
        limit = self.request.limit
        try:
            with undisturbed() as changed, time_limit(limit):
                self._changed_at_first = changed
                self.suite.smoke(self.subject(spec))
        except CandidateUnusable as error:
            self._unusable(spec, str(error))
        except BaseException as error:
            did = f"raised {type_of(error)}: {message_of(error)}"
            if is_time_up(error):
                did = f"did not end within {limit:g} s ({error})"
            elif is_ours(error):
                raise
            self._unusable(spec, f"building and running one small model {did}")
        self._smoked.add(spec.name)

    def _unusable(self, spec: Any, reason: str) -> None:
        reason = encodable(bounded(reason, REASON))
        self.notify(Unusable(spec=spec.name, reason=reason))
        raise CandidateUnusable(reason)

    def judge(self, spec: Any, property_: Property) -> Result:
        """The verdict on one property, expected failures taken into account.

        Raises:
            RequestError: the case that was asked for is none that the property would draw for this candidate.
        """
        request = self.request
        self.notify(Started(spec=spec.name, property=property_.slug))
        settings = Settings(
            profile=request.profile,
            seed=request.seed,
            limit=request.limit,
            case=request.case,
            named=not set(names_of(property_.slug)).isdisjoint(request.properties),
            rerun=lambda case: request.rerun(spec.name, property_.slug, case),
            trying=lambda case: self.notify(Trying(case=case)),
            broken=lambda result: self.notify(Broken(spec=spec.name, result=result)),
            judged=lambda result: self.notify(Judged(spec=spec.name, result=result)),
            fresh=partial(self.fresh, spec),
            diagnose=self.diagnose,
        )
        try:
            result = judge(self.subject(spec), property_, settings)
        except CaseError as error:
            self.notify(Rejected(message=encodable(str(error))))
            raise RequestError(str(error)) from error
        changed, self._changed_at_first = self._changed_at_first, {}
        if changed:
            both = tuple(dict.fromkeys((*map(encodable, changed), *result.left_changed)))
            result = msgspec.structs.replace(result, left_changed=both)
        result = expect(result, expectation(request.expected, spec.name, property_.slug))
        self.notify(Finished(spec=spec.name, result=result))
        return result

    @contextmanager
    def fresh(self, spec: Any, *, shared: bool = False) -> Iterator[Any]:
        """A subject with a candidate or models of its own, as long as it is used; in the same process."""
        if shared and self._shared is not None:
            yield self._shared
            return
        candidate = self.suite.made_anew(self.candidate, self.request.target)
        subject = self.new_subject(spec, candidate)
        if shared and candidate is not self.candidate:
            self._shared = subject
        yield subject

    @cached_property
    def environment(self) -> Environment:
        """The environment of this run; the distributions that the candidate brought in are named too."""
        return environment(self.request.device, type(self.candidate).__module__)


def select(globs: Sequence[str], among: Sequence[Property]) -> list[Property]:
    """The properties that any of `globs` matches, in reading order; all for no globs.

    Raises:
        RequestError: one of them matches nothing.
    """
    properties = list(among)
    if not properties:
        raise RequestError("the suite has no properties: this installation is broken")
    slugs = [property_.slug for property_ in properties]
    for glob in globs:
        if not any(_is_called(slug, glob) for slug in slugs):
            near = get_close_matches(glob, slugs, n=3, cutoff=0.4)
            hint = f"did you mean {' or '.join(near)}?" if near else "`holotype explain` lists all"
            raise RequestError(f"no property matches {glob!r}: {hint}")
    return [
        property_
        for property_ in properties
        if not globs or any(_is_called(property_.slug, glob) for glob in globs)
    ]


def _is_called(slug: str, glob: str) -> bool:
    """Whether a glob matches the name of a property, or one that it had before."""
    return any(fnmatchcase(name, glob) for name in names_of(slug))


def plan(spec: str, property_: Property) -> Planned:
    """The announcement of a property before it runs."""
    return Planned(
        spec=spec,
        property=property_.slug,
        level=property_.level,
        clause=property_.clause,
        meaning=property_.meaning,
    )


def check_device(device: str) -> None:
    """Refuse a device that is not there.

    Raises:
        RequestError: it is not.
    """
    try:
        found = torch.device(device)
        torch.zeros(1, device=found)
    except (RuntimeError, AssertionError, ImportError) as error:
        said = str(error).strip().split("\n")[0]
        raise RequestError(f"the device {device!r} cannot be used here: {said}; {MEND}") from error
    if found.type == "meta":
        raise RequestError(f"the device 'meta' holds no numbers to compare; {MEND}")


def check_expected(
    expected: Iterable[str], specs: Sequence[str], known_slugs: Iterable[str]
) -> None:
    """Refuse entries that name no property.

    Raises:
        RequestError: some do not.
    """
    slugs = {name for slug in known_slugs for name in names_of(slug)}
    known = slugs | {
        f"{spec}.{slug}" for spec in [*specs, *holotype_spec.names()] for slug in slugs
    }
    for key in expected:
        if key not in known:
            near = get_close_matches(key, known, n=3)
            hint = f"; did you mean {' or '.join(near)}?" if near else ""
            raise RequestError(
                f"the list of expected failures names no property with {key!r}{hint}"
            )


def environment(device: str, module: str = "") -> Environment:
    """The versions of what decides numbers, and of the distribution that `module` comes from."""
    names = list(ALWAYS_NAMED)
    names += [name for name in ("transformers", "jax", "onnxruntime") if name in sys.modules]
    if module and not module.startswith("holotype_"):
        names += packages_distributions().get(module.partition(".")[0], [])
    shown = (
        f"{device}: {torch.cuda.get_device_name(device)}" if device.startswith("cuda") else device
    )
    with arithmetic():
        told = settings()
    return Environment(
        python=platform.python_version(),
        torch=str(torch.__version__),
        platform=platform.platform(),
        device=shown,
        threads=torch.get_num_threads(),
        arithmetic=told,
        versions={name: found for name in names if (found := _version(name))},
    )


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None
