"""How token ids become the first hidden states."""

from __future__ import annotations

from typing import Literal

from holotype_spec.schema.values import Count, Strict


class HiddenSizeEmbedding(Strict, tag="hidden-size", tag_field="kind"):
    """Rows as wide as the residual stream (Vaswani et al. 2017, section 3.4)."""


class FactorisedEmbedding(Strict, tag="factorised", tag_field="kind"):
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


EmbeddingWidth = HiddenSizeEmbedding | FactorisedEmbedding


class Embeddings(Strict):
    """How token ids become the first hidden states.

    With `scale` the token's row is multiplied before anything is added (Vaswani et al. 2017, section 3.4).
    The two stacks of an encoder-decoder share the token table; tables of positions and the norm of the
    embeddings each has its own, that of token types the encoder alone.
    """

    width: EmbeddingWidth
    scale: Literal["sqrt-hidden-size", "none"]
