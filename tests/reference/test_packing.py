"""Packed documents: each gives what it gives alone."""

from __future__ import annotations

import pytest
import torch

import holotype_spec
from holotype_reference.model import Model, build
from holotype_reference.weights import random_weights

PACKED = ((4, 9, 8), (13, 3, 5))


def model(name: str, path: str = "fused") -> Model:
    spec = holotype_spec.load(name).probe()
    built = build(spec, path=path)  # type: ignore[arg-type]
    built.load_state_dict(random_weights(spec, seed=1))
    return built.double().eval()


def tokens(rows: int = 2) -> torch.Tensor:
    return torch.randint(97, (rows, 21), generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("path", ["fused", "blocks", "eager"])
@pytest.mark.parametrize("name", ["gpt2", "bert-base-uncased", "llama2-70b", "mistral-7b-v0.1"])
def test_a_packed_document_gives_what_it_gives_alone(name: str, path: str) -> None:
    built, ids = model(name, path), tokens()
    with torch.no_grad():
        packed = built(ids, documents=PACKED).logits
        for row, lengths in enumerate(PACKED):
            alone = [built(part[None]).logits[0] for part in torch.split(ids[row], list(lengths))]
            torch.testing.assert_close(packed[row], torch.cat(alone), rtol=0, atol=1e-11)


def test_one_tuple_of_lengths_holds_for_all_rows() -> None:
    built, ids = model("llama2-70b"), tokens()
    with torch.no_grad():
        found = built(ids, documents=((7, 7, 7),)).logits
        expected = built(ids, documents=((7, 7, 7), (7, 7, 7))).logits
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-11)


def test_positions_that_are_given_are_not_started_again() -> None:
    built, ids = model("gpt2"), tokens(1)
    counted = torch.arange(21)[None]
    with torch.no_grad():
        restarted = built(ids, documents=((10, 11),)).logits
        through = built(ids, documents=((10, 11),), position_ids=counted).logits
    assert torch.allclose(restarted[:, :10], through[:, :10])
    assert not torch.allclose(restarted[:, 10:], through[:, 10:])


def test_documents_that_do_not_fit_are_refused() -> None:
    built, ids = model("gpt2"), tokens()
    with pytest.raises(
        ValueError, match=r"documents of the lengths \(4, 9\) do not fill 21 tokens"
    ):
        built(ids, documents=((4, 9),))
    with pytest.raises(ValueError, match="has lengths for 3 rows"):
        built(ids, documents=((21,),) * 3)
    with pytest.raises(ValueError, match="leave documents out with a cache"):
        built(ids, documents=((21,),), cache=built.new_cache())
