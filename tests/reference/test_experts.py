"""Experts: by hand, against the oracle in every form that a spec can give them, and against `transformers`."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import holotype_spec
from holotype_reference import oracle
from holotype_reference.experts import Choice, Experts, Router
from holotype_reference.model import build
from holotype_reference.weights import random_weights
from holotype_spec.costs import pass_cost
from holotype_spec.schema import Experts as Described
from holotype_spec.schema import SigmoidRouting, SoftmaxRouting, Spec
from holotype_spec.tensors import buffer_table

MIXTRAL = holotype_spec.load("mixtral-8x7b").probe()


def with_experts(spec: Spec, **changes: Any) -> Spec:
    blocks = msgspec.structs.replace(spec.architecture.feed_forward, **changes)
    architecture = msgspec.structs.replace(spec.architecture, feed_forward=blocks)
    return msgspec.structs.replace(spec, architecture=architecture)


def described(spec: Spec) -> Described:
    blocks = spec.architecture.feed_forward
    assert isinstance(blocks, Described)
    return blocks


GROUPED = {"factor": 2.5, "groups": 4, "active_groups": 2}
FORMS: dict[str, Spec] = {
    "grouped-softmax": with_experts(
        MIXTRAL, experts=8, active_experts=3, routing=SoftmaxRouting(normalised=False, **GROUPED)
    ),
    "grouped-sigmoid": with_experts(
        MIXTRAL,
        experts=8,
        active_experts=3,
        shared_experts=2,
        routing=SigmoidRouting(normalised=True, **GROUPED),
    ),
    "plain-biased": with_experts(MIXTRAL, expert="plain", bias=True, shared_experts=1),
    "one-of-them": with_experts(MIXTRAL, active_experts=1),
    "every-second": with_experts(
        msgspec.structs.replace(MIXTRAL, layers=3),
        first_layer=0,
        every=2,
        dense="plain",
        dense_after=True,
        expert_size=28,
    ),
}


@pytest.mark.parametrize("regime", ["bold", "faint", "steady"])
@pytest.mark.parametrize("form", FORMS)
def test_the_reference_equals_the_oracle_in_every_form_of_experts(form: str, regime: Any) -> None:
    spec = FORMS[form]
    weights = random_weights(spec, 1, regime)
    model = build(spec).double().eval()
    model.load_state_dict(weights)
    ids = torch.randint(1, 97, (3, 11), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ours = model(ids).logits
    expected = torch.from_numpy(oracle.logits(spec, weights, ids.numpy()).logits)
    assert float((ours - expected).norm() / expected.norm()) < 1e-13


# By hand ------------------------------------------------------------------------------------------


def router(spec: Spec, logits: list[float], correction: list[float] | None = None) -> Router:
    """One whose logits are these for the vector (1, 0, 0, …)."""
    made = Router(msgspec.structs.replace(spec, hidden_size=2), described(spec)).double()
    made.weight.data = torch.tensor([[logit, 9.0] for logit in logits], dtype=torch.float64)
    if correction is not None:
        made.correction.copy_(torch.tensor(correction))
    return made


def chosen(made: Router) -> dict[int, float]:
    choice = made(torch.tensor([[1.0, 0.0]], dtype=torch.float64))
    return dict(zip(choice.experts[0].tolist(), choice.gates[0].tolist(), strict=True))


def by_the_oracle(spec: Spec, logits: list[float], correction: list[float]) -> dict[int, float]:
    weights = {"weight": np.array([[x, 9.0] for x in logits]), "correction": np.array(correction)}
    p = oracle.basics.Scope(weights)
    return oracle.experts.gates(described(spec), p, np.array([1.0, 0.0]))


def softmax(groups: int, active_groups: int, factor: float, *, normalised: bool) -> SoftmaxRouting:
    return SoftmaxRouting(
        normalised=normalised, factor=factor, groups=groups, active_groups=active_groups
    )


SCORES = [0.1, 0.05, 0.3, 0.02, 0.25, 0.08, 0.15, 0.05]  # of a softmax, in four groups of two
LOGITS = [math.log(score) for score in SCORES]


@pytest.mark.parametrize(
    ("routing", "expected"),
    [
        (softmax(1, 1, 1.0, normalised=False), {2: 0.3, 4: 0.25, 6: 0.15}),
        (softmax(1, 1, 2.0, normalised=True), {2: 6 / 7, 4: 5 / 7, 6: 3 / 7}),
        # The best groups are (0.3, 0.02) and (0.25, 0.08); the third best expert of theirs is 5.
        (softmax(4, 2, 16.0, normalised=False), {2: 4.8, 4: 4.0, 5: 1.28}),
    ],
)
def test_softmax_routing_is_that_of_the_paper_worked_by_hand(
    routing: SoftmaxRouting, expected: dict[int, float]
) -> None:
    spec = with_experts(MIXTRAL, experts=8, active_experts=3, routing=routing)
    assert chosen(router(spec, LOGITS)) == pytest.approx(expected, rel=1e-12)
    assert by_the_oracle(spec, LOGITS, []) == pytest.approx(expected, rel=1e-12)


def test_sigmoid_routing_chooses_by_corrected_scores_and_weighs_by_those_before() -> None:
    routing = SigmoidRouting(normalised=True, factor=2.5, groups=2, active_groups=1)
    spec = with_experts(MIXTRAL, experts=4, active_experts=1, routing=routing)
    scores, correction = [0.9, 0.1, 0.5, 0.6], [0.0, 0.0, 0.2, 0.0]
    logits = [math.log(score / (1 - score)) for score in scores]
    # 0.9 + 0.1 is less than 0.7 + 0.6, and of that group 2 is the best; its gate is 0.5 / 0.5 · 2.5.
    assert chosen(router(spec, logits, correction)) == pytest.approx({2: 2.5}, rel=1e-6)
    two = with_experts(spec, active_experts=2)
    expected = {2: 2.5 * 0.5 / 1.1, 3: 2.5 * 0.6 / 1.1}
    assert chosen(router(two, logits, correction)) == pytest.approx(expected, rel=1e-6)
    assert by_the_oracle(two, logits, correction) == pytest.approx(expected, rel=1e-12)


def test_a_router_computes_in_float32_at_least() -> None:
    made = Router(MIXTRAL, described(MIXTRAL))
    torch.nn.init.normal_(made.weight)
    x = torch.randn(5, MIXTRAL.hidden_size, generator=torch.Generator().manual_seed(0))
    low = made.bfloat16()(x.bfloat16())
    assert low.gates.dtype == torch.float32
    wide = Router(MIXTRAL, described(MIXTRAL))
    wide.load_state_dict({name: tensor.float() for name, tensor in made.state_dict().items()})
    assert torch.equal(low.gates, wide(x.bfloat16().float()).gates)


@pytest.mark.parametrize("name", ["mixtral-8x7b", "st-moe-32b"])
def test_a_pass_multiplies_what_costs_count_and_so_the_experts_that_a_token_uses(name: str) -> None:
    spec, (batch, length) = holotype_spec.load(name).probe(layers=3), (2, 24)
    ids = torch.ones(batch, length, dtype=torch.int64)
    source = {} if spec.architecture.structure == "decoder" else {"source_ids": ids}
    model = build(spec, path="eager").eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(ids, **source)
    counted = pass_cost(spec, batch=batch, length=length, dtype="float32").flops
    # Written out, causal attention also computes the scores that it masks.
    masked = 4 * spec.layers * spec.heads * spec.head_dim * batch * length * (length - 1) // 2
    assert counter.get_total_flops() == counted + masked


def choices(spec: Spec, weights: dict[str, torch.Tensor], dtype: torch.dtype) -> list[set[int]]:
    """Which experts each token chooses, in every router that it passes."""
    model = build(spec).to(dtype).eval()
    model.load_state_dict(weights)
    seen: list[set[int]] = []
    for module in model.modules():
        if isinstance(module, Router):
            module.register_forward_hook(
                lambda *call: seen.extend(map(set, call[2].experts.tolist()))
            )
    ids = torch.randint(1, 97, (5, 24), generator=torch.Generator().manual_seed(0))
    source = {} if spec.architecture.structure == "decoder" else {"source_ids": ids[:, :9]}
    with torch.no_grad():
        model(ids, **source)
    return seen


@pytest.mark.parametrize(
    "form", ["mixtral-8x7b", "st-moe-32b", "grouped-softmax", "grouped-sigmoid"]
)
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.slow
def test_no_rounding_turns_a_choice_of_experts_under_steady_weights(form: str, seed: int) -> None:
    spec = FORMS.get(form) or holotype_spec.load(form).probe(layers=3)
    steady, bold = (random_weights(spec, seed, regime) for regime in ("steady", "bold"))
    kind = described(spec)
    last = set(range(kind.experts - kind.active_experts, kind.experts))
    for dtype in (torch.float64, torch.bfloat16, torch.float16):
        assert all(chosen == last for chosen in choices(spec, steady, dtype))
    assert len({frozenset(chosen) for chosen in choices(spec, bold, torch.float64)}) > 6


# Capacity -----------------------------------------------------------------------------------------


def test_over_its_capacity_an_expert_serves_first_choices_before_second_ones_in_the_order_of_tokens() -> (
    None
):
    spec = with_experts(MIXTRAL, experts=2, active_experts=2, capacity=1.5)
    block = Experts(spec, described(spec))
    choice = Choice(torch.tensor([[0, 1], [0, 1], [1, 0], [0, 1]]), torch.full((4, 2), 0.5))
    # Room for 3: expert 0 takes all three first choices, expert 1 its own and the second ones of tokens 0 and 1.
    kept = block.within(1.5, choice).gates > 0
    assert kept.tolist() == [[True, True], [True, True], [True, False], [True, False]]


def test_a_capacity_is_for_training_alone() -> None:
    spec = with_experts(MIXTRAL, capacity=0.5)
    weights = random_weights(spec, 0)
    model, free = build(spec).double(), build(MIXTRAL).double()
    model.load_state_dict(weights)
    free.load_state_dict(weights)
    ids = torch.arange(1, 20)[None]
    with torch.no_grad():
        evaluated, expected = model.eval()(ids).logits, free.eval()(ids).logits
        trained = model.train()(ids).logits
    assert torch.equal(evaluated, expected)
    assert not torch.allclose(trained, expected, rtol=1e-2)


# Against transformers -----------------------------------------------------------------------------


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.slow
def test_a_block_of_experts_is_that_of_deepseek_in_transformers(version: int) -> None:
    transformers = pytest.importorskip("transformers")
    spec = FORMS["grouped-sigmoid" if version == 3 else "grouped-softmax"]
    spec = with_experts(spec, shared_experts=2)
    kind, prefix = described(spec), "decoder.layers.0.feed_forward."
    config = getattr(transformers, f"DeepseekV{version}Config")(
        hidden_size=spec.hidden_size,
        num_attention_heads=spec.heads,
        moe_intermediate_size=kind.expert_size,
        n_routed_experts=kind.experts,
        num_experts_per_tok=kind.active_experts,
        n_shared_experts=kind.shared_experts,
        norm_topk_prob=kind.routing.normalised,
        routed_scaling_factor=kind.routing.factor,
        n_group=kind.routing.groups,
        topk_group=kind.routing.active_groups,
        **({"topk_method": "group_limited_greedy"} if version == 2 else {}),
    )
    config._experts_implementation = "eager"
    name = "DeepseekV2Moe" if version == 2 else "DeepseekV3MoE"
    module = getattr(transformers.models, f"deepseek_v{version}")
    theirs = getattr(getattr(module, f"modeling_deepseek_v{version}"), name)(config).double()
    weights = random_weights(spec, 2)
    own = {n.removeprefix(prefix): t for n, t in weights.items() if n.startswith(prefix)}
    block = Experts(spec, kind).double().eval()
    block.load_state_dict(own)
    told = {
        "gate.weight": own["router.weight"],
        "experts.gate_up_proj": torch.cat(
            [own["experts.gate.weight"], own["experts.up.weight"]], 1
        ),
        "experts.down_proj": own["experts.down.weight"],
        **{
            f"shared_experts.{part}_proj.weight": own[f"shared_experts.{part}.weight"]
            for part in ("gate", "up", "down")
        },
    }
    if version == 3:
        told["gate.e_score_correction_bias"] = own["router.correction"]
    theirs.load_state_dict(told)
    x = torch.randn(3, 11, spec.hidden_size, generator=torch.Generator().manual_seed(0)).double()
    with torch.no_grad():
        ours, expected = block(x), theirs(x)
    assert float((ours - expected).norm() / expected.norm()) < 1e-6  # their scores are float32


# Buffers ------------------------------------------------------------------------------------------


def test_the_biases_that_correct_a_choice_are_weights_and_no_parameters() -> None:
    spec = FORMS["grouped-sigmoid"]
    names = [f"decoder.layers.{layer}.feed_forward.router.correction" for layer in range(2)]
    assert [row.name for row in buffer_table(spec)] == names
    assert not {*names} & {row.name for row in holotype_spec.parameter_table(spec)}
    assert {*names} <= {*random_weights(spec, 0)}
    counted = sum(parameter.numel() for parameter in build(spec).parameters())
    assert counted == holotype_spec.count_parameters(spec).total
