"""Prefix-LM masks and packed sequences, passed as arguments to kernels that skip hidden blocks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import accumulate, pairwise

import msgspec
import torch
from hypothesis import strategies as st
from torch import Tensor

from holotype_conformance.judge.property import Violation
from holotype_conformance.kernels.cases import AttentionCase, Mask, Problem, as_array, cases
from holotype_conformance.kernels.claims import claim, drawn
from holotype_conformance.kernels.plain import plain
from holotype_conformance.kernels.stillness import demand_unmoved
from holotype_conformance.kernels.subject import KernelSubject
from holotype_conformance.kernels.tolerance import (
    allowed,
    demand_both,
    demand_near,
    error,
    plain_gradients,
    sighted,
)

EDGES = (1, 2, 3, 5, 7, 15, 16, 17, 31, 32, 33, 63, 64, 65)
Cases = Callable[[KernelSubject], st.SearchStrategy[AttentionCase]]

# Prefixes ------------------------------------------------------------------------------------------------------------


@claim(
    slug="prefix.formula",
    clause="A prefix-LM mask shows the first p keys to all.",
    meaning=(
        "The prefix-LM mask: with causal=True and prefix=p "
        "every query sees the first p keys, those of the prefix in both directions, and "
        "beyond them the keys up to its diagonal, forward and backward. Look for a prefix one too long or too short, "
        "for one that stays causal inside, for a diagonal that starts behind the prefix, and for blocks that are "
        "skipped because they lie above the diagonal though the prefix reaches into them."
    ),
    catches=(
        "a prefix of one too many",
        "the prefix causal inside",
        "the last block of the prefix skipped",
    ),
    needs=("prefix",),
    cases=drawn(masks=("prefix",), equal=False, most=72),
    examples=25,
)
def prefix_formula(subject: KernelSubject, case: AttentionCase) -> None:
    demand_both(subject, subject.problem(case))


def _whole_or_nothing(subject: KernelSubject) -> st.SearchStrategy[AttentionCase]:
    def limited(case: AttentionCase, whole: bool) -> AttentionCase:
        return msgspec.structs.replace(case, size=case.keys if whole else 0)

    ways = cases(subject.dtypes, masks=("prefix",), equal=False)
    return st.builds(limited, ways, st.booleans())


@claim(
    slug="prefix.limits",
    clause="A prefix of 0 is causal, one of all keys is full.",
    meaning=(
        "prefix=0 gives what causal=True gives without it, and a prefix as long as the keys what attention without a "
        "mask gives. Look for a zero that is taken for no mask at all, and for a prefix that is cut to one key less "
        "than there are."
    ),
    catches=("zero taken for everything", "the last key never in the prefix"),
    needs=("prefix",),
    cases=_whole_or_nothing,
    examples=15,
)
def prefix_limits(subject: KernelSubject, case: AttentionCase) -> None:
    demand_both(subject, subject.problem(case))
    other: Mask = "none" if case.size else "causal"
    demand_same(subject, case, msgspec.structs.replace(case, mask=other), f"prefix={case.size}")


def _by_row(mask: Mask) -> Cases:
    """Two or three rows of a batch, each with a mask of its own."""

    def strategy(subject: KernelSubject) -> st.SearchStrategy[AttentionCase]:
        def each(case: AttentionCase, batch: int) -> AttentionCase:
            return msgspec.structs.replace(case, batch=batch, by_row=True)

        ways = cases(subject.dtypes, masks=(mask,), least=2, equal=False)
        return st.builds(each, ways, st.integers(2, 3))

    return strategy


@claim(
    slug="prefix.rows",
    clause="Each row of a batch has its own prefix.",
    meaning=(
        "A tuple of prefixes has one for each row of the batch, as prompts of different lengths make them. Look for "
        "the first row's prefix, or the longest, that is used for all."
    ),
    catches=("the first row's prefix for all", "the longest prefix for all"),
    needs=("prefix", "prefix-rows"),
    cases=_by_row("prefix"),
    examples=15,
)
def prefix_rows(subject: KernelSubject, case: AttentionCase) -> None:
    demand_both(subject, subject.problem(case))


@claim(
    slug="prefix.no-leak",
    clause="No query beyond the prefix sees a later key.",
    meaning=(
        "Another key and value, of a hundred thousand times the size, behind the prefix leave all earlier queries as "
        "they are, to the bit, those in the prefix among them. Look for blocks on the prefix's edge or on the diagonal "
        "that are computed without their mask, and for a maximum that is taken over hidden keys too."
    ),
    catches=("the block on the prefix's edge shown whole", "a hidden score of -1e4"),
    needs=("prefix",),
    cases=drawn(masks=("prefix",), equal=False, most=72),
    examples=20,
)
def prefix_no_leak(subject: KernelSubject, case: AttentionCase) -> None:
    key = min(case.size + case.data % max(case.keys - case.size, 1), case.keys - 1)
    demand_unmoved(subject, subject.problem(case), key)


# Documents -----------------------------------------------------------------------------------------------------------


def _packed(*, equal: bool = True, fewest: int = 1) -> Cases:
    """Documents of lengths around those of blocks; `fewest` is how many there are at least."""

    def strategy(subject: KernelSubject) -> st.SearchStrategy[AttentionCase]:
        few = st.lists(st.integers(1, 9), min_size=fewest, max_size=5)
        edges = st.lists(st.sampled_from(EDGES), min_size=fewest, max_size=3)
        ways = cases(subject.dtypes, masks=("documents",), equal=equal)
        return st.builds(_of_lengths, ways, st.one_of(few, edges), st.just(equal))

    return strategy


def _of_lengths(case: AttentionCase, lengths: list[int], equal: bool) -> AttentionCase:
    keys = sum(lengths)
    queries = keys if equal else case.queries
    return msgspec.structs.replace(
        case, queries=queries, keys=keys, documents=tuple(lengths), size=1
    )


@claim(
    slug="documents.formula",
    clause="In packed sequences a query sees its own document.",
    meaning=(
        "With causal=True and documents=(3, 1, 64, …), lengths of packed sequences that lie one after the other, a "
        "query sees the keys of its own document up to itself, forward and backward: documents of one token, odd "
        "lengths, and lengths around those of blocks. With fewer queries than keys the last query stands at the last "
        "key. Look for "
        "boundaries one off, a last document that is left out because it fills no block, and places that are counted "
        "from the first query instead of the first key."
    ),
    catches=(
        "a boundary one off",
        "the last ragged document dropped",
        "documents that see the last token of the one before",
    ),
    needs=("documents",),
    cases=_packed(equal=False),
    examples=30,
)
def documents_formula(subject: KernelSubject, case: AttentionCase) -> None:
    demand_both(subject, subject.problem(case))


def _single(subject: KernelSubject) -> st.SearchStrategy[AttentionCase]:
    def whole(case: AttentionCase) -> AttentionCase:
        return msgspec.structs.replace(case, documents=(case.keys,), size=1)

    return cases(subject.dtypes, masks=("documents",), equal=False, most=200).map(whole)


@claim(
    slug="documents.one",
    clause="A single packed document is causal attention.",
    meaning=(
        "documents=(n,) for n keys gives what causal=True gives without it. Look for a list of boundaries that lacks "
        "its end, and for a document that sees both ways."
    ),
    catches=("a single document both ways", "nothing computed where no boundary is"),
    needs=("documents",),
    cases=_single,
    examples=12,
)
def documents_one(subject: KernelSubject, case: AttentionCase) -> None:
    demand_both(subject, subject.problem(case))
    alone = msgspec.structs.replace(case, mask="causal", documents=())
    demand_same(subject, case, alone, f"documents=({case.keys},)")


@claim(
    slug="documents.alone",
    clause="A document gives the same alone and packed.",
    meaning=(
        "The result and the gradients of each of several packed documents are those of a call with this document "
        "alone, which is why packing is allowed at all. Look for anything that crosses a boundary: keys, a maximum, a "
        "sum, the gradient of a block that two documents share."
    ),
    catches=("the gradient of a shared block crosses", "one sum for all documents"),
    needs=("documents",),
    wants=("any-length",),
    cases=_packed(fewest=2),
    examples=15,
)
def documents_alone(subject: KernelSubject, case: AttentionCase) -> None:
    problem = subject.problem(case)
    budgets = _budgets(problem)
    expected = problem.expected(gradients=True)
    found = _results(subject, problem)
    for place, tokens in enumerate(_places(case.documents)):
        for name, own in _results(subject, _part(problem, tokens)).items():
            size = (
                expected.output_size if name == "result" else getattr(expected.gradient_sizes, name)
            )
            demand_near(
                found[name][:, :, tokens],
                as_array(own),
                size,
                budget=2 * budgets[name],
                what=f"the {_words(name)} for document {place}",
                than="that for it alone",
                document=place,
            )


@claim(
    slug="documents.permutation",
    clause="The order of packed documents changes no result.",
    meaning=(
        "Packed in another order, each document gives what it gave. Look for anything that depends on where a document "
        "lies: positions counted through, the first or the last one treated apart, and blocks that start at multiples "
        "of their size instead of at the document."
    ),
    catches=("places counted through all documents", "the last document treated apart"),
    needs=("documents",),
    cases=_packed(fewest=2),
    examples=15,
)
def documents_permutation(subject: KernelSubject, case: AttentionCase) -> None:
    problem = subject.problem(case)
    order = sorted(range(len(case.documents)), key=lambda i: (i * 7 + case.data) % 11)
    order = order if order != sorted(order) else order[::-1]
    tokens = torch.cat([_indices(case.documents)[i] for i in order])
    lengths = tuple(case.documents[i] for i in order)
    call = replace(problem.call.with_tensors(lambda x: x[:, :, tokens]), documents=lengths)
    first, turned = subject.output(problem.call), subject.output(call)
    demand_near(
        turned,
        as_array(first[:, :, tokens]),
        problem.expected().output_size,
        budget=2 * _budgets(problem, gradients=False)["result"],
        what=f"the result for documents in the order {', '.join(map(str, order))}",
        than="that for them as they were",
    )


@claim(
    slug="documents.rows",
    clause="Each row of a batch has its own packed documents.",
    meaning=(
        "A tuple of tuples has the lengths of the documents of each row of the batch, which need not be as many. Look "
        "for the first row's boundaries that are used for all."
    ),
    catches=("the first row's documents for all",),
    needs=("documents", "documents-rows"),
    cases=_by_row("documents"),
    examples=15,
)
def documents_rows(subject: KernelSubject, case: AttentionCase) -> None:
    demand_both(subject, subject.problem(case))


@claim(
    slug="documents.no-leak",
    clause="No packed document has an effect on another.",
    meaning=(
        "Another key and value, of a hundred thousand times the size, leave all earlier queries and all other "
        "documents as they are, to the bit; and a gradient that arrives at one document alone leaves those by the "
        "queries, keys and values of all others at exactly zero. Look for blocks that hold tokens of two documents and "
        "are computed without their mask."
    ),
    catches=("a leak of one token", "gradients that cross", "a hidden score of -1e4"),
    needs=("documents",),
    cases=_packed(fewest=2),
    examples=20,
)
def documents_no_leak(subject: KernelSubject, case: AttentionCase) -> None:
    problem = subject.problem(case)
    demand_unmoved(subject, problem, case.data % case.keys)
    if not subject.has("gradients"):
        return
    chosen = case.data % len(case.documents)
    own = torch.zeros(case.keys, dtype=torch.bool, device=problem.upstream.device)
    own[_places(case.documents)[chosen]] = True
    upstream = problem.upstream * own[:, None]
    found = subject.differentiated(replace(problem, upstream=upstream))
    for name in ("q", "k", "v"):
        leaked = (getattr(found, name) != 0).any(-1) & ~own
        if leaked.any():
            _, _, place = leaked.nonzero()[0].tolist()
            raise Violation(
                f"a gradient that arrives at document {chosen} alone gives the {name} at place {place}, of another"
                " document, a gradient; expected exactly zero",
                document=chosen,
                place=place,
            )


# Comparing -----------------------------------------------------------------------------------------------------------


def demand_same(
    subject: KernelSubject, case: AttentionCase, other: AttentionCase, told: str
) -> None:
    """Demand that the kernel gives the same for two cases that mean the same."""
    problem, same = subject.problem(case), subject.problem(other)
    rows = sighted(problem)
    demand_near(
        subject.output(problem.call, rows=rows),
        as_array(subject.output(same.call, rows=rows)),
        problem.expected().output_size,
        budget=2 * _budgets(problem, gradients=False)["result"],
        what=f"the result for {told}",
        than="that for causal=True" if other.mask == "causal" else "that for no mask",
    )


def _budgets(problem: Problem, *, gradients: bool = True) -> dict[str, float]:
    """The tolerance of the result and of each gradient; queries that see no key are left out."""
    dtype = problem.call.q.dtype
    expected = problem.expected(gradients=gradients)
    found = {"result": error(plain(problem), expected.output, expected.output_size)}
    if gradients:
        measured = plain_gradients(problem)
        for name, x in measured.items():
            right, size = getattr(expected.gradients, name), getattr(expected.gradient_sizes, name)
            found[name] = error(x, right, size)
    return {
        name: allowed(measured, dtype, expected, gradients=name != "result")
        for name, measured in found.items()
    }


def _results(subject: KernelSubject, problem: Problem) -> dict[str, Tensor]:
    """The result, and the gradients of a kernel that has them."""
    if not subject.has("gradients"):
        return {"result": subject.output(problem.call)}
    found = subject.differentiated(problem)
    return {"result": found.output, "q": found.q, "k": found.k, "v": found.v}


def _words(name: str) -> str:
    return name if name == "result" else f"gradient by {name}"


def _places(lengths: tuple[int, ...]) -> list[slice]:
    """The tokens of each document."""
    return [slice(start, end) for start, end in pairwise(accumulate(lengths, initial=0))]


def _indices(lengths: tuple[int, ...]) -> list[Tensor]:
    return [torch.arange(place.start, place.stop) for place in _places(lengths)]


def _part(problem: Problem, tokens: slice) -> Problem:
    """One document by itself, causal."""
    call = problem.call.with_tensors(lambda x: x[:, :, tokens].contiguous())
    call = replace(call, documents=None)
    return Problem(
        call=call, visible=None, bias=None, upstream=problem.upstream[:, :, tokens].contiguous()
    )
