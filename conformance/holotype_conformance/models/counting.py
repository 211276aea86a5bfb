"""The number of a model's parameters: by what they hold, not by the objects that hold it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from torch import Tensor, nn


def parameter_count(model: nn.Module) -> int:
    """The count of numbers to learn, those of tied tensors once."""
    return sum(parameter.numel() for _, parameter in distinct(model.named_parameters()))


def distinct(named: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
    """Each tensor once, by its first name: two that lie at one place are one, whatever loader made two of them."""
    seen = set()
    for name, tensor in named:
        place = _place(tensor)
        if place is None or place not in seen:
            seen.add(place)
            yield name, tensor


def _place(tensor: Tensor) -> tuple[object, ...] | None:
    """The memory of a tensor; None for one that has none, as on the meta device, or is empty."""
    try:
        start = tensor.data_ptr()
    except RuntimeError:  # a tensor of somebody else's that has no storage
        return None
    return (start, tuple(tensor.shape), tensor.stride(), tensor.device) if start else None
