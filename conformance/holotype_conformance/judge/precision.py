"""Settings of torch for the precision of its arithmetic: set explicitly around every check, never inherited.

A process may have been set to round the factors of float32 products (TensorFloat on GPUs, bfloat16 on some CPUs), or
to add half-precision products up in half precision. Measured under such settings a right candidate looks wrong, and
budgets measured under them are no budgets. torch has an older and a newer interface to these settings, and reading one
after the other was used may raise; the older one, which is used here, sets both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

# Half-precision sums: what `torch.backends.cuda.matmul` calls them.
_SUMS = ("allow_bf16_reduced_precision_reduction", "allow_fp16_reduced_precision_reduction")
# The newer interface, from torch 2.9 on, by backend and operation.
_NEWER = (("cuda", "matmul"), ("mkldnn", "matmul"))


@contextmanager
def arithmetic(*, rounded_products: bool = False) -> Iterator[None]:
    """Full precision inside: IEEE float32 products, half-precision products added up in float32, no convolution in
    TensorFloat. What was set before is set again afterwards, whatever the body has set.

    `rounded_products` lets float32 products be rounded as far as the machine likes: to TensorFloat on a GPU, to
    bfloat16 on a CPU that has instructions for it.
    """
    restore = _remembered()
    matmul = torch.backends.cuda.matmul
    torch.set_float32_matmul_precision("medium" if rounded_products else "highest")
    torch.backends.cudnn.allow_tf32 = rounded_products
    for name in _SUMS:
        setattr(matmul, name, False)
    try:
        yield
    finally:
        for each in restore:
            each()


def settings() -> dict[str, str]:
    """The settings of now, for reports; "mixed" where the newer interface has set what the older cannot say."""
    matmul = torch.backends.cuda.matmul
    return {
        "float32 products": _said(torch.get_float32_matmul_precision),
        "tf32 convolutions": _said(lambda: torch.backends.cudnn.allow_tf32),
        "bfloat16 sums reduced": _said(lambda: getattr(matmul, _SUMS[0])),
        "float16 sums reduced": _said(lambda: getattr(matmul, _SUMS[1])),
        "deterministic": str(torch.are_deterministic_algorithms_enabled()).lower(),
    }


def _said(read: Callable[[], Any]) -> str:
    try:
        return str(read()).lower()
    except RuntimeError:
        return "mixed"


def _remembered() -> list[Callable[[], None]]:
    """A function that sets everything again as it is now."""
    matmul = torch.backends.cuda.matmul
    found = [_setter(matmul, name, getattr(matmul, name)) for name in _SUMS]
    found.append(_read(torch.backends.cudnn, "allow_tf32"))
    try:
        products = torch.get_float32_matmul_precision()
    except RuntimeError:  # set through the newer interface to what the older has no word for
        found += [_read(_newer(*names), "fp32_precision") for names in _NEWER]
    else:
        found.append(lambda: torch.set_float32_matmul_precision(products))
    return found


def _newer(backend: str, operation: str) -> Any:
    return getattr(getattr(torch.backends, backend), operation)


def _read(holder: Any, name: str) -> Callable[[], None]:
    try:
        return _setter(holder, name, getattr(holder, name))
    except RuntimeError:
        return lambda: None


def _setter(holder: Any, name: str, value: Any) -> Callable[[], None]:
    return lambda: setattr(holder, name, value)
