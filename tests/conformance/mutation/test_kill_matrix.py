"""The suite's own test: every deviation is killed by a property, and no equivalent change is.

By default each deviation is held to one spec. With HOLOTYPE_KILL_MATRIX=full in the environment it is held to every
spec of the matrix to which it applies.
"""

import os
import re
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from holotype_conformance.judge.property import Property
from holotype_conformance.models.deviations import Deviation, all_deviations, names
from holotype_conformance.models.properties import all_properties
from holotype_conformance.mutation.kills import Verdict, judge
from holotype_conformance.mutation.matrix import MATRICES, Row, page
from holotype_conformance.mutation.models import MODELS, specs_of, subject
from holotype_conformance.mutation.reports import all_reports
from holotype_spec.schema import Spec

FULL = os.environ.get("HOLOTYPE_KILL_MATRIX") == "full"

# Only a property that is a `should` speaks of these: they do not decide whether a candidate conforms.
ONLY_SHOULD = {
    "dropout.never",
    "interface.view-of-strided",
    "devices.table-left-behind",
    "devices.positions-on-cpu",
    "devices.reduced-sums",
}

# What the suite does not catch yet: specs and the reason. A survivor is a bug of the suite, to be mended there.
SURVIVORS: dict[str, tuple[set[str], str]] = {}

# Properties that no deviation can break, and why.
UNTOUCHED = {
    "objective.loss": "the reference has no loss of its own to deviate in",
    "objective.gradients": "so neither has it gradients of one; test_training.py has what they catch",
    **{
        f"devices.{name}": "it needs a GPU; test_devices.py has what they catch"
        for name in ("float64", "float32", "bfloat16", "float16", "tensorfloat")
    },
}


# A deviation that each property kills, under the spec that is first for it.
WITNESSES = {
    "interface.outputs": "interface.length-limit",
    "interface.inputs-unchanged": "inputs.mask-changed",
    "interface.strides": "interface.view-of-strided",
    "agreement.logits": "mask.blocks-forget",
    "agreement.faint-logits": "norm.eps-outside-root",
    "agreement.gradients": "gradient.keys-detached",
    "agreement.float32": "scale.log-length-off-by-one",
    "agreement.bfloat16": "rotary.without-upcast",
    "agreement.float16-range": "norm.without-upcast",
    "agreement.long-rows": "softmax.without-upcast",
    "parameters.count": "parameters.bias-added",
    "parameters.scaling": "parameters.layers-shared",
    "parameters.training-step": "head.tie-detached",
    "causality.future-perturbation": "mixture.directions-exchanged",
    "causality.order": "permutation.query-sees-itself",
    "causality.required-dependence": "prefix.padding-not-counted",
    "causality.source-dependence": "attention.cross-dropped",
    "causality.truncation": "mask.one-ahead",
    "causality.long-rows": "mask.block-edge",
    "padding.right-invariance": "mask.padding-ignored",
    "padding.left-invariance": "mask.padding-first-layer-only",
    "padding.content": "mask.padding-along-queries",
    "padding.all-ones": "mask.encoder-causal-without-mask",
    "padding.source": "mask.encoder-padding-ignored",
    "padding.finite": "mask.nan-rows",
    "batch.independence": "batch.shared-gate",
    "batch.order": "batch.first-row-embedded",
    "batch.size": "mask.padding-of-first-row",
    "batch.rounding": "batch.one-scale",
    "cache.chunks": "cache.offset-of-retained",
    "cache.left-padding": "cache.padding-forgotten",
    "cache.reuse": "cache.shared-between-calls",
    "cache.long-rows": "cache.source-padding-forgotten",
    "cache.rounding": "cache.positions-in-bfloat16",
    "positions.explicit": "two-positions.span-counts-on",
    "positions.shift-invariance": "positions.ids-ignored",
    "positions.shift-matters": "positions.ids-from-one",
    "modes.eval-without-dropout": "dropout.layers-by-numpy",
    "modes.kept": "state.eval-inside",
    "modes.train-with-dropout": "dropout.never",
    "modes.dropout-sites": "dropout.attention-missing",
    "modes.determinism": "dropout.layers-by-python",
    "modes.no-grad": "state.no-grad-path",
    "modes.sequence": "state.long-input-stays",
    "modes.train-without-dropout": "training.padding-forgotten",
    "storage.round-trip": "storage.rounded",
    "devices.placement": "devices.table-left-behind",
    "devices.back-ends": "backends.fallback-unpadded",
    "devices.threads": "threads.rest-dropped",
    "devices.settings-kept": "devices.reduced-sums",
    "devices.captured": "compiled.unpadded",
    "devices.compiled": "compiled.unpadded",
}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def pairs(*, equivalent: bool) -> list[object]:
    return [
        pytest.param(
            deviation, spec, id=f"{deviation.slug}-{spec.name}", marks=marks(deviation, spec)
        )
        for deviation in all_deviations()
        if deviation.equivalent == equivalent
        for spec in specs_of(deviation)[: None if FULL else 1]
    ]


def marks(deviation: Deviation, spec: Spec) -> list[pytest.MarkDecorator]:
    specs, reason = SURVIVORS.get(deviation.slug, (set(), ""))
    return [pytest.mark.xfail(reason=reason)] if spec.name in specs else []


def shown_by(deviation: Deviation) -> list[Property]:
    """The properties of which this deviation shows that they kill; one that compiles takes half a minute."""
    shown = [each for each in all_properties() if WITNESSES.get(each.slug) == deviation.slug]
    return [each for each in shown if FULL or not each.costly]


@pytest.mark.slow
@pytest.mark.parametrize(("deviation", "spec"), pairs(equivalent=False))
def test_a_deviation_is_killed(deviation: Deviation, spec: Spec) -> None:
    found = None
    if spec is specs_of(deviation)[0]:
        for property_ in shown_by(deviation):
            assert judge(subject(deviation, spec), property_) == "killed", property_.slug
            found = property_ if property_.level == "must" else found
    found = found or MODELS.killer(deviation, spec)
    assert found is not None, f"nothing kills {deviation.slug} under {spec.name}"
    assert found.level == ("should" if deviation.slug in ONLY_SHOULD else "must")


@pytest.mark.slow
@pytest.mark.parametrize(("deviation", "spec"), pairs(equivalent=True))
def test_an_equivalent_change_is_not_flagged(deviation: Deviation, spec: Spec) -> None:
    killed = [
        each.slug for each, verdict in MODELS.verdicts(deviation, spec) if verdict == "killed"
    ]
    assert killed == []


# What a property kills ------------------------------------------------------------------------------------------


def test_every_property_is_shown_to_kill_something() -> None:
    assert len({*WITNESSES, *UNTOUCHED}) == len(WITNESSES) + len(UNTOUCHED)
    assert {*WITNESSES, *UNTOUCHED} == {property_.slug for property_ in all_properties()}
    assert {*WITNESSES.values()} <= {each.slug for each in all_deviations() if not each.equivalent}


# Reported bugs --------------------------------------------------------------------------------------------------


def test_every_reported_bug_is_reproduced_or_it_is_said_why_not() -> None:
    for report in all_reports():
        assert set(report.deviations) <= set(names()), report.id
        assert report.shown_by or report.edits or report.without, report.id
    assert len({report.id for report in all_reports()}) == len(all_reports())


def test_a_report_that_a_deviation_cites_counts_for_it() -> None:
    report = next(each for each in all_reports() if each.id == "R22")
    assert "keras-team/keras-hub#2861" in report.reports
    assert report.shown_by == ("cache.alibi-of-chunk",)


def test_edits_are_counted_under_the_bug_that_they_name() -> None:
    folder = Path(__file__).parents[2] / "mutants"
    edits = [
        edit
        for path in folder.glob("*.toml")
        for edit in tomllib.loads(path.read_text(encoding="utf-8"))["edits"]
    ]
    counted = Counter(edit["report"] for edit in edits if edit.get("report"))
    assert counted == {report.id: report.edits for report in all_reports() if report.edits}


def test_a_page_lists_every_deviation_every_property_and_every_reported_bug() -> None:
    properties = list(all_properties())
    passed: dict[str, Verdict] = {property_.slug: "passed" for property_ in properties}
    rows = [
        Row(
            slug=each.slug,
            spec="gpt2",
            equivalent=each.equivalent,
            verdicts=passed,
            survives=(),
        )
        for each in all_deviations()
    ]
    text = page(MATRICES["models"], rows, properties)
    blocks = re.findall(r"```text\n(.*?)```", text, flags=re.DOTALL)
    shown = [line.split()[0] for block in blocks for line in block.splitlines()]
    assert shown == [
        each.slug for each in sorted(all_deviations(), key=lambda each: each.equivalent)
    ]
    listed = re.findall(r"^\| `([a-z.0-9-]+)` \|", text, flags=re.MULTILINE)
    assert listed == [property_.slug for property_ in properties]
    for report in all_reports():
        assert (
            f"| {report.id} {report.bug} | {', '.join(report.links) or 'general knowledge'} |"
            in text
        )


def test_a_page_shows_a_survivor_and_who_alone_kills() -> None:
    first, second = list(all_properties())[:2]
    rows = [
        Row(
            slug="mask.dropped",
            spec="gpt2",
            verdicts={first.slug: "killed", second.slug: "passed"},
            survives=("t5-small",),
        ),
        Row(
            slug="equivalent.tiled",
            spec="gpt2",
            equivalent=True,
            verdicts={first.slug: "passed", second.slug: "skipped"},
            survives=(),
        ),
    ]
    text = page(MATRICES["models"], rows, [first, second])
    assert "- `mask.dropped` under t5-small" in text
    assert re.search(r"^mask\.dropped +gpt2 +#\.$", text, flags=re.MULTILINE)
    assert re.search(r"^equivalent\.tiled +gpt2 +\.$", text, flags=re.MULTILINE)
    assert f"| `{first.slug}` | 1 | `mask.dropped` |" in text
    assert f"| `{second.slug}` | 0 |  |" in text
