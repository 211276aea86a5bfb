"""Models, timed: the candidate and the reference, with the same weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

import holotype_spec
from holotype_conformance.bench.bench import Bench
from holotype_conformance.bench.protocol import Open, Prepared, Role
from holotype_conformance.bench.sizes import scaled
from holotype_conformance.bench.workloads import ModelWork
from holotype_conformance.judge.guard import candidate_code
from holotype_conformance.judge.property import Violation
from holotype_conformance.judge.tolerance import rms_error
from holotype_conformance.models.candidate import Inputs
from holotype_conformance.models.setup import Setup
from holotype_conformance.models.subject import Subject
from holotype_conformance.models.targets import resolve
from holotype_conformance.run.session import RequestError, check_device
from holotype_reference.support import unsupported
from holotype_spec.costs import Cost, pass_cost
from holotype_spec.schema import Spec

# How much further from the float64 reference the candidate may be than the float32 reference is, and a floor.
FACTOR, FLOOR = 4.0, 1e-6


class Sized(Subject):
    """A candidate at the size at which it is measured."""

    def _probe(self, layers: int, long: bool = False) -> Spec:
        return scaled(self.spec)


@dataclass(frozen=True, kw_only=True)
class ModelInputs:
    """The inputs of one call: tokens, and for decoding the cache of those before them.

    `gradient` arrives at the logits.
    """

    inputs: Inputs
    before: Inputs | None = None
    cache: Any = None
    gradient: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class Result:
    """Logits, those of the last token alone in decoding, and the norm of all gradients by parameters."""

    logits: Tensor
    gradients: Sequence[Tensor | None] = ()


class ModelBench(Bench[ModelWork, ModelInputs]):
    """An implementation of models, opened."""

    def __init__(self, ask: Open) -> None:
        super().__init__()
        check_device(ask.device)
        self.ask = ask
        self.seed = ask.seed
        self.device = torch.device(ask.device)
        self.candidate = resolve(ask.target)
        self.title = self.candidate.title
        self.subjects: dict[Role, Sized] = {}
        self.models: dict[Role, nn.Module] = {}
        for written in ask.specs:
            self._subject(written).smoke()

    def prepare(self, work: ModelWork) -> Prepared:
        self.work = work
        if not self.subjects or self.subjects["candidate"].spec.name != work.spec:
            self._build(work.spec)
        if (reason := self._lack()) is not None:
            return Prepared(lacks=reason)
        self.try_out()
        least = _least(self.subjects["candidate"].probe(2), work)
        return Prepared(roles=("candidate", "reference"), flops=least.flops, bytes=least.bytes)

    def _subject(self, written: str) -> Sized:
        spec = holotype_spec.load(written)
        if missing := unsupported(spec):
            raise RequestError(
                f"the reference cannot build {spec.name} yet (it has no {', no '.join(missing)}), so that no"
                " result could be verified; a time of what may be wrong is not reported"
            )
        return Sized(self.candidate, spec, seed=self.seed, device=self.ask.device)

    def _build(self, name: str) -> None:
        written = next(each for each in self.ask.specs if holotype_spec.load(each).name == name)
        own = self._subject(written)
        other = Sized(resolve("reference"), own.spec, seed=self.seed, device=self.ask.device)
        subjects: dict[Role, Sized] = {"candidate": own, "reference": other}
        self.models = {
            role: subject.fresh_model(Setup(dtype="float32", path=subject.paths[0]))
            for role, subject in subjects.items()
        }
        self.exact = other.fresh_reference(Setup(dtype="float64", regime="steady"))
        self.subjects = subjects  # last: a model that could not be built is asked for again

    def _lack(self) -> str | None:
        own = self.subjects["candidate"].capabilities
        if own["weights"] is not None:
            return f"what it computes cannot be verified: {own['weights']}"
        return own["cache"] if self.work.part in ("prefill", "decode") else None

    # One call -------------------------------------------------------------------------------------------------

    def draw(self, role: Role, number: int) -> ModelInputs:
        work, subject = self.work, self.subjects[role]
        total = work.cached + work.length
        whole = subject.inputs(tokens=(work.batch, total), source=total, seed=number)
        inputs = replace(whole, token_ids=whole.token_ids[:, work.cached :])
        if work.part == "forward-backward":
            generator = torch.Generator().manual_seed(number)
            shape = (work.batch, work.length, subject.probe(2).logit_size)
            gradient = torch.randn(shape, generator=generator).to(self.device)
            return ModelInputs(inputs=inputs, gradient=gradient)
        if not work.cached:
            return ModelInputs(inputs=inputs)
        before = replace(whole, token_ids=whole.token_ids[:, : work.cached])
        with torch.no_grad():
            cache = subject.call_cached(self.models[role], before, None).cache
        return ModelInputs(inputs=inputs, before=before, cache=cache)

    def run(self, role: Role, inputs: ModelInputs) -> Result:
        subject, model = self.subjects[role], self.models[role]
        if inputs.gradient is not None:
            logits = subject.call(model, inputs.inputs).logits
            with candidate_code("the backward pass"):
                parameters = [each for each in model.parameters() if each.requires_grad]
                gradients = torch.autograd.grad(
                    logits, parameters, inputs.gradient.to(logits.dtype), allow_unused=True
                )
            return Result(logits=logits, gradients=gradients)
        with torch.no_grad():
            match self.work.part:
                case "prefill":
                    return Result(logits=subject.call_cached(model, inputs.inputs, None).logits)
                case "decode":
                    return Result(logits=_decoded(subject, model, inputs))
                case _:
                    return Result(logits=subject.call(model, inputs.inputs).logits)

    def verify(self, inputs: ModelInputs, result: Result) -> None:
        expected = self._expected(inputs, self.exact)
        usual = self._expected(inputs, self.models["reference"])
        self._demand(result.logits, expected.logits, usual.logits, "logits")
        if inputs.gradient is not None:
            found, exact, near = (_norm(each.gradients) for each in (result, expected, usual))
            self._demand(found, exact, near, "gradients, as to the norm of them all,")

    def _demand(self, found: Tensor, expected: Tensor, usual: Tensor, what: str) -> None:
        """Demand that an error is not much larger than that of the reference in the same dtype."""
        if found.shape != expected.shape:
            raise Violation(
                f"the {what} have the shape {tuple(found.shape)}; expected {tuple(expected.shape)}"
            )
        error, budget = rms_error(found, expected), FACTOR * rms_error(usual, expected) + FLOOR
        if not error <= budget:
            raise Violation(
                f"the {what} differ from the reference's in float64 by {error:.1e} (relative; the budget"
                f" is {budget:.1e})"
            )

    def _expected(self, inputs: ModelInputs, model: nn.Module) -> Result:
        """The reference's outputs for all tokens in one pass."""
        whole = inputs.inputs
        if inputs.before is not None:
            tokens = torch.cat([inputs.before.token_ids, whole.token_ids], dim=1)
            whole = replace(whole, token_ids=tokens)
        reference = self.subjects["reference"]
        with torch.set_grad_enabled(inputs.gradient is not None):
            logits = reference.call(model, whole).logits
        if inputs.gradient is None:
            return Result(logits=logits[:, -1:] if self.work.part == "decode" else logits)
        gradient = inputs.gradient.to(logits.dtype)
        return Result(
            logits=logits.detach(),
            gradients=torch.autograd.grad(
                logits, list(model.parameters()), gradient, allow_unused=True
            ),
        )

    def given(self, inputs: ModelInputs) -> list[Tensor]:
        gradient = [] if inputs.gradient is None else [inputs.gradient]
        return [*inputs.inputs.tensors().values(), *gradient]

    def owned(self, role: Role) -> list[Tensor]:
        return [*self.models[role].parameters(), *self.models[role].buffers()]


def _least(spec: Spec, work: ModelWork) -> Cost:
    """The least that the work takes."""
    sizes: dict[str, Any] = {"batch": work.batch, "dtype": work.dtype}
    if work.part != "decode":
        training = work.part == "forward-backward"
        return pass_cost(spec, length=work.length, training=training, **sizes)
    total = work.cached + work.length
    if spec.architecture.structure == "encoder-decoder":
        sizes["source_length"] = total
    steps = range(work.cached, total)  # each reads all matrices again
    each = [pass_cost(spec, length=1, cached=cached, **sizes) for cached in steps]
    return Cost(flops=sum(cost.flops for cost in each), bytes=sum(cost.bytes for cost in each))


def _decoded(subject: Subject, model: nn.Module, inputs: ModelInputs) -> Tensor:
    """The logits of the last token, read one at a time."""
    cache, tokens = inputs.cache, inputs.inputs.token_ids
    for place in range(tokens.shape[1]):
        step = replace(inputs.inputs, token_ids=tokens[:, place : place + 1])
        outputs = subject.call_cached(model, step, cache)
        cache = outputs.cache
    return outputs.logits


def _norm(gradients: Sequence[Tensor | None]) -> Tensor:
    found = [each.double().square().sum() for each in gradients if each is not None]
    return torch.stack(found).sum().sqrt()
