"""Token ids to vectors: the sum of one row from each table, perhaps a norm, then dropout."""

from __future__ import annotations

from torch import Tensor, nn

from holotype_reference.linear import Table
from holotype_reference.normalization import norm
from holotype_reference.positions import LearnedPositions
from holotype_spec import schema


class Embeddings(nn.Module):
    """token[id] + position[p] + token_type[t], those that the spec has (Devlin et al. 2018, section 3, figure 2)."""

    def __init__(self, spec: schema.Spec) -> None:
        super().__init__()
        architecture, d = spec.architecture, spec.hidden_size
        self.token = Table(spec.vocab_size, d)
        self.position: LearnedPositions | None = None
        match architecture.positions:
            case schema.LearnedPositions(offset=offset):
                self.position = LearnedPositions(spec.max_positions, d, offset=offset)
            case _:
                pass  # the others act inside attention
        self.token_type = Table(architecture.token_types, d) if architecture.token_types else None
        self.norm = norm(spec) if architecture.normalization.embedding else None
        self.dropout = nn.Dropout(architecture.dropout.at("embeddings"))

    def forward(self, token_ids: Tensor, positions: Tensor, token_types: Tensor | None) -> Tensor:
        """Token ids (batch, length), positions (batch or 1, length), token types (batch, length) or None for all
        zeros -> (batch, length, hidden_size)."""
        x: Tensor = self.token(token_ids)
        if self.token_type is not None:
            # BERT's release takes a missing segment for segment A, row 0.
            row = self.token_type.weight[0] if token_types is None else self.token_type(token_types)
            x = x + row
        if self.position is not None:
            x = x + self.position(positions)
        if self.norm is not None:
            x = self.norm(x)
        dropped: Tensor = self.dropout(x)
        return dropped
