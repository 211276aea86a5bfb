"""What is counted, against numbers worked out by hand."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from holotype_conformance.bench.counters import Counts, count
from holotype_conformance.bench.formulas import triangle
from holotype_spec import areas

pytestmark = pytest.mark.slow

FLOAT = 4  # bytes


def with_backward(function: Callable[..., Tensor], *inputs: Tensor) -> Counts:
    leaves = [x.requires_grad_() for x in inputs]

    def work() -> object:
        out = function(*leaves)
        return out, torch.autograd.grad(out, leaves, torch.ones_like(out))

    return count(work, known=leaves)


def test_a_matrix_product_is_two_operations_an_entry_of_the_sum() -> None:
    a, b = torch.ones(3, 4), torch.ones(4, 5)
    found = count(lambda: a @ b, known=[a, b])
    assert found == Counts(operators=1, flops=2 * 3 * 4 * 5, allocated=15 * FLOAT, peak=15 * FLOAT)


def test_batched_and_biased_products_count_their_product() -> None:
    a, b, bias = torch.ones(7, 3, 4), torch.ones(7, 4, 5), torch.ones(5)
    assert count(lambda: torch.bmm(a, b)).flops == 2 * 7 * 3 * 4 * 5
    assert count(lambda: F.linear(a, torch.ones(5, 4), bias)).flops == 2 * 7 * 3 * 4 * 5
    assert count(lambda: torch.mv(a[0], torch.ones(4))).flops == 2 * 3 * 4
    assert count(lambda: torch.dot(bias, bias)).flops == 2 * 5
    assert count(lambda: torch.einsum("bij,bkj->bik", a, a)).flops == 2 * 7 * 3 * 3 * 4


def written(*shape: int) -> Tensor:
    return torch.zeros(shape)


A, B, VECTOR, ROW = torch.ones(7, 3, 4), torch.ones(7, 4, 5), torch.ones(4), torch.ones(5)
PLAIN, BATCHED = 2 * 3 * 4 * 5, 7 * 2 * 3 * 4 * 5
WAYS: dict[str, tuple[Callable[[], object], int]] = {
    "mm.out": (lambda: torch.mm(A[0], B[0], out=written(3, 5)), PLAIN),
    "bmm.out": (lambda: torch.bmm(A, B, out=written(7, 3, 5)), BATCHED),
    "matmul.out": (lambda: torch.matmul(A, B, out=written(7, 3, 5)), BATCHED),
    "mv.out": (lambda: torch.mv(A[0], VECTOR, out=written(3)), 2 * 3 * 4),
    "addmm": (lambda: torch.addmm(written(3, 5), A[0], B[0]), PLAIN),
    "addmm_": (lambda: written(3, 5).addmm_(A[0], B[0]), PLAIN),
    "addmm.out": (lambda: torch.addmm(ROW, A[0], B[0], out=written(3, 5)), PLAIN),
    "baddbmm": (lambda: torch.baddbmm(ROW, A, B), BATCHED),
    "baddbmm_": (lambda: written(7, 3, 5).baddbmm_(A, B), BATCHED),
    "baddbmm.out": (lambda: torch.baddbmm(ROW, A, B, beta=-1, out=written(7, 3, 5)), BATCHED),
    "addbmm_": (lambda: written(3, 5).addbmm_(A, B), BATCHED),
    "addmv_": (lambda: written(3).addmv_(A[0], VECTOR), 2 * 3 * 4),
    "addr_": (lambda: written(4, 5).addr_(VECTOR, ROW), 2 * 4 * 5),
    "vdot": (lambda: torch.vdot(ROW, ROW), 2 * 5),
    "_addmm_activation": (lambda: torch._addmm_activation(ROW, A[0], B[0]), PLAIN),
    "_int_mm": (lambda: torch._int_mm(*(torch.ones(32, 32, dtype=torch.int8),) * 2), 2 * 32**3),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_product_counts_whether_it_returns_adds_or_writes_into_what_is_there(way: str) -> None:
    work, flops = WAYS[way]
    assert count(work).flops == flops


@pytest.mark.skipif(not hasattr(torch, "_grouped_mm"), reason="this torch has no grouped product")
def test_each_row_of_a_grouped_product_meets_the_matrix_of_its_group() -> None:
    rows, matrices = torch.ones(24, 16).bfloat16(), torch.ones(3, 16, 8).bfloat16()
    ends = torch.tensor([8, 16, 24], dtype=torch.int32)
    assert count(lambda: torch._grouped_mm(rows, matrices, offs=ends)).flops == 2 * 24 * 16 * 8
    apart = rows.view(3, 8, 16)
    assert count(lambda: torch._grouped_mm(apart, matrices)).flops == 3 * 2 * 8 * 16 * 8


def test_whole_layers_that_torch_runs_as_one_operator_count_their_products() -> None:
    x, tokens, width, ffn = torch.ones(2, 6, 16), 2 * 6, 16, 32
    attention = tokens * (4 * 2 * width * width + 2 * 2 * 6 * width)
    layer = torch.nn.TransformerEncoderLayer(width, 4, ffn, batch_first=True).eval()
    alone = torch.nn.MultiheadAttention(width, 4, batch_first=True).eval()
    lstm = torch.nn.LSTM(width, 8)
    with torch.no_grad():
        assert count(lambda: layer(x)).flops == attention + tokens * 2 * 2 * width * ffn
        assert count(lambda: alone(x, x, x)).flops == attention
    step = 2 * (4 * 8 * width + 4 * 8 * 8)  # four gates, of the input and of the state
    assert with_backward(lambda x: lstm(x)[0], x).flops == 3 * tokens * step


def test_the_backward_pass_of_a_product_is_two_products() -> None:
    assert with_backward(torch.matmul, torch.ones(3, 4), torch.ones(4, 5)).flops == 3 * 120


def test_a_softmax_and_a_norm_count_nothing() -> None:
    x = torch.ones(6, 7)
    assert count(lambda: F.layer_norm(x.softmax(-1), (7,))).flops == 0


@pytest.mark.parametrize(
    ("causal", "pairs"), [(False, 130 * 70), (True, 64 * 64 + 64 * 70 + 2 * 70)]
)
def test_fused_attention_counts_two_products_over_the_blocks_and_five_backward(
    causal: bool, pairs: int
) -> None:
    q, k, v = torch.ones(2, 3, 130, 8), torch.ones(2, 3, 70, 8), torch.ones(2, 3, 70, 8)
    found = with_backward(
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=causal), q, k, v
    )
    assert found.flops == (2 + 5) * 2 * 2 * 3 * pairs * 8


def test_plain_attention_counts_two_products_forward_and_four_backward() -> None:
    q, k, v = (torch.ones(1, 2, 6, 8) for _ in range(3))
    found = with_backward(lambda q, k, v: (q @ k.mT).softmax(-1) @ v, q, k, v)
    assert found.flops == (2 + 4) * 2 * 2 * 6 * 6 * 8


def test_a_triangle_is_counted_in_blocks_and_starts_at_the_first_key() -> None:
    assert triangle(3, 3) == 3 * 3
    assert triangle(128, 128) == 3 * 64 * 64
    assert triangle(64, 200) == 64 * 64
    assert triangle(200, 64) == 200 * 64
    assert triangle(100, 300) == 64 * 64 + 36 * 128


@pytest.mark.parametrize("length", [1, 63, 64, 65, 200, 256])
def test_a_triangle_costs_what_a_causal_mask_may_cost(length: int) -> None:
    assert triangle(length, length) == areas.block_pairs(areas.causal(length, length), length)


def test_views_and_in_place_operations_allocate_nothing() -> None:
    x = torch.zeros(1000)
    found = count(lambda: x.view(10, 100).add_(1).t().mul_(2))
    assert found.allocated == found.peak == 0


def test_what_is_freed_is_allocated_but_no_longer_alive() -> None:
    def work() -> None:
        first = torch.empty(1000)
        second = torch.empty(10)
        del first
        third = torch.empty(500)
        del second, third

    assert count(work) == Counts(operators=3, flops=0, allocated=1510 * FLOAT, peak=1010 * FLOAT)


def test_what_autograd_keeps_for_the_backward_pass_is_alive() -> None:
    x = torch.ones(1000, requires_grad=True)

    def work() -> object:  # e^x is kept; then its gradient: the upstream ones, and the product
        y = x.exp()
        return torch.autograd.grad(y, x, torch.ones_like(y))

    assert count(work, known=[x]).peak == 3 * 1000 * FLOAT


def test_a_storage_that_grows_counts_what_it_grew() -> None:
    found = count(lambda: torch.empty(1000).resize_(2500))
    assert (found.allocated, found.peak) == (2500 * FLOAT, 2500 * FLOAT)


def test_plain_attention_keeps_a_matrix_of_scores_and_fused_attention_does_not() -> None:
    q = torch.ones(1, 1, 256, 8)
    plain = count(lambda: (q @ q.mT).softmax(-1) @ q)
    fused = count(lambda: F.scaled_dot_product_attention(q, q, q))
    scores, result = 256 * 256 * FLOAT, 256 * 8 * FLOAT
    assert plain.peak == 2 * scores
    assert fused.peak == result + 256 * FLOAT  # and the logarithm of each row's sum


CODE = """
import torch, torch.nn.functional as F
from holotype_conformance.bench.counters import count
q = torch.randn(1, 4, 192, 16, requires_grad=True)
def work():
    out = F.dropout((q @ q.mT).softmax(-1), 0.1) @ q
    return out, torch.autograd.grad(out.sum(), q)
print(count(work, known=[q]))
"""


def test_two_processes_count_the_same() -> None:
    runs = [
        subprocess.run(
            [sys.executable, "-c", CODE], check=True, capture_output=True, text=True
        ).stdout
        for _ in range(2)
    ]
    assert runs[0] == runs[1]
    assert runs[0].startswith("Counts(")


def test_counting_leaves_the_random_numbers_alone() -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    count(lambda: torch.rand(100))
    assert torch.equal(torch.rand(3), expected)
