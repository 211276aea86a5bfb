"""A float64 probe is float64 throughout: by a mode, or by functions in the places of those that take a dtype."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from holotype_conformance.models.adapters.reference import ReferenceCandidate
from holotype_conformance.models.candidate import Outputs
from holotype_conformance.models.setup import Setup
from holotype_conformance.models.subject import Subject
from holotype_conformance.torch_tools import float64
from holotype_conformance.torch_tools.float64 import Float64Throughout, Lifter
from holotype_spec import load

X = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
softmax, to = torch.softmax, Tensor.to  # as code has them that imported them before

ASKING: dict[str, Callable[[], Tensor]] = {
    "cast": lambda: X.to(torch.float32),
    "cast-by-name": lambda: X.to(dtype=torch.float32),
    "cast-with-device": lambda: X.to("cpu", torch.float32),
    "float": lambda: X.float(),
    "type": lambda: X.type(torch.float32),
    "type-of-old": lambda: X.type("torch.FloatTensor"),
    "type-of-old-itself": lambda: X.type(torch.FloatTensor),
    "constructor-of-old": lambda: torch.FloatTensor([1.0]),
    "softmax": lambda: torch.softmax(X, -1, dtype=torch.float32),
    "softmax-by-position": lambda: X.softmax(-1, torch.float32),
    "functional": lambda: nn.functional.softmax(X, dim=-1, dtype=torch.float32),
    "log-softmax": lambda: nn.functional.log_softmax(X, dim=-1, dtype=torch.float32),
    "sum": lambda: X.sum(-1, False, dtype=torch.float32),
    "prod": lambda: torch.prod(X, dtype=torch.float32),
    "made": lambda: torch.zeros(3, dtype=torch.float32),
    "made-of": lambda: torch.tensor([1.0], dtype=torch.float32),
    "made-like": lambda: torch.ones_like(X, dtype=torch.float32),
    "made-new": lambda: X.new_zeros(3, dtype=torch.float32),
    "counted": lambda: torch.arange(3, dtype=torch.float32),
}
HELD: dict[str, Callable[[], Tensor]] = {
    "softmax": lambda: softmax(X, -1, dtype=torch.float32),
    "cast": lambda: to(X, torch.float32),
    "seldom": lambda: X.view(torch.float32),  # a function that is not replaced
}


class Counted(Float64Throughout):
    """The mode, which counts how often it is entered."""

    entered = 0

    def __enter__(self):
        Counted.entered += 1
        return super().__enter__()


@pytest.fixture
def modes(monkeypatch):
    monkeypatch.setattr(Counted, "entered", 0)
    monkeypatch.setattr(float64, "Float64Throughout", Counted)
    return lambda: Counted.entered


@pytest.mark.parametrize("asks", ASKING.values(), ids=ASKING)
def test_what_asks_for_float32_gets_float64_with_the_mode_and_without_it(asks, modes) -> None:
    lifter, found = Lifter(), []
    for _ in range(3):
        with lifter.throughout("a kind"):
            found.append(asks())
    assert [each.dtype for each in found] == [torch.float64] * 3
    assert torch.equal(found[0], found[2])
    assert modes() == 1
    assert asks().dtype is torch.float32


@pytest.mark.parametrize("asks", HELD.values(), ids=HELD)
def test_code_that_asks_by_what_cannot_be_replaced_stays_under_the_mode(asks, modes) -> None:
    lifter = Lifter()
    for _ in range(3):
        with lifter.throughout("a kind"):
            assert asks().dtype is torch.float64
    assert modes() == 3


def test_each_kind_of_call_is_watched_by_itself(modes) -> None:
    lifter = Lifter()
    for kind, asks in (("first", ASKING["cast"]), ("other", HELD["cast"])) * 2:
        with lifter.throughout(kind):
            assert asks().dtype is torch.float64
    assert modes() == 3


def test_a_call_of_no_known_kind_is_under_the_mode(modes) -> None:
    lifter = Lifter()
    for _ in range(2):
        with lifter.throughout(None):
            assert HELD["softmax"]().dtype is torch.float64
    assert modes() == 2


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.int32, torch.bool])
def test_other_casts_stay_what_they_are(dtype) -> None:
    lifter = Lifter()
    for _ in range(2):
        with lifter.throughout("a kind"):
            assert X.to(dtype).dtype is dtype
            assert torch.zeros(2, dtype=dtype).dtype is dtype


def test_the_functions_of_torch_are_put_back_whatever_happens() -> None:
    before = {name: vars(Tensor).get(name) for name in ("to", "float", "softmax", "norm")}
    lifter = Lifter()
    for _ in range(2):
        with lifter.throughout("inner"), lifter.throughout("inner"):
            inside = torch.softmax
        assert inside is not softmax
    with pytest.raises(ZeroDivisionError), lifter.throughout("inner"):
        raise ZeroDivisionError
    assert torch.softmax is softmax
    assert {name: vars(Tensor).get(name) for name in before} == before
    held = inside(X, -1, dtype=torch.float32)  # what was held back lifts nothing more
    assert held.dtype is torch.float32


def scripted(x: Tensor) -> Tensor:
    return torch.softmax(x, -1) + torch.zeros(3)


@pytest.mark.filterwarnings("ignore:.*jit.script.*")
def test_code_may_be_compiled_where_functions_are_replaced() -> None:
    lifter = Lifter()
    compiled = torch.compile(
        lambda x: x.to(torch.float32).softmax(-1), backend="eager", fullgraph=True
    )
    for _ in range(3):
        with lifter.throughout("script"):
            assert torch.jit.script(scripted)(X).dtype is torch.float64
        with lifter.throughout("compile"):
            assert compiled(X).dtype is torch.float64
    assert compiled(X).dtype is torch.float32


def test_a_model_that_holds_a_function_agrees_in_every_call() -> None:
    class Holding(ReferenceCandidate):
        """The reference, with a softmax in float32 over its logits by a function that it imported."""

        lifted = True

        def forward(self, model, inputs):
            logits = super().forward(model, inputs).logits
            return Outputs(logits=to(softmax(logits, -1, dtype=torch.float32), torch.float64))

    subject = Subject(Holding(), load("gpt2"))
    model, inputs = subject.model(Setup(path="fused")), subject.inputs(tokens=(1, 5))
    first, second = (subject.forward(model, inputs).logits for _ in range(2))
    assert torch.equal(first, second)
    off = (first.sum(-1) - 1).abs().max()
    assert off < 1e-14  # in float32 it would be 1e-8
