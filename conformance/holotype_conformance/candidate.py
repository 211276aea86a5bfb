"""Moved to `holotype_conformance.models.candidate`; this name stays for one release."""

import sys

import holotype_conformance.models.candidate as _moved
from holotype_conformance.models.candidate import *  # noqa: F403  (for whoever reads types)

sys.modules[__name__] = _moved
