"""The receptive field of each output: exact boolean matrices of the outputs and inputs of the whole model.

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

from holotype_spec.schema import Bidirectional, Pattern, Spec

Matrix = npt.NDArray[np.bool_]
Mask = Sequence[int] | npt.NDArray[np.generic]


def layer_mask(
    pattern: Pattern,
    length: int,
    *,
    attention_mask: Mask | None = None,
    prefix: int | None = None,
    right_to_left: bool = False,
) -> Matrix:
    """The mask of one layer of self-attention: (length, length), [query, key], true where the query sees the key.

    Args:
        pattern: the attention pattern of the stack.
        length: of the sequence, padding included.
        attention_mask: (length,) 1 for a real token and 0 for padding; all real if None.
        prefix: the first so many places are seen by all, of a pattern that has a prefix: by default none of a causal
            one, and of a mixture of masks every place.
        right_to_left: of a mixture, the mask in which each position sees itself and those after it.

    Raises:
        ValueError: a mask of another length, or with other values than 0 and 1; a prefix that the pattern does not
            have, or the direction of a mixture for another pattern.
    """
    _check_choice(pattern, length, prefix, right_to_left)
    runs = [
        pattern.keys_seen(query, length, prefix=prefix, right_to_left=right_to_left)
        for query in range(length)
    ]
    first, behind = np.array(runs, dtype=np.int64).reshape(length, 2).T
    key = np.arange(length)
    seen = (key >= first[:, None]) & (key < behind[:, None])
    return seen & _real(attention_mask, length)


def _check_choice(pattern: Pattern, length: int, prefix: int | None, right_to_left: bool) -> None:
    kind = type(pattern).__struct_config__.tag
    if prefix is not None and not pattern.has_prefix:
        raise ValueError(f"a {kind} pattern has no prefix: leave prefix={prefix} out")
    if prefix is not None and not 0 <= prefix <= length:
        raise ValueError(f"the prefix is {prefix} of {length} tokens; expected 0 to {length}")
    if right_to_left and (not pattern.mixed or prefix is not None):
        raise ValueError(
            f"right_to_left is one of the masks of a mixture, and has no prefix: leave it out of a {kind} pattern,"
            " and the prefix with it"
        )


def dependencies(
    spec: Spec,
    length: int,
    *,
    attention_mask: Mask | None = None,
    prefix: int | None = None,
    right_to_left: bool = False,
) -> Matrix:
    """(length, length): [i, j] is true where the logits of row i may depend on token j.

    The rows and tokens are those of the stack that writes the logits: of an encoder-decoder, the decoder's
    (its source is `source_dependencies`). The next-sentence output of a BERT reads row 0.

    Args:
        spec: the model.
        length: of the sequence, padding included.
        attention_mask: (length,) 1 for a real token and 0 for padding; all real if None.
        prefix, right_to_left: which mask of several it is; see `layer_mask`.

    Raises:
        ValueError: as `layer_mask`.
    """
    seen = layer_mask(
        spec.architecture.attention.pattern,
        length,
        attention_mask=attention_mask,
        prefix=prefix,
        right_to_left=right_to_left,
    )
    reached = _through(seen, spec.layers)
    return _no_claim_on_padding(reached, attention_mask)


def dependents(
    spec: Spec,
    position: int,
    length: int,
    *,
    attention_mask: Mask | None = None,
    prefix: int | None = None,
    right_to_left: bool = False,
) -> Matrix:
    """(length,): [i] is true where the logits of row i may depend on the token at `position`.

    One column of `dependencies`, at a cost that grows with the square of the length instead of its cube.

    Args:
        spec: the model.
        position: of the token, from 0.
        length, attention_mask, prefix, right_to_left: see `dependencies`.

    Raises:
        ValueError: as `layer_mask`.
    """
    seen = layer_mask(
        spec.architecture.attention.pattern,
        length,
        attention_mask=attention_mask,
        prefix=prefix,
        right_to_left=right_to_left,
    )
    reached = np.arange(length) == position
    for _ in range(spec.layers):
        reached = reached | seen[:, reached].any(axis=1)
    rows: Matrix = reached[:, None]
    return _no_claim_on_padding(rows, attention_mask)[:, 0]


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
    seen = layer_mask(Bidirectional(), source_length, attention_mask=source_mask)
    encoded = _through(seen, spec.encoder_depth)
    crossed = np.broadcast_to(_real(source_mask, source_length), (length, source_length))
    read = _product(crossed, encoded)
    layer = _with_residual(
        layer_mask(spec.architecture.attention.pattern, length, attention_mask=attention_mask)
    )
    reached = np.zeros((length, source_length), dtype=bool)
    for _ in range(spec.layers):
        reached = _product(layer, reached) | read
    return _no_claim_on_padding(reached, attention_mask)


def _through(seen: Matrix, layers: int) -> Matrix:
    """The whole stack: the boolean power of one layer, because all its layers see alike."""
    layer = _with_residual(seen)
    reached: Matrix = np.eye(len(seen), dtype=bool)
    for _ in range(layers):
        further = _product(layer, reached)
        if np.array_equal(further, reached):  # no later layer reaches further either
            break
        reached = further
    return reached


def _with_residual(seen: Matrix) -> Matrix:
    return seen | np.eye(len(seen), dtype=bool)


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
