"""Incremental decoding of long inputs: where a cache is full, wraps, or is read block by block."""

from __future__ import annotations

from hypothesis import strategies as st

from holotype_conformance.models.cases import can_pad_left, shortest_alike
from holotype_conformance.models.claims import claim
from holotype_conformance.models.properties.caching import (
    ChunkCase,
    check_chunks,
    tellings,
    unpadded,
)
from holotype_conformance.models.properties.causality import decodes
from holotype_conformance.models.properties.long_causality import EDGES, long_lengths
from holotype_conformance.models.subject import Subject

ROWS_PADDED = 2  # of a batch that is padded: one that is, and one that is not


def long_chunk_cases(subject: Subject) -> st.SearchStrategy[ChunkCase]:
    """Inputs that are read up to an edge at once, then a token at each edge by itself and what is between as chunks.

    As often as not the first edge is the first of all. Under left padding, blocks of a row are padding throughout.
    """
    small = subject.probe(2)
    paddings = unpadded(subject)
    if can_pad_left(subject):
        paddings = st.one_of(paddings, st.just("left"), st.just("left"))

    def at_length(length: int, padding: str) -> st.SearchStrategy[ChunkCase]:
        rows = ROWS_PADDED if padding == "left" else 1
        least = shortest_alike(small, length, rows)  # theta stays as the first chunk wants it
        places = {edge + step for edge in EDGES for step in (0, 1)} | {length - 1}
        cuts = sorted(place for place in places if least <= place < length)
        skipped = st.one_of(st.just(0), st.integers(0, len(cuts) - 1))
        return st.builds(
            ChunkCase,
            length=st.just(length),
            cuts=skipped.map(lambda edges: tuple(cuts[edges:])),
            batch=st.just(rows) if padding == "left" else st.integers(1, 2),
            padding=st.just(padding),
            told=st.just(subject.has("position-ids")) if padding == "left" else tellings(subject),
            layers=st.integers(1, 2),
            weights=st.integers(0, 2),
            tokens=st.integers(0, 99),
        )

    drawn = st.tuples(long_lengths(subject), paddings)
    alike = drawn.filter(lambda each: shortest_alike(small, each[0], ROWS_PADDED) < each[0])
    return alike.flatmap(lambda each: at_length(*each))


@claim(
    slug="cache.long-rows",
    clause="Decoding with a long KV cache equals one full pass.",
    meaning=(
        "Reading up to 523 tokens in chunks, if the model takes as many, gives what one full pass gives. The first"
        " chunk ends at one of the places where blocks of a kernel meet and buffers end (64, 128, 256 and 512), or"
        " one token behind it; there and at all later ones a single token is read, and what is between them at once. A"
        " model that fails here alone reads short inputs rightly. Look at a cache of a fixed size that wraps or stops,"
        " at a mask for the steps that was made for a number of keys, and at a kernel that splits the keys of a step. A"
        " model with room for fewer tokens than the spec has in max_positions raises here, as in causality.long-rows."
    ),
    catches=(
        "cache that is full and forgets",
        "rolling cache that wraps wrongly",
        "mask of the steps too short",
    ),
    needs=("cache",),
    binds=("max_positions",),
    applies=decodes,
    cases=long_chunk_cases,
    examples=3,
    apart=True,
)
def long_chunks(subject: Subject, case: ChunkCase, path: str) -> None:
    check_chunks(subject, case, path)
