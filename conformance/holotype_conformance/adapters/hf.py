"""Moved to `holotype_conformance.models.adapters.hf.released`; this name stays for one release."""

import sys

import holotype_conformance.models.adapters.hf.released as _moved
from holotype_conformance.models.adapters.hf.released import *  # noqa: F403  (for whoever reads types)

sys.modules[__name__] = _moved
