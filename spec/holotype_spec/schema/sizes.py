"""The numbers that tell the members of a family apart."""

from __future__ import annotations

from typing import Literal

from holotype_spec.schema.family import PublishedCount
from holotype_spec.schema.values import Count, Name, Strict


class Sizes(Strict):
    """The sizes of one member of a family."""

    name: Name
    layers: Count
    hidden_size: Count
    heads: Count
    kv_heads: Count
    head_dim: Count
    ffn_size: Count
    vocab_size: Count
    max_positions: Count
    parameters: PublishedCount | Literal["none"]


# The numbers among them, as people list them.
SIZES = tuple(field for field in Sizes.__struct_fields__ if field not in ("name", "parameters"))
