"""The entries of the catalogue of which little was disclosed: what is known, from whom, and nothing else."""

import pytest

from holotype_spec import (
    NoSpec,
    Sketch,
    UndisclosedValue,
    count_parameters,
    entries,
    find,
    load,
    overview,
)

CLOSED = [
    "chatgpt",
    "gemini-nano-1",
    "gemini-nano-2",
    "gemini-pro",
    "gemini-ultra",
    "gpt-4",
    "gpt-4-rumour",
    "gpt-4o",
    "palm-2-l",
    "palm-2-m",
    "palm-2-s",
]


def sketch(name: str) -> Sketch:
    found = find(name)
    assert isinstance(found, Sketch)
    return found


@pytest.mark.parametrize("name", CLOSED)
def test_no_number_is_made_up_for_what_was_not_disclosed(name: str) -> None:
    with pytest.raises(UndisclosedValue, match=f"the parameter count of {name} depends on "):
        count_parameters(find(name))
    with pytest.raises(NoSpec, match=f"{name} has no complete spec"):
        load(name)


# GPT-4 research page; platform documentation; Gemini report, section 2; the rumour.
def test_the_contexts_that_were_told_are_the_only_sizes_but_for_the_rumour() -> None:
    sizes = {
        name: {
            size: value
            for size, value in sketch(name).facts().items()
            if isinstance(value, int) and size != "stated"
        }
        for name in CLOSED
    }
    assert {name: told for name, told in sizes.items() if told} == {
        "gpt-4": {"max_positions": 8192},
        "gpt-4-rumour": {"layers": 120, "max_positions": 8192},
        "gpt-4o": {"max_positions": 128_000},
        **{name: {"max_positions": 32_768} for name in CLOSED if name.startswith("gemini")},
    }


def test_the_sizes_of_gemini_nano_are_those_that_the_report_states() -> None:
    assert overview.size(find("gemini-nano-1")) == 1_800_000_000
    assert overview.size(find("gemini-nano-2")) == 3_250_000_000
    assert overview.size(find("gemini-ultra")) is None


def test_only_the_rumour_is_one_and_says_so() -> None:
    told = {entry.name: overview.disclosure(entry) for entry in entries()}
    assert [name for name, disclosure in told.items() if disclosure == "rumour"] == ["gpt-4-rumour"]
    assert told["gpt-4"] == told["chatgpt"] == told["palm-2-l"] == "undisclosed"
    assert told["gemini-nano-1"] == "partly"
    assert told["gpt2"] == told["mamba-130m"] == "published"
    assert "SemiAnalysis" in (sketch("gpt-4-rumour").rumour or "")


def test_the_arithmetic_of_the_rumour_is_that_of_what_it_says() -> None:
    # 16 experts of 111 billion, two of them active, and 55 billion in attention, which every token uses.
    assert overview.stated(find("gpt-4-rumour")) == (
        16 * 111_000_000_000 + 55_000_000_000,
        2 * 111_000_000_000 + 55_000_000_000,
    )
    experts = sketch("gpt-4-rumour").facts()["architecture"]["feed_forward"]
    assert (experts["experts"], experts["active_experts"]) == (16, 2)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1.8B", 1_800_000_000),
        ("350M", 350_000_000),
        ("13,002", 13_002),
        ("1_000", 1000),
        ("2 T", 2 * 10**12),
        ("7b", 7 * 10**9),
        ("undisclosed", None),
        ("about 7B", None),
        ("", None),
        ("-3", None),
    ],
)
def test_a_size_in_words_is_read_or_is_none(text: str, size: int | None) -> None:
    assert overview.parsed_size(text) == size
