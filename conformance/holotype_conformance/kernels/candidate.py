"""The kernel under test: what an attention function is given and promises.

The least is a function::

    def attention(q, k, v, *, mask=None, causal=False, window=None, scale=None): ...

    q       (batch, heads, queries, head_dim)
    k, v    (batch, kv_heads, keys, head_dim); kv_heads divides heads, and neighbouring query heads share
    mask    broadcastable to (batch, heads, queries, keys): boolean, true where a query may see a key, or of q's
            dtype, added to the scores
    causal  query i sees key j if j <= i + keys - queries: the last query stands at the last key
    window  with causal the last `window` keys up to that diagonal, itself among them; without causal all keys less
            than `window` away from it, on both sides
    prefix  with causal: every query also sees the first `prefix` keys; a tuple has one number for each row of the batch
    documents  with causal: the lengths, a tuple, of documents that lie one after the other in the keys; a query sees
            those of its own only. A tuple of such tuples has one for each row of the batch
    scale   of the products of queries and keys; None for 1/√head_dim
    returns (batch, heads, queries, head_dim), of q's dtype, on q's device

`prefix` and `documents` are for kernels that skip what is hidden: others are passed the same as a boolean mask.
Several of mask, causal and window given together hide whatever one of them hides. A parameter that the function does
not take by name is a capability that it lacks; what is refused at the plainest of shapes is one too. Lacks are skipped,
with the reason. For another layout, other names, or limits of sizes and of precision, write a `KernelCandidate`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from einops import rearrange
from torch import Tensor

from holotype_conformance.judge.declaring import Floor
from holotype_conformance.kernels.sizes import Axis, Sizes

KernelCapability = Literal[
    "boolean-mask",
    "additive-mask",
    "causal",
    "window",
    "band",
    "prefix",
    "prefix-rows",
    "documents",
    "documents-rows",
    "masks-together",
    "scale",
    "grouped-heads",
    "gradients",
    "unequal-lengths",
    "batches",
    "unmasked",
    "any-length",
    "any-head-dim",
    "float64",
    "float32",
    "bfloat16",
    "float16",
]

# What follows from `sizes` and `required`, and is never declared itself.
DERIVED: tuple[KernelCapability, ...] = ("unmasked", "any-length", "any-head-dim")
# The parameter without which a function cannot have a capability.
PARAMETERS: Mapping[KernelCapability, tuple[str, ...]] = {
    "boolean-mask": ("mask",),
    "additive-mask": ("mask",),
    "causal": ("causal",),
    "window": ("causal", "window"),
    "band": ("window",),
    "prefix": ("causal", "prefix"),
    "prefix-rows": ("causal", "prefix"),
    "documents": ("causal", "documents"),
    "documents-rows": ("causal", "documents"),
    "masks-together": ("mask", "causal"),
    "scale": ("scale",),
}
# What other libraries call them. They may mean it otherwise (a diagonal at the upper left, a window of two numbers, a
# mask that is true for what is hidden), so that it is for an adapter to say.
ELSEWHERE: Mapping[str, tuple[str, ...]] = {
    "mask": ("attn_mask", "attention_mask", "attn_bias", "bias", "block_mask", "key_padding_mask"),
    "causal": ("is_causal",),
    "window": ("window_size", "sliding_window", "local_window_size"),
    "documents": ("cu_seqlens", "cu_seqlens_q", "document_ids", "segment_ids"),
    "scale": ("softmax_scale", "sm_scale", "scaling"),
}
# Parameters that a kernel may want in every call.
Required = Literal["causal", "window"]
Prefix = int | tuple[int, ...]
Lengths = tuple[int, ...]
Documents = Lengths | tuple[Lengths, ...]
LAYOUT = "batch heads length head_dim"


@dataclass(frozen=True, kw_only=True)
class Call:
    """The arguments of one call, in the layout above."""

    q: Tensor
    k: Tensor
    v: Tensor
    mask: Tensor | None = None
    causal: bool = False
    window: int | None = None
    prefix: Prefix | None = None
    documents: Documents | None = None
    scale: float | None = None

    def options(self) -> dict[str, Any]:
        """Those that are not the default: a function need not take what is not asked for."""
        options = {
            "mask": self.mask,
            "window": self.window,
            "prefix": self.prefix,
            "documents": self.documents,
            "scale": self.scale,
        }
        given = {name: value for name, value in options.items() if value is not None}
        return given | ({"causal": True} if self.causal else {})

    def with_tensors(self, change: Callable[[Tensor], Tensor]) -> Call:
        """The same call on changed tensors."""
        mask = None if self.mask is None else change(self.mask)
        return replace(self, q=change(self.q), k=change(self.k), v=change(self.v), mask=mask)


class KernelCandidate:
    """An attention kernel under test. Override `attention`, and say its layout if it is another.

    Attributes:
        title: what reports call it.
        layout: the order of the axes in which `attention` takes q, k and v and returns its result, an einops pattern
            of batch, heads, length and head_dim. Masks stay (batch, heads, queries, keys).
        absent: capabilities that it looks as if it had but has not, with the reason.
        sizes: which sizes of an axis it takes, where not all: {"head_dim": Sizes(multiple=8, reason="…")}.
        required: parameters that it must be passed in every call, with the reason: {"window": "…"}.
        floor: how far results and gradients may be off, relative to the largest sum of absolute terms, where products
            or keys are rounded further than the dtype itself is: Floor(relative={"float32": 1e-3}, reason="…").
        lifted: in float64, float32 that is written into its code (`softmax(dtype=torch.float32)`) is taken for float64,
            see `holotype_conformance.torch_tools.float64`. False spares the time where nothing is to be lifted.

    What is declared is believed, and printed with its reason in every report.
    """

    title: str = "kernel"
    layout: str = LAYOUT
    absent: Mapping[KernelCapability, str] = {}
    sizes: Mapping[Axis, Sizes] = {}
    required: Mapping[Required, str] = {}
    floor: Floor | None = None
    lifted: bool = True

    def attention(self, q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Tensor:
        """The kernel itself; see the head of this module. Name the options that yours takes."""
        raise NotImplementedError("a kernel must define attention(q, k, v, *, mask=None, …)")

    @property
    def function(self) -> Callable[..., Any]:
        """The callable from whose signature capabilities are read."""
        return self.attention

    def call(self, call: Call) -> Any:
        """One call, from our layout to the kernel's and back."""
        q, k, v = (self._arranged(x) for x in (call.q, call.k, call.v))
        result = self.function(q, k, v, **call.options())
        if self.layout == LAYOUT or not isinstance(result, Tensor):
            return result
        sizes = dict(zip(LAYOUT.split(), call.q.shape, strict=True))
        return rearrange(result, f"{self.layout} -> {LAYOUT}", **sizes)

    def _arranged(self, x: Tensor) -> Tensor:
        return x if self.layout == LAYOUT else rearrange(x, f"{LAYOUT} -> {self.layout}")

    def lacks(self, capability: KernelCapability) -> str | None:
        """Why it cannot have `capability`, as far as its declarations and its signature tell; None where it may."""
        if capability in self.absent:
            return self.absent[capability]
        if (limit := self._limited(capability)) is not None:
            return limit
        taken = parameters(self.function)
        if taken is None:
            return None
        missing = [name for name in PARAMETERS.get(capability, ()) if name not in taken]
        if not missing:
            return None
        said = f"its signature takes no `{missing[0]}`"
        other = next((name for name in ELSEWHERE.get(missing[0], ()) if name in taken), None)
        return said if other is None else f"{said}: for `{other}` write a KernelCandidate"

    def _limited(self, capability: KernelCapability) -> str | None:
        """The declaration of sizes or parameters that leaves no room for `capability`."""
        axes = {"any-length": ("lengths", "queries", "keys"), "any-head-dim": ("head_dim",)}
        for axis in axes.get(capability, ()):
            if axis in self.sizes:
                return self.sizes[axis].reason  # type: ignore[index]
        if capability == "unmasked":
            return self.required.get("causal")
        if capability == "band":
            return self.required.get("causal")
        if capability in ("batches", "prefix-rows", "documents-rows"):
            one = "batch" in self.sizes and not self.sizes["batch"].takes(3)
            return self.sizes["batch"].reason if one else self.absent.get("batches")
        return None


class FunctionKernel(KernelCandidate):
    """A bare function as a kernel."""

    def __init__(self, function: Callable[..., Any], title: str) -> None:
        self._function = function
        self.title = title

    @property
    def function(self) -> Callable[..., Any]:
        return self._function


def parameters(function: Callable[..., Any]) -> set[str] | None:
    """The parameters of a function, by name; None where it does not tell, as some that are written in C do not.

    Whatever disappears in ``**options`` is not taken by name: it might as well be ignored.
    """
    try:
        found = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return None
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {parameter.name for parameter in found if parameter.kind in named}
