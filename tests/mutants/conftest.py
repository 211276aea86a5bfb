"""The marker, and one server for all tests of a process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .runner import Server


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "mutants: the suite against an edited transformers")


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """Judges edits; a process of its own, so that no test sees an edited module."""
    pytest.importorskip("holotype_conformance")
    with Server() as running:
        yield running
