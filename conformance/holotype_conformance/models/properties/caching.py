"""Incremental decoding: whatever the chunks, a cache changes nothing."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Annotated

import msgspec
import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from holotype_conformance.judge.tolerance import demand_equal
from holotype_conformance.models.candidate import Inputs
from holotype_conformance.models.cases import (
    BatchCase,
    batch_inputs,
    counted_ids,
    layer_counts,
    lengths,
    shortest_alike,
)
from holotype_conformance.models.claims import claim
from holotype_conformance.models.exchange import real_rows
from holotype_conformance.models.properties.causality import decodes
from holotype_conformance.models.subject import Subject


class ChunkCase(BatchCase, frozen=True, kw_only=True):
    """A batch that is read in chunks: `cuts` are the positions at which a new chunk begins.

    `told` says whether every step is given position ids, or is left to count on from the cache.
    """

    cuts: tuple[Annotated[int, msgspec.Meta(ge=1)], ...]
    told: bool = False

    def misfit(self, subject: Subject) -> str | None:
        """Cuts rise, and lie inside the input."""
        rising = all(one < other for one, other in pairwise((0, *self.cuts, self.length)))
        if not self.cuts or not rising:
            return f"cuts {list(self.cuts)} do not rise from 1 to {self.length - 1}"
        if self.told and not subject.has("position-ids"):
            return "positions cannot be told to this candidate"
        return super().misfit(subject)

    @property
    def at_once(self) -> int:
        return self.cuts[0]


def _chunked(subject: Subject, *, left: bool) -> st.SearchStrategy[ChunkCase]:
    small, rows = subject.probe(2), 3 if left else 1

    def at_length(length: int) -> st.SearchStrategy[ChunkCase]:
        first = shortest_alike(small, length, rows)  # theta stays as the first chunk wants it
        inner = st.integers(first, length - 1)
        every = st.just(tuple(range(first, length)))  # a token at a time
        cuts = st.sets(inner, min_size=1, max_size=4).map(lambda cut: tuple(sorted(cut)))
        return st.builds(
            ChunkCase,
            length=st.just(length),
            cuts=st.one_of(cuts, cuts, every),
            batch=st.integers(2 if left else 1, 3),
            padding=st.just("left") if left else unpadded(subject),
            told=st.just(subject.has("position-ids")) if left else tellings(subject),
            layers=layer_counts(),
            weights=st.integers(0, 2),
            tokens=st.integers(0, 99),
        )

    return lengths(2).filter(lambda n: shortest_alike(small, n, rows) < n).flatmap(at_length)


def unpadded(subject: Subject) -> st.SearchStrategy[str]:
    """No mask, or one of ones."""
    return st.sampled_from(["none", "ones"] if subject.has("attention-mask") else ["none"])


def tellings(subject: Subject) -> st.SearchStrategy[bool]:
    """Whether position ids are passed, to a candidate that takes them."""
    return st.booleans() if subject.has("position-ids") else st.just(False)


def read_in_chunks(
    subject: Subject, model: nn.Module, inputs: Inputs, cuts: tuple[int, ...]
) -> Tensor:
    """The logits of `inputs`, read chunk by chunk through a cache: (batch, length, vocabulary)."""
    cache, logits = None, []
    edges = (0, *cuts, inputs.token_ids.shape[1])
    for start, end in pairwise(edges):
        outputs = subject.forward_cached(model, chunk(inputs, start, end), cache)
        cache = outputs.cache
        logits.append(outputs.logits)
    return torch.cat(logits, dim=1)


def chunk(inputs: Inputs, start: int, end: int) -> Inputs:
    """Positions start … end-1, with the mask of everything up to them."""

    def cut(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else tensor[..., start:end]

    mask = inputs.attention_mask
    return replace(
        inputs,
        token_ids=inputs.token_ids[:, start:end],
        attention_mask=None if mask is None else mask[:, :end],
        position_ids=cut(inputs.position_ids),
        token_types=cut(inputs.token_types),
    )


def check_chunks(subject: Subject, case: ChunkCase, path: str) -> None:
    """Demand that reading in the chunks of the case gives what one pass gives."""
    inputs = batch_inputs(subject, case)
    if case.told and inputs.position_ids is None:
        inputs = replace(inputs, position_ids=counted_ids(subject, inputs))
    if inputs.source_ids is not None and subject.has("source-mask"):
        mask = torch.ones_like(inputs.source_ids)
        mask[0, 1:][-2:] = 0
        inputs = replace(inputs, source_mask=mask)
    model = subject.model(case.setup(path))
    demand_equal(
        read_in_chunks(subject, model, inputs, case.cuts),
        subject.forward(model, inputs).logits,
        rows=real_rows(inputs),
        budget=subject.floor,
        stated=subject.limits.through_a_cache(subject.widest),
        what=f"the outputs read in chunks that begin at 0, {', '.join(map(str, case.cuts))}, and the full pass",
    )


@claim(
    slug="cache.chunks",
    clause="Decoding through a KV cache equals one full pass.",
    meaning=(
        "Reading an input in chunks of any size through a KV cache gives what one full pass gives. "
        "The input is cut into chunks, one token at a time or several, and read through the "
        "cache. Look at the offset of the positions, at the mask of a chunk of several tokens "
        "behind a cache (aligned to its last key, not its first), at the order in which keys are "
        "joined, and at what a sliding cache throws away."
    ),
    catches=(
        "cache offset forgotten",
        "mask aligned to the first key",
        "keys joined in the wrong order",
        "sliding cache one too short",
        "cross-attention cache recomputed",
    ),
    needs=("cache",),
    applies=decodes,
    cases=lambda subject: _chunked(subject, left=False),
    examples=15,
    apart=True,
)
def chunks(subject: Subject, case: ChunkCase, path: str) -> None:
    check_chunks(subject, case, path)


@claim(
    slug="cache.left-padding",
    clause="Decoding under left padding equals one full pass.",
    meaning=(
        "Reading a batch that is padded on the left, as for generation, through a KV cache gives "
        "what one full pass gives, at every step: in chunks, each with the mask of everything read so far. "
        "Look for a mask that is used in the first step only, and for positions that count the "
        "padding."
    ),
    catches=("padding mask ignored after the first chunk", "cache offset counts the padding"),
    needs=("cache", "left-padding"),
    applies=decodes,
    cases=lambda subject: _chunked(subject, left=True),
    examples=15,
    apart=True,
)
def left_padding(subject: Subject, case: ChunkCase, path: str) -> None:
    check_chunks(subject, case, path)


class ReuseCase(BatchCase, frozen=True, kw_only=True):
    """A batch that is read in two halves, and another one between them."""

    @property
    def at_once(self) -> int:
        return self.length // 2


def reuse_cases(subject: Subject) -> st.SearchStrategy[ReuseCase]:
    return st.builds(
        ReuseCase,
        length=lengths(2).filter(lambda n: shortest_alike(subject.probe(2), n) < n),
        batch=st.integers(1, 4),
        layers=layer_counts(),
        weights=st.integers(0, 2),
        tokens=st.integers(0, 99),
    )


@claim(
    slug="cache.reuse",
    clause="Two KV caches have no effect on each other.",
    meaning=(
        "A KV cache that is no longer used has no effect, and two caches have none on each other. "
        "Two inputs are read in turn, each through its own cache. Look for a cache that is shared "
        "by all calls, such as a default argument or an attribute of the module."
    ),
    catches=("cache shared between calls",),
    needs=("cache", "parallel-caches"),
    applies=decodes,
    cases=reuse_cases,
    examples=4,
    apart=True,
)
def cache_reuse(subject: Subject, case: ReuseCase, path: str) -> None:
    inputs = batch_inputs(subject, case)
    other = batch_inputs(subject, msgspec.structs.replace(case, tokens=case.tokens + 1))
    middle = max(case.at_once, shortest_alike(subject.probe(2), case.length))
    model = subject.model(case.setup(path))
    caches = [
        subject.forward_cached(model, chunk(each, 0, middle), None).cache
        for each in (inputs, other)
    ]
    for each, cache in zip((inputs, other), caches, strict=True):
        rest = chunk(each, middle, case.length)
        demand_equal(
            subject.forward_cached(model, rest, cache).logits,
            subject.forward(model, each).logits[:, middle:],
            rows=real_rows(rest),
            budget=subject.floor,
            stated=subject.limits.through_a_cache(subject.widest),
            what="the outputs of two inputs read in turn through two caches and their full passes",
        )
