"""Hardware of this machine beside one thread of its CPU: GPUs, attention kernels, a compiler."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch
from torch.nn.attention import SDPBackend

from holotype_conformance.judge.property import Skip, Violation

# The kernels of `scaled_dot_product_attention`. The plain one comes first: it runs everywhere.
BACK_ENDS = {
    "math": SDPBackend.MATH,
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
}
# What torch says where a back end does not serve a call.
NO_KERNEL = re.compile("No (available kernel|viable backend)")
CPU = torch.device("cpu")
COMPILERS = ("TORCHINDUCTOR_", "TRITON_")  # what their variables begin with


def cuda_device(asked: torch.device = CPU) -> torch.device:
    """The CUDA device to compare the CPU with: the one that was asked for, else the first.

    Raises:
        Skip: there is none.
    """
    if asked.type == "cuda":
        return asked
    lack = cuda_lack()
    if lack is not None:
        raise Skip(f"no CUDA device: {lack}")
    return torch.device("cuda", 0)


def cuda_lack() -> str | None:
    """The reason why there is no CUDA device, or None."""
    if torch.version.cuda is None:
        return f"torch {torch.__version__} was built without CUDA"
    return None if torch.cuda.is_available() else "torch finds no driver or no GPU"


@contextmanager
def threads(number: int) -> Iterator[None]:
    """Let torch use so many threads inside."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@cache
def compiler_lack() -> str | None:
    """The reason why `torch.compile` makes no machine code here, or None. The first call takes seconds, to compile."""
    torch._dynamo.reset()
    try:
        with serial_compiler(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.compile(lambda x: x.sin() + 1.0)(torch.ones(3))
    except Exception as error:
        return " ".join(str(error).split())[:200] or type(error).__name__
    return None


@contextmanager
def serial_compiler() -> Iterator[None]:
    """Compile in this process: a pool of compilers would outlive what is judged. No variable that it sets stays."""
    from torch._inductor import config

    before = _compilers_own()
    try:
        with config.patch(compile_threads=1):
            yield
    finally:
        for name in _compilers_own().keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)


@contextmanager
def fresh_compiler() -> Iterator[None]:
    """Nothing that was compiled before is used, or kept."""
    torch._dynamo.reset()
    try:
        with serial_compiler():
            yield
    finally:
        torch._dynamo.reset()


def _compilers_own() -> dict[str, str]:
    """The environment variables by which torch's compiler remembers where it keeps what."""
    return {name: value for name, value in os.environ.items() if name.startswith(COMPILERS)}


@contextmanager
def compilable() -> Iterator[None]:
    """Errors of the compiler are no fault of the candidate.

    Raises:
        Skip: it does.
    """
    from torch._dynamo.exc import TorchDynamoException

    try:
        yield
    except Violation as violation:
        if not isinstance(violation.__cause__, TorchDynamoException):
            raise
        said = " ".join(str(violation.__cause__).split())[:120]
        raise Skip(f"torch.compile cannot compile it: {said}") from violation
