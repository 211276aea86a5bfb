"""From hidden states to what the objective wants: logits over the vocabulary or one a token, BERT's classes."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from holotype_reference.feed_forward import ACTIVATIONS
from holotype_reference.linear import Linear, Table
from holotype_reference.normalization import norm
from holotype_spec import schema


class VocabularyMatrix(nn.Module):
    """logits = x Eᵀ + b.

    E is its own matrix or, when tied, the token table, which the embeddings own (Press & Wolf 2016, section 1).
    """

    def __init__(self, spec: schema.Spec, *, bias: bool) -> None:
        super().__init__()
        shape = (spec.vocab_size, spec.embedding_size)
        tied = spec.architecture.tied_embeddings
        self.weight = None if tied else nn.Parameter(torch.empty(shape))
        self.bias = nn.Parameter(torch.empty(spec.vocab_size)) if bias else None

    def forward(self, x: Tensor, token_table: Tensor) -> Tensor:
        """(batch, length, size) and the token table (vocab_size, size) -> (batch, length, vocab_size)"""
        matrix = token_table if self.weight is None else self.weight
        return F.linear(x, matrix, self.bias)


class LanguageModelHead(nn.Module):
    """One matrix to the vocabulary; T5 scales its input by hidden_size^-0.5 where the matrix is tied (its release)."""

    def __init__(
        self, spec: schema.Spec, head: schema.LanguageModelHead | schema.MultiTokenHead
    ) -> None:
        super().__init__()
        # A narrow token table is met half-way (the OPT release, project_out).
        factorised = isinstance(spec.architecture.embeddings.width, schema.FactorisedEmbedding)
        self.projection = (
            Linear(spec.hidden_size, spec.embedding_size, bias=False) if factorised else None
        )
        self.output = VocabularyMatrix(spec, bias=head.bias)
        self.hidden_size = spec.hidden_size
        self.input_scale = head.input_scale

    def forward(self, x: Tensor, token_table: Tensor) -> Tensor:
        """(batch, length, hidden_size) -> (batch, length, vocab_size)"""
        x = x if self.projection is None else self.projection(x)
        logits: Tensor = self.output(x * self.scale(), token_table)
        return logits

    def scale(self) -> float:
        match self.input_scale:
            case "inverse-sqrt-hidden-size":
                return float(self.hidden_size**-0.5)
            case "none":
                return 1.0


class MaskedLanguageModelHead(nn.Module):
    """output(norm(activation(transform(x)))) (the BERT release, run_pretraining.py, get_masked_lm_output)."""

    def __init__(self, spec: schema.Spec, head: schema.MaskedLanguageModelHead) -> None:
        super().__init__()
        self.build(spec, head)

    def build(
        self, spec: schema.Spec, head: schema.MaskedLanguageModelHead | schema.EnhancedMaskDecoder
    ) -> None:
        """The two matrices and the norm."""
        self.transform = Linear(spec.hidden_size, spec.embedding_size)
        self.norm = norm(spec, spec.embedding_size)
        self.output = VocabularyMatrix(spec, bias=head.bias)
        self.activation = head.activation

    def forward(self, x: Tensor, token_table: Tensor) -> Tensor:
        """(batch, length, hidden_size) -> (batch, length, vocab_size)"""
        x = self.norm(ACTIVATIONS[self.activation](self.transform(x)))
        logits: Tensor = self.output(x, token_table)
        return logits


class EnhancedMaskDecoder(MaskedLanguageModelHead):
    """The head of a masked language model, and what it makes of the last layer (He et al. 2020, section 3.2).

        z₀ = h + p,    z_n = layer(queries and residual from z_(n-1), keys and values from h)

    with h the states below the last layer and p a trained row for each position: the one place where absolute positions
    enter. The head reads z after the last pass (the release, masked_language_model.py, emd_context_layer; what the
    last layer makes of h alone is not used).
    """

    def __init__(self, spec: schema.Spec, head: schema.EnhancedMaskDecoder) -> None:
        nn.Module.__init__(self)  # the positions' table comes first
        self.position = Table(spec.max_positions, spec.hidden_size)
        self.build(spec, head)
        self.passes = head.passes

    def decode(self, x: Tensor, layer: Callable[[Tensor], Tensor], *, positions: Tensor) -> Tensor:
        """The states h (batch, length, hidden_size) below the last layer, that layer with its keys and values from h,
        and positions (batch or 1, length) -> (batch, length, hidden_size)"""
        states: Tensor = x + self.position(positions)
        for _ in range(self.passes):
            states = layer(states)
        return states


class ReplacedTokenHead(nn.Module):
    """output(activation(transform(x))), one number a token: positive if it was replaced (Clark et al. 2020, section 2).

    Its logistic function, which belongs to the loss, is the probability of that: the paper's D is the opposite, that
    of the original token, and the dense layer stands in the release alone (run_pretraining.py,
    _get_discriminator_output). There is no norm in between.
    """

    def __init__(self, spec: schema.Spec, head: schema.ReplacedTokenHead) -> None:
        super().__init__()
        self.transform = Linear(spec.hidden_size, spec.hidden_size)
        self.output = Linear(spec.hidden_size, 1)
        self.activation = head.activation

    def forward(self, x: Tensor, _token_table: Tensor) -> Tensor:
        """(batch, length, hidden_size) -> (batch, length, 1)"""
        logits: Tensor = self.output(ACTIVATIONS[self.activation](self.transform(x)))
        return logits


class Pooler(Linear):
    """tanh(W x₀ + b): the first position speaks for the sequence (the BERT release, modeling.py, "pooler")."""

    def forward(self, x: Tensor) -> Tensor:
        """(batch, length, hidden_size) -> (batch, hidden_size)"""
        return super().forward(x[:, 0]).tanh()


Head = LanguageModelHead | MaskedLanguageModelHead | ReplacedTokenHead


def head(spec: schema.Spec) -> Head:
    """The head of a spec."""
    match spec.architecture.head:
        # The modules that predict further tokens are left out in use (DeepSeek-AI 2024, V3, section 2.2).
        case schema.LanguageModelHead() | schema.MultiTokenHead() as described:
            return LanguageModelHead(spec, described)
        case schema.MaskedLanguageModelHead() as described:
            return MaskedLanguageModelHead(spec, described)
        case schema.EnhancedMaskDecoder() as described:
            return EnhancedMaskDecoder(spec, described)
        case schema.ReplacedTokenHead() as described:
            return ReplacedTokenHead(spec, described)
        case described:
            raise NotImplementedError(f"no head for {type(described).__name__}")
