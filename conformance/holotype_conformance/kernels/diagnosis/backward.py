"""The ways in which backward passes of attention are known to be wrong where the forward pass is right.

A kernel that keeps no weights computes them again from the logarithm L of each query's sum of powers, weights =
exp(scores - L), and has from the output what the softmax takes off, mean = Σ upstream · output (Dao et al. 2022,
algorithm 4). A mistake is one part of this that is another: the scores it is taken of, the base of L, the mean, the
scale, which heads are summed, or which blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from einops import rearrange, reduce, repeat

from holotype_conformance.kernels import oracle
from holotype_conformance.kernels.cases import AttentionCase
from holotype_conformance.kernels.diagnosis.changes import CHANGES, Array, Change, Terms
from holotype_conformance.kernels.diagnosis.tiled import BLOCKS, LOG2E, UNEVEN
from holotype_conformance.kernels.oracle import Gradients

# What a forward pass that is right may still hide or show otherwise on its way back.
MASKS = ("causal.", "window.", "band.", "prefix.", "documents.")
SEEN = ("mask.ignored", "mask.inverted")


# To which key-value head the gradients of a head go, where that is not head // (heads / kv_heads).
DIVISORS: dict[str, Callable[[int, int], int]] = {
    "other-divisor": lambda head, kv_heads: head // kv_heads,
    "tiled": lambda head, kv_heads: head % kv_heads,
}


@dataclass(frozen=True, kw_only=True)
class Way:
    """What a backward pass starts from; each of (batch, heads, …), with keys and values repeated for all heads.

    Attributes:
        terms, case: what the kernel was to compute from.
        upstream: the gradient that arrives.
        weights: (batch, heads, queries, keys).
        mean: (batch, heads, queries, 1), what the softmax takes off.
        by_query, by_key: what gradients by q and k are multiplied by, the scale.
        heads: how the gradients of a group of heads become one.
    """

    terms: Terms
    case: AttentionCase
    upstream: Array
    weights: Array
    mean: Array
    by_query: float
    by_key: float
    heads: str = "sum"

    @property
    def group(self) -> int:
        """How many heads share their keys and values."""
        heads, kv_heads = self.terms.q.shape[1], self.terms.k.shape[1]
        return int(heads // kv_heads)

    def gradients(self) -> Gradients:
        """Where it leads."""
        weights = self.weights
        by_weight = self.upstream @ _turned(self.repeated(self.terms.v))
        by_score = weights * (by_weight - self.mean)
        return Gradients(
            q=self.by_query * by_score @ self.repeated(self.terms.k),
            k=self.shared(self.by_key * _turned(by_score) @ self.terms.q),
            v=self.shared(_turned(weights) @ self.upstream),
        )

    def repeated(self, x: Array) -> Array:
        """Keys or values for all heads."""
        return repeat(x, "b h j d -> b (h group) j d", group=self.group)

    def shared(self, x: Array) -> Array:
        """Gradients by the keys or values of each group of heads."""
        if self.heads in DIVISORS:
            return self._misplaced(x)
        if self.heads in ("sum", "mean"):
            return np.asarray(reduce(x, "b (h group) j d -> b h j d", self.heads, group=self.group))
        found = rearrange(x, "b (h group) j d -> b h group j d", group=self.group)
        return np.asarray(found[:, :, {"first": 0, "last": -1}[self.heads]])

    def _misplaced(self, x: Array) -> Array:
        """Summed up, but each head for the keys and values of another group; beyond the last group it is lost."""
        heads, kv_heads = x.shape[1], self.terms.k.shape[1]
        found = np.zeros((len(x), kv_heads, *x.shape[2:]))
        for head in range(heads):
            group = DIVISORS[self.heads](head, kv_heads)
            if group < kv_heads:
                found[:, group] += x[:, head]
        return found


def way(terms: Terms, case: AttentionCase, upstream: Array) -> Way:
    """The right one."""
    expected = oracle.attention(terms.q, terms.k, terms.v, visible=terms.visible, scale=terms.scale)
    mean = (upstream * expected.output).sum(axis=-1, keepdims=True)
    return Way(
        terms=terms,
        case=case,
        upstream=upstream,
        weights=expected.weights,
        mean=mean,
        by_query=terms.scale,
        by_key=terms.scale,
    )


@dataclass(frozen=True, kw_only=True)
class GradientChange:
    """One way in which backward passes are wrong; `made` gives None where it would change nothing."""

    slug: str
    title: str
    made: Callable[[Way], Gradients | None]


def gradient_changes() -> Iterator[GradientChange]:
    """Those that any size shows."""
    yield from _scales()
    yield from _softmax()
    yield from _heads()
    for change in CHANGES:
        if change.slug.startswith(MASKS) or change.slug in SEEN:
            yield _backwards(change)


def block_changes(blocks: Iterable[int] = (*BLOCKS, *UNEVEN)) -> Iterator[GradientChange]:
    """Those of kernels that go by blocks."""
    for block in blocks:
        yield from _blocks(block)


def _change(slug: str, title: str, made: Callable[[Way], Way | None]) -> GradientChange:
    def gradients(right: Way) -> Gradients | None:
        found = made(right)
        return None if found is None else found.gradients()

    return GradientChange(slug=f"gradients.{slug}", title=title, made=gradients)


def _scales() -> Iterator[GradientChange]:
    for power, said in ((0, "without the scale"), (2, "scaled twice")):
        name = {0: "unscaled", 2: "scaled-twice"}[power]

        def by_query(right: Way, power: int = power) -> Way:
            return replace(right, by_query=right.by_query**power)

        def by_key(right: Way, power: int = power) -> Way:
            return replace(right, by_key=right.by_key**power)

        def by_both(right: Way, power: int = power) -> Way:
            return replace(right, by_query=right.by_query**power, by_key=right.by_key**power)

        yield _change(f"{name}-q", f"the gradient by q is {said}", by_query)
        yield _change(f"{name}-k", f"the gradient by k is {said}", by_key)
        yield _change(name, f"the gradients by q and k are {said}", by_both)


def _softmax() -> Iterator[GradientChange]:
    yield _change(
        "mean-missing",
        "the gradient of the softmax lacks what is taken off, the sum of upstream times output",
        lambda right: replace(right, mean=np.zeros_like(right.mean)),
    )
    for slug, power, said in (
        ("log-sum-base-two", LOG2E, "base 2 where the powers have base e"),
        ("log-sum-base-e", 1 / LOG2E, "base e where the powers have base 2"),
    ):
        yield _change(
            slug,
            f"on the way back the logarithm of the sum has {said}",
            lambda right, power=power: replace(right, weights=_again(right, right.terms, power)),  # type: ignore[misc]
        )


def _heads() -> Iterator[GradientChange]:
    for heads, said in (
        ("first", "those of the first head of each group alone"),
        ("last", "those of the last head of each group alone"),
        ("mean", "the mean over each group of heads, and not the sum"),
        ("other-divisor", "added to head h // kv_heads, and not to head h // (heads / kv_heads)"),
        ("tiled", "added to head h % kv_heads (0 1 0 1), and not to neighbours (0 0 1 1)"),
    ):

        def made(right: Way, heads: str = heads) -> Way | None:
            alone = right.terms.k.shape[1] == 1
            alike = right.group == 1  # what would change nothing
            if heads == "tiled":
                alike = alike or alone
            elif heads == "other-divisor":
                alike = alike and alone
            return None if alike else replace(right, heads=heads)

        yield _change(f"heads-{heads}", f"the gradients by k and v are {said}", made)


def _backwards(change: Change) -> GradientChange:
    """The scores are another's on the way back, the logarithm of the sum is the right one."""

    def made(right: Way) -> Way | None:
        terms = change.terms(right.terms, right.case)
        return None if terms is None else replace(right, weights=_again(right, terms, 1.0))

    return _change(change.slug, f"on the way back {change.title}", made)


def _again(right: Way, terms: Terms, power: float) -> Array:
    """Weights from the scores of `terms` and the logarithm of the right sum, times `power`."""
    keys = right.repeated(terms.k)
    plain = oracle.scores(terms.q, keys, visible=right.terms.visible, scale=right.terms.scale)
    top = plain.max(axis=-1, keepdims=True, initial=-np.inf)
    top = np.where(np.isfinite(top), top, 0.0)
    total = np.exp(plain - top).sum(axis=-1, keepdims=True)
    with np.errstate(divide="ignore", over="ignore"):
        log_sum = np.where(total > 0.0, top + np.log(total), np.inf)
        scores = oracle.scores(terms.q, keys, visible=terms.visible, scale=terms.scale)
        return np.asarray(np.exp(scores - power * log_sum))


def _turned(x: Array) -> Array:
    return np.swapaxes(x, -1, -2)


# Blocks --------------------------------------------------------------------------------------------------------------


def _blocks(block: int) -> Iterator[GradientChange]:
    yield GradientChange(
        slug=f"gradients.overwritten-q.{block}",
        title=f"the gradient by q is that of the last block of {block} keys alone, and not the sum",
        made=lambda right: _last_keys(right, block),
    )
    yield GradientChange(
        slug=f"gradients.overwritten-k.{block}",
        title=f"the gradients by k and v are those of the last block of {block} queries alone, and not the sum",
        made=lambda right: _last_queries(right, block),
    )
    yield GradientChange(
        slug=f"gradients.rest-q.{block}",
        title=f"the gradient by q is lost where a last block of {block} queries is not full",
        made=lambda right: _without_rest(right, block, queries=True),
    )
    yield GradientChange(
        slug=f"gradients.rest-k.{block}",
        title=f"the gradients by k and v are lost where a last block of {block} keys is not full",
        made=lambda right: _without_rest(right, block, queries=False),
    )


def _last_keys(right: Way, block: int) -> Gradients:
    keys = right.weights.shape[-1]
    seen = np.arange(keys) >= (keys - 1) // block * block
    found = replace(right, weights=right.weights * seen).gradients()
    return replace(right.gradients(), q=found.q)


def _last_queries(right: Way, block: int) -> Gradients:
    queries = right.weights.shape[-2]
    seen = (np.arange(queries) >= (queries - 1) // block * block)[:, None]
    found = replace(right, weights=right.weights * seen).gradients()
    return replace(right.gradients(), k=found.k, v=found.v)


def _without_rest(right: Way, block: int, *, queries: bool) -> Gradients:
    length = right.weights.shape[-2 if queries else -1]
    kept = (np.arange(length) < length // block * block)[:, None]
    found = right.gradients()
    if queries:
        return replace(found, q=found.q * kept)
    return replace(found, k=found.k * kept, v=found.v * kept)
