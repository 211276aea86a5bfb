"""Models, benchmarked for real: at a size of their own, verified, and the same work as the spec says."""

from __future__ import annotations

from pathlib import Path

import pytest

from holotype_conformance.bench import models
from holotype_conformance.bench.protocol import Count, Counted, Open, Prepare, Prepared
from holotype_conformance.bench.run import measure
from holotype_conformance.bench.server import Server
from holotype_conformance.bench.side import BadRequest, Side
from holotype_conformance.bench.sizes import scaled
from holotype_conformance.bench.workloads import ModelWork, Part, model_grid
from holotype_spec import load

pytestmark = pytest.mark.slow

WRONG = """
from holotype_reference.model import build as reference


def build(spec):
    model = reference(spec)
    model.head.register_forward_hook(lambda module, given, logits: logits * 1.001)
    return model
"""


def opened(target: str, spec: str) -> Side:
    return Side(Server, Open(target=target, kind="model", specs=(spec,)))


@pytest.mark.parametrize(
    ("length", "cached", "part"),
    [(24, 0, "forward"), (24, 0, "forward-backward"), (24, 0, "prefill"), (4, 20, "decode")],
)
def test_each_kind_of_pass_is_verified_and_timed(length: int, cached: int, part: Part) -> None:
    work = ModelWork(spec="gpt2", length=length, cached=cached, part=part)
    found, _ = measure(opened("reference", "gpt2"), work)
    assert found.error is None
    assert found.ratio("reference") == pytest.approx(1, abs=0.3)
    assert 0 < found.achieved < 1.25


@pytest.mark.parametrize("spec", ["glm-base", "unilm-v1-base-cased"])
def test_a_model_with_a_prefix_is_measured_without_one(spec: str) -> None:
    found, _ = measure(opened("reference", spec), ModelWork(spec=spec, length=24))
    assert found.error is None
    assert found.ratio("reference") == pytest.approx(1, abs=0.3)


def test_a_model_that_is_a_thousandth_off_gets_no_time(tmp_path: Path) -> None:
    file = tmp_path / "wrong.py"
    file.write_text(WRONG)
    found, _ = measure(opened(f"{file}:build", "gpt2"), ModelWork(spec="gpt2", length=16))
    assert "the logits differ from the reference's" in (found.error or "")
    assert found.seconds == ()


def test_a_model_with_experts_is_measured_with_experts() -> None:
    assert scaled(load("st-moe-32b")).has_experts(1)


def test_an_encoder_has_no_cache_to_fill() -> None:
    parts = {
        work.part for work in model_grid("bert-base-uncased", "quick", decodes=False, longest=512)
    }
    assert parts == {"forward", "forward-backward"}


def test_a_pass_of_the_reference_counts_what_the_spec_says_it_costs() -> None:
    side = opened("reference", "gpt2")
    prepared = side.ask(Prepare(work=ModelWork(spec="gpt2", length=32)), Prepared)
    # Beyond it the upper triangle of 32 tokens, which lies in one block with the lower: 2 layers, 8 heads of 64.
    upper = 2 * 8 * 4 * 64 * (32 * 31 // 2)
    assert side.ask(Count(role="candidate"), Counted).flops == prepared.flops + upper


def test_decoding_after_a_source_counts_what_the_spec_says_it_costs() -> None:
    side = opened("reference", "t5-small")
    work = ModelWork(spec="t5-small", length=3, cached=20, part="decode")
    prepared = side.ask(Prepare(work=work), Prepared)
    assert side.ask(Count(role="candidate"), Counted).flops == prepared.flops


def test_the_size_keeps_what_the_spec_fixes() -> None:
    spec = load("llama3-8b")
    small = scaled(spec)
    assert (small.layers, small.heads, small.kv_heads, small.head_dim) == (2, 8, 2, 128)
    assert small.hidden_size == 1024
    assert small.ffn_size / small.hidden_size == spec.ffn_size / spec.hidden_size
    assert small.architecture == spec.architecture


def test_what_cannot_be_verified_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "unsupported", lambda spec: ("such positions",))
    with pytest.raises(BadRequest, match=r"it has no such positions.*no result could be verified"):
        opened("reference", "gpt2")
