"""The catalogue of deviations: single changes to a correct model, each named and documented.

It serves three ends: every deviation must be caught by the suite (``docs/kill-matrix.md``), a failure is diagnosed by
the deviation that explains it, and ``holotype explain`` says what goes wrong with this kind of model.
"""

# isort: off
from holotype_conformance.models.deviations import (  # noqa: F401  (they fill the catalogue in this order)
    masks,
    long_masks,
    prefixes,
    attention,
    rotary,
    lengths,
    yarn,
    latent,
    positions,
    alibi,
    sinusoids,
    disentangled,
    permuted,
    normalization,
    parallel,
    feed_forward,
    experts,
    embeddings,
    heads,
    outputs,
    loading,
    sharing,
    caching,
    modes,
    training,
    interface,
    devices,
    equivalent,
)

# isort: on
from holotype_conformance.models.deviations.candidate import DeviatedCandidate
from holotype_conformance.models.deviations.deviation import (
    CATALOGUE,
    Deviation,
    UnknownDeviation,
    all_deviations,
    applicable,
    find,
    names,
)

__all__ = [
    "CATALOGUE",
    "DeviatedCandidate",
    "Deviation",
    "UnknownDeviation",
    "all_deviations",
    "applicable",
    "find",
    "names",
]
