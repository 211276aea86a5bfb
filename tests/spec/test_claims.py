"""Claims: their files, what they are judged by, and what the five documents get wrong."""

from __future__ import annotations

import contextlib
import copy
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holotype_spec import SpecError
from holotype_spec.claims import Judgement, audit, audit_all, counts
from holotype_spec.claims.audit import FOLDER, judge
from holotype_spec.claims.files import checked as check_claims
from holotype_spec.claims.files import read
from holotype_spec.claims.schema import Unit
from holotype_spec.facts import FOLDER as FACTS
from holotype_spec.facts import KINDS, facts_of
from holotype_spec.facts import checked as check_facts
from holotype_spec.facts import read as read_facts
from holotype_spec.figures import UNITS

# Files of claims -------------------------------------------------------------------------------------------

HEAD = '[document]\nid = "mine"\ntitle = "Mine"\nnumber = 9\n'


def written(folder: Path, text: str) -> Path:
    path = folder / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return path


def passage(*claims: str, line: int = 1, models: str = '["gpt2"]') -> str:
    inner = "".join(f"    {{ {each} }},\n" for each in claims)
    return f'[[passages]]\nline = {line}\nsection = "s"\nmodels = {models}\nclaims = [\n{inner}]\n'


def judgements(folder: Path, *claims: str, models: str = '["gpt2"]') -> tuple[Judgement, ...]:
    return audit(written(folder, HEAD + passage(*claims, models=models))).judgements


def test_a_claim_is_judged_by_the_spec_its_arithmetic_and_the_facts(tmp_path: Path) -> None:
    layers, count, released = judgements(
        tmp_path,
        'field = "layers", value = 13, quote = "13"',
        'field = "parameters", value = "1.24", unit = "亿", quote = "1.24"',
        'field = "facts.released", value = "2019-02", quote = "2019"',
    )
    assert (layers.verdict, layers.stated, layers.computed) == ("contradicted", "13", "12")
    assert layers.sentence == "The document says 13; the layers of gpt2: 12."
    assert (count.verdict, count.stated, count.computed) == ("rounds", "1.24 亿", "1.244 亿")
    assert (released.verdict, released.sentence) == ("exact", "")
    assert [each.id for each in (layers, count, released)] == [
        "mine:1:gpt2:layers",
        "mine:1:gpt2:parameters",
        "mine:1:gpt2:facts.released",
    ]


def test_a_count_may_leave_out_the_pretraining_heads(tmp_path: Path) -> None:
    # 355,412,057 in total would round to 3.6, the 354,310,144 of the backbone to 3.5.
    (count,) = judgements(
        tmp_path,
        'field = "parameters", value = "3.5", unit = "亿", quote = "3.5"',
        models='["roberta-large"]',
    )
    assert (count.verdict, count.computed) == ("rounds", "3.543 亿")


def test_a_near_count_that_its_own_source_prints_is_told_as_such(tmp_path: Path) -> None:
    (count,) = judgements(
        tmp_path,
        'field = "parameters", value = "1.17", unit = "亿", quote = "1.17"',
    )
    assert count.verdict == "near"
    assert count.sentence.endswith("Its own source prints 117M (radford2019).")


def test_the_worst_of_several_models_decides_and_is_named(tmp_path: Path) -> None:
    (layers,) = judgements(
        tmp_path, 'field = "layers", value = 12, quote = "12"', models='["gpt-1", "gpt2*"]'
    )
    assert layers.models == ("gpt-1", "gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl")
    assert (layers.verdict, layers.model, layers.computed) == ("contradicted", "gpt2-medium", "24")


def test_quotients_and_sums_are_computed(tmp_path: Path) -> None:
    times, more, total = judgements(
        tmp_path,
        'field = "layers", value = "2", unit = "times", relative_to = "gpt2", quote = "2"',
        'field = "heads", value = "3", unit = "times-more", relative_to = "gpt2", quote = "3"',
        'models = ["gpt2", "gpt2-medium"], field = "layers", value = 36, total = true, quote = "36"',
        models='["gpt2-medium"]',
    )
    assert (times.verdict, times.computed) == ("exact", "2 times")
    assert (more.verdict, more.computed) == ("contradicted", "0.333 times more")
    assert (total.verdict, total.model) == ("exact", "gpt2 + gpt2-medium")


def test_a_sum_or_quotient_with_something_undisclosed_is_undecidable(tmp_path: Path) -> None:
    total, times = judgements(
        tmp_path,
        'models = ["gpt2", "gpt-4"], field = "parameters", value = "2", unit = "T", total = true, quote = "2"',
        'field = "parameters", value = "9", unit = "times", relative_to = "gpt-4", quote = "9"',
    )
    assert (total.verdict, times.verdict) == ("undecidable", "undecidable")
    assert times.computed == "undisclosed"


def test_every_unit_of_a_claim_is_a_unit_of_figures() -> None:
    assert set(get_args(Unit)) == set(UNITS)


def test_a_constant_that_another_mechanism_has_contradicts(tmp_path: Path) -> None:
    (theta,) = judgements(
        tmp_path, 'field = "architecture.positions.theta", value = 10000, quote = "10000"'
    )
    assert (theta.verdict, theta.computed) == ("contradicted", "nothing")


MISTAKES = HEAD + "".join(
    (
        passage(
            'field = "layers", value = 12, quote = "12", colour = "red"',  # no such key
            'field = "layers", value = 12.5, quote = "12"',  # no such type
            'field = "layers", value = 12, quote = ""',
            'field = "layers", value = 12',  # no quote
            'field = "layers", value = "12", unit = "parsec", quote = "12"',
            'field = "layers", value = 12, relation = "about", quote = "12"',
            'field = "layer", value = 12, quote = "12"',
            'field = "facts.colour", value = "red", quote = "red"',
            'field = "facts.languages", value = 3, quote = "3"',  # of GPT-2 nobody recorded it
            'field = "facts.corpus", value = "40", unit = "亿", quote = "40"',  # bytes
            'field = "facts.corpus", value = 40, unit = "GB", quote = "40"',  # not as it is printed
            'field = "heads", value = "twelve", quote = "12"',
            'field = "architecture.residual", value = 3, quote = "3"',
            'field = "heads", value = "2", unit = "times", quote = "2"',  # of what?
            'field = "hidden_size", value = 768, relative_to = "gpt9", quote = "768"',
            line=7,
        ),
        passage(
            'field = "architecture.residual", value = "pre-norm", total = true, quote = "pre"',
            'field = "token_types", value = "2", unit = "times", relative_to = "gpt2", quote = "2"',
            'field = "architecture.token_types", value = "2", unit = "times", relative_to = "gpt2",'
            ' quote = "2"',
            'field = "layers", value = "2", unit = "times", relative_to = "gpt2*", quote = "2"',
            'field = "facts.corpus", value = "2", unit = "times", relative_to = "yi-6b", quote = "2"',
            line=7,
        ),
        passage('field = "layers", value = 12, quote = "12"', models='["gpt-2"]', line=5),
        passage('models = ["lama-*"], field = "layers", value = 12, quote = "12"', line=9),
        passage(
            'field = "layers", value = 12, quote = "12"',
            'field = "layers", value = 13, quote = "13"',
            line=9,
        ),
    )
)


@pytest.mark.parametrize(
    "told",
    [
        "passages[0].claims[0].colour = 'red': expected one of the keys",
        "passages[0].claims[1].value = 12.5",
        "passages[0].claims[2].quote = ''",
        "passages[0].claims[3].quote: expected a value",
        "passages[0].claims[4].unit = 'parsec'",
        "passages[0].claims[5].relation = 'about'",
        "passages[0].claims[6].field = 'layer': expected a field, a quantity or a fact; did you mean \"layers\"?",
        "passages[0].claims[7].field = 'facts.colour': expected a field, a quantity or a fact",
        "passages[0].claims[8].field = 'facts.languages': expected a fact that is recorded of gpt2",
        "passages[0].claims[9].value = '40 亿': expected a number, with one of the units GB, TB",
        "passages[0].claims[10].value = '40 GB'",
        "passages[0].claims[11].value = 'twelve': expected a number",
        "passages[0].claims[12].value = '3': expected a word",
        "passages[0].claims[13].unit = 'times': expected one of the units times, times-more exactly",
        "passages[0].claims[14].relative_to = 'gpt9': expected a model of the catalogue",
        "passages[1].claims[0].field = 'architecture.residual': expected a number to sum or divide",
        "passages[1].claims[1].field = 'token_types'",
        "passages[1].claims[2].relative_to = 'gpt2': expected a model whose architecture.token_types is not 0",
        "passages[1].claims[3].relative_to = 'gpt2*': expected a model of the catalogue",
        "passages[1].claims[4].field = 'facts.corpus': expected a fact that is recorded of yi-6b",
        "passages[2].line = 5: expected 7 or more",
        "passages[2].models = 'gpt-2': expected a model of the catalogue, or a pattern",
        "passages[3].claims[0].models = 'lama-*'",
        "passages[4].claims[1] = 'layers': expected each claim of a line once",
    ],
)
def test_each_mistake_of_a_file_of_claims_is_told_with_all_the_others(
    tmp_path: Path, told: str
) -> None:
    with pytest.raises(SpecError) as caught:
        read(written(tmp_path, MISTAKES))
    assert told in str(caught.value)
    assert "did you mean" in str(caught.value)


def test_a_file_that_is_no_toml_is_told(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"mine\.toml: expected a TOML file"):
        read(written(tmp_path, "= ="))


# Facts -----------------------------------------------------------------------------------------------------


def test_a_fact_has_its_source_and_is_counted_in_ones() -> None:
    corpus = facts_of("bert-base-uncased")["corpus"]
    assert corpus.value == 16_000_000_000
    assert corpus.source.id == "liu2019"
    assert facts_of("no such model") == {}


def test_no_document_is_a_source_of_its_own_facts() -> None:
    pages = {each.document.url for each in audit_all()} - {None}
    known = [fact for path in FACTS.glob("*.toml") for _, fact in read_facts(path)]
    assert known
    assert not pages & {fact.source.url for fact in known}


def test_no_kind_of_fact_is_without_a_fact() -> None:
    known = {fact.name for path in FACTS.glob("*.toml") for _, fact in read_facts(path)}
    assert known == set(KINDS)


def test_all_mistakes_of_a_file_of_facts_are_told(tmp_path: Path) -> None:
    facts = (
        '{ models = ["gpt2"], fact = "corpus", value = 40, unit = "亿", source = "s", at = "1" }',
        '{ models = ["gpt-2"], fact = "released", value = "2019", source = "s", at = "1" }',
        '{ models = ["gpt2"], fact = "corpse", value = 40, source = "s", at = "1" }',
        '{ models = ["gpt2"], fact = "epochs", value = 40, source = "t", at = "1" }',
        '{ models = ["gpt2*"], fact = "epochs", value = 41, source = "s", at = "1" }',
        '{ models = ["gpt2"], fact = "languages", value = 40, source = "s" }',
    )
    source = '{ id = "s", title = "S", url = "https://example.org" }'
    text = f"sources = [{source}]\nfacts = [{','.join(facts)}]\n"
    with pytest.raises(SpecError) as caught:
        read_facts(written(tmp_path, text))
    told = str(caught.value)
    for part in (
        "facts[0].value = '40 亿': expected a number, with one of the units GB, TB",
        "facts[1].models = 'gpt-2'",
        "facts[2].fact = 'corpse': expected a fact that is known by name; did you mean \"corpus\"?",
        "facts[3].source = 't'",
        "facts[4].fact = 'epochs': expected each fact of a model once",
        "facts[5].at: expected a value",
    ):
        assert part in told


# Any file at all -------------------------------------------------------------------------------------------

ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(
        ["gpt2", "gpt-4", "layers", "facts.corpus", "style", "times", "0", "at-least"]
    ),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)
CLAIMS = {
    "document": {"id": "mine", "title": "Mine", "number": 9},
    "passages": [
        {
            "line": 1,
            "section": "s",
            "models": ["gpt2"],
            "claims": [
                {"field": "parameters", "value": "1.24", "unit": "亿", "quote": "1.24"},
                {"field": "architecture.objective", "value": ["causal-lm"], "quote": "next"},
                {"field": "facts.released", "value": "2019", "quote": "2019"},
                {
                    "models": ["gpt2-xl"],
                    "field": "layers",
                    "value": "4",
                    "unit": "times",
                    "relative_to": "gpt2",
                    "quote": "four",
                },
            ],
        }
    ],
}
KNOWN = {
    "sources": [{"id": "s", "title": "S", "url": "https://example.org"}],
    "facts": [
        {"models": ["gpt2"], "fact": "corpus", "value": 4, "unit": "GB", "source": "s", "at": "1"}
    ],
}


def places(tree: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) of a tree."""
    keys = (
        list(tree) if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ()
    )
    return [place for key in keys for place in ((tree, key), *places(tree[key]))]


def judge_all(document: Any, file: str) -> None:
    made = check_claims(document, file)
    for passage_ in made.passages:
        for each in passage_.claims:
            judge(each, passage_, made.document.id)


@pytest.mark.parametrize(("tree", "check"), [(CLAIMS, judge_all), (KNOWN, check_facts)])
@settings(deadline=None)
@given(data=st.data())
@pytest.mark.slow
def test_a_file_with_anything_anywhere_is_sound_or_a_spec_error(
    tree: Any, check: Any, data: st.DataObject
) -> None:
    document = copy.deepcopy(tree)
    check(copy.deepcopy(document), "mine.toml")
    container, key = data.draw(st.sampled_from(places(document)))
    container[key] = data.draw(ANYTHING)
    with contextlib.suppress(SpecError):
        check(document, "mine.toml")


# The five documents ----------------------------------------------------------------------------------------

CONTRADICTED = {
    "zju-notes:190:bert-base-uncased:facts.mask_draws",
    "zju-notes:190:roberta-base:facts.mask_draws",
    "zju-notes:210:albert-xlarge-v2:layers",
    "zju-notes:224:electra-base-generator:hidden_size",
    "zju-notes:224:electra-base-generator:heads",
    "zju-notes:224:electra-base-generator:parameters",
    "zju-notes:225:electra-large-generator:hidden_size",
    "zju-notes:225:electra-large-generator:heads",
    "zju-notes:225:electra-large-generator:parameters",
    "zju-notes:237:electra-large-discriminator:parameters",
    "zju-notes:242:roberta-base:parameters",
    "zju-notes:244:electra-base-discriminator:parameters",
    "zju-notes:244:electra-large-discriminator:parameters",
    "zju-notes:322:mbart-large-cc25:facts.released",
    "zju-notes:322:mbart-large-50:parameters",
    "zju-notes:398:gpt3-1.3b:heads",
    "family-map:37:gpt2:vocab_size",
    "family-map:67:codex-12b:facts.released",
    "family-map:85:gpt3-*:architecture.feed_forward.activation",
    "family-map:91:alpaca-7b:derives_from",
    "family-map:117:flan-palm-540b:derives_from",
    "course-notes:14:gpt-1:architecture.positions.kind",
    "course-notes:19:gpt-1:architecture.residual",
    "course-notes:55:gpt-1:hidden_size",
    "course-notes:56:gpt2-xl:hidden_size",
    "course-notes:57:gpt3-175b:hidden_size",
    "course-notes:123:llama-7b:parameters",
    "course-notes:137:glm-base:architecture.residual",
    "course-notes:141:gpt-1:architecture.feed_forward.activation",
    "course-notes:167:chatglm2-6b:architecture.objective:includes",
    "course-notes:171:glm-4-9b:facts.training_tokens",
    "principles-essay:198:gpt3-175b:facts.corpus",
    "principles-essay:241:gpt3-175b:facts.released",
    "principles-essay:248:elmo-original:style",
    "principles-essay:248:xlnet-base-cased:style",
    "decoder-notes:106:gpt-1:facts.loss_signs",
    "decoder-notes:194:llama-7b:facts.gate_place",
    "decoder-notes:194:gpt-1:architecture.feed_forward.activation",
    "decoder-notes:196:llama-7b:architecture.feed_forward.activation",
}


@pytest.fixture(scope="module")
def all_judgements() -> tuple[Judgement, ...]:
    return tuple(each for one in audit_all() for each in one.judgements)


def test_exactly_the_known_mistakes_of_the_documents_are_contradicted(
    all_judgements: tuple[Judgement, ...],
) -> None:
    found = {each.id for each in all_judgements if each.verdict == "contradicted"}
    assert found == CONTRADICTED


def test_every_claim_of_every_document_is_judged_once_and_counted(
    all_judgements: tuple[Judgement, ...],
) -> None:
    files = [read(path) for path in FOLDER.glob("*.toml")]
    claimed = sum(len(each.claims) for file in files for each in file.passages)
    assert len(all_judgements) == claimed
    assert sum(counts(all_judgements).values()) == claimed
    numbers = [each.document.number for each in audit_all()]
    assert numbers == list(range(len(files)))


def test_no_two_claims_have_the_same_id(all_judgements: tuple[Judgement, ...]) -> None:
    ids = [each.id for each in all_judgements]
    assert len(ids) == len(set(ids))


def test_every_contradiction_is_explained_and_no_explanation_outlives_it() -> None:
    for path in FOLDER.glob("*.toml"):
        file, judged_ = read(path), audit(path).judgements
        claims = [each for passage in file.passages for each in passage.claims]
        for each, verdict in zip(claims, judged_, strict=True):
            if verdict.verdict == "contradicted":
                assert each.explanation, verdict.id
            if verdict.verdict in ("exact", "rounds"):
                assert each.explanation is None, verdict.id


def test_a_file_of_claims_is_called_like_its_document() -> None:
    assert {read(path).document.id for path in FOLDER.glob("*.toml")} == {
        path.stem for path in FOLDER.glob("*.toml")
    }
