"""A deviation of a kernel, and the catalogue that the modules of this package fill."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from holotype_conformance.judge import deviation as judged
from holotype_conformance.judge.deviation import Catalogue, says
from holotype_conformance.kernels.candidate import Call
from holotype_conformance.kernels.deviations.formula import Formula, Result, Shown, Told


@dataclass(frozen=True, kw_only=True)
class KernelDeviation(judged.Deviation):
    """A deviation of a kernel, which completes "agrees with the formula if …".

    Attributes:
        block: how many keys or queries a block has, where it is a mistake of blocks.
    """

    block: int | None = None

    @property
    def words(self) -> str:
        """Its title."""
        return self.title(None)

    def attention(self, call: Call) -> Tensor:
        """A kernel that is wrong in this way."""
        raise NotImplementedError


def anywhere(call: Call) -> bool:
    """Every call has what is changed."""
    return True


RIGHT = Formula()


@dataclass(frozen=True, kw_only=True)
class FormulaDeviation(KernelDeviation):
    """A step of the formula is another.

    Attributes:
        formula: with that step.
        where: whether a call has what is changed; elsewhere the kernel is right.
        named: whether a failure is explained by it: the formula with this step is tried on what a kernel did.
    """

    formula: Formula
    where: Callable[[Call], bool] = anywhere
    named: bool = True

    def attention(self, call: Call) -> Tensor:
        return (self.formula if self.where(call) else RIGHT)(call)

    def result(self, call: Call) -> Result | None:
        """The result of a kernel with this mistake, without gradients; None where it would change nothing."""
        return self.formula.result(call) if self.where(call) else None


@dataclass(frozen=True, kw_only=True)
class CodeDeviation(KernelDeviation):
    """A kernel that is wrong in what no formula says: in what it returns, writes, refuses or runs on."""

    code: Callable[[Call], Tensor]

    def attention(self, call: Call) -> Tensor:
        return self.code(call)


CATALOGUE: Catalogue[KernelDeviation] = Catalogue()


# Writing them down ----------------------------------------------------------------------------------------------


def deviates(
    slug: str,
    title: str,
    meaning: str,
    *,
    where: Callable[[Call], bool] = anywhere,
    named: bool = True,
    reports: tuple[str, ...] = (),
    block: int | None = None,
    **steps: Any,
) -> FormulaDeviation:
    """A deviation with these steps of the `Formula`, in the catalogue."""
    deviation = FormulaDeviation(
        slug=slug,
        title=says(title),
        meaning=meaning,
        reports=reports,
        formula=Formula(**steps),
        where=where,
        named=named,
        block=block,
    )
    CATALOGUE.register(deviation)
    return deviation


def hears(slug: str, title: str, meaning: str, **facts: Any) -> Callable[[Told], FormulaDeviation]:
    """Decorate what a kernel takes a call for: make it the deviation that the arguments describe."""
    return lambda told: deviates(slug, title, meaning, told=told, **facts)


def shows(slug: str, title: str, meaning: str, **facts: Any) -> Callable[[Shown], FormulaDeviation]:
    """Decorate which keys each query sees by the arguments of a call: make it a deviation."""
    return lambda shown: deviates(slug, title, meaning, shown=shown, **facts)


def codes(
    slug: str, title: str, meaning: str, *, reports: tuple[str, ...] = ()
) -> Callable[[Callable[[Call], Tensor]], CodeDeviation]:
    """Decorate a kernel that is wrong in what no formula says: make it a deviation."""

    def registered(code: Callable[[Call], Tensor]) -> CodeDeviation:
        deviation = CodeDeviation(
            slug=slug, title=says(title), meaning=meaning, reports=reports, code=code
        )
        CATALOGUE.register(deviation)
        return deviation

    return registered


# What a call has ------------------------------------------------------------------------------------------------


def is_causal(call: Call) -> bool:
    """Causal alone, told as an argument."""
    return call.causal and not _is_narrow(call) and not has_spans(call)


def has_window(call: Call) -> bool:
    """A window with causal."""
    return call.causal and _is_narrow(call) and not has_spans(call)


def has_band(call: Call) -> bool:
    """A window without causal."""
    return not call.causal and _is_narrow(call)


def _is_narrow(call: Call) -> bool:
    """Whether a window can hide anything: one that a kernel wants in every call need not."""
    return call.window is not None and call.window <= call.q.shape[2] + call.k.shape[2]


def has_spans(call: Call) -> bool:
    """A prefix or documents."""
    return call.prefix is not None or call.documents is not None


def has_prefix(call: Call) -> bool:
    """A prefix, told as an argument."""
    return call.prefix is not None


def has_documents(call: Call) -> bool:
    """Documents, told by their lengths."""
    return call.documents is not None


def has_mask(call: Call) -> bool:
    """A mask of either form."""
    return call.mask is not None


def has_boolean(call: Call) -> bool:
    """A boolean mask."""
    return call.mask is not None and not call.mask.is_floating_point()


def has_additive(call: Call) -> bool:
    """A mask that is added to the scores."""
    return call.mask is not None and call.mask.is_floating_point()


def has_scale(call: Call) -> bool:
    """A scale that is told."""
    return call.scale is not None


def hides_nothing(call: Call) -> bool:
    """No mask of any kind."""
    return not (has_mask(call) or call.causal or _is_narrow(call) or has_spans(call))
