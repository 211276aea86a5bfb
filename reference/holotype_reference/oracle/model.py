"""A whole model, from token ids to logits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from holotype_reference.oracle.basics import Array, Scope, Stream
from holotype_reference.oracle.embeddings import embed, placed_apart
from holotype_reference.oracle.heads import next_sentence, vocabulary
from holotype_reference.oracle.layers import stack_output
from holotype_spec.parameters import Stack
from holotype_spec.schema import Spec
from holotype_spec.tensors import tensor_table


@dataclass(frozen=True, kw_only=True)
class OracleOutput:
    """The outputs of the oracle.

    Attributes:
        logits: (batch, length, vocab_size), not normalised; (batch, length, 1) of a head that tells replaced tokens.
        next_sentence: (batch, 2) for a model with that head, else None.
    """

    logits: Array
    next_sentence: Array | None


def logits(
    spec: Spec,
    weights: Mapping[str, Any],
    token_ids: ArrayLike,
    *,
    attention_mask: ArrayLike | None = None,
    position_ids: ArrayLike | None = None,
    token_types: ArrayLike | None = None,
    source_ids: ArrayLike | None = None,
    source_mask: ArrayLike | None = None,
    prefix: ArrayLike | None = None,
    right_to_left: ArrayLike | None = None,
    order: ArrayLike | None = None,
) -> OracleOutput:
    """The logits of the model of `spec`, in float64.

    Args:
        spec: any spec.
        weights: every tensor of `tensor_table(spec)` by name: arrays, or CPU tensors.
        token_ids: (batch, length), what the stack that writes the logits reads.
        attention_mask: (batch, length), 0 at padding: such keys are seen by nobody. What comes out
            at padding is finite and means nothing.
        position_ids: (batch, length); None counts 0, 1, … whatever the mask. Where a token has two, (batch, 2, length).
        token_types: (batch, length); None is all 0.
        source_ids: (batch, source length), what the encoder of an encoder-decoder reads.
        source_mask: (batch, source length), 0 at padding.
        prefix: (batch,) how many places at the start of each row are seen by all of it; None leaves a prefix empty,
            and a mixture of masks without any.
        right_to_left: given, whatever it is, for the mask of a mixture in which a token sees itself and those after it.
        order: (batch, length), the place of each position in the order of prediction; None shows everything.

    Raises:
        ValueError: for weights that are not those of `spec`, or inputs that do not fit the model.
    """
    p = Scope(_checked_weights(spec, weights))
    if (source_ids is not None) != (spec.architecture.structure == "encoder-decoder"):
        raise ValueError(
            f"source_ids: {spec.architecture.structure} models take them "
            + ("not" if source_ids is not None else "always")
        )
    tables = p / "embeddings"
    target = replace(
        embed(spec, tables, tables, token_ids, attention_mask, position_ids, token_types, prefix),
        right_to_left=right_to_left is not None,
        order=None if order is None else np.asarray(order, dtype=np.int64),
    )
    source = _source(spec, p, source_ids, source_mask)
    stack: Stack = "encoder" if spec.architecture.structure == "encoder" else "decoder"
    x = stack_output(spec, p, stack, target, source)
    return OracleOutput(logits=vocabulary(spec, p, x), next_sentence=next_sentence(spec, p, x))


def _source(
    spec: Spec, p: Scope, source_ids: ArrayLike | None, source_mask: ArrayLike | None
) -> Stream | None:
    """The source as the encoder leaves it; None for a model without one."""
    if source_ids is None:
        if source_mask is not None:
            raise ValueError("source_mask is given without source_ids")
        return None
    tables = p / "embeddings"
    places = p / "source_embeddings" if placed_apart(spec) else tables
    stream = embed(spec, tables, places, source_ids, source_mask, None, None)
    encoded = stack_output(spec, p, "encoder", stream)
    return Stream(x=encoded, positions=stream.positions, real=stream.real)


def _checked_weights(spec: Spec, weights: Mapping[str, Any]) -> dict[str, Array]:
    arrays = {name: np.asarray(value, dtype=np.float64) for name, value in weights.items()}
    expected = {parameter.name: parameter.shape for parameter in tensor_table(spec)}
    found = {name: array.shape for name, array in arrays.items()}
    if found != expected:
        wrong = sorted({name for name, _ in expected.items() ^ found.items()})
        raise ValueError(
            f"weights are not those of {spec.name}: missing, unexpected or mis-shaped {wrong}"
        )
    return arrays
