"""Attention kernels as people write them, tile by tile with a running maximum and sum, each with a bug or none."""

import math

import torch

LOG2E = math.log2(math.e)


def tiled(block, bug=None, *, inside=None):
    """An attention function; `inside` is the dtype of its sums, by default that of its inputs, at least float32."""

    def attention(q, k, v, *, causal=False, scale=None):
        wide = inside or torch.promote_types(q.dtype, torch.float32)
        scale = q.shape[-1] ** -0.5 if scale is None else scale
        group = q.shape[1] // max(k.shape[1], 1)
        k, v = k.repeat_interleave(group, 1).to(wide), v.repeat_interleave(group, 1).to(wide)
        tiles = []
        for start in range(0, max(q.shape[2], 1), block):
            rows = torch.arange(start, min(start + block, q.shape[2]), device=q.device)
            loop = apart if bug in ("blocks.added", "blocks.averaged") else online
            tiles.append(
                loop(q[:, :, rows].to(wide), k, v, rows, q.shape[2], block, bug, causal, scale)
            )
        return torch.cat(tiles, 2).to(q.dtype)

    return attention


def blocks(keys, rows, queries, block, bug, causal):
    """The first key of each block that the loop visits."""
    end = keys
    if causal:
        offset = 0 if bug == "blocks.upper-left" else keys - queries
        end = min(keys, int(rows[0]) + block + offset) if len(rows) else keys
    if bug == "blocks.diagonal-skipped" and causal:
        end = (int(rows[0]) + keys - queries) // block * block if len(rows) else keys
    if bug == "blocks.rest-dropped":
        end = min(-(-end // block) * block, keys // block * block)
    return range(0, end, block)


def seen(start, stop, rows, keys, queries, causal):
    places = torch.arange(start, stop, device=rows.device)
    return (places <= rows[:, None] + keys - queries) if causal else places >= 0


def online(q, k, v, rows, queries, block, bug, causal, scale):
    keys = k.shape[2]
    m = q.new_full((*q.shape[:3], 1), -math.inf)
    total, acc = torch.zeros_like(m), torch.zeros_like(q)
    in_base_two = bug in ("softmax.log2e-left", "blocks.rescaled-by-exp")
    exp = torch.exp2 if bug in ("softmax.base-two", "blocks.rescaled-by-exp") else torch.exp
    for j in blocks(keys, rows, queries, block, bug, causal):
        kj, vj = k[:, :, j : j + block], v[:, :, j : j + block]
        shown = seen(j, j + kj.shape[2], rows, keys, queries, causal)
        if bug == "blocks.padding-counted" and not causal:
            lack = block - kj.shape[2]
            kj, vj = (torch.nn.functional.pad(x, (0, 0, 0, lack)) for x in (kj, vj))
            shown = torch.ones(block, dtype=torch.bool, device=q.device)
        s = (q @ kj.mT * scale * (LOG2E if in_base_two else 1.0)).masked_fill(~shown, -math.inf)
        m_new = torch.maximum(m, s.detach().amax(-1, keepdim=True))
        safe = m_new.masked_fill(m_new.isneginf(), 0.0)
        p = exp(s - safe)
        correction = corrected(m - safe, exp, bug, scale)
        total = (1.0 if bug in KEEPS_SUM else correction) * total + p.sum(-1, keepdim=True)
        acc = (1.0 if bug in KEEPS_OUTPUT else correction) * acc + p @ vj
        m = m_new
    return acc / (total if bug == "blocks.rest-dropped" else total.masked_fill(total == 0, 1.0))


KEEPS_SUM = ("blocks.sum-not-rescaled", "blocks.neither-rescaled")
KEEPS_OUTPUT = ("blocks.output-not-rescaled", "blocks.neither-rescaled")


def corrected(fall, exp, bug, scale):
    match bug:
        case "blocks.rescaled-by-exp2":
            return torch.exp2(fall)
        case "blocks.rescaled-by-exp":
            return torch.exp(fall)
        case "blocks.rescaled-without-scale":
            return torch.exp(fall / scale if scale else fall)
        case _:
            return exp(fall)


def apart(q, k, v, rows, queries, block, bug, causal, scale):
    """Each block by itself."""
    keys, parts = k.shape[2], []
    for j in range(0, keys, block):
        kj, vj = k[:, :, j : j + block], v[:, :, j : j + block]
        shown = seen(j, j + kj.shape[2], rows, keys, queries, causal)
        s = (q @ kj.mT * scale).masked_fill(~shown, -math.inf)
        p = s.masked_fill(s.isneginf().all(-1, keepdim=True), -1e30).softmax(-1)
        parts.append((p * shown) @ vj)
    if not parts:
        return torch.zeros_like(q)
    return sum(parts) / (len(parts) if bug == "blocks.averaged" else 1)
