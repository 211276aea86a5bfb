"""What the plugin and its items keep with an item of pytest."""

import pytest

RESULT = pytest.StashKey[str]()  # the outcome of an item that judged a candidate
