"""Kernels, timed: the candidate, `scaled_dot_product_attention`, and the reference."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from holotype_conformance.bench.bench import Bench
from holotype_conformance.bench.protocol import Open, Prepared, Role
from holotype_conformance.bench.truth import demand_gradients, demand_result, visible
from holotype_conformance.bench.workloads import KernelWork
from holotype_conformance.judge.guard import candidate_code
from holotype_conformance.kernels.adapters.reference import ReferenceKernel
from holotype_conformance.kernels.candidate import Call, KernelCandidate
from holotype_conformance.kernels.cases import DTYPES
from holotype_conformance.kernels.returned import checked, checked_gradient
from holotype_conformance.kernels.subject import KernelSubject
from holotype_conformance.kernels.suite import KERNELS
from holotype_conformance.kernels.targets import resolve_kernel
from holotype_conformance.kernels.tolerance import stating
from holotype_conformance.run.session import check_device
from holotype_conformance.torch_tools.plain_tensor import plain_tensor


@dataclass(frozen=True, kw_only=True)
class KernelInputs:
    """One call, and the gradient that arrives at its result."""

    call: Call
    upstream: Tensor


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """A kernel, how it is told the mask of the work at hand, and whether its gradients are asked for by name."""

    kernel: KernelCandidate
    options: dict[str, Any]
    told: str
    by_grad: bool = False


class KernelBench(Bench[KernelWork, KernelInputs]):
    """A kernel, opened."""

    def __init__(self, ask: Open) -> None:
        super().__init__()
        self.kernel = resolve_kernel(ask.target)
        self.title = self.kernel.title
        self.seed = ask.seed
        check_device(ask.device)
        self.device = torch.device(ask.device)
        self.subject = KernelSubject(self.kernel, seed=ask.seed, device=ask.device)
        KERNELS.smoke(self.subject)
        self.reference = ReferenceKernel("fused")
        self.kernels: dict[Role, Kernel] = {}

    def prepare(self, work: KernelWork) -> Prepared:
        self.work = work
        self.seen = work.seen()
        lacks = self._lack(work)
        if lacks is not None:
            return Prepared(lacks=lacks)
        self.kernels = {
            "candidate": self._told(self.kernel, self.subject),
            "sdpa": Kernel(kernel=_Yardstick(), options=self._for_sdpa(), told=""),
            "reference": self._told(self.reference, KernelSubject(self.reference)),
        }
        self.try_out()
        least = work.least()
        return Prepared(
            told=self.kernels["candidate"].told,
            roles=("candidate", "sdpa", "reference"),
            flops=least.flops,
            bytes=least.bytes,
        )

    def _lack(self, work: KernelWork) -> str | None:
        """The reason why the candidate cannot do the work."""
        wanted = [work.dtype]
        wanted += ["gradients"] if work.part == "forward-backward" else []
        wanted += ["grouped-heads"] if work.heads != work.kv_heads else []
        for capability in wanted:
            if (reason := self.subject.capabilities[capability]) is not None:  # type: ignore[index]
                return reason
        if work.mask == "none" or self.subject.has(work.mask):
            return None
        return self.subject.capabilities["boolean-mask"]

    def _told(self, kernel: KernelCandidate, subject: KernelSubject) -> Kernel:
        """By arguments where the kernel takes them, else by a boolean matrix."""
        options = self._options(subject)
        names = {"": "nothing", "mask": "a boolean mask"}
        told = ", ".join(options)
        return Kernel(
            kernel=kernel, options=options, told=names.get(told, told), by_grad=subject.by_grad
        )

    def _options(self, subject: KernelSubject) -> dict[str, Any]:
        mask, sizes = self.work.mask, self.work.sizes
        if mask == "none":
            return {}
        if not subject.has(mask):
            return {"mask": self._matrix()}
        options: dict[str, Any] = {"causal": True}
        match mask:
            case "window":
                options["window"] = sizes[0]
            case "prefix":
                options["prefix"] = sizes[0]
            case "documents":
                options["documents"] = sizes
        return options

    def _for_sdpa(self) -> dict[str, Any]:
        match self.work.mask:
            case "none":
                return {}
            case "causal":
                return {"causal": True}
            case _:
                return {"mask": self._matrix()}

    def _matrix(self) -> Tensor:
        found = visible(self.seen, 0, self.work.length)[None, None]
        return torch.from_numpy(found).to(self.device)

    def draw(self, role: Role, number: int) -> KernelInputs:
        work = self.work
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + number)

        def tensor(heads: int, size: float) -> Tensor:
            shape = (work.batch, heads, work.length, work.head_dim)
            drawn = size * torch.randn(shape, generator=generator)
            return drawn.to(self.device, DTYPES[work.dtype])  # type: ignore[index]

        q, k, v = (tensor(work.heads, 1.3), tensor(work.kv_heads, 1.3), tensor(work.kv_heads, 1.0))
        upstream = tensor(work.heads, 1.0)
        if work.part == "forward-backward":
            for leaf in (q, k, v):
                leaf.requires_grad_()
        call = replace(Call(q=q, k=k, v=v), **self.kernels[role].options)
        return KernelInputs(call=call, upstream=upstream)

    def run(self, role: Role, inputs: KernelInputs) -> Any:
        call, kernel = inputs.call, self.kernels[role].kernel
        with candidate_code("attention"):
            if self.work.part == "forward":
                with torch.no_grad():
                    return kernel.call(call), None
            output = kernel.call(call)
            return output, self._gradients(role, call, output, inputs.upstream)

    def _gradients(
        self, role: Role, call: Call, output: Tensor, upstream: Tensor
    ) -> tuple[Tensor | None, ...]:
        """As training takes them, and as `KernelSubject.backwards` does: reentrant checkpoints refuse to be asked."""
        leaves = (call.q, call.k, call.v)
        if self.kernels[role].by_grad:
            return torch.autograd.grad(output, leaves, upstream, allow_unused=True)
        for leaf in leaves:
            leaf.grad = None
        output.backward(upstream)  # type: ignore[no-untyped-call]
        return tuple(leaf.grad for leaf in leaves)

    def verify(self, inputs: KernelInputs, result: Any) -> None:
        output, gradients = result
        call = inputs.call.with_tensors(Tensor.detach)
        rng = np.random.default_rng([self.seed, int(call.q.shape[2])])
        with stating(self.kernel.floor):
            demand_result(call, self.seen, checked(output, call).detach(), rng)
            if gradients is None:
                return
            known = tuple(
                checked_gradient(name, plain_tensor(each, f"the gradient by {name}"))
                for name, each in zip("qkv", gradients, strict=True)
            )
            demand_gradients(call, inputs.upstream, self.seen, known, rng)

    def given(self, inputs: KernelInputs) -> list[Tensor]:
        call = inputs.call
        mask = [] if call.mask is None else [call.mask]
        return [call.q, call.k, call.v, inputs.upstream, *mask]


class _Yardstick(KernelCandidate):
    """Code without a special kernel: key-value heads repeated, `is_causal`, or a dense boolean mask."""

    title = "scaled_dot_product_attention"

    def attention(  # type: ignore[override]
        self, q: Tensor, k: Tensor, v: Tensor, *, mask: Tensor | None = None, causal: bool = False
    ) -> Tensor:
        group = q.shape[1] // k.shape[1]
        if group > 1:
            k, v = (x.repeat_interleave(group, dim=1) for x in (k, v))
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)
