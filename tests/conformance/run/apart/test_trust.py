"""What a candidate could do to be called right, and that it is not: docs/trust.md, from the outside."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from holotype_conformance.judge.property import Violation
from holotype_conformance.judge.records import signed
from holotype_conformance.kernels.suite import KERNELS
from holotype_conformance.models.suite import MODELS
from holotype_conformance.run.apart import split
from holotype_conformance.run.apart.wire import (
    AnyAnswer,
    Closed,
    Data,
    Value,
    Violated,
    Wire,
    data,
    tensor,
)

HERE = Path(__file__).parent
EXAMPLE = HERE.parents[3] / "examples" / "third_party_gpt2"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="processes are not split here"),
]


def check(folder, cheat, *arguments):
    """`holotype check` of one of the cheats: the run, and its results by property."""
    path = os.pathsep.join([str(EXAMPLE), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-c", "from holotype_conformance.cli import main; main()"]
    command += ["check", f"{HERE / 'cheats.py'}:{cheat}", "--spec", "gpt2", "--json", "out.json"]
    command += ["--property", "agreement.logits", *arguments]
    run = subprocess.run(
        command,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=300,
    )
    report = json.loads((folder / "out.json").read_text())
    return run, {result["property"]: result for result in report["results"]}


def test_models_are_judged_apart_on_linux_and_kernels_where_they_run():
    assert split.possible(MODELS)
    assert not split.possible(KERNELS)


def test_the_right_model_is_right(tmp_path):
    run, results = check(tmp_path, "Honest", "--property", "interface.outputs")
    assert run.returncode == 0, run.stdout + run.stderr
    assert {result["outcome"] for result in results.values()} == {"passed"}
    assert results["agreement.logits"]["cases"] >= 20


@pytest.mark.parametrize(
    ("cheat", "said"),
    [
        ("Patching", "the logits and the reference's differ by"),
        ("Stealing", "the logits and the reference's differ by"),
        ("Calling", "the candidate calls the reference"),
        ("Forging", "the logits and the reference's differ by"),
    ],
)
def test_a_wrong_model_that_cheats_is_wrong(tmp_path, cheat, said):
    run, results = check(tmp_path, cheat)
    assert run.returncode == 1, run.stdout + run.stderr
    assert results["agreement.logits"]["outcome"] == "failed"
    assert said in results["agreement.logits"]["reason"]


# Signed events --------------------------------------------------------------------------------------------------


def test_a_signature_is_of_the_key_the_number_and_the_line():
    made = signed(b"key", 3, b'{"event":"done"}')
    assert made.endswith(b' {"event":"done"}')
    others = [
        signed(b"kez", 3, b'{"event":"done"}'),
        signed(b"key", 4, b'{"event":"done"}'),
        signed(b"key", 3, b'{"event":"dune"}'),
    ]
    assert len({made.split()[0], *(each.split()[0] for each in others)}) == 4


# The wire -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given",
    [
        torch.randn(2, 3, dtype=torch.float64),
        torch.randn(2, 3).bfloat16(),
        torch.randn(4, 6).half().T[1:],
        torch.arange(6).reshape(2, 3)[:, ::2],
        torch.tensor([True, False]),
        torch.tensor(7),
        torch.empty(2, 0, 3),
        torch.tensor([float("nan"), -0.0, float("inf")]),
        torch.randn(3, dtype=torch.complex64).conj(),
        torch.randn(3, requires_grad=True),
    ],
    ids=lambda given: f"{given.dtype}{list(given.shape)}",
)
def test_a_tensor_comes_over_with_every_bit(given):
    found = tensor(data(given, "tensor"))
    assert (found.dtype, found.shape) == (given.dtype, given.shape)
    kept = given.detach().resolve_conj().contiguous()
    assert bytes(found.reshape(-1).view(torch.uint8).numpy()) == bytes(
        kept.reshape(-1).view(torch.uint8).numpy()
    )


def test_what_holds_no_numbers_is_a_violation():
    with pytest.raises(Violation, match="the logits cannot be read as numbers"):
        data(torch.empty(3, device="meta"), "logits")


@pytest.mark.parametrize(
    "found",
    [
        Data("float32", (3,), b"12345678"),
        Data("float32", (-1, -2), b"12345678"),
        Data("load", (2,), b"12345678"),
        Data("int99", (2,), b"12345678"),
    ],
)
def test_data_that_does_not_belong_together_is_no_tensor(found):
    with pytest.raises(ValueError, match=r"no dtype|are no torch\.float32 tensor"):
        tensor(found)


@pytest.fixture
def ends():
    here, there = socket.socketpair()
    both = Wire(here, AnyAnswer, alarmed=True), Wire(there, AnyAnswer, alarmed=False)
    yield both
    for end in both:
        end.socket.close()


def test_messages_come_over_whole_and_in_order(ends):
    here, there = ends
    there.send(1, Value(value="x" * 10_000))
    there.send(2, Violated(summary="no", facts={"error": float("inf"), "row": 3}))
    assert here.receive() == (1, Value(value="x" * 10_000))
    number, violated = here.receive()
    assert (number, violated.facts) == (2, {"error": float("inf"), "row": 3})


@pytest.mark.parametrize(
    "scribbled", [b"\0" * 7 + b"\x03abc", b"\xff" * 8, b"\0" * 7 + b"\x02\x93\x01"]
)
def test_what_is_no_message_ends_the_wire(ends, scribbled):
    here, there = ends
    there.socket.sendall(scribbled)
    there.socket.close()
    with pytest.raises(Closed):
        here.receive()


class Woken(BaseException):
    pass


def test_an_alarm_ends_a_wait_and_tears_no_message(ends):
    here, there = ends

    def wake(*_):
        raise Woken

    before = signal.signal(signal.SIGALRM, wake)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(Woken):
            here.receive()
        there.send(1, Value(value=[1, 2]))
        assert here.receive() == (1, Value(value=[1, 2]))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
