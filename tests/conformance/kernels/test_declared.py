"""Kernels within limits: what they declare is believed, what they refuse is told, and what they get wrong is found."""

import json
from pathlib import Path
from runpy import run_path
from typing import ClassVar

import pytest
import torch

from holotype_conformance.judge.declaring import DeclarationError, Floor
from holotype_conformance.judge.engine import Settings, judge
from holotype_conformance.judge.guard import CandidateUnusable
from holotype_conformance.kernels.candidate import FunctionKernel, KernelCandidate
from holotype_conformance.kernels.declared import kernel_declarations
from holotype_conformance.kernels.diagnosis import diagnose
from holotype_conformance.kernels.properties import kernel_properties
from holotype_conformance.kernels.sizes import Sizes, nearest
from holotype_conformance.kernels.subject import KernelSubject
from holotype_conformance.kernels.suite import KERNELS

pytestmark = pytest.mark.slow

limited = run_path(str(Path(__file__).with_name("limited_kernels.py")))
EVERY = {property_.slug: property_ for property_ in kernel_properties()}
# Those in which a large logarithm, a cast and a backward pass show, one of each kind.
TELLING = (
    "formula.float64",
    "formula.float32",
    "gradients.float64",
    "gradients.float32",
    "gradients.some",
    "contract.deterministic",
    "algebra.convex",
    "algebra.score-shift",
    "extremes.large-scores",
    "extremes.equal-scores",
    "extremes.additive-mask",
    "lengths.rising-scores",
)


def results(kernel, slugs=TELLING):
    if not isinstance(kernel, KernelCandidate):
        kernel = FunctionKernel(kernel, "mine")
    subject = KernelSubject(kernel)
    return {slug: judge(subject, EVERY[slug], Settings(diagnose=diagnose)) for slug in slugs}


def outcomes(kernel, slugs=TELLING):
    return {slug: result.outcome for slug, result in results(kernel, slugs).items()}


@pytest.mark.parametrize("name", limited["RIGHT"])
def test_what_is_right_in_its_own_way_is_not_flagged(name):
    assert set(outcomes(limited["RIGHT"][name]).values()) == {"passed"}


@pytest.mark.parametrize("name", limited["WRONG"])
def test_what_truly_loses_precision_or_gradients_still_is(name):
    assert "failed" in outcomes(limited["WRONG"][name]).values()


def test_a_kernel_that_takes_no_mask_has_none_to_hold():
    def attention(q, k, v):
        return limited["plain"](q, k, v)

    found = results(attention, ["lengths.masks", "masks.unseen-nan"])
    assert {result.outcome for result in found.values()} == {"skipped"}
    assert "no mask" in found["lengths.masks"].reason


def test_every_property_can_be_asked_of_a_kernel_that_takes_nothing_but_q_k_and_v():
    subject = KernelSubject(FunctionKernel(lambda q, k, v: limited["plain"](q, k, v), "mine"))
    for property_ in EVERY.values():
        if not property_.costly:
            result = judge(subject, property_, Settings(diagnose=diagnose))
            assert result.outcome in ("passed", "skipped"), result


# What is declared ------------------------------------------------------------------------------------------------

WITHIN = (
    "contract.result",
    "contract.strides",
    "formula.float64",
    "masks.causal",
    "masks.window",
    "masks.broadcast",
    "masks.no-key",
    "masks.together",
    "lengths.masks",
    "lengths.rising-scores",
    "extremes.additive-mask",
)


@pytest.mark.parametrize("name", ["Told", "Windowed", "Decoder", "Coarse"])
def test_what_a_kernel_declares_is_believed(name):
    left = set(outcomes(limited[name](), WITHIN).values())
    assert left <= {"passed", "skipped"}
    assert "passed" in left


@pytest.mark.parametrize("name", ["Told", "Windowed", "Decoder", "Coarse"])
def test_within_its_limits_it_is_held_to_the_formula(name):
    class Wrong(limited[name]):
        @staticmethod
        def attends(q, k, v, *, scale=None, **options):
            return limited["plain"](q, k, v, scale=q.shape[-1] ** -0.25, **options)

    assert outcomes(Wrong(), ["formula.float64"]) == {"formula.float64": "failed"}


def test_what_it_declares_leaves_out_what_is_skipped_with_its_reason():
    found = results(
        limited["Told"](), ["lengths.query-length", "lengths.head-dim", "hardware.threads"]
    )
    assert {slug: (result.outcome, result.reason) for slug, result in found.items()} == {
        "lengths.query-length": ("skipped", "self-attention only"),
        "lengths.head-dim": ("skipped", "vectors of 16"),
        "hardware.threads": ("skipped", "one sequence at a time"),
    }


def test_a_wider_window_is_found_where_the_window_is_required():
    class Wider(limited["Windowed"]):
        @staticmethod
        def attends(q, k, v, *, window=None, **options):
            return limited["plain"](q, k, v, window=window + 1, **options)

    assert outcomes(Wider(), ["masks.window"]) == {"masks.window": "failed"}


def test_declarations_are_carried_with_their_reasons():
    said = {(each.kind, each.name, each.reason) for each in kernel_declarations(limited["Told"]())}
    assert ("absent", "gradients", "inference only") in said
    assert ("sizes", "lengths multiples of 64", "blocks of 64") in said
    (floor,) = kernel_declarations(limited["Coarse"]())
    assert (floor.kind, floor.name, floor.allowed) == ("floor", "outputs", 0.05)
    (required,) = kernel_declarations(limited["Windowed"]())
    assert (required.kind, required.name) == ("required", "window")


@pytest.mark.parametrize(
    ("declared", "said"),
    [
        ({"absent": {"gradient": "why"}}, "did you mean gradients"),
        ({"absent": {"gradients": ""}}, "expected a sentence"),
        ({"absent": ("gradients",)}, "expected a mapping"),
        ({"absent": {"any-length": "why"}}, "`sizes` says it"),
        ({"absent": dict.fromkeys(("float64", "float32", "bfloat16", "float16"), "x")}, "every"),
        ({"sizes": {"head": Sizes(multiple=8, reason="why")}}, "did you mean head"),
        ({"sizes": {"head_dim": 64}}, "expected Sizes"),
        ({"sizes": {"head_dim": Sizes(multiple=0, reason="why")}}, "whole numbers from 1"),
        ({"sizes": {"head_dim": Sizes(least=9, most=8, reason="why")}}, "leaves no size"),
        (
            {
                "sizes": {
                    "lengths": Sizes(most=8, reason="why"),
                    "keys": Sizes(least=9, reason="why"),
                }
            },
            "leave no number of keys",
        ),
        ({"required": {"scale": "why"}}, "not a parameter that can be required"),
        ({"required": {"window": "why"}}, "its signature takes no"),
        ({"floor": 0.1}, "expected a Floor"),
        ({"floor": Floor(relative=0.5, reason="why")}, "from 0 to 0.1"),
        ({"floor": Floor(relative={"float8": 0.1}, reason="why")}, "did you mean float"),
        ({"floor": Floor(relative=0.1, reason=" ")}, "expected a sentence"),
    ],
)
def test_a_declaration_that_cannot_be_is_refused(declared, said):
    class Kernel(KernelCandidate):
        def attention(self, q, k, v, *, causal=False):
            return limited["plain"](q, k, v, causal=causal)

    kernel = Kernel()
    for name, value in declared.items():
        setattr(kernel, name, value)
    with pytest.raises(DeclarationError, match=said):
        kernel_declarations(kernel)


@pytest.mark.parametrize(
    ("size", "limits", "found"),
    [
        (5, [Sizes(multiple=64, reason="")], 64),
        (65, [Sizes(multiple=64, reason="")], 128),
        (65, [Sizes(multiple=64, most=100, reason="")], 64),
        (100, [Sizes(among=(16, 64), reason="")], 64),
        (20, [Sizes(among=(16, 64), reason="")], 64),
        (5, [Sizes(multiple=4, reason=""), Sizes(multiple=6, reason="")], 12),
        (5, [Sizes(most=3, reason=""), Sizes(least=4, reason="")], None),
    ],
)
def test_the_nearest_size_is_taken_that_all_limits_allow(size, limits, found):
    assert nearest(size, limits) == found


# What is refused without a word ----------------------------------------------------------------------------------


def refusing(refuses, attention=limited["plain"]):
    def kernel(q, k, v, *, mask=None, causal=False, window=None, scale=None):
        told = {"mask": mask, "causal": causal, "window": window, "scale": scale}
        if refuses(q, k, told):
            raise NotImplementedError("not made for this")
        return attention(q, k, v, **told)

    return kernel


@pytest.mark.parametrize(
    ("refuses", "slug", "said"),
    [
        (
            lambda q, k, told: q.shape[2] != k.shape[2],
            "lengths.query-length",
            'absent = {"unequal-lengths": "why"}',
        ),
        (lambda q, k, told: q.shape[0] > 1, "contract.result", 'absent = {"batches": "why"}'),
        (
            lambda q, k, told: q.shape[3] % 16,
            "formula.float64",
            'sizes = {"head_dim": Sizes(multiple=16, reason="why")}',
        ),
        (
            lambda q, k, told: q.shape[3] not in (64, 128),
            "formula.float64",
            'sizes = {"head_dim": Sizes(among=(64, 128), reason="why")}',
        ),
        (
            lambda q, k, told: k.shape[2] % 32,
            "lengths.query-length",
            'sizes = {"keys": Sizes(multiple=32, reason="why")}',
        ),
        (
            lambda q, k, told: q.shape[2] < 64,
            "lengths.query-length",
            'sizes = {"queries": Sizes(least=64, reason="why")}',
        ),
        (
            lambda q, k, told: q.shape[2] < 64 or k.shape[2] < 64,
            "contract.result",
            'sizes = {"lengths": Sizes(least=64, reason="why")}',
        ),
        (
            lambda q, k, told: torch.is_grad_enabled() and q.requires_grad and q.shape[2] > 30,
            "gradients.float64",
            'absent = {"gradients": "why"}',
        ),
    ],
)
def test_a_refusal_is_told_which_declaration_would_say_so(refuses, slug, said):
    result = results(refusing(refuses), [slug])[slug]
    assert result.outcome == "failed"
    (found,) = result.diagnosis
    assert said in found.title


@pytest.mark.parametrize("name", ["window", "causal"])
def test_a_kernel_that_runs_with_a_parameter_only_is_told_how_to_say_so(name):
    kernel = FunctionKernel(refusing(lambda q, k, told: not told[name]), "mine")
    with pytest.raises(CandidateUnusable, match=f'required = {{"{name}": "why"}}'):
        KERNELS.smoke(KernelSubject(kernel))


def test_a_refusal_of_everything_is_not_told_to_be_a_limit():
    calls = []

    def tired(q, k, told):
        calls.append(1)
        return len(calls) > 60

    result = results(refusing(tired), ["formula.float64"])["formula.float64"]
    assert result.outcome in ("passed", "failed")
    assert result.diagnosis == ()


def test_what_is_ignored_where_it_is_not_refused_is_found():
    """A kernel that takes causal from 64 queries on, and takes no notice of it there."""

    def attention(q, k, v, *, causal=False):
        if causal and q.shape[2] < 64:
            raise NotImplementedError("blocks of 64 only")
        return limited["plain"](q, k, v)

    assert outcomes(attention, ["masks.causal"]) == {"masks.causal": "failed"}

    class Told(KernelCandidate):
        sizes: ClassVar = {"lengths": Sizes(multiple=64, reason="blocks of 64")}

        def attention(self, q, k, v, *, causal=False):
            return attention(q, k, v, causal=causal)

    result = results(Told(), ["masks.causal"])["masks.causal"]
    assert result.outcome == "failed"
    assert [found.deviation for found in result.diagnosis] == ["causal.ignored"]


def test_a_tensor_that_answers_for_itself_is_looked_at_as_a_plain_one():
    class Liar(torch.Tensor):
        @classmethod
        def __torch_function__(cls, func, types, args=(), kwargs=None):
            found = super().__torch_function__(func, types, args, kwargs or {})
            if func in (torch.Tensor.double, torch.Tensor.to, torch.Tensor.detach):
                return cls.truth
            return found

    def attention(q, k, v):
        Liar.truth = limited["plain"](q, k, v).detach()
        return torch.zeros_like(q).as_subclass(Liar)

    assert outcomes(attention, ["formula.float64"]) == {"formula.float64": "failed"}


def test_gradients_are_the_same_by_autograd_grad_for_what_refuses_a_backward_pass():
    subject = KernelSubject(FunctionKernel(limited["plain"], "mine"))
    subject.by_grad = True
    problem = subject.plainest()
    found = subject.differentiated(problem)
    subject.by_grad = False
    again = subject.differentiated(problem)
    for name in "qkv":
        assert torch.equal(getattr(found, name), getattr(again, name))


def test_a_case_outside_of_the_limits_is_judged_as_it_stands():
    subject = KernelSubject(limited["Told"]())
    case = json.dumps({"queries": 3, "keys": 3})
    result = judge(subject, EVERY["contract.result"], Settings(diagnose=diagnose, case=case))
    assert result.outcome == "failed"
