"""The scenes in which a candidate is watched for a diagnosis: a case on one code path, and the same in other regions.

The failing case lies in a region: so padded, on that path, in one pass or through a cache. A deviation that explains it
is looked for in the others too, for a candidate may be wrong in one of them alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec
from torch import Tensor

from holotype_conformance.judge.records import DType
from holotype_conformance.models.cases import (
    BatchCase,
    Padding,
    batch_inputs,
    can_pad_left,
    shortest_alike,
)
from holotype_conformance.models.exchange import real_rows
from holotype_conformance.models.properties.agreement import AgreementCase, agreement_inputs
from holotype_conformance.models.properties.caching import ChunkCase, read_in_chunks
from holotype_conformance.models.properties.causality import decodes
from holotype_conformance.models.setup import Setup
from holotype_conformance.models.subject import Subject
from holotype_reference.weights import Regime
from holotype_spec.probes import ROWS

LENGTH = 19  # tokens of a rich case: beyond every window and bucket of a probe
CUTS = (5, 6, 13)
PHRASES = {
    "padding": {
        "none": "without a mask",
        "ones": "with a mask of ones",
        "none ones": "without padding",
        "right": "under right padding",
        "left": "under left padding",
        "right left": "under padding",
        "ones right left": "with a mask",
    },
    "reading": {"pass": "in one pass", "chunks": "through a cache"},
    "batch": {"one": "in a batch of one row", "several": "in batches of several rows"},
    "positions": {
        "counted": "where position ids are the usual ones",
        "skipping": "with position ids that skip some",
    },
    "types": {"given": "with token types", "none": "without token types"},
    "source": {"whole": "without padding of the source", "padded": "with a padded source"},
    "gradients": {"off": "without gradients", "on": "with gradients"},
    "dtype": {"float64": "in float64", "float32": "in float32"},
    "weights": {"bold": "where activations are large", "faint": "where activations are small"},
}


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A case on one path of the candidate, in the regime of weights that showed the failure."""

    subject: Subject
    case: BatchCase
    path: str
    regime: Regime
    gradients: bool = False
    dtype: DType = "float64"

    def observe(self, other: Subject, path: str) -> Tensor:
        """(real positions, vocabulary): what `other` makes of the case."""
        model = other.model(self.setup(path))
        if isinstance(self.case, AgreementCase):
            inputs = agreement_inputs(self.subject, self.case)
        else:
            inputs = batch_inputs(self.subject, self.case)
        rows = real_rows(inputs)
        if isinstance(self.case, ChunkCase):
            return read_in_chunks(other, model, inputs, self.case.cuts)[rows]
        return other.forward(model, inputs, grad=self.gradients).logits[rows].detach()

    def setup(self, path: str) -> Setup:
        """The probe model of the scene on one path."""
        return self.case.setup(path, regime=self.regime, dtype=self.dtype)

    @property
    def key(self) -> tuple[Any, ...]:
        """The key that tells it from other scenes of one subject."""
        return self.case, self.path, self.regime, self.gradients, self.dtype

    @property
    def region(self) -> dict[str, str]:
        """Its region, axis by axis; an axis on which a reading through a cache has no choice is left out."""
        case = self.case
        found = {
            "length": "long" if case.length > ROWS else "short",
            "padding": case.padding,
            "reading": "chunks" if isinstance(case, ChunkCase) else "pass",
            "path": self.path,
            "batch": "one" if case.batch == 1 else "several",
            "dtype": self.dtype,
            "weights": self.regime,
        }
        if isinstance(case, ChunkCase):
            return found
        found["gradients"] = "on" if self.gradients else "off"
        plain = case if isinstance(case, AgreementCase) else AgreementCase(length=1)
        found["positions"] = plain.positions
        found["types"] = "given" if plain.types else "none"
        found["source"] = "padded" if plain.pad_source else "whole"
        return found

    # Other scenes -----------------------------------------------------------------------------------------------

    def enlarged(self) -> Iterator[Scene]:
        """Rich cases of its region, for small ones look alike under many deviations: with several rows, or its one."""
        sizes: dict[str, Any] = {"length": max(LENGTH, self.case.length), "layers": 2}
        if self.case.length <= ROWS:
            sizes["length"] = LENGTH
        if isinstance(self.case, ChunkCase):
            sizes["cuts"] = CUTS
        for batch in (3, 1) if self.case.batch == 1 else (3,):
            case = msgspec.structs.replace(self.case, **sizes | {"batch": batch})
            yield replace(self, case=case)

    def elsewhere(self) -> Iterator[Scene]:
        """The same in the other regions: in all of padding, path and reading, and for the rest in one at a time."""
        for padding in self._paddings():
            for path in self.subject.paths:
                for case in self._readings(padding):
                    yield replace(self, case=case, path=path, gradients=False)
        yield self.sized(batch=1 if self.case.batch > 1 else 3)
        yield from self.of_other_length()
        yield replace(self, regime="faint" if self.regime == "bold" else "bold")
        if "float32" in self.subject.asked and self.subject.widest == "float64":
            yield replace(self, dtype="float32")
        if not isinstance(self.case, ChunkCase):
            yield replace(self, gradients=not self.gradients)
            yield from self._inputs()

    def _paddings(self) -> Sequence[Padding]:
        if not self.subject.has("attention-mask"):
            return ("none",)
        sides: tuple[Padding, ...] = ("right", "left") if can_pad_left(self.subject) else ("right",)
        return ("none", "ones", *sides)

    def _readings(self, padding: Padding) -> Iterator[BatchCase]:
        sizes = {
            name: getattr(self.case, name) for name in ("batch", "layers", "weights", "tokens")
        }
        length = LENGTH if self.case.length <= ROWS else self.case.length
        yield AgreementCase(length=length, padding=padding, **sizes)
        if padding != "right" and self._reads_in_chunks(length):
            yield ChunkCase(length=length, padding=padding, cuts=CUTS, **sizes)

    def _reads_in_chunks(self, length: int) -> bool:
        """Whether it has a cache, and what a chunk leaves there is what the whole input would."""
        subject = self.subject
        if not subject.has("cache") or decodes(subject.spec) is not None:
            return False
        return shortest_alike(subject.probe(2), length, self.case.batch) <= CUTS[0]

    def of_other_length(self) -> Iterator[Scene]:
        """A long one for a short one, if the candidate takes it, and the other way round."""
        if self.case.length > ROWS:
            yield self.sized(length=LENGTH)
        elif self.subject.longest > ROWS and self.region.get("positions") != "skipping":
            yield self.sized(length=self.subject.longest)

    def sized(self, **sizes: int) -> Scene:
        """The same with other sizes."""
        return replace(self, case=msgspec.structs.replace(self.case, **sizes))

    def _inputs(self) -> Iterator[Scene]:
        """With other inputs beside the tokens, as far as the candidate takes them."""
        case, has = self.case, self.subject.has
        if not isinstance(case, AgreementCase):
            return
        change = msgspec.structs.replace
        if has("position-ids") and case.length <= ROWS:
            skipped = case.positions == "skipping"
            yield replace(self, case=change(case, positions="counted" if skipped else "skipping"))
        if has("token-types"):
            yield replace(self, case=change(case, types=not case.types))
        if has("source-mask"):
            yield replace(self, case=change(case, pad_source=not case.pad_source))


def phrase(axis: str, values: Sequence[str]) -> str:
    """Some values of an axis in words, as they go on "agrees with gpt2 if …, only"."""
    if axis == "path":
        several = "paths" if len(values) > 1 else "path"
        return f"on the {several} {' and '.join(values)}"
    known, left, said = PHRASES[axis], set(values), []
    for group in sorted(known, key=lambda group: -len(group.split())):
        if left.issuperset(group.split()):
            left -= set(group.split())
            said.append(known[group])
    return " or ".join(said)
