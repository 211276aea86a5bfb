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
