"""A model, assembled from its spec: embeddings, one or two stacks of layers, and a head.

Every choice between mechanisms is a match on a class of the spec; no line knows the name of a model. `README.md`
beside this file says in which order to read the others, and what names are called in the papers. Axes stand in this
order everywhere: batch, heads, length (or queries, keys), width.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from holotype_reference.attention import Source, WeightedSum
from holotype_reference.basics import Linear
from holotype_reference.cache import Cache
from holotype_reference.checks import check_given
from holotype_reference.embeddings import Embeddings, LanguageModelHead, Placement
from holotype_reference.heads import MaskedLanguageModelHead, Pooler, ReplacedTokenHead
from holotype_reference.inputs import Inputs, check_tokens, restarted
from holotype_reference.kernels.paths import PATHS, Path
from holotype_reference.mask_decoder import EnhancedMaskDecoder, MaskDecodingStack
from holotype_reference.masks import Mask, Prefix
from holotype_reference.positions import two_dimensional
from holotype_reference.stack import Stack
from holotype_reference.support import check_supported
from holotype_reference.two_streams import QueryEmbeddings, TwoStreamStack
from holotype_spec import schema
from holotype_spec.parameters import parameter_table, places_each_stack

Head = LanguageModelHead | MaskedLanguageModelHead | ReplacedTokenHead


def build(spec: schema.Spec, *, path: Path = "fused") -> Model:
    """The reference model of a spec, freshly initialised, on the default device and in the default dtype.

    Args:
        spec: any spec that `holotype_reference.support.unsupported` says nothing of, full-size or a probe. Under
            ``torch.device("meta")`` nothing is allocated.
        path: how attention is computed: "fused" through torch's kernels, "eager" step by step as in the formula.

    Raises:
        UnsupportedMechanism: the spec has a mechanism that there is no class for yet.
        ValueError: there is no such path.
    """
    check_supported(spec)
    if path not in PATHS:
        raise ValueError(f"path must be one of {', '.join(PATHS)}, not {path!r}")
    return Model(spec, path=path)


@dataclass(frozen=True, kw_only=True)
class Output:
    """What a model returns.

    Attributes:
        logits: (batch, length, logit_size), which is vocab_size or 1.
        next_sentence: (batch, 2), of models with that head: class 0 says that the second sentence follows the first.
        cache: the cache that was handed in, extended, or None.
    """

    logits: Tensor
    next_sentence: Tensor | None
    cache: Cache | None


class Model(nn.Module):
    """A whole model. Its ``state_dict`` has exactly the names and shapes of `holotype_spec.tensor_table`."""

    def __init__(self, spec: schema.Spec, *, path: Path) -> None:
        super().__init__()
        self.spec = spec
        self.embeddings = QueryEmbeddings(spec) if spec.permuted else Embeddings(spec)
        self.source_embeddings = Placement(spec) if places_each_stack(spec) else None
        last = head(spec)
        weigh, pattern = PATHS[path], spec.architecture.attention.pattern
        match spec.architecture.structure:
            case "encoder":
                self.encoder = self.stack(pattern, last, weigh=weigh)
            case "decoder":
                self.decoder = self.stack(pattern, last, weigh=weigh)
            case "encoder-decoder":
                both, depth = schema.Bidirectional(), spec.encoder_depth
                self.encoder = Stack(spec, both, depth=depth, cross=False, weigh=weigh)
                self.decoder = Stack(spec, pattern, depth=spec.layers, cross=True, weigh=weigh)
        self.pooler: Pooler | None = None
        match spec.architecture.head:
            case schema.MaskedLanguageModelHead(sentence_pair="next-sentence" | "sentence-order"):
                self.pooler = Pooler(spec.hidden_size, spec.hidden_size)
                self.next_sentence = Linear(spec.hidden_size, 2)
        self.head = last
        self.reset_parameters()

    def stack(self, pattern: schema.Pattern, last: Head, *, weigh: WeightedSum) -> Stack:
        """The stack of a model that has only one."""
        spec, depth = self.spec, self.spec.layers
        if isinstance(self.embeddings, QueryEmbeddings):
            return TwoStreamStack(spec, pattern, depth, self.embeddings, weigh=weigh)
        if isinstance(last, EnhancedMaskDecoder):
            return MaskDecodingStack(spec, pattern, depth, last, weigh=weigh)
        return Stack(spec, pattern, depth=depth, cross=False, weigh=weigh)

    def reset_parameters(self) -> None:
        """Matrices, embeddings and score biases from N(0, 0.02²), gains one, shifts and biases zero.

        So GPT and BERT begin (Radford et al. 2018, 4.1; the BERT release, initializer_range). The other models here are
        given the same: what a trained model is does not depend on it. On the meta device there is nothing to set.
        """
        parameters = dict(self.named_parameters())
        if self.embeddings.token.weight.is_meta:
            return
        for row in parameter_table(self.spec):
            match row.role:
                case "gain":
                    nn.init.ones_(parameters[row.name])
                case "shift" | "bias":
                    nn.init.zeros_(parameters[row.name])
                case "embedding" | "matrix" | "score-bias":
                    nn.init.normal_(parameters[row.name], std=0.02)

    def forward(
        self,
        token_ids: Tensor,
        *,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        token_types: Tensor | None = None,
        source_ids: Tensor | None = None,
        source_mask: Tensor | None = None,
        cache: Cache | None = None,
        **further: Any,
    ) -> Output:
        """Logits for every token.

        Args:
            token_ids, attention_mask, …: the fields of `Inputs`, which says what each of them is.

        Raises:
            ValueError: an argument does not fit the spec or the others; nothing has been computed then.
        """
        inputs = Inputs(
            token_ids=token_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            token_types=token_types,
            source_ids=source_ids,
            source_mask=source_mask,
            cache=cache,
            **further,
        )
        check_tokens(self.spec, inputs)
        if inputs.more or self.spec.architecture.structure == "encoder-decoder":
            check_given(self.spec, inputs)
        if cache is not None:
            inputs = replace(inputs, prefix=remembered(inputs.prefix, cache))
        positions = self.positions(inputs, inputs.cached)
        inputs = replace(inputs, position_ids=positions)
        x = self.embeddings(token_ids, positions, token_types)
        x = self.writer(x, inputs=inputs, source=self.source(inputs))
        return Output(
            logits=self.head(x, self.embeddings.token.weight),
            next_sentence=None if self.pooler is None else self.classify(x),
            cache=cache,
        )

    @property
    def writer(self) -> Stack:
        """The stack that writes the logits."""
        return self.encoder if self.spec.architecture.structure == "encoder" else self.decoder

    def positions(self, inputs: Inputs, cached: int) -> Tensor:
        """(batch or 1, length), or (batch or 1, 2, length): those given, or counted on from what is cached."""
        if inputs.position_ids is not None:
            return inputs.position_ids
        if self.spec.two_positions:
            return two_dimensional.places(inputs, cached)
        if inputs.documents is not None:
            return restarted(inputs.documents, inputs.token_ids.device)
        places = torch.arange(
            cached, cached + inputs.token_ids.shape[1], device=inputs.token_ids.device
        )
        return rearrange(places, "length -> 1 length")

    def source(self, inputs: Inputs) -> Source | None:
        """The source encoded, or, from the second call with a cache, what is known of it."""
        cache, ids, encoded = inputs.cache, inputs.source_ids, None
        if cache is not None and cache.source_ids is not None:
            ids, padding = cache.source_ids, cache.source_padding
        elif ids is not None:
            read = Inputs(token_ids=ids, attention_mask=inputs.source_mask)
            encoded, padding = self.encode(read), read.padding
            if cache is not None:
                cache.source_ids, cache.source_padding = ids.clone(), padding
        else:
            return None
        mask = Mask(
            pattern=schema.Bidirectional(),
            queries=inputs.token_ids.shape[1],
            keys=ids.shape[1],
            cached=0,
            padding=padding,
            device=inputs.token_ids.device,
        )
        return Source(encoded=encoded, mask=mask)

    def encode(self, inputs: Inputs) -> Tensor:
        """(batch, source length) -> (batch, source length, hidden_size)"""
        positions = self.positions(inputs, cached=0)
        if self.source_embeddings is None:
            embedded: Tensor = self.embeddings(inputs.token_ids, positions, None)
        else:
            rows = self.embeddings.rows(inputs.token_ids)
            embedded = self.source_embeddings.place(rows, positions, None)
        x: Tensor = self.encoder(embedded, inputs=replace(inputs, position_ids=positions))
        return x

    def classify(self, x: Tensor) -> Tensor | None:
        """Does the second sentence follow the first? (batch, length, hidden_size) -> (batch, 2)"""
        if self.pooler is None:
            return None
        classes: Tensor = self.next_sentence(self.pooler(x))
        return classes

    def new_cache(self) -> Cache:
        """An empty cache for incremental decoding.

        Raises:
            ValueError: the model is an encoder, whose earlier tokens see the later ones.
        """
        if self.spec.architecture.structure == "encoder":
            raise ValueError(f"{self.spec.name} is an encoder and cannot be decoded token by token")
        return Cache.empty(self.spec.layers)


def remembered(prefix: Prefix | None, cache: Cache | None) -> Prefix | None:
    """The prefix of these tokens: that with which their cache began, if there is one."""
    if cache is None:
        return prefix
    if not cache.length:
        cache.prefix = prefix
    return cache.prefix


def head(spec: schema.Spec) -> Head:
    """The head of a spec."""
    match spec.architecture.head:
        # The modules that predict further tokens are left out in use (DeepSeek-AI 2024, V3, section 2.2).
        case schema.LanguageModelHead() | schema.MultiTokenHead() as described:
            return LanguageModelHead(spec, described)
        case schema.MaskedLanguageModelHead() as described:
            return MaskedLanguageModelHead(spec, described)
        case schema.EnhancedMaskDecoder() as described:
            return EnhancedMaskDecoder(spec, described)
        case schema.ReplacedTokenHead() as described:
            return ReplacedTokenHead(spec, described)
        case described:
            raise NotImplementedError(f"no head for {type(described).__name__}")
