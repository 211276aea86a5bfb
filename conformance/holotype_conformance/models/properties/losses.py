"""The training loss, against the formula of the objective applied to the candidate's own logits."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import Tensor

from holotype_conformance.judge.property import Violation
from holotype_conformance.judge.sharing import shared
from holotype_conformance.models.candidate import Inputs, Labels, Outputs
from holotype_conformance.models.cases import BatchCase, batch_cases, batch_inputs
from holotype_conformance.models.claims import claim
from holotype_conformance.models.exchange import real_rows
from holotype_conformance.models.subject import Subject
from holotype_spec.schema import Spec

IGNORED = -100
FLOAT32_LOSS = (
    2e-6  # many codes take the softmax of the loss in float32, whatever the model computes in
)


def random_labels(subject: Subject, inputs: Inputs, seed: int) -> Labels:
    """Labels of which some, and all padding, is to be ignored; every row keeps at least one.

    It is about a third, anywhere, but for an encoder-decoder only the end of a row, in each row another length:
    its decoder reads the labels, and what stands for an ignored one among them is nobody's convention. Where the
    question is which tokens were replaced, the answer is known of all real ones: padding alone is ignored.
    """
    generator = torch.Generator().manual_seed(seed)
    tokens = inputs.token_ids
    if inputs.source_ids is not None:
        batch, length = tokens.shape
        kept = 1 + torch.randperm(length, generator=generator)[:batch, None].to(tokens.device)
        end = torch.arange(length, device=tokens.device) >= kept
        return Labels(tokens=tokens.masked_fill(end, IGNORED))
    if subject.spec.logit_size == 1:
        replaced = torch.rand(tokens.shape, generator=generator) < 0.3
        labels = replaced.long().to(tokens.device)
        return Labels(tokens=labels.masked_fill(~real_rows(inputs), IGNORED))
    if "causal-lm" not in subject.spec.architecture.objective:
        tokens = tokens.roll(1, 1)  # what a position predicts is not what stands there
    ignored = torch.rand(tokens.shape, generator=generator) < 0.3
    ignored[:, -1] = False
    labels = torch.where(ignored.to(tokens.device) | ~real_rows(inputs), IGNORED, tokens)
    pairs = torch.arange(tokens.shape[0], device=tokens.device) % 2
    return Labels(tokens=labels, next_sentence=pairs if subject.has("next-sentence") else None)


def expected_loss(spec: Spec, outputs: Outputs, labels: Labels) -> Tensor:
    """The mean cross-entropy over the labelled positions, and that of the next sentence added.

    A causal model predicts at i the token at i + 1 (Radford et al. 2018, equation 1); the others predict at
    i the label at i (Devlin et al. 2018, section 3.1; Raffel et al. 2019, section 3.1.4). Whether a token was
    replaced is told by one number, a logit (Clark et al. 2020, section 2, L_Disc).
    """
    logits, targets = outputs.logits, labels.tokens
    if spec.logit_size == 1:
        told = targets != IGNORED
        return F.binary_cross_entropy_with_logits(logits[told][:, 0], targets[told].to(logits))
    if "causal-lm" in spec.architecture.objective:
        logits, targets = logits[:, :-1], targets[:, 1:]
    loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED)
    if labels.next_sentence is not None and outputs.next_sentence is not None:
        loss = loss + F.cross_entropy(outputs.next_sentence, labels.next_sentence)
    return loss


def teacher_forced(spec: Spec, inputs: Inputs, labels: Labels) -> Inputs:
    """The inputs of a model that is trained with these labels (teacher forcing).

    A decoder with a source reads its start token, or the last label of the row in its place, and then the labels, all
    but the last (Raffel et al. 2019, section 2.1, and mesh: autoregressive_inputs; Liu et al. 2020, section 2.2);
    behind the last label of a row it does not matter what. Other models read `inputs` as they are.
    """
    start = spec.architecture.decoder_start_id
    if start == "none":
        return inputs
    if start == "last-label":
        last = (labels.tokens != IGNORED).sum(dim=1, keepdim=True) - 1
        first = labels.tokens.gather(1, last.clamp(min=0))
    else:
        first = torch.full_like(labels.tokens[:, :1], start)
    shifted = torch.cat([first, labels.tokens[:, :-1]], dim=1)
    return replace(inputs, token_ids=shifted.where(shifted != IGNORED, first))


def taught(inputs: Inputs) -> Inputs:
    """The inputs that a candidate's loss is passed beside the labels: of an encoder-decoder's the source alone."""
    if inputs.source_ids is None:
        return inputs
    return replace(inputs, token_ids=inputs.token_ids[:, :0])


def loss_cases(subject: Subject) -> st.SearchStrategy[BatchCase]:
    return batch_cases(subject, least=4, choices=("none", "right"), batches=st.integers(1, 3))


@shared
def taught_case(subject: Subject, case: BatchCase) -> tuple[Inputs, Labels, Inputs]:
    """The inputs of the loss, the labels, and the inputs of the model that is trained with them."""
    inputs = batch_inputs(subject, case)
    labels = random_labels(subject, inputs, case.tokens)
    if inputs.source_ids is not None:
        inputs = replace(inputs, attention_mask=None)  # the end of a row is told by its labels
    return taught(inputs), labels, teacher_forced(subject.spec, inputs, labels)


def _ratio(spec: Spec, labels: Labels, ratio: float) -> str:
    """Of a loss that is that of the formula divided by another number of positions: by which."""
    targets = labels.tokens[:, 1:] if "causal-lm" in spec.architecture.objective else labels.tokens
    counted = int((targets != IGNORED).sum())
    divisor = counted / ratio if ratio > 0 else 0.0
    if not 1 <= round(divisor) <= labels.tokens.numel():
        return ""
    if abs(divisor - round(divisor)) > 10 * FLOAT32_LOSS * divisor:
        return ""
    return f": it is what a sum over the {counted} labelled positions gives that is divided by {round(divisor)}"


@claim(
    slug="objective.loss",
    clause="The loss is the formula's, on the same logits.",
    meaning=(
        "The training loss is the mean cross-entropy of the objective over the labelled positions "
        "of the batch. The candidate's loss is compared with the formula applied to its own "
        "logits, with ignored positions, padding and rows of different lengths. An "
        "encoder-decoder gets the source and the labels and makes its decoder's input itself: the "
        "spec's start token, then the labels without the last. Look for labels that are shifted "
        "twice or not at all, for another token at the start, for an ignored value that is "
        "counted, and for a mean over rows instead of positions."
    ),
    catches=(
        "labels shifted twice",
        "labels not shifted",
        "replaced tokens labelled 0",
        "labels not shifted into the decoder",
        "decoder start token wrong",
        "ignored labels counted",
        "mean of means",
    ),
    needs=("loss",),
    binds=("architecture.objective",),
    cases=loss_cases,
    examples=6,
)
def loss(subject: Subject, case: BatchCase, path: str) -> None:
    given, labels, read = taught_case(subject, case)
    model = subject.model(case.setup(path))
    actual = float(subject.loss(model, given, labels))
    expected = float(expected_loss(subject.spec, subject.forward(model, read), labels))
    if not abs(actual - expected) <= FLOAT32_LOSS * max(1.0, abs(expected)):
        raise Violation(
            f"the loss is {actual:.6f}; the formula gives {expected:.6f} on the same logits"
            f"{_ratio(subject.spec, labels, actual / expected)}",
            loss=actual,
            expected=expected,
        )
