"""Which output may depend on which input: the exact boolean matrices of the whole model.

A layer lets row i read the rows that its mask shows, and the residual stream lets it keep its own; the model
composes its layers, so its matrix is the boolean product of theirs. This is the statement of causality that
the suite checks both ways: where the matrix is false nothing may ever pass, where it is true something must.

Rows and columns go by the place in the sequence; position ids do not matter. A column of padding is false in
every real row. What a row of padding holds is nobody's business: its row here is true throughout, which
forbids nothing, and a reader must not require anything of it either.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from holotype_spec.schema import (
    AlternatingBanded,
    Bidirectional,
    Causal,
    MixtureOfMasks,
    Pattern,
    Permutation,
    PrefixCausal,
    SlidingWindow,
    Spec,
)

Matrix = npt.NDArray[np.bool_]
Mask = Sequence[int] | npt.NDArray[np.generic]


def layer_mask(pattern: Pattern, length: int, *, attention_mask: Mask | None = None) -> Matrix:
    """What one layer of self-attention lets each row see: (length, length), [query, key].

    Args:
        pattern: the attention pattern of the stack.
        length: of the sequence, padding included.
        attention_mask: (length,) 1 for a real token and 0 for padding; all real if None.

    Raises:
        ValueError: a mask of another length, or with other values than 0 and 1.
    """
    query, key = np.arange(length)[:, None], np.arange(length)[None, :]
    match pattern:
        # Without an order of prediction, or a mask drawn, every position may be seen.
        case Bidirectional() | Permutation() | MixtureOfMasks():
            seen = np.ones((length, length), dtype=bool)
        # The empty prefix; and a band beside a dense layer hides nothing.
        case Causal() | PrefixCausal() | AlternatingBanded():
            seen = key <= query
        case SlidingWindow(window=window):
            seen = (key <= query) & (key > query - window)
    return seen & _real(attention_mask, length)


def dependencies(spec: Spec, length: int, *, attention_mask: Mask | None = None) -> Matrix:
    """(length, length): [i, j] is true where the logits of row i may depend on token j.

    The rows and tokens are those of the stack that writes the logits: of an encoder-decoder, the decoder's
    (its source is `source_dependencies`). The next-sentence output of a BERT reads row 0.

    Args:
        spec: the model.
        length: of the sequence, padding included.
        attention_mask: (length,) 1 for a real token and 0 for padding; all real if None.

    Raises:
        ValueError: a mask of another length, or with other values than 0 and 1.
    """
    pattern = spec.architecture.attention.pattern
    reached = _through(pattern, length, attention_mask, spec.layers)
    return _no_claim_on_padding(reached, attention_mask)


def source_dependencies(
    spec: Spec,
    length: int,
    source_length: int,
    *,
    attention_mask: Mask | None = None,
    source_mask: Mask | None = None,
) -> Matrix:
    """(length, source_length): [i, j] is true where the logits of target row i may depend on source token j.

    Args:
        spec: an encoder-decoder.
        length: of the target, padding included.
        source_length: of the source, padding included.
        attention_mask: (length,) of the target: 1 for a real token and 0 for padding.
        source_mask: (source_length,) the same of the source.

    Raises:
        ValueError: the model has no encoder beside its decoder, or a mask does not fit.
    """
    if spec.architecture.structure != "encoder-decoder":
        raise ValueError(f"{spec.name} is no encoder-decoder: it reads no source")
    encoded = _through(Bidirectional(), source_length, source_mask, spec.encoder_depth)
    crossed = np.broadcast_to(_real(source_mask, source_length), (length, source_length))
    read = _product(crossed, encoded)
    layer = _layer(spec.architecture.attention.pattern, length, attention_mask)
    reached = np.zeros((length, source_length), dtype=bool)
    for _ in range(spec.layers):
        reached = _product(layer, reached) | read
    return _no_claim_on_padding(reached, attention_mask)


def _through(pattern: Pattern, length: int, mask: Mask | None, layers: int) -> Matrix:
    """The whole stack: the boolean power of one layer, because all its layers see alike."""
    layer = _layer(pattern, length, mask)
    reached: Matrix = np.eye(length, dtype=bool)
    for _ in range(layers):
        further = _product(layer, reached)
        if np.array_equal(further, reached):  # no later layer reaches further either
            break
        reached = further
    return reached


def _layer(pattern: Pattern, length: int, mask: Mask | None) -> Matrix:
    residual = np.eye(length, dtype=bool)
    return layer_mask(pattern, length, attention_mask=mask) | residual


def _product(left: Matrix, right: Matrix) -> Matrix:
    # Through floats, because NumPy multiplies boolean matrices without BLAS; sums stay far below 2**24.
    product: Matrix = left.astype(np.float32) @ right.astype(np.float32) > 0
    return product


def _real(mask: Mask | None, length: int) -> Matrix:
    if mask is None:
        return np.ones(length, dtype=bool)
    values = np.asarray(mask)
    if values.shape != (length,):
        raise ValueError(
            f"the mask has shape {values.shape}; expected one entry a token: ({length},)"
        )
    if not np.isin(values, (0, 1)).all():
        raise ValueError("the mask has other values than 1 (a real token) and 0 (padding)")
    return values.astype(bool)


def _no_claim_on_padding(reached: Matrix, mask: Mask | None) -> Matrix:
    return reached | ~_real(mask, len(reached))[:, None]
