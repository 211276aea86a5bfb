"""The simulated device: real numbers, and nothing from the CPU meets what lies elsewhere."""

import pytest
import torch
from torch import nn

from holotype_conformance.judge.engine import Settings, judge
from holotype_conformance.judge.property import Skip, Violation
from holotype_conformance.models.properties import all_properties
from holotype_conformance.models.subject import Subject
from holotype_conformance.models.targets import resolve
from holotype_conformance.torch_tools.fake_device import (
    ELSEWHERE,
    TwoDevices,
    here,
    places,
    told_apart,
)
from holotype_spec import load

pytestmark = pytest.mark.slow

WITHOUT_NUMBERS = torch.ones(3, device="meta")


@pytest.fixture
def x():
    with places():
        yield torch.arange(6.0).reshape(2, 3).to(ELSEWHERE)


def test_what_is_computed_from_tensors_elsewhere_lies_there_and_has_the_numbers_of_the_cpu(x):
    y = (x @ x.mT).softmax(-1)
    assert y.device == ELSEWHERE
    held = torch.arange(6.0).reshape(2, 3)
    assert torch.equal(here(y), (held @ held.mT).softmax(-1))
    assert float(x[1, 2]) == 5.0


def test_its_numbers_can_be_listed_as_those_of_a_gpu_can(x):
    assert x.tolist() == [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]


def test_a_model_with_a_prefix_is_moved_there():
    subject = Subject(resolve("reference"), load("glm-base"))
    placement = next(each for each in all_properties() if each.slug == "devices.placement")
    assert judge(subject, placement, Settings()).outcome == "passed"


@pytest.mark.parametrize(
    "make",
    [
        lambda x: torch.arange(3, device=x.device),
        lambda x: torch.tensor([1.0, 2.0, 3.0], device=x.device),
        lambda x: torch.zeros(3, device="cpu").to(x.device),
        lambda x: x.new_ones(3),
        lambda x: x.new_tensor([1.0, 2.0, 3.0]),
        lambda x: torch.zeros_like(x),
        lambda x: torch.full((), 2.0),
        lambda x: 2.0,
    ],
)
def test_what_is_made_there_or_is_a_number_may_meet_it(x, make):
    assert (x + make(x)).device == ELSEWHERE


@pytest.mark.parametrize(
    "meet",
    [
        lambda x: x + torch.ones(3),
        lambda x: torch.ones(2, 2) @ x,
        lambda x: torch.cat([x, torch.ones(2, 3)]),
        lambda x: x.masked_fill(torch.ones(2, 3, dtype=torch.bool), 0.0),
        lambda x: nn.functional.embedding(torch.tensor([0, 1]), x),
        lambda x: x + torch.arange(3),
        lambda x: x + x.cpu()[0],
    ],
)
def test_what_was_made_on_the_cpu_may_not(x, meet):
    with pytest.raises(TwoDevices, match="on two devices"):
        meet(x)


def test_an_index_may_lie_on_the_cpu_as_it_may_for_a_gpu(x):
    assert x[torch.tensor([1])].device == ELSEWHERE


@pytest.mark.parametrize(
    "index", [[-1], [True, False], [], (slice(None), [0, 2]), ([0, 1], [2, 2])]
)
def test_a_list_of_numbers_indexes_as_it_does_on_the_cpu(x, index):
    held = torch.arange(6.0).reshape(2, 3)
    assert torch.equal(here(x[index]), held[index])
    held[index] = x[index] = 7.0
    assert torch.equal(here(x), held)


def test_a_tensor_without_numbers_is_refused_and_not_computed_with(x):
    with pytest.raises(RuntimeError, match="holds no numbers"):
        x + WITHOUT_NUMBERS


def test_what_is_changed_in_place_stays_itself(x):
    assert x.mul_(2.0) is x
    assert here(x)[0, 2] == 4.0


def test_a_module_takes_its_buffers_along_and_leaves_plain_attributes_behind(x):
    module = nn.Linear(3, 3)
    module.register_buffer("table", torch.ones(3))
    module.left = torch.ones(3)
    module.to(ELSEWHERE)
    assert (module(x) * module.table).device == ELSEWHERE
    with pytest.raises(TwoDevices):
        module(x) * module.left


def test_outside_of_it_torch_is_as_it_was():
    with places():
        pass
    with pytest.raises((RuntimeError, NotImplementedError)):
        torch.ones(3).to(ELSEWHERE)


def test_only_devices_that_meet_are_held_against_a_candidate():
    with pytest.raises(Violation, match="two devices"), told_apart(path="eager"):
        raise Violation("forward raised TwoDevices") from TwoDevices("two devices")
    with pytest.raises(Skip, match="cannot run it: no such operator"), told_apart():
        raise Violation("forward raised") from NotImplementedError("no such operator")
    with pytest.raises(Violation, match="other numbers"), told_apart():
        raise Violation("other numbers")
