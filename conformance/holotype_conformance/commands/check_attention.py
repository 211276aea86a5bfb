"""``holotype check-attention``: hold an attention kernel against the formula."""

from __future__ import annotations

from typing import Literal

import click

from holotype_conformance.commands.check import (
    OUTPUT,
    SECONDS,
    conclude,
    expected,
    json_object,
    report,
    require_writable,
    show,
    supervised,
    write,
)

PROTOCOL = "attention"  # stands where reports name a spec


@click.command("check-attention")
@click.argument("target")
@click.option(
    "--property",
    "properties",
    multiple=True,
    metavar="GLOB",
    help="Only these properties. May be repeated.",
)
@click.option(
    "--profile",
    type=click.Choice(["quick", "full"]),
    default="quick",
    show_default=True,
    help="How many cases are drawn.",
)
@click.option("--device", default="cpu", show_default=True, help="Where tensors live: cpu, cuda, …")
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Same seed, same cases and numbers.",
)
@click.option("--case", metavar="JSON", help="Run exactly this case of one property.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="Limit for one property; 0 for none.  [default: 60, or 600 in full]",
)
@click.option(
    "--expected-failures",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help='Known failures, TOML lines: "property" = "reason". Strict.',
)
@click.option(
    "--json",
    "json_path",
    type=OUTPUT,
    metavar="FILE",
    help="Write the results as JSON; - for standard output.",
)
@click.option(
    "--junit", "junit_path", type=OUTPUT, metavar="FILE", help="Write the results as JUnit XML."
)
@click.option(
    "--html", "html_path", type=OUTPUT, metavar="FILE", help="Write the results as one HTML page."
)
@click.option("--verbose", is_flag=True, help="Show tracebacks and what the kernel printed.")
def check_attention(
    target: str,
    properties: tuple[str, ...],
    profile: Literal["quick", "full"],
    device: str,
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
    sdpa:flash, sdpa:efficient, sdpa:cudnn, flex, reference:fused, reference:eager, hf:sdpa, hf:eager.

    Exit codes: 0 it conforms, 1 it does not, 2 bad input or nothing that ran, 3 it could not be run at all.
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
