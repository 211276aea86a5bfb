"""Packed sequences: documents that lie one after the other in the keys, each of which sees itself alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import accumulate

import torch
from torch import Tensor

from holotype_conformance.kernels.candidate import Call, Lengths
from holotype_conformance.kernels.deviations.deviation import (
    RIGHT,
    codes,
    has_documents,
    hears,
    shows,
)
from holotype_conformance.kernels.deviations.formula import (
    causal,
    lengths,
    numbers,
    packings,
    places,
    same_document,
    stacked,
)

BLOCK = 16


def has_rows(call: Call) -> bool:
    """Each row of the batch with documents of its own."""
    return has_documents(call) and len(packings(call)) > 1


def _starts(row: Lengths, call: Call) -> Tensor:
    """(queries, 1): the key at which the document of each query begins."""
    begins = torch.tensor([0, *accumulate(row)][:-1], device=call.q.device)
    at, _ = places(call)
    return begins[numbers(row, call)[at.clamp(min=0)]]


@hears(
    "documents.ignored",
    "documents are ignored",
    "Packed sequences see all that stands before them in the pack. Training runs, loss is a"
    " little better than it should be, and depends on what was packed with what. Look at whether"
    " the lengths reach the kernel.",
    where=has_documents,
)
def ignored(call: Call) -> Call:
    return replace(call, documents=None)


@shows(
    "documents.both-ways",
    "a document sees itself both ways",
    "A mask of equal document numbers was taken for the whole mask: inside a document the future"
    " is seen. It is to be joined with the causal one.",
    where=has_documents,
)
def both_ways(call: Call) -> Tensor:
    return stacked(same_document(row, call) for row in packings(call))


@shows(
    "documents.one-back",
    "each document sees the last token of the one before",
    "A token of another text is read at each document's beginning. The boundary belongs to the"
    " document that begins there: compare < with <= where a key is held against cu_seqlens.",
    where=has_documents,
)
def one_back(call: Call) -> Tensor:
    _, key = places(call)
    return stacked(
        causal(call) & (key >= _starts(row, call) - 1) if call.k.shape[2] else causal(call)
        for row in packings(call)
    )


def _shifted(by: int) -> Callable[[Call], Tensor]:
    """Every boundary `by` keys further on."""

    def shown(call: Call) -> Tensor:
        return stacked(
            causal(call) & same_document(_moved(row, call), call) for row in packings(call)
        )

    def _moved(row: Lengths, call: Call) -> Lengths:
        keys = call.k.shape[2]
        ends = [min(max(end + by, 0), keys) for end in [*accumulate(row)][:-1]]
        return tuple(end - begin for begin, end in zip([0, *ends], [*ends, keys], strict=True))

    return shown


shows(
    "documents.late",
    "every boundary lies one token too late",
    "The first token of a document is counted to the one before: it sees that one, and its own"
    " document does not see it. A special token that a tokenizer puts in front and the count of"
    " lengths leaves out does it.",
    where=has_documents,
)(_shifted(1))
shows(
    "documents.early",
    "every boundary lies one token too early",
    "The last token of a document, mostly its end, is counted to the next: it sees nothing of"
    " what it ends. Lengths that were taken from inputs which are one shorter than the text,"
    " because labels were cut off, do it.",
    where=has_documents,
)(_shifted(-1))


@shows(
    "documents.upper-left",
    "the first query stands at the first key instead of the last at the last",
    "In one pass over a whole pack nothing shows. With a cache the queries are taken for those of"
    " the first document, and see that instead of their own. The place of a query is i + keys -"
    " queries.",
    where=has_documents,
)
def documents_upper_left(call: Call) -> Tensor:
    queries, keys = lengths(call)
    size = max(queries, keys)
    square = replace(call, q=_stretched(call.q, size), k=_stretched(call.k, size))
    return stacked(
        (causal(square) & same_document((*row, size - keys), square))[:queries, :keys]
        for row in packings(call)
    )


def _stretched(x: Tensor, length: int) -> Tensor:
    """A tensor of that length, of which nothing but its sizes is used."""
    return x.new_empty((1, 1, 1, 1)).expand(1, 1, length, 1)


@shows(
    "documents.last-missing",
    "the last document is left out",
    "Its queries see nothing, and give zeros or NaN. cu_seqlens has one entry more than there are"
    " documents: a loop over one entry fewer leaves the last one out, and so does a list without"
    " its end.",
    where=has_documents,
)
def last_missing(call: Call) -> Tensor:
    keys = call.k.shape[2]
    return stacked(
        causal(call) & same_document(row, call) & (_starts(row, call) != keys - row[-1])
        if keys
        else causal(call)
        for row in packings(call)
    )


@hears(
    "documents.first-row",
    "every row of the batch has the documents of the first",
    "With one row in the batch, or the same lengths in all, nothing shows. The table of"
    " boundaries is to be indexed by the batch.",
    where=has_rows,
)
def first_row(call: Call) -> Call:
    return replace(call, documents=packings(call)[0])


@shows(
    "documents.one-both-ways",
    "a single document is seen both ways",
    "One text that fills the row has no boundary, and takes another path than packs do, on which"
    " causal is lost. Packs are right, and what is evaluated alone is not.",
    where=lambda call: has_documents(call) and all(len(row) == 1 for row in packings(call)),
    named=False,
)
def one_both_ways(call: Call) -> Tensor:
    return both_ways.formula.shown(call)  # type: ignore[return-value]


# What no mask says ----------------------------------------------------------------------------------------------


@codes(
    "documents.rest-dropped",
    "a last document that fills no block of 16 gives zeros",
    "Whole blocks are served, and the rest of the last document is none: its queries stay what"
    " the buffer held. Documents before it have their rest in the next one's block, so that order"
    " matters. Round the number of blocks up.",
)
def rest_dropped(call: Call) -> Tensor:
    found = RIGHT(call)
    if not has_documents(call) or has_rows(call) or packings(call)[0][-1] % BLOCK == 0:
        return found
    queries, _ = lengths(call)
    served = torch.arange(queries, device=found.device) < queries - packings(call)[0][-1]
    return found * served[:, None]


@codes(
    "documents.sum-leaks",
    "a hundred thousandth of the mean over the whole pack is in each result",
    "An accumulator that is not set back between documents, or a correction that is taken over"
    " the row, leaks a little of each document into the others. Tolerances of half precision hide"
    " it; that a document must not depend on its neighbour at all does not.",
)
def sum_leaks(call: Call) -> Tensor:
    found = RIGHT(call)
    if not has_documents(call) or not call.k.shape[2]:
        return found
    group = call.q.shape[1] // call.k.shape[1]
    mean = call.v.mean(2, keepdim=True).repeat_interleave(group, 1)
    return found + 1e-5 * mean


@codes(
    "documents.counted-through",
    "queries are scaled by the number of their document",
    "A document in second place is not what it is alone: positions, or a scale by them, are"
    " counted through the pack instead of from each document's beginning. Pack in another order,"
    " and outputs move.",
)
def counted_through(call: Call) -> Tensor:
    if not has_documents(call) or has_rows(call) or not call.k.shape[2]:
        return RIGHT(call)
    at, _ = places(call)
    number = numbers(packings(call)[0], call)[at.clamp(min=0)].to(call.q.dtype)
    return RIGHT(replace(call, q=call.q * (1 + 0.1 * number)))


class _Smeared(torch.autograd.Function):
    """The gradient by the keys at a place takes a little of its neighbour's."""

    @staticmethod
    def forward(ctx: object, k: Tensor) -> Tensor:
        return k.view_as(k)

    @staticmethod
    def backward(ctx: object, *upstream: Tensor) -> Tensor:
        return upstream[0] + 0.01 * upstream[0].roll(1, 2)


@codes(
    "documents.gradients-cross",
    "gradients by the keys cross the boundaries of documents",
    "Results are right, and a document's gradient has a hundredth of its neighbour's. In a"
    " backward pass that walks over blocks of keys, the one in which two documents meet is written"
    " once for both. Mask scores there as on the way forward.",
)
def gradients_cross(call: Call) -> Tensor:
    smeared: Tensor = _Smeared.apply(call.k)  # type: ignore[no-untyped-call]
    return RIGHT(replace(call, k=smeared) if has_documents(call) else call)
