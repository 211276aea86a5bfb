"""The clock of the timed gates: CPU time of this process on the CPU, events on a GPU."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable

import torch


def seconds(work: Callable[[], None], device: torch.device) -> float:
    """The time that `work` takes, without the garbage collector.

    CPU time and not wall time: other processes hardly move it. It is that of all threads of this process.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        return _events(work) if device.type == "cuda" else _cpu(work)
    finally:
        if enabled:
            gc.enable()


def _cpu(work: Callable[[], None]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def _events(work: Callable[[], None]) -> float:
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    torch.cuda.synchronize()
    first.record()
    work()
    last.record()
    torch.cuda.synchronize()
    return float(first.elapsed_time(last)) / 1000
