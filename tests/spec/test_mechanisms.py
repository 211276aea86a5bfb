"""A mechanism is one class: one that nothing in the package has heard of counts, costs and shrinks as it says itself.

`tests/test_made_up_mechanism.py` takes one through the reference and the suite too.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, get_args

import msgspec
import pytest

import holotype_spec.schema as schema
from holotype_spec import complete, count_parameters, load, parameter_table
from holotype_spec.costs import kv_cache_bytes, kv_cache_bytes_per_token
from holotype_spec.dependencies import dependencies
from holotype_spec.parameters import Parameter
from holotype_spec.schema.attention import AttentionMechanism
from holotype_spec.schema.feed_forward import FeedForwardMechanism
from holotype_spec.schema.mechanism import Mechanism
from holotype_spec.schema.normalization import Normalization, NormMechanism
from holotype_spec.schema.patterns import AttentionPattern
from holotype_spec.schema.positions import Positions
from holotype_spec.schema.rows import linear, vector
from holotype_spec.schema.sizes import Sizes
from holotype_spec.tensors import buffer_table

GPT2, LLAMA, T5 = load("gpt2"), load("llama-7b"), load("t5-small")


class FirstTokens(AttentionPattern, tag="first-tokens", tag_field="kind"):
    """Each query sees the first `number` tokens alone."""

    number: int

    def keys_seen(
        self, query: int, length: int, *, prefix: int | None, right_to_left: bool
    ) -> tuple[int, int]:
        return 0, min(length, self.number)

    def kept(self, length: int, layers: int) -> dict[int, int]:
        return {min(length, self.number): layers}


class SharedKeys(AttentionMechanism, tag="shared-keys", tag_field="kind"):
    """Values are keys: one matrix makes both, and the cache holds it once."""

    head_dim: Literal["hidden-size-over-heads"]

    def cached_values(self, sizes: Sizes) -> int:
        return sizes.kv_heads * sizes.head_dim

    def parameters(
        self, sizes: Sizes, name: str, component: str, norm: Normalization, positions: Positions
    ) -> Iterator[Parameter]:
        for part in ("query", "key", "output"):
            d = sizes.hidden_size
            yield from linear(f"{name}.{part}", d, d, component, bias=part in self.biases)


class OneMatrix(FeedForwardMechanism, tag="one-matrix", tag_field="kind"):
    """A single square matrix, and a number that a rule sets."""

    def parameters(self, sizes: Sizes, name: str, layer: int) -> Iterator[Parameter]:
        d = sizes.hidden_size
        yield from linear(f"{name}.only", d, d, "feed-forward", bias=self.bias, residual=True)

    def buffers(self, sizes: Sizes, name: str, layer: int) -> Iterator[Parameter]:
        yield vector(f"{name}.temperature", (1,), "choice-bias", "feed-forward")


class ShiftAlone(NormMechanism, tag="shift-alone", tag_field="kind"):
    """A norm with a bias and no gain."""

    def parameters(
        self, name: str, size: int, component: str, *, residual: bool = False
    ) -> Iterator[Parameter]:
        yield Parameter(name=f"{name}.bias", shape=(size,), role="shift", component=component)


def with_mechanism(spec: schema.Spec, **fields: Any) -> schema.Spec:
    """`spec` with other mechanisms in its architecture."""
    return msgspec.structs.replace(
        spec, architecture=msgspec.structs.replace(spec.architecture, **fields)
    )


def test_a_new_pattern_says_what_a_query_sees_and_what_the_cache_keeps() -> None:
    attention = msgspec.structs.replace(GPT2.architecture.attention, pattern=FirstTokens(number=10))
    spec = with_mechanism(GPT2, attention=attention)
    assert kv_cache_bytes(spec, 1000, "float32") == kv_cache_bytes(GPT2, 10, "float32")
    assert parameter_table(spec) == parameter_table(GPT2)
    assert not spec.has_prefix
    seen = dependencies(spec, 12)
    assert (seen[:, :10].all(), seen[0, 10], seen[11, 10], seen[11, 11]) == (
        True,
        False,
        False,
        True,
    )


def test_new_attention_says_its_matrices_and_its_cache() -> None:
    old = GPT2.architecture.attention
    new = SharedKeys(
        pattern=old.pattern, scale=old.scale, biases=("query",), head_dim="hidden-size-over-heads"
    )
    spec = with_mechanism(GPT2, attention=new)
    assert kv_cache_bytes_per_token(spec, "int8") * 2 == kv_cache_bytes_per_token(GPT2, "int8")
    d = GPT2.hidden_size
    assert count_parameters(spec).components["self-attention"] == 12 * (3 * d * d + d)


def test_new_blocks_and_norms_say_their_parameters_and_buffers() -> None:
    spec = with_mechanism(
        GPT2,
        feed_forward=OneMatrix(size="independent", activation="relu", bias=False),
        normalization=ShiftAlone(eps=1e-5, embedding=False, final=True),
    )
    d, counts = GPT2.hidden_size, count_parameters(spec)
    assert counts.components["feed-forward"] == 12 * d * d
    assert counts.components["norms"] == 25 * d
    assert [each.name for each in buffer_table(spec)][-1].endswith("11.feed_forward.temperature")


@pytest.mark.parametrize(
    "kind",
    sorted(
        {
            each
            for union in (
                schema.Pattern,
                schema.Attention,
                schema.Positions,
                schema.Scaling,
                schema.FeedForward,
                schema.Routing,
                schema.Head,
                schema.Normalization,
                schema.EmbeddingWidth,
            )
            for each in get_args(union)
        },
        key=lambda kind: kind.__name__,
    ),
    ids=lambda kind: kind.__name__,
)
def test_every_mechanism_of_the_schema_answers_for_itself(kind: type) -> None:
    assert issubclass(kind, Mechanism)
    assert kind.__struct_config__.tag_field == "kind"
    assert kind.__doc__


@pytest.mark.parametrize("kind", get_args(schema.Pattern), ids=lambda kind: kind.__name__)
def test_every_pattern_has_words_for_what_a_query_sees(kind: type[AttentionPattern]) -> None:
    # No model whose band is disclosed has one.
    patterns: set[Any] = {schema.AlternatingBanded(first="dense", window=5)}
    patterns |= {spec.architecture.attention.pattern for spec in complete()}
    assert kind in map(type, patterns)
    for pattern in (each for each in patterns if isinstance(each, kind)):
        assert pattern.in_words.endswith(".")
        first, behind = pattern.keys_seen(3, 9, prefix=None, right_to_left=False)
        assert first <= 3 < behind


def test_blocks_say_where_they_are_dense_and_gated() -> None:
    # ST-MoE has experts in every fourth layer, and a dense block behind them.
    sparse, plain = (load(name).architecture.feed_forward for name in ("st-moe-32b", "gpt2"))
    assert [layer for layer in range(9) if sparse.has_dense_after(layer)] == [3, 7]
    assert (sparse.dense_gated, plain.dense_gated) == (True, False)
    mixtral, llama = (load(name).architecture.feed_forward for name in ("mixtral-8x7b", "llama-7b"))
    assert not any(mixtral.has_dense_after(layer) for layer in range(9))
    assert (mixtral.gated, mixtral.dense_gated, llama.dense_gated) == (True, False, True)


def test_one_pattern_sees_everything_whatever_the_input_and_one_width_is_projected() -> None:
    patterns = [
        schema.Bidirectional(),
        schema.Causal(),
        schema.PrefixCausal(),
        FirstTokens(number=3),
    ]
    assert [pattern.both_ways for pattern in patterns] == [True, False, False, False]
    widths = [load(name).architecture.embeddings.width for name in ("albert-base-v2", "gpt2")]
    assert [width.projected for width in widths] == [True, False]
