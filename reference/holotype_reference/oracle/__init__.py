"""The oracle: every model a second time, in NumPy float64, straight from the papers' formulas.

It is slow, plain and shares no code with the torch models, so that the two can be wrong together
only where a paper was misread twice. Symbols, as in Vaswani et al. 2017 unless said otherwise:

==============  ==================  ===========================================================
here            paper               is
==============  ==================  ===========================================================
hidden_size     d_model             width of the residual stream ``x`` (batch, length, hidden_size)
head_dim        d_k = d_v           width of one attention head
ffn_size        d_ff                inner width of the feed-forward block
heads           h                   query heads; `kv_heads` of them have their own keys and values
eps             ε                   what a norm adds to the variance before the square root
==============  ==================  ===========================================================

Matrices are (outputs, inputs): a linear map is x Wᵀ + b. There is no dropout. One file holds
one mechanism; `model` puts them together.
"""

from __future__ import annotations

from holotype_reference.oracle.model import OracleOutput, logits
from holotype_reference.oracle.positions import alibi_slopes, bucket

__all__ = ["OracleOutput", "alibi_slopes", "bucket", "logits"]
