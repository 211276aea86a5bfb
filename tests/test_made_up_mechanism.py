"""A made-up mechanism is added to the spec, the reference and the suite, and taken away again.

CONTRIBUTING.md shows its classes. What it takes is three of them and one line that says which belong together: no list
of the package is edited.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Self

import msgspec
import pytest
import torch
from einops import einsum, rearrange
from torch import Tensor, nn

from holotype_conformance.models.adapters.reference import ReferenceCandidate
from holotype_conformance.models.deviations import DeviatedCandidate, Deviation
from holotype_conformance.models.deviations.features import having
from holotype_conformance.models.deviations.patching import override_all
from holotype_conformance.models.properties import all_properties
from holotype_conformance.models.subject import Subject
from holotype_conformance.mutation.kills import judge
from holotype_reference import oracle
from holotype_reference.model import Model, build
from holotype_reference.positions import SHARED, nothing_shared
from holotype_reference.positions.relative_bias import Alibi, DistanceBias
from holotype_reference.weights.random import random_weights
from holotype_spec import count_parameters, load, parameter_table, probe, schema, tensor_table
from holotype_spec.costs import flops_per_token
from holotype_spec.parameters import Parameter
from holotype_spec.schema.mechanism import Probing
from holotype_spec.schema.positions import PositionMechanism
from holotype_spec.schema.rows import vector
from holotype_spec.schema.sizes import Sizes

LLAMA = load("llama-7b")
SLOPES = "trained slopes"


class TrainedSlopes(PositionMechanism, tag="trained-slopes", tag_field="kind"):
    """Each score is lowered by the distance, up to `reach`, times a trained slope of its head."""

    reach: int

    between_tokens: ClassVar[bool] = True
    biases_scores: ClassVar[bool] = True
    probed_heads: ClassVar[int] = 7

    def stack_parameters(self, sizes: Sizes, name: str) -> Iterator[Parameter]:
        yield vector(f"{name}.relative_bias.weight", (sizes.heads,), "score-bias", SLOPES)

    def score_products(self, keys: int, head_dim: int, *, both_ways: bool) -> int:
        return min(keys, self.reach)

    def probed(self, probing: Probing) -> Self:
        return msgspec.structs.replace(self, reach=4)


class SlopedBias(DistanceBias):
    """A trained slope for each head, shared by the layers of a stack."""

    def __init__(self, heads: int, reach: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(heads))
        self.reach = reach

    def forward(self, queries: Tensor, keys: Tensor) -> Tensor:
        """Positions of queries (queries) and keys (keys) -> bias (1, heads, queries, keys)."""
        behind = rearrange(queries, "queries -> queries 1") - keys
        near = behind.clamp(max=self.reach).to(self.weight)
        return -einsum(self.weight, near, "heads, queries keys -> heads queries keys")[None]


def steeper(model: Model) -> None:
    override_all(
        model, SlopedBias, forward=lambda self, *places: 2 * SlopedBias.forward(self, *places)
    )


STEEPER = Deviation(
    slug="slopes.twice-as-steep",
    title=lambda spec: "slopes are twice as steep",
    meaning="Each bias is twice what it should be. Look whether it is added in two places.",
    applies=having(TrainedSlopes),
    patch=steeper,
)


@pytest.fixture
def added(monkeypatch: pytest.MonkeyPatch) -> schema.Spec:
    """A LLaMA with the made-up positions, which the reference builds while a test runs."""
    monkeypatch.setitem(
        SHARED, TrainedSlopes, lambda spec, kind, _: SlopedBias(spec.heads, kind.reach)
    )
    return sloped(LLAMA)


def sloped(
    spec: schema.Spec, positions: schema.Positions | PositionMechanism | None = None
) -> schema.Spec:
    """`spec` with the made-up positions, or others."""
    positions = positions or TrainedSlopes(reach=100)
    architecture = msgspec.structs.replace(spec.architecture, positions=positions)
    return msgspec.structs.replace(spec, architecture=architecture)


# The spec -------------------------------------------------------------------------------------------------------


def test_it_is_counted_placed_and_paid_for() -> None:
    plain, spec = sloped(LLAMA, schema.Alibi()), sloped(LLAMA)
    names = [parameter.name for parameter in parameter_table(spec)]
    assert names[:2] == ["embeddings.token.weight", "decoder.relative_bias.weight"]
    assert len(names) == len(parameter_table(plain)) + 1
    assert count_parameters(spec).components[SLOPES] == 32
    assert count_parameters(spec).total == count_parameters(plain).total + 32
    # One product for each key within reach, head and layer, each of two operations.
    more = flops_per_token(spec, 500).forward - flops_per_token(plain, 500).forward
    assert more == 2 * 32 * 32 * 100


def test_it_says_what_is_known_of_positions_and_what_a_probe_is() -> None:
    spec = sloped(LLAMA)
    assert spec.distances_only
    assert not spec.learned_positions
    assert spec.rotary_dim == 0
    assert spec.has(TrainedSlopes)
    assert not LLAMA.has(TrainedSlopes)
    small = probe(spec)
    assert small.architecture.positions == TrainedSlopes(reach=4)
    assert (small.heads, small.head_dim) == (7, 6)


def test_both_stacks_of_an_encoder_decoder_have_it() -> None:
    table = parameter_table(sloped(load("t5-small")))
    rows = [each.name for each in table if each.component == SLOPES]
    assert rows == ["encoder.relative_bias.weight", "decoder.relative_bias.weight"]


# The reference --------------------------------------------------------------------------------------------------


def loaded(spec: schema.Spec, weights: dict[str, Tensor]) -> Model:
    model = build(spec).double().eval()
    model.load_state_dict(weights)
    return model


def test_the_reference_has_its_parameters_and_computes_it(added: schema.Spec) -> None:
    small = probe(added)
    weights = random_weights(small, seed=0)
    model = loaded(small, weights)
    assert {*model.state_dict()} == {each.name for each in tensor_table(small)}
    tokens = torch.arange(5)[None]  # no distance is beyond the reach
    alibi = sloped(small, schema.Alibi())
    slopes = torch.tensor(Alibi(small.heads).slopes(), dtype=torch.float64)
    same = weights | {"decoder.relative_bias.weight": slopes}
    others = {name: each for name, each in weights.items() if "relative_bias" not in name}
    with torch.no_grad():
        ours, theirs = loaded(small, same)(tokens).logits, loaded(alibi, others)(tokens).logits
        assert not torch.allclose(model(tokens).logits, theirs)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_it_is_gone_when_it_is_taken_away() -> None:
    with pytest.raises(
        NotImplementedError, match="no module for positions of the class TrainedSlo"
    ):
        build(probe(sloped(LLAMA)))


def test_positions_that_are_added_have_rows_to_add(monkeypatch: pytest.MonkeyPatch) -> None:
    class Waves(PositionMechanism, tag="waves", tag_field="kind"):
        added: ClassVar[bool] = True

    monkeypatch.setitem(SHARED, Waves, nothing_shared)
    with pytest.raises(NotImplementedError, match=r"no rows to add for .*Waves"):
        build(probe(sloped(LLAMA, Waves())))


def test_the_oracle_has_no_formula_for_it() -> None:
    small = probe(sloped(LLAMA))
    with pytest.raises(NotImplementedError, match="no formula for TrainedSlopes"):
        oracle.logits(small, random_weights(small, seed=0), torch.ones(1, 5).long())


# The suite ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "slug", ["parameters.count", "agreement.logits", "cache.chunks", "causality.truncation"]
)
def test_properties_judge_it_and_its_deviation(slug: str, added: schema.Spec) -> None:
    property_ = next(each for each in all_properties() if each.slug == slug)
    assert judge(Subject(ReferenceCandidate(), added), property_) == "passed"
    assert STEEPER.applies(added)
    assert not STEEPER.applies(LLAMA)
    if slug == "agreement.logits":
        assert judge(Subject(DeviatedCandidate(STEEPER), added), property_) == "killed"
