"""Token ids to vectors: the sum of one row from each table, perhaps a norm, then dropout, perhaps a matrix."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from holotype_reference.basics import Linear, Table, norm
from holotype_reference.positions.learned import LearnedPositions
from holotype_reference.positions.sinusoidal import Sinusoidal
from holotype_spec import schema


class Placement(nn.Module):
    """The rows that one stack adds to those of its tokens, and the norm and dropout of the sum."""

    def __init__(self, spec: schema.Spec, token: Table | None = None) -> None:
        super().__init__()
        if token is not None:
            self.token = token  # the tokens' table comes first
        architecture = spec.architecture
        width = architecture.embeddings.width
        size = width.added_size(spec.hidden_size)
        self.position: LearnedPositions | Sinusoidal | None = None
        self.block_position: LearnedPositions | None = None
        match architecture.positions:
            case schema.LearnedPositions(offset=offset):
                self.position = LearnedPositions(spec.max_positions, size, offset=offset)
            case schema.TwoDimensionalPositions():
                self.position = LearnedPositions(spec.position_rows, size, offset=0)
                self.block_position = LearnedPositions(spec.position_rows, size, offset=0)
            case schema.Sinusoidal() as described:
                self.position = Sinusoidal(size, described)
            case kind if kind.added:  # the others act inside attention
                raise NotImplementedError(f"no rows to add for {kind}")
        types = architecture.token_types
        self.token_type = Table(types, size) if types else None
        self.norm = norm(spec, size) if architecture.normalization.embedding else None
        self.dropout = nn.Dropout(architecture.dropout.at("embeddings"))

    def place(self, rows: Tensor, positions: Tensor, token_types: Tensor | None) -> Tensor:
        """Rows of tokens (batch, length, size), positions (batch or 1, length) or, where a token has two, (batch or 1,
        2, length), token types (batch, length) or None for all zeros -> (batch, length, size)."""
        x = rows
        if self.token_type is not None:
            # BERT's release takes a missing segment for segment A, row 0.
            row = self.token_type.weight[0] if token_types is None else self.token_type(token_types)
            x = x + row
        if self.position is not None and self.block_position is not None:
            first, second = positions.unbind(dim=1)
            x = x + self.position(first) + self.block_position(second)
        elif self.position is not None:
            x = x + self.position(positions).to(x.dtype)
        if self.norm is not None:
            x = self.norm(x)
        dropped: Tensor = self.dropout(x)
        return dropped


class Embeddings(Placement):
    """token[id] + position[p] + token_type[t], those that the spec has (Devlin et al. 2018, section 3, figure 2).

    The token's row may be scaled first (Vaswani et al. 2017, section 3.4). Of factorised embeddings a matrix leads to
    the hidden size, behind all tables or behind that of the tokens alone (Lan et al. 2019, section 3.1).
    """

    def __init__(self, spec: schema.Spec) -> None:
        super().__init__(spec, Table(spec.vocab_size, spec.embedding_size))
        embeddings = spec.architecture.embeddings
        self.scaled_by = spec.hidden_size**0.5 if embeddings.scale == "sqrt-hidden-size" else 1.0
        self.projection: Linear | None = None
        self.projects: str = "none"
        match embeddings.width:
            case schema.FactorisedEmbedding(size=size, bias=bias, tables=tables):
                self.projection = Linear(size, spec.hidden_size, bias=bias)
                self.projects = tables

    def forward(
        self,
        token_ids: Tensor,
        positions: Tensor,
        token_types: Tensor | None,
        placement: Placement | None = None,
    ) -> Tensor:
        """Token ids (batch, length), positions and token types as in `place`, perhaps those of another stack -> (batch,
        length, hidden_size)."""
        x: Tensor = self.token(token_ids)
        x = x * self.scaled_by if self.scaled_by != 1.0 else x
        if self.projection is not None and self.projects == "token":
            x = self.projection(x)
        x = (placement or self).place(x, positions, token_types)
        if self.projection is not None and self.projects == "all":
            x = self.projection(x)
        return x


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
        factorised = spec.architecture.embeddings.width.projected
        self.projection = (
            Linear(spec.hidden_size, spec.embedding_size, bias=False) if factorised else None
        )
        self.output = VocabularyMatrix(spec, bias=head.bias)
        self.scale = 1.0 if head.input_scale == "none" else float(spec.hidden_size**-0.5)

    def forward(self, x: Tensor, token_table: Tensor) -> Tensor:
        """(batch, length, hidden_size) -> (batch, length, vocab_size)"""
        x = x if self.projection is None else self.projection(x)
        logits: Tensor = self.output(x * self.scale, token_table)
        return logits
