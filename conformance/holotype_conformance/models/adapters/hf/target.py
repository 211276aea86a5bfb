"""The target `hf`: the models of Hugging Face `transformers`, by spec or by the name of a class."""

from __future__ import annotations

from holotype_conformance.models.adapters.hf.released import TransformersCandidate
from holotype_conformance.models.candidate import Candidate


def candidate(class_name: str) -> Candidate:
    """The target ``hf``, the class that the spec names; or ``hf:ClassName``, any class, for the generic specs.

    Raises:
        TargetError: there is no such class.
    """
    if not class_name:
        return TransformersCandidate()
    from holotype_conformance.models.adapters.hf.any_class import (
        ClassCandidate,  # with all their classes
    )

    return ClassCandidate(class_name)
