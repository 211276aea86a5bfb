"""Which gates run: those that fit into CI, or all of them with HOLOTYPE_BENCH=full."""

from __future__ import annotations

import os

import pytest
import torch


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out what is marked `full`, unless it is asked for."""
    if os.environ.get("HOLOTYPE_BENCH") == "full":
        return
    skip = pytest.mark.skip(reason="takes minutes: set HOLOTYPE_BENCH=full")
    for item in items:
        if item.get_closest_marker("full"):
            item.add_marker(skip)


def pytest_configure(config: pytest.Config) -> None:
    """Register the mark, and compute on one thread: under load two slow some kernels more than others."""
    config.addinivalue_line("markers", "full: takes minutes")
    torch.set_num_threads(1)
