"""Deviations of ALiBi, sinusoids, parallel blocks, shared layers and table offsets: worked by hand, and named."""

from collections.abc import Callable
from math import cos, sin

import pytest
import torch
from torch import Tensor, nn

from holotype_conformance.judge.property import Violation
from holotype_conformance.models.adapters.reference import run_reference
from holotype_conformance.models.candidate import Inputs
from holotype_conformance.models.deviations import DeviatedCandidate, find
from holotype_conformance.models.diagnosis import diagnose
from holotype_conformance.models.properties import all_properties
from holotype_conformance.models.properties.agreement import AgreementCase
from holotype_conformance.models.properties.agreement import logits as agreement
from holotype_conformance.models.properties.caching import ChunkCase
from holotype_conformance.models.subject import Subject
from holotype_reference.inputs import Call
from holotype_reference.model import Model, build
from holotype_reference.positions.relative_bias import Alibi
from holotype_reference.positions.sinusoidal import Sinusoidal
from holotype_reference.stack import Layer
from holotype_reference.weights import Weights, random_weights
from holotype_spec import load, schema
from holotype_spec.schema import Spec

pytestmark = pytest.mark.slow

BLOOM, BAICHUAN, GPT_J = load("bloom-560m"), load("baichuan-13b"), load("gpt-j-6b")
ALBERT, OPT, TRANSFORMER = load("albert-base-v2"), load("opt-125m"), load("transformer-base")
TOKENS = torch.randint(2, 97, (2, 11), generator=torch.Generator().manual_seed(0))


def deviated(spec: Spec, slug: str) -> Model:
    """A float64 model of the full spec's sizes, whatever they are: a probe as it is."""
    model = build(spec, path="eager").double().eval()
    find(slug).patch(model)
    return model


@torch.no_grad()
def logits(model: Model, weights: Weights) -> Tensor:
    model.load_state_dict(weights)
    source = TOKENS if model.spec.architecture.structure == "encoder-decoder" else None
    return run_reference(model, Inputs(token_ids=TOKENS, source_ids=source)).logits


# ALiBi ----------------------------------------------------------------------------------------------------------


def slopes(slug: str, heads: int) -> list[float]:
    model = build(BLOOM.probe(groups=heads))
    find(slug).patch(model)
    table = model.decoder.relative_bias
    assert isinstance(table, Alibi)
    return table.slopes()


@pytest.mark.parametrize(
    ("slug", "six"),
    [
        # Of 6 heads the release has 2^-2 2^-4 2^-6 2^-8 and, of 8 heads, 2^-1 2^-3.
        ("alibi.slopes-geometric", [2 ** (-4 / 3 * i) for i in range(1, 7)]),
        ("alibi.slopes-of-next-power", [1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32, 1 / 64]),
        ("alibi.slopes-sorted", [1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 64, 1 / 256]),
    ],
)
def test_slopes_are_wrong_where_heads_are_no_power_of_two_only(slug: str, six: list[float]) -> None:
    assert slopes(slug, 6) == pytest.approx(six)
    assert slopes(slug, 4) == pytest.approx([1 / 4, 1 / 16, 1 / 64, 1 / 256])


def test_slopes_from_zero_and_shared_and_reversed() -> None:
    assert slopes("alibi.slopes-from-zero", 4) == pytest.approx([1, 1 / 4, 1 / 16, 1 / 64])
    assert slopes("alibi.slopes-shared", 4) == [1 / 4] * 4
    assert slopes("alibi.slopes-reversed", 4) == [1 / 256, 1 / 64, 1 / 16, 1 / 4]


def test_alibi_of_a_chunk_of_one_token_is_nothing() -> None:
    model = build(BLOOM.probe())
    find("cache.alibi-of-chunk").patch(model)
    cache = model.new_cache()
    model(torch.ones(1, 6, dtype=torch.long), cache=cache)
    token = Call(token_ids=torch.ones(1, 1, dtype=torch.long), cache=cache)
    query = torch.zeros(1, 1, 1)
    bias = model.decoder.relative_bias.at(query, token).bias(query, query)
    assert bias is not None
    assert bias.shape == (1, 11, 1, 7)
    assert not bias.any()


# Sinusoids ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("slug", "row"),
    [
        ("sinusoids.swapped", [cos(1), sin(1), cos(0.01), sin(0.01)]),
        ("sinusoids.exponent-by-dimension", [sin(1), cos(0.01), sin(1e-4), cos(1e-6)]),
        ("sinusoids.rates-unpaired", [sin(1), cos(0.1), sin(0.01), cos(0.001)]),
        ("sinusoids.last-rate-exact", [sin(1), cos(1), sin(1e-4), cos(1e-4)]),
    ],
)
def test_four_numbers_of_position_one(slug: str, row: list[float]) -> None:
    for layout, order in (("interleaved", [0, 1, 2, 3]), ("halves", [0, 2, 1, 3])):
        described = schema.Sinusoidal(theta=10_000.0, layout=layout, offset=0)  # type: ignore[arg-type]
        holder = nn.ModuleList([Sinusoidal(4, described)])
        find(slug).patch(holder)  # type: ignore[arg-type]
        expected = torch.tensor(row, dtype=torch.float64)[order]
        torch.testing.assert_close(holder[0](torch.tensor([[1]]))[0, 0], expected)


# Blocks and layers ----------------------------------------------------------------------------------------------


def blocks(layer: Layer) -> tuple[Callable[[Tensor], Tensor], ...]:
    return layer.norm, lambda x: 3 * x, layer.feed_forward


PARALLEL: dict[str, Callable[..., Tensor]] = {
    "parallel.sequential": lambda x, n, a, f: x + a(n(x)) + f(n(x + a(n(x)))),
    "parallel.chained": lambda x, n, a, f: x + a(n(x)) + f(a(n(x))),
    "parallel.feed-forward-unnormed": lambda x, n, a, f: x + a(n(x)) + f(x),
    "parallel.attention-unnormed": lambda x, n, a, f: x + a(x) + f(n(x)),
    "parallel.normed-twice": lambda x, n, a, f: x + a(n(x)) + f(n(n(x))),
    "parallel.from-normed": lambda x, n, a, f: n(x) + a(n(x)) + f(n(x)),
    "parallel.residual-twice": lambda x, n, a, f: 2 * x + a(n(x)) + f(n(x)),
    "parallel.residual-dropped": lambda x, n, a, f: a(n(x)) + f(n(x)),
}


@pytest.mark.parametrize("slug", PARALLEL)
def test_parallel_blocks_join_as_the_title_says(slug: str) -> None:
    small = GPT_J.probe()
    model = deviated(small, slug)
    model.load_state_dict(random_weights(small, seed=0))
    layer = model.decoder.layers[0]
    assert isinstance(layer, Layer)
    x = torch.randn(2, 5, small.hidden_size, dtype=torch.float64)
    norm, attend, feed = blocks(layer)
    torch.testing.assert_close(layer.beside(x, attend), PARALLEL[slug](x, norm, attend, feed))


def test_a_shared_layer_that_runs_once_too_few_is_a_model_of_one_layer_less() -> None:
    two, three = ALBERT.probe(layers=2), ALBERT.probe(layers=3)
    weights = random_weights(three, seed=0)
    expected = logits(build(two, path="eager").double().eval(), weights)
    torch.testing.assert_close(logits(deviated(three, "sharing.once-too-few"), weights), expected)
    again = logits(deviated(two, "sharing.once-too-often"), weights)
    torch.testing.assert_close(again, logits(build(three, path="eager").double().eval(), weights))


def test_layers_that_are_copies_take_the_weights_of_the_shared_one() -> None:
    small = ALBERT.probe(layers=3)
    weights = random_weights(small, seed=0)
    copied = deviated(small, "sharing.lost")
    own = logits(build(small, path="eager").double().eval(), weights)
    torch.testing.assert_close(logits(copied, weights), own)
    assert len(list(copied.encoder.layers.parameters())) == 3 * len(
        list(build(small).encoder.layers.parameters())
    )


@pytest.mark.parametrize(("slug", "shift"), [("dropped", 2), ("twice", -2), ("by-one", -1)])
def test_a_wrong_offset_reads_other_rows(slug: str, shift: int) -> None:
    small = OPT.probe()
    weights = random_weights(small, seed=0)
    name = "embeddings.position.weight"
    moved = Weights(small, {**weights, name: weights[name].roll(shift, 0)})
    expected = logits(build(small, path="eager").double().eval(), moved)
    actual = logits(deviated(small, f"learned.offset-{slug}"), weights)
    torch.testing.assert_close(actual, expected)


def test_a_matrix_cut_by_heads_mixes_queries_keys_and_values() -> None:
    """Rows in thirds are q0…q10 k0…k10 v0…v10; cut by head the first head has q0 q1 q2 for its query, key and value."""
    small = BLOOM.probe()
    weights = random_weights(small, seed=0)
    changed = dict(weights)
    for index in range(2):
        for kind in ("weight", "bias"):
            names = [
                f"decoder.layers.{index}.self_attention.{part}.{kind}"
                for part in ("query", "key", "value")
            ]
            heads = torch.cat([weights[name].unflatten(0, (11, 6)) for name in names])
            for place, name in enumerate(names):
                changed[name] = heads[place::3].flatten(0, 1)
    expected = logits(build(small, path="eager").double().eval(), Weights(small, changed))
    actual = logits(deviated(small, "heads.fused-by-head"), weights)
    torch.testing.assert_close(actual, expected)


# Named ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("slug", "spec"),
    [
        ("alibi.slopes-geometric", BAICHUAN),
        ("alibi.scaled", BLOOM),
        ("cache.alibi-of-chunk", BLOOM),
        ("sinusoids.layout", TRANSFORMER),
        ("parallel.sequential", GPT_J),
        ("sharing.once-too-few", ALBERT),
        ("learned.offset-dropped", OPT),
        ("norm.embedding-dropped", BLOOM),
    ],
)
def test_a_failure_is_named_after_its_deviation(slug: str, spec: Spec) -> None:
    subject = Subject(DeviatedCandidate(find(slug)), spec)
    case = AgreementCase(length=13, batch=2)
    property_ = agreement
    if slug.startswith("cache."):
        case = ChunkCase(length=13, batch=2, cuts=(5, 6))  # type: ignore[assignment]
        property_ = next(each for each in all_properties() if each.slug == "cache.chunks")
    found = diagnose(subject, property_, case, Violation("other logits"))
    assert [each.deviation for each in found] == [slug]
    assert found[0].title == f"agrees with {spec.name} if {find(slug).title(spec)}"
