"""What a subject builds, casts and loads, and where: on a candidate that notes what it was given."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from runpy import run_path
from typing import Any, ClassVar

import msgspec
import pytest
import torch
from torch import Tensor, nn

from holotype_conformance.judge.property import Violation
from holotype_conformance.judge.records import DType
from holotype_conformance.models import subject as subjects
from holotype_conformance.models.bold_weights import embolden
from holotype_conformance.models.candidate import (
    Capability,
    Floor,
)
from holotype_conformance.models.handed_weights import HandedWeights
from holotype_conformance.models.setup import Setup, undropped
from holotype_conformance.models.subject import Subject
from holotype_spec import load
from holotype_spec.probes import probe
from holotype_spec.schema import Spec

GPT2 = load("gpt2")

noting = run_path(str(Path(__file__).with_name("noting.py")))
Noting, Small, same, states = (noting[name] for name in ("Noting", "Small", "same", "states"))


# Building -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
def test_a_model_is_built_cast_and_loaded_in_the_states_of_the_seed(dtype: DType) -> None:
    candidate = Noting()
    subject = Subject(candidate, GPT2, seed=4)
    assert subject.capabilities
    candidate.drawn.clear()
    candidate.built.clear()
    model = subject.fresh_model(Setup(path="slow", layers=3, dtype=dtype, weights=1, long=True))
    made = getattr(torch, dtype)
    default = torch.float64 if dtype == "float64" else torch.float32
    assert candidate.built == [(probe(GPT2, layers=3, rows=523), "slow", default)]
    assert candidate.cast_to == [made]
    assert not model.training
    assert {each.dtype for each in model.parameters()} == {made}
    assert candidate.drawn == dict.fromkeys(("build", "cast", "load"), states(4))
    (loaded,) = candidate.loaded
    assert isinstance(loaded, HandedWeights)
    given = subject.weights_of(Setup(layers=3, dtype=dtype, weights=1, long=True))
    assert same(loaded, given)
    assert all(loaded[name].data_ptr() != given[name].data_ptr() for name in given)


def test_a_model_that_drops_nothing_has_a_rate_of_zero_and_is_the_same_else() -> None:
    candidate = Noting()
    subject = Subject(candidate, GPT2)
    subject.fresh_model(Setup(path="fast", dropping=False))
    spec = candidate.built[0][0]
    assert spec.architecture.dropout.rate == 0.0
    assert spec.architecture.dropout.sites == GPT2.architecture.dropout.sites
    assert undropped(probe(GPT2)) == spec
    assert msgspec.structs.replace(spec, architecture=probe(GPT2).architecture) == probe(GPT2)


def test_without_names_a_model_gets_weights_of_the_seed_and_the_number() -> None:
    candidate = Noting()
    candidate.found = {"weights": "nobody can name them"}
    found = Subject(candidate, GPT2, seed=2).fresh_model(Setup(path="fast", weights=3))
    assert candidate.loaded == []
    expected = Small(probe(GPT2)).double()  # whose scale is one before, too
    embolden(expected, seed=2003)
    assert torch.equal(found.table, expected.table)
    assert torch.equal(found.scale, expected.scale)


def test_bold_weights_are_drawn_at_their_scales() -> None:
    model = nn.Module()
    model.matrix = nn.Parameter(torch.zeros(2, 9))
    model.vector = nn.Parameter(torch.full((50,), 3.0, dtype=torch.float16))
    model.number = nn.Parameter(torch.tensor(2.0))
    model.table = nn.Parameter(torch.zeros(2, 3, 4, dtype=torch.float64))
    embolden(model, seed=7)
    generator = torch.Generator().manual_seed(7)

    def noise(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    # 1.5 / √(inputs), the last axis; vectors 0.4 around where they were
    assert torch.equal(model.matrix, (1.5 * noise(2, 9) / 3.0).float())
    assert torch.equal(model.vector, 3.0 + 0.4 * noise(50).half())  # drawn as it holds numbers
    assert torch.equal(model.number, 2.0 + (0.4 * noise().float()))
    assert torch.equal(model.table, 1.5 * noise(2, 3, 4) / 2.0)


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda spec: 3, "build returned int; expected a torch.nn.Module"),
        (lambda spec: nn.Identity(), "a module without parameters; expected them registered, or"),
    ],
)
def test_what_is_no_model_is_refused(made: Any, said: str) -> None:
    candidate = Noting()
    candidate.build = lambda spec, path="": made(spec)  # type: ignore[method-assign]
    with pytest.raises(Violation, match=said):
        Subject(candidate, GPT2).fresh_model(Setup(path="fast"))


class Bare(Noting):
    """Its weights are no parameters."""

    absent: ClassVar[Mapping[Capability, str]] = {"parameters": "they are packed", "float16": "why"}

    def build(self, spec: Spec, path: str = "fast") -> nn.Module:
        return nn.Identity()

    def restore(self, spec: Spec, folder: Path, path: str = "fast") -> nn.Module:
        return nn.Identity()


def test_the_dtype_of_a_model_without_parameters_is_the_one_it_was_built_for() -> None:
    subject = Subject(Bare(), GPT2)
    for dtype in (torch.float32, torch.float64):
        assert subject.dtype_of(subject._build(subject.probe(2), "fast", dtype)) is dtype
    assert subject.dtype_of(subject.fresh_model(Setup(dtype="bfloat16"))) is torch.bfloat16
    assert subject.dtype_of(subject.restored(Setup(), Path())) is torch.float64
    assert subject.dtype_of(nn.Identity()) is torch.float32  # never seen
    with_parameters = Subject(Noting(), GPT2)
    model = with_parameters.fresh_model(Setup(path="fast"))
    assert with_parameters.dtype_of(model.to(torch.float16)) is torch.float16
    assert with_parameters.dtype_of(nn.Identity()) is torch.float32
    wrapped = subject.fresh_model(Setup(dtype="bfloat16"))
    wrapped.weight = nn.Parameter(torch.ones(1, dtype=torch.float64))
    assert subject.dtype_of(wrapped) is torch.bfloat16  # what is declared absent says nothing


def test_what_comes_back_from_a_folder_is_told_where_and_stands_in_eval_mode(
    tmp_path: Path,
) -> None:
    seen: list[Any] = []

    class Restoring(Noting):
        def restore(self, spec: Spec, folder: Path, path: str = "fast") -> nn.Module:
            self.note("restore")
            seen.append((spec, folder, path))
            return Small(spec)

    candidate = Restoring()
    there = Subject(candidate, GPT2, seed=5, device="meta")
    model = there.restored(Setup(layers=3, path="slow", long=True), tmp_path)
    assert seen == [(probe(GPT2, layers=3, rows=523), tmp_path, "slow")]
    assert not model.training
    assert next(model.parameters()).device == torch.device("meta")
    assert candidate.drawn["restore"] == states(5)
    assert candidate.defaults["restore"] is torch.float64


def test_a_reference_has_the_weights_the_dtype_and_the_path_that_are_asked_for() -> None:
    subject = Subject(Noting(), GPT2)
    setup = Setup(path="slow", layers=3, dtype="float32", long=True)
    model = subject.fresh_reference(setup)
    given = subject.weights_of(setup)
    state = model.state_dict()
    assert all(torch.equal(state[name], each.float()) for name, each in given.items())
    assert not model.training
    others = subject.weights(3, 5, "bold", True)
    other = subject.fresh_reference(setup, weights=others, path="eager").state_dict()
    assert all(torch.equal(other[name], each.float()) for name, each in others.items())


def test_the_path_of_a_references_attention_is_the_one_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[Any] = []
    build = subjects.build_reference

    def noting(spec: Spec, **facts: Any) -> Any:
        asked.append(facts)
        return build(spec, **facts)

    monkeypatch.setattr(subjects, "build_reference", noting)
    subject = Subject(Noting(), GPT2)
    subject.fresh_reference(Setup(layers=1))
    subject.fresh_reference(Setup(layers=1), path="eager")
    assert asked == [{"path": "fused"}, {"path": "eager"}]


# Weights that it computes with ----------------------------------------------------------------------------------


class Coarse(Noting):
    """Computes with weights that are off by a relative error, and hands them out, or None."""

    def __init__(self, error: float | None, stated: float) -> None:
        super().__init__()
        self.error, self.stated = error, stated

    def floor(self, spec: Spec) -> Floor:
        return Floor(weights=self.stated, reason="8 bits")

    def effective_weights(self, model: nn.Module) -> Mapping[str, Tensor] | None:
        self.note("effective_weights")
        if self.error is None:
            return None
        return {name: each * (1 + self.error) for name, each in self.loaded[-1].items()}


def test_the_weights_that_it_computes_with_are_compared_and_taken() -> None:
    candidate = Coarse(1e-3, 1e-2)
    subject = Subject(candidate, GPT2, seed=3)
    setup = Setup(path="slow")
    found, given = subject.held_weights(setup), subject.weights_of(setup)
    assert not same(found, given)
    assert all(torch.allclose(found[name], 1.001 * each) for name, each in given.items())
    assert candidate.drawn["effective_weights"] == states(3)
    assert candidate.defaults["effective_weights"] is torch.float64
    assert (
        candidate.built[-1][1] == candidate.built[0][1] == "fast"
    )  # of the first path, whatever is asked
    with pytest.raises(Violation, match="not those that it was given"):
        Subject(Coarse(2e-2, 1e-2), GPT2).held_weights(setup)
    with pytest.raises(Violation, match="not those that it was given"):
        Subject(Coarse(1e-12, 0.0), GPT2).held_weights(setup)
    single = Subject(Coarse(1e-7, 0.0), GPT2)  # which is rounding in float32
    assert not same(
        single.held_weights(Setup(dtype="float32")), single.weights_of(Setup(dtype="float32"))
    )


def test_whoever_hands_out_nothing_computes_with_what_it_was_given() -> None:
    subject = Subject(Coarse(None, 0.0), GPT2)
    given = subject.weights_of(Setup())
    assert subject.held_weights(Setup()) is given
    assert subject.held(subject.model(Setup(path="fast")), given) is given
    plain = Noting()
    assert Subject(plain, GPT2).held(nn.Identity(), given) is given
    untouched = Subject(plain, GPT2)
    assert untouched.held_weights(Setup()) is untouched.weights(2, 0, "bold", False)
    assert plain.built == []  # nobody needs a model for that
