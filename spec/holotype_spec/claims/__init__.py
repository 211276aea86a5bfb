"""Claims of documents about models, and whether they are true.

Each TOML file in this folder holds the claims of one document; a document's mistake is a finding, never the
spec. `audit_all` judges every claim by the specs, their arithmetic and the facts of `holotype_spec.facts`.
"""

from holotype_spec.claims.audit import Audit, Judgement, audit, audit_all, counts
from holotype_spec.claims.schema import Claim, ClaimsFile, Document, Passage, Verdict

__all__ = [
    "Audit",
    "Claim",
    "ClaimsFile",
    "Document",
    "Judgement",
    "Passage",
    "Verdict",
    "audit",
    "audit_all",
    "counts",
]
