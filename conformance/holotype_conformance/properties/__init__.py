"""The properties of the suite, one module a group; importing this package registers them.

Imported in the order in which they are run and read: a candidate whose outputs have the wrong shape fails everything
that follows.
"""

# isort: off
from holotype_conformance.properties import interface as interface
from holotype_conformance.properties import agreement as agreement
from holotype_conformance.properties import rounding as rounding
from holotype_conformance.properties import long_rows as long_rows
from holotype_conformance.properties import parameters as parameters
from holotype_conformance.properties import causality as causality
from holotype_conformance.properties import long_causality as long_causality
from holotype_conformance.properties import padding as padding
from holotype_conformance.properties import batch as batch
from holotype_conformance.properties import caching as caching
from holotype_conformance.properties import long_caching as long_caching
from holotype_conformance.properties import rounded_caching as rounded_caching
from holotype_conformance.properties import positions as positions
from holotype_conformance.properties import losses as losses
from holotype_conformance.properties import modes as modes
from holotype_conformance.properties import sequence as sequence
from holotype_conformance.properties import training as training
from holotype_conformance.properties import storage as storage
from holotype_conformance.properties import devices as devices
