"""The properties of kernels, one module a group; importing this package registers them in reading order."""

# isort: off
from holotype_conformance.kernels.properties import contract as contract
from holotype_conformance.kernels.properties import formula as formula
from holotype_conformance.kernels.properties import variants as variants
from holotype_conformance.kernels.properties import algebra as algebra
from holotype_conformance.kernels.properties import masks as masks
from holotype_conformance.kernels.properties import unseen as unseen
from holotype_conformance.kernels.properties import spans as spans
from holotype_conformance.kernels.properties import lengths as lengths
from holotype_conformance.kernels.properties import long_masks as long_masks
from holotype_conformance.kernels.properties import extremes as extremes
from holotype_conformance.kernels.properties import devices as devices

# isort: on
from holotype_conformance.judge.property import Property
from holotype_conformance.kernels.claims import CLAIMS
from holotype_conformance.kernels.subject import KernelSubject


def kernel_properties() -> tuple[Property[KernelSubject], ...]:
    """Every property of kernels, in reading order."""
    return CLAIMS.all()
