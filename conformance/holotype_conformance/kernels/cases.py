"""The input of one run of a property: a case of a few numbers, and the problem that is made of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
import torch
from einops import rearrange
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from holotype_conformance.judge.property import Case
from holotype_conformance.judge.records import DType
from holotype_conformance.kernels import oracle
from holotype_conformance.kernels.candidate import Call

DTYPES: dict[DType, torch.dtype] = {
    "float64": torch.float64,
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
Mask = Literal[
    "none",
    "causal",
    "window",
    "band",
    "prefix",
    "documents",
    "left-padding",
    "right-padding",
    "random",
]
Form = Literal["arguments", "boolean", "additive"]
MASKS: tuple[Mask, ...] = (
    "causal",
    "window",
    "band",
    "prefix",
    "documents",
    "left-padding",
    "right-padding",
    "random",
)
LONGEST = 40  # beyond a block of 32


# What a case can be written with: more than any property draws, and nothing that would be no problem.
Length = Annotated[int, msgspec.Meta(ge=1, le=16_384)]
Batch = Annotated[int, msgspec.Meta(ge=1, le=64)]
Heads = Annotated[int, msgspec.Meta(ge=1, le=128)]


class AttentionCase(Case, frozen=True, kw_only=True, omit_defaults=True):
    """One attention problem with random contents.

    `size` is the window's, band's or prefix's, or the length of a document or of the shortest padded row; `documents`
    are lengths of documents of their own, instead; with `by_row` each row of the batch has another prefix, another
    number of real keys, or its documents in another order; `form` is how it is passed the mask; `percent` is the
    scale that it is passed, in hundredths, None for none; `data` chooses the contents.
    """

    queries: Length
    keys: Length
    batch: Batch = 1
    heads: Heads = 1
    kv_heads: Heads = 1
    head_dim: Annotated[int, msgspec.Meta(ge=1, le=1024)] = 8
    dtype: DType = "float64"
    mask: Mask = "none"
    form: Form = "arguments"
    size: Annotated[int, msgspec.Meta(ge=0, le=65_536)] = 1
    documents: tuple[Length, ...] = ()
    by_row: bool = False
    percent: Annotated[int, msgspec.Meta(ge=-1000, le=1000)] | None = None
    data: Annotated[int, msgspec.Meta(ge=0, le=9999)] = 0

    def misfit(self, subject: Any) -> str | None:
        """Heads come in groups, only a prefix can be empty, and the kernel takes the dtype."""
        if not self.size and self.mask != "prefix":
            return f"size 0 of the mask {self.mask!r}: expected at least 1"
        if self.heads % self.kv_heads:
            return f"{self.heads} heads cannot share {self.kv_heads} key-value heads evenly"
        reason = subject.capabilities.get(self.dtype)
        return None if reason is None else f"dtype {self.dtype!r}: {reason}"


class TogetherCase(AttentionCase, frozen=True, kw_only=True, omit_defaults=True):
    """A case whose mask is passed together with causal: a query sees what both show."""

    @property
    def mask_alone(self) -> AttentionCase:
        """The case without causal."""
        return AttentionCase(**msgspec.structs.asdict(self))

    @property
    def causal_alone(self) -> AttentionCase:
        """The case without its mask."""
        return msgspec.structs.replace(self.mask_alone, mask="causal", form="arguments")


def bare(case: AttentionCase, **changes: Any) -> AttentionCase:
    """The case without what only its property makes of it, but for `changes`."""
    names = {field.name for field in msgspec.structs.fields(AttentionCase)}
    facts = {name: value for name, value in msgspec.structs.asdict(case).items() if name in names}
    return AttentionCase(**facts | changes)


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A case made into tensors: the call, and what the oracle needs to know of its mask.

    Attributes:
        call: what the kernel is given.
        visible: broadcastable to (batch, heads, queries, keys), or None for everything.
        bias: the same, or None.
        upstream: the gradient that arrives at the result, shaped as q.
    """

    call: Call
    visible: NDArray[np.bool_] | None
    bias: NDArray[np.float64] | None
    upstream: Tensor

    def expected(self, *, gradients: bool = False) -> oracle.Attended:
        """The formula's values for exactly these numbers."""
        q, k, v, upstream = (
            as_array(x) for x in (self.call.q, self.call.k, self.call.v, self.upstream)
        )
        return oracle.attention(
            q,
            k,
            v,
            visible=self.visible,
            bias=self.bias,
            scale=self.call.scale,
            upstream=upstream if gradients else None,
        )

    def changed(self, **tensors: Tensor) -> Problem:
        """With other q, k or v."""
        call = self.call
        q, k, v = (tensors.get(name, getattr(call, name)) for name in ("q", "k", "v"))
        return replace(self, call=replace(call, q=q, k=k, v=v))


def as_array(x: Tensor) -> NDArray[np.float64]:
    """`x` in float64, exactly."""
    return x.detach().to("cpu", torch.float64).numpy()


def copied_as(x: Tensor, room: Tensor) -> Tensor:
    """`room`, with the contents of `x`."""
    return room.copy_(x)


# Making problems -----------------------------------------------------------------------------------------------------


def problem(
    case: AttentionCase,
    *,
    seed: int = 0,
    device: str = "cpu",
    draw: Callable[[np.random.Generator, tuple[int, ...]], NDArray[np.float64]] | None = None,
) -> Problem:
    """The problem of a case; `draw` makes contents of a shape, by default normal ones.

    Queries and keys are so large that the scores are not near uniform, which would hide most mistakes.
    """
    rng = np.random.default_rng([seed, case.data])
    dtype = DTYPES[case.dtype]

    def tensor(heads: int, length: int, size: float) -> Tensor:
        shape = (case.batch, heads, length, case.head_dim)
        numbers = size * rng.standard_normal(shape) if draw is None else draw(rng, shape)
        return torch.from_numpy(numbers).to(device, dtype)

    q = tensor(case.heads, case.queries, 1.3)
    k = tensor(case.kv_heads, case.keys, 1.3)
    v = tensor(case.kv_heads, case.keys, 1.0)
    upstream = tensor(case.heads, case.queries, 1.0)
    visible = visibility(case)
    scale = None if case.percent is None else case.percent / 100
    call = told(case, Call(q=q, k=k, v=v, scale=scale), visible)
    if isinstance(case, TogetherCase):
        call, both = replace(call, causal=True), _stacked([oracle.causal(case.queries, case.keys)])
        visible = both if visible is None else visible & both
    return Problem(call=call, visible=visible, bias=None, upstream=upstream)


def visibility(case: AttentionCase) -> NDArray[np.bool_] | None:
    """(batch or 1, heads or 1, queries, keys); None for no mask."""
    n, m = case.queries, case.keys
    match case.mask:
        case "none":
            return None
        case "causal":
            found = oracle.causal(n, m)
        case "window":
            found = oracle.window(n, m, case.size)
        case "band":
            found = oracle.band(n, m, case.size)
        case "prefix":
            return _stacked([oracle.prefix(n, m, size) for size in prefixes(case)])
        case "documents":
            return _stacked([oracle.documents(n, m, row) for row in packings(case)])
        case "left-padding" | "right-padding":
            return _padded(case)
        case "random":
            return _random(case)
    return _stacked([found])


def _stacked(rows: list[NDArray[np.bool_]]) -> NDArray[np.bool_]:
    return rearrange(np.stack(rows), "batch queries keys -> batch 1 queries keys")


def prefixes(case: AttentionCase) -> tuple[int, ...]:
    """One for all rows of the batch, or one for each."""
    rows = case.batch if case.by_row else 1
    return tuple((case.size + 3 * row) % (case.keys + 1) for row in range(rows))


def packings(case: AttentionCase) -> tuple[tuple[int, ...], ...]:
    """The lengths of the documents: of all rows of the batch, or of each, where they take turns to be the first."""
    lengths = case.documents or tuple(packed(case.size, case.keys))
    rows = case.batch if case.by_row else 1
    firsts = [row % max(len(lengths), 1) for row in range(rows)]
    return tuple(lengths[first:] + lengths[:first] for first in firsts)


def _padded(case: AttentionCase) -> NDArray[np.bool_]:
    """Row b has `size` + b real keys, or with `by_row` others that are apart by more than a block."""
    real = [min(case.size + row, case.keys) for row in range(case.batch)]
    if case.by_row:
        real = [1 + (case.size + 70 * row) % case.keys for row in range(case.batch)]
    side = case.mask.partition("-")[0]
    found = oracle.padding(case.queries, case.keys, real, side)
    return rearrange(found, "batch queries keys -> batch 1 queries keys")


def _random(case: AttentionCase) -> NDArray[np.bool_]:
    """Half of all pairs, another half for each head, and for each query at least one key."""
    rng = np.random.default_rng([7, case.data])
    found = rng.random((case.batch, case.heads, case.queries, case.keys)) < 0.5
    if case.keys:
        sure = rng.integers(0, case.keys, found.shape[:3])
        found |= sure[..., None] == np.arange(case.keys)
    return found


def told(case: AttentionCase, call: Call, visible: NDArray[np.bool_] | None) -> Call:
    """`call` with its mask in the form of the case."""
    if visible is None:
        return call
    if case.form == "arguments":
        return replace(call, **_arguments(case))
    boolean = torch.from_numpy(visible.copy()).to(call.q.device)
    mask = boolean if case.form == "boolean" else additive(boolean, call.q.dtype)
    return replace(call, mask=mask)


def _arguments(case: AttentionCase) -> dict[str, Any]:
    """The mask of the case as arguments."""
    match case.mask:
        case "causal":
            return {"causal": True}
        case "band":
            return {"window": case.size}
        case "window":
            return {"causal": True, "window": case.size}
        case "prefix":
            told = prefixes(case)
            return {"causal": True, "prefix": told if case.by_row else told[0]}
        case "documents":
            rows = packings(case)
            return {"causal": True, "documents": rows if case.by_row else rows[0]}
        case _:
            return {}


def packed(size: int, keys: int) -> list[int]:
    """Lengths of documents of `size` that fill the keys; the last takes what is left."""
    size = max(size, 1)
    return [size] * (keys // size) + [keys % size] * (keys % size > 0)


def additive(visible: Tensor, dtype: torch.dtype, hidden: float = float("-inf")) -> Tensor:
    """Zero where a key is seen, `hidden` where not."""
    return torch.zeros(visible.shape, dtype=dtype, device=visible.device).masked_fill(
        ~visible, hidden
    )


# Drawing cases -------------------------------------------------------------------------------------------------------


def lengths(least: int = 1, most: int = LONGEST) -> st.SearchStrategy[int]:
    """Mostly such as a block of 16 or 32 does not divide; shrinks to the shortest."""
    return st.one_of(st.integers(least, min(12, most)), st.integers(min(17, most), most))


@st.composite
def cases(
    draw: st.DrawFn,
    dtypes: tuple[DType, ...],
    *,
    masks: tuple[Mask, ...] = ("none",),
    forms: tuple[Form, ...] = ("arguments",),
    equal: bool = True,
    least: int = 1,
    most: int = LONGEST,
    heads: tuple[int, ...] = (1, 2, 3),
    head_dims: tuple[int, ...] = (8, 16, 32),
) -> AttentionCase:
    """Cases with these masks in these forms; `equal` for as many queries as keys, as half of the long ones are too."""
    keys = draw(lengths(least, most))
    equal = equal or (keys > LONGEST and draw(st.booleans()))
    count = draw(st.sampled_from(heads))
    mask = draw(st.sampled_from(masks))
    sized = mask not in ("none", "causal", "random")
    largest = (
        keys + 9 if mask in ("window", "band") else max(1, keys)
    )  # a window may be wider than all keys
    return AttentionCase(
        queries=keys if equal else draw(lengths(least, most)),
        keys=keys,
        batch=draw(st.integers(1, 2)),
        heads=count,
        kv_heads=count,
        head_dim=draw(st.sampled_from(head_dims)),
        dtype=draw(st.sampled_from(dtypes)),
        mask=mask,
        form=draw(st.sampled_from(forms)),
        size=draw(st.integers(1, largest)) if sized else 1,
        data=draw(st.integers(0, 99)),
    )
