"""Saving and restoring: a restored model is the one that was saved."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from holotype_conformance.judge.guard import candidate_code
from holotype_conformance.judge.property import Violation
from holotype_conformance.judge.tolerance import demand_equal
from holotype_conformance.models.cases import BatchCase, batch_cases, batch_inputs
from holotype_conformance.models.claims import claim
from holotype_conformance.models.counting import parameter_count
from holotype_conformance.models.exchange import real_rows
from holotype_conformance.models.subject import Subject


@claim(
    slug="storage.round-trip",
    clause="A restored model is the one that was saved.",
    meaning=(
        "A model that was saved and restored is the same model. It is saved, a new one is restored from the file, and "
        "the tensors that both hold under one name are compared bit by bit, their parameters counted, and both run: "
        "the outputs agree to rounding, and to no less, because tensors that were read from a file lie at other "
        "alignments, where some processors add in another order. Look for parameters that are not registered, buffers "
        "that are not kept, numbers that were rounded or changed on the way, and tied tensors of which only one is "
        "stored and the other not tied again."
    ),
    catches=("tensor lost in saving", "tie lost in loading", "numbers rounded in saving"),
    needs=("storage",),
    cases=lambda subject: batch_cases(subject, batches=st.just(2)),
    examples=2,
)
def round_trip(subject: Subject, case: BatchCase, path: str) -> None:
    inputs = batch_inputs(subject, case)
    setup = case.setup(path)
    model = subject.model(setup)
    held = {name: tensor.clone() for name, tensor in kept(model).items()}
    with tempfile.TemporaryDirectory() as folder:
        with candidate_code("save"):
            subject.candidate.save(model, Path(folder))
        restored = subject.restored(setup, Path(folder))
    before, after = map(parameter_count, (model, restored))
    if before != after:
        raise Violation(
            f"the model was saved with {before:,} parameters and has {after:,} restored; expected as many, what is"
            f" tied counted once{_retied(model, restored)}",
        )
    demand_unchanged(held, kept(restored))
    demand_equal(
        subject.forward(restored, inputs).logits,
        subject.forward(model, inputs).logits,
        rows=real_rows(inputs),
        budget=subject.floor,
        what="the outputs of the restored model and of the one that was saved",
    )


def _retied(saved: nn.Module, restored: nn.Module) -> str:
    """The names that are of one tensor in one of two models, and of several in the other; nothing where none are."""
    was, now = _shared(saved), _shared(restored)
    for names in now - was:
        return f"; {' and '.join(names)} are one tensor when restored, and were not when saved"
    for names in was - now:
        return f"; {' and '.join(names)} were one tensor when saved, and are not when restored"
    return ""


def _shared(model: nn.Module) -> set[tuple[str, ...]]:
    """The names of each parameter that has several."""
    names: dict[nn.Parameter, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(parameter, []).append(name)
    return {tuple(each) for each in names.values() if len(each) > 1}


def kept(model: nn.Module) -> dict[str, Tensor]:
    """The tensors that a file of the model has to hold: its parameters, and the buffers that are not computed anew.

    Only plain tensors: what a quantised or distributed one holds is seen in the outputs alone.
    """
    found: dict[str, Tensor] = {}
    for place, module in model.named_modules(remove_duplicate=False):
        computed = module._non_persistent_buffers_set
        own = {name: each for name, each in module._buffers.items() if name not in computed}
        for name, tensor in (module._parameters | own).items():
            if type(tensor) in (Tensor, nn.Parameter) and tensor.layout is torch.strided:
                found[f"{place}.{name}" if place else name] = tensor.detach()
    return found


def demand_unchanged(saved: Mapping[str, Tensor], restored: Mapping[str, Tensor]) -> None:
    """Demand the same bits of each tensor that was saved and restored under one name.

    A file holds bits, whatever the machine; where the restored model has other names, its outputs speak for it.

    Raises:
        Violation: one has changed; it names the one that changed most.
    """
    common = [name for name in saved if name in restored]
    changed = [name for name in common if not same_numbers(saved[name], restored[name])]
    if not changed:
        return
    worst = max(changed, key=lambda name: _difference(saved[name], restored[name]))
    others = f"; tensors that changed: {len(changed)}" if len(changed) > 1 else ""
    raise Violation(
        f"{worst} was saved and came back {_how(saved[worst], restored[worst])}{others}; expected the same bits in"
        f" all {len(common)} tensors",
        tensor=worst,
    )


def same_numbers(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors hold the same numbers, NaN being itself; in another dtype if they are exact there."""
    return one.shape == other.shape and not bool(_unlike(one, other).any())


def _unlike(one: Tensor, other: Tensor) -> Tensor:
    """The numbers of two tensors of one shape that differ."""
    other = other.to(one.device)
    return (one != other) & ~((one != one) & (other != other))


def _difference(one: Tensor, other: Tensor) -> float:
    """The largest absolute difference; infinite between tensors of two shapes and where one alone has NaN."""
    if one.shape != other.shape:
        return float("inf")
    difference = (one.double() - other.to(one.device).double()).abs()
    return float(difference[_unlike(one, other)].nan_to_num(float("inf")).max())


def _added(one: Tensor, other: Tensor) -> float | None:
    """The one number, beyond rounding, by which all numbers are larger; None where there is none."""
    if one.numel() < 2 or not one.is_floating_point():
        return None
    before, after = one.double(), other.to(one.device).double()
    difference = after - before
    rounding = (
        4 * torch.finfo(one.dtype).eps * float(torch.maximum(before.abs(), after.abs()).max())
    )
    if float(difference.abs().min()) <= 100 * rounding:
        return None
    alike = float(difference.max() - difference.min()) <= rounding
    return float(difference.mean()) if alike else None


def _how(one: Tensor, other: Tensor) -> str:
    if one.shape != other.shape:
        return f"as {tuple(other.shape)} instead of {tuple(one.shape)}"
    count = int(_unlike(one, other).sum())
    if (added := _added(one, other)) is not None:
        return f"with {added:+.6g} added to each of its {count:,} numbers"
    return f"other by up to {_difference(one, other):.1e} in {count:,} of {one.numel():,} numbers"
