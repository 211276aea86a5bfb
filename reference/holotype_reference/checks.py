"""Checks of a model's inputs: errors say what was given, what was expected and how to mend it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from holotype_reference.cache import Cache
from holotype_reference.inputs import Call, check_ids
from holotype_reference.masks import Documents, Prefix
from holotype_spec import schema


def with_further(spec: schema.Spec, inputs: Call, further: Mapping[str, Any]) -> Call:
    """`inputs` with the arguments that few models take, and with the prefix that its cache began with.

    Args:
        further: by the names of `Inputs` and `Call`. A prefix may also be Python's numbers, one for each row or one
            for all, and `right_to_left` a bool.

    Raises:
        ValueError: what is given does not fit the spec or the other arguments.
    """
    others = dict(further)
    prefix, direction = others.pop("prefix", None), others.pop("right_to_left", None)
    lengths = prefix.tolist() if isinstance(prefix, Tensor) else prefix
    call = replace(
        inputs,
        visible_prefix=tuple(lengths) if isinstance(lengths, list) else lengths,
        backwards=direction is not None and direction is not False,
        **others,
    )
    check_given(spec, call)
    if call.cache is None:
        return call
    return replace(call, visible_prefix=call.cache.remember(call.visible_prefix))


def check_given(spec: schema.Spec, inputs: Call) -> None:
    """Raise ValueError unless what is given beside the token ids fits the spec and each other."""
    batch, length = inputs.token_ids.shape
    cache, documents, prefix = inputs.cache, inputs.documents, inputs.visible_prefix
    _check_cache(spec, batch, cache)
    expected = (batch, inputs.cached + length)
    _check_shape("attention_mask", inputs.attention_mask, "(batch, cached + length)", expected)
    _check_documents(spec, batch, length, cache, documents)
    _check_prefix(spec, batch, length, cache, documents, prefix)
    _check_direction(spec, prefix, inputs.backwards)
    if inputs.position_ids is not None:
        _check_positions(spec, batch, length, inputs.position_ids)
    _check_shape("token_types", inputs.token_types, "(batch, length)", (batch, length))
    if inputs.token_types is not None and not spec.segments:
        raise ValueError(f"token_types was given, but {spec.name} has no token types: leave it out")
    _check_source(spec, batch, inputs.source_ids, inputs.source_mask, cache)
    _check_order(spec, (batch, length), inputs.order, documents)


def _check_order(
    spec: schema.Spec,
    shape: tuple[int, int],
    order: Tensor | None,
    documents: Documents | None,
) -> None:
    if order is None:
        return
    if not spec.permuted:
        raise ValueError(f"order was given, but {spec.name} predicts in none: leave it out")
    if documents is not None:
        raise ValueError(
            "order was given with documents, each of which has one of its own: leave one out"
        )
    _check_shape("order", order, "(batch, length)", shape)
    places = torch.arange(shape[1], device=order.device).expand(shape)
    if not torch.equal(order.sort(dim=1).values, places.to(order.dtype)):
        raise ValueError(
            f"order must have each of the places 0 to {shape[1] - 1} once in every row, in any order"
        )


def _check_shape(name: str, given: Tensor | None, axes: str, expected: tuple[int, ...]) -> None:
    if given is not None and tuple(given.shape) != expected:
        raise ValueError(
            f"{name} must have the shape {axes} = {expected}, not {tuple(given.shape)}"
        )


def _check_documents(
    spec: schema.Spec, batch: int, length: int, cache: Cache | None, documents: Documents | None
) -> None:
    if documents is None:
        return
    if cache is not None or spec.architecture.structure == "encoder-decoder":
        raise ValueError(
            "packed documents are read whole, by a single stack: leave documents out with a cache and in an"
            " encoder-decoder"
        )
    if len(documents) not in (1, batch):
        raise ValueError(
            f"documents has lengths for {len(documents)} rows; expected one tuple of lengths for each of the {batch}"
            " rows of the batch, or a single one for all"
        )
    for lengths in documents:
        if sum(lengths) != length or min(lengths) < 1:
            raise ValueError(
                f"documents of the lengths {lengths} do not fill {length} tokens: every token belongs to one document"
            )


def _check_prefix(
    spec: schema.Spec,
    batch: int,
    length: int,
    cache: Cache | None,
    documents: Documents | None,
    prefix: Prefix | None,
) -> None:
    if prefix is None:
        return
    if not spec.has_prefix:
        raise ValueError(f"prefix was given, but {spec.name} has no visible prefix: leave it out")
    if documents is not None:
        raise ValueError(
            "packed documents have no prefix of their own here: leave prefix or documents out"
        )
    lengths = (prefix,) * batch if isinstance(prefix, int) else prefix
    if cache is not None and cache.length:
        held = (cache.prefix,) * batch if isinstance(cache.prefix, int) else cache.prefix
        if lengths != held:
            raise ValueError(
                f"the cache began with the prefix {cache.prefix}, and now it is {prefix}: the first call with a cache"
                " says how long the prefix is, and no later one changes it"
            )
        return
    if len(lengths) != batch or not all(0 <= each <= length for each in lengths):
        raise ValueError(
            f"prefix is {prefix}; expected a number of tokens between 0 and {length}, which are read at once, or one"
            f" for each of the {batch} rows of the batch"
        )


def _check_direction(spec: schema.Spec, prefix: Prefix | None, right_to_left: bool) -> None:
    if not right_to_left:
        return
    if not spec.mixture_of_masks:
        raise ValueError(
            f"right_to_left was given, but {spec.name} is not trained with a mixture of masks: leave it out"
        )
    if prefix is not None:
        raise ValueError("a batch has one mask: give either prefix or right_to_left")


def _check_positions(spec: schema.Spec, batch: int, length: int, position_ids: Tensor) -> None:
    if spec.distances_only:
        raise ValueError(
            f"position_ids was given, but {spec.name} knows distances only, counted from token "
            "to token: leave it out"
        )
    if spec.two_positions:
        rows = len(position_ids) if position_ids.dim() == 3 else batch
        expected: tuple[int, ...] = (1 if rows == 1 else batch, 2, length)
        _check_shape("position_ids", position_ids, "(batch or 1, 2, length)", expected)
        position_ids = position_ids[:, 0]
    rows, _ = check_ids("position_ids", position_ids)
    expected = (1 if rows == 1 else batch, length)
    _check_shape("position_ids", position_ids, "(batch or 1, length)", expected)


def _check_cache(spec: schema.Spec, batch: int, cache: Cache | None) -> None:
    if cache is None:
        return
    if spec.architecture.structure == "encoder":
        raise ValueError(
            f"{spec.name} is an encoder: its earlier tokens see the later ones, so that nothing of "
            "them can be kept; call it without a cache"
        )
    held = cache.layers[0].self_attention.keys
    if held is not None and held.shape[0] != batch:
        raise ValueError(f"the cache holds a batch of {held.shape[0]}, token_ids one of {batch}")


def _check_source(
    spec: schema.Spec,
    batch: int,
    source_ids: Tensor | None,
    source_mask: Tensor | None,
    cache: Cache | None,
) -> None:
    if spec.architecture.structure != "encoder-decoder":
        if source_ids is not None or source_mask is not None:
            raise ValueError(f"{spec.name} reads no source: leave source_ids and source_mask out")
        return
    held = None if cache is None else cache.source_ids
    read = held if source_ids is None else source_ids
    if read is None:
        raise ValueError(
            f"{spec.name} is an encoder-decoder: it needs source_ids, the encoder's input"
        )
    source_batch, length = check_ids("source_ids", read)
    if source_batch != batch:
        raise ValueError(f"source_ids is a batch of {source_batch}, token_ids one of {batch}")
    if spec.architecture.positions.trained and length > spec.max_positions:
        raise ValueError(
            f"{spec.name} has {spec.max_positions} learned positions, but source_ids has {length} tokens: shorten it"
        )
    _check_shape("source_mask", source_mask, "(batch, source length)", (batch, length))
    if held is not None and read is not held and not torch.equal(read, held):
        raise ValueError("the cache holds another source than source_ids: start with a new cache")
