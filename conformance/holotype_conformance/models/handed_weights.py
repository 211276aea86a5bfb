"""The weights that a candidate is handed: a copy of its own, and whether `load` has written into it.

The reference has the same weights, and must keep them: a port without norm biases whose loader sets the ones that it is
handed to zero would agree with a reference that reads them there. So each loader gets tensors of its own. One that
writes into them is told so: in its own program it would write into a checkpoint that others read.
"""

from __future__ import annotations

from contextlib import suppress

import torch
from torch import Tensor, nn

from holotype_conformance.judge.property import Violation
from holotype_reference.weights import Weights


class HandedWeights(Weights):
    """Weights in tensors that nobody else has."""

    def __init__(self, weights: Weights) -> None:
        super().__init__(weights.spec, {name: tensor.clone() for name, tensor in weights.items()})
        self._handed = dict(self)  # a loader may take entries out of the dictionary
        self._published: list[tuple[str, Tensor, int]] = []

    def published(self) -> dict[str, Tensor]:
        """The same weights under the names and in the layouts of the published checkpoint."""
        found = super().published()
        self._published += [(name, each, each._version) for name, each in found.items()]
        return found

    def written(self, weights: Weights) -> list[tuple[str, Tensor]]:
        """The tensors that no longer hold what `weights`, of which this is a copy, hold."""
        changed = [
            (name, each)
            for name, each in self._handed.items()
            if not torch.equal(each.detach(), weights[name])
        ]
        return changed + [
            (name, each) for name, each, version in self._published if each._version != version
        ]


def demand_unwritten(handed: HandedWeights, weights: Weights, model: nn.Module) -> None:
    """Demand that `load` has left the weights that it was handed as they were.

    A tensor that the model has kept (``load_state_dict(…, assign=True)``) is its parameter, to do with what it likes.

    Raises:
        Violation: it has written into some.
    """
    written = handed.written(weights)
    if not written:
        return
    kept = _storages(model)
    names = [name for name, each in written if each.untyped_storage().data_ptr() not in kept]
    if names:
        more = f" ({len(names)} such)" if len(names) > 1 else ""
        raise Violation(
            f"load wrote into the weights that it was handed, into {names[0]}{more}; expected them to be read only:"
            " they are the caller's checkpoint, so that what is to be changed is to be copied first (clone())",
            tensors=names[:5],
        )


def _storages(model: nn.Module) -> set[int]:
    """The memory in which the tensors of the model lie."""
    found = set()
    for each in (*model.parameters(), *model.buffers()):
        with suppress(RuntimeError, NotImplementedError):  # some kinds of tensors lie nowhere
            found.add(each.untyped_storage().data_ptr())
    return found
