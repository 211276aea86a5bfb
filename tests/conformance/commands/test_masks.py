"""``holotype masks``: pictures worked by hand."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from holotype_conformance.commands.masks import masks
from holotype_reference.masks import Mask
from holotype_reference.support import supported
from holotype_spec import load
from holotype_spec.dependencies import layer_mask

WINDOWED = "mistral-7b-v0.1"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(masks, arguments)


def facts(*arguments: str) -> list[dict[str, object]]:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    found: list[dict[str, object]] = json.loads(result.output)["masks"]
    return found


def test_a_decoder_is_drawn_as_a_triangle() -> None:
    output = run("gpt2", "--length", "3").output
    drawn = [line.split() for line in output.splitlines() if line.startswith("   ")]
    assert drawn[1:] == [
        ["0", "██····", "0", "██····"],
        ["1", "████··", "1", "████··"],
        ["2", "██████", "2", "██████"],
    ]
    # blocks of 64: 16 · 17 / 2 of 16²
    assert "At 1,024 tokens" in output
    assert "53% of all scores" in output


def test_a_window_is_drawn_as_that_of_a_probe_which_two_layers_double() -> None:
    (found,) = facts(WINDOWED, "--length", "10")
    assert found["layer"][9] == "0000011111"  # type: ignore[index]
    assert found["stack"][9] == "0111111111"  # type: ignore[index]
    assert "the 4,095 before it" in str(found["description"])
    assert "Drawn: a window of 5 and 2 layers" in str(found["description"])


def test_an_encoder_decoder_has_three_masks_and_its_source_is_shorter() -> None:
    found = facts("t5-small", "--length", "8")
    assert [one["name"] for one in found] == [
        "encoder self-attention",
        "decoder self-attention",
        "decoder cross-attention",
    ]
    assert [(one["queries"], one["keys"]) for one in found] == [(6, 6), (8, 8), (8, 6)]


def test_padding_is_hidden_from_everyone_and_nothing_is_claimed_of_its_rows() -> None:
    (found,) = facts("bert-base-uncased", "--length", "5", "--padding", "2")
    assert found["layer"] == ["11100"] * 5
    assert found["claimed"] == [1, 1, 1, 0, 0]
    (found,) = facts("gpt2", "--length", "4", "--padding", "left:1")
    assert found["layer"] == ["0000", "0100", "0110", "0111"]
    assert "░ ░ ░ ░" in run("gpt2", "--length", "4", "--padding", "left:1").output


def test_a_long_input_is_drawn_in_groups() -> None:
    output = run("gpt2", "--length", "72").output
    assert "▒▒ some of several" in output
    assert "  70 " + "██" * 35 + "▒▒" in output  # 70 sees up to 70, 71 up to 71


@pytest.mark.parametrize("arguments", [("t5-small",), (WINDOWED, "--length", "200")])
def test_a_picture_fits_80_columns(arguments: tuple[str, ...]) -> None:
    result = run(*arguments)
    assert result.exit_code == 0
    assert max(map(len, result.output.splitlines())) <= 80


def test_every_mask_of_the_catalogue_is_drawn_as_the_reference_applies_it() -> None:
    patterns = {load(name).architecture.attention.pattern for name in supported()}
    assert len(patterns) >= 3
    for pattern in patterns:
        mask = Mask(
            pattern=pattern,
            queries=9,
            keys=9,
            cached=0,
            padding=None,
            device=torch.device("cpu"),
        )
        np.testing.assert_array_equal(mask.visible[0, 0].numpy(), layer_mask(pattern, 9))


def test_a_visible_prefix_is_drawn_a_third_long_or_as_long_as_it_is_said_to_be() -> None:
    (found,) = facts("glm-10b", "--length", "6")
    assert found["layer"] == ["110000", "110000", "111000", "111100", "111110", "111111"]
    (found,) = facts("chatglm-6b", "--length", "4", "--prefix", "3")
    assert found["layer"] == found["stack"] == ["1110", "1110", "1110", "1111"]
    assert "Drawn: a prefix of 3." in found["description"]


def test_each_mask_of_a_mixture_is_drawn() -> None:
    (found,) = facts("unilm-v1-base-cased", "--length", "3")
    assert found["layer"] == ["111"] * 3
    (found,) = facts("unilm-v1-base-cased", "--length", "3", "--right-to-left")
    assert found["stack"] == ["111", "011", "001"]
    (found,) = facts("unilm-v1-base-cased", "--length", "3", "--prefix", "0")
    assert found["layer"] == ["100", "110", "111"]


def test_an_svg_has_a_square_for_each_query_and_key(tmp_path: Path) -> None:
    result = run("gpt2", "--length", "7", "--svg", str(tmp_path / "gpt2.svg"))
    assert result.exit_code == 0
    root = ElementTree.parse(tmp_path / "gpt2.svg").getroot()
    rects = root.findall("{http://www.w3.org/2000/svg}rect")
    fills = [rect.get("fill") for rect in rects]
    assert fills.count("#1b6ca8") == 2 * 28 + 1  # two triangles of 7 · 8 / 2, and the legend
    assert fills.count("#eef1f4") == 2 * 21 + 1


def test_a_picture_is_drawn_in_ascii_where_the_terminal_has_no_blocks() -> None:
    shown = CliRunner(charset="latin-1").invoke(masks, ["gpt2", "--length", "2", "--padding", "1"])
    assert "\n   0 ##.." in shown.stdout
    assert "1 ~ ~\n" in shown.stdout


def test_no_text_of_an_svg_runs_out_of_the_picture(tmp_path: Path) -> None:
    assert run("mistral-7b-v0.1", "--svg", str(tmp_path / "mask.svg")).exit_code == 0
    root = ElementTree.parse(tmp_path / "mask.svg").getroot()
    texts = root.findall("{http://www.w3.org/2000/svg}text")
    assert any("12% of all scores" in (text.text or "") for text in texts)
    for text in texts:
        width = 0.55 * int(text.attrib["font-size"]) * len(text.text or "")  # wide for a sans serif
        assert int(text.attrib["x"]) + width <= int(root.attrib["width"])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("gpt9",), "did you mean"),
        (("mamba-130m",), "it is no Transformer"),
        (("gpt2", "--length", "0"), "1<=x<=1024"),
        (("gpt2", "--padding", "middle:3"), "expected a number of tokens, or a side"),
        (("gpt2", "--padding", "left:12"), "at least one of the 12 tokens must be real"),
        (("gpt2", "--prefix", "3"), "a causal pattern has no prefix"),
        (("glm-10b", "--prefix", "13"), "the prefix is 13 of 12 tokens"),
        (("glm-10b", "--right-to-left"), "one of the masks of a mixture"),
        (("gpt2", "--svg", "/nowhere/picture.svg"), "cannot write /nowhere/picture.svg"),
    ],
)
def test_bad_input_is_said_with_exit_code_2(arguments: tuple[str, ...], said: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert said in result.output
