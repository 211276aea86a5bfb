"""``holotype check-attention``: hold an attention kernel against the formula."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import click

from holotype_conformance.commands.check import (
    SECONDS,
    conclude,
    expected,
    json_object,
    report,
    require_writable,
    run_options,
    show,
    supervised,
    write,
)

if TYPE_CHECKING:
    from holotype_conformance.records import DType

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
    from holotype_conformance.records import Request

    outputs = {"json": json_path, "junit": junit_path, "html": html_path}
    for path in outputs.values():
        require_writable(path)
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
    record = supervised(request, verbose=verbose)
    reports = [report(request, record, PROTOCOL, parameters=None)]
    for kind, path in outputs.items():
        if path is not None:
            write(kind, path, reports)
    if "-" not in outputs.values():
        show(reports, verbose=verbose)
    conclude(reports, verbose=verbose)
