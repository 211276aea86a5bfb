"""Targets: what can be named, and what is said about what cannot."""

import sys
from textwrap import dedent

import pytest
from torch import nn

from holotype_conformance.judge.importing import TargetError
from holotype_conformance.kernels.targets import resolve_kernel
from holotype_conformance.models import targets
from holotype_conformance.models.candidate import Candidate
from holotype_conformance.models.targets import as_candidate, resolve

SOURCE = dedent("""
    import helper_beside_it
    from torch import nn
    from holotype_conformance.models.candidate import Candidate

    class Config:
        vocab_size = 3

    def build(spec):
        return nn.Embedding(helper_beside_it.VOCABULARY, 2)

    def takes_nothing():
        pass

    def takes_two(spec, size):
        pass

    def takes_keywords(spec, *, dropout=0.0):
        return nn.Embedding(3, 2)

    class Module(nn.Module):
        def __init__(self, config):
            super().__init__()

    class Mine(Candidate):
        title = "mine"
        def build(self, spec, path="default"):
            return build(spec)

    class NoBuild(Candidate):
        pass

    class BadBuild(Candidate):
        def build(self):
            pass

    class NeedsMore(Candidate):
        def __init__(self, size):
            pass

    class Holder:
        build = build

    instance = Mine()
    model = Module(None)
    number = 3
""")


@pytest.fixture
def target(tmp_path, monkeypatch):
    """Names an attribute of a file in another folder; what it imports is forgotten afterwards."""
    (tmp_path / "implementation.py").write_text(SOURCE)
    (tmp_path / "helper_beside_it.py").write_text("VOCABULARY = 3\n")
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    return lambda attribute: f"{tmp_path}/implementation.py:{attribute}"


@pytest.mark.parametrize("name", ["build", "takes_keywords", "Module", "Holder.build"])
def test_a_file_gives_a_function_or_class_that_builds(target, name):
    candidate = resolve(target(name))
    assert isinstance(candidate.build(None), nn.Module)
    assert candidate.title == target(name)


@pytest.mark.parametrize("name", ["Mine", "instance"])
def test_a_file_gives_a_candidate_as_class_or_object(target, name):
    assert resolve(target(name)).title == "mine"


def test_a_module_is_found_in_the_current_folder(target, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert isinstance(resolve("implementation:build"), Candidate)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("biuld", "no attribute 'biuld'; did you mean build"),
        (
            "takes_nothing",
            r"signature \(\); expected a function that takes one positional argument, build\(spec\)",
        ),
        ("takes_two", r"signature \(spec, size\); expected a function"),
        ("model", "is a model that is built already, a Module; expected a function"),
        ("number", "is a int; expected a function"),
        ("NoBuild", r"does not define build\(self, spec, path='default'\)"),
        ("BadBuild", r"has build\(\); expected build\(self, spec, path='default'\)"),
        ("NeedsMore", "calling it without arguments raised TypeError"),
    ],
)
def test_what_cannot_be_checked_is_refused_with_what_was_expected(target, name, said):
    with pytest.raises(TargetError, match=said):
        resolve(target(name))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("refrence", r"not a target: expected package\.module:attribute.*did you mean reference"),
        ("implementation:", "not a target"),
        (":build", "not a target"),
        ("no_such_module:build", "there is no module 'no_such_module', neither installed nor in"),
        ("torch.no_such:build", "there is no module 'torch.no_such'"),
        ("no/such/file.py:build", "there is no file"),
        ("not a module:build", "is no name of a module"),
        ("reference:something", "takes nothing after a colon"),
    ],
)
def test_a_name_of_nothing_is_refused_with_what_was_expected(name, said):
    with pytest.raises(TargetError, match=said):
        resolve(name)


def test_a_file_without_a_name_in_it_is_told_what_is_missing(tmp_path):
    file = tmp_path / "mine.py"
    file.touch()
    with pytest.raises(TargetError, match=r"is a file: say what of it .*mine\.py:build"):
        resolve(str(file))
    with pytest.raises(TargetError, match=r"is a file: say what of it .*mine\.py:attention"):
        resolve_kernel(str(file))


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("import no_such_dependency", "did not import: ModuleNotFoundError: No module named"),
        ("raise RuntimeError('at import')", "did not import: it raised RuntimeError: at import"),
        ("def build(:", "did not import: it raised SyntaxError"),
        ("import sys; sys.exit(3)", "did not import: it raised SystemExit: 3"),
    ],
)
def test_a_file_that_does_not_import_is_refused_with_its_own_error(
    tmp_path, monkeypatch, source, said
):
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    (tmp_path / "broken.py").write_text(source)
    with pytest.raises(TargetError, match=said):
        resolve(f"{tmp_path}/broken.py:build")


def test_an_adapter_whose_library_is_not_installed_says_what_to_install(monkeypatch):
    monkeypatch.setitem(targets.BUILT_IN, "hf", "no_such_library:candidate")
    with pytest.raises(
        TargetError, match=r"'hf' needs the module 'no_such_library'.*holotype\[hf\]"
    ):
        resolve("hf")


def test_an_adapter_that_is_a_function_gets_what_stands_after_the_colon(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    (tmp_path / "adapter_with_argument.py").write_text(
        "def adapter(name):\n    return lambda spec: name\n"
    )
    monkeypatch.setitem(targets.BUILT_IN, "mine", "adapter_with_argument:adapter")
    assert resolve("mine:small").build(None) == "small"


def test_reference_names_our_own_models():
    assert resolve("reference").title == "reference"


def test_a_function_of_one_argument_by_keyword_only_is_refused():
    def build(*, spec):
        pass

    with pytest.raises(TargetError, match="one positional argument"):
        as_candidate(build, "mine")
