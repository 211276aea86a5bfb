"""Visible prefixes: how candidates are told them, what is drawn, and what a candidate is called that ignores them."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from holotype_conformance.judge.engine import Settings, judge
from holotype_conformance.judge.records import Result
from holotype_conformance.models.candidate import (
    Candidate,
    FunctionCandidate,
    Inputs,
    Outputs,
    seen,
)
from holotype_conformance.models.cases import BatchCase, Padding, batch_inputs, counted_ids
from holotype_conformance.models.deviations import applicable
from holotype_conformance.models.diagnosis import Watch
from holotype_conformance.models.properties import all_properties
from holotype_conformance.models.properties.caching import ChunkCase
from holotype_conformance.models.scenes import Scene
from holotype_conformance.models.subject import Subject
from holotype_reference.model import Model, Output
from holotype_spec import load
from holotype_spec.schema import Spec

pytestmark = pytest.mark.slow

GLM, GLM_130B, UNILM = load("glm-10b"), load("glm-130b"), load("unilm-v1-base-cased")
PROPERTIES = {each.slug: each for each in all_properties()}
PADDINGS: tuple[Padding, ...] = ("none", "left", "right")


class Plain(Model):
    """A decoder that knows of no prefix."""

    def forward(  # type: ignore[override]
        self,
        token_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
    ) -> Output:
        return super().forward(token_ids, attention_mask=attention_mask, position_ids=position_ids)


class Told(Model):
    """One that takes it by the name that plain modules use."""

    def forward(  # type: ignore[override]
        self,
        token_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        prefix_lengths: Tensor | None = None,
    ) -> Tensor:
        prefix = None if prefix_lengths is None else tuple(prefix_lengths.tolist())
        return (
            super()
            .forward(
                token_ids, attention_mask=attention_mask, position_ids=position_ids, prefix=prefix
            )
            .logits
        )


class SeesAll(Model):
    """A bidirectional one: everything is its prefix."""

    def forward(  # type: ignore[override]
        self,
        token_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
    ) -> Tensor:
        return (
            super()
            .forward(
                token_ids,
                attention_mask=attention_mask,
                position_ids=position_ids,
                prefix=token_ids.shape[1],
            )
            .logits
        )


def subject(kind: type[Model], spec: Spec) -> Subject:
    def build(small: Spec) -> nn.Module:
        return kind(small, path="eager")

    return Subject(FunctionCandidate(build, kind.__name__), spec)


def judged(kind: type[Model], spec: Spec, slug: str) -> Result:
    return judge(subject(kind, spec), PROPERTIES[slug], Settings())


# What candidates are called ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "slug", ["agreement.logits", "causality.future-perturbation", "causality.required-dependence"]
)
def test_a_plain_module_is_told_the_prefix_by_name(slug: str) -> None:
    assert judged(Told, GLM, slug).outcome == "passed"


MASKS = ("mask.dropped", "mask.one-ahead", "prefix", "mixture", "two-positions")


@pytest.mark.parametrize(
    ("kind", "spec", "deviation"),
    [
        (Plain, GLM_130B, "prefix.causal"),
        (Plain, GLM, "prefix.untold"),
        (SeesAll, GLM_130B, "mask.dropped"),
        (Plain, UNILM, "mixture.bidirectional"),
    ],
)
def test_a_candidate_that_ignores_the_prefix_agrees_with_the_deviation_that_says_so_and_with_no_other(
    kind: type[Model], spec: Spec, deviation: str
) -> None:
    case = BatchCase(length=13, batch=3, tokens=3, padding="right")
    watch = Watch(subject(kind, spec))
    scene = Scene(subject=watch.subject, case=case, path="default", regime="bold")
    residuals = {
        each.slug: watch.residual(scene, (each,))
        for each in applicable(spec)
        if each.slug.startswith(MASKS) and not each.equivalent
    }
    assert residuals.pop(deviation) < 1e-11
    assert min(residuals.values()) > 1e-6


def test_a_failure_names_the_prefix() -> None:
    result = judged(Plain, GLM_130B, "causality.required-dependence")
    assert result.reason is not None
    assert "pair (0, 1) behind a visible prefix of 2" in result.reason


class Masked(Candidate):
    """An adapter for code that is told a whole mask, as the release of GLM is."""

    def build(self, spec: Spec, path: str = "default") -> nn.Module:
        return Told(spec, path="eager")

    def forward(self, model: nn.Module, inputs: Inputs) -> Outputs:
        visible = seen(inputs)
        told = visible.all(dim=1).sum(-1).expand(len(inputs.token_ids))  # columns that all see
        logits = model(
            inputs.token_ids, inputs.attention_mask, inputs.position_ids, prefix_lengths=told
        )
        return Outputs(logits=logits)


def test_an_adapter_may_make_a_whole_mask_of_the_prefix() -> None:
    result = judge(Subject(Masked(), GLM_130B), PROPERTIES["agreement.logits"], Settings())
    assert result.outcome == "passed"


# What is drawn ----------------------------------------------------------------------------------------------------


def drawn(spec: Spec, padding: Padding, **case: Any) -> Inputs:
    return batch_inputs(subject(Told, spec), BatchCase(padding=padding, **case))


def test_a_prefix_is_empty_or_ends_in_the_text_of_its_row_or_is_all_of_it() -> None:
    found = set()
    for padding, tokens in product(PADDINGS, range(30)):
        inputs = drawn(GLM, padding, length=9, batch=3, tokens=tokens)
        assert inputs.prefix is not None
        for row, prefix in enumerate(inputs.prefix.tolist()):
            pads = 2 * row if padding != "none" else 0
            start = pads if padding == "left" else 0
            end = 9 - pads if padding == "right" else 9
            assert prefix == 0 or start < prefix <= end
            found.add("none" if prefix == 0 else "all" if prefix == end else "some")
    assert found == {"none", "all", "some"}


def test_a_prefix_lies_in_the_first_chunk_that_a_cache_reads() -> None:
    for tokens in range(20):
        case = ChunkCase(length=9, cuts=(4, 6), batch=3, tokens=tokens)
        prefix = batch_inputs(subject(Told, GLM), case).prefix
        assert prefix is not None
        assert int(prefix.max()) <= 4


def test_a_mixture_is_drawn_each_of_its_four_masks() -> None:
    found = set()
    for tokens in range(30):
        inputs = drawn(UNILM, "none", length=9, batch=2, tokens=tokens)
        if inputs.right_to_left is not None:
            found.add("right to left")
            assert inputs.prefix is None
        elif inputs.prefix is None:
            found.add("all")
        else:
            found.add("segments" if inputs.prefix.any() else "left to right")
    assert found == {"right to left", "all", "segments", "left to right"}


def test_other_specs_are_told_nothing_of_prefixes() -> None:
    inputs = drawn(load("gpt2"), "left", length=9, batch=3)
    assert inputs.prefix is None
    assert inputs.right_to_left is None


def test_two_positions_under_left_padding_count_the_text_and_the_span_of_each_row() -> None:
    told = subject(Told, GLM)
    inputs = Inputs(token_ids=torch.ones(2, 6, dtype=torch.long), prefix=torch.tensor([3, 4]))
    # three tokens of text, whose last one is the mask, and three of its span; four, and two
    assert counted_ids(told, inputs).tolist() == [
        [[0, 1, 2, 2, 2, 2], [0, 0, 0, 1, 2, 3]],
        [[0, 1, 2, 3, 3, 3], [0, 0, 0, 0, 1, 2]],
    ]
    for tokens in range(20):
        padded = drawn(GLM, "left", length=6, batch=2, tokens=tokens)
        assert padded.prefix is not None
        assert padded.position_ids is not None
        if padded.prefix[1] == 4:  # two of padding, two of text
            assert padded.position_ids[1].tolist() == [[0, 0, 0, 1, 1, 1], [0, 0, 0, 0, 1, 2]]
            return
    raise AssertionError("no row had two tokens of text")
