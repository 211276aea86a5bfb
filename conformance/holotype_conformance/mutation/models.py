"""The deviations of models, each held to a spec that has what it changes."""

from __future__ import annotations

from zlib import crc32

import holotype_spec
from holotype_conformance.models.deviations import CATALOGUE, DeviatedCandidate, Deviation
from holotype_conformance.models.deviations.features import has_source
from holotype_conformance.models.subject import Subject
from holotype_conformance.models.suite import MODELS as SUITE
from holotype_conformance.mutation.kills import Mutants
from holotype_reference.support import supported
from holotype_spec.schema import Spec

SPECS = ("gpt2", "bert-base-uncased", "t5-small", "llama2-70b", "mistral-7b-v0.1")
LIKELY = {
    "backends": ("devices.*",),
    "batch": ("batch.*",),
    "compiled": ("devices.captured", "devices.compiled"),
    "devices": ("devices.*",),
    "threads": ("devices.*",),
    "training": ("modes.train-without-dropout",),
    "cache": ("cache.*",),
    "dropout": ("modes.*",),
    "embeddings": ("agreement.logits",),
    "gradient": ("agreement.gradients", "parameters.count"),
    "inputs": ("interface.inputs-unchanged",),
    "interface": ("interface.*",),
    "mask": ("agreement.logits", "causality.*", "padding.*"),
    "norm": ("agreement.logits", "agreement.faint-logits", "agreement.bfloat16"),
    "parameters": ("parameters.*",),
    "deep-norm": ("agreement.logits",),
    "mixture": ("causality.*", "agreement.logits"),
    "prefix": ("causality.*", "agreement.logits"),
    "two-positions": ("agreement.logits", "positions.*"),
    "positions": ("positions.*", "batch.order"),
    "rotary": ("agreement.logits", "agreement.bfloat16"),
    "softmax": ("agreement.logits", "agreement.long-rows"),
    "state": ("modes.*",),
    "storage": ("storage.*",),
}


def specs_of(deviation: Deviation) -> list[Spec]:
    """The specs to which it applies, first one that its name chooses.

    It is an encoder-decoder, which takes twice the time, only where no other will do.
    """
    specs = [spec for spec in map(holotype_spec.load, SPECS) if deviation.applies(spec)]
    specs = specs or [next(filter(deviation.applies, map(holotype_spec.load, supported())))]
    fast = [spec for spec in specs if not has_source(spec)] or specs
    first = fast[crc32(deviation.slug.encode()) % len(fast)]
    return [first, *(spec for spec in specs if spec is not first)]


def subject(deviation: Deviation, spec: Spec) -> Subject:
    """The deviated model under the spec it is held to, on one path: a deviation is the same on all."""
    return Subject(DeviatedCandidate(deviation, paths=("fused",)), spec)


MODELS = Mutants(
    suite=SUITE,
    catalogue=CATALOGUE,
    rows=lambda: tuple(CATALOGUE),
    specs=specs_of,
    subject=subject,
    likely=LIKELY,
    otherwise=("agreement.logits",),
)
