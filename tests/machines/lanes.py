"""Does a number that torch computes depend on the numbers beside it? Exit code 1, and which, if so.

Processors compute several numbers at once. A function that takes another way where one of them is large would let the
tokens of a batch know of each other by a last bit, and where it does, bits may not be demanded of causality.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor


def of_sizes(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """The function of how large a number is."""
    return lambda x: function(x.abs())


FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    **{
        name: getattr(torch, name)
        for name in ("erf", "erfc", "exp", "exp2", "expm1", "tanh", "sin", "cos", "tan", "sigmoid")
    },
    **{
        name: getattr(F, name)
        for name in ("gelu", "silu", "softplus", "mish", "elu", "selu", "logsigmoid", "hardswish")
    },
    **{
        f"{name} of a size": of_sizes(getattr(torch, name))
        for name in ("log", "log2", "log1p", "sqrt", "rsqrt")
    },
    "gelu by tanh": lambda x: F.gelu(x, approximate="tanh"),
    "power": lambda x: x.abs().pow(0.37),
    "quotient": lambda x: 1.7 / x,
    "soft-cap": lambda x: 30 * torch.tanh(x / 30),
}
DTYPES = (torch.float64, torch.float32, torch.bfloat16)
LENGTHS = (5, 32, 67, 1000)
SIZES = (0.1, 1.0, 3.0, 10.0, 100.0)
BESIDE = (*SIZES, 1e5, 1e9)


def coupled(function: Callable[[Tensor], Tensor], dtype: torch.dtype) -> float:
    """How far results move, relative to themselves, when only the numbers beside theirs change."""
    worst = 0.0
    for length in LENGTHS:
        for size in SIZES:
            for beside in BESIDE:
                x = (size * torch.randn(length, dtype=torch.float64)).to(dtype)
                others = torch.rand(length) < 0.5
                y = torch.where(others, (beside * torch.randn(length)).to(dtype), x)
                one, other = function(x)[~others].double(), function(y)[~others].double()
                apart = ((one - other) / one)[(one != other) & one.isfinite()]
                worst = max(worst, *apart.abs().tolist(), 0.0)
    return worst


def findings() -> Iterator[str]:
    """One line for each function and dtype of which it does."""
    torch.manual_seed(0)
    for name, function in FUNCTIONS.items():
        for dtype in DTYPES:
            if found := coupled(function, dtype):
                yield f"{name} in {dtype} moves by {found:.1e} with what stands beside it"


if __name__ == "__main__":
    lines = list(findings())
    print(
        f"{torch.backends.cpu.get_cpu_capability()}:",
        *(lines or ["nothing is coupled"]),
        sep="\n  ",
    )
    sys.exit(bool(lines))
