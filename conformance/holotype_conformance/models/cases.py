"""The cases that most properties share: a small batch on a small model, and how it is padded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Literal

import msgspec
import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor

from holotype_conformance.judge.property import Case, Skip
from holotype_conformance.judge.records import DType
from holotype_conformance.judge.sharing import shared
from holotype_conformance.models.candidate import Inputs
from holotype_conformance.models.exchange import real_rows
from holotype_conformance.models.setup import Setup
from holotype_conformance.models.subject import Subject
from holotype_spec.probes import LONG, POSITIONS, ROWS
from holotype_spec.schema import (
    Spec,
)

Padding = Literal["none", "ones", "left", "right"]
FEW = 4  # rows, of which each can be padded by a block more than the one before
LONGEST = 24  # beyond every window, bucket and reach of a probe


# What a case can be written with: more than any property draws, and nothing that would be no model or no input.
Length = Annotated[int, msgspec.Meta(ge=1, le=4096)]
Batch = Annotated[int, msgspec.Meta(ge=1, le=64)]
Layers = Annotated[int, msgspec.Meta(ge=1, le=8)]
Seed = Annotated[int, msgspec.Meta(ge=0, le=999)]


class BatchCase(Case, frozen=True, kw_only=True):
    """A batch of random tokens on a model with random weights.

    `padding`: no mask at all, a mask of ones, or rows of different lengths padded on one side.
    """

    length: Length
    batch: Batch = 1
    padding: Padding = "none"
    layers: Layers = 2
    weights: Seed = 0
    tokens: Seed = 0

    def misfit(self, subject: Subject) -> str | None:
        """Why the fields do not fit each other or the subject, or None."""
        return misfit_of_input(subject, self.length, self.padding)

    @property
    def at_once(self) -> int:
        """The number of tokens that are read together at first: a visible prefix is no longer than that."""
        return self.length

    def setup(self, path: str, **changes: object) -> Setup:
        """The probe model of this case on one code path."""
        long = self.length > ROWS
        return Setup(layers=self.layers, weights=self.weights, path=path, long=long, **changes)  # type: ignore[arg-type]


def misfit_of_input(subject: Subject, length: int, padding: Padding) -> str | None:
    """Why the candidate cannot be given inputs of this length or padding, or None."""
    longest = subject.longest if subject.spec.added_positions else LONG
    if length > longest:
        return f"length {length} is more than the {longest} tokens that a probe takes"
    if padding == "left" and not can_pad_left(subject):
        return "padding 'left' moves positions, which this candidate cannot be told"
    if padding != "none" and not subject.has("attention-mask"):
        return f"padding {padding!r} needs an attention mask, which this candidate does not take"
    return None


def lengths(least: int = 1, most: int = LONGEST) -> st.SearchStrategy[int]:
    """Mostly long ones, because short inputs hide windows and buckets; shrinks to the shortest."""
    long = st.integers(most // 2 + 1, most)
    return st.one_of(st.integers(least, most // 2), long, long)


def layer_counts() -> st.SearchStrategy[int]:
    """Two or three layers nearly always, because one hides what the next does not get; shrinks to one."""
    return st.sampled_from((1, 2, 3, 2, 3, 2, 3))


def paddings(
    subject: Subject, choices: Sequence[Padding] | None = None
) -> st.SearchStrategy[Padding]:
    """Those of `choices` that the candidate can be given."""
    if not subject.has("attention-mask"):
        return st.just("none")
    allowed = [
        choice
        for choice in choices or ("none", "ones", "left", "right")
        if choice != "left" or can_pad_left(subject)
    ]
    return st.sampled_from(allowed)


def asked(subject: Subject, dtypes: Sequence[DType]) -> st.SearchStrategy[DType]:
    """Those of `dtypes` in which numbers were asked to be compared, and which the candidate has.

    Raises:
        Skip: it has none of them.
    """
    wanted = [dtype for dtype in dtypes if dtype in subject.asked]
    found = [dtype for dtype in wanted if subject.has(dtype)]
    if wanted and not found:
        raise Skip(f"it has no {wanted[0]}: {subject.capabilities[wanted[0]]}")
    return st.sampled_from(found)


def can_pad_left(subject: Subject) -> bool:
    """Left padding moves absolute positions, so position ids must then be passed."""
    return subject.has("left-padding")


def farthest(spec: Spec) -> int:
    """The number of position ids that can be passed: the rows of a table, or as many as low precision needs to show."""
    computed = spec.architecture.positions.rotates
    return max(spec.max_positions, POSITIONS) if computed else spec.max_positions


def alike(spec: Spec, *lengths: int) -> bool:
    """Whether what inputs of these lengths have in common is read alike: theta may grow with the length."""
    return spec.architecture.positions.read_alike(*lengths)


def shortest_alike(spec: Spec, length: int, rows: int = 1) -> int:
    """The shortest prefix that is read as within the whole input, in each of so many rows padded on the left."""
    step = padding_step(length, rows)
    padding = range(0, step * rows, step)
    return next(
        first
        for first in range(1, length + 1)
        if all(alike(spec, max(first - pads, 0), max(length - pads, 0)) for pads in padding)
    )


def source_length(case: BatchCase) -> int:
    """Tokens of an encoder-decoder's source: any number up to `LONGEST`, or as many as a long target has."""
    return case.length if case.length > ROWS else 1 + (6 + 11 * case.tokens) % LONGEST


@shared
def batch_inputs(subject: Subject, case: BatchCase) -> Inputs:
    """The inputs of a case; token types, a source, and a prefix or a mask of a mixture where the spec has them."""
    inputs = subject.inputs(
        tokens=(case.batch, case.length),
        source=source_length(case),
        seed=case.tokens,
        types=subject.has("token-types"),
    )
    return viewed(subject, padded(subject, inputs, case.padding), case)


def random_order(subject: Subject, case: BatchCase) -> Tensor:
    """(batch, length): the places of the positions in an order of prediction, another one in every row."""
    generator = torch.Generator().manual_seed(1000 * subject.seed + case.tokens)
    rows = [torch.randperm(case.length, generator=generator) for _ in range(case.batch)]
    return torch.stack(rows).to(subject.device)


def padded(subject: Subject, inputs: Inputs, padding: Padding) -> Inputs:
    """`inputs` with row r's first or last tokens declared padding: none of row 0, more further down.

    What stands at the padded positions are arbitrary tokens. Under left padding position ids count the
    real tokens, for candidates that take them.
    """
    if padding == "none":
        return inputs
    mask = padding_mask(inputs.token_ids, padding)
    if padding != "left" or not subject.has("position-ids"):
        return replace(inputs, attention_mask=mask)
    return replace(inputs, attention_mask=mask, position_ids=counted_positions(mask))


# Prefixes --------------------------------------------------------------------------------------------------------


def viewed(subject: Subject, inputs: Inputs, case: BatchCase) -> Inputs:
    """`inputs` with a prefix drawn for each row, or with one of the masks of a mixture; as they are for other specs.

    A candidate is passed it whether it reads it or not, as the source of an encoder-decoder.
    """
    rng = np.random.default_rng([subject.seed, case.tokens, case.length, case.batch])
    if not subject.spec.has_prefix:
        return inputs
    if subject.spec.mixture_of_masks:
        match rng.integers(4):
            case 0:
                return inputs
            case 1:
                return replace(inputs, right_to_left=torch.ones_like(inputs.token_ids[:, 0]))
            case 2:
                return replace(inputs, prefix=torch.zeros_like(inputs.token_ids[:, 0]))
            case _:
                pass
    inputs = replace(inputs, prefix=drawn_prefixes(inputs, case, rng))
    if inputs.position_ids is None:
        return inputs
    return replace(inputs, position_ids=placed(subject.spec, inputs, inputs.position_ids))


def drawn_prefixes(inputs: Inputs, case: BatchCase, rng: np.random.Generator) -> Tensor:
    """(batch,): of what a row reads at first any number of real tokens, and the padding in front of them.

    One that is not empty reaches further than its padding.
    """
    starts, real = padding_before(inputs), real_rows(inputs).sum(-1)
    room = torch.minimum(real, case.at_once - starts).clamp(min=0)
    tokens = torch.from_numpy(rng.integers(0, room.cpu().numpy() + 1)).to(room)
    return torch.where(tokens > 0, starts + tokens, 0)


def padding_before(inputs: Inputs) -> Tensor:
    """(batch,): how many places of each row are padding that stands in front of its text."""
    return (real_rows(inputs).cumsum(-1) == 0).sum(-1)


def counted_ids(subject: Subject, inputs: Inputs) -> Tensor:
    """The position ids that a model counts by itself: 0, 1, 2, … in every row, or two for each token."""
    batch, length = inputs.token_ids.shape
    count = torch.arange(length, device=inputs.token_ids.device).repeat(batch, 1)
    return placed(subject.spec, replace(inputs, attention_mask=None), count)


def placed(spec: Spec, inputs: Inputs, count: Tensor) -> Tensor:
    """Position ids for tokens counted so (batch, length): the same, or two for each token, (batch, 2, length).

    Of the two, what stands behind a prefix has the place of its last token, which is the mask that it fills in, and
    counts its own from 1; all else has its place and 0.
    """
    if not spec.two_positions:
        return count
    prefix = torch.zeros_like(count[:, 0]) if inputs.prefix is None else inputs.prefix
    text = (prefix - padding_before(inputs)).clamp(min=0)[:, None]
    in_span = (count >= text) & (text > 0)
    first, second = torch.where(in_span, text - 1, count), (count - text + 1) * in_span
    return torch.stack([first, second], dim=1)


# Padding ---------------------------------------------------------------------------------------------------------


def padding_mask(token_ids: Tensor, padding: Padding) -> Tensor:
    """(batch, length): ones, or on one side of row r zeros, r times `padding_step`; one if there is but one row."""
    batch, length = token_ids.shape
    zeros = padding_step(length, batch) * torch.arange(batch) if batch > 1 else torch.ones(1)
    zeros = torch.zeros(batch) if padding == "ones" else zeros.clamp(max=length - 1)
    index = torch.arange(length)
    mask = index >= zeros[:, None] if padding == "left" else index < length - zeros[:, None]
    return mask.long().to(token_ids.device)


def padding_step(length: int, batch: int) -> int:
    """The tokens of padding that a row has more than the one before: in a few long rows more than a block."""
    return 2 if length <= ROWS or batch > FEW else length // FEW


def counted_positions(mask: Tensor) -> Tensor:
    """(batch, length): the number of real tokens before each position; 0 at padding on the left."""
    return (mask.cumsum(-1) - 1).clamp(min=0)


def batch_cases(
    subject: Subject,
    *,
    least: int = 1,
    most: int = LONGEST,
    batches: st.SearchStrategy[int] | None = None,
    choices: Sequence[Padding] | None = None,
) -> st.SearchStrategy[BatchCase]:
    """Cases of every length, size and padding that the candidate can be given."""
    return st.builds(
        BatchCase,
        length=lengths(least, most),
        batch=st.integers(1, 4) if batches is None else batches,
        padding=paddings(subject, choices),
        layers=layer_counts(),
        weights=st.integers(0, 2),
        tokens=st.integers(0, 99),
    )
