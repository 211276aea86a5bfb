"""Receptive fields in long inputs: where blocks of a kernel meet, a mask ends, and a window has moved on.

A code path is often chosen by the length. What is right for twenty tokens may go through a mask that was built for
sixty-four, through blocks of which one is skipped too many, or through chunks that forget each other.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import msgspec
import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from holotype_conformance.judge.property import Case, Violation
from holotype_conformance.judge.tolerance import moved
from holotype_conformance.models.candidate import Inputs
from holotype_conformance.models.cases import (
    BatchCase,
    Layers,
    Length,
    Padding,
    Seed,
    batch_inputs,
    misfit_of_input,
    paddings,
)
from holotype_conformance.models.claims import claim
from holotype_conformance.models.exchange import real_rows
from holotype_conformance.models.properties.causality import another, told
from holotype_conformance.models.stillness import leaks
from holotype_conformance.models.subject import Subject
from holotype_spec.dependencies import dependents
from holotype_spec.probes import LONG
from holotype_spec.schema import SlidingWindow, Spec

EDGES = (64, 128, 256, 512)  # tokens at which a block of a kernel, a chunk or a buffer ends
SHORTER = 2  # edges far below the length are looked at in an input that is so many times shorter, and cheaper
NEAR, STRONG = 8, 1e-4  # influence has not faded where it was that strong so few outputs before
AGAIN = (100, 200)  # later texts in which an output must be blind, too, that no neighbour of it is
LASTING = 4  # outputs that do not move are blind, and not at rest, if they are so many times more than ever before


class LongCase(Case, frozen=True, kw_only=True):
    """An input of `length` tokens for every place beside an edge, whose token is replaced; and shorter ones."""

    length: Length
    padding: Padding = "none"
    layers: Layers = 2
    weights: Seed = 0
    tokens: Seed = 0

    def misfit(self, subject: Subject) -> str | None:
        """The probe takes inputs of this length, padded so."""
        if self.length < 2:
            return "length 1 has no other token to be blind to"
        return misfit_of_input(subject, self.length, self.padding)

    def batches(self, spec: Spec) -> list[tuple[BatchCase, list[int]]]:
        """A batch of each length, and the place of the token that is replaced in each of its rows."""
        found, length = [], self.length
        while length == self.length or length >= EDGES[0]:
            row_places = places(spec, length)
            fields = msgspec.structs.asdict(self) | {"length": length, "batch": len(row_places)}
            found.append((BatchCase(**fields), row_places))
            length = -(-length // SHORTER)
        return found


def places(spec: Spec, length: int) -> list[int]:
    """The first and last token, those at the edges and beside them, and the last that a window hides from an edge."""
    pattern = spec.architecture.attention.pattern
    beside = [-1, 0, 1]
    if isinstance(pattern, SlidingWindow):
        beside.append(-1 - spec.layers * (pattern.window - 1))
    near = {
        edge + step
        for edge in EDGES
        if (edge + 1) * SHORTER >= length  # else the shorter input has it, and what is behind it
        for step in beside
        if 0 < edge + step < length
    }
    return sorted(near | {0, length - 1})


def long_lengths(subject: Subject) -> st.SearchStrategy[int]:
    """Nearly always as long as the model takes, or long enough, to the very last; shrinks to the shortest."""
    most = min(subject.spec.max_positions, LONG)
    far = st.integers(max(2, most - 9), most + 90).map(lambda length: min(length, most))
    return st.integers(0, 19).flatmap(lambda kind: far if kind else st.integers(2, most))


def long_cases(subject: Subject) -> st.SearchStrategy[LongCase]:
    return st.builds(
        LongCase,
        length=long_lengths(subject),
        padding=paddings(subject),
        layers=st.sampled_from((1, *[2] * 7)),  # one leaves more to chance
        weights=st.integers(0, 2),
        tokens=st.integers(0, 99),
    )


def _allowed(spec: Spec, inputs: Inputs, row_places: list[int]) -> Tensor:
    """(batch, length) bool: the outputs that may depend on the token at the place of their row."""
    masks, prefix = inputs.attention_mask, inputs.prefix
    rows = [
        dependents(
            spec,
            place,
            inputs.token_ids.shape[1],
            attention_mask=None if masks is None else masks[row].cpu().numpy().astype(bool),
            prefix=None if prefix is None else int(prefix[row]),
            right_to_left=inputs.right_to_left is not None,
        )
        for row, place in enumerate(row_places)
    ]
    return torch.from_numpy(np.stack(rows))


def _broken_off(sizes: Tensor, required: Tensor, still: Tensor, place: int) -> int | None:
    """The output of a row at which the influence of the token at `place` ends, and should not.

    It may fade with the distance, so that no bit is left of it; and attention that looks at few tokens passes over this
    one for a while. So it ends where it was strong a few outputs before, for longer than it has ever paused.

    Args:
        sizes: (length,) how far each output moved, relative to the root mean square of all.
        required, still: (length,) bool: it must move; it did not.
        place: of the token.
    """
    outputs = required.nonzero().flatten()
    for side in (outputs[outputs >= place], outputs[outputs <= place].flip(0)):
        moving = (~still[side]).nonzero().flatten()
        if not len(moving):
            return int(side[0]) if len(side) else None
        last = int(moving[-1])
        pause = int(moving.diff(prepend=moving.new_tensor([-1])).max())
        strong = sizes[side[max(0, last - NEAR) : last + 1]].max() > STRONG
        if len(side) - 1 - last >= LASTING * pause and strong:
            return int(side[last + 1])
    return None


@claim(
    slug="causality.long-rows",
    clause="Receptive fields are exact in long inputs.",
    meaning=(
        "In inputs of up to 523 tokens, if the model takes as many, an output depends on its receptive field, which"
        " the spec's dependency matrix gives, and on nothing else. One"
        " token is replaced by another at, before or behind the places where"
        " blocks of a kernel meet and buffers end (64, 128, 256 and 512), or at either end. Every output that may not"
        " depend on it must keep its very bits. The others must move: the influence of a token may fade with the"
        " distance until no bit is left, and must not break off, nor pass over one output. A model that fails here"
        " alone is right for short inputs. Look at what depends on the length: a mask or a buffer made for a number of"
        " tokens, a block of a kernel that is skipped, or masked where it must not be, chunks that do not see those"
        " before, a path that is taken beyond some length. A model with room for fewer tokens than the spec has in"
        " max_positions raises here:"
        " let your build take the number from the spec, or state yours in a spec file of your own."
    ),
    catches=(
        "mask that ends before the input does",
        "mask off by one where two blocks meet",
        "window forgotten in long inputs",
        "a block of a kernel that forgets the one before",
    ),
    binds=("max_positions", "architecture.attention.pattern"),
    cases=long_cases,
    examples=2,
    apart=True,
)
def long_rows(subject: Subject, case: LongCase, path: str) -> None:
    for batch, row_places in case.batches(subject.probe(case.layers)):
        check_batch(subject, batch, row_places, path)


class Moved(NamedTuple):
    """The outputs before and after the token at the place of each row changed, each (batch, length).

    `sizes` says how far each output moved, relative to the root mean square of all.
    """

    inputs: Inputs
    before: Tensor
    after: Tensor
    sizes: Tensor
    change: Tensor
    allowed: Tensor
    real: Tensor

    @property
    def blind(self) -> Tensor:
        """Outputs that kept every bit and must move, right behind and right before such as moved far."""
        far = self.sizes > STRONG
        ends = torch.ones_like(far[:, :1])
        near = torch.cat([ends, far[:, :-1]], 1) & torch.cat([far[:, 1:], ends], 1)
        return near & ~self.change & self.allowed & self.real


def replaced(subject: Subject, model: nn.Module, case: BatchCase, row_places: list[int]) -> Moved:
    """Replace the token at the place of each row, and say what became of all outputs."""
    inputs = batch_inputs(subject, case)
    rows, columns = torch.arange(case.batch), torch.tensor(row_places)
    tokens = inputs.token_ids.clone()
    tokens[rows, columns] = another(tokens[rows, columns], subject.probe(2).vocab_size)
    before = subject.forward(model, inputs).logits
    after = subject.forward(model, replace(inputs, token_ids=tokens)).logits
    return Moved(
        inputs=inputs,
        before=before,
        after=after,
        sizes=((after - before).double().abs().amax(-1) / _scale(before)).cpu(),
        change=moved(before, after, subject.stillness).cpu(),
        allowed=_allowed(subject.probe(case.layers), inputs, row_places),
        real=real_rows(inputs).cpu(),
    )


def check_batch(subject: Subject, case: BatchCase, row_places: list[int], path: str) -> None:
    """Replace the token at the place of each row, and judge all outputs of the row."""
    model = subject.model(case.setup(path))
    seen = replaced(subject, model, case, row_places)
    forbidden = ~seen.allowed & seen.real
    found = leaks(subject, model, seen.inputs, seen.before, seen.after, forbidden)
    if found.any():
        row, i = found.nonzero()[-1].tolist()
        size = float((seen.before[row, i] - seen.after[row, i]).abs().max())
        said = f"moved by {size:.1e} when that token changed, and must not move at all"
        raise _violation(seen.inputs, row, i, row_places[row], "depends", said)
    for row, place in enumerate(row_places):
        required = seen.allowed[row] & seen.real[row]
        end = _broken_off(seen.sizes[row], required, ~seen.change[row], place)
        if end is not None:
            said = "kept every bit when that token changed, though those before it moved, and must move"
            raise _violation(seen.inputs, row, end, place, "does not depend", said)
    _demand_none_blind(subject, model, case, row_places, seen.blind)


def _demand_none_blind(
    subject: Subject,
    model: nn.Module,
    case: BatchCase,
    row_places: list[int],
    blind: Tensor,
) -> None:
    """Demand that an output which does not move, among others that do, moves in another text.

    Attention that looks at few tokens may pass over one by chance: it does not do so in three texts.
    """
    seen: Moved | None = None
    for texts in AGAIN:
        if not blind.any():
            return
        other = msgspec.structs.replace(case, tokens=case.tokens + texts)
        seen = replaced(subject, model, other, row_places)
        blind = blind & seen.blind
    if seen is not None and blind.any():
        row, i = blind.nonzero()[0].tolist()
        said = "kept every bit when that token changed, in three texts, though its neighbours moved, and must move"
        raise _violation(seen.inputs, row, i, row_places[row], "does not depend", said)


def _scale(logits: Tensor) -> Tensor:
    """The root mean square of all that is a number: padding content may be anything."""
    return logits[logits.isfinite()].double().square().mean().sqrt()


def _violation(inputs: Inputs, row: int, i: int, place: int, verb: str, said: str) -> Violation:
    length = inputs.token_ids.shape[1]
    return Violation(
        f"of {length} tokens, output {i} {verb} on input {place}, pair ({i}, {place}){told(inputs, row)}: it {said}",
        pair=[i, place],
        row=row,
    )
