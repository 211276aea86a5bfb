"""GPT-2 as somebody else wrote it: their names, their layouts, their cache, and no Holotype.

Radford et al. 2019, "Language Models are Unsupervised Multitask Learners", and the authors' code,
openai/gpt-2, src/model.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Keys and values of a layer, each (batch, heads, tokens so far, width / heads).
LayerCache = tuple[Tensor, Tensor]

# Module names of the released checkpoint -> ours.
RELEASED_NAMES = {
    "wte": "words",
    "wpe": "places",
    "h": "blocks",
    "ln_1": "norm_a",
    "attn": "attention",
    "c_attn": "qkv",
    "ln_2": "norm_m",
    "c_fc": "widen",
    "c_proj": "project",
    "ln_f": "norm",
}
# The matrix of words a second time, and the constant masks that older files carry along.
NOT_OURS = ("lm_head.weight", ".attn.bias", ".attn.masked_bias")


@dataclass(frozen=True)
class Settings:
    """The sizes of a GPT-2. The smallest released one is ``Settings()``."""

    vocabulary: int = 50_257
    context: int = 1024
    width: int = 768
    heads: int = 12
    depth: int = 12
    dropout: float = 0.1


class Attention(nn.Module):
    """Causal self-attention. One matrix makes queries, keys and values."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.heads = settings.heads
        self.qkv = nn.Linear(settings.width, 3 * settings.width)
        self.project = nn.Linear(settings.width, settings.width)
        self.dropout = nn.Dropout(settings.dropout)

    def forward(
        self, x: Tensor, keep: Tensor | None, past: LayerCache | None
    ) -> tuple[Tensor, LayerCache]:
        """x is (batch, new tokens, width); `keep` (batch, all tokens) is False at padding."""
        batch, new, width = x.shape
        split = self.qkv(x).view(batch, new, 3, self.heads, width // self.heads)
        query, key, value = split.permute(2, 0, 3, 1, 4)
        if past is not None:
            key = torch.cat([past[0], key], dim=2)
            value = torch.cat([past[1], value], dim=2)
        allowed = self.visible(new, key.shape[2], x.device)
        if keep is not None:
            allowed = allowed & keep[:, None, None, :]
        scores = query @ key.transpose(2, 3) / (width // self.heads) ** 0.5
        # The lowest number and not -inf: a padding token that sees nothing must stay finite.
        scores = scores.masked_fill(~allowed, torch.finfo(scores.dtype).min)
        mixed = self.dropout(scores.softmax(dim=-1)) @ value
        return self.project(mixed.transpose(1, 2).reshape(batch, new, width)), (key, value)

    def visible(self, new: int, total: int, device: torch.device) -> Tensor:
        """(new, total): whether a new token may see a token. The new ones are the last of all."""
        places = torch.arange(total, device=device)
        return places <= places[total - new :, None]


class FeedForward(nn.Module):
    """Four times wider, the tanh form of GELU, and back."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.widen = nn.Linear(settings.width, 4 * settings.width)
        self.project = nn.Linear(4 * settings.width, settings.width)

    def forward(self, x: Tensor) -> Tensor:
        return self.project(self.activate(self.widen(x)))

    def activate(self, x: Tensor) -> Tensor:
        return F.gelu(x, approximate="tanh")


class Block(nn.Module):
    """Attention and feed-forward, each with its norm in front and a residual around."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.norm_a = nn.LayerNorm(settings.width, eps=1e-5)
        self.attention = Attention(settings)
        self.norm_m = nn.LayerNorm(settings.width, eps=1e-5)
        self.mlp = FeedForward(settings)
        self.dropout = nn.Dropout(settings.dropout)

    def forward(
        self, x: Tensor, keep: Tensor | None, past: LayerCache | None
    ) -> tuple[Tensor, LayerCache]:
        attended, present = self.attention(self.norm_a(x), keep, past)
        x = x + self.dropout(attended)
        return x + self.dropout(self.mlp(self.norm_m(x))), present


class GPT2(nn.Module):
    """The whole model. The matrix that reads words in also writes them out."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.words = nn.Embedding(settings.vocabulary, settings.width)
        self.places = nn.Embedding(settings.context, settings.width)
        self.dropout = nn.Dropout(settings.dropout)
        self.blocks = nn.ModuleList(Block(settings) for _ in range(settings.depth))
        self.norm = nn.LayerNorm(settings.width, eps=1e-5)
        self.apply(self.initialise)

    @staticmethod
    def initialise(module: nn.Module) -> None:
        """The starting values of training: small matrices, no biases."""
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)
        if isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)

    def forward(
        self,
        words: Tensor,
        keep: Tensor | None = None,
        places: Tensor | None = None,
        past: list[LayerCache] | None = None,
    ) -> tuple[Tensor, list[LayerCache]]:
        """Logits of the next word after each of `words`, and the cache to continue from.

        Args:
            words: (batch, new tokens) token ids.
            keep: (batch, cached + new tokens), 1 at words and 0 at padding. None: no padding.
            places: (batch, new tokens) the position of each. None: they follow the cached ones.
                A batch that is padded on the left wants them given: its words stand further right.
            past: the cache that the call before returned, or None at the start.
        """
        if places is None:
            places = self.next_places(words, past)
        x = self.dropout(self.words(words) + self.places(places))
        keep = None if keep is None else keep.bool()
        presents = []
        for index, block in enumerate(self.blocks):
            x, present = block(x, keep, past[index] if past else None)
            presents.append(present)
        return F.linear(self.norm(x), self.words.weight), presents

    def next_places(self, words: Tensor, past: list[LayerCache] | None) -> Tensor:
        """(new tokens,): the positions right after the cached ones."""
        start = past[0][0].shape[2] if past else 0
        return torch.arange(start, start + words.shape[1], device=words.device)

    def load_released(self, checkpoint: Mapping[str, Tensor]) -> None:
        """Copy in the released weights, under the names that the Hugging Face hub has them by."""
        ours = {}
        for name, tensor in checkpoint.items():
            if name.endswith(NOT_OURS):
                continue
            parts = name.removeprefix("transformer.").split(".")
            # The release stores its linear layers (inputs, outputs), torch the other way round.
            flipped = parts[-1] == "weight" and parts[-2].startswith("c_")
            renamed = ".".join(RELEASED_NAMES.get(part, part) for part in parts)
            ours[renamed] = tensor.T if flipped else tensor
        self.load_state_dict(ours)
