"""What the README and the guides show is what there is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
GUIDE = (ROOT / "docs" / "adapters.md").read_text(encoding="utf-8")


def blocks(text: str, language: str) -> list[str]:
    """The code blocks of one language in a Markdown text."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.M | re.S)


def decorated(text: str) -> list[str]:
    """The tests in a Markdown text that are parametrised over the properties."""
    return [block for block in blocks(text, "python") if "@parametrize_properties" in block]


def test_the_readme_needs_two_commands_and_ci_runs_both() -> None:
    first, second = blocks(README, "bash")
    assert "check hf --spec gpt2" in first
    assert "tox" in second
    assert '"```bash"' in (ROOT / ".ci" / "run").read_text()


def test_the_output_in_the_readme_shows_properties_that_exist() -> None:
    from holotype_conformance.models.properties import all_properties

    output, _ = blocks(README, "text")
    group, shown = "", set()
    for line in output.splitlines():
        if re.fullmatch(r"[a-z]+", line):
            group = line
        elif result := re.match(r"  \S (\S+)  ", line):
            shown.add(f"{group}.{result[1]}")
    assert len(shown) >= 10
    assert shown <= {property_.slug for property_ in all_properties()}


def test_the_guide_shows_the_adapter_of_the_example_word_for_word() -> None:
    adapter = (ROOT / "examples" / "third_party_gpt2" / "adapter.py").read_text()
    assert adapter in blocks(GUIDE, "python")


def test_the_guide_and_the_readme_show_the_same_decorated_test() -> None:
    assert decorated(README) == decorated(GUIDE)
    assert len(decorated(README)) == 1


@pytest.mark.slow
def test_the_decorated_test_of_the_guide_passes(pytester: pytest.Pytester) -> None:
    pytest.importorskip("transformers")
    build = blocks(GUIDE, "python")[0]
    (test,) = decorated(GUIDE)
    pytester.makepyfile(my_gpt2=build, test_my_gpt2=test)
    pytester.syspathinsert()
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "--import-mode=prepend")
    assert result.ret == pytest.ExitCode.OK
    assert result.parseoutcomes()["passed"] > 25
    assert "failed" not in result.parseoutcomes()
