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

from holotype_reference.basics import Linear
from holotype_reference.cache import Cache
from holotype_reference.checks import with_further
from holotype_reference.embeddings import Embeddings, LanguageModelHead, Placement
from holotype_reference.heads import MaskedLanguageModelHead, Pooler, ReplacedTokenHead
from holotype_reference.inputs import Call, check_ids
from holotype_reference.kernels.paths import PATHS, Path
from holotype_reference.mask_decoder import EnhancedMaskDecoder, MaskDecodingStack
from holotype_reference.positions import packed, two_dimensional
from holotype_reference.source import SourceReader
from holotype_reference.stack import Stack
from holotype_reference.support import UnsupportedMechanism, unsupported
from holotype_reference.two_streams import QueryEmbeddings, TwoStreamStack
from holotype_spec import schema
from holotype_spec.parameters import parameter_table, places_each_stack

Head = LanguageModelHead | MaskedLanguageModelHead | ReplacedTokenHead


def build(spec: schema.Spec, *, path: Path = "fused") -> Model:
    """The reference model of a spec, freshly initialised, on the default device and in the default dtype.

    Args:
        spec: full-size or a probe. Under ``torch.device("meta")`` nothing is allocated.
        path: how attention is computed: "fused" through torch's kernels, "eager" step by step as in the formula.

    Raises:
        UnsupportedMechanism: the spec has a mechanism that there is no class for yet.
        ValueError: there is no such path.
    """
    if missing := unsupported(spec):
        raise UnsupportedMechanism(spec, missing)
    if path not in PATHS:
        raise ValueError(f"path must be one of {', '.join(PATHS)}, not {path!r}")
    return Model(spec, path=path)


@dataclass(frozen=True, kw_only=True)
class Output:
    """The result of a model.

    Attributes:
        logits: (batch, length, logit_size), which is vocab_size or 1.
        next_sentence: (batch, 2), of models with that head: class 0 says that the second sentence follows the first.
        cache: the cache that was handed in, extended, or None.
    """

    logits: Tensor
    next_sentence: Tensor | None
    cache: Cache | None


class Model(SourceReader):
    """A whole model. Its ``state_dict`` has exactly the names and shapes of `holotype_spec.tensor_table`."""

    decoder: Stack

    def __init__(self, spec: schema.Spec, *, path: Path) -> None:
        super().__init__()
        self.spec = spec
        self.reads_source = spec.architecture.structure == "encoder-decoder"
        self.embeddings = QueryEmbeddings(spec) if spec.permuted else Embeddings(spec)
        self.source_embeddings = Placement(spec) if places_each_stack(spec) else None
        last = head(spec)
        weigh, pattern = PATHS[path], spec.architecture.attention.pattern
        match spec.architecture.structure:
            case "encoder" | "decoder" as only:
                if isinstance(self.embeddings, QueryEmbeddings):
                    stack: Stack = TwoStreamStack(spec, pattern, self.embeddings, weigh=weigh)
                elif isinstance(last, EnhancedMaskDecoder):
                    stack = MaskDecodingStack(spec, pattern, last, weigh=weigh)
                else:
                    stack = Stack(spec, pattern, depth=spec.layers, cross=False, weigh=weigh)
                self.add_module(only, stack)
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
        **further: Any,
    ) -> Output:
        """Logits for every token.

        Args:
            token_ids, attention_mask, position_ids: as in `Inputs`.
            further: the other fields of `Inputs` and `Call`, by name; a prefix and a direction may be Python's numbers.

        Raises:
            ValueError: an argument does not fit the spec or the others; nothing has been computed then.
        """
        check_ids("token_ids", token_ids)
        inputs = Call(token_ids=token_ids, attention_mask=attention_mask, position_ids=position_ids)
        if self.reads_source or further or attention_mask is not None or position_ids is not None:
            inputs = with_further(self.spec, inputs, further)
        positions = self.positions(inputs, inputs.cached)
        inputs = replace(inputs, position_ids=positions)
        x = self.embeddings(token_ids, positions, inputs.token_types)
        x = self.writer(x, inputs=inputs, source=self.source(inputs) if self.reads_source else None)
        return Output(
            logits=self.head(x, self.embeddings.token.weight),
            next_sentence=None if self.pooler is None else self.classify(x),
            cache=inputs.cache,
        )

    @property
    def writer(self) -> Stack:
        """The stack that writes the logits."""
        return self.encoder if self.spec.architecture.structure == "encoder" else self.decoder

    def positions(self, inputs: Call, cached: int) -> Tensor:
        """(batch or 1, length), or (batch or 1, 2, length): those given, or counted on from what is cached."""
        tokens, device = cached + inputs.token_ids.shape[1], inputs.token_ids.device
        if inputs.position_ids is not None:
            return inputs.position_ids
        if self.spec.learned_positions and tokens > self.spec.max_positions:
            raise ValueError(
                f"{self.spec.name} has {self.spec.max_positions} learned positions, but {tokens} tokens "
                "were given (those in the cache included): shorten the input"
            )
        if self.spec.two_positions:
            return two_dimensional.places(inputs, cached)
        if inputs.documents is not None:
            return packed.restarted(inputs.documents, device)
        return rearrange(torch.arange(cached, tokens, device=device), "length -> 1 length")

    def classify(self, x: Tensor) -> Tensor:
        """Does the second sentence follow the first? (batch, length, hidden_size) -> (batch, 2)"""
        assert self.pooler is not None
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
