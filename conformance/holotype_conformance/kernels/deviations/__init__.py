"""The catalogue of what attention kernels get wrong: single changes of the formula, its backward pass, or their code.

As the catalogue of models it serves the suite's own test (``docs/kernel-kill-matrix.md``), the diagnosis of failures,
and ``holotype explain``.
"""

# isort: off
from holotype_conformance.kernels.deviations import (  # noqa: F401  (they fill the catalogue in this order)
    masks,
    windows,
    prefixes,
    documents,
    scales,
    heads,
    blocks,
    gradients,
    detached,
    results,
    sizes,
    devices,
    layouts,
    limits,
)

# isort: on
from holotype_conformance.kernels.deviations.candidate import DeviatedKernel
from holotype_conformance.kernels.deviations.deviation import (
    CATALOGUE,
    FormulaDeviation,
    KernelDeviation,
)

__all__ = ["CATALOGUE", "DeviatedKernel", "FormulaDeviation", "KernelDeviation"]
