"""Distances that meet contents: rows and scores worked by hand, and the parts of `transformers` put together."""

from __future__ import annotations

from collections.abc import Callable
from math import cos, sin, sqrt
from typing import Any

import msgspec
import pytest
import torch
from torch import Tensor

import holotype_spec
from holotype_conformance.torch_tools.float64 import Float64Throughout
from holotype_reference import oracle
from holotype_reference.attention import eager
from holotype_reference.mask_decoder import EnhancedMaskDecoder
from holotype_reference.model import Model, build
from holotype_reference.positions.disentangled import DisentangledAttention, RelativeRows
from holotype_reference.positions.distances import Distances
from holotype_reference.positions.transformer_xl import RelativeSinusoids, TransformerXLAttention
from holotype_reference.weights import random_weights
from holotype_spec.schema import Disentangled, Spec, TransformerXLPositions

TERMS = ("content-to-position", "position-to-content")


def deberta() -> Spec:
    return holotype_spec.load("deberta-base").probe()


# By hand ----------------------------------------------------------------------------------------------------------


def test_a_distance_has_its_row_and_all_far_ones_the_first_or_the_last() -> None:
    # k = 3: rows 0 … 5 for the distances i - j of -3 and below, -2, -1, 0, 1, and 2 and above.
    rows = RelativeRows(deberta(), Disentangled(max_distance=3, terms=TERMS))
    place = torch.arange(5)
    assert rows.distances(place, place, rows.weight).index.tolist() == [
        [3, 2, 1, 0, 0],
        [4, 3, 2, 1, 0],
        [5, 4, 3, 2, 1],
        [5, 5, 4, 3, 2],
        [5, 5, 5, 4, 3],
    ]


def one_wide(terms: tuple[Any, ...]) -> DisentangledAttention:
    """One head of one dimension, in which rows are keys of positions as they are and queries plus a half."""
    spec = msgspec.structs.replace(deberta(), hidden_size=1, heads=1, kv_heads=1, head_dim=1)
    described = Disentangled(max_distance=2, terms=terms)
    attention = DisentangledAttention(spec, described, weigh=eager).double().eval()
    with torch.no_grad():
        for parameter in attention.parameters():
            parameter.fill_(1.0)
        if attention.position_query is not None:
            attention.position_query.bias.fill_(0.5)
    return attention


def biases(terms: tuple[Any, ...]) -> Tensor:
    """What is added to the scores of queries 2 and 3 and keys 5 and 7, times √3; rows are 10, 20, 30, 40."""
    query = torch.tensor([2.0, 3.0], dtype=torch.float64).view(1, 1, 2, 1)
    key = torch.tensor([5.0, 7.0], dtype=torch.float64).view(1, 1, 2, 1)
    rows = torch.tensor([[10.0], [20.0], [30.0], [40.0]], dtype=torch.float64)
    index = torch.tensor([[2, 1], [3, 2]])
    told = Distances(rows=rows[None], index=index)
    found = one_wide(terms).score_bias(query, key, told)
    assert found is not None
    return found[0, 0] * sqrt(3)


def test_a_query_meets_the_row_of_its_distance_from_each_key() -> None:
    expected = [[2 * 30.0, 2 * 20.0], [3 * 40.0, 3 * 30.0]]
    assert biases(TERMS[:1]).tolist() == [pytest.approx(row) for row in expected]


def test_a_key_meets_the_row_of_the_distance_from_the_query_to_it_and_not_the_opposite_one() -> (
    None
):
    # The release's rows: those of the first term. The paper's formula has 40.5 and 20.5 the other way round.
    expected = [[5 * 30.5, 7 * 20.5], [5 * 40.5, 7 * 30.5]]
    assert biases(TERMS[1:]).tolist() == [pytest.approx(row) for row in expected]


def test_both_terms_are_added() -> None:
    together = biases(TERMS)
    assert together.tolist() == (biases(TERMS[:1]) + biases(TERMS[1:])).tolist()


def test_each_pass_of_the_mask_decoder_reads_the_one_before_and_the_first_adds_positions() -> None:
    head = build(deberta()).double().head
    assert isinstance(head, EnhancedMaskDecoder)
    head.position.weight.data = torch.arange(41.0).double()[:, None].expand(-1, 40).clone()
    x = torch.ones(1, 3, 40).double()
    # A layer that doubles what its queries come from: (1 + p) · 2 · 2.
    found = head.decode(x, lambda states: 2 * states, positions=torch.tensor([[0, 1, 7]]))
    assert found[0, :, 0].tolist() == [4.0, 8.0, 32.0]


# Against transformers ---------------------------------------------------------------------------------------------


def their_pass(layer: Any, x: Tensor, memory: Tensor, rows: Tensor) -> Tensor:
    """One layer of theirs with queries, and what its blocks are added to, from x, and the rest from `memory`."""
    inner = layer.attention.self
    length = x.shape[1]
    place = torch.arange(length)

    def heads(states: Tensor) -> tuple[Tensor, ...]:
        parts: tuple[Tensor, ...] = inner.transpose_for_scores(inner.in_proj(states)).chunk(3, -1)
        return parts

    query = heads(x)[0] + inner.transpose_for_scores(inner.q_bias[None, None])
    _, key, value = heads(memory)
    value = value + inner.transpose_for_scores(inner.v_bias[None, None])
    query = query / sqrt(3 * query.shape[-1])
    distances = (place[:, None] - place[None, :])[None]
    scores = query @ key.mT + inner.disentangled_att_bias(query, key, distances, rows, 3)
    mixed = (scores.softmax(-1) @ value).transpose(1, 2).flatten(2)
    attended = layer.attention.output(mixed, x)
    return layer.output(layer.intermediate(attended), attended)  # type: ignore[no-any-return]


def test_the_mask_decoder_is_the_release_s_loop_over_the_layers_of_transformers(
    their_model: Callable[..., Any],
) -> None:
    spec = deberta()
    weights = random_weights(spec, seed=3)
    ours = build(spec).double().eval()
    ours.load_state_dict(weights)
    theirs = their_model(spec)
    theirs.load_state_dict(weights.published(), strict=False)
    tokens = torch.randint(1, 97, (2, 17), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        states = theirs.deberta(tokens, output_hidden_states=True).hidden_states
        below, rows = states[-2], theirs.deberta.encoder.get_rel_embedding()
        x = below + weights["head.position.weight"][:17]
        for _ in range(2):
            x = their_pass(theirs.deberta.encoder.layer[-1], x, below, rows)
        expected = theirs.lm_predictions(x, theirs.deberta.embeddings.word_embeddings)
        found = ours(tokens).logits
    exact = torch.from_numpy(oracle.logits(spec, weights, tokens.numpy()).logits)
    assert (found - expected).norm() / expected.norm() < 1e-6  # their norms are float32
    assert (found - exact).norm() / exact.norm() < 1e-12


def test_absolute_positions_enter_the_mask_decoder_alone() -> None:
    model: Model = build(deberta()).double().eval()
    model.load_state_dict(random_weights(deberta(), seed=0))
    tokens = torch.tensor([[5, 6, 7, 8]])
    counted, shifted = (
        model(tokens, position_ids=ids).logits for ids in (None, torch.arange(4)[None] + 9)
    )
    assert (counted - shifted).abs().max() > 0.1
    model.head.position.weight.data.zero_()  # type: ignore[union-attr]
    counted, shifted = (
        model(tokens, position_ids=ids).logits for ids in (None, torch.arange(4)[None] + 9)
    )
    assert torch.equal(counted, shifted)


# Transformer-XL and XLNet -----------------------------------------------------------------------------------------


def xlnet() -> Spec:
    return holotype_spec.load("xlnet-base-cased").probe()


def test_a_query_meets_the_sinusoid_of_how_far_a_key_stands_behind_it() -> None:
    described = TransformerXLPositions(theta=100.0, relative_segments=False)
    spec = msgspec.structs.replace(xlnet(), hidden_size=4)
    told = RelativeSinusoids(spec, described).eval()
    place = torch.arange(3)
    found = told.distances(place, place, torch.zeros(1, dtype=torch.float64))
    # Frequencies 1 and 1/10; sines stand in front of cosines.
    behind = found.rows[0][found.index[2, 0]].tolist()
    ahead = found.rows[0][found.index[0, 1]].tolist()
    assert behind == pytest.approx([sin(2), sin(0.2), cos(2), cos(0.2)])
    assert ahead == pytest.approx([sin(-1), sin(-0.1), cos(1), cos(0.1)])


def test_three_vectors_take_the_query_s_place_each_before_its_own_rows() -> None:
    spec = msgspec.structs.replace(xlnet(), hidden_size=1, heads=1, kv_heads=1, head_dim=1)
    described = TransformerXLPositions(theta=100.0, relative_segments=True)
    attention = TransformerXLAttention(spec, described, weigh=eager).double().eval()
    with torch.no_grad():
        for name, value in {"position_key.weight": 1.0, "position_bias": 10.0}.items():
            attention.get_parameter(name).fill_(value)
        attention.segment_bias.fill_(100.0)  # type: ignore[union-attr]
        attention.segments.copy_(torch.tensor([[3.0], [5.0]]))  # type: ignore[union-attr]
    query = torch.tensor([2.0, 3.0], dtype=torch.float64).view(1, 1, 2, 1)
    rows = torch.tensor([[[7.0], [11.0]]], dtype=torch.float64)
    told = Distances(
        rows=rows, index=torch.tensor([[0, 1], [1, 0]]), apart=torch.tensor([[[0, 1], [1, 0]]])
    )
    found = attention.score_bias(query, query, told)
    assert found is not None
    assert found[0, 0].tolist() == [
        [12 * 7 + 102 * 3, 12 * 11 + 102 * 5],
        [13 * 11 + 103 * 5, 13 * 7 + 103 * 3],
    ]


def test_an_output_under_an_order_knows_the_tokens_before_it_in_the_order_and_no_other() -> None:
    model = build(xlnet()).double().eval()
    model.load_state_dict(random_weights(xlnet(), seed=0))
    order = torch.tensor([[2, 0, 3, 1]])
    tokens = torch.tensor([[5, 6, 7, 8]])
    before = model(tokens, order=order).logits[0]
    moves = []
    for place in range(4):
        changed = tokens.clone()
        changed[0, place] = 9
        after = model(changed, order=order).logits[0]
        moves.append((before != after).any(dim=-1).tolist())
    # The token at 1 comes first in the order, then those at 3, 0 and 2.
    assert moves == [
        [False, False, True, False],
        [True, False, True, True],
        [False, False, False, False],
        [True, False, True, False],
    ]


@pytest.mark.parametrize("padded", [False, True])
def test_both_streams_are_those_of_transformers(
    padded: bool, their_model: Callable[..., Any]
) -> None:
    spec = xlnet()
    weights = random_weights(spec, seed=3)
    ours = build(spec).double().eval()
    ours.load_state_dict(weights)
    theirs = their_model(spec)
    theirs.load_state_dict(weights.published())
    draw = torch.Generator().manual_seed(1)
    tokens, types = torch.randint(6, 97, (2, 2, 13), generator=draw)
    order = torch.stack([torch.randperm(13, generator=draw) for _ in range(2)])
    mask = torch.ones(2, 13, dtype=torch.int64)
    mask[1, 9:] = 0 if padded else 1
    hidden = (order[:, None, :] >= order[:, :, None]).double()
    with torch.no_grad(), Float64Throughout():  # their angles are float32 in a float64 model too
        expected = theirs(
            tokens,
            attention_mask=mask,
            token_type_ids=types,
            perm_mask=hidden,
            target_mapping=torch.eye(13).double().expand(2, -1, -1),
        ).logits
    with torch.no_grad():
        found = ours(tokens, attention_mask=mask, token_types=types, order=order).logits
    arrays = {"attention_mask": mask, "token_types": types, "order": order}
    exact = oracle.logits(
        spec, weights, tokens.numpy(), **{k: v.numpy() for k, v in arrays.items()}
    )
    first = order.masked_fill(mask == 0, 99).amin(dim=1, keepdim=True)
    told = (mask == 1) & (order > first)  # theirs averages over all keys where none is seen
    assert (found - expected)[told].norm() / expected[told].norm() < 1e-12
    assert (found - torch.from_numpy(exact.logits))[told].norm() / found[told].norm() < 1e-12


@pytest.mark.parametrize(
    ("name", "order", "told"),
    [
        ("bert-base-uncased", [[0, 1, 2]], "predicts in none"),
        ("xlnet-base-cased", [[0, 1]], "shape"),
        ("xlnet-base-cased", [[1, 2, 3]], "each of the places 0 to 2 once"),
    ],
)
def test_an_order_that_is_none_is_refused(name: str, order: list[list[int]], told: str) -> None:
    model = build(holotype_spec.load(name).probe())
    with pytest.raises(ValueError, match=told):
        model(torch.tensor([[5, 6, 7]]), order=torch.tensor(order))
