"""Evaluation is a function: no dropout, no memory of other calls, the same with and without gradients."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated

import msgspec
import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from holotype_conformance.judge.property import Case, Violation
from holotype_conformance.judge.randomness import random_states, seed_of, set_states
from holotype_conformance.judge.sharing import shared
from holotype_conformance.judge.tolerance import demand_equal, relative_error
from holotype_conformance.models.adapters.reference import run_reference
from holotype_conformance.models.candidate import Inputs
from holotype_conformance.models.cases import (
    BatchCase,
    Layers,
    Length,
    Seed,
    batch_cases,
    batch_inputs,
    misfit_of_input,
)
from holotype_conformance.models.claims import claim
from holotype_conformance.models.exchange import real_rows
from holotype_conformance.models.setup import Setup
from holotype_conformance.models.subject import Subject
from holotype_spec.schema import Disentangled, Spec

REPEATS = 12  # calls in one case, on all paths together: 0.92 to the power of 5 · 12 is 0.007


def _demand_same(subject: Subject, first: Tensor, second: Tensor, rows: Tensor, what: str) -> None:
    """Demand that two calls give the same but for rounding.

    Not the same bits: a call that others came before may find a table where it lies otherwise, and an engine whose
    memory is not torch's has each of its arrays elsewhere each time.
    """
    demand_equal(second, first, rows=rows, budget=subject.floor, what=what)


@claim(
    slug="modes.eval-without-dropout",
    clause="In eval mode nothing is drawn at random.",
    meaning=(
        "In eval mode nothing is drawn at random: dropout is off. The probe has a dropout rate of "
        "one half. The same batch is run in eval mode under two seeds of the random number "
        "generator and must give the same, and must not draw from the generator at all. Look "
        "for a functional dropout without `training=self.training`, or a layer that eval() does "
        "not reach."
    ),
    catches=("dropout in eval mode",),
    cases=lambda subject: batch_cases(subject),
    examples=6,
)
def eval_without_dropout(subject: Subject, case: BatchCase, path: str) -> None:
    inputs = batch_inputs(subject, case)
    model = subject.model(case.setup(path))
    results = []
    for seed in (0, 1):
        with random_states(seed):
            results.append(subject.forward(model, inputs).logits)
            drawn = torch.rand(1)
            set_states(seed)
            if not torch.equal(drawn, torch.rand(1)):
                raise Violation("a call in eval mode drew random numbers")
    first, second = results
    what = "two calls in eval mode under two seeds"
    _demand_same(subject, first, second, real_rows(inputs), what)


@claim(
    slug="modes.kept",
    clause="A call leaves the model in its mode.",
    meaning=(
        "A batch is run in train and in eval mode, with and without a cache, and every module must still be in "
        "the mode it was put in. A model that leaves train mode stops dropping after its first batch. "
        "Look for train() or eval() inside forward."
    ),
    catches=("eval() inside forward",),
    cases=lambda subject: batch_cases(subject),
    examples=3,
)
def kept(subject: Subject, case: BatchCase, path: str) -> None:
    inputs = batch_inputs(subject, case)
    model = subject.model(case.setup(path))
    for training in (True, False) if subject.has("train-mode") else (False,):
        model.train(training)
        modes = [module.training for module in model.modules()]
        try:
            subject.forward(model, inputs)
            subject.disturb_with_cache(model, inputs)
            after = [module.training for module in model.modules()]
        finally:
            model.eval()
        if modes != after:
            raise Violation(
                f"a call in {'train' if training else 'eval'} mode left {sum(map(bool.__ne__, modes, after))}"
                " modules in the other mode",
            )


def drops(spec: Spec) -> str | None:
    """Whether the published model was trained with dropout."""
    return None if spec.architecture.dropout.sites else "the spec has no dropout"


@claim(
    slug="modes.train-with-dropout",
    clause="In train mode dropout is on.",
    level="should",
    meaning=(
        "In train mode dropout is on, at the rate of the spec. The probe has a dropout rate of "
        "one half; under two seeds the outputs in train mode must differ, and a call must leave "
        "the model in that mode. Look for a rate that is never read."
    ),
    catches=("dropout never on",),
    needs=("train-mode",),
    binds=("architecture.dropout",),
    applies=drops,
    cases=lambda subject: batch_cases(subject, batches=st.integers(2, 3), least=4),
    examples=3,
)
def train_with_dropout(subject: Subject, case: BatchCase, path: str) -> None:
    inputs = batch_inputs(subject, case)
    model = subject.model(case.setup(path)).train()
    try:
        results = [_seeded(subject, model, inputs, seed) for seed in (0, 1)]
    finally:
        model.eval()
    rows = real_rows(inputs)
    if relative_error(*(result[rows] for result in results)) <= subject.floor:
        raise Violation("two calls in train mode under two seeds give the same")


class SitesCase(Case, frozen=True, kw_only=True):
    """Many copies of one row of tokens, so that only dropout tells them apart."""

    length: Length
    copies: Annotated[int, msgspec.Meta(ge=100, le=10_000)] = 2000
    layers: Layers = 1
    weights: Seed = 0
    tokens: Seed = 0

    def misfit(self, subject: Subject) -> str | None:
        """The probe takes inputs of this length."""
        return misfit_of_input(subject, self.length, "none")


# Mean squared difference of the mean logits, and of their variances, in standard errors. At this number of
# copies two runs of one model give 0.7 to 1.3, and a model without one of its sites at least 2.3 in either;
# T5's site inside the feed-forward alone hardly shows (1.1 to 1.4).
SAME_SITES = 1.75
CALLS = 500


@claim(
    slug="modes.dropout-sites",
    clause="Dropout is applied at the sites of the reference.",
    meaning=(
        "Many copies of one row are run in train mode, where the probe drops half of everything "
        "at the sites that the spec lists, and the mean and the variance of each logit are compared "
        "with the reference's, in standard errors. A site that is missing trains another model than the "
        "paper's. Look for a rate that is not read, a functional dropout without `training`, and "
        "a kernel that is not passed the rate."
    ),
    catches=("dropout missing at one site", "dropout at a wrong site"),
    needs=("weights", "train-mode", "float32"),
    binds="all",
    reference=True,
    applies=drops,
    cases=lambda subject: st.builds(
        SitesCase, length=st.integers(5, 8), weights=st.integers(0, 2), tokens=st.integers(0, 99)
    ),
    examples=1,
    dtypes=("float32",),
)
def dropout_sites(subject: Subject, case: SitesCase, path: str) -> None:
    copied, calls = _copies_of_a_row(subject, case)
    setup = Setup(layers=case.layers, weights=case.weights, dtype="float32")
    expected = _referred(subject, case, setup)
    model = subject.model(msgspec.structs.replace(setup, path=path))
    found = _sampled(model, partial(_logits, subject, model, copied), calls)
    if not found.std(0).any():
        return  # it never drops: modes.train-with-dropout says so
    for what, moment in (("means", _values), ("variances", _squares)):
        distance = _distance(moment(found), moment(expected))
        if not distance <= SAME_SITES:
            raise Violation(
                f"in train mode the {what} of the logits are {distance:.1f} squared standard errors from the"
                f" reference's; expected about 1, and at most {SAME_SITES}",
                distance=distance,
            )


@shared
def _copies_of_a_row(subject: Subject, case: SitesCase) -> tuple[Inputs, int]:
    """The copies of a row that one call is given, and how many calls there are."""
    row = subject.inputs(
        tokens=(1, case.length), seed=case.tokens, types=subject.has("token-types")
    )
    # What is dropped of a table of distances is dropped for all rows of a batch: then each copy is a call of its own.
    alone = isinstance(subject.spec.architecture.positions, Disentangled)
    calls, rows = (CALLS, 1) if alone else (1, case.copies)
    copied = Inputs(**{name: ids.repeat(rows, 1) for name, ids in row.tensors().items()})
    return copied, calls


@shared
def _referred(subject: Subject, case: SitesCase, setup: Setup) -> Tensor:
    """The logits of the reference for the copies in train mode."""
    copied, calls = _copies_of_a_row(subject, case)
    reference = subject.reference(setup)
    return _sampled(reference, lambda: run_reference(reference, copied).logits, calls)


def _values(sample: Tensor) -> Tensor:
    return sample


def _squares(sample: Tensor) -> Tensor:
    """(copies, …): how far each is from the mean, squared; what is dropped before a linear head shows here alone."""
    return (sample - sample.mean(0)).square()


def _distance(found: Tensor, expected: Tensor) -> float:
    """The mean squared difference of two means over all copies (copies, …), in standard errors.

    Where neither varies, any difference is infinitely many, and none is none.
    """
    errors = (found.var(0) + expected.var(0)) / len(found)
    apart = (found.mean(0) - expected.mean(0)).square()
    return float((apart / errors).where((apart > 0) | (errors > 0), 0.0).mean())


def _logits(subject: Subject, model: nn.Module, inputs: Inputs) -> Tensor:
    return subject.forward(model, inputs).logits


def _sampled(model: nn.Module, run: Callable[[], Tensor], calls: int) -> Tensor:
    """(copies, length, vocabulary): what so many calls of `run` return with the model in train mode."""
    model.train()
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(0)
            return torch.cat([run() for _ in range(calls)]).double()
    finally:
        model.eval()


def _seeded(subject: Subject, model: nn.Module, inputs: Inputs, seed: int) -> Tensor:
    with random_states(seed):
        return subject.forward(model, inputs).logits


@claim(
    slug="modes.determinism",
    clause="The same call always gives the same logits.",
    meaning=(
        "The same call gives the same, whatever was called before and whatever random numbers come. A batch "
        "is run, then a shorter and a longer one (and both with a cache), then the first again, and then "
        f"{REPEATS} times more (shared by its code paths, if it has several), each time with other states of the "
        "generators of Python, NumPy and torch. In the "
        f"quick profile these are {5 * REPEATS} calls: one that goes wrong in 8 of 100 is missed once in 150 runs, "
        "with --profile full hardly ever. Look for state "
        "kept in the module (a mask buffer, a position counter, a table that was made for the longest input so far, a "
        "cache that is not the caller's), and for layers or heads that are dropped by a random number of Python's or "
        "NumPy's, which eval() does not stop."
    ),
    catches=(
        "stale mask buffer",
        "state kept between calls",
        "cache kept in the module",
        "layers dropped at random in eval mode",
    ),
    cases=lambda subject: batch_cases(subject),
    examples=5,
)
def determinism(subject: Subject, case: BatchCase, path: str) -> None:
    inputs = batch_inputs(subject, case)
    others = [
        subject.inputs(tokens=(case.batch + 1, length), seed=case.tokens + 1)
        for length in (case.length % 7 + 1, case.length + 13)
    ]
    model = subject.model(case.setup(path))
    first = subject.forward(model, inputs).logits
    for other in others:
        subject.forward(model, other)
        subject.disturb_with_cache(model, other)
    rows = real_rows(inputs)
    again = subject.forward(model, inputs).logits
    _demand_same(subject, first, again, rows, "a call and the same call later")
    for repeat in range(-(-REPEATS // len(subject.paths))):
        again = _seeded(subject, model, inputs, seed_of(subject.seed, case, path, repeat))
        what = "two calls with the generators of random numbers in two states"
        _demand_same(subject, first, again, rows, what)


@claim(
    slug="modes.no-grad",
    clause="Outputs are the same with and without gradients.",
    meaning=(
        "Without gradients the outputs are the same. The batch is run with gradients, under "
        "no_grad and under inference_mode. Some modules take a faster path there. Look at "
        "branches on `torch.is_grad_enabled()`."
    ),
    catches=("fast path that mishandles padding",),
    cases=lambda subject: batch_cases(subject),
    examples=6,
)
def no_grad(subject: Subject, case: BatchCase, path: str) -> None:
    inputs = batch_inputs(subject, case)
    model = subject.model(case.setup(path))
    learns = subject.has("gradients")
    expected = subject.forward(model, inputs, grad=learns).logits.detach()
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            actual = subject.forward(model, inputs).logits
        demand_equal(
            actual,
            expected,
            rows=real_rows(inputs),
            budget=subject.floor,
            what=f"the outputs under {mode.__name__} and with gradients",
        )
