"""What is known of a class of `transformers` stands in the spec, is believed and printed, and hides nothing else."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest

pytest.importorskip("transformers")

from torch import nn

from holotype_conformance.judge.engine import Settings, judge
from holotype_conformance.judge.guard import CandidateUnusable
from holotype_conformance.judge.property import SuiteFault, Violation
from holotype_conformance.judge.records import Result
from holotype_conformance.models.adapters.hf.released import TransformersCandidate
from holotype_conformance.models.adapters.reference import ReferenceCandidate
from holotype_conformance.models.declarations import Difference
from holotype_conformance.models.properties import all_properties
from holotype_conformance.models.setup import Setup
from holotype_conformance.models.subject import Subject
from holotype_reference.weights import Weights
from holotype_reference.weights.checkpoints import CheckpointError
from holotype_spec import complete, load
from holotype_spec.differences import as_theirs, differences
from holotype_spec.schema import Spec

pytestmark = pytest.mark.slow

PROPERTIES = {property_.slug: property_ for property_ in all_properties()}
STATED = [
    (spec.family.name, index)
    for spec in {each.family.name: each for each in complete()}.values()
    if spec.family.transformers != "none"
    for index in range(len(spec.family.transformers.differences))
]
WITHOUT_TABLE = load("glm-4-9b")


def judged(candidate: TransformersCandidate, spec: str, slug: str) -> Result:
    return judge(Subject(candidate, load(spec)), PROPERTIES[slug], Settings())


@pytest.mark.parametrize(("family", "index"), STATED)
def test_a_stated_difference_concerns_a_model_and_changes_it(family: str, index: int) -> None:
    members = [spec for spec in complete() if spec.family.name == family]
    assert members[0].family.transformers != "none"
    difference = members[0].family.transformers.differences[index]
    concerned = [spec for spec in members if difference in differences(spec)]
    assert concerned
    assert len(difference.reason) > 40
    assert difference.told or difference.theirs is not None
    for spec in concerned:
        assert (as_theirs(spec, difference) == spec) == (difference.theirs is None)


class Unstated(TransformersCandidate):
    """Their class, taken for all that the spec says."""

    def differences(self, spec: Spec) -> tuple[Difference, ...]:
        return ()


def test_where_an_albert_of_theirs_drops_is_compared_with_where_it_is_known_to() -> None:
    assert (
        judged(TransformersCandidate(), "albert-base-v1", "modes.dropout-sites").outcome == "passed"
    )
    assert judged(Unstated(), "albert-base-v1", "modes.dropout-sites").outcome == "failed"


@pytest.mark.parametrize("slug", ["modes.train-without-dropout", "objective.gradients"])
def test_what_the_sentence_head_of_an_albert_drops_is_told_not_to(
    slug: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert judged(TransformersCandidate(), "albert-base-v2", slug).outcome == "passed"
    monkeypatch.setattr(
        "holotype_conformance.models.adapters.hf.released.differences", lambda spec: ()
    )
    assert judged(TransformersCandidate(), "albert-base-v2", slug).outcome == "failed"


# Weights that cannot be handed over ------------------------------------------------------------------------------


def test_names_that_we_do_not_have_are_our_fault_and_no_verdict() -> None:
    with pytest.raises(CandidateUnusable, match="the suite cannot hand over weights"):
        Subject(TransformersCandidate(), WITHOUT_TABLE).smoke()
    run = "import sys; from holotype_conformance.cli import main; main()"
    command = [sys.executable, "-c", run, "check", "hf", "--spec", WITHOUT_TABLE.name]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 3, found.stdout + found.stderr
    assert "there is no table of them for this family yet" in " ".join(found.stderr.split())


class Asks(ReferenceCandidate):
    """Asks for the published names of weights that have none."""

    paths = ("fused",)

    def load(self, model: nn.Module, weights: Weights) -> None:
        try:
            weights.published()
        except ValueError:
            raise RuntimeError("no weights") from None


class Raises(ReferenceCandidate):
    """Raises what our own code would."""

    paths = ("fused",)

    def load(self, model: nn.Module, weights: Weights) -> None:
        raise CheckpointError("of its own")


def test_only_what_our_own_code_raised_is_our_fault() -> None:
    with pytest.raises(SuiteFault):
        Subject(Asks(), WITHOUT_TABLE).model(Setup(path="fused"))
    for candidate, spec in ((Asks(), load("gpt2")), (Raises(), WITHOUT_TABLE)):
        subject = Subject(candidate, spec)
        subject.smoke()
        if isinstance(candidate, Raises):
            with pytest.raises(Violation, match="load raised CheckpointError: of its own"):
                subject.model(Setup(path="fused"))


def test_a_fault_of_ours_leaves_a_property_undecided() -> None:
    logits = replace(PROPERTIES["agreement.logits"], examples=1)
    result = judge(Subject(Asks(), WITHOUT_TABLE), logits, Settings())
    assert result.outcome == "undecided", result
