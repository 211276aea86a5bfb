"""Lines on which every verdict rests, each of which could once be changed without a test that fails.

Expected values are from the definitions (the largest absolute difference, bits where nothing may move), never from what
the code returns.
"""

import pytest
import torch
from torch import Tensor, nn

from holotype_conformance.judge.property import Violation
from holotype_conformance.judge.records import Result
from holotype_conformance.judge.tolerance import moved, relative_error
from holotype_conformance.judge.verdict import verdict_on
from holotype_conformance.models.adapters.reference import ReferenceCandidate
from holotype_conformance.models.bold_weights import embolden
from holotype_conformance.models.candidate import Inputs, Outputs
from holotype_conformance.models.properties import all_properties
from holotype_conformance.models.properties.agreement import AgreementCase
from holotype_conformance.models.setup import Setup
from holotype_conformance.models.subject import Subject
from holotype_conformance.torch_tools.float64 import Float64Throughout
from holotype_reference.model import build
from holotype_spec import load
from holotype_spec.schema import Spec

PROPERTIES = {property_.slug: property_ for property_ in all_properties()}
GPT2 = load("gpt2")
CASE = AgreementCase(length=7, batch=2)


class Scaled(ReferenceCandidate):
    """The reference with logits that are off by a relative error."""

    paths = ("fused",)

    def __init__(self, error: float) -> None:
        self.factor = 1.0 + error

    def forward(self, model: nn.Module, inputs: Inputs) -> Outputs:
        return Outputs(logits=super().forward(model, inputs).logits * self.factor)


# Comparing ------------------------------------------------------------------------------------------------------


def test_too_small_a_number_is_as_wrong_as_one_too_large() -> None:
    expected = torch.tensor([3.0, 4.0, 0.0, 0.0])  # root mean square 2.5
    lower = expected - torch.tensor([1.0, 0.0, 0.0, 0.0])
    assert relative_error(lower, expected) == pytest.approx(1.0 / 2.5)


@pytest.mark.parametrize(("change", "moves"), [(0.0, False), (0.9e-3, False), (1.1e-3, True)])
@pytest.mark.parametrize("sign", [1, -1])
def test_what_may_move_by_rounding_may_move_by_that_and_no_more(
    change: float, moves: bool, sign: int
) -> None:
    before = torch.tensor([[[2.0, -2.0], [2.0, 2.0]]], dtype=torch.float64)  # size 2
    after = before + sign * torch.tensor([[[0.0, 0.0], [0.0, 2.0 * change]]])
    assert moved(before, after, 1e-3).tolist() == [[False, moves]]


@pytest.mark.parametrize("stillness", [0.0, 1e-3])
def test_what_is_no_number_has_moved_and_the_same_infinity_has_not(stillness: float) -> None:
    before = torch.ones(1, 5, 2, dtype=torch.float64)
    before[0, 3, 0] = before[0, 4, 0] = torch.inf
    after = before.clone()
    after[0, 1, 1] = torch.nan
    after[0, 2, 0] = -torch.inf
    after[0, 4, 0] = 1.0
    assert moved(before, after, stillness).tolist() == [[False, True, True, False, True]]
    assert moved(after, before, stillness).tolist() == [[False, True, True, False, True]]


def test_where_bits_count_the_last_one_does() -> None:
    before = torch.ones(1, 2, 3, dtype=torch.float64)
    after = before.clone()
    after[0, 1, 2] += torch.finfo(torch.float64).eps
    assert moved(before, after, 0.0).tolist() == [[False, True]]


# What is rounding -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [1e-11, 1e-10, -1e-10])
def test_an_error_of_ten_roundings_and_more_of_float64_is_none(error: float) -> None:
    with pytest.raises(Violation):
        Subject(Scaled(error), GPT2).check(PROPERTIES["agreement.logits"], CASE)


def test_an_error_of_a_few_units_in_the_last_place_is_rounding() -> None:
    Subject(Scaled(4e-15), GPT2).check(PROPERTIES["agreement.logits"], CASE)


def test_what_must_not_move_may_not_by_a_bit_unless_tokens_are_dealt_to_experts() -> None:
    class Routing(ReferenceCandidate):
        def routes(self, spec: Spec) -> bool:
            return True

    assert Subject(ReferenceCandidate(), GPT2).stillness == 0.0
    dealt = Subject(Routing(), GPT2)
    assert dealt.stillness == dealt.floor > 0.0


# Seeds ----------------------------------------------------------------------------------------------------------


def of_seed(seed: int) -> Subject:
    return Subject(ReferenceCandidate(), GPT2, seed=seed)


def test_another_seed_draws_other_weights_and_tokens_and_the_same_one_the_same() -> None:
    weights = [of_seed(seed).weights(2, 0) for seed in (0, 0, 1)]
    for name, value in weights[0].items():
        assert torch.equal(value, weights[1][name])
        assert not torch.equal(value, weights[2][name]), name
    tokens = [of_seed(seed).inputs(tokens=(2, 9)).token_ids for seed in (0, 0, 1)]
    assert torch.equal(tokens[0], tokens[1])
    assert not torch.equal(tokens[0], tokens[2])


def test_another_seed_gives_other_weights_to_a_model_whose_parameters_nobody_can_name() -> None:
    class Unnamed(ReferenceCandidate):
        paths = ("fused",)

        def build(self, spec: Spec, path: str = "fused") -> nn.Module:
            model = build(spec)
            model.register_parameter("another", nn.Parameter(torch.ones(1)))
            return model

        def capabilities(self, model: nn.Module, spec: Spec):  # type: ignore[no-untyped-def]
            return super().capabilities(model, spec) | {"weights": "nobody can name them"}

    def first(seed: int) -> Tensor:
        model = Subject(Unnamed(), GPT2, seed=seed).fresh_model(Setup(path="fused"))
        return next(model.parameters())

    assert torch.equal(first(0), first(0))
    assert not torch.equal(first(0), first(1))
    one, two = (nn.Linear(3, 3).double() for _ in range(2))
    embolden(one, seed=1)
    embolden(two, seed=1)
    assert torch.equal(one.weight, two.weight)


# Verdicts -------------------------------------------------------------------------------------------------------


def result(outcome: str) -> Result:
    return Result(property="a.b", level="must", outcome=outcome, seconds=0.0)  # type: ignore[arg-type]


def test_where_no_property_ran_nothing_conforms() -> None:
    skipped = result("skipped")
    assert verdict_on((), unusable=None, missing=None) == "not-run"
    assert verdict_on((skipped, skipped), unusable=None, missing=None) == "not-run"
    assert verdict_on((skipped, result("passed")), unusable=None, missing=None) == "conforms"
    assert verdict_on((result("passed"),), unusable="no", missing=None) == "not-run"


# Float64 throughout ---------------------------------------------------------------------------------------------

X = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)


@pytest.mark.parametrize(
    "asks",
    [
        lambda: torch.softmax(X, dim=-1, dtype=torch.float32),
        lambda: torch.softmax(X, -1, torch.float32),
        lambda: X.sum(dtype=torch.float32),
        lambda: X.to(dtype=torch.float32),
        lambda: X.to(torch.float32),
        lambda: X.float(),
        lambda: X.type(torch.float32),
        lambda: X.type("torch.FloatTensor"),
        lambda: torch.arange(3, dtype=torch.float32),
        lambda: X.new_zeros(3, dtype=torch.float32),
    ],
)
def test_in_a_float64_probe_each_way_to_ask_for_float32_gives_float64(asks) -> None:  # type: ignore[no-untyped-def]
    with Float64Throughout():
        assert asks().dtype is torch.float64
    assert asks().dtype is torch.float32


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.int32, torch.bool])
def test_in_a_float64_probe_other_casts_stay_what_they_are(dtype: torch.dtype) -> None:
    with Float64Throughout():
        assert X.to(dtype=dtype).dtype is dtype
        assert X.to(dtype).dtype is dtype
