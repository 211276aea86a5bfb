"""Exact counts of a piece of torch code: operators, FLOPs, allocated bytes and the peak of live bytes.

They come from the dispatcher, below autograd, so that a backward pass counts as the forward pass does. They do not
depend on the machine's load, and are bit-identical in every process. What an operator allocates for itself and frees
before it returns (the scratch of a fused kernel) is not seen, nor is anything that runs outside torch.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from holotype_conformance.bench.formulas import operator_flops


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """The cost of one run of some code.

    Attributes:
        operators: dispatched torch operators.
        flops: floating-point operations of the products, see `holotype_conformance.bench.formulas`.
        allocated: bytes of all storages that came into being.
        peak: the most bytes of these that were alive at one time; what was there before does not count.
    """

    operators: int
    flops: int
    allocated: int
    peak: int


class Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts what runs inside it.

    Storages are told apart, not tensors: a view, an alias or an in-place operation allocates nothing. A storage that
    grows in place counts for what it grew.
    """

    supports_higher_order_operators = True

    def __init__(self, known: Sequence[Tensor] = ()) -> None:
        """`known` are tensors that exist already, parameters and inputs: they are never counted."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.operators = self.flops = self.allocated = self.peak = self.live = 0
        self._sizes: dict[int, int] = {}
        self._finalizers: list[weakref.finalize[Any, Any]] = []
        self._known = [tensor.untyped_storage() for tensor in known]
        self._known_ids = {id(storage) for storage in self._known}

    @property
    def counts(self) -> Counts:
        """The counts so far."""
        return Counts(
            operators=self.operators,
            flops=self.flops,
            allocated=self.allocated,
            peak=self.peak,
        )

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        options = kwargs or {}
        for tensor in _tensors((args, options)):  # what was made before us, and is no news
            self._note(tensor, is_new=False)
        out = func(*args, **options)
        self.operators += 1
        self.flops += operator_flops(func, args, options, out)
        for tensor in _tensors((args, options, out)):  # arguments too: one may have been resized
            self._note(tensor, is_new=True)
        return out

    def _note(self, tensor: Tensor, *, is_new: bool) -> None:
        storage = tensor.untyped_storage()
        key = id(storage)
        if key in self._known_ids:
            return
        if not is_new and key not in self._sizes:
            self._known.append(storage)
            self._known_ids.add(key)
            return
        if key not in self._sizes:
            self._sizes[key] = 0
            self._finalizers.append(weakref.finalize(storage, self._freed, key))
        grown = storage.nbytes() - self._sizes[key]
        self._sizes[key] += grown
        self.allocated += max(grown, 0)
        self.live += grown
        self.peak = max(self.peak, self.live)

    def _freed(self, key: int) -> None:
        self.live -= self._sizes.pop(key, 0)

    def close(self) -> None:
        """Let go of every storage that is watched."""
        for finalizer in self._finalizers:
            finalizer.detach()
        self._known.clear()


def _tensors(tree: Any) -> Iterator[Tensor]:
    """The tensors in arguments or results whose memory can be told."""
    for leaf in tree_iter(tree):
        if isinstance(leaf, Tensor) and leaf.layout == torch.strided:
            yield leaf


def count(work: Callable[[], Any], *, known: Sequence[Tensor] = ()) -> Counts:
    """The cost of `work`; its result counts as alive to the end.

    Args:
        work: some torch code.
        known: tensors that it is given, which are not counted.
    """
    with _collected(), torch.random.fork_rng(devices=[]):
        counter = Counter(known)
        try:
            with counter:
                result = work()
            del result
            return counter.counts
        finally:
            counter.close()


@contextmanager
def _collected() -> Iterator[None]:
    """Without a garbage collector that frees at moments of its own."""
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
