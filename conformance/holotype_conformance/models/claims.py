"""The properties that are claimed of models: those of `holotype_conformance.models.properties`."""

from __future__ import annotations

from holotype_conformance.judge.property import Claims
from holotype_conformance.models.subject import Subject

CLAIMS: Claims[Subject] = Claims()
claim = CLAIMS.claim
