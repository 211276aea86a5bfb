"""Positions in packed sequences: documents one after the other in a row (Krell et al. 2021, section 3.2)."""

from __future__ import annotations

import torch
from torch import Tensor

from holotype_reference.masks import Documents


def restarted(documents: Documents, device: torch.device) -> Tensor:
    """(batch or 1, length): positions that start again with each of the packed documents."""
    rows = [[place for length in row for place in range(length)] for row in documents]
    return torch.tensor(rows, device=device)
