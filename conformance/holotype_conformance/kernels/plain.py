"""The plain implementation, in whatever dtype it is given: what a kernel's rounding is measured against.

The formula of `holotype_conformance.kernels.oracle`, operation by operation; only the softmax is taken in at least
float32, as all published codes do.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from holotype_conformance.kernels.cases import Problem


def plain(problem: Problem) -> Tensor:
    """The result for a problem, differentiable."""
    call = problem.call
    q, group = call.q, call.q.shape[1] // max(call.k.shape[1], 1)
    k, v = (x.repeat_interleave(group, dim=1) for x in (call.k, call.v))
    scores = (q @ k.mT) * (q.shape[-1] ** -0.5 if call.scale is None else call.scale)
    if problem.bias is not None:
        scores = scores + _tensor(problem.bias, q).to(q.dtype)
    scores = scores.to(torch.promote_types(q.dtype, torch.float32))
    if problem.visible is not None:
        visible = _tensor(problem.visible, q)
        scores = scores.masked_fill(~visible, float("-inf"))
        sighted = visible.any(-1, keepdim=True)
        scores = torch.where(sighted, scores, 0.0)
        weights = torch.where(sighted, scores.softmax(-1), 0.0)
    else:
        weights = scores.softmax(-1)
    return weights.to(q.dtype) @ v


def _tensor(array: NDArray[Any], like: Tensor) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array)).to(like.device)
