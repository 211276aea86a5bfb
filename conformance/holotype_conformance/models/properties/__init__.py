"""The properties of the suite, one module a group; importing this package registers them.

Imported in the order in which they are run and read: a candidate whose outputs have the wrong shape fails everything
that follows.
"""

# isort: off
from holotype_conformance.models.properties import interface as interface
from holotype_conformance.models.properties import agreement as agreement
from holotype_conformance.models.properties import rounding as rounding
from holotype_conformance.models.properties import softmax_sums as softmax_sums
from holotype_conformance.models.properties import parameters as parameters
from holotype_conformance.models.properties import causality as causality
from holotype_conformance.models.properties import long_causality as long_causality
from holotype_conformance.models.properties import padding as padding
from holotype_conformance.models.properties import batch as batch
from holotype_conformance.models.properties import caching as caching
from holotype_conformance.models.properties import long_caching as long_caching
from holotype_conformance.models.properties import rounded_caching as rounded_caching
from holotype_conformance.models.properties import positions as positions
from holotype_conformance.models.properties import losses as losses
from holotype_conformance.models.properties import modes as modes
from holotype_conformance.models.properties import sequence as sequence
from holotype_conformance.models.properties import training as training
from holotype_conformance.models.properties import storage as storage
from holotype_conformance.models.properties import devices as devices

# isort: on
from holotype_conformance.judge.property import Property
from holotype_conformance.models.claims import CLAIMS
from holotype_conformance.models.subject import Subject


def all_properties() -> tuple[Property[Subject], ...]:
    """Every property of models, in reading order."""
    return CLAIMS.all()
