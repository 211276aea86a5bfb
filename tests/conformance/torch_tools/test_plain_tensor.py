"""A tensor that answers for itself is looked at as plain numbers before anything is compared."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from holotype_conformance.judge.engine import Settings, judge
from holotype_conformance.judge.property import Property, Violation
from holotype_conformance.models.adapters.reference import ReferenceCandidate, run_reference
from holotype_conformance.models.candidate import Inputs, Labels, Outputs
from holotype_conformance.models.properties.agreement import gradients, logits
from holotype_conformance.models.properties.losses import loss
from holotype_conformance.models.subject import Subject
from holotype_conformance.torch_tools.fake_device import ElsewhereTensor
from holotype_conformance.torch_tools.plain_tensor import plain_gradient, plain_tensor
from holotype_spec import load
from holotype_spec.schema import Spec

pytestmark = pytest.mark.slow


class Agreeable(Tensor):
    """Differs from nothing and equals everything."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = super().__torch_function__(func, types, args, kwargs or {})
        name = getattr(func, "__name__", "")
        if name in ("sub", "__sub__", "rsub", "__rsub__"):
            return found * 0
        if name in ("equal", "allclose"):
            return True
        return ~(found & False) if name in ("eq", "__eq__") else found


class Wrapper(Tensor):
    """Numbers that only its own code knows."""

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise NotImplementedError


def test_a_subclass_is_looked_at_as_plain_numbers_in_the_same_graph() -> None:
    leaf = torch.ones(3, requires_grad=True)
    found = plain_tensor((2 * leaf).as_subclass(Agreeable), "the logits")
    assert type(found) is Tensor
    assert (found - torch.zeros(3)).tolist() == [2, 2, 2]
    assert torch.autograd.grad(found.sum(), leaf)[0].tolist() == [2, 2, 2]


def test_a_wrapper_without_numbers_of_its_own_is_refused_by_name() -> None:
    wrapper = Tensor._make_wrapper_subclass(Wrapper, (2,))  # type: ignore[attr-defined]
    with pytest.raises(Violation, match="the logits came as a Wrapper"):
        plain_tensor(wrapper, "the logits")


def test_what_is_no_tensor_is_left_to_whoever_asked() -> None:
    assert plain_tensor([1.0], "the logits") == [1.0]
    assert plain_tensor(None, "the logits") is None


def test_the_gradient_of_a_parameter_of_any_class_is_plain() -> None:
    parameter = torch.ones(2).as_subclass(Agreeable).requires_grad_()
    Tensor.sum(3 * plain_tensor(parameter, "it")).backward()  # type: ignore[no-untyped-call]
    found = plain_gradient(parameter)
    assert type(found) is Tensor
    assert found.tolist() == [3, 3]


class Wrong(ReferenceCandidate):
    """Logits and a loss that are off by a factor, in tensors that agree with everything."""

    paths = ("fused",)

    def __init__(self, factor: float = 1.5) -> None:
        self.factor = factor

    def forward(self, model: nn.Module, inputs: Inputs) -> Outputs:
        outputs = super().forward(model, inputs)
        return Outputs(logits=(self.factor * outputs.logits).as_subclass(Agreeable))

    def loss(self, model: nn.Module, inputs: Inputs, labels: Labels) -> Tensor:
        logits, labels_of_next = run_reference(model, inputs).logits[:, :-1], labels.tokens[:, 1:]
        loss = F.cross_entropy(logits.flatten(0, 1), labels_of_next.flatten())
        return (self.factor * loss).as_subclass(Agreeable)


class WrongGradients(ReferenceCandidate):
    """Parameters that agree with everything, one of them with half of its gradient."""

    paths = ("fused",)

    def build(self, spec: Spec, path: str = "default") -> nn.Module:
        model = super().build(spec, path)
        for module in model.modules():
            for name, parameter in list(module.named_parameters(recurse=False)):
                agreeable = parameter.detach().as_subclass(Agreeable).requires_grad_()
                module.register_parameter(name, nn.Parameter(agreeable))
        first = next(model.parameters())
        first.register_hook(lambda gradient: 0.5 * gradient)
        return model


@pytest.mark.parametrize(
    ("candidate", "property_"), [(Wrong(), logits), (Wrong(), loss), (WrongGradients(), gradients)]
)
def test_a_wrong_model_is_wrong_in_whatever_class_its_tensors_come(
    candidate: ReferenceCandidate, property_: Property
) -> None:
    assert judge(Subject(candidate, load("gpt2")), property_, Settings()).outcome == "failed"


@pytest.mark.parametrize("property_", [logits, loss])
def test_a_right_model_may_return_tensors_of_a_class_of_its_own(property_: Property) -> None:
    result = judge(Subject(Wrong(factor=1.0), load("gpt2")), property_, Settings())
    assert result.outcome == "passed", result.reason


def test_a_tensor_of_the_simulated_device_is_the_suite_s_own_and_stays() -> None:
    own = ElsewhereTensor(torch.ones(2))
    assert plain_tensor(own, "the logits") is own

    class Theirs(ElsewhereTensor):
        pass

    with pytest.raises(Violation, match="by code of its own"):
        plain_tensor(Theirs(torch.ones(2)), "the logits")
