"""Networks that are no stacks of attention: exact counts and costs, against papers and transformers."""

from typing import Any

import pytest

from holotype_spec import (
    Network,
    NoSpec,
    SpecError,
    costs,
    count_parameters,
    entries,
    find,
    load,
    parameter_table,
)
from holotype_spec.catalogue import MODELS
from holotype_spec.files import entries as entries_of
from holotype_spec.files import parsed

NETWORKS = [entry.name for entry in entries() if isinstance(entry, Network)]


def network(name: str) -> Network:
    found = find(name)
    assert isinstance(found, Network)
    return found


# Gu & Dao's released weights as the hub counts them; Peng et al. 2023, the table of models, to all its digits, and
# its formula 2 V D + 13 D² L + D (11 L + 4); the table of AllenNLP's page; Sanderson 2017.
@pytest.mark.parametrize(
    ("name", "total"),
    [
        ("mamba-130m", 129_135_360),
        ("mamba-370m", 371_516_416),
        ("mamba-790m", 793_204_224),
        ("mamba-1.4b", 1_372_178_432),
        ("mamba-2.8b", 2_768_345_600),
        ("digits-784-16-16-10", 13_002),
        *(
            (f"rwkv4-{size}", 2 * 50_277 * d + 13 * d * d * layers + d * (11 * layers + 4))
            for size, layers, d in (
                ("169m", 12, 768),
                ("430m", 24, 1024),
                ("1b5", 24, 2048),
                ("3b", 32, 2560),
                ("7b", 32, 4096),
                ("14b", 40, 5120),
            )
        ),
    ],
)
def test_the_total_is_that_of_the_paper_or_the_released_weights(name: str, total: int) -> None:
    assert count_parameters(network(name)).total == total


@pytest.mark.parametrize("name", NETWORKS)
def test_the_total_rounds_to_the_published_one(name: str) -> None:
    written = network(name).parameters
    assert written != "none"
    digits, unit = written.published.rstrip("MB"), written.published[-1]
    scale = {"M": 10**6, "B": 10**9}.get(unit, 1)
    places = len(digits.partition(".")[2])
    total = count_parameters(network(name)).total / scale
    # The names of Mamba's sizes round down to a familiar number.
    tolerance = 0.015 if name.startswith("mamba") else 0.0
    assert round(total, places) == pytest.approx(float(digits.replace(",", "")), rel=tolerance)


def test_the_components_of_elmo_are_those_worked_by_hand() -> None:
    gates, projection = (512 + 512) * 4 * 4096 + 4 * 4096, 4096 * 512
    assert count_parameters(network("elmo-original")).components == {
        "character embeddings": 261 * 16,
        "convolutions": 16 * (32 + 2 * 32 + 3 * 64 + 4 * 128 + 5 * 256 + 6 * 512 + 7 * 1024) + 2048,
        "highways": 2 * (2048 * 4096 + 4096),
        "projection": 2048 * 512 + 512,
        "recurrent layers": 2 * 2 * (gates + projection),
    }


def test_only_the_untied_output_matrix_is_no_backbone() -> None:
    assert count_parameters(network("mamba-130m")).backbone == 129_135_360
    counts = count_parameters(network("rwkv4-169m"))
    assert counts.total - counts.backbone == counts.components["head"] == 50_277 * 768


# Peng et al. 2023, the table of models: operations of the forward pass, in which the state is left out.
@pytest.mark.parametrize(
    ("name", "flops"),
    [
        ("rwkv4-169m", 2.613e8),
        ("rwkv4-430m", 7.573e8),
        ("rwkv4-1b5", 2.823e9),
        ("rwkv4-3b", 5.710e9),
        ("rwkv4-7b", 1.437e10),
        ("rwkv4-14b", 2.778e10),
    ],
)
def test_the_operations_of_rwkv_are_those_of_the_paper_and_of_its_state(
    name: str, flops: float
) -> None:
    kind: Any = network(name).network
    state = 4 * 2 * kind.layers * kind.hidden_size
    forward = costs.flops_per_token(network(name), 1).forward
    assert float(f"{forward - state:.3e}") == flops


def test_the_operations_of_one_layer_of_mamba_are_those_worked_by_hand() -> None:
    d, inner, rank, state = 768, 1536, 48, 16
    matrices = d * 2 * inner + 4 * inner + inner * (rank + 2 * state) + rank * inner + inner * d
    whole = 2 * (24 * matrices + 50_280 * d) + 4 * 24 * inner * state
    flops = costs.flops_per_token(network("mamba-130m"), 2048)
    assert (flops.forward, flops.training) == (whole, 3 * whole)


def test_what_a_layer_carries_from_token_to_token_is_that_of_the_release() -> None:
    # mamba_simple.py, allocate_inference_cache, whose convolution also keeps the present token; model_run.py of RWKV-4:
    # five vectors a layer; bilm-tf: cell and projected output, both ways.
    assert costs.state_bytes(network("mamba-130m"), "float32") == 24 * 1536 * (16 + 3) * 4
    assert costs.state_bytes(network("rwkv4-169m"), "float32") == 12 * 5 * 768 * 4
    assert costs.state_bytes(network("elmo-original"), "float32") == 2 * 2 * (4096 + 512) * 4
    assert costs.state_bytes(network("digits-784-16-16-10"), "float32") == 0
    assert costs.memory_bytes(network("digits-784-16-16-10"), "bfloat16") == 2 * 13_002


def test_a_network_has_no_cache_of_keys_and_is_no_spec() -> None:
    with pytest.raises(ValueError, match="mamba-130m is no Transformer: the cache a token has no"):
        costs.kv_cache_bytes_per_token(find("mamba-130m"), "float32")
    with pytest.raises(ValueError, match="is no Transformer: the cache has no meaning there"):
        costs.kv_cache_bytes(find("mamba-130m"), 10, "float32")
    with pytest.raises(NoSpec, match="it is no Transformer but a state-space network"):
        load("mamba-130m")


@pytest.mark.parametrize("name", NETWORKS)
def test_the_names_of_a_table_are_distinct(name: str) -> None:
    names = [row.name for row in parameter_table(network(name))]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("name", [name for name in NETWORKS if name.startswith(("mamba", "rwkv"))])
@pytest.mark.slow
def test_the_class_of_transformers_has_as_many_parameters(name: str) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    told = network(name).family.transformers
    assert told != "none"
    values = {key: _field(network(name), path) for key, path in told.fields.items()}
    config = getattr(transformers, told.config_class)(**values, **told.constants)
    with torch.device("meta"):
        model = getattr(transformers, told.model_class)(config)
    total = sum(parameter.numel() for parameter in model.parameters())
    assert total == count_parameters(network(name)).total


def _field(entry: Network, path: str) -> Any:
    value: Any = entry
    for part in path.split("."):
        value = getattr(value, part)
    return value


def changed(family: str, **values: Any) -> dict[str, Any]:
    document = parsed(MODELS / f"{family}.toml")
    return document | {"network": document["network"] | values}


def test_mistakes_in_a_network_are_told_by_key() -> None:
    document = changed("mamba", eps="1e-5", state=16)
    document["variants"] = [document["variants"][0] | {"layers": 3}]
    with pytest.raises(SpecError) as caught:
        entries_of(document, "mine.toml")
    keys = {error.key for error in caught.value.errors}
    assert keys == {"network.eps", "network.state", "variants[mamba-130m].layers"}


def test_a_network_cannot_be_undisclosed_nor_of_an_unknown_kind() -> None:
    with pytest.raises(SpecError, match=r"network.state_size = 'undisclosed': expected a whole"):
        entries_of(changed("mamba", state_size="undisclosed"), "mine.toml")
    with pytest.raises(SpecError, match=r"network.kind = 'mamba': expected one of"):
        entries_of(changed("mamba", kind="mamba"), "mine.toml")
