"""Embeddings: from token ids to the first hidden states."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal, Self

import msgspec

from holotype_spec.schema.mechanism import Mechanism, Probing
from holotype_spec.schema.rows import Parameter, linear
from holotype_spec.schema.values import Count, Strict

NARROW = 22  # numbers in a row of a factorised embedding of a probe


class TableWidth(Mechanism):
    """Rows as wide as the residual stream."""

    projected: ClassVar[bool] = False  # a matrix leads from the tokens' rows to the hidden size

    def token_size(self, hidden_size: int) -> int:
        """Numbers in a row of the token table."""
        return hidden_size

    def added_size(self, hidden_size: int) -> int:
        """Numbers in a row of what is added to it, and in the norm of the sum."""
        return hidden_size

    def parameters(self, hidden_size: int) -> Iterator[Parameter]:
        """Rows of the table of parameters that lead from the embeddings to the hidden size."""
        yield from ()

    def head_parameters(self, hidden_size: int) -> Iterator[Parameter]:
        """Rows that lead back in front of the output matrix of a language model."""
        yield from ()


class HiddenSizeEmbedding(TableWidth, tag="hidden-size", tag_field="kind"):
    """Rows as wide as the residual stream (Vaswani et al. 2017, section 3.4)."""


class FactorisedEmbedding(TableWidth, tag="factorised", tag_field="kind"):
    """Rows of `size` numbers, and a matrix from there to hidden_size (Lan et al. 2019, section 3.1).

    `tables` says which have such rows. "all": those of positions and token types and the norm of the
    embeddings too, and the matrix comes last. "token": the matrix follows the lookup, all else has
    hidden_size. A head that shares the token table comes down to `size` first: the transform of a masked
    language model does it, a language-model head has a matrix of its own for that (Zhang et al. 2022: the
    OPT release, project_out).
    """

    size: Count
    bias: bool
    tables: Literal["all", "token"]

    projected: ClassVar[bool] = True

    def token_size(self, hidden_size: int) -> int:
        return self.size

    def added_size(self, hidden_size: int) -> int:
        return self.size if self.tables == "all" else hidden_size

    def parameters(self, hidden_size: int) -> Iterator[Parameter]:
        name, part = "embeddings.projection", "embedding projection"
        yield from linear(name, hidden_size, self.size, part, bias=self.bias, residual=True)

    def head_parameters(self, hidden_size: int) -> Iterator[Parameter]:
        yield from linear("head.projection", self.size, hidden_size, "head", bias=False)

    def probed(self, probing: Probing) -> Self:
        return msgspec.structs.replace(self, size=NARROW)


EmbeddingWidth = HiddenSizeEmbedding | FactorisedEmbedding


class Embeddings(Strict):
    """From token ids to the first hidden states.

    With `scale` the token's row is multiplied before anything is added (Vaswani et al. 2017, section 3.4).
    The two stacks of an encoder-decoder share the token table; tables of positions and the norm of the
    embeddings each has its own, that of token types the encoder alone.
    """

    width: EmbeddingWidth
    scale: Literal["sqrt-hidden-size", "none"]
