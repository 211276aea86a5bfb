"""Moved to `holotype_conformance.pytest_plugin.plugin`; this name stays for one release."""

import sys

import holotype_conformance.pytest_plugin.plugin as _moved
from holotype_conformance.pytest_plugin.plugin import *  # noqa: F403  (for whoever reads types)

sys.modules[__name__] = _moved
