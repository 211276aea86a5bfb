"""The declaration of a limit, where a kernel raises: the changes without which it still does.

A kernel that takes as many keys as queries only, multiples of a block, or some head dims, refuses the rest. The case
that it refuses is made easier in every way that can be declared, and of these the ones are kept that it needs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import msgspec

from holotype_conformance.judge.property import Violation
from holotype_conformance.judge.records import Diagnosis
from holotype_conformance.kernels.candidate import parameters
from holotype_conformance.kernels.cases import AttentionCase
from holotype_conformance.kernels.subject import PLAINEST, KernelSubject

BLOCK = 128  # a multiple of the customary blocks
POWERS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A question to a kernel: a case, with a backward pass or not, and with a window in any case or not."""

    case: AttentionCase
    gradients: bool
    windowed: bool = False

    def sized(self, **sizes: int) -> Asked:
        """With other sizes, and documents that fill the keys."""
        case = msgspec.structs.replace(self.case, **sizes)
        if case.documents:
            case = msgspec.structs.replace(case, documents=(case.keys,))
        return replace(self, case=case)

    def is_taken(self, subject: KernelSubject) -> bool:
        """Whether the kernel raises nothing; what it returns is another matter."""
        problem = subject.problem(self.case)
        if self.windowed and problem.call.window is None:
            far = self.case.queries + self.case.keys + 1
            problem = replace(problem, call=replace(problem.call, window=far))
        try:
            if self.gradients:
                subject.differentiated(problem)
            else:
                subject.run_once(problem.call)
        except Violation as violation:
            return violation.__cause__ is None
        return True


@dataclass(frozen=True, kw_only=True)
class Easing:
    """One way to ask for less, and what declares it."""

    eased: Callable[[Asked], Asked]
    words: str
    declaration: str


def _longer(asked: Asked) -> Asked:
    """Blocks that are full; as many of both if there were, and otherwise not."""
    queries, keys = (max(n + -n % BLOCK, BLOCK) for n in (asked.case.queries, asked.case.keys))
    if queries == keys and asked.case.queries < asked.case.keys:
        keys += BLOCK
    elif queries == keys and asked.case.queries > asked.case.keys:
        queries += BLOCK
    return asked.sized(queries=queries, keys=keys)


def _square(asked: Asked) -> Asked:
    length = max(asked.case.queries, asked.case.keys)
    return asked.sized(queries=length, keys=length)


def _causal(asked: Asked) -> Asked:
    if asked.case.mask != "none":
        return asked
    return replace(asked, case=msgspec.structs.replace(asked.case, mask="causal", form="arguments"))


EASINGS = {
    "lengths": Easing(eased=_longer, words="", declaration=""),
    "head_dim": Easing(
        eased=lambda asked: asked.sized(head_dim=64 if asked.case.head_dim <= 64 else 256),
        words="",
        declaration="",
    ),
    "unequal-lengths": Easing(
        eased=_square,
        words="as many queries as keys",
        declaration='absent = {"unequal-lengths": "why"}',
    ),
    "batches": Easing(
        eased=lambda asked: asked.sized(batch=1),
        words="a batch of one",
        declaration='absent = {"batches": "why"}',
    ),
    "grouped-heads": Easing(
        eased=lambda asked: asked.sized(kv_heads=asked.case.heads),
        words="as many key-value heads as query heads",
        declaration='absent = {"grouped-heads": "why"}',
    ),
    "gradients": Easing(
        eased=lambda asked: replace(asked, gradients=False),
        words="no backward pass",
        declaration='absent = {"gradients": "why"}',
    ),
    "window": Easing(
        eased=lambda asked: replace(asked, windowed=True),
        words="a window in every call",
        declaration='required = {"window": "why"}',
    ),
    "causal": Easing(
        eased=_causal,
        words="causal in every call",
        declaration='required = {"causal": "why"}',
    ),
}


def refused(
    subject: KernelSubject, case: AttentionCase, violation: Violation
) -> list[Diagnosis] | None:
    """The declaration that is missing where a kernel has raised; None where it has not, or raises for all cases."""
    if violation.__cause__ is None or not case.batch * case.queries * case.keys:
        return None
    return told_by(subject, case, gradients=subject.has("gradients"))


def unlimited(subject: KernelSubject) -> Diagnosis | None:
    """The declaration that would have the plainest case taken, where that is refused in every dtype."""
    for dtype in subject.asked:
        case = subject.fitted(msgspec.structs.replace(PLAINEST, dtype=dtype))
        for limit in told_by(subject, case) or ():
            return limit
    return None


def told_by(
    subject: KernelSubject, case: AttentionCase, *, gradients: bool = False
) -> list[Diagnosis] | None:
    """The declaration that says why a case is refused; None where it is taken, or none says it."""
    asked = Asked(case=case, gradients=gradients)
    if asked.is_taken(subject):
        return None
    taken = parameters(subject.kernel.function) or set(EASINGS)
    easings = {
        name: easing
        for name, easing in EASINGS.items()
        if name in taken or name not in ("window", "causal")
    }
    if not _eased(asked, easings.values()).is_taken(subject):
        return None
    for name in reversed(tuple(easings)):  # sizes are the last to be left out
        fewer = {other: easing for other, easing in easings.items() if other != name}
        if _eased(asked, fewer.values()).is_taken(subject):
            easings = fewer
    said = [_said(subject, asked, name, easings) for name in easings]
    words = " and ".join(words for words, _ in said)
    declared = ", ".join(declaration for _, declaration in said)
    title = f"runs with {words}: if it takes nothing else, a KernelCandidate declares {declared}"
    return [Diagnosis(deviation=f"limit.{'.'.join(easings)}", title=title)]


def _eased(asked: Asked, easings: Iterable[Easing]) -> Asked:
    for easing in easings:
        asked = easing.eased(asked)
    return asked


def _said(
    subject: KernelSubject, asked: Asked, name: str, easings: dict[str, Easing]
) -> tuple[str, str]:
    """In words, and as a line of code."""
    if name not in ("lengths", "head_dim"):
        return easings[name].words, easings[name].declaration
    eased = _eased(asked, easings.values())
    axis = "lengths" if name == "lengths" else "head_dim"
    if name == "lengths" and "unequal-lengths" not in easings:
        for one, other in (("queries", "keys"), ("keys", "queries")):
            if eased.sized(**{other: getattr(asked.case, other)}).is_taken(subject):
                axis = one
                break
    along = ("queries", "keys") if axis == "lengths" else (axis,)

    def takes(size: int) -> bool:
        return eased.sized(**dict.fromkeys(along, size)).is_taken(subject)

    words, arguments = _sizes(takes)
    what = "a head dim of" if axis == "head_dim" else f"{axis} of"
    return f"{what} {words}", f'sizes = {{"{axis}": Sizes({arguments}, reason="why")}}'


def _sizes(takes: Callable[[int], bool]) -> tuple[str, str]:
    """The sizes that are taken, from a few that are tried."""
    powers = [size for size in POWERS if takes(size)]
    first = powers[0] if powers else BLOCK
    if takes(first + first // 2 + 1):
        return f"{first} and more", f"least={first}"
    if takes(3 * first):
        return f"multiples of {first}", f"multiple={first}"
    listed = ", ".join(map(str, powers))
    return listed, f"among=({listed}{',' if len(powers) == 1 else ''})"
