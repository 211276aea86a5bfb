"""What must not move is held to its bits where the candidate gives bits, and to rounding where it rounds anew."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from holotype_conformance.judge.engine import Settings, judge
from holotype_conformance.judge.records import Result
from holotype_conformance.kernels.subject import copied
from holotype_conformance.models.adapters.reference import ReferenceCandidate
from holotype_conformance.models.candidate import Inputs, Outputs
from holotype_conformance.models.properties import all_properties
from holotype_conformance.models.subject import Subject
from holotype_spec import load

pytestmark = pytest.mark.slow

PROPERTIES = {property_.slug: property_ for property_ in all_properties()}
HELD_STILL = [
    ("gpt2", "causality.future-perturbation"),
    ("gpt2", "causality.long-rows"),
    ("gpt2", "batch.independence"),
    ("bert-base-uncased", "padding.content"),
    ("xlnet-base-cased", "causality.order"),
]
still = pytest.mark.parametrize(("spec", "slug"), HELD_STILL)


class Changed(ReferenceCandidate):
    """The reference, whose outputs `change` has a hand in."""

    paths = ("fused",)

    def __init__(self, change: Callable[[Tensor, Tensor], Tensor]) -> None:
        self.change = change

    def forward(self, model: nn.Module, inputs: Inputs) -> Outputs:
        outputs = super().forward(model, inputs)
        pair = outputs.next_sentence
        return replace(
            outputs,
            logits=self.change(outputs.logits, inputs.token_ids),
            next_sentence=None if pair is None else self.change(pair, inputs.token_ids),
        )


class RoundsAnew:
    """Rounds at the last places, in another way at each call; as much larger as `size`."""

    def __init__(self, size: float = 2**-50) -> None:
        self.generator = torch.Generator().manual_seed(0)
        self.size = size

    def __call__(self, x: Tensor, tokens: Tensor) -> Tensor:
        noise = torch.rand(x.shape, generator=self.generator, dtype=torch.float64)
        return (x * (1 + self.size * noise.round())).to(x)


def leaking(size: float) -> Callable[[Tensor, Tensor], Tensor]:
    """All outputs know the sum of all tokens, a little."""
    return lambda x, tokens: x * (1 + size * (tokens.sum() % 2).to(x))


def judged(change: Callable[[Tensor, Tensor], Tensor], spec: str, slug: str) -> Result:
    property_ = PROPERTIES[slug]
    fewer = replace(property_, examples=min(property_.examples, 6))
    return judge(Subject(Changed(change), load(spec)), fewer, Settings())


@pytest.mark.parametrize(
    ("spec", "slug"),
    [*HELD_STILL, ("gpt2", "modes.determinism"), ("gpt2", "modes.eval-without-dropout")],
)
def test_a_candidate_that_rounds_anew_at_each_call_is_held_to_rounding(
    spec: str, slug: str
) -> None:
    result = judged(RoundsAnew(), spec, slug)
    assert result.outcome == "passed", result.reason


@still
def test_a_leak_of_one_bit_is_one(spec: str, slug: str) -> None:
    assert judged(leaking(2**-52), spec, slug).outcome == "failed"


@still
def test_a_leak_beyond_rounding_is_seen_through_rounding(spec: str, slug: str) -> None:
    noise, leak = RoundsAnew(), leaking(1e-9)
    assert judged(lambda x, tokens: leak(noise(x, tokens), tokens), spec, slug).outcome == "failed"


@still
def test_what_differs_by_more_from_call_to_call_is_no_rounding(spec: str, slug: str) -> None:
    assert judged(RoundsAnew(1e-9), spec, slug).outcome == "failed"


@pytest.mark.parametrize(
    ("spec", "slug"),
    [("llama2-7b", "positions.shift-invariance"), ("gpt2", "modes.train-with-dropout")],
)
def test_rounding_alone_is_no_change_where_one_is_demanded(spec: str, slug: str) -> None:
    whole = judged(lambda x, tokens: x, spec, slug)
    assert whole.outcome == "passed", whole.reason
    noise, kept = RoundsAnew(), {}

    def forgetful(x: Tensor, tokens: Tensor) -> Tensor:
        """The first answer to the same tokens, whatever else is said."""
        return noise(kept.setdefault((x.shape, *tokens.flatten().tolist()), x.detach()), tokens)

    assert judged(forgetful, spec, slug).outcome == "failed"


# Why bits may be demanded of two calls ---------------------------------------------------------------------------

MADE = {
    "empty": lambda x: torch.empty_like(x),
    "clone": lambda x: x.clone(),
    "product": lambda x: x @ x.T,
    "softmax": lambda x: x.softmax(-1),
    "cut": lambda x: x[:, 1:].clone(),
    "joined": lambda x: torch.cat([x, x]),
    "cast": lambda x: x.to(torch.float32 if x.dtype is torch.float64 else torch.float64),
}


@pytest.mark.parametrize("make", MADE.values(), ids=MADE)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_torch_puts_whatever_it_makes_at_multiples_of_64_bytes(
    make: Callable[[Tensor], Tensor], dtype: torch.dtype
) -> None:
    held = []
    for size in range(2, 40):
        held.append(make(torch.ones(size, 3, dtype=dtype)))
        assert held[-1].data_ptr() % 64 == 0


def test_what_a_kernel_is_given_lies_alike_in_every_call() -> None:
    room = torch.arange(200, dtype=torch.float64)
    for view in (room, room[3:], room[3:103].view(10, 10)[:, 2:].T):
        start = 8 * view.storage_offset()
        own = [copied(view) for _ in range(5)]
        assert {each.data_ptr() % 64 for each in own} == {start % 64}
        assert {each.stride() for each in own} == {view.stride()}
        assert all(torch.equal(each, view) for each in own)
