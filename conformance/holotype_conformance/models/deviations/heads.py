"""The heads: the vocabulary matrix, its tie, and what stands before it."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from holotype_conformance.models.deviations.deviation import patches, respecifies
from holotype_conformance.models.deviations.features import (
    biased_head,
    detects,
    masked_head,
    next_sentence,
    set_otherwise,
    tied,
)
from holotype_conformance.models.deviations.patching import override, override_all, parts
from holotype_reference.basics import Linear
from holotype_reference.embeddings import VocabularyMatrix
from holotype_reference.heads import MaskedLanguageModelHead, Pooler, ReplacedTokenHead
from holotype_reference.model import Model
from holotype_spec import schema
from holotype_spec.schema import Spec

# The language-model head ----------------------------------------------------------------------------------------


def _scales_input(spec: Spec) -> bool:
    return getattr(spec.architecture.head, "input_scale", "none") != "none"


def _plain_input(spec: Spec) -> bool:
    return spec.has(schema.LanguageModelHead) and not _scales_input(spec)


@respecifies(
    "head.scale-dropped",
    lambda spec: f"the head's input is not scaled (instead of by 1/√{spec.hidden_size})",
    "Logits are larger by √hidden_size: greedy decoding is right, probabilities and the loss are"
    " not. The scale belongs to the tied matrix.",
    applies=_scales_input,
    reports=("ml-explore/mlx-examples#591", "huggingface/transformers#43681"),
)
def scale_dropped(spec: Spec) -> Spec:
    return set_otherwise(spec, "head.input_scale", "none")


@respecifies(
    "head.scale-added",
    lambda spec: f"the head's input is scaled by 1/√{spec.hidden_size} (instead of not at all)",
    "Logits are smaller by √hidden_size: greedy decoding is right, probabilities and the loss are"
    " not.",
    applies=_plain_input,
    reports=("ml-explore/mlx-examples#591",),
)
def scale_added(spec: Spec) -> Spec:
    return set_otherwise(spec, "head.input_scale", "inverse-sqrt-hidden-size")


@patches(
    "head.bias-dropped",
    "the bias of the vocabulary matrix is not added",
    "The head has a bias of its own beside the tied matrix, easily lost when the matrix is"
    " replaced by the embedding.",
    applies=biased_head,
)
def bias_dropped(model: Model) -> None:
    _add_bias(model, times=-1)


@patches(
    "head.bias-twice",
    "the bias of the vocabulary matrix is added twice",
    "The matrix adds its bias and the head adds it again.",
    applies=biased_head,
    reports=("huggingface/transformers#2957", "huggingface/transformers#2928"),
)
def bias_twice(model: Model) -> None:
    _add_bias(model, times=1)


def _add_bias(model: Model, *, times: int) -> None:
    def forward(self: VocabularyMatrix, x: Tensor, table: Tensor) -> Tensor:
        assert self.bias is not None
        return VocabularyMatrix.forward(self, x, table) + times * self.bias

    override_all(model, VocabularyMatrix, forward=forward)


@patches(
    "head.untied",
    "the vocabulary matrix is a copy of the token embeddings instead of being them",
    "Right as long as nothing is trained; then the two fall apart. The model has a matrix too"
    " many, and it is not in the checkpoint. Tie after loading, and after every change of the"
    " embeddings.",
    applies=tied,
    reports=("huggingface/transformers#43429", "sgl-project/sglang#1508"),
)
def untied(model: Model) -> None:
    matrix = next(parts(model, VocabularyMatrix))
    matrix.weight = nn.Parameter(model.embeddings.token.weight.detach().clone())
    fill_when_loaded(model, "head.output.weight", lambda state: state["embeddings.token.weight"])


def fill_when_loaded(model: Model, name: str, value: Callable[[dict[str, Tensor]], Tensor]) -> None:
    """Give a parameter that checkpoints do not have the value that follows from theirs."""

    def fill(_module: nn.Module, state: dict[str, Tensor], *_rest: object) -> None:
        if name not in state:
            state[name] = value(state)

    model.register_load_state_dict_pre_hook(fill)  # type: ignore[no-untyped-call]


@patches(
    "head.tie-detached",
    "the tied vocabulary matrix gets no gradient: only the embedding's use of it does",
    "Results are right and training is not. Look for a detach, a `.data` or a no_grad where the"
    " matrix is borrowed.",
    applies=tied,
)
def tie_detached(model: Model) -> None:
    def forward(self: VocabularyMatrix, x: Tensor, table: Tensor) -> Tensor:
        return F.linear(x, table.detach(), self.bias)

    override_all(model, VocabularyMatrix, forward=forward)


# BERT's heads ---------------------------------------------------------------------------------------------------


@patches(
    "head.norm-dropped",
    "the masked language model's head has no norm between its two matrices",
    "Logits have another size. The head is dense, activation, norm, matrix.",
    applies=masked_head,
)
def norm_dropped(model: Model) -> None:
    for head in parts(model, MaskedLanguageModelHead):
        override(head.norm, forward=lambda self, x: x)


@patches(
    "head.activation-dropped",
    "the masked language model's head has no activation",
    "Two matrices in a row. The head is dense, activation, norm, matrix.",
    applies=masked_head,
)
def activation_dropped(model: Model) -> None:
    def forward(self: MaskedLanguageModelHead, x: Tensor, table: Tensor) -> Tensor:
        logits: Tensor = self.output(self.norm(self.transform(x)), table)
        return logits

    override_all(model, MaskedLanguageModelHead, forward=forward)


@patches(
    "head.transform-dropped",
    "the masked language model's head is the vocabulary matrix alone",
    "The matrix reads the last layer as a language model's does. The head is dense, activation,"
    " norm, matrix.",
    applies=masked_head,
)
def transform_dropped(model: Model) -> None:
    override_all(
        model, MaskedLanguageModelHead, forward=lambda self, x, table: self.output(x, table)
    )


# The head that tells replaced tokens ------------------------------------------------------------------------------


@patches(
    "head.replaced-probability",
    "the head gives the probability that a token was replaced instead of its logit",
    "The logistic function belongs to the loss, which takes logits. Applied in the model it is applied twice, and"
    " no token is ever sure.",
    applies=detects,
)
def replaced_probability(model: Model) -> None:
    def forward(self: ReplacedTokenHead, x: Tensor, table: Tensor) -> Tensor:
        return ReplacedTokenHead.forward(self, x, table).sigmoid()

    override_all(model, ReplacedTokenHead, forward=forward)


@patches(
    "head.replaced-original-is-one",
    "a positive logit says that a token is the original instead of replaced",
    "The paper's D is the probability that a token is the original one; its release and every published checkpoint"
    " have 1 for a replaced one. A model that says the opposite was trained with swapped labels.",
    applies=detects,
)
def replaced_original_is_one(model: Model) -> None:
    def forward(self: ReplacedTokenHead, x: Tensor, table: Tensor) -> Tensor:
        return -ReplacedTokenHead.forward(self, x, table)

    override_all(model, ReplacedTokenHead, forward=forward)


@patches(
    "head.replaced-activation-dropped",
    "the head that tells replaced tokens has no activation",
    "Two matrices in a row, which are one. The head is dense, activation, and a vector.",
    applies=detects,
)
def replaced_activation_dropped(model: Model) -> None:
    def forward(self: ReplacedTokenHead, x: Tensor, _table: Tensor) -> Tensor:
        logits: Tensor = self.output(self.transform(x))
        return logits

    override_all(model, ReplacedTokenHead, forward=forward)


@patches(
    "head.replaced-transform-dropped",
    "the head that tells replaced tokens reads the last layer without a dense layer",
    "A classifier of tokens is often one matrix. This head is dense, activation, and a vector.",
    applies=detects,
)
def replaced_transform_dropped(model: Model) -> None:
    def forward(self: ReplacedTokenHead, x: Tensor, _table: Tensor) -> Tensor:
        logits: Tensor = self.output(x)
        return logits

    override_all(model, ReplacedTokenHead, forward=forward)


@patches(
    "head.replaced-norm-added",
    "the head that tells replaced tokens has a norm in front of its last vector",
    "The generator's head has a norm there, the discriminator's has none.",
    applies=detects,
)
def replaced_norm_added(model: Model) -> None:
    eps = model.spec.architecture.normalization.eps

    def forward(self: Linear, x: Tensor) -> Tensor:
        return Linear.forward(self, F.layer_norm(x, x.shape[-1:], eps=eps))

    for head in parts(model, ReplacedTokenHead):
        override(head.output, forward=forward)


# The pooler -------------------------------------------------------------------------------------------------------


@patches(
    "pooler.last-position",
    "the pooler reads the last position instead of the first",
    "Decoders summarise a sequence in its last token, this encoder in its first. Under right"
    " padding the last position is none.",
    applies=next_sentence,
)
def pooler_last(model: Model) -> None:
    override_all(model, Pooler, forward=lambda self, x: Pooler.forward(self, x.flip(1)))


@patches(
    "pooler.mean",
    "the pooler reads the mean of all positions instead of the first",
    "Sentence encoders average; here the first position speaks for the sequence. Padding enters"
    " the mean.",
    applies=next_sentence,
)
def pooler_mean(model: Model) -> None:
    def forward(self: Pooler, x: Tensor) -> Tensor:
        return Pooler.forward(self, x.mean(dim=1, keepdim=True))

    override_all(model, Pooler, forward=forward)


@patches(
    "pooler.without-tanh",
    "the pooler has no tanh",
    "A classifier on top was trained on numbers between -1 and 1.",
    applies=next_sentence,
)
def pooler_without_tanh(model: Model) -> None:
    override_all(model, Pooler, forward=lambda self, x: Linear.forward(self, x[:, 0]))


@patches(
    "pooler.classes-swapped",
    "the two next-sentence classes are swapped",
    "Class 0 says that the second sentence follows the first.",
    applies=next_sentence,
)
def classes_swapped(model: Model) -> None:
    def classify(self: Model, x: Tensor) -> Tensor:
        return Model.classify(self, x).flip(-1)

    override(model, classify=classify)
