"""A mixture of masks: a model that reads each batch with one of several (Dong et al. 2019, UniLM, section 2.2)."""

from __future__ import annotations

from holotype_reference.masks import Band, Prefix
from holotype_spec import schema


def drawn(
    pattern: schema.Pattern, keys: int, prefix: Prefix | None, right_to_left: bool
) -> schema.Pattern | Band:
    """The pattern of one batch: of a mixture the mask that was chosen for it.

    All is seen; or each place sees itself and those behind it, which is a band that reaches to the last key; or itself
    and those before it and the prefix, which is the first of two segments: an empty one is left-to-right reading.
    """
    if not pattern.mixed:
        return pattern
    if right_to_left:
        return Band(before=0, after=keys)
    return schema.Bidirectional() if prefix is None else schema.Causal()
