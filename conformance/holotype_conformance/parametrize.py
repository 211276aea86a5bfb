"""Moved to `holotype_conformance.pytest_plugin.parametrize`; this name stays for one release."""

import sys

import holotype_conformance.pytest_plugin.parametrize as _moved
from holotype_conformance.pytest_plugin.parametrize import *  # noqa: F403  (for whoever reads types)

sys.modules[__name__] = _moved
