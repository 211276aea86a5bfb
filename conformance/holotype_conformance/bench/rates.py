"""The roofline: what this process gets out of this machine just now (Williams et al. 2009, "Roofline").

Two measured rates: FLOP/s of a large matrix product, and bytes/s of a copy or of a matrix times a vector, whichever is
faster, over as many bytes as the work moves, so that what fits in a cache is held against the cache. Each is the best
of several: a limit is wanted, not an average.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from holotype_conformance.bench.clock import seconds
from holotype_conformance.bench.protocol import Rated

SIDE = {"cpu": 1024, "cuda": 8192}  # of the matrices
TRIES = 8
SMALLEST, LARGEST = 1 << 16, 1 << 28  # bytes of a copy
ENOUGH = 1 << 24  # bytes that one try moves at the least, so that the clock can tell
_WIDTH = 1024


class Rates:
    """Those of one process, each measured once, or again where something beat it: the faster counts."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.products: dict[str, float] = {}
        self.memory: dict[int, float] = {}

    def rated(self, dtype: str, size: int, *, again: bool = False) -> Rated:
        """The rates for products in `dtype` and for work that moves `size` bytes."""
        near = 1 << max(size, 1).bit_length()
        if again or dtype not in self.products:
            found = product_rate(getattr(torch, dtype), self.device)
            self.products[dtype] = max(found, self.products.get(dtype, 0.0))
        if again or near not in self.memory:
            found = memory_rate(near, self.device)
            self.memory[near] = max(found, self.memory.get(near, 0.0))
        return Rated(flops=self.products[dtype], bytes=self.memory[near])


def product_rate(dtype: torch.dtype, device: torch.device) -> float:
    """FLOP/s of a matrix product. TensorFloat is off where it can be: the reference does not use it either."""
    side = SIDE.get(device.type, SIDE["cuda"])
    a, b = (torch.randn(side, side, dtype=dtype, device=device) for _ in range(2))
    out = torch.empty_like(a)
    return 2 * side**3 / _best(lambda: torch.mm(a, b, out=out), device)


def memory_rate(size: int, device: torch.device) -> float:
    """Bytes/s, read and written, of work that moves `size` bytes in all."""
    size = min(max(size, SMALLEST), LARGEST)
    times = -(-ENOUGH // size)
    source = torch.ones(size // 8, device=device)
    target = torch.empty_like(source)
    copied = 2 * source.nbytes * times / _best(partial(_copy, source, target, times), device)
    matrix = torch.ones(max(size // 4 // _WIDTH, 1), _WIDTH, device=device)
    vector = torch.ones(_WIDTH, device=device)
    read = matrix.nbytes * times / _best(partial(_multiply, matrix, vector, times), device)
    return max(copied, read)


def _copy(source: Tensor, target: Tensor, times: int) -> None:
    for _ in range(times):
        target.copy_(source)


def _multiply(matrix: Tensor, vector: Tensor, times: int) -> None:
    for _ in range(times):
        torch.mv(matrix, vector)


def _best(work: Callable[[], object], device: torch.device) -> float:
    def run() -> None:
        work()

    run()
    return min(seconds(run, device) for _ in range(TRIES))
