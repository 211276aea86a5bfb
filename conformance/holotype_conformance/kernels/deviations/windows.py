"""Windows: the last keys up to the diagonal, and without causal those on both sides of it."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from holotype_conformance.kernels.candidate import Call
from holotype_conformance.kernels.deviations.deviation import has_band, has_window, hears, shows
from holotype_conformance.kernels.deviations.formula import lengths, stacked

OFF_BY_ONE = (
    "huggingface/transformers#26792",
    "huggingface/transformers#39408",
    "huggingface/transformers#29623",
    "ml-explore/mlx-lm#390",
    "vllm-project/vllm#3385",
)


def _width(call: Call) -> int:
    assert call.window is not None
    return call.window


@hears(
    "window.wider",
    "the window is one wider",
    "A window of w keys counts the query's own among them. flash-attention's window_size=(w, 0)"
    " has w keys beside it, and so w + 1: pass w - 1 there. No input that is shorter than the"
    " window shows it.",
    where=has_window,
    reports=OFF_BY_ONE,
)
def wider(call: Call) -> Call:
    return replace(call, window=_width(call) + 1)


@hears(
    "window.narrower",
    "the window is one narrower",
    "The oldest key that a query is to see is hidden. It is w - 1 that was subtracted twice, in"
    " an adapter and in the kernel that it adapts, or < for <= in the comparison with the"
    " distance.",
    where=has_window,
    reports=OFF_BY_ONE,
)
def narrower(call: Call) -> Call:
    return replace(call, window=_width(call) - 1)


@shows(
    "window.upper-left",
    "the window's diagonal starts at the first key instead of ending at the last",
    "With as many queries as keys nothing shows. In decoding with a cache the window lies at the"
    " beginning of the text, and stays there. Offset the place of each query by keys - queries,"
    " for both of the window's edges.",
    where=has_window,
)
def window_upper_left(call: Call) -> Tensor:
    queries, keys = lengths(call)
    away = torch.arange(queries, device=call.q.device)[:, None] - torch.arange(
        keys, device=call.q.device
    )
    return stacked([(away >= 0) & (away < _width(call))])


@hears(
    "window.ignored",
    "the window is ignored",
    "Attention is causal over the whole text. Up to the window's length the model is right;"
    " beyond it, where it was never trained to look, it gets worse with the length. Often one back"
    " end takes the window and the one it falls back to does not.",
    where=has_window,
    reports=("unslothai/unsloth#8253", "goombalab/hnet#20"),
)
def window_ignored(call: Call) -> Call:
    return replace(call, window=None)


@hears(
    "window.both-sides",
    "a window with causal reaches to both sides",
    "Within the window the future is seen. It happens where a window replaces causal instead of"
    " narrowing it: of flash-attention's two numbers the second is to be 0.",
    where=has_window,
)
def both_sides(call: Call) -> Call:
    return replace(call, causal=False)


@hears(
    "band.causal",
    "a window without causal is causal",
    "An encoder with local attention is blind to its right. It trains, and is worse. A kernel"
    " that takes every window for a causal one must be told so, or must refuse a window without"
    " causal.",
    where=has_band,
)
def band_causal(call: Call) -> Call:
    return replace(call, causal=True)


@hears(
    "band.wider",
    "the band is one wider on each side",
    "Without causal a window of w keys shows what is less than w away, on both sides. Kernels"
    " that take two numbers mean the keys beside the query's own: pass w - 1 for each of them.",
    where=has_band,
    reports=("huggingface/transformers#39408",),
)
def band_wider(call: Call) -> Call:
    return replace(call, window=_width(call) + 1)


@hears(
    "band.ignored",
    "a window without causal is ignored",
    "Local attention of an encoder becomes global. It is right for short texts. Look for a kernel"
    " whose window is applied in its causal branch alone.",
    where=has_band,
)
def band_ignored(call: Call) -> Call:
    return replace(call, window=None)


@hears(
    "window.zero-taken",
    "a window of one key is taken for none",
    "The number w - 1 is 0 for a window of one key, and 0 is what some kernels take for no window"
    " at all: everything up to the diagonal is seen. Let -1 or None say that there is none.",
    where=lambda call: has_window(call) and call.window == 1,
    named=False,
)
def zero_taken(call: Call) -> Call:
    return replace(call, window=None)
