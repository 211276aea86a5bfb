"""The oracle: values worked by hand, gradients by differences, masks written out."""

import math

import numpy as np
import pytest
import torch

from holotype_conformance.kernels import oracle
from holotype_conformance.kernels.cases import AttentionCase, problem


def four(*rows):
    """(1, 1, length, 1)"""
    return np.array(rows, dtype=float).reshape(1, 1, -1, 1)


def test_weights_are_shares_of_the_powers():
    # scores 0 and log 3 give the weights 1/4 and 3/4
    found = oracle.attention(four(1.0), four(0.0, math.log(3.0)), four(0.0, 4.0))
    assert found.weights.ravel() == pytest.approx([0.25, 0.75], abs=1e-15)
    assert found.output.item() == pytest.approx(3.0, abs=1e-15)


def test_the_default_scale_is_the_root_of_the_head_dim():
    q = np.ones((1, 1, 1, 4))
    k = np.stack([np.zeros(4), np.full(4, math.log(3.0) / 2)])[None, None]
    v = np.array([0.0, 4.0]).reshape(1, 1, 2, 1)
    assert oracle.attention(q, k, v).output.item() == pytest.approx(3.0, abs=1e-14)
    assert oracle.attention(q, k, v, scale=0.0).output.item() == 2.0


def test_a_bias_is_added_after_the_scale_and_minus_infinity_hides():
    q, k, v = four(1.0), four(5.0, 5.0, 5.0), four(0.0, 4.0, 100.0)
    bias = np.array([0.0, math.log(3.0), -math.inf]).reshape(1, 1, 1, 3)
    assert oracle.attention(q, k, v, bias=bias, scale=7.0).output.item() == pytest.approx(3.0)


def test_a_query_without_keys_gives_zero_and_no_gradient():
    q, k, v = four(1.0, 1.0), four(1.0, 2.0), four(3.0, 4.0)
    visible = np.array([[False, False], [True, False]])
    found = oracle.attention(q, k, v, visible=visible, upstream=four(1.0, 1.0))
    assert found.output.ravel().tolist() == [0.0, 3.0]
    assert found.gradients.v.ravel().tolist() == [1.0, 0.0]
    assert found.gradients.q.ravel().tolist() == [0.0, 0.0]


def test_query_heads_that_are_neighbours_share_a_key_value_head():
    q = np.ones((1, 4, 1, 1))
    v = np.array([10.0, 20.0]).reshape(1, 2, 1, 1)
    found = oracle.attention(q, np.ones((1, 2, 1, 1)), v, upstream=np.ones((1, 4, 1, 1)))
    assert found.output.ravel().tolist() == [10.0, 10.0, 20.0, 20.0]
    assert found.gradients.v.ravel().tolist() == [2.0, 2.0]


@pytest.mark.parametrize("name", ["q", "k", "v"])
def test_gradients_are_the_limits_of_differences(name):
    rng = np.random.default_rng(0)
    inputs = {
        "q": rng.standard_normal((2, 4, 3, 5)),
        "k": rng.standard_normal((2, 2, 6, 5)),
        "v": rng.standard_normal((2, 2, 6, 5)),
    }
    upstream = rng.standard_normal((2, 4, 3, 5))
    options = {"visible": oracle.causal(3, 6), "scale": 0.7}
    found = oracle.attention(**inputs, **options, upstream=upstream)
    direction = rng.standard_normal(inputs[name].shape)

    def value(step):
        moved = inputs | {name: inputs[name] + step * direction}
        return (oracle.attention(**moved, **options).output * upstream).sum()

    slope = (value(1e-5) - value(-1e-5)) / 2e-5
    assert (getattr(found.gradients, name) * direction).sum() == pytest.approx(slope, rel=1e-8)


# Masks ----------------------------------------------------------------------------------------------------------


def drawn(visible):
    return ["".join("x" if seen else "." for seen in row) for row in visible]


@pytest.mark.parametrize(
    ("visible", "rows"),
    [
        (oracle.causal(3, 3), ["x..", "xx.", "xxx"]),
        (oracle.causal(2, 4), ["xxx.", "xxxx"]),
        (oracle.causal(4, 2), ["..", "..", "x.", "xx"]),
        (oracle.window(4, 4, 2), ["x...", "xx..", ".xx.", "..xx"]),
        (oracle.window(2, 4, 2), [".xx.", "..xx"]),
        (oracle.band(4, 4, 2), ["xx..", "xxx.", ".xxx", "..xx"]),
        (oracle.prefix(4, 4, 2), ["xx..", "xx..", "xxx.", "xxxx"]),
        (oracle.documents(5, 5, [2, 2]), ["x....", "xx...", "..x..", "..xx.", "....x"]),
        (oracle.padding(1, 4, [1, 3], "right")[:, 0], ["x...", "xxx."]),
        (oracle.padding(1, 4, [1, 3], "left")[:, 0], ["...x", ".xxx"]),
        (oracle.full(1, 2), ["xx"]),
    ],
)
def test_masks_are_what_their_pictures_show(visible, rows):
    assert drawn(visible) == rows


def test_a_case_always_makes_the_same_problem_and_another_seed_another():
    case = AttentionCase(queries=3, keys=5, heads=2, kv_heads=2, mask="random", form="boolean")
    first, same, other = (problem(case, seed=seed).call for seed in (1, 1, 2))
    assert torch.equal(first.q, same.q)
    assert torch.equal(first.mask, same.mask)
    assert not torch.equal(first.q, other.q)
