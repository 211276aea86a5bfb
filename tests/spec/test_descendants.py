"""The descendants of the catalogue: from whom each derives, what it was trained for after that, and what it changed."""

import pytest

from holotype_spec import (
    Sketch,
    Spec,
    complete,
    count_parameters,
    find,
    line_of_descent,
    load,
    overview,
    parameter_table,
)
from holotype_spec.schema import Rotary

# Read off each paper or release: the parent, and the row of objectives.
CAUSAL = ("causal-lm",)
TUNED = (*CAUSAL, "instruction-tuning")
SUPERVISED = (*CAUSAL, "supervised-fine-tuning")
ADAPTED = (*TUNED, "low-rank-adaptation")
CHAT = (*SUPERVISED, "reward-modelling", "rejection-sampling", "ppo")
REINFORCED = (*SUPERVISED, "reward-modelling", "ppo")
PROMPTED = ("span-corruption", "prefix-lm", "instruction-tuning")
INFILLING = (*CAUSAL, "fill-in-the-middle")
DESCENT = {
    "alpaca-7b": ("llama-7b", TUNED),
    "biobert-base-cased": ("bert-base-cased", ("masked-lm", "next-sentence-prediction")),
    "codellama-7b": ("llama2-7b", INFILLING),
    "codellama-34b": ("llama2-34b", CAUSAL),
    "flan-t5-xxl": ("t5-v1_1-xxl", PROMPTED),
    "giraffe-13b-16k": ("llama-13b", TUNED),
    "giraffe-13b-32k": ("llama2-13b", TUNED),
    "gorilla-7b": ("llama-7b", TUNED),
    "guanaco-33b": ("llama-30b", ADAPTED),
    "guanaco-65b": ("llama-65b", ADAPTED),
    "koala-13b": ("llama-13b", SUPERVISED),
    "llama2-70b-chat": ("llama2-70b", CHAT),
    "long-llama-3b": ("open-llama-3b", CAUSAL),
    "codex-12b": ("gpt3-13b", CAUSAL),
    "flan-137b": ("lamda-137b", TUNED),
    "flan-palm-540b": ("palm-540b", TUNED),
    "flan-u-palm-540b": ("u-palm-540b", (*CAUSAL, "mixture-of-denoisers", "instruction-tuning")),
    "instructgpt-6b": ("gpt3-6.7b", REINFORCED),
    "instructgpt-175b": ("gpt3-175b", REINFORCED),
    "med-palm-540b": ("flan-palm-540b", (*TUNED, "prompt-tuning")),
    "u-palm-62b": ("palm-62b", (*CAUSAL, "mixture-of-denoisers")),
    "webgpt-175b": ("gpt3-175b", (*SUPERVISED, "reward-modelling", "rejection-sampling")),
    "orca-13b": ("llama-13b", TUNED),
    "stable-beluga-2": ("llama2-70b", SUPERVISED),
    "t0-3b": ("t5-v1_1-xl", PROMPTED),
    "tulu-65b": ("llama-65b", TUNED),
    "vicuna-13b": ("llama-13b", SUPERVISED),
    "vigogne-7b": ("llama-7b", ADAPTED),
}


@pytest.mark.parametrize("name", DESCENT)
def test_a_descendant_has_the_parent_and_the_objectives_of_its_paper(name: str) -> None:
    parent, objectives = DESCENT[name]
    assert line_of_descent(find(name))[0] == parent
    assert overview.objectives(find(name)) == objectives


# A token for padding, the last row of both tables of LLaMA, and Code Llama's 16 tokens for infilling.
ROWS = {
    "alpaca": 1,
    "tulu": 1,
    "orca": 1,
    "codellama-7b": 16,
    "codellama-13b": 16,
    "codellama-70b": 16,
}


@pytest.mark.parametrize(
    "spec", [spec for spec in complete() if spec.derives_from], ids=lambda spec: spec.name
)
def test_a_descendant_has_the_parameters_of_its_parent_and_the_rows_that_it_adds(
    spec: Spec,
) -> None:
    parent = load(spec.derives_from or "")
    rows = ROWS.get(spec.name, ROWS.get(spec.family.name, 0))
    assert spec.vocab_size == parent.vocab_size + rows
    more = count_parameters(spec).total - count_parameters(parent).total
    assert more == rows * (1 if parent.architecture.tied_embeddings else 2) * parent.hidden_size


def test_a_descendant_keeps_the_mechanisms_that_it_does_not_name() -> None:
    vicuna, llama = load("vicuna-13b").architecture, load("llama-13b").architecture
    assert vicuna.positions == llama.positions
    assert vicuna.normalization == llama.normalization
    assert load("tulu-65b").architecture.normalization.eps == 1e-5
    assert load("tulu-7b").architecture.normalization.eps == 1e-6
    positions = load("codellama-13b").architecture.positions
    assert isinstance(positions, Rotary)
    assert (positions.theta, positions.pairing) == (1e6, "half-split")


# Chen et al. 2021, table 1; of Brown et al. 2020, table 2.1, the layers and widths of the models of that size.
@pytest.mark.parametrize(
    ("name", "published", "layers", "width"),
    [
        ("codex-85m", 85e6, 12, 768),
        ("codex-300m", 300e6, 24, 1024),
        ("codex-679m", 679e6, 24, 1536),
        ("codex-2.5b", 2.5e9, 32, 2560),
        ("codex-12b", 12e9, 40, 5120),
    ],
)
def test_codex_is_called_by_the_size_of_its_matrices(
    name: str, published: float, layers: int, width: int
) -> None:
    matrices = sum(row.size for row in parameter_table(find(name)) if row.role == "matrix")
    assert matrices == 12 * layers * width**2
    assert matrices == pytest.approx(published, rel=0.05)


def test_what_is_undisclosed_of_a_parent_is_undisclosed_of_its_descendants() -> None:
    parent, child = find("gpt3-175b"), find("instructgpt-175b")
    assert isinstance(parent, Sketch)
    assert isinstance(child, Sketch)
    assert child.undisclosed == parent.undisclosed
    assert count_parameters(child) == count_parameters(parent)
