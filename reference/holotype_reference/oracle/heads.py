"""The outputs behind the last layer: logits over the vocabulary, and the next sentence's two classes."""

from __future__ import annotations

import math

import numpy as np

from holotype_reference.oracle import normalization
from holotype_reference.oracle.basics import Array, Scope, linear
from holotype_reference.oracle.feed_forward import activate
from holotype_spec.schema import (
    EnhancedMaskDecoder,
    LanguageModelHead,
    MaskedLanguageModelHead,
    ReplacedTokenHead,
    Spec,
)


def vocabulary(spec: Spec, p: Scope, x: Array) -> Array:
    """Logits; a tied output matrix is the token embedding's (Press & Wolf 2016, section 2)."""
    head = spec.architecture.head
    if isinstance(head, ReplacedTokenHead):
        return _replaced(head, p / "head", x)
    if isinstance(head, MaskedLanguageModelHead | EnhancedMaskDecoder):
        x = normalization.norm(
            spec, p / "head.norm", activate(head.activation, linear(p / "head.transform", x))
        )
    elif isinstance(head, LanguageModelHead) and head.input_scale == "inverse-sqrt-hidden-size":
        # Not in the paper, but in the released T5 code, where the matrix is tied.
        x = x / math.sqrt(spec.hidden_size)
    if "head.projection.weight" in p:  # the OPT release, project_out
        x = linear(p / "head.projection", x)
    tied = spec.architecture.tied_embeddings
    matrix = p["embeddings.token.weight" if tied else "head.output.weight"]
    return x @ matrix.T + (p["head.output.bias"] if getattr(head, "bias", False) else 0)


def _replaced(head: ReplacedTokenHead, p: Scope, x: Array) -> Array:
    """wᵀ h(x)_t (Clark et al. 2020, section 2), behind the release's dense layer; its sigmoid is 1 - D, as there."""
    return linear(p / "output", activate(head.activation, linear(p / "transform", x)))


def next_sentence(spec: Spec, p: Scope, x: Array) -> Array | None:
    """The pooler, tanh of a dense layer over the first position, then the two classes.

    Devlin et al. 2018, section 3.1; the tanh stands in the release only.
    """
    head = spec.architecture.head
    if not (isinstance(head, MaskedLanguageModelHead) and head.sentence_pair != "none"):
        return None
    return linear(p / "next_sentence", np.tanh(linear(p / "pooler", x[:, 0])))
