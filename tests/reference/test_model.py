"""The assembled model: its parameters, its two paths, its dropout, and what it says to wrong input."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
import torch

import holotype_spec
from holotype_reference.model import Model, Output, build
from holotype_reference.support import supported
from holotype_reference.weights import random_weights
from holotype_spec.schema import Spec

# A descendant's model is its parent's, but for a row of a table or a constant.
NAMES = [name for name in supported() if name in holotype_spec.originals()]
FAMILIES = [
    "gpt2",
    "bert-base-uncased",
    "t5-small",
    "llama-7b",
    "llama2-70b",
    "mistral-7b-v0.1",
]
DTYPES = [torch.float64, torch.float32, torch.bfloat16]


def probe(name: str) -> Spec:
    return holotype_spec.load(name).probe()


def model(spec: Spec, *, path: Any = "fused", dtype: torch.dtype = torch.float64) -> Model:
    built = build(spec, path=path)
    built.load_state_dict(random_weights(spec, seed=1))
    return built.to(dtype).eval()


def inputs(spec: Spec, **more: Any) -> dict[str, Any]:
    """Three sequences of 9 tokens, for an encoder-decoder with sources of 6."""
    draw = torch.Generator().manual_seed(2)
    given = {"token_ids": torch.randint(97, (3, 9), generator=draw)} | more
    if spec.architecture.structure == "encoder-decoder":
        given = {"source_ids": torch.randint(97, (3, 6), generator=draw)} | given
    return given


def with_padding(spec: Spec) -> dict[str, Any]:
    """As `inputs`, the first row padded on the left, the second on the right, the third throughout."""
    mask = torch.ones(3, 9, dtype=torch.int64)
    mask[0, :4] = mask[1, 5:] = mask[2] = 0
    more = {"attention_mask": mask}
    if spec.architecture.structure == "encoder-decoder":
        more["source_mask"] = mask[:, 2:8]
    return inputs(spec, **more)


# Parameters ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.slow
def test_state_dict_is_the_table_of_tensors_of_every_spec(name: str) -> None:
    spec = holotype_spec.load(name)
    with torch.device("meta"):
        built = build(spec)
    expected = [(row.name, row.shape) for row in holotype_spec.parameter_table(spec)]
    trained = [(name, tuple(tensor.shape)) for name, tensor in built.named_parameters()]
    assert trained == expected
    held = {name: tuple(tensor.shape) for name, tensor in built.state_dict().items()}
    assert held == {row.name: row.shape for row in holotype_spec.tensor_table(spec)}
    assert {*held} == {name for name, _ in trained} | {name for name, _ in built.named_buffers()}
    assert all(parameter.is_meta for parameter in built.parameters())
    count = sum(parameter.numel() for parameter in built.parameters())
    assert count == holotype_spec.count_parameters(spec).total


@pytest.mark.parametrize("dtype", DTYPES)
def test_model_is_built_in_the_default_dtype(dtype: torch.dtype) -> None:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        built = build(probe("llama2-70b"))
    finally:
        torch.set_default_dtype(before)
    assert {parameter.dtype for parameter in built.parameters()} == {dtype}


def test_fresh_parameters_follow_the_published_scheme() -> None:
    torch.manual_seed(0)
    built = dict(build(probe("bert-base-uncased")).named_parameters())
    assert built["encoder.layers.1.feed_forward.up.weight"].std().item() == pytest.approx(
        0.02, rel=0.1
    )
    assert built["embeddings.token.weight"].std().item() == pytest.approx(0.02, rel=0.1)
    assert built["embeddings.norm.weight"].eq(1).all()
    assert built["embeddings.norm.bias"].eq(0).all()
    assert built["head.output.bias"].eq(0).all()


def test_building_on_meta_draws_no_random_number() -> None:
    before = torch.get_rng_state()
    with torch.device("meta"):
        build(probe("gpt2"))
    assert torch.get_rng_state().equal(before)


@pytest.mark.parametrize("name", ["gpt2", "bert-base-uncased", "t5-small"])
def test_tied_table_gets_gradients_from_both_of_its_uses(name: str) -> None:
    spec = probe(name)
    tied = model(spec)
    tied(**inputs(spec)).logits.square().sum().backward()
    table = tied.embeddings.token.weight
    apart = msgspec.structs.replace(
        spec, architecture=msgspec.structs.replace(spec.architecture, tied_embeddings=False)
    )
    untied = build(apart).double().eval()
    untied.load_state_dict(tied.state_dict() | {"head.output.weight": table.detach().clone()})
    untied(**inputs(spec)).logits.square().sum().backward()
    embedding, output = untied.embeddings.token.weight.grad, untied.head.output.weight
    assert table.grad is not None
    assert embedding is not None
    assert output is not None
    assert output.grad is not None
    assert embedding.norm() > 0
    torch.testing.assert_close(table.grad, embedding + output.grad)


# Paths --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("name", FAMILIES)
def test_fused_path_equals_the_eager_one_in_logits_and_gradients(name: str, padded: bool) -> None:
    spec = probe(name)
    given = with_padding(spec) if padded else inputs(spec)
    fused, eager = model(spec), model(spec, path="eager")
    outputs: list[Output] = [fused(**given), eager(**given)]
    torch.testing.assert_close(outputs[0].logits, outputs[1].logits, rtol=1e-12, atol=1e-12)
    for output in outputs:
        output.logits.sin().sum().backward()
    largest = max(p.grad.abs().max().item() for p in eager.parameters() if p.grad is not None)
    for ours, other in zip(fused.parameters(), eager.parameters(), strict=True):
        if other.grad is not None:
            torch.testing.assert_close(ours.grad, other.grad, rtol=1e-11, atol=1e-12 * largest)


@pytest.mark.parametrize("path", ["fused", "eager"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", FAMILIES)
def test_rows_of_padding_alone_are_finite_forward_and_backward(
    name: str, dtype: torch.dtype, path: str
) -> None:
    spec = probe(name)
    built = model(spec, path=path, dtype=dtype)
    output: Output = built(**with_padding(spec))
    assert output.logits.dtype == dtype
    assert output.logits.isfinite().all()
    output.logits.sum().backward()
    assert all(p.grad.isfinite().all() for p in built.parameters() if p.grad is not None)


@pytest.mark.parametrize("path", ["fused", "eager"])
@pytest.mark.parametrize("name", FAMILIES)
def test_half_precision_stays_near_double(name: str, path: str) -> None:
    spec = probe(name)
    exact = model(spec, path=path)(**inputs(spec)).logits
    rough = model(spec, path=path, dtype=torch.bfloat16)(**inputs(spec)).logits
    # 2^-8 is the spacing of bfloat16; a dozen roundings in a row stay below a tenth.
    assert (rough - exact).norm() < 0.1 * exact.norm()


@pytest.mark.parametrize("name", FAMILIES)
def test_model_runs_on_meta(name: str) -> None:
    spec = probe(name)
    with torch.device("meta"):
        built = build(spec).eval()
    output = built(**{key: value.to("meta") for key, value in with_padding(spec).items()})
    assert output.logits.shape == (3, 9, 97)


def test_unknown_path_is_an_error_that_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match="fused, blocks, eager, not 'flash'"):
        build(probe("gpt2"), path="flash")  # type: ignore[arg-type]  # that is the point


# Dropout ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["fused", "eager"])
@pytest.mark.parametrize("name", ["gpt2", "bert-base-uncased", "t5-small"])
def test_dropout_acts_in_training_only(name: str, path: str) -> None:
    spec = probe(name)
    built = model(spec, path=path)
    given = inputs(spec)
    assert built(**given).logits.equal(built(**given).logits)
    built.train()
    assert not built(**given).logits.equal(built(**given).logits)


@pytest.mark.parametrize("path", ["fused", "eager"])
@pytest.mark.parametrize("name", ["llama-7b", "llama2-70b", "mistral-7b-v0.1"])
def test_a_model_without_a_site_for_dropout_trains_as_it_evaluates(name: str, path: str) -> None:
    spec = probe(name)
    assert spec.architecture.dropout.rate == 0.5
    built = model(spec, path=path)
    before = built(**inputs(spec)).logits
    assert built.train()(**inputs(spec)).logits.equal(before)


@pytest.mark.parametrize("path", ["fused", "eager"])
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("block", ["self_attention", "cross_attention"])
def test_dropout_acts_on_attention_weights_too(block: str, padded: bool, path: str) -> None:
    spec = probe("gpt2" if block == "self_attention" else "t5-small")
    built = model(spec, path=path)
    given = with_padding(spec) if padded else inputs(spec)
    before = built(**given).logits
    for layer in built.decoder.layers:
        getattr(layer, block).train()
    assert not built(**given).logits.equal(before)


# Radford et al. 2018, section 4.1: residual, embedding and attention dropout. Raffel et al. 2019, section 2.1, also
# inside the feed-forward block and at the output of a stack. Attention has no module of its own for it.
SITES = {
    "gpt2": {"embeddings", "decoder.layers.0", "decoder.layers.1"},
    "bert-base-uncased": {"embeddings", "encoder.layers.0", "encoder.layers.1"},
    "distilbert-base-uncased": {"embeddings", "encoder.layers.0", "encoder.layers.1"},
    "opt-125m": {"decoder.layers.0", "decoder.layers.1"},
    "mistral-7b-v0.1": set(),
    "t5-small": {"embeddings"}
    | {
        f"{stack}{site}"
        for stack in ("encoder", "decoder")
        for site in (
            "",
            ".layers.0",
            ".layers.1",
            ".layers.0.feed_forward",
            ".layers.1.feed_forward",
        )
    },
}


@pytest.mark.parametrize("name", list(SITES))
def test_each_dropout_stands_where_the_paper_has_it_and_acts(name: str) -> None:
    spec = probe(name)
    built = model(spec)
    given = inputs(spec)
    before = built(**given).logits
    sites = {
        place.rpartition(".")[0]: module
        for place, module in built.named_modules()
        if isinstance(module, torch.nn.Dropout) and module.p
    }
    assert sites.keys() == SITES[name]
    for site, module in sites.items():
        module.train()
        assert not built(**given).logits.equal(before), site
        module.eval()


# Inputs -------------------------------------------------------------------------------------------


def test_learned_positions_are_counted_from_zero_unless_given() -> None:
    spec = probe("gpt2")
    built = model(spec)
    counted = built(**inputs(spec)).logits
    given = built(**inputs(spec, position_ids=torch.arange(9).expand(3, 9))).logits
    moved = built(**inputs(spec, position_ids=torch.arange(5, 14).expand(3, 9))).logits
    assert given.equal(counted)
    assert (moved - counted).norm() > 0.1 * counted.norm()


def test_rotary_positions_matter_by_their_distance_only() -> None:
    spec = probe("llama-7b")
    built = model(spec)
    counted = built(**inputs(spec)).logits
    moved = built(**inputs(spec, position_ids=torch.arange(5, 14).expand(3, 9))).logits
    stretched = built(**inputs(spec, position_ids=3 * torch.arange(9).expand(3, 9))).logits
    torch.testing.assert_close(moved, counted, rtol=1e-10, atol=1e-10)
    assert (stretched - counted).norm() > 0.1 * counted.norm()


def test_missing_token_types_are_type_zero() -> None:
    spec = probe("bert-base-uncased")
    built = model(spec)
    zeros, ones = (torch.full((3, 9), kind) for kind in (0, 1))
    missing = built(**inputs(spec)).logits
    assert built(**inputs(spec, token_types=zeros)).logits.equal(missing)
    assert not built(**inputs(spec, token_types=ones)).logits.equal(missing)


def test_next_sentence_is_there_only_for_a_model_with_that_head() -> None:
    assert model(probe("gpt2"))(**inputs(probe("gpt2"))).next_sentence is None
    bert = probe("bert-base-uncased")
    assert model(bert)(**inputs(bert)).next_sentence.shape == (3, 2)


@pytest.mark.parametrize("name", FAMILIES)
def test_forward_leaves_its_arguments_alone(name: str) -> None:
    spec = probe(name)
    given = with_padding(spec)
    copies = {key: value.clone() for key, value in given.items()}
    model(spec)(**given)
    assert all(given[key].equal(copies[key]) for key in given)


T = torch.zeros(3, 9, dtype=torch.int64)
WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("gpt2", {"token_ids": T[0]}, r"token_ids must be .* shape \(9,\)"),
    ("gpt2", {"token_ids": T.double()}, "whole numbers"),
    ("gpt2", {"token_ids": T[:, :0]}, "at least one token"),
    ("gpt2", {"token_ids": T[:, :1].expand(3, 42)}, "41 learned positions, but 42 tokens"),
    ("gpt2", {"attention_mask": T[:, 1:]}, r"attention_mask .* \(3, 9\), not \(3, 8\)"),
    ("gpt2", {"position_ids": T[:2]}, r"position_ids .* \(3, 9\), not \(2, 9\)"),
    ("gpt2", {"position_ids": T[:1, 1:]}, r"position_ids .* \(1, 9\), not \(1, 8\)"),
    ("gpt2", {"token_types": T}, "no token types"),
    ("gpt2", {"source_ids": T}, "reads no source"),
    ("t5-small", {"source_ids": None}, "needs source_ids"),
    ("t5-small", {"source_ids": T[:2]}, "source_ids is a batch of 2"),
    ("t5-small", {"source_ids": T, "source_mask": T[:, 1:]}, r"source_mask .* \(3, 9\)"),
    ("t5-small", {"position_ids": T}, "distances only"),
]


@pytest.mark.parametrize(("name", "wrong", "message"), WRONG, ids=[row[2][:20] for row in WRONG])
def test_wrong_input_is_an_error_that_says_what_was_expected(
    name: str, wrong: dict[str, Any], message: str
) -> None:
    spec = probe(name)
    with pytest.raises(ValueError, match=message):
        model(spec)(**(inputs(spec) | wrong))


def test_dropout_of_the_feed_forward_output_alone_leaves_attention_whole() -> None:
    spec = probe("distilbert-base-uncased")
    layer = model(spec).encoder.layers[0]
    assert layer.dropout.p == 0
    assert layer.feed_forward_dropout.p == 0.5


def test_dropout_of_the_attention_output_alone_leaves_the_feed_forward_whole() -> None:
    spec = probe("bert-base-uncased")
    replace = msgspec.structs.replace
    dropout = replace(spec.architecture.dropout, sites=("attention-output",))
    spec = replace(spec, architecture=replace(spec.architecture, dropout=dropout))
    layer = model(spec).encoder.layers[0]
    assert layer.dropout.p == 0.5
    assert layer.feed_forward_dropout.p == 0
