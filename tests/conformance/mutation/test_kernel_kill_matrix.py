"""The kernel suite's own test: every deviation is killed by a property, and a kernel that is right by none.

Of deviations that differ in the size of a block alone one is tried; with HOLOTYPE_KILL_MATRIX=full in the environment
every one.
"""

import os
import re
from collections.abc import Iterator

import msgspec
import pytest
import torch

from holotype_conformance.judge.deviation import family_of
from holotype_conformance.judge.given_case import read_case
from holotype_conformance.judge.property import Property, Violation
from holotype_conformance.kernels.deviations import CATALOGUE, DeviatedKernel, KernelDeviation
from holotype_conformance.kernels.properties import kernel_properties
from holotype_conformance.kernels.subject import KernelContract, KernelSubject
from holotype_conformance.mutation.kernels import KERNELS
from holotype_conformance.mutation.kills import Verdict, failing
from holotype_conformance.mutation.matrix import MATRICES, Row, page

FULL = os.environ.get("HOLOTYPE_KILL_MATRIX") == "full"
PROPERTIES = {property_.slug: property_ for property_ in kernel_properties()}

# Only a property that is a `should` speaks of these.
ONLY_SHOULD = {
    "scale.after-products",
    "empty.no-keys-refused",
    "values.unseen-nan",
    "devices.tensor-on-cpu",
}

# Properties that no deviation can break, and why.
UNTOUCHED = {
    f"hardware.{name}": "it needs a GPU; properties/test_properties.py has what they catch"
    for name in ("float64", "float32", "bfloat16", "float16", "tensorfloat")
}

# Deviations that each property kills.
WITNESSES: dict[str, tuple[str, ...]] = {
    "contract.result": ("result.float32",),
    "contract.finite": ("result.last-query-nan",),
    "contract.inputs-unwritten": ("inputs.scaled-in-place",),
    "contract.deterministic": ("result.random",),
    "contract.strides": ("inputs.strides-ignored",),
    "formula.float64": ("scale.missing",),
    "formula.float32": ("softmax.base-two",),
    "formula.bfloat16": ("softmax.log2e-left",),
    "formula.float16": ("scale.twice",),
    "formula.scale": ("scale.zero-ignored", "scale.ignored", "scale.on-top"),
    "gradients.float64": ("gradients.half", "gradients.mean-missing"),
    "gradients.float32": ("gradients.unscaled-q",),
    "gradients.bfloat16": ("gradients.scaled-twice-k",),
    "gradients.float16": ("gradients.log-sum-base-two",),
    "gradients.some": ("gradients.k-with-q-alone",),
    "gradients.second-derivatives": ("detached.weights", "detached.inputs"),
    "algebra.convex": ("result.nine-tenths",),
    "algebra.score-shift": ("softmax.one-added",),
    "algebra.key-permutation": ("scores.by-place",),
    "algebra.linear-in-values": ("values.clamped",),
    "algebra.heads-apart": ("heads.mixed",),
    "algebra.grouped-heads": ("heads.tiled", "heads.first-shared"),
    "masks.causal": ("causal.one-ahead",),
    "masks.diagonal": ("causal.upper-left",),
    "masks.window": ("window.wider", "window.zero-taken"),
    "masks.band": ("band.causal",),
    "masks.boolean": ("mask.inverted",),
    "masks.additive": ("mask.additive-scaled",),
    "masks.broadcast": ("mask.not-broadcast",),
    "masks.agree": ("mask.additive-in-eight-bits",),
    "masks.hidden-keys": ("mask.minus-ten-thousand",),
    "masks.together": ("causal.dropped-with-mask",),
    "masks.no-key": ("softmax.nan-rows",),
    "masks.unseen-nan": ("values.unseen-nan",),
    "prefix.formula": (
        "prefix.longer",
        "prefix.shorter",
        "prefix.ignored",
        "prefix.whole-blocks",
    ),
    "prefix.limits": ("prefix.zero-shows-all", "prefix.last-key-missing"),
    "prefix.rows": ("prefix.first-row", "prefix.longest-row"),
    "prefix.no-leak": ("prefix.whole-blocks",),
    "documents.formula": (
        "documents.one-back",
        "documents.late",
        "documents.upper-left",
        "documents.both-ways",
        "documents.rest-dropped",
    ),
    "documents.one": ("documents.one-both-ways",),
    "documents.alone": ("documents.sum-leaks", "documents.gradients-cross"),
    "documents.permutation": ("documents.counted-through", "documents.rest-dropped"),
    "documents.rows": ("documents.first-row",),
    "documents.no-leak": (
        "documents.gradients-cross",
        "documents.one-back",
        "documents.sum-leaks",
    ),
    "lengths.block-edges": ("blocks.rest-dropped.16",),
    "lengths.rising-scores": ("blocks.output-not-rescaled.256",),
    "lengths.cache": ("blocks.upper-left.128",),
    "lengths.query-length": ("keys.as-many-as-queries",),
    "lengths.head-dim": ("head-dim.rest-dropped",),
    "lengths.empty": ("empty.refused",),
    "lengths.no-keys": ("empty.no-keys-refused",),
    "lengths.masks": ("causal.dropped-with-mask",),
    "extremes.large-scores": ("softmax.unshifted",),
    "extremes.equal-scores": ("softmax.maximum-from-hundred",),
    "extremes.additive-mask": ("mask.additive-clamped",),
    "extremes.large-values": ("softmax.divided-last",),
    "extremes.products-overflow": ("scale.after-products",),
    "hardware.placement": ("devices.tensor-on-cpu",),
    "hardware.back-ends": ("backends.fallback-softer",),
    "hardware.threads": ("threads.rest-dropped",),
    "hardware.batch-sizes": ("batch.mixed",),
    "hardware.captured": ("compiled.softer",),
    "hardware.compiled": ("compiled.softer",),
}
PAIRS = [
    (slug, deviation)
    for slug, deviations in WITNESSES.items()
    for deviation in deviations
    if FULL or slug != "hardware.compiled"  # the compiler takes a minute
]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.slow
@pytest.mark.parametrize(("slug", "deviation"), PAIRS)
def test_a_property_kills_its_deviation_and_the_case_that_it_shows_fails_again(
    slug: str, deviation: str
) -> None:
    property_, subject = PROPERTIES[slug], _subject(deviation)
    case = failing(subject, property_)
    assert case is not None
    written = msgspec.json.encode(case).decode()
    with pytest.raises(Violation):
        _subject(deviation).check(property_, read_case(property_, written), 0)


@pytest.mark.slow
@pytest.mark.parametrize(
    "deviation",
    [
        pytest.param(each, id=each.slug)
        for each in (CATALOGUE if FULL else KERNELS.rows())
        if FULL or all(each.slug != shown for _, shown in PAIRS)
    ],
)
def test_a_deviation_is_killed(deviation: KernelDeviation) -> None:
    found = KERNELS.killer(deviation, KernelContract())
    assert found is not None, f"nothing kills {deviation.slug}"
    assert found.level == ("should" if deviation.slug in ONLY_SHOULD else "must")


def test_every_property_is_shown_to_kill_something() -> None:
    assert not WITNESSES.keys() & UNTOUCHED.keys()
    assert {*WITNESSES, *UNTOUCHED} == PROPERTIES.keys()


def test_what_only_a_should_kills_is_said() -> None:
    musts = {shown for slug, shown in PAIRS if PROPERTIES[slug].level == "must"}
    assert {shown for _, shown in PAIRS} - musts <= ONLY_SHOULD


def test_of_deviations_that_differ_in_a_number_the_matrix_has_one() -> None:
    rows = [family_of(each.slug) for each in KERNELS.rows()]
    assert sorted(rows) == sorted({family_of(slug) for slug in CATALOGUE.names()})


def test_a_page_lists_every_row_every_property_and_what_was_reported() -> None:
    properties: list[Property] = list(kernel_properties())
    passed: dict[str, Verdict] = {each.slug: "passed" for each in properties}
    killed: dict[str, Verdict] = passed | {"formula.float64": "killed"}
    slugs = [each.slug for each in KERNELS.rows()]
    rows = [
        Row(slug=slug, spec="attention", verdicts=killed if number else passed, survives=())
        for number, slug in enumerate(slugs)
    ]
    text = page(MATRICES["kernels"], rows, properties)
    (block,) = re.findall(r"```text\n(.*?)```", text, flags=re.DOTALL)
    assert [line.split()[0] for line in block.splitlines()] == slugs
    assert f"- `{slugs[0]}` under attention" in text
    assert re.findall(r"^\| `([a-z0-9-]+\.[a-z0-9-]+)` \| \d", text, flags=re.MULTILINE) == [
        *PROPERTIES
    ]
    assert "| `causal.upper-left` | [pytorch/pytorch#108108](https://github.com/" in text
    assert "Equivalent" not in text


def _subject(slug: str) -> KernelSubject:
    return KernelSubject(DeviatedKernel(CATALOGUE.find(slug)))
