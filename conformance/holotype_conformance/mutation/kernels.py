"""The deviations of kernels; of those that differ in the size of a block alone, one that the name chooses."""

from __future__ import annotations

from zlib import crc32

from holotype_conformance.judge.deviation import family_of
from holotype_conformance.kernels.deviations import CATALOGUE, DeviatedKernel, KernelDeviation
from holotype_conformance.kernels.subject import KernelContract, KernelSubject
from holotype_conformance.kernels.suite import KERNELS as SUITE
from holotype_conformance.mutation.kills import Mutants

# What is likely to kill the deviations of a group, or of a part of one, tried before everything else.
LIKELY: dict[str, tuple[str, ...]] = {
    "causal": ("masks.causal", "masks.diagonal", "masks.together"),
    "mask": ("masks.boolean", "masks.additive", "masks.broadcast", "masks.hidden-keys"),
    "window": ("masks.window",),
    "band": ("masks.band",),
    "prefix": ("prefix.formula", "prefix.limits", "prefix.rows"),
    "documents": ("documents.formula", "documents.one", "documents.rows"),
    "scale": ("formula.float64", "formula.scale", "formula.float16"),
    "softmax": ("formula.float64", "extremes.*"),
    "values": ("formula.float64", "masks.unseen-nan"),
    "scores": ("formula.float64",),
    "heads": ("algebra.grouped-heads", "algebra.*"),
    "batch": ("hardware.batch-sizes",),
    "head-dim": ("lengths.head-dim",),
    "keys": ("lengths.query-length",),
    "blocks": ("lengths.block-edges", "lengths.rising-scores", "masks.causal", "lengths.*"),
    "blocks.of-first-row": ("lengths.masks",),
    "blocks.upper-left": ("lengths.cache",),
    "gradients": (
        "gradients.float64",
        "gradients.*",
        "algebra.grouped-heads",
        "lengths.block-edges",
    ),
    "gradients.causal": ("masks.causal", "masks.diagonal"),
    "gradients.window": ("masks.window",),
    "gradients.band": ("masks.band",),
    "gradients.mask": ("masks.boolean",),
    "gradients.prefix": ("prefix.formula", "prefix.rows"),
    "gradients.documents": ("documents.formula", "documents.rows"),
    "softmax.nan-rows": ("masks.no-key",),
    "detached": ("gradients.second-derivatives",),
    "result": ("contract.*",),
    "inputs": ("contract.*",),
    "sizes": ("lengths.block-edges",),
    "empty": ("lengths.*",),
    "devices": ("hardware.placement",),
    "threads": ("hardware.threads",),
    "backends": ("hardware.back-ends",),
    "compiled": ("hardware.captured", "hardware.compiled"),
    "limit": ("lengths.block-edges", "lengths.*", "algebra.grouped-heads"),
}


def rows() -> tuple[KernelDeviation, ...]:
    """One of each family, in reading order."""
    families: dict[str, list[KernelDeviation]] = {}
    for deviation in CATALOGUE:
        families.setdefault(family_of(deviation.slug), []).append(deviation)
    return tuple(
        members[crc32(family.encode()) % len(members)] for family, members in families.items()
    )


def subject(deviation: KernelDeviation, spec: KernelContract) -> KernelSubject:
    """The deviated kernel."""
    return KernelSubject(DeviatedKernel(deviation))


KERNELS = Mutants(
    suite=SUITE,
    catalogue=CATALOGUE,
    rows=rows,
    specs=lambda deviation: [KernelContract()],
    subject=subject,
    likely=LIKELY,
    otherwise=("formula.float64",),
)
