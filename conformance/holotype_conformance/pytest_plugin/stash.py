"""Keys under which the plugin and its items store things with an item of pytest."""

import pytest

RESULT = pytest.StashKey[str]()  # the outcome of an item that judged a candidate
