"""Every size: around blocks, one, none, more queries than keys, head dims that are no power of two."""

from __future__ import annotations

from typing import Annotated

import msgspec
import torch
from hypothesis import strategies as st

from holotype_conformance.judge.records import DType
from holotype_conformance.kernels.cases import AttentionCase, Form, Mask, cases
from holotype_conformance.kernels.claims import claim, drawn
from holotype_conformance.kernels.subject import KernelSubject
from holotype_conformance.kernels.tolerance import demand_both

EDGES = (1, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129)
FAR_EDGES = (255, 256, 257, 257)  # beyond the largest blocks that are customary
# The last shows a block of any size; the others shrink.
RISING = (9, 17, 33, 65, 129, 257, *[521] * 3)
HEAD_DIMS = (1, 2, 3, 5, 7, 12, 20, 24, 33, 40, 48, 65, 72, 80, 96, 112, 160, 192, 256)


def _edges(subject: KernelSubject) -> st.SearchStrategy[AttentionCase]:
    known: tuple[Mask, ...] = ("none", "causal") if subject.has("causal") else ("none",)
    queries, keys = st.sampled_from(EDGES), st.sampled_from((*EDGES, *FAR_EDGES))

    def case(queries: int, keys: int, mask: Mask, data: int, dtype: DType) -> AttentionCase:
        square = keys if mask == "causal" else queries
        return AttentionCase(
            queries=square, keys=keys, mask=mask, data=data, head_dim=16, dtype=dtype
        )

    dtypes = st.sampled_from(
        (subject.dtype, *subject.dtypes)
    )  # the most precise one twice as often
    return st.builds(case, queries, keys, st.sampled_from(known), st.integers(0, 9), dtypes)


@claim(
    slug="lengths.block-edges",
    clause="Lengths around block sizes give right results.",
    meaning=(
        "Lengths of one, and one less and one more than 16, 32, 64, 128 and (of keys) 256, give what "
        "the formula gives, forward and backward, in every dtype. Kernels work in blocks: look for the "
        "last block that is not full, whose padding must be hidden from the maximum, the sum and the gradients."
    ),
    catches=("the last block dropped", "the padding of the last block in the sum"),
    wants=("any-length",),
    cases=_edges,
    examples=30,
)
def block_edges(subject: KernelSubject, case: AttentionCase) -> None:
    demand_both(subject, subject.problem(case))


class RisingCase(AttentionCase, frozen=True, kw_only=True, omit_defaults=True):
    """The scores rise by about `rise` from the first key to the last."""

    rise: int = 8


def _rising(subject: KernelSubject) -> st.SearchStrategy[RisingCase]:
    def case(queries: int, keys: int, rise: int, data: int, dtype: DType) -> RisingCase:
        return RisingCase(
            queries=queries, keys=keys, rise=rise, data=data, head_dim=16, dtype=dtype
        )

    return st.builds(
        case,
        st.integers(1, 9),
        st.sampled_from(RISING),
        st.sampled_from((8, 8, -8)),
        st.integers(0, 9),
        st.sampled_from((subject.dtype, *subject.dtypes)),
    )


@claim(
    slug="lengths.rising-scores",
    clause="Scores that rise along the keys are summed rightly.",
    meaning=(
        "Where scores rise from key to key, up to 521 keys, every block raises the maximum, and what the earlier "
        "blocks gave must shrink with it, the output as much as the sum; where they fall, none does. Random scores "
        "seldom show it: the maximum of a first block of 256 keys is rarely passed by the one that follows. Look for "
        "an accumulator or a sum that is not rescaled, and for a factor that has another base or scale than the powers."
    ),
    catches=("an accumulator that is not rescaled", "a factor of another base than the powers"),
    cases=_rising,
    examples=20,
)
def rising_scores(subject: KernelSubject, case: RisingCase) -> None:
    problem = subject.problem(case)
    q, k = problem.call.q, problem.call.k
    # A score is the sum of 16 products over 4: queries near 1 and keys near r give one near 4 r.
    ramp = torch.linspace(0.0, case.rise / 4.0, case.keys, dtype=k.dtype, device=k.device)
    demand_both(subject, problem.changed(q=1.0 + 0.1 * q, k=0.1 * k + ramp[:, None]))


def _cached(subject: KernelSubject) -> st.SearchStrategy[AttentionCase]:
    keys = st.sampled_from((*(edge for edge in EDGES if edge > 9), *FAR_EDGES))
    few = cases((subject.dtype, *subject.dtypes), masks=("causal",), most=9, head_dims=(16,))
    return st.builds(lambda case, keys: msgspec.structs.replace(case, keys=keys), few, keys)


@claim(
    slug="lengths.cache",
    clause="A few queries read a long KV cache rightly.",
    meaning=(
        "A decoding step has one query and a cache of keys, a prompt that is continued a few: with causal=True the "
        "last query still sees all keys, up to 257. Look for a loop over blocks that ends at the query's own place, "
        "as if there were as many keys as queries, although the mask inside a block counts from the last."
    ),
    catches=("blocks skipped from the diagonal of the upper left",),
    needs=("causal",),
    wants=("unequal-lengths",),
    cases=_cached,
    examples=15,
)
def cache(subject: KernelSubject, case: AttentionCase) -> None:
    demand_both(subject, subject.problem(case))


@claim(
    slug="lengths.query-length",
    clause="Queries and keys may differ in number.",
    meaning=(
        "Cross-attention has other numbers of queries than keys, a decoding step has one query. "
        "Without a mask every query sees all keys. Look for a buffer made with the wrong one of "
        "the two lengths."
    ),
    catches=("the keys cut to the number of queries",),
    wants=("unequal-lengths",),
    cases=drawn(equal=False, most=72),
    examples=15,
)
def query_length(subject: KernelSubject, case: AttentionCase) -> None:
    demand_both(subject, subject.problem(case))


@claim(
    slug="lengths.head-dim",
    clause="A head dim need be no power of two.",
    meaning=(
        "Head dims of 1, 3, 80, 96 or 256 give what the formula gives: published models have such. "
        "Look for a vector width or a tile that is assumed to divide it, and for a scale that is "
        "computed from the padded size."
    ),
    catches=("the rest of a vector dropped", "the scale of the padded head dim"),
    wants=("any-head-dim",),
    cases=lambda subject: cases(subject.dtypes, head_dims=HEAD_DIMS, most=24),
    examples=24,
)
def head_dim(subject: KernelSubject, case: AttentionCase) -> None:
    demand_both(subject, subject.problem(case))


class EmptyCase(AttentionCase, frozen=True, kw_only=True, omit_defaults=True):
    """One of batch, queries and keys is zero."""

    queries: Annotated[int, msgspec.Meta(ge=0, le=16_384)]
    keys: Annotated[int, msgspec.Meta(ge=0, le=16_384)]
    batch: Annotated[int, msgspec.Meta(ge=0, le=64)] = 1


def _empty(subject: KernelSubject) -> st.SearchStrategy[EmptyCase]:
    known: list[tuple[Mask, Form]] = [("none", "arguments")]
    if subject.has("causal"):
        known.append(("causal", "arguments"))
    if subject.has("boolean-mask"):
        known.append(("causal", "boolean"))

    def case(what: str, length: int, way: tuple[Mask, Form]) -> EmptyCase:
        return EmptyCase(
            batch=0 if what == "batch" else 2,
            queries=0 if what == "queries" else length,
            keys=length,
            heads=2,
            kv_heads=2,
            dtype=subject.dtype,
            mask=way[0],
            form=way[1],
        )

    return st.builds(
        case, st.sampled_from(("queries", "batch")), st.integers(1, 5), st.sampled_from(known)
    )


@claim(
    slug="lengths.empty",
    clause="No rows or no queries give an empty result.",
    meaning=(
        "A batch of no rows, or no queries at all, gives an empty result of the right shape, and "
        "gradients of zero: a batch that was filtered to nothing must not end a run. Look for a "
        "maximum over an empty axis, or a division of a grid by zero."
    ),
    catches=("an error for an empty batch",),
    wants=("any-length", "batches", "unequal-lengths"),
    cases=_empty,
    examples=8,
)
def empty(subject: KernelSubject, case: EmptyCase) -> None:
    problem = subject.problem(case)
    subject.output(problem.call)
    if subject.has("gradients"):
        subject.differentiated(problem)


def _keyless(subject: KernelSubject) -> st.SearchStrategy[EmptyCase]:
    def case(queries: int, batch: int, dtype: DType) -> EmptyCase:
        return EmptyCase(queries=queries, keys=0, batch=batch, heads=2, kv_heads=2, dtype=dtype)

    return st.builds(case, st.integers(1, 20), st.integers(1, 3), st.sampled_from(subject.dtypes))


@claim(
    slug="lengths.no-keys",
    clause="Without any keys the result is finite.",
    level="should",
    meaning=(
        "Queries without a single key, such as those of a source that was filtered to nothing, have an empty sum as "
        "their result: anything finite, zero for choice. Look for a maximum over an empty axis, for 0/0, and for an "
        "output buffer that is returned without having been written."
    ),
    catches=("memory that nobody wrote", "0/0 without keys"),
    wants=("any-length", "unequal-lengths", "unmasked"),
    cases=_keyless,
    examples=6,
)
def no_keys(subject: KernelSubject, case: EmptyCase) -> None:
    subject.output(subject.problem(case).call)
