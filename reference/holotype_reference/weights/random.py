"""Random weights that expose bugs: bold ones, where all parameters show, faint ones, for eps, and steady ones.

The usual initialisation (small matrices, zero biases, unit gains) hides a good third of all bugs:
scores are so close to uniform that masks and rotations barely matter, and a forgotten bias or gain
is exactly right. Here nothing is zero, one or small. Each tensor is drawn from a generator of its
own, so that the values of one do not depend on which others exist.
"""

from __future__ import annotations

from math import sqrt
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from holotype_reference.weights.checkpoints import Weights
from holotype_spec.parameters import Parameter
from holotype_spec.schema import Experts, Spec
from holotype_spec.tensors import tensor_table

Regime = Literal["bold", "faint", "steady"]

MATRIX_STD = 1.5  # of what a matrix gives for inputs of root mean square 1
SCORE_STD = 1.5  # of attention scores that no 1/sqrt(head_dim) scales
GAIN_SPREAD = 0.4  # gains are exp(0.4 z): around 1, never near 0
BIAS_STD = 0.5
CHOICE_STD = 0.2  # of what is added to scores between 0 and 1 before experts are chosen
COMMON = 3.0  # of each number in what all embeddings have in common, beside their own of root mean square 1
WRITTEN = 0.5  # of what the layers write into the stream, of their usual
SPREAD = 0.5  # of what routers say by themselves, of their usual
APART = 2.0  # how far from the others what all embeddings have in common puts the chosen experts


def random_weights(
    spec: Spec, seed: int, regime: Regime = "bold", dtype: torch.dtype = torch.float64
) -> Weights:
    """Random weights for the model of `spec`, the same on every platform for the same NumPy.

    Args:
        spec: usually a probe; the tensors have its sizes.
        seed: at least 0. Both regimes draw the same numbers from it and scale them differently.
        regime: "bold": matrices give outputs of standard deviation 1.5, so that attention is far
            from uniform and not saturated; gains around 1, biases and embeddings all random.
            "faint": the same but for the residual stream, which is so faint that the variance that
            reaches a norm is of the order of its eps. "steady": as "bold", but routers choose the same
            experts for every token by a wide margin, so that no rounding turns a choice.
        dtype: what the float64 draws are rounded to.

    Raises:
        ValueError: for another regime or a negative seed.
    """
    if regime not in get_args(Regime):
        raise ValueError(f"regime is {regime!r}; expected 'bold', 'faint' or 'steady'")
    if seed < 0:
        raise ValueError(f"seed is {seed}; expected a whole number, at least 0")
    tensors = {}
    for parameter in tensor_table(spec):
        values = _bold(spec, parameter, _standard_normal(seed, parameter))
        if regime == "faint":
            values = values * _faintness(spec, parameter)
        elif regime == "steady":
            values = _steady(spec, parameter, values)
        tensors[parameter.name] = torch.from_numpy(values).to(dtype)
    return Weights(spec, tensors)


def _standard_normal(seed: int, parameter: Parameter) -> NDArray[np.float64]:
    entropy = np.random.SeedSequence([seed, *parameter.name.encode()])
    return np.random.Generator(np.random.Philox(entropy)).standard_normal(parameter.shape)


def _bold(spec: Spec, parameter: Parameter, z: NDArray[np.float64]) -> NDArray[np.float64]:
    match parameter.role:
        case "embedding" | "score-bias":
            return z
        case "gain":
            return np.exp(GAIN_SPREAD * z)
        case "bias" | "shift":
            return BIAS_STD * z
        case "choice-bias":
            return CHOICE_STD * z
        case "matrix":
            return z * (_matrix_std(spec, parameter) / sqrt(parameter.shape[-1]))


def _matrix_std(spec: Spec, parameter: Parameter) -> float:
    """The standard deviation of what this matrix gives for inputs of root mean square 1."""
    part = _part(parameter)
    if part in ("query", "key") and spec.architecture.attention.scale == "none":
        # A score is a sum of head_dim products: its deviation is sqrt(head_dim) times theirs.
        return sqrt(SCORE_STD / sqrt(spec.head_dim))
    return MATRIX_STD


def _faintness(spec: Spec, parameter: Parameter) -> float:
    """By how much a parameter is scaled so that all norms, and only they, work near their eps.

    What writes into the stream is made faint. A post-norm stream is faint wherever it is read, too
    (its norms write into it), so what reads it is made as strong in turn, and attention and
    feed-forward work at their usual scale.
    """
    faint, scale = sqrt(spec.architecture.normalization.eps), 1.0
    if _is_normalized(spec, parameter) or _joins_tied_logits(spec, parameter):
        scale *= faint
    if _reads_faint_stream(spec, parameter):
        scale /= faint
    return scale


def _is_normalized(spec: Spec, parameter: Parameter) -> bool:
    """Whether a norm comes next: after the stream, and in the head of a masked language model."""
    if parameter.name.startswith("head.transform."):
        return not spec.architecture.head.detects
    return parameter.residual or _part(parameter) in ("latent", "query_latent")


def _joins_tied_logits(spec: Spec, parameter: Parameter) -> bool:
    """Whether this bias is added to logits that a tied, hence faint, embedding matrix gives."""
    tied = spec.architecture.tied_embeddings and spec.logit_size == spec.vocab_size
    return tied and parameter.name == "head.output.bias"


def _reads_faint_stream(spec: Spec, parameter: Parameter) -> bool:
    if parameter.role != "matrix" or spec.architecture.residual == "pre-norm":
        return False
    part = _part(parameter)
    if ".layers." in parameter.name and not (
        ".cross_attention." in parameter.name and part in ("key", "value")
    ):
        return part in ("query", "key", "value", "router", "gate", "up")
    # The rest reads a whole stack's result, which a final norm would have made strong again.
    reads_result = part in ("key", "value", "pooler", "transform")
    return reads_result and not spec.architecture.normalization.final


def _part(parameter: Parameter) -> str:
    """The part that a tensor belongs to: `query` of `decoder.layers.0.self_attention.query.weight`."""
    return parameter.name.split(".")[-2]


# Steady choices -----------------------------------------------------------------------------------


def _steady(spec: Spec, parameter: Parameter, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The values, so that every token chooses the last experts.

    Routers tell these from the others along one direction. All embeddings have that in common, and what layers write
    does not drown it. Where a bias corrects the choice, it alone does so.
    """
    blocks = spec.architecture.feed_forward
    if not isinstance(blocks, Experts):
        return values
    chosen = np.where(np.arange(blocks.experts) < blocks.experts - blocks.active_experts, -1, 1)
    common = np.where(np.arange(spec.hidden_size) % 2, -1, 1)
    if parameter.role == "choice-bias":
        return values + APART * chosen
    if blocks.corrects_choice:
        return values
    if parameter.name == "embeddings.token.weight":
        return values + COMMON * common
    if _part(parameter) == "router":
        return SPREAD * values + APART * chosen[:, None] * common / sqrt(spec.hidden_size)
    factor = blocks.routing.factor if ".experts." in parameter.name else 1.0
    return values * (WRITTEN / factor) if parameter.residual else values
