"""Experts: how they are chosen, how much each counts, and how their results find back to the tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from holotype_conformance.models.deviations.deviation import Deviation, patches, respecifies
from holotype_conformance.models.deviations.features import (
    both,
    by_softmax,
    has_experts,
    set_otherwise,
    without,
)
from holotype_conformance.models.deviations.patching import override, override_all, parts, said
from holotype_reference.experts import Blocks, Choice, Experts, Router
from holotype_reference.model import Model
from holotype_reference.stack import Layer
from holotype_spec import schema
from holotype_spec.schema import Spec

Field = TypeVar("Field")


def _of(read: Callable[[schema.Experts], Field], otherwise: Field) -> Callable[[Spec], Field]:
    """A field of the experts, where there are any."""

    def told(spec: Spec) -> Field:
        blocks = spec.architecture.feed_forward
        return read(blocks) if isinstance(blocks, schema.Experts) else otherwise

    return told


_active = _of(lambda blocks: blocks.active_experts, 0)
_number = _of(lambda blocks: blocks.experts, 0)
_normalised = _of(lambda blocks: blocks.routing.normalised, otherwise=False)
_dense_after = _of(lambda blocks: blocks.dense_after, otherwise=False)
_factor = _of(lambda blocks: blocks.routing.factor, 1.0)
_groups = _of(lambda blocks: blocks.routing.active_groups, 1)
_grouped = _of(lambda blocks: blocks.routing.groups > 1, otherwise=False)
_shared = _of(lambda blocks: blocks.shared_experts > 0, otherwise=False)
_by_sigmoid = both(has_experts, without(by_softmax))
_capped = _of(lambda blocks: blocks.capacity != "none", otherwise=False)


# How much each counts -------------------------------------------------------------------------------------------


@respecifies(
    "experts.gates-not-normalised",
    "the gates of the chosen experts are not normalised to the sum 1",
    "The scores of a softmax over all experts are taken as they are. All that experts say is too small, and by another"
    " factor for each token. Look whether the published code divides by their sum.",
    applies=_normalised,
)
def gates_not_normalised(spec: Spec) -> Spec:
    return set_otherwise(spec, "feed_forward.routing.normalised", value=False)


@respecifies(
    "experts.gates-normalised",
    "the gates are a softmax over the chosen experts alone, which normalises them to the sum 1",
    "The softmax is taken after the choice instead of before it. Where scores count as they are, all that experts say"
    " becomes too large.",
    applies=both(has_experts, without(_normalised)),
    reports=("lablup/mlxcel#391",),
)
def gates_normalised(spec: Spec) -> Spec:
    return set_otherwise(spec, "feed_forward.routing.normalised", value=True)


@patches(
    "experts.gates-dropped",
    lambda spec: f"the chosen experts count 1/{_active(spec)} each, whatever the router says",
    "Their mean is taken. The router decides who computes, and gets no gradient any more.",
    applies=has_experts,
)
def gates_dropped(model: Model) -> None:
    def forward(self: Router, x: Tensor) -> Choice:
        choice = Router.forward(self, x)
        return choice._replace(gates=0 * choice.gates + 1 / self.active)

    override_all(model, Router, forward=forward)


@patches(
    "experts.gates-of-another",
    "the gates of a token's experts stand in the reverse order of the experts",
    "The best expert gets the gate of the worst: one of the two was sorted and the other was not.",
    applies=lambda spec: _active(spec) > 1,
)
def gates_of_another(model: Model) -> None:
    def forward(self: Router, x: Tensor) -> Choice:
        choice = Router.forward(self, x)
        return choice._replace(gates=choice.gates.flip(-1))

    override_all(model, Router, forward=forward)


@patches(
    "experts.gates-on-inputs",
    "gates multiply what experts read instead of what they say",
    "An expert is not linear, so that it matters where the gate stands. A few models do have it in front.",
    applies=has_experts,
)
def gates_on_inputs(model: Model) -> None:
    def forward(self: Blocks, x: Tensor, choice: Choice) -> Tensor:
        total = torch.zeros_like(x)
        for rank in range(choice.experts.shape[1]):
            gate = choice.gates[:, rank : rank + 1]
            alone = Choice(choice.experts[:, rank : rank + 1], torch.ones_like(gate))
            total = total + Blocks.forward(self, (x * gate).to(x.dtype), alone)
        return total

    override_all(model, Blocks, forward=forward)


@patches(
    "experts.gates-over-tokens",
    "gates are normalised over the tokens instead of over the experts of each",
    "What an expert says to a token counts the less, the more tokens there are, later ones among them. Look at `dim`,"
    " and at an axis of one expert that was squeezed away.",
    applies=_normalised,
    reports=("databricks/megablocks#87",),
)
def gates_over_tokens(model: Model) -> None:
    def gates(self: Router, scores: Tensor, experts: Tensor) -> Tensor:
        chosen = scores.gather(-1, experts)
        return self.routing.factor * chosen / chosen.sum(dim=0, keepdim=True)

    override_all(model, Router, gates=gates)


@patches(
    "experts.gates-from-logits",
    "the gates are the router's products themselves, without a softmax",
    "The same experts are chosen, since a softmax keeps the order. Products may be negative, and have no sum.",
    applies=has_experts,
    reports=("sgl-project/sglang#35160",),
)
def gates_from_logits(model: Model) -> None:
    def forward(self: Router, x: Tensor) -> Choice:
        choice = Router.forward(self, x)
        return choice._replace(gates=self.logits(x).gather(-1, choice.experts))

    override_all(model, Router, forward=forward)


# Which are chosen -----------------------------------------------------------------------------------------------


def _other_number(slug: str, difference: int, meaning: str) -> Deviation:
    def applies(spec: Spec) -> bool:
        return has_experts(spec) and 1 <= _active(spec) + difference <= _number(spec)

    def change(spec: Spec) -> Spec:
        return set_otherwise(spec, "feed_forward.active_experts", value=_active(spec) + difference)

    return respecifies(
        slug,
        lambda spec: (
            f"of the experts each token uses {_active(spec) + difference} instead of {_active(spec)}"
        ),
        meaning,
        applies=applies,
    )(change)


_other_number(
    "experts.one-fewer",
    -1,
    "The least of the chosen experts is lost. Its gate is small, and so is the error.",
)
_other_number(
    "experts.one-more",
    1,
    "One expert too many is used, and where gates are normalised the others count less for it.",
)


@patches(
    "experts.router-in-bfloat16",
    "the router reads vectors that are rounded to bfloat16, whatever the model computes in",
    "Scores come near to each other, and rounding then chooses another expert: single tokens go far wrong and most are"
    " nearly right. Routers compute in float32 at least.",
    applies=has_experts,
)
def router_in_bfloat16(model: Model) -> None:
    override_all(
        model,
        Router,
        logits=lambda self, x: Router.logits(self, x.bfloat16().to(x.dtype)),
    )


@patches(
    "experts.sigmoid",
    "scores are logistic functions instead of a softmax",
    "Each expert is judged by itself. The same ones are chosen, and their gates are others.",
    applies=by_softmax,
)
def sigmoid(model: Model) -> None:
    override_all(model, Router, scores=lambda self, x: self.logits(x).sigmoid())


@patches(
    "experts.chosen-by-experts",
    "each expert chooses its best tokens instead of each token its best experts",
    "A later token displaces an earlier one: the future decides who computes, and so do the other rows of the batch."
    " Right for encoders that were trained so (Zhou et al. 2022).",
    applies=has_experts,
    reports=("piotrpiekos/MoSA#3", "allenai/OLMoE#46"),
)
def chosen_by_experts(model: Model) -> None:
    def forward(self: Router, x: Tensor) -> Choice:
        scores = self.scores(x)
        tokens, experts = scores.shape
        room = max(1, tokens * self.active // experts)
        taken = torch.zeros_like(scores).scatter(0, scores.topk(room, dim=0).indices, 1.0)
        numbers = torch.arange(experts, device=x.device).expand(tokens, -1)
        return Choice(experts=numbers, gates=scores * taken)

    override_all(model, Router, forward=forward)


# Where the results go -------------------------------------------------------------------------------------------


@patches(
    "experts.out-of-order",
    "results come back in the order in which the experts computed them, not in that of the tokens",
    "Tokens are sorted by expert, and the way back is forgotten: each gets what some other one asked for.",
    applies=has_experts,
)
def out_of_order(model: Model) -> None:
    def forward(self: Blocks, x: Tensor, choice: Choice) -> Tensor:
        return Blocks.forward(self, x, choice)[choice.experts[:, 0].argsort(stable=True)]

    override_all(model, Blocks, forward=forward)


@patches(
    "experts.capacity",
    lambda spec: (
        "experts leave out what is over their capacity in evaluation too"
        if _capped(spec)
        else "an expert takes no more than its even share of a batch's tokens, and leaves out the rest"
    ),
    "What a token gets depends on the tokens before it in the batch, on padding, and on the length. A capacity is there"
    " to train with.",
    applies=has_experts,
)
def capacity(model: Model) -> None:
    def choice(self: Experts, x: Tensor) -> Choice:
        return self.within(1.0 if self.capacity == "none" else self.capacity, self.router(x))

    override_all(model, Experts, choice=choice)


@patches(
    "experts.dense-after-dropped",
    "the dense block behind the experts is left out",
    "Its parameters are loaded and not used. Layers without experts are right.",
    applies=_dense_after,
)
def dense_after_dropped(model: Model) -> None:
    for layer in parts(model, Layer):
        if layer.dense_after is not None:
            override(layer.dense_after, forward=lambda self, x: 0 * said(self, x))


# DeepSeek's routing ---------------------------------------------------------------------------------------------


@patches(
    "experts.softmax",
    "scores are a softmax over all experts instead of logistic functions",
    "Each expert is judged by itself here. Code that knows the softmax of the predecessors chooses others.",
    applies=_by_sigmoid,
    reports=("NVIDIA/TensorRT-Model-Connect#669",),
)
def softmax(model: Model) -> None:
    override_all(model, Router, scores=lambda self, x: self.logits(x).softmax(dim=-1))


@patches(
    "experts.gates-corrected",
    "gates are the scores with the bias that corrects the choice",
    "The bias balances how often experts are chosen, and nothing else: what an expert says counts by the score without"
    " it. Freshly initialised biases are zero and show nothing.",
    applies=_by_sigmoid,
    reports=("vllm-project/vllm#12002", "huggingface/transformers#41647"),
)
def gates_corrected(model: Model) -> None:
    override_all(
        model,
        Router,
        gates=lambda self, scores, experts: Router.gates(self, scores + self.correction, experts),
    )


@patches(
    "experts.correction-dropped",
    "experts are chosen without the bias that corrects the choice",
    "It is no parameter, and easily left behind in a checkpoint's buffers. Zeros in a fresh model show nothing.",
    applies=_by_sigmoid,
)
def correction_dropped(model: Model) -> None:
    override_all(
        model,
        Router,
        preferences=lambda self, scores: Router.preferences(self, scores - self.correction),
    )


@respecifies(
    "experts.groups-ignored",
    "experts are chosen among all groups instead of the best ones",
    "Groups stand for devices, and a limit on them saves communication; but the model was trained with it.",
    applies=_grouped,
    reports=("EricLBuehler/mistral.rs#1278",),
)
def groups_ignored(spec: Spec) -> Spec:
    ungrouped = set_otherwise(spec, "feed_forward.routing.groups", value=1)
    return set_otherwise(ungrouped, "feed_forward.routing.active_groups", value=1)


@respecifies(
    "experts.group-fewer",
    "experts are chosen in one group fewer",
    "The limit on groups is off by one: what stands in the last of them is never chosen.",
    applies=lambda spec: _groups(spec) > 1,
)
def group_fewer(spec: Spec) -> Spec:
    return set_otherwise(spec, "feed_forward.routing.active_groups", value=_groups(spec) - 1)


@patches(
    "experts.groups-by-best",
    "a group is as good as its best expert instead of the sum of its two best",
    "So it is in the predecessor of these models. Other groups are chosen for some tokens, and all else is right.",
    applies=both(_grouped, _by_sigmoid),
    reports=("vllm-project/vllm#13474",),
)
def groups_by_best(model: Model) -> None:
    override_all(model, Router, goodness=lambda self, by_group: by_group.amax(dim=-1))


@patches(
    "experts.groups-by-two",
    "a group is as good as the sum of its two best experts instead of its best",
    "So it is in the successor of these models. Other groups are chosen for some tokens, and all else is right.",
    applies=both(_grouped, by_softmax),
)
def groups_by_two(model: Model) -> None:
    override_all(
        model, Router, goodness=lambda self, by_group: by_group.topk(2, dim=-1).values.sum(dim=-1)
    )


@respecifies(
    "experts.factor-dropped",
    lambda spec: f"gates are not multiplied by {_factor(spec):g}",
    "The experts say too little beside the residual stream and what all tokens share.",
    applies=lambda spec: _factor(spec) != 1.0,
)
def factor_dropped(spec: Spec) -> Spec:
    return set_otherwise(spec, "feed_forward.routing.factor", value=1.0)


@patches(
    "experts.shared-dropped",
    "the experts that all tokens share are left out",
    "Their parameters are loaded and not used. What is routed is right.",
    applies=_shared,
)
def shared_dropped(model: Model) -> None:
    for block in parts(model, Experts):
        assert block.shared_experts is not None
        override(block.shared_experts, forward=lambda self, x: 0 * said(self, x))


@patches(
    "experts.shared-scaled",
    lambda spec: f"what all tokens share is multiplied by {_factor(spec):g} as well",
    "The factor of the gates is applied to the sum of both. It belongs to the routed experts alone.",
    applies=lambda spec: _shared(spec) and _factor(spec) != 1.0,
)
def shared_scaled(model: Model) -> None:
    for block in parts(model, Experts):
        assert block.shared_experts is not None
        factor = block.router.routing.factor
        override(block.shared_experts, forward=lambda self, x, by=factor: by * said(self, x))
