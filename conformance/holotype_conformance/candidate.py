"""The candidate: the implementation under test, and how the suite speaks to it.

The least a user gives is a function ``build(spec) -> torch.nn.Module`` whose result, called with token ids, returns
logits or an object with ``.logits``. Everything more is opt-in: subclass `Candidate` and override what yours can do.
What is overridden, or what the module's ``forward`` accepts by name, is a *capability*; it is then held to be true.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from holotype_reference.checkpoints import CheckpointError
from holotype_reference.positions import has_two_positions
from holotype_reference.weights import Weights, random_weights
from holotype_spec.schema import Experts, Spec

Capability = Literal[
    "attention-mask",
    "position-ids",
    "token-types",
    "source-mask",
    "order",
    "next-sentence",
    "cache",
    "weights",
    "loss",
    "left-padding",
    "parallel-caches",
]

# How a `forward` that follows the custom of the field calls what it takes.
ARGUMENT_NAMES: Mapping[Capability, str] = {
    "attention-mask": "attention_mask",
    "position-ids": "position_ids",
    "token-types": "token_type_ids",
    "order": "order",
    "cache": "past_key_values",
}

# Which input each capability is about.
INPUT_NAMES: Mapping[Capability, str] = {
    "attention-mask": "attention_mask",
    "position-ids": "position_ids",
    "token-types": "token_types",
    "source-mask": "source_mask",
    "order": "order",
}


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """One batch, in the suite's own terms.

    Attributes:
        token_ids: (batch, length) int64, what the stack that writes the logits reads: for an
            encoder-decoder, the decoder's input.
        attention_mask: (batch, length) int64, 1 for a real token and 0 for padding, or None for no
            argument at all. With a cache it covers what the cache holds too: (batch, cached + length).
        position_ids: (batch, length) int64, or None to let the model count. Where the spec gives a token two positions,
            (batch, 2, length): the place in the text and the place within its span.
        token_types: (batch, length) int64, or None.
        source_ids: (batch, source length) int64, the encoder's input of an encoder-decoder, else None.
        source_mask: (batch, source length) int64, or None.
        prefix: (batch,) int64, so many places at the start of a row, padding included, are seen by all of it. Only for
            specs with a visible prefix, where None is an empty one, and for mixtures of masks, where it is the first
            of two segments, 0 reads from left to right, and None shows everything. The same at every step of a cache,
            the first of which holds the whole prefix. `seen` makes a matrix of it.
        right_to_left: (batch,) ones, or None. Only for mixtures of masks: each token sees itself and those behind it.
        order: (batch, length) int64, the place of each position, from 0, in the order in which a permuted model
            predicts; None shows it everything.
    """

    token_ids: Tensor
    attention_mask: Tensor | None = None
    position_ids: Tensor | None = None
    token_types: Tensor | None = None
    source_ids: Tensor | None = None
    source_mask: Tensor | None = None
    prefix: Tensor | None = None
    right_to_left: Tensor | None = None
    order: Tensor | None = None

    def tensors(self) -> dict[str, Tensor]:
        """Those that are given, by name."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: value for name, value in values.items() if value is not None}


def seen(inputs: Inputs) -> Tensor:
    """(batch or 1, length, length) boolean, [query, key]: what a prefix or a direction shows, padding aside.

    For a full pass, and for implementations that are told a whole mask. A batch with neither is taken for causal.
    """
    length, device = inputs.token_ids.shape[1], inputs.token_ids.device
    place = torch.arange(length, device=device)
    query, key = place[None, :, None], place[None, None, :]
    if inputs.right_to_left is not None:
        return key >= query
    prefix = inputs.prefix
    return key <= query if prefix is None else (key <= query) | (key < prefix[:, None, None])


@dataclass(frozen=True, kw_only=True)
class _Watched(Inputs):
    """Inputs that remember which of them were looked at."""

    read: set[str] = field(default_factory=set, compare=False)

    def __getattribute__(self, name: str) -> Any:
        if name in INPUT_NAMES.values():
            object.__getattribute__(self, "read").add(name)
        return object.__getattribute__(self, name)

    def tensors(self) -> dict[str, Tensor]:
        return {name: value for name, value in super().tensors().items() if name != "read"}


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """What a candidate returns.

    Attributes:
        logits: (batch, length, vocabulary); (batch, length) or (batch, length, 1) from a head that tells which tokens
            were replaced.
        next_sentence: (batch, 2), from a model with a next-sentence head.
        cache: anything; it is handed back to `Candidate.forward_cached` with the next tokens.
    """

    logits: Tensor
    next_sentence: Tensor | None = None
    cache: Any = None


@dataclass(frozen=True, kw_only=True)
class Labels:
    """What the loss is computed against; -100 marks a position without a label.

    Attributes:
        tokens: (batch, length) int64. For a causal model the token at each position itself: the loss of
            position i compares with the label at i + 1. For masked models: the label of position i. For
            a head that tells replaced tokens: 1 for those, 0 for the others, and all real tokens have one. For
            an encoder-decoder: what the decoder is to write, of which it also reads all but the last,
            after the start token; the positions without a label stand at the end of a row.
        next_sentence: (batch,) int64, or None.
    """

    tokens: Tensor
    next_sentence: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class Floor:
    """A stated limit of a candidate's precision in float64, and why it has it.

    `relative` is an error relative to the root mean square of what is compared.
    """

    relative: float
    reason: str


def absolute_positions(spec: Spec) -> bool:
    """Whether a shift of all positions changes the outputs."""
    return (
        spec.added_positions
        or spec.architecture.attention.scale == "inverse-sqrt-head-dim-log-length"
    )


class Candidate:
    """An implementation under test. Override `build`, and whatever else yours can do.

    Attributes:
        title: what reports call it.
        paths: names of the code paths that must all be checked (fused and eager kernels, …); `build` is
            told which one to take.
        absent: capabilities that it looks as if it had but has not, with the reason.
        lifted: in a float64 probe, float32 that is written into its code is taken for float64 (see
            `holotype_conformance.precision`). False spares the time where nothing is to be lifted.
    """

    title: str = "candidate"
    paths: tuple[str, ...] = ("default",)
    absent: Mapping[Capability, str] = {}
    lifted: bool = True

    def refusal(self, spec: Spec) -> str | None:
        """Why there is nothing that this candidate could build for `spec`, or None."""
        return None

    def routes(self, spec: Spec) -> bool:
        """Whether tokens choose what computes them, as experts do.

        Which tokens are multiplied together then depends on what they are, and the rounding of each on the others:
        what must not move may move by rounding, and by no more.
        """
        return isinstance(spec.architecture.feed_forward, Experts)

    def build(self, spec: Spec, path: str = "default") -> nn.Module:
        """A model with the sizes of `spec`.

        For a float64 probe torch's default dtype is float64 while this runs, for all others float32; the
        result is then handed to `cast`.
        """
        raise NotImplementedError("a candidate must define build(spec)")

    def cast(self, model: nn.Module, dtype: torch.dtype) -> nn.Module:
        """The model computing in `dtype`."""
        return model.to(dtype)

    def floor(self, spec: Spec) -> Floor | None:
        """The float64 precision limit that this candidate states for `spec`; None when it has none."""
        return None

    def load(self, model: nn.Module, weights: Weights) -> None:
        """Copy `weights` into `model`, in place.

        `weights` has the canonical names and layouts (``holotype show SPEC --parameters`` prints them);
        ``weights.published()`` has those of the published checkpoint. Not overridden, it transfers by name
        if the names of the model's parameters are exactly the canonical or the published ones.
        """
        own = dict(model.named_parameters(remove_duplicate=False))
        ours = weights.keys() == own.keys()  # a spec without published weights has no other names
        source = weights if ours else weights.published()
        with torch.no_grad():
            for name, parameter in own.items():
                parameter.copy_(source[name])

    def forward(self, model: nn.Module, inputs: Inputs) -> Outputs:
        """One full forward pass without a cache."""
        if inputs.source_ids is None:
            return as_outputs(model(inputs.token_ids, **named_arguments(model, inputs)))
        arguments = {
            "decoder_input_ids": inputs.token_ids,
            "attention_mask": inputs.source_mask,
            "decoder_attention_mask": inputs.attention_mask,
        }
        return as_outputs(model(inputs.source_ids, **_given(arguments)))

    def forward_cached(self, model: nn.Module, inputs: Inputs, cache: Any) -> Outputs:
        """Read `inputs` after what `cache` holds (None at first) and return the longer cache too."""
        return as_outputs(
            model(
                inputs.token_ids,
                past_key_values=cache,
                use_cache=True,
                **named_arguments(model, inputs),
            )
        )

    def loss(self, model: nn.Module, inputs: Inputs, labels: Labels) -> Tensor:
        """The training loss, a scalar: the mean over the labelled positions.

        An encoder-decoder makes its decoder's input of the labels: the spec's ``decoder_start_id``, then the
        labels without the last one. Of `inputs` it gets the source; ``token_ids`` is then empty, (batch, 0).
        """
        raise NotImplementedError

    def save(self, model: nn.Module, folder: Path) -> None:
        """Store the model in an empty folder."""
        torch.save(model.state_dict(), folder / "state.pt")

    def restore(self, spec: Spec, folder: Path, path: str = "default") -> nn.Module:
        """The model that `save` stored."""
        model = self.build(spec, path) if len(self.paths) > 1 else self.build(spec)
        state = torch.load(folder / "state.pt", weights_only=True)
        self.cast(model, next(iter(state.values())).dtype)
        model.load_state_dict(state)
        return model

    def capabilities(self, model: nn.Module, spec: Spec) -> dict[Capability, str | None]:
        """What this candidate can do with `spec`, read off its overrides and the arguments of `model.forward`.

        Returns: for each capability None when it has it, else the reason why not.
        """
        found: dict[Capability, str | None] = {}
        for capability, name in ARGUMENT_NAMES.items():
            taken = name in inspect.signature(model.forward).parameters
            found[capability] = None if taken else f"its forward takes no `{name}`"
        found["source-mask"] = found["attention-mask"]
        if self._overrides("forward"):
            read = self._read_by_forward(model, spec)
            for capability, name in INPUT_NAMES.items():
                found[capability] = (
                    None if name in read else f"the candidate's `forward` never reads inputs.{name}"
                )
        if self._overrides("forward_cached"):
            found["cache"] = None
        elif self._overrides("forward"):
            found["cache"] = "the candidate defines no `forward_cached`"
        found["parallel-caches"] = None
        found["loss"] = None if self._overrides("loss") else "the candidate defines no `loss`"
        found["weights"] = None if self._overrides("load") else _named_otherwise(model, spec)
        found = found | _not_in(spec) | dict(self.absent)
        untold = absolute_positions(spec) and found["position-ids"]
        found["left-padding"] = found["attention-mask"] or (
            f"positions are absolute and cannot be told: {untold}" if untold else None
        )
        return found

    def _read_by_forward(self, model: nn.Module, spec: Spec) -> set[str]:
        """The names of the inputs that an overridden `forward` looks at; all of them if it cannot be run."""
        tokens = torch.ones(1, 3, dtype=torch.long, device=next(model.parameters()).device)
        both = spec.architecture.structure == "encoder-decoder"
        count = tokens.cumsum(1) - 1
        inputs = _Watched(
            token_ids=tokens,
            attention_mask=tokens,
            position_ids=torch.stack([count, 0 * count], 1) if has_two_positions(spec) else count,
            token_types=tokens - 1 if spec.segments else None,
            order=count if spec.permuted else None,
            source_ids=tokens if both else None,
            source_mask=tokens if both else None,
        )
        try:
            with torch.no_grad():
                self.forward(model.eval(), inputs)
        except (Exception, SystemExit):
            return set(INPUT_NAMES.values())
        return inputs.read

    def _overrides(self, method: str) -> bool:
        return getattr(type(self), method) is not getattr(Candidate, method)


class FunctionCandidate(Candidate):
    """A bare ``build(spec)`` function as a candidate.

    If the names in the built model's ``state_dict`` are exactly the canonical or the published ones, weights
    are transferred by them.
    """

    def __init__(self, function: Callable[[Spec], nn.Module], title: str) -> None:
        self.function = function
        self.title = title

    def build(self, spec: Spec, path: str = "default") -> nn.Module:
        return self.function(spec)


def as_outputs(returned: Any) -> Outputs:
    """Read logits, next-sentence logits and cache off whatever a model returned.

    Raises:
        TypeError: it is neither a tensor nor has logits.
    """
    if isinstance(returned, Outputs):
        return returned
    if isinstance(returned, Tensor):
        return Outputs(logits=returned)
    if isinstance(returned, tuple) and returned and isinstance(returned[0], Tensor):
        return Outputs(logits=returned[0])  # (logits, loss), (logits, cache), …
    given = SimpleNamespace(**returned) if isinstance(returned, Mapping) else returned
    logits = getattr(given, "logits", None)
    if not isinstance(logits, Tensor):
        raise TypeError(
            f"the model returned {type(returned).__name__}; expected a tensor of logits"
            " (batch, length, vocabulary), or an object or a dictionary with `logits`"
        )
    return Outputs(
        logits=logits,
        next_sentence=getattr(given, "next_sentence", None),
        cache=getattr(given, "past_key_values", None),
    )


def named_arguments(model: nn.Module, inputs: Inputs) -> dict[str, Tensor]:
    """The optional inputs that are given, under the names by which `forward` takes them."""
    given = {
        "attention_mask": inputs.attention_mask,
        "position_ids": inputs.position_ids,
        "token_type_ids": inputs.token_types,
        "order": inputs.order,
    }
    # Whoever knows no prefix is called without one, and is checked for what it then is.
    views = {"prefix_lengths": inputs.prefix, "right_to_left": inputs.right_to_left}
    taken = inspect.signature(model.forward).parameters
    return _given(given | {name: view for name, view in views.items() if name in taken})


def _given(arguments: Mapping[str, Tensor | None]) -> dict[str, Tensor]:
    return {name: value for name, value in arguments.items() if value is not None}


def _named_otherwise(model: nn.Module, spec: Spec) -> str | None:
    """Why weights cannot be transferred by name; None where names *and shapes* are ours or the published ones.

    Ports often keep the names and turn the matrices round, so that what differs first is said.
    """
    own = _shapes(dict(model.named_parameters(remove_duplicate=False)))
    canonical = random_weights(spec, seed=0)
    stated = [_shapes(canonical)]
    with suppress(CheckpointError):  # no published weights, or no table of their names
        stated.insert(0, _shapes(canonical.published()))
    if own in stated:
        return None
    nearest = max(stated, key=lambda names: len(names.keys() & own.keys()))
    return (
        "the candidate defines no `load`, and its parameters have other names or shapes than those of the"
        f" published checkpoint and ours: {_unlike(own, nearest)}"
    )


def _unlike(own: Mapping[str, tuple[int, ...]], stated: Mapping[str, tuple[int, ...]]) -> str:
    """The first difference between two tables of name -> shape."""
    shaped = [name for name in own if name in stated and own[name] != stated[name]]
    if shaped:
        name = shaped[0]
        return f"{name} is {own[name]}, expected {stated[name]}"
    unknown = [name for name in own if name not in stated]
    missing = [name for name in stated if name not in own]
    if unknown and missing:
        return f"it has {unknown[0]}, expected {missing[0]}"
    return f"nothing is called {unknown[0]}" if unknown else f"it has no {missing[0]}"


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def _not_in(spec: Spec) -> dict[Capability, str | None]:
    """What no candidate can have, because the spec does not speak of it."""
    architecture = spec.architecture
    absent: dict[Capability, str | None] = {}
    has_pairs = getattr(architecture.head, "sentence_pair", "none") != "none"
    absent["next-sentence"] = None if has_pairs else "the spec has no next-sentence head"
    if not spec.segments:
        absent["token-types"] = "the spec has no token types"
    if not spec.permuted:
        absent["order"] = "the spec predicts in no order of its own"
    if architecture.structure == "encoder":
        absent["cache"] = "an encoder has no cache"
    if architecture.structure != "encoder-decoder":
        absent["source-mask"] = "the spec has no source"
    if spec.family.generic:
        absent["weights"] = "a generic spec has no weights to hand over"
    if spec.distances_only:
        absent["position-ids"] = "positions relative to each other have no ids"
    return absent
