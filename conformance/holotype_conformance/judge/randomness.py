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

# NumPy takes longer to copy a state than a small model to run. So its global generator is changed for one of these,
# and its state is copied only where it is somebody else's.
_SPARE: list[np.random.MT19937] = []
_OURS: set[int] = set()  # their identities; they are never let go


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
    python = random.getstate()
    others = [(generator, generator.get_state()) for generator in _generators()]
    with _another_generator_of_numpy():
        set_states(seed)
        try:
            yield
        finally:
            random.setstate(python)
            for generator, state in others:
                generator.set_state(state)


@contextmanager
def _another_generator_of_numpy() -> Iterator[None]:
    before = np.random.get_bit_generator()  # type: ignore[attr-defined]  # NumPy's stubs leave it out
    state = None if id(before) in _OURS else np.random.get_state()
    ours = _SPARE.pop() if _SPARE else np.random.MT19937(0)
    _OURS.add(id(ours))
    np.random.set_bit_generator(ours)  # type: ignore[attr-defined]
    try:
        yield
    finally:
        np.random.set_bit_generator(before)  # type: ignore[attr-defined]
        if state is not None:
            np.random.set_state(
                state
            )  # with the half of a pair of normal numbers that waits to be drawn
        _SPARE.append(ours)


def _generators() -> list[torch.Generator]:
    """torch's, of the CPU and of each GPU in use; `torch.manual_seed` takes longer than a small model's call."""
    gpus = torch.cuda.default_generators if torch.cuda.is_initialized() else ()  # type: ignore[no-untyped-call]
    return [torch.default_generator, *gpus]
