"""Dependency matrices, worked by hand."""

from typing import Any

import msgspec
import numpy as np
import pytest

from holotype_spec import Spec, load
from holotype_spec.dependencies import (
    dependencies,
    dependents,
    layer_mask,
    source_dependencies,
)
from holotype_spec.schema import Bidirectional, Causal, MixtureOfMasks, PrefixCausal, SlidingWindow

MIXTURE = MixtureOfMasks(
    bidirectional=0.25, left_to_right=0.25, right_to_left=0.25, sequence_to_sequence=0.25
)


def rows(*lines: str) -> np.ndarray:
    """A matrix drawn with x and dots, one line a row."""
    return np.array([[mark == "x" for mark in line] for line in lines])


def mistral(window: int, layers: int) -> Spec:
    spec = load("mistral-7b")
    attention = msgspec.structs.replace(
        spec.architecture.attention, pattern=SlidingWindow(window=window)
    )
    architecture = msgspec.structs.replace(spec.architecture, attention=attention)
    return msgspec.structs.replace(spec, architecture=architecture, layers=layers)


def test_one_layer_sees_what_its_pattern_shows() -> None:
    assert (layer_mask(Bidirectional(), 3) == rows("xxx", "xxx", "xxx")).all()
    assert (layer_mask(Causal(), 3) == rows("x..", "xx.", "xxx")).all()
    two = layer_mask(SlidingWindow(window=2), 4)
    assert (two == rows("x...", "xx..", ".xx.", "..xx")).all()


def test_a_prefix_is_seen_whole_by_all_and_sees_nothing_behind_it() -> None:
    # Du et al. 2021, figure 2: the text is seen by all; what is filled in sees it and what stands before.
    assert (
        layer_mask(PrefixCausal(), 5, prefix=3) == rows("xxx..", "xxx..", "xxx..", "xxxx.", "xxxxx")
    ).all()
    assert (dependencies(load("glm-10b"), 3, prefix=2) == rows("xx.", "xx.", "xxx")).all()
    assert (layer_mask(PrefixCausal(), 3) == layer_mask(Causal(), 3)).all()
    assert (layer_mask(PrefixCausal(), 3, prefix=0) == layer_mask(Causal(), 3)).all()
    assert layer_mask(PrefixCausal(), 3, prefix=3).all()


def test_a_mixture_has_the_four_masks_of_its_paper() -> None:
    # Dong et al. 2019, figure 1
    assert layer_mask(MIXTURE, 3).all()
    assert (layer_mask(MIXTURE, 3, right_to_left=True) == rows("xxx", ".xx", "..x")).all()
    assert (layer_mask(MIXTURE, 3, prefix=0) == rows("x..", "xx.", "xxx")).all()
    assert (layer_mask(MIXTURE, 4, prefix=2) == rows("xx..", "xx..", "xxx.", "xxxx")).all()


@pytest.mark.parametrize(
    ("pattern", "options", "message"),
    [
        (Causal(), {"prefix": 2}, "a causal pattern has no prefix"),
        (PrefixCausal(), {"prefix": 4}, "the prefix is 4 of 3 tokens"),
        (PrefixCausal(), {"prefix": -1}, "the prefix is -1 of 3 tokens"),
        (PrefixCausal(), {"right_to_left": True}, "one of the masks of a mixture"),
        (MIXTURE, {"right_to_left": True, "prefix": 1}, "has no prefix"),
    ],
)
def test_a_choice_that_a_pattern_does_not_have_is_an_error(
    pattern: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        layer_mask(pattern, 3, **options)


def test_a_key_of_padding_is_seen_by_no_query() -> None:
    seen = layer_mask(Causal(), 3, attention_mask=[0, 1, 1])
    assert (seen == rows("...", ".x.", ".xx")).all()


def test_a_causal_decoder_depends_on_the_past_at_any_depth() -> None:
    expected = rows("x....", "xx...", "xxx..", "xxxx.", "xxxxx")
    assert (dependencies(load("gpt2"), 5) == expected).all()
    assert (dependencies(load("llama2-70b"), 5) == expected).all()


def test_an_encoder_depends_on_everything() -> None:
    assert dependencies(load("bert-base"), 6).all()


def test_a_window_of_three_reaches_four_back_through_two_layers() -> None:
    assert (
        dependencies(mistral(window=3, layers=2), 7)
        == rows("x......", "xx.....", "xxx....", "xxxx...", "xxxxx..", ".xxxxx.", "..xxxxx")
    ).all()


@pytest.mark.parametrize("window", [1, 2, 3, 5])
@pytest.mark.parametrize("layers", [1, 2, 3, 7])
def test_a_window_reaches_its_width_less_one_a_layer(window: int, layers: int) -> None:
    length = 40
    back = np.arange(length)[:, None] - np.arange(length)[None, :]
    expected = (back >= 0) & (back <= layers * (window - 1))
    assert (dependencies(mistral(window, layers), length) == expected).all()


def test_left_padding_reaches_no_real_row() -> None:
    found = dependencies(load("gpt2"), 4, attention_mask=[0, 0, 1, 1])
    # The rows of the padding itself claim nothing.
    assert (found == rows("xxxx", "xxxx", "..x.", "..xx")).all()


def test_padding_inside_the_sequence_is_no_bridge_for_a_window() -> None:
    # Row 3 sees 2 and 3; 2 is padding, so what 2 saw of 1 does not arrive, however deep the model.
    found = dependencies(mistral(window=2, layers=5), 5, attention_mask=[1, 1, 0, 1, 1])
    assert (found == rows("x....", "xx...", "xxxxx", "...x.", "...xx")).all()


def test_right_padding_reaches_no_row_of_an_encoder() -> None:
    found = dependencies(load("bert-base"), 4, attention_mask=np.array([1, 1, 1, 0]))
    assert (found == rows("xxx.", "xxx.", "xxx.", "xxxx")).all()


def test_an_all_ones_mask_is_no_mask() -> None:
    spec = mistral(window=3, layers=2)
    assert (dependencies(spec, 9, attention_mask=np.ones(9)) == dependencies(spec, 9)).all()


def test_a_sequence_of_padding_alone_claims_nothing() -> None:
    assert dependencies(load("gpt2"), 3, attention_mask=[0, 0, 0]).all()


def test_the_decoder_of_an_encoder_decoder_is_causal_in_its_own_tokens() -> None:
    assert (dependencies(load("t5-small"), 3) == rows("x..", "xx.", "xxx")).all()


def test_every_target_row_depends_on_the_whole_source() -> None:
    found = source_dependencies(load("t5-small"), 3, 5)
    assert found.shape == (3, 5)
    assert found.all()


def test_padding_of_the_source_reaches_no_target_row() -> None:
    found = source_dependencies(load("t5-small"), 2, 4, source_mask=[1, 1, 0, 0])
    assert (found == rows("xx..", "xx..")).all()


def test_a_row_of_target_padding_claims_nothing_about_the_source() -> None:
    found = source_dependencies(
        load("t5-small"), 3, 2, source_mask=[0, 1], attention_mask=[0, 1, 1]
    )
    assert (found == rows("xx", ".x", ".x")).all()


def test_only_an_encoder_decoder_has_a_source() -> None:
    with pytest.raises(ValueError, match="gpt2 is no encoder-decoder"):
        source_dependencies(load("gpt2"), 3, 3)


def test_an_empty_sequence_has_an_empty_matrix() -> None:
    assert dependencies(load("gpt2"), 0).shape == (0, 0)


@pytest.mark.parametrize(
    ("mask", "message"),
    [([1, 1], r"shape \(2,\)"), ([[1, 1, 1]], r"shape \(1, 3\)"), ([1, 2, 1], "0")],
)
def test_a_mask_that_does_not_fit_is_an_error(mask: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dependencies(load("gpt2"), 3, attention_mask=mask)


@pytest.mark.parametrize(
    ("spec", "options"),
    [
        (load("gpt2"), {}),
        (load("gpt2"), {"attention_mask": [0, 0, 1, 1, 1, 1, 1, 1, 1]}),
        (load("gpt2"), {"attention_mask": [1, 1, 1, 1, 1, 1, 1, 0, 0]}),
        (mistral(window=3, layers=2), {}),
        (load("glm-10b"), {"prefix": 4}),
        (load("unilm-v1-base-cased"), {"right_to_left": True}),
        (load("bert-base-uncased"), {"attention_mask": [1, 1, 1, 1, 1, 1, 0, 0, 0]}),
    ],
)
def test_what_may_depend_on_a_token_is_its_column_of_the_matrix(
    spec: Spec, options: dict[str, Any]
) -> None:
    matrix = dependencies(spec, 9, **options)
    for position in range(9):
        assert (dependents(spec, position, 9, **options) == matrix[:, position]).all()


def test_two_layers_of_a_window_carry_a_token_no_further_than_twice() -> None:
    # Jiang et al. 2023, section 2: after k layers at most k windows back, the token itself counted.
    spec = mistral(window=3, layers=2)
    assert dependents(spec, 1, 8).nonzero()[0].tolist() == [1, 2, 3, 4, 5]
