"""The states of the random number generators that a candidate could draw from.

A candidate that is wrong at random is to be found out, and found out again by the line that reruns the case. So each
case has states of its own, drawn from what it is: another one for each case, the same whenever it is run. Building and
loading have theirs, so that it does not matter whether a model was there already.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b
from typing import Any

import numpy as np
import torch


def seed_of(*what: Any) -> int:
    """A seed that is drawn from `what` (by its text), from 0 to 2³² - 1; the same on every machine."""
    text = "\0".join(map(str, what)).encode()
    return int.from_bytes(blake2b(text, digest_size=4).digest(), "big")


def set_states(seed: int) -> None:
    """Put Python's, NumPy's and torch's global generators into the states that `seed` gives (0 to 2³² - 1)."""
    random.seed(seed)
    np.random.seed(seed)
    for generator in _generators():
        generator.manual_seed(seed)


@contextmanager
def random_states(seed: int) -> Iterator[None]:
    """The states that `seed` gives inside, and outside those that were there before."""
    python, numpy = random.getstate(), np.random.get_state()
    others = [(generator, generator.get_state()) for generator in _generators()]
    set_states(seed)
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        for generator, state in others:
            generator.set_state(state)


def _generators() -> list[torch.Generator]:
    """torch's, of the CPU and of each GPU in use; `torch.manual_seed` takes longer than a small model's call."""
    gpus = torch.cuda.default_generators if torch.cuda.is_initialized() else ()  # type: ignore[no-untyped-call]
    return [torch.default_generator, *gpus]
