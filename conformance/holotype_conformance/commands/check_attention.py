"""``holotype check-attention``: hold an attention kernel against the formula."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import click

from holotype_conformance.commands.check import (
    SECONDS,
    carry_out,
    expected,
    json_object,
    run_options,
)
from holotype_conformance.report.outputs import Outputs

if TYPE_CHECKING:
    from holotype_conformance.judge.records import DType

PROTOCOL = "attention"  # stands where reports name a spec


@click.command("check-attention", short_help="Does an attention kernel compute attention?")
@click.argument("target")
@run_options(things="tensors", drawn="numbers", subject="kernel")
def check_attention(
    target: str,
    properties: tuple[str, ...],
    profile: Literal["quick", "full"],
    device: str,
    dtypes: tuple[DType, ...],
    seed: int,
    case: str | None,
    timeout: float | None,
    expected_failures: str | None,
    json_path: str | None,
    junit_path: str | None,
    html_path: str | None,
    verbose: bool,
) -> None:
    """Does the attention kernel TARGET compute attention?

    TARGET is package.module:attribute or path/to/file.py:attribute, where the attribute is a function attention(q, k,
    v, *, mask=None, causal=False, window=None, scale=None) or a KernelCandidate; or one of sdpa, sdpa:math,
    sdpa:flash, sdpa:efficient, sdpa:cudnn, flex, reference:fused, reference:blocks, reference:eager, hf:sdpa, hf:eager.

    Exit codes: 0 it conforms, 1 it does not, 2 bad input or nothing that ran, 3 it could not be run at all, 4
    undecided: something that it must do did not end.
    """
    from holotype_conformance.judge.records import Request

    paths = {"json": json_path, "junit": junit_path, "html": html_path}
    outputs = Outputs(paths, inputs=[expected_failures])
    request = Request(
        target=target,
        specs=(PROTOCOL,),
        properties=properties,
        profile=profile,
        seed=seed,
        device=device,
        dtypes=dtypes,
        case=json_object(case),
        limit=SECONDS[profile] if timeout is None else timeout,
        expected=expected(expected_failures),
        kind="attention",
    )
    carry_out(request, {PROTOCOL: None}, outputs, verbose=verbose)
