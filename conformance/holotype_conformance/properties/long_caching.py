"""Incremental decoding of long inputs: where a cache is full, wraps, or is read block by block."""

from __future__ import annotations

from hypothesis import strategies as st

from holotype_conformance.properties.caching import ChunkCase, check_chunks, tellings, unpadded
from holotype_conformance.properties.cases import shortest_alike
from holotype_conformance.properties.causality import decodes
from holotype_conformance.properties.long_causality import EDGES, long_lengths
from holotype_conformance.property import claim
from holotype_conformance.subject import Subject


def long_chunk_cases(subject: Subject) -> st.SearchStrategy[ChunkCase]:
    """Inputs that are read up to an edge at once, then a token at each edge by itself and what is between as chunks."""
    small = subject.probe(2)

    def at_length(length: int) -> st.SearchStrategy[ChunkCase]:
        least = shortest_alike(small, length)  # theta stays as the first chunk wants it
        places = {edge + step for edge in EDGES for step in (0, 1)} | {length - 1}
        cuts = sorted(place for place in places if least <= place < length)
        return st.builds(
            ChunkCase,
            length=st.just(length),
            cuts=st.integers(0, len(cuts) - 1).map(lambda skipped: tuple(cuts[skipped:])),
            batch=st.integers(1, 2),
            padding=unpadded(subject),
            told=tellings(subject),
            layers=st.integers(1, 2),
            weights=st.integers(0, 2),
            tokens=st.integers(0, 99),
        )

    alike = long_lengths(subject).filter(lambda n: shortest_alike(small, n) < n)
    return alike.flatmap(at_length)


@claim(
    slug="cache.long-rows",
    clause="A cache of hundreds of tokens changes nothing either.",
    level="must",
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
    case_type=ChunkCase,
    examples=3,
)
def long_chunks(subject: Subject, case: ChunkCase) -> None:
    check_chunks(subject, case)
