"""The subject of a run: one candidate under one spec, with its probes built, loaded and called under guard.

Whatever candidate code does — raise, exit, return the wrong shape, dtype or NaN — becomes a `Violation` of the property
that was being checked, so that a run never ends because of a candidate.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import msgspec
import numpy as np
import torch
from einops import rearrange
from torch import Tensor, nn

from holotype_conformance.judge import subject as judged
from holotype_conformance.judge.declaring import Floor
from holotype_conformance.judge.guard import CandidateUnusable, candidate_code
from holotype_conformance.judge.property import ALL_DTYPES, SuiteFault, Violation
from holotype_conformance.judge.randomness import random_states
from holotype_conformance.judge.records import DType
from holotype_conformance.models.adapters.reference import run_reference
from holotype_conformance.models.bold_weights import embolden
from holotype_conformance.models.candidate import Candidate, Capability, Inputs, Labels, Outputs
from holotype_conformance.models.declarations import (
    CAPABILITIES,
    as_it_has_it,
    declaring,
    inference_only,
    stated_floor,
)
from holotype_conformance.models.effective import completed, demand_near
from holotype_conformance.models.exchange import copies, owned, real_rows
from holotype_conformance.models.handed_weights import HandedWeights, demand_unwritten
from holotype_conformance.models.narrow import measured_floor, rounded, stand_in
from holotype_conformance.models.outputs import demand_logits, demand_tensor
from holotype_conformance.models.setup import DTYPES, FLOAT64_FLOOR, Setup, undropped
from holotype_conformance.torch_tools.float64 import Lifter, default_dtype
from holotype_conformance.torch_tools.plain_tensor import plain_tensor
from holotype_reference.kernels.paths import Path as AttentionPath
from holotype_reference.model import Model
from holotype_reference.model import build as build_reference
from holotype_reference.weights import Regime, Weights, random_weights
from holotype_spec.probes import LONG, ROWS, WINDOW, probe
from holotype_spec.schema import Spec


class Subject(judged.Subject):
    """One candidate under one spec.

    Args:
        candidate: the implementation under test.
        spec: the full-size spec that it claims to implement; it is judged by that spec with the differences that it
            states.
        seed: shifts every weight and token that is drawn.
        device: where models and inputs live.
        dtypes: those that were asked for; empty for all.
        long_rows: probes take rows of hundreds of tokens, and no window is shorter.
    """

    what = "model"
    spec: Spec

    def __init__(
        self,
        candidate: Candidate,
        spec: Spec,
        *,
        seed: int = 0,
        device: str = "cpu",
        dtypes: Collection[DType] = (),
        long_rows: bool = False,
    ) -> None:
        self.candidate = candidate
        self.stated = spec
        self.spec = as_it_has_it(candidate, spec)
        self.seed = seed
        self.long_rows = long_rows
        self.device = torch.device(device)
        self.asked = tuple(dtype for dtype in ALL_DTYPES if dtype in (dtypes or ALL_DTYPES))
        self.model = lru_cache(maxsize=64)(self._model)
        self.reference = lru_cache(maxsize=64)(self._reference)
        self.weights = lru_cache(maxsize=32)(self._weights)
        self.probe = lru_cache(maxsize=8)(self._probe)
        self._elsewhere: dict[torch.device, Subject] = {}
        self._setups: WeakKeyDictionary[nn.Module, Setup] = WeakKeyDictionary()
        self._dtypes: WeakKeyDictionary[nn.Module, torch.dtype] = WeakKeyDictionary()
        self._lifter = Lifter()

    def on(self, device: torch.device) -> Subject:
        """The same candidate with the same weights and inputs on another device; itself on its own."""
        if device == self.device:
            return self
        if device not in self._elsewhere:
            self._elsewhere[device] = self.alike(device=str(device))
        return self._elsewhere[device]

    @cached_property
    def with_long_rows(self) -> Subject:
        """The same candidate, whose probes take rows of hundreds of tokens."""
        return self.alike(long_rows=True)

    def alike(self, candidate: Candidate | None = None, **changes: Any) -> Subject:
        """A subject like this one in all but `changes`, which are arguments of the class; with another candidate, it
        is given the same probes, weights and inputs on the same device."""
        same: dict[str, Any] = {
            "seed": self.seed,
            "device": str(self.device),
            "dtypes": self.asked,
            "long_rows": self.long_rows,
        }
        if candidate is None:
            return Subject(self.candidate, self.stated, **same | changes)
        return Subject(candidate, self.spec, **same | changes)

    @property
    def paths(self) -> tuple[str, ...]:
        """The candidate's code paths, each of which must conform."""
        return self.candidate.paths

    @cached_property
    def capabilities(self) -> dict[Capability, str | None]:
        """None for what the candidate can do, else the reason why it cannot."""
        model = self._build(self.probe(2), self.paths[0], DTYPES[self.stand_in("float32")])
        with random_states(self.seed), candidate_code("capabilities"):
            found = self.candidate.capabilities(model, self.probe(2))
        return {**dict.fromkeys(CAPABILITIES), **found}

    def has(self, capability: Capability) -> bool:
        """Whether the candidate can do this with this spec."""
        return self.capabilities[capability] is None

    # How near is near enough -------------------------------------------------------------------------------

    def stand_in(self, dtype: DType) -> DType:
        """The dtype in which the candidate is run where `dtype` is asked for: another one, if it declares that it has
        not got that."""
        return stand_in(dtype, self.candidate.absent)

    @property
    def widest(self) -> DType:
        """The dtype in which numbers are compared to rounding: float64, or the widest one that the candidate has."""
        return self.stand_in("float64")

    @cached_property
    def floor(self) -> float:
        """The largest relative difference, in the widest dtype, between two computations of the same numbers."""
        exact = self.widest == "float64"
        rounding = FLOAT64_FLOOR if exact else self._measured_floor()
        return max(rounding, self.limits.between_runs(self.widest))

    def _measured_floor(self) -> float:
        """The distance of two right computations in the widest dtype, by the reference."""

        def logits(setup: Setup, dtype: DType) -> Tensor:
            weights, setup = self.weights_of(setup), msgspec.structs.replace(setup, dtype=dtype)
            inputs = self.inputs(tokens=(3, 24), seed=setup.weights)
            with torch.no_grad():
                return run_reference(self.fresh_reference(setup, weights=weights), inputs).logits

        return measured_floor(self.spec, self.widest, logits)

    @cached_property
    def limits(self) -> Floor:
        """The limits of precision that the candidate states; all are zero if it states none."""
        return stated_floor(self.candidate, self.stated) or Floor(reason="none is stated")

    @cached_property
    def stillness(self) -> float:
        """The tolerance of what must not move, relative to its like: no bit, or rounding."""
        return self.floor if self.candidate.routes(self.spec) else 0.0

    def smoke(self) -> None:
        """Build one probe and run it once, with whatever weights it has and whatever comes out.

        Raises:
            CandidateUnusable: it cannot be built or called, or there are no weights to load.
        """
        try:
            model = self._build(self.probe(2), self.paths[0], DTYPES[self.stand_in("float32")])
            self.call(model.eval(), self.inputs(tokens=(1, 3)))
        except Violation as violation:
            raise CandidateUnusable(violation.summary) from violation
        with suppress(Violation):  # whether it can load them is for the properties to say
            self._demand_weights()

    def _demand_weights(self) -> None:
        try:
            self.model(Setup(path=self.paths[0], dtype="float32"))
        except SuiteFault as fault:
            raise CandidateUnusable(str(fault)) from fault

    # Building ---------------------------------------------------------------------------------------------

    @property
    def longest(self) -> int:
        """Tokens of the longest input that a probe takes: as many as the model does, or enough of them."""
        return min(self.spec.max_positions, self.probe(2, long=True).max_positions, LONG)

    def _probe(self, layers: int, long: bool = False) -> Spec:
        rows = min(self.spec.max_positions, LONG) if long or self.long_rows else ROWS
        window = LONG if self.long_rows else WINDOW
        return probe(self.spec, layers=layers, rows=rows, window=window)

    def _weights(
        self, layers: int, seed: int, regime: Regime = "bold", long: bool = False
    ) -> Weights:
        seed += 1000 * self.seed
        return random_weights(self.probe(layers, long), seed=seed, regime=regime)

    def weights_of(self, setup: Setup) -> Weights:
        """The weights of a probe, as the dtype holds them in which the candidate is run."""
        held = self.stand_in(setup.dtype)
        if held == setup.dtype:
            return self.weights(setup.layers, setup.weights, setup.drawn, setup.long)
        drawn = msgspec.structs.replace(setup, dtype=held).drawn
        return rounded(self.weights(setup.layers, setup.weights, drawn, setup.long), DTYPES[held])

    def _build(self, spec: Spec, path: str, dtype: torch.dtype) -> nn.Module:
        kind = ("build", path, spec.layers, spec.max_positions)
        with random_states(self.seed), self._guard("build", dtype, kind):
            model = self.candidate.build(spec, path)
        if not isinstance(model, nn.Module):
            raise Violation(f"build returned {type(model).__name__}; expected a torch.nn.Module")
        if next(model.parameters(), None) is None and "parameters" not in self.candidate.absent:
            raise Violation(
                "build returned a module without parameters; expected them registered, or a candidate that declares"
                f" {declaring('parameters')}"
            )
        self._dtypes[model] = dtype
        return model.to(self.device)

    def _model(self, setup: Setup) -> nn.Module:
        """The candidate's model for `setup`, in eval mode; cached, so never change its weights."""
        return self.fresh_model(setup)

    def fresh_model(self, setup: Setup) -> nn.Module:
        """A model of one's own, to train or to break."""
        dtype = DTYPES[self.stand_in(setup.dtype)]
        spec = self.probe(setup.layers, setup.long)
        model = self._build(spec if setup.dropping else undropped(spec), setup.path, dtype)
        with random_states(self.seed), candidate_code("cast"):
            model = self.candidate.cast(model, dtype)
        self._setups[model], self._dtypes[model] = setup, dtype
        if self.has("weights"):
            self.load(model, self.weights_of(setup))
        else:
            embolden(model, seed=1000 * self.seed + setup.weights)
        return model.eval()

    def load(self, model: nn.Module, weights: Weights) -> None:
        """Hand weights to the candidate, in tensors of its own, into which its `load` must not write."""
        handed = HandedWeights(weights)
        self.load_copied(model, handed)
        demand_unwritten(handed, weights, model)

    def load_copied(self, model: nn.Module, weights: Weights) -> None:
        """Hand weights to the candidate that are nobody else's, as often as it takes."""
        with random_states(self.seed), self._running("load", model):
            self.candidate.load(model, weights)

    def held(self, model: nn.Module, given: Weights) -> Weights:
        """The weights that a model computes with, of which `given` were loaded.

        Raises:
            Violation: they are farther from those than the candidate states.
        """
        if not self.candidate.overrides("effective_weights"):
            return given
        with random_states(self.seed), self._guard("effective_weights", self.dtype_of(model)):
            found = self.candidate.effective_weights(model)
        if found is None:
            return given
        weights = completed(given, found)
        dtype = self.dtype_of(model)
        demand_near(given, weights, stated=self.limits.weights, dtype=dtype)
        return weights

    def held_weights(self, setup: Setup) -> Weights:
        """The weights that the candidate's model for `setup` computes with."""
        given = self.weights_of(setup)
        if not self.candidate.overrides("effective_weights"):
            return given
        return self.held(self.model(msgspec.structs.replace(setup, path=self.paths[0])), given)

    def _reference(self, setup: Setup) -> Model:
        """The reference for `setup`, in eval mode; cached, so never change its weights."""
        return self.fresh_reference(setup)

    def fresh_reference(
        self, setup: Setup, *, path: AttentionPath = "fused", weights: Weights | None = None
    ) -> Model:
        """A reference of one's own in the dtype of `setup`, and with the candidate's weights unless others are given.

        `path` is that of its attention.
        """
        model = build_reference(self.probe(setup.layers, setup.long), path=path)
        model.to(self.device, DTYPES[setup.dtype])
        model.load_state_dict(self.held_weights(setup) if weights is None else weights)
        return model.eval()

    def restored(self, setup: Setup, folder: Path) -> nn.Module:
        """The candidate's model as it comes back from a folder, in eval mode."""
        dtype = DTYPES[self.stand_in(setup.dtype)]
        with random_states(self.seed), self._guard("restore", dtype):
            model = self.candidate.restore(self.probe(setup.layers, setup.long), folder, setup.path)
            self._dtypes[model] = dtype
            return model.to(self.device).eval()

    def dtype_of(self, model: nn.Module) -> torch.dtype:
        """The dtype in which one of the candidate's models computes: that of its parameters, if it has any."""
        first = next(model.parameters(), None)
        if "parameters" in self.candidate.absent or first is None:
            return self._dtypes.get(model, torch.float32)
        return first.dtype

    # Inputs -----------------------------------------------------------------------------------------------

    def inputs(
        self, *, tokens: tuple[int, int], source: int = 7, seed: int = 0, types: bool = False
    ) -> Inputs:
        """Random inputs (batch, length) without padding; `source` is the length of an encoder-decoder's source.

        The padding token is never drawn. Where there is none, token 0 stands first: it is as real as any other.
        """
        rng = np.random.default_rng([self.seed, seed, *tokens])
        vocabulary = self.probe(2).vocab_size

        padding = self.spec.architecture.padding_id

        def draw(low: int, high: int, length: int) -> Tensor:
            return torch.from_numpy(rng.integers(low, high, (tokens[0], length))).to(self.device)

        def text(length: int) -> Tensor:
            ids = draw(1, vocabulary, length)
            if padding != "none":
                ids[ids == padding] = (padding + 1) % vocabulary
            return ids

        token_ids = text(tokens[1])
        if padding == "none":
            token_ids[0, 0] = 0
        structure = self.spec.architecture.structure
        return Inputs(
            token_ids=token_ids,
            source_ids=text(source) if structure == "encoder-decoder" else None,
            token_types=draw(0, self.spec.segments, tokens[1]) if types else None,
        )

    # Calling ----------------------------------------------------------------------------------------------

    def forward(self, model: nn.Module, inputs: Inputs, *, grad: bool = False) -> Outputs:
        """The candidate's outputs, of the promised shape and dtype and finite at real positions."""
        with torch.set_grad_enabled(grad):
            outputs = self.call(model, copies(inputs))
            return owned(self._checked(model, inputs, outputs))

    def forward_cached(self, model: nn.Module, inputs: Inputs, cache: Any) -> Outputs:
        """The same for one step with a cache."""
        with torch.no_grad():
            outputs = self.call_cached(model, copies(inputs), cache)
            if outputs.cache is None:
                raise Violation(
                    "forward_cached returned no cache; expected the one to hand to the next call"
                )
            return owned(self._checked(model, inputs, outputs))

    def call(self, model: nn.Module, inputs: Inputs) -> Outputs:
        """Whatever the candidate makes of exactly these tensors, unchecked."""
        with self._running("forward", model, inputs):
            return self._plain(self.candidate.forward(model, inputs))

    def call_cached(self, model: nn.Module, inputs: Inputs, cache: Any) -> Outputs:
        """The same for one step with a cache."""
        with self._running("forward with a cache", model, inputs, cache is None):
            return self._plain(self.candidate.forward_cached(model, inputs, cache))

    def _plain(self, outputs: Outputs) -> Outputs:
        """The outputs as plain tensors; one number a token may come without an axis of its own."""
        logits = plain_tensor(outputs.logits, "the logits")
        if self.spec.logit_size == 1 and isinstance(logits, Tensor) and logits.ndim == 2:
            logits = rearrange(logits, "batch length -> batch length 1")
        sentence = plain_tensor(outputs.next_sentence, "the next-sentence logits")
        return Outputs(logits=logits, next_sentence=sentence, cache=outputs.cache)

    def backward(self, model: nn.Module, total: Tensor, what: str = "the backward pass") -> None:
        """Leave the gradients of `total` in the model's parameters."""
        if not total.requires_grad:
            raise Violation(
                f"{what} cannot begin: nothing leads from what is returned to any parameter; expected logits that"
                f" torch can differentiate, without a detach or a no_grad. {inference_only()}"
            )
        with self._running(what, model):
            total.backward()  # type: ignore[no-untyped-call]

    def disturb_with_cache(self, model: nn.Module, inputs: Inputs) -> None:
        """One call with a cache, if the candidate has one. What it raises is for the properties of caches to say."""
        if self.has("cache"):
            with suppress(Violation):
                self.forward_cached(model, inputs, None)

    def loss(
        self, model: nn.Module, inputs: Inputs, labels: Labels, *, grad: bool = False
    ) -> Tensor:
        """The candidate's training loss, a finite scalar."""
        with torch.set_grad_enabled(grad), self._running("loss", model, inputs):
            loss = plain_tensor(self.candidate.loss(model, copies(inputs), labels), "the loss")
        if not isinstance(loss, Tensor):
            raise Violation(f"the loss is a {type(loss).__name__}; expected a tensor, a scalar")
        if loss.shape != () or not torch.isfinite(loss):
            raise Violation(f"the loss is {loss!r}; expected one finite number")
        return loss

    def _running(
        self, what: str, model: nn.Module, inputs: Inputs | None = None, *more: Hashable
    ) -> AbstractContextManager[None]:
        """A guard around a run of the candidate's model; calls in which the same code runs are of one kind."""
        kind: Hashable = None
        if model in self._setups:
            setup = self._setups[model]
            given = None if inputs is None else frozenset(inputs.tensors())
            grad = torch.is_grad_enabled()
            kind = (what, setup.path, setup.layers, setup.long, model.training, grad, given, *more)
        return self._guard(what, self.dtype_of(model), kind)

    @contextmanager
    def _guard(self, what: str, dtype: torch.dtype, kind: Hashable = None) -> Iterator[None]:
        """A guard around candidate code: what it raises is a violation, and a float64 probe is float64 throughout."""
        lift = self.candidate.lifted and dtype is torch.float64
        lifting = self._lifter.throughout(kind) if lift else nullcontext()
        with default_dtype(dtype), lifting, candidate_code(what):
            yield

    def _checked(self, model: nn.Module, inputs: Inputs, outputs: Outputs) -> Outputs:
        batch, length = inputs.token_ids.shape
        dtype = self.dtype_of(model)
        small = self.probe(2)
        shape = (batch, length, small.logit_size)
        demand_logits(outputs.logits, shape, dtype, small.hidden_size)
        rows = real_rows(inputs)
        if not torch.isfinite(outputs.logits[rows]).all():
            row, position = (rows & ~torch.isfinite(outputs.logits).all(-1)).nonzero()[0].tolist()
            raise Violation(
                f"the logits are not finite at real position {position} of row {row}",
                row=row,
                position=position,
            )
        if self.has("next-sentence"):
            if outputs.next_sentence is None:
                raise Violation("the outputs have no next-sentence logits; expected (batch, 2)")
            demand_tensor("next-sentence logits", outputs.next_sentence, (batch, 2), dtype)
        return outputs
