"""A model, assembled from its spec: embeddings, one or two stacks of layers, and a head.

Every choice between mechanisms is a match on a class of the spec; no line knows the name of a model.

Glossary. The papers: V = Vaswani et al. 2017 (the transformer), G = Radford et al. 2018 (GPT), D = Devlin et al. 2018
(BERT), R = Raffel et al. 2019 (T5), Z = Shazeer 2020 (gated units), S = Su et al. 2021 (rotary positions), A = Ainslie
et al. 2023 (grouped queries), J = Jiang et al. 2023 (Mistral).

    ours                  theirs                     where
    layers                N (V), L (D), n_layers     V 3.1, D 3, J 2
    hidden_size           d_model (V), H (D), dim    V 3.1, D 3, J 2
    ffn_size              d_ff (V), hidden_dim (J)   V 3.3, J 2
    heads                 h (V), A (D), n_heads      V 3.2.2, D 3, J 2
    kv_heads              G, the groups (A)          A 2.2
    head_dim              d_k = d_v (V), d_kv (R)    V 3.2.2, R 3.1.1
    vocab_size            vocab_size                 J 2
    max_positions         context_len (J), tokens    J 2, G 4.1
    window                W, window_size             J 2
    theta, θ_i            10000, θ_i = θ^(-2i/d)     S 3.2.2
    scale                 1/√d_k                     V 3.2.1
    x                     the residual stream, (batch, length, hidden_size)
    query, key, value     Q, K, V, (batch, heads, length, head_dim)         V 3.2
    gate, up, down        W, V, W₂                   Z equation 6

Axes stand in this order everywhere: batch, heads, length (or queries, keys), width.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from einops import rearrange
from torch import Tensor, nn

from holotype_reference.cache import Cache
from holotype_reference.embeddings import Embeddings, Placement
from holotype_reference.heads import EnhancedMaskDecoder, Pooler, head
from holotype_reference.inputs import check_inputs
from holotype_reference.kernels.paths import PATHS, Path
from holotype_reference.linear import Linear
from holotype_reference.masks import Documents, Prefix
from holotype_reference.positions.two_dimensional import spans
from holotype_reference.stack import MaskDecoder, Source, Stack, Streams, View
from holotype_reference.support import check_supported
from holotype_spec import schema
from holotype_spec.parameters import parameter_table, places_each_stack


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
        self.embeddings = Embeddings(spec)
        self.source_embeddings = Placement(spec) if places_each_stack(spec) else None
        pattern = spec.architecture.attention.pattern
        depth, of_source = spec.layers, spec.encoder_depth
        match spec.architecture.structure:
            case "encoder":
                self.encoder = Stack(spec, pattern, depth=depth, cross=False, path=path)
            case "decoder":
                self.decoder = Stack(spec, pattern, depth=depth, cross=False, path=path)
            case "encoder-decoder":
                both = schema.Bidirectional()
                self.encoder = Stack(spec, both, depth=of_source, cross=False, path=path)
                self.decoder = Stack(spec, pattern, depth=depth, cross=True, path=path)
        match spec.architecture.head:
            case schema.MaskedLanguageModelHead(sentence_pair="next-sentence" | "sentence-order"):
                self.pooler = Pooler(spec.hidden_size, spec.hidden_size)
                self.next_sentence = Linear(spec.hidden_size, 2)
        self.head = head(spec)
        self.two_positions = spec.two_positions
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Matrices, embeddings and score biases from N(0, 0.02²), gains one, shifts and biases zero.

        So GPT and BERT begin (G 4.1; the BERT release, initializer_range). The other models here are given the same:
        what a trained model is does not depend on it. On the meta device there is nothing to set.
        """
        parameters = dict(self.named_parameters())
        if any(parameter.is_meta for parameter in parameters.values()):
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
        documents: Documents | None = None,
        prefix: Prefix | None = None,
        right_to_left: bool = False,
        order: Tensor | None = None,
    ) -> Output:
        """Logits for every token.

        Args:
            token_ids: (batch, length) whole numbers; the decoder's input of an encoder-decoder.
            attention_mask: (batch, cached + length), 1 for a real token and 0 for padding; None when all are real. What
                a model returns at padding is finite and means nothing.
            position_ids: (batch or 1, length). By default positions count all tokens from 0, padding and the cache
                included: under left padding give absolute positions here. Where a token has two, (batch or 1, 2,
                length); by default they are those of `holotype_reference.positions.two_dimensional.spans`.
            token_types: (batch, length), by default all 0.
            source_ids: (batch, source length), the encoder's input. With a cache that holds a source it may be left
                out, and is not encoded again.
            source_mask: (batch, source length), as attention_mask; the first one holds for the life of a cache.
            cache: from `new_cache`; these tokens follow those that it holds, and it is extended by them.
            documents: the lengths of documents packed into a row, one after the other: a tuple for each row, or one for
                all. No document sees another, and unless position_ids are given the positions start again with each:
                it gives what it gives alone. Not with a cache, nor for an encoder-decoder.
            prefix: so many places at the start of a row, padding included, are seen by all of its tokens: one number
                for each row, or one for all. For models with a visible prefix, by default an empty one; and for a
                mixture of masks, where it is the first of two segments, 0 means left to right, and by default all is
                seen. A cache begins with the whole prefix and remembers it.
            right_to_left: of a mixture of masks the one in which each token sees itself and those behind it.
            order: (batch, length) the place of each position, from 0, in the order in which tokens are predicted: the
                logits of a position are then made of those before it in the order, and of no token at the first one,
                whose logits say nothing. Without it everything is seen. Not with documents.

        Raises:
            ValueError: an argument does not fit the spec or the others; nothing has been computed then.
        """
        check_inputs(
            self.spec,
            token_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            token_types=token_types,
            source_ids=source_ids,
            source_mask=source_mask,
            cache=cache,
            documents=documents,
            prefix=prefix,
            right_to_left=right_to_left,
            order=order,
        )
        prefix = remembered(prefix, cache)
        cached = 0 if cache is None else cache.length
        if documents is not None and position_ids is None:
            position_ids = self.restarted(documents, token_ids.device)
        positions = self.positions(token_ids, position_ids, cached, prefix)
        in_table = token_types if self.spec.architecture.token_types else None
        x = self.embeddings(token_ids, positions, in_table)
        x = self.writer(
            x,
            positions=positions,
            padding=real(attention_mask),
            source=self.source(source_ids, source_mask, cache),
            cache=cache,
            view=View(documents=documents, prefix=prefix, right_to_left=right_to_left),
            decoder=self.mask_decoder(positions),
            token_types=token_types,
            streams=None if order is None else self.streams(order),
        )
        return Output(
            logits=self.head(x, self.embeddings.token.weight),
            next_sentence=self.classify(x),
            cache=cache,
        )

    @property
    def writer(self) -> Stack:
        """The stack that writes the logits."""
        return self.encoder if self.spec.architecture.structure == "encoder" else self.decoder

    def mask_decoder(self, positions: Tensor) -> MaskDecoder | None:
        """What runs the last layer in its own way, told the positions (batch or 1, length), if anything does."""
        if isinstance(self.head, EnhancedMaskDecoder):
            return partial(self.head.decode, positions=positions)
        return None

    def streams(self, order: Tensor) -> Streams:
        """The query stream at its start, the same vector for all positions; order: (batch, length)."""
        return Streams(order=order, queries=self.embeddings.questions(*order.shape))

    def positions(
        self,
        token_ids: Tensor,
        position_ids: Tensor | None,
        cached: int,
        prefix: Prefix | None = None,
    ) -> Tensor:
        """(batch or 1, length), or (batch or 1, 2, length): those given, or counted on from what is cached."""
        if position_ids is not None:
            return position_ids
        length = token_ids.shape[1]
        if self.two_positions:
            return spans(cached, length, prefix, token_ids.device)
        return rearrange(
            torch.arange(cached, cached + length, device=token_ids.device), "length -> 1 length"
        )

    def restarted(self, documents: Documents, device: torch.device) -> Tensor:
        """(batch or 1, length), or (batch or 1, 2, length), that start again with each of the packed documents."""
        rows = [[place for length in row for place in range(length)] for row in documents]
        positions = torch.tensor(rows, device=device)
        return torch.stack([positions, 0 * positions], dim=1) if self.two_positions else positions

    def source(
        self, source_ids: Tensor | None, source_mask: Tensor | None, cache: Cache | None
    ) -> Source | None:
        """The source encoded, or, from the second call with a cache, what is known of it."""
        if cache is not None and cache.source_ids is not None:
            return Source(
                encoded=None, length=cache.source_ids.shape[1], padding=cache.source_padding
            )
        if source_ids is None:
            return None
        padding = real(source_mask)
        encoded = self.encode(source_ids, padding)
        if cache is not None:
            cache.source_ids, cache.source_padding = source_ids.clone(), padding
        return Source(encoded=encoded, length=source_ids.shape[1], padding=padding)

    def encode(self, source_ids: Tensor, padding: Tensor | None) -> Tensor:
        """(batch, source length) -> (batch, source length, hidden_size)"""
        positions = self.positions(source_ids, None, cached=0)
        if self.source_embeddings is None:
            embedded: Tensor = self.embeddings(source_ids, positions, None)
        else:
            embedded = self.source_embeddings.place(
                self.embeddings.rows(source_ids), positions, None
            )
        x: Tensor = self.encoder(
            embedded,
            positions=positions,
            padding=padding,
            source=None,
            cache=None,
            view=View(),
        )
        return x

    def classify(self, x: Tensor) -> Tensor | None:
        """Does the second sentence follow the first? (batch, length, hidden_size) -> (batch, 2)"""
        match self.spec.architecture.head:
            case schema.MaskedLanguageModelHead(sentence_pair="next-sentence" | "sentence-order"):
                classes: Tensor = self.next_sentence(self.pooler(x))
                return classes
        return None

    def new_cache(self) -> Cache:
        """An empty cache for incremental decoding.

        Raises:
            ValueError: the model is an encoder, whose earlier tokens see the later ones.
        """
        if self.spec.architecture.structure == "encoder":
            raise ValueError(f"{self.spec.name} is an encoder and cannot be decoded token by token")
        return Cache.empty(self.spec.layers)


def real(mask: Tensor | None) -> Tensor | None:
    """A mask of ones and zeros (batch, length) as booleans, true for a real token."""
    return None if mask is None else mask != 0


def remembered(prefix: Prefix | None, cache: Cache | None) -> Prefix | None:
    """The prefix of these tokens: that with which their cache began, if there is one."""
    if cache is None:
        return prefix
    if not cache.length:
        cache.prefix = prefix
    return cache.prefix
