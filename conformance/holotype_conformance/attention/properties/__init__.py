"""The properties of kernels, one module a group; importing this package registers them in reading order."""

# isort: off
from holotype_conformance.attention.properties import contract as contract
from holotype_conformance.attention.properties import formula as formula
from holotype_conformance.attention.properties import twice as twice
from holotype_conformance.attention.properties import algebra as algebra
from holotype_conformance.attention.properties import masks as masks
from holotype_conformance.attention.properties import unseen as unseen
from holotype_conformance.attention.properties import spans as spans
from holotype_conformance.attention.properties import lengths as lengths
from holotype_conformance.attention.properties import long_masks as long_masks
from holotype_conformance.attention.properties import extremes as extremes
from holotype_conformance.attention.properties import hardware as hardware
