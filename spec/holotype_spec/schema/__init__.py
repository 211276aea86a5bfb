"""The parts of a spec: frozen, strictly validated classes, one for each mechanism.

A mechanism with alternatives is a tagged union: its ``kind`` brings exactly the constants that belong to
it and no others, so that nonsense cannot be written. Nothing has a default: a field that is missing from a
spec file is an error, because a silent default is how ports go wrong.

The same classes are exported as ``schema.json`` (see `holotype_spec.validation`), for editors and other languages.
"""

from holotype_spec.schema.attention import Attention as Attention
from holotype_spec.schema.attention import LatentAttention as LatentAttention
from holotype_spec.schema.attention import MultiHeadAttention as MultiHeadAttention
from holotype_spec.schema.attention import Projection as Projection
from holotype_spec.schema.attention import Scale as Scale
from holotype_spec.schema.embeddings import Embeddings as Embeddings
from holotype_spec.schema.embeddings import EmbeddingWidth as EmbeddingWidth
from holotype_spec.schema.embeddings import FactorisedEmbedding as FactorisedEmbedding
from holotype_spec.schema.embeddings import HiddenSizeEmbedding as HiddenSizeEmbedding
from holotype_spec.schema.family import Binding as Binding
from holotype_spec.schema.family import Difference as Difference
from holotype_spec.schema.family import Family as Family
from holotype_spec.schema.family import PublishedCount as PublishedCount
from holotype_spec.schema.family import Source as Source
from holotype_spec.schema.family import StatedPart as StatedPart
from holotype_spec.schema.family import Transformers as Transformers
from holotype_spec.schema.feed_forward import Activation as Activation
from holotype_spec.schema.feed_forward import Block as Block
from holotype_spec.schema.feed_forward import Experts as Experts
from holotype_spec.schema.feed_forward import FeedForward as FeedForward
from holotype_spec.schema.feed_forward import FeedForwardSize as FeedForwardSize
from holotype_spec.schema.feed_forward import GatedFeedForward as GatedFeedForward
from holotype_spec.schema.feed_forward import PlainFeedForward as PlainFeedForward
from holotype_spec.schema.feed_forward import Routing as Routing
from holotype_spec.schema.feed_forward import SigmoidRouting as SigmoidRouting
from holotype_spec.schema.feed_forward import SoftmaxRouting as SoftmaxRouting
from holotype_spec.schema.heads import EnhancedMaskDecoder as EnhancedMaskDecoder
from holotype_spec.schema.heads import Head as Head
from holotype_spec.schema.heads import LanguageModelHead as LanguageModelHead
from holotype_spec.schema.heads import MaskedLanguageModelHead as MaskedLanguageModelHead
from holotype_spec.schema.heads import MultiTokenHead as MultiTokenHead
from holotype_spec.schema.heads import ReplacedTokenHead as ReplacedTokenHead
from holotype_spec.schema.model import Architecture as Architecture
from holotype_spec.schema.model import Spec as Spec
from holotype_spec.schema.model import TokenId as TokenId
from holotype_spec.schema.normalization import BiaslessLayerNorm as BiaslessLayerNorm
from holotype_spec.schema.normalization import LayerNorm as LayerNorm
from holotype_spec.schema.normalization import Normalization as Normalization
from holotype_spec.schema.normalization import RMSNorm as RMSNorm
from holotype_spec.schema.patterns import AlternatingBanded as AlternatingBanded
from holotype_spec.schema.patterns import Bidirectional as Bidirectional
from holotype_spec.schema.patterns import Causal as Causal
from holotype_spec.schema.patterns import MixtureOfMasks as MixtureOfMasks
from holotype_spec.schema.patterns import Pattern as Pattern
from holotype_spec.schema.patterns import Permutation as Permutation
from holotype_spec.schema.patterns import PrefixCausal as PrefixCausal
from holotype_spec.schema.patterns import SlidingWindow as SlidingWindow
from holotype_spec.schema.positions import Alibi as Alibi
from holotype_spec.schema.positions import Disentangled as Disentangled
from holotype_spec.schema.positions import GatedRelativeBuckets as GatedRelativeBuckets
from holotype_spec.schema.positions import LayerwiseRelativeBuckets as LayerwiseRelativeBuckets
from holotype_spec.schema.positions import LearnedPositions as LearnedPositions
from holotype_spec.schema.positions import Positions as Positions
from holotype_spec.schema.positions import RelativeBuckets as RelativeBuckets
from holotype_spec.schema.positions import Rotary as Rotary
from holotype_spec.schema.positions import Sinusoidal as Sinusoidal
from holotype_spec.schema.positions import TransformerXLPositions as TransformerXLPositions
from holotype_spec.schema.positions import TwoDimensionalPositions as TwoDimensionalPositions
from holotype_spec.schema.positions import TwoDimensionalRotary as TwoDimensionalRotary
from holotype_spec.schema.scaling import DynamicScaling as DynamicScaling
from holotype_spec.schema.scaling import LinearScaling as LinearScaling
from holotype_spec.schema.scaling import Llama3Scaling as Llama3Scaling
from holotype_spec.schema.scaling import NoScaling as NoScaling
from holotype_spec.schema.scaling import Scaling as Scaling
from holotype_spec.schema.scaling import YarnScaling as YarnScaling
from holotype_spec.schema.sizes import SIZES as SIZES
from holotype_spec.schema.sizes import Sizes as Sizes
from holotype_spec.schema.training import Dropout as Dropout
from holotype_spec.schema.training import DropoutSite as DropoutSite
from holotype_spec.schema.training import Objective as Objective
from holotype_spec.schema.values import LARGEST as LARGEST
from holotype_spec.schema.values import Count as Count
from holotype_spec.schema.values import Name as Name
from holotype_spec.schema.values import Positive as Positive
from holotype_spec.schema.values import Rate as Rate
from holotype_spec.schema.values import Strict as Strict
