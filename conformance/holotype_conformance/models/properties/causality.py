"""Receptive fields: the dependency matrix of the spec, checked both ways by changing one token."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import msgspec
import torch
from hypothesis import strategies as st
from torch import Tensor

from holotype_conformance.judge.property import Violation
from holotype_conformance.judge.sharing import shared
from holotype_conformance.judge.tolerance import demand_equal, moved
from holotype_conformance.models.candidate import Inputs
from holotype_conformance.models.cases import (
    BatchCase,
    Length,
    batch_inputs,
    layer_counts,
    lengths,
    paddings,
    random_order,
    shortest_alike,
)
from holotype_conformance.models.claims import claim
from holotype_conformance.models.exchange import real_rows
from holotype_conformance.models.stillness import leaks
from holotype_conformance.models.subject import Subject
from holotype_spec.dependencies import dependencies, source_dependencies
from holotype_spec.schema import Spec


class PerturbationCase(BatchCase, frozen=True, kw_only=True):
    """A batch whose token at `position` is replaced by another one, in every row."""

    position: Annotated[int, msgspec.Meta(ge=0)]

    def misfit(self, subject: Subject) -> str | None:
        """The position is one of the input."""
        if self.position >= self.length:
            return f"position {self.position} is not one of {self.length} tokens"
        return super().misfit(subject)


def perturbation_cases(subject: Subject) -> st.SearchStrategy[PerturbationCase]:
    def at_length(length: int) -> st.SearchStrategy[PerturbationCase]:
        return st.builds(
            PerturbationCase,
            length=st.just(length),
            position=st.integers(0, length - 1),
            batch=st.integers(1, 3),
            padding=paddings(subject),
            layers=layer_counts(),
            weights=st.integers(0, 2),
            tokens=st.integers(0, 99),
        )

    return lengths(2).flatmap(at_length)


def decodes(spec: Spec) -> str | None:
    """Whether the stack that writes the logits is causal."""
    bidirectional = spec.architecture.structure == "encoder"
    return "an encoder may see the future" if bidirectional else None


def hides(spec: Spec) -> str | None:
    """Whether some mask of the model hides more than padding."""
    return None if spec.mixture_of_masks else decodes(spec)


def told(inputs: Inputs, row: int) -> str:
    """The mask that the caller asked for in one row, in words; empty where none was."""
    if inputs.right_to_left is not None:
        return " when reading from right to left"
    return "" if inputs.prefix is None else f" behind a visible prefix of {int(inputs.prefix[row])}"


def has_source(spec: Spec) -> str | None:
    """Whether there is a source to look at."""
    both = spec.architecture.structure == "encoder-decoder"
    return None if both else "the spec has no source"


def _changed(tokens: Tensor, position: int, vocabulary: int) -> Tensor:
    """`tokens` with another token at `position`, neither 0 nor the one that stands there."""
    other = tokens.clone()
    other[:, position] = another(other[:, position], vocabulary)
    return other


def another(tokens: Tensor, vocabulary: int) -> Tensor:
    """For each of `tokens` another one, which is not 0 either."""
    return tokens % (vocabulary - 1) + 1


@shared
def _pairs(subject: Subject, case: BatchCase, inputs: Inputs) -> Tensor:
    """(batch, length, length) bool: output i of a row may depend on its input j, for real i."""
    spec = subject.probe(case.layers)
    masks, prefix = inputs.attention_mask, inputs.prefix
    matrices = [
        dependencies(
            spec,
            case.length,
            attention_mask=None if masks is None else masks[row].cpu().numpy().astype(bool),
            prefix=None if prefix is None else int(prefix[row]),
            right_to_left=inputs.right_to_left is not None,
        )
        for row in range(case.batch)
    ]
    return torch.stack([torch.from_numpy(matrix) for matrix in matrices])


@claim(
    slug="causality.future-perturbation",
    clause="No output sees beyond its receptive field.",
    meaning=(
        "An output never depends on an input outside its receptive field, as the spec's dependency "
        "matrix has it: nothing after it, nothing beyond the reach of its windows, no padding. One token is "
        "replaced by "
        "another, everything else and all shapes stay the same, and every output that may not "
        "depend on it must keep its very bits. A model that fails reads what it is to predict: "
        "its training loss is too good and its generation is bad. Look at the mask: its diagonal, "
        "whether it is applied in every layer and on every path, whether a padding mask replaces "
        "it instead of joining it, and whether a softmax or a norm runs over the wrong axis."
    ),
    catches=(
        "mask dropped, or off by one",
        "mask in the first layer only",
        "padding mask replaces the causal mask",
        "window one too wide",
        "softmax over the wrong axis",
    ),
    binds=("architecture.attention.pattern",),
    applies=hides,
    cases=perturbation_cases,
    examples=30,
    apart=True,
)
def future_perturbation(subject: Subject, case: PerturbationCase, path: str) -> None:
    inputs = batch_inputs(subject, case)
    changed = replace(
        inputs,
        token_ids=_changed(inputs.token_ids, case.position, subject.probe(2).vocab_size),
    )
    forbidden = ~_pairs(subject, case, inputs)[:, :, case.position] & real_rows(inputs).cpu()
    model = subject.model(case.setup(path))
    before = subject.forward(model, inputs).logits
    after = subject.forward(model, changed).logits
    found = leaks(subject, model, inputs, before, after, forbidden)
    if found.any():
        row, i = found.nonzero()[-1].tolist()
        size = float((before[row, i] - after[row, i]).abs().max())
        raise Violation(
            f"output {i} depends on input {case.position}, pair ({i}, {case.position}){told(inputs, row)}: it moved"
            f" by {size:.1e} when that token changed, and must not move at all",
            pair=[i, case.position],
            row=row,
            moved=size,
        )


class PairCase(BatchCase, frozen=True, kw_only=True):
    """A batch in which every token is changed in turn."""


def required_cases(subject: Subject) -> st.SearchStrategy[PairCase]:
    return st.builds(
        PairCase,
        length=lengths(1, 20),
        batch=st.just(3),
        padding=paddings(subject),
        layers=layer_counts(),
        weights=st.integers(0, 2),
        tokens=st.integers(0, 99),
    )


def predicts_in_order(spec: Spec) -> str | None:
    """Whether tokens are predicted in an order that is drawn for them."""
    return None if spec.permuted else "the spec predicts in no order of its own"


@claim(
    slug="causality.order",
    clause="No output depends on tokens not yet predicted.",
    meaning=(
        "Under an order of prediction an output depends on tokens that come earlier in it, and never on its own or on"
        " a later one, wherever they stand. One token is replaced by another, everything else stays the same, and the"
        " outputs of its own place and of all places before it in the order must keep their very bits. A model that"
        " fails is trained on what it is to predict. Look at the two masks: the content stream sees its own place, the"
        " query stream does not; and at what the query stream starts from."
    ),
    catches=("query stream sees itself", "query stream starts from its token", "order ignored"),
    needs=("order",),
    binds=("architecture.attention.pattern",),
    applies=predicts_in_order,
    cases=perturbation_cases,
    examples=15,
    apart=True,
)
def order(subject: Subject, case: PerturbationCase, path: str) -> None:
    inputs = replace(batch_inputs(subject, case), order=random_order(subject, case))
    tokens = _changed(inputs.token_ids, case.position, subject.probe(2).vocab_size)
    assert inputs.order is not None
    own = inputs.order[:, case.position, None]
    forbidden = ((inputs.order <= own) & real_rows(inputs)).cpu()
    model = subject.model(case.setup(path))
    before = subject.forward(model, inputs).logits
    after = subject.forward(model, replace(inputs, token_ids=tokens)).logits
    found = leaks(subject, model, inputs, before, after, forbidden)
    if found.any():
        row, i = found.nonzero()[-1].tolist()
        raise Violation(
            f"output {i} of row {row}, number {int(inputs.order[row, i])} in the order, changed with token"
            f" {case.position}, number {int(own[row])}",
            row=row,
            position=i,
        )


@claim(
    slug="causality.required-dependence",
    clause="Every output depends on its whole receptive field.",
    meaning=(
        "An output depends on its whole receptive field, all that the spec's dependency matrix allows: its past, "
        "itself, its whole window, and in a bidirectional model everything. Each token is "
        "replaced in turn, and every output that may depend on it must move. A model that fails "
        "is blind where it should see: the mirror image of a leak. Look for an encoder that is "
        "silently causal, a mask that hides the token itself, a window that is one too narrow, or "
        "keys lost from a cache or a block."
    ),
    catches=(
        "encoder silently causal",
        "mask that hides the diagonal",
        "window one too narrow",
        "attention output dropped",
    ),
    binds=("architecture.attention.pattern",),
    cases=required_cases,
    examples=6,
    apart=True,
)
def required_dependence(subject: Subject, case: PairCase, path: str) -> None:
    inputs = batch_inputs(subject, case)
    required = _pairs(subject, case, inputs) & real_rows(inputs).cpu()[:, :, None]
    vocabulary = subject.probe(2).vocab_size
    model = subject.model(case.setup(path))
    before = subject.forward(model, inputs).logits
    for j in range(case.length):
        changed = replace(inputs, token_ids=_changed(inputs.token_ids, j, vocabulary))
        after = subject.forward(model, changed).logits
        still = ~moved(before, after, subject.stillness).cpu()
        # Of several rows with other tokens one may not move by chance; all of them do not.
        needed = required[:, :, j]
        blind = needed.any(0) & (still | ~needed).all(0)
        if blind.any():
            i = int(blind.nonzero()[0])
            row = int(needed[:, i].nonzero()[0])
            raise Violation(
                f"output {i} does not depend on input {j}, pair ({i}, {j}){told(inputs, row)}: it kept every bit"
                " when that token changed, in every row, and must move",
                pair=[i, j],
            )


@claim(
    slug="causality.source-dependence",
    clause="Every decoder output depends on the whole source.",
    meaning=(
        "Every output of the decoder depends on every real token of the source. Each token of the "
        "source is replaced in turn, and every output of the decoder must move. Look for a causal "
        "mask in the encoder or in cross-attention, or for a decoder whose cross-attention reads "
        "the wrong thing."
    ),
    catches=(
        "encoder silently causal",
        "cross-attention masked causally",
        "cross-attention dropped",
    ),
    binds=("architecture.structure",),
    applies=has_source,
    cases=required_cases,
    examples=5,
    apart=True,
)
def source_dependence(subject: Subject, case: PairCase, path: str) -> None:
    inputs = batch_inputs(subject, case)
    assert inputs.source_ids is not None
    source_length = inputs.source_ids.shape[1]
    spec = subject.probe(case.layers)
    required = torch.from_numpy(source_dependencies(spec, case.length, source_length))
    rows = real_rows(inputs).cpu()
    model = subject.model(case.setup(path))
    before = subject.forward(model, inputs).logits
    for j in range(source_length):
        source = _changed(inputs.source_ids, j, spec.vocab_size)
        after = subject.forward(model, replace(inputs, source_ids=source)).logits
        still = ~moved(before, after, subject.stillness).cpu()
        needed = required[:, j] & rows
        blind = needed.any(0) & (still | ~needed).all(0)
        if blind.any():
            i = int(blind.nonzero()[0])
            raise Violation(
                f"output {i} does not depend on source token {j}: it kept every bit when that token"
                " changed, in every row, and must move",
                pair=[i, j],
            )


class TruncationCase(BatchCase, frozen=True, kw_only=True):
    """A batch of which the first `kept` positions are computed alone as well."""

    kept: Length

    def misfit(self, subject: Subject) -> str | None:
        """Fewer are kept than there are."""
        if self.kept >= self.length:
            return f"kept {self.kept} is not less than length {self.length}"
        return super().misfit(subject)

    @property
    def at_once(self) -> int:
        return self.kept


def truncation_cases(subject: Subject) -> st.SearchStrategy[TruncationCase]:
    """Prefixes that are as long as not to change theta, where that grows with the length."""
    small = subject.probe(2)

    def at_length(length: int) -> st.SearchStrategy[TruncationCase]:
        return st.builds(
            TruncationCase,
            length=st.just(length),
            kept=st.integers(shortest_alike(small, length), length - 1),
            batch=st.integers(1, 3),
            layers=layer_counts(),
            weights=st.integers(0, 2),
            tokens=st.integers(0, 99),
        )

    return lengths(2).filter(lambda n: shortest_alike(small, n) < n).flatmap(at_length)


@claim(
    slug="causality.truncation",
    clause="Logits of a prefix do not change with what follows.",
    meaning=(
        "The outputs of a prefix are those of the whole input, cut: the length of what follows "
        "changes nothing. The input is cut short, and the outputs that remain must agree to "
        "rounding. This sees leaks that no single token shows: a capacity, a normaliser or a "
        "position that depends on the length of the input. Look for anything computed from the "
        "sequence length or from a sum over positions."
    ),
    catches=(
        "normaliser over future keys",
        "capacity that depends on the length",
        "positions counted from the end",
    ),
    binds=("architecture.attention.pattern",),
    applies=decodes,
    cases=truncation_cases,
    examples=15,
    apart=True,
)
def truncation(subject: Subject, case: TruncationCase, path: str) -> None:
    inputs = batch_inputs(subject, case)
    short = replace(
        inputs,
        token_ids=inputs.token_ids[:, : case.kept],
        token_types=None if inputs.token_types is None else inputs.token_types[:, : case.kept],
    )
    model = subject.model(case.setup(path))
    demand_equal(
        subject.forward(model, short).logits,
        subject.forward(model, inputs).logits[:, : case.kept],
        rows=real_rows(short),
        budget=subject.floor,
        what="the outputs of the prefix alone and of the whole input",
    )
