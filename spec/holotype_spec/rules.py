"""What must hold between the fields of a spec, beyond the type of each.

The rules read plain trees rather than `Spec` objects, so that they also run on a file that is wrong
elsewhere and all its mistakes can be told at once: a rule whose fields are missing or malformed is left out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from holotype_spec.errors import Problem

Tree = Mapping[str, Any]
Path = tuple[str | int, ...]
MISSING = object()


@dataclass(frozen=True, kw_only=True)
class Rule:
    """`holds` of the values at the paths `reads`; the last of these is the key that an error names.

    `expected` and `mend` are format strings over the values, each called by the last part of its path.
    """

    reads: tuple[str, ...]
    holds: Callable[..., bool]
    expected: str
    mend: str


STRUCTURE = "architecture.structure"
HEAD = "architecture.head.kind"
PATTERN = "architecture.attention.pattern.kind"
# Properties of a `Spec`.
WORKED_OUT = (
    "position_rows",
    "rotary_dim",
    "nope_head_dim",
    "embedding_size",
    "encoder_depth",
)
MIXTURE = "architecture.attention.pattern"
PAIR_TASKS = {
    "next-sentence": "next-sentence-prediction",
    "sentence-order": "sentence-order-prediction",
}

BLOCKS = "architecture.feed_forward"
ROUTING = f"{BLOCKS}.routing"

RULES = (
    Rule(
        reads=("head_dim", "architecture.attention.rope_head_dim"),
        holds=lambda head_dim, rope_head_dim: rope_head_dim < head_dim and rope_head_dim % 2 == 0,
        expected="an even number below head_dim ({head_dim})",
        mend="it is that part of a query's head that turns with the position, in pairs",
    ),
    Rule(
        reads=("architecture.attention.kind", "architecture.positions.fraction"),
        holds=lambda kind, fraction: kind != "latent" or fraction == 1,
        expected="1.0 in latent attention",
        mend="its rope_head_dim says how much of a head turns",
    ),
    Rule(
        reads=("architecture.attention.kind", "architecture.positions.kind"),
        holds=lambda attention, positions: attention != "latent" or positions == "rotary",
        expected='"rotary" in latent attention',
        mend="a part of its queries and keys is there for nothing else",
    ),
    Rule(
        reads=(f"{BLOCKS}.dense", f"{BLOCKS}.dense_after"),
        holds=lambda dense, dense_after: dense != "none" or not dense_after,
        expected='false where dense is "none"',
        mend="say of which kind the block behind the experts is",
    ),
    Rule(
        reads=(f"{BLOCKS}.experts", f"{BLOCKS}.active_experts"),
        holds=lambda experts, active_experts: active_experts <= experts,
        expected="at most the experts ({experts})",
        mend="a token uses so many of them",
    ),
    Rule(
        reads=(f"{BLOCKS}.first_layer", f"{BLOCKS}.every", f"{BLOCKS}.dense"),
        holds=lambda first_layer, every, dense: (
            (first_layer == 0 and every == 1) == (dense == "none")
        ),
        expected='"none" exactly where all layers have experts (first_layer 0, every 1)',
        mend="it is the block of the other layers",
    ),
    Rule(
        reads=(f"{BLOCKS}.dense", "ffn_size", f"{BLOCKS}.expert_size"),
        holds=lambda dense, ffn_size, expert_size: dense != "none" or expert_size == ffn_size,
        expected="ffn_size ({ffn_size}) where all layers have experts",
        mend="correct one of the two",
    ),
    Rule(
        reads=("layers", f"{BLOCKS}.first_layer"),
        holds=lambda layers, first_layer: first_layer < layers,
        expected="less than layers ({layers})",
        mend="it is the first layer with experts, counted from 0",
    ),
    Rule(
        reads=(f"{BLOCKS}.experts", f"{ROUTING}.groups"),
        holds=lambda experts, groups: experts % groups == 0,
        expected="a divisor of experts ({experts}), 1 without groups",
        mend="groups of experts are equally large",
    ),
    Rule(
        reads=(f"{ROUTING}.groups", f"{ROUTING}.active_groups"),
        holds=lambda groups, active_groups: active_groups <= groups,
        expected="at most the groups ({groups})",
        mend="experts are chosen from so many of them",
    ),
    Rule(
        reads=(
            "architecture.positions.scaling.beta_fast",
            "architecture.positions.scaling.beta_slow",
        ),
        holds=lambda beta_fast, beta_slow: beta_slow < beta_fast,
        expected="less than beta_fast ({beta_fast})",
        mend="pairs that turn more often than the one are fast, less often than the other slow",
    ),
    Rule(
        reads=("architecture.objective", HEAD),
        holds=lambda objective, kind: (
            ("multi-token-prediction" in objective) == (kind == "multi-token")
        ),
        expected='"multi-token" exactly where the objective has "multi-token-prediction"',
        mend="correct the head or the objective",
    ),
    Rule(
        reads=("heads", "kv_heads"),
        holds=lambda heads, kv_heads: heads % kv_heads == 0,
        expected="a divisor of heads ({heads})",
        mend="as many query heads share each key-value head",
    ),
    Rule(
        reads=("architecture.attention.head_dim", "hidden_size", "heads", "head_dim"),
        holds=lambda kind, hidden_size, heads, head_dim: (
            kind == "independent" or heads * head_dim == hidden_size
        ),
        expected="hidden_size / heads ({hidden_size} / {heads})",
        mend='correct one of the three, or write architecture.attention.head_dim = "independent"',
    ),
    Rule(
        reads=("architecture.feed_forward.size", "hidden_size", "ffn_size"),
        holds=lambda kind, hidden_size, ffn_size: (
            kind == "independent" or ffn_size == 4 * hidden_size
        ),
        expected="4 * hidden_size (4 * {hidden_size})",
        mend='correct it, or write architecture.feed_forward.size = "independent"',
    ),
    Rule(
        reads=("architecture.positions.fraction", "head_dim"),
        holds=lambda fraction, head_dim: (head_dim * fraction) % 2 == 0,
        expected="an even number of dimensions that turn ({fraction} of them)",
        mend="rotary positions turn the dimensions of a head in pairs",
    ),
    Rule(
        reads=(
            "architecture.positions.scaling.low_freq_factor",
            "architecture.positions.scaling.high_freq_factor",
        ),
        holds=lambda low_freq_factor, high_freq_factor: low_freq_factor < high_freq_factor,
        expected="more than low_freq_factor ({low_freq_factor})",
        mend="pairs that turn more often than the one and less often than the other go over between",
    ),
    Rule(
        reads=("architecture.positions.buckets", "architecture.positions.max_distance"),
        holds=lambda buckets, max_distance: max_distance > buckets // 2,
        expected="more than half the buckets ({buckets} / 2)",
        mend="the other half is spread over the distances from there to max_distance",
    ),
    Rule(
        reads=(STRUCTURE, PATTERN),
        holds=lambda structure, kind: (
            (structure == "encoder") == (kind in ("bidirectional", "permutation", "mixture"))
        ),
        expected='"bidirectional", "permutation" or "mixture" in an encoder, "causal" or "sliding-window" in a decoder'
        " (this is: {structure})",
        mend="the pattern is that of the stack that writes the logits",
    ),
    Rule(
        reads=(STRUCTURE, HEAD),
        holds=lambda structure, kind: (
            structure == "encoder" or kind in ("language-model", "multi-token")
        ),
        expected='"language-model" or "multi-token" in a decoder (this is: {structure})',
        mend="correct the head or the structure",
    ),
    Rule(
        reads=("architecture.residual", "architecture.normalization.final"),
        holds=lambda residual, final: not (residual in ("post-norm", "deep-norm") and final),
        expected="false under {residual}",
        mend="every block ends in a norm already",
    ),
    Rule(
        reads=(STRUCTURE, "architecture.objective"),
        holds=lambda structure, objective: ("causal-lm" in objective) <= (structure == "decoder"),
        expected='no "causal-lm" but in a decoder (this is: {structure})',
        mend="correct the objective or the structure",
    ),
    Rule(
        reads=(STRUCTURE, "architecture.objective"),
        holds=lambda structure, objective: ("masked-lm" in objective) <= (structure == "encoder"),
        expected='no "masked-lm" but in an encoder (this is: {structure})',
        mend="correct the objective or the structure",
    ),
    Rule(
        reads=("architecture.objective", "architecture.head.sentence_pair"),
        holds=lambda objective, sentence_pair: (
            {"next-sentence-prediction", "sentence-order-prediction"} & set(objective)
            == {PAIR_TASKS.get(sentence_pair)} - {None}
        ),
        expected='"next-sentence" or "sentence-order" exactly where the objective has their prediction',
        mend="correct the head or the objective",
    ),
    Rule(
        reads=("architecture.objective", PATTERN),
        holds=lambda objective, kind: ("permutation-lm" in objective) == (kind == "permutation"),
        expected='"permutation" exactly where the objective has "permutation-lm"',
        mend="correct the pattern or the objective",
    ),
    Rule(
        reads=(
            f"{MIXTURE}.bidirectional",
            f"{MIXTURE}.left_to_right",
            f"{MIXTURE}.right_to_left",
            f"{MIXTURE}.sequence_to_sequence",
        ),
        holds=lambda *shares: math.isclose(sum(shares), 1, abs_tol=1e-6),
        expected="four shares that sum to 1",
        mend="correct one of them",
    ),
    Rule(
        reads=(STRUCTURE, "architecture.encoder_layers"),
        holds=lambda structure, layers: (structure == "encoder-decoder") == (layers != "none"),
        expected='a number or "as-decoder" in an encoder-decoder, "none" elsewhere (this is: {structure})',
        mend="the layers of the stack that writes the logits are called layers",
    ),
    Rule(
        reads=("architecture.positions.terms",),
        holds=lambda terms: 0 < len(set(terms)) == len(terms),
        expected="one or two terms, each once",
        mend="delete the repetition, or name one",
    ),
    Rule(
        reads=("architecture.objective",),
        holds=lambda objective: len(set(objective)) == len(objective),
        expected="each objective once",
        mend="delete the repetition",
    ),
    Rule(
        reads=(STRUCTURE, "architecture.decoder_start_id"),
        holds=lambda structure, start: (structure == "encoder-decoder") == (start != "none"),
        expected='a token id in an encoder-decoder, "none" elsewhere (this is: {structure})',
        mend="it is the token that a decoder with a source reads first",
    ),
    Rule(
        reads=("vocab_size", "architecture.decoder_start_id"),
        holds=lambda vocab_size, start: isinstance(start, str) or start < vocab_size,
        expected="less than vocab_size ({vocab_size})",
        mend="it is one of the tokens",
    ),
    Rule(
        reads=("vocab_size", "architecture.padding_id"),
        holds=lambda vocab_size, padding: padding == "none" or padding < vocab_size,
        expected="less than vocab_size ({vocab_size})",
        mend="it is one of the tokens",
    ),
    Rule(
        reads=("architecture.dropout.rate", "architecture.dropout.sites"),
        holds=lambda rate, sites: (rate > 0) == (len(sites) > 0),
        expected="sites exactly where the rate is above 0 (it is {rate})",
        mend="correct the rate or the sites",
    ),
    Rule(
        reads=("architecture.dropout.sites",),
        holds=lambda sites: len(set(sites)) == len(sites),
        expected="each site once",
        mend="delete the repetition",
    ),
    Rule(
        reads=("architecture.dropout.sites",),
        holds=lambda sites: not {"residual", "feed-forward-output"} <= set(sites),
        expected='no "feed-forward-output" beside "residual", which has it in it',
        mend="delete one of the two",
    ),
    Rule(
        reads=("architecture.attention.biases",),
        holds=lambda biases: len(set(biases)) == len(biases),
        expected="each projection once",
        mend="delete the repetition",
    ),
)


def broken_rules(
    document: Tree,
    trees: Mapping[int, Tree],
    file: str,
    *,
    damaged: Collection[Path] = (),
) -> list[Problem]:
    """Every rule that the document breaks.

    Args:
        document: the parsed file.
        trees: the trees of `Spec` of its variants, by their index in the file.
        file: how errors call the file.
        damaged: paths in the file that are known to be wrong; a rule that reads one is left out.
    """
    problems = list(_of_the_file(document, file))
    for index, tree in trees.items():
        sound = Sound(document, index, tree, damaged)
        problems += _of_a_variant(sound, file)
    return list({str(problem): problem for problem in problems}.values())


def key_of(document: Tree, path: Path) -> str:
    """The path inside a file as errors write it, a variant by its name."""
    parts: list[str] = []
    node: Any = document
    for part in path:
        node = _child(node, part)
        if isinstance(part, str):
            parts.append(part)
        else:
            name = node.get("name") if isinstance(node, dict) else None
            parts[-1] += f"[{name if isinstance(name, str) else part}]"
    return ".".join(parts)


def _child(node: Any, part: str | int) -> Any:
    if isinstance(node, dict):
        return node.get(part, MISSING)
    in_range = isinstance(node, list) and isinstance(part, int) and part < len(node)
    return node[part] if in_range else MISSING


def at(node: Any, path: Path) -> Any:
    """What stands at the path, or `MISSING`."""
    for part in path:
        node = _child(node, part)
    return node


@cache
def _parts(dotted: str) -> Path:
    return tuple(dotted.split("."))


def _nodes(tree: Tree) -> dict[Path, Any]:
    """Everything that stands in the tree, tables included, by its path."""
    found: dict[Path, Any] = {}
    waiting: list[tuple[Path, Tree]] = [((), tree)]
    while waiting:
        path, table = waiting.pop()
        for key, value in table.items():
            found[*path, key] = value
            if isinstance(value, dict):
                waiting.append(((*path, key), value))
    return found


class Sound:
    """The values of one variant that are not known to be wrong, and where in the file they stand."""

    def __init__(
        self,
        document: Tree,
        index: int,
        tree: Tree,
        damaged: Collection[Path],
    ) -> None:
        self.document, self.index, self.tree, self.damaged = document, index, tree, damaged
        self._nodes = _nodes(tree)

    def place(self, path: Path) -> Path:
        """Where in the file the value comes from: the variant, or what it shares with its family.

        What a variant inherits from a model that it derives from stands elsewhere, and is told as its own.
        """
        if path[0] == "family":
            return path
        shared = path[0] in ("architecture", "network") and at(self._variant(), path) is MISSING
        derived = "derives_from" in self._variant()
        return path if shared and not derived else ("variants", self.index, *path)

    def values(self, reads: tuple[str, ...]) -> list[Any] | None:
        paths = [_parts(dotted) for dotted in reads]
        values = [self._nodes.get(path, "undisclosed") for path in paths]
        if "undisclosed" in values:
            return None
        return None if self.damaged and any(map(self.is_damaged, paths)) else values

    def _variant(self) -> Any:
        return self.document["variants"][self.index]

    def is_damaged(self, path: Path) -> bool:
        """Whether the value, a part of it or a table that it stands in is known to be wrong."""
        place = self.place(path)
        return any(
            place[: len(other)] == other or other[: len(place)] == place for other in self.damaged
        )


def _of_a_variant(sound: Sound, file: str) -> Iterator[Problem]:
    for rule in RULES:
        values = sound.values(rule.reads)
        if values is not None and not rule.holds(*values):
            named = {
                dotted.split(".")[-1]: value
                for dotted, value in zip(rule.reads, values, strict=True)
            }
            place = sound.place(_parts(rule.reads[-1]))
            yield Problem(
                file=file,
                key=key_of(sound.document, place),
                value=values[-1],
                expected=rule.expected.format(**named),
                mend=rule.mend.format(**named),
            )
    yield from _unknown_source(sound, file)
    yield from _unknown_paths(sound, file)


def _unknown_source(sound: Sound, file: str) -> Iterator[Problem]:
    sources = sound.values(("family.sources",))
    if sources is None:
        return
    ids = [source["id"] for source in sources[0]]
    for path in _cited(sound.tree):
        cited = at(sound.tree, path)
        if not sound.is_damaged(path) and cited not in ids:
            yield Problem(
                file=file,
                key=key_of(sound.document, sound.place(path)),
                value=cited,
                expected=f"the id of one of family.sources: {', '.join(ids)}",
                mend="correct the id or add the source",
            )


def _cited(tree: Tree) -> Iterator[Path]:
    """The paths of the ids of sources."""
    stated = tree.get("stated")
    parts = range(len(stated) if isinstance(stated, list) else 0)
    places: list[Path] = [("parameters",), *(("stated", part) for part in parts)]
    for place in places:
        if isinstance(at(tree, (*place, "source")), str):
            yield (*place, "source")


def _unknown_paths(sound: Sound, file: str) -> Iterator[Problem]:
    """The paths of our fields in ``family.transformers.fields`` must lead to a plain value."""
    values = sound.values(("family.transformers.fields",))
    if values is None:
        return
    inherited = at(sound.document, ("family", "transformers")) is MISSING
    known = [*_plain_paths(sound.tree), *WORKED_OUT]
    for key, path in values[0].items():
        if path in known or _is_undisclosed(sound.tree, path):
            continue
        if not sound.is_damaged(tuple(path.split("."))):
            yield Problem(
                file=file,
                key=f"family.transformers.fields.{key}",
                value=path,
                expected="the path of a field of the spec that has a plain value",
                mend='inherited; write the family\'s own, or transformers = "none"'
                if inherited
                else nearest(path, known) or "correct the path",
            )


def _is_undisclosed(tree: Tree, path: str) -> bool:
    """Whether the path leads into a mechanism that is undisclosed."""
    parts = _parts(path)
    return any(at(tree, parts[:end]) == "undisclosed" for end in range(1, len(parts)))


def _plain_paths(tree: Tree, prefix: str = "") -> Iterator[str]:
    for key, value in tree.items():
        if isinstance(value, dict) and key not in ("family", "parameters"):
            yield from _plain_paths(value, f"{prefix}{key}.")
        elif isinstance(value, bool | int | float | str) and prefix + key != "name":
            yield prefix + key


def nearest(word: str, known: Collection[str]) -> str | None:
    """ "did you mean …?", or None where nothing is near."""
    from difflib import get_close_matches

    near = get_close_matches(word, known, n=1)
    return f'did you mean "{near[0]}"?' if near else None


def _of_the_file(document: Tree, file: str) -> Iterator[Problem]:
    yield from _unused(document, file)
    yield from _repeated(document, file, ("family", "sources"), "id")
    yield from _repeated(document, file, ("variants",), "name", "aliases")
    yield from _infinite(document, document, file, ())
    yield from _told_twice(document, file)


def _unused(document: Tree, file: str) -> Iterator[Problem]:
    """What variants share is of no use where each of them derives from another model."""
    rows = document.get("variants")
    derived = [
        isinstance(row, dict) and "derives_from" in row
        for row in (rows if isinstance(rows, list) else [])
    ]
    for whole in ("architecture", "network"):
        if derived and all(derived) and whole in document:
            yield Problem(
                file=file,
                key=whole,
                value=None,
                expected=f"no {whole} where every variant derives from another model",
                mend=f"move it into the variants, as variants.{whole}",
            )


def _repeated(document: Tree, file: str, path: Path, *keys: str) -> Iterator[Problem]:
    rows = at(document, path)
    seen: set[str] = set()
    for index, row in enumerate(rows if isinstance(rows, list) else []):
        for key in keys:
            for value in _strings(_child(row, key)):
                if value in seen:
                    yield Problem(
                        file=file,
                        key=key_of(document, (*path, index, key)),
                        value=value,
                        expected=f"{' and '.join(keys)} that no other entry has",
                        mend="rename one of them",
                    )
                seen.add(value)


def _strings(value: Any) -> list[str]:
    values = value if isinstance(value, list) else [value]
    return [each for each in values if isinstance(each, str)]


def _infinite(document: Tree, node: Any, file: str, path: Path) -> Iterator[Problem]:
    if isinstance(node, float) and not math.isfinite(node):
        yield Problem(
            file=file,
            key=key_of(document, path),
            value=node,
            expected="a finite number",
            mend="write the number that the source gives",
        )
    children: list[tuple[str | int, Any]] = []
    if isinstance(node, dict):
        children = list(node.items())
    elif isinstance(node, list):
        children = list(enumerate(node))
    for part, child in children:
        yield from _infinite(document, child, file, (*path, part))


def _told_twice(document: Tree, file: str) -> Iterator[Problem]:
    """A key of their configuration is a field, a constant or absent, and a plain value or a table."""
    told: list[str] = []
    for table in ("fields", "constants", "absent"):
        for key, value in _keys_told(at(document, ("family", "transformers", table))):
            clash = [other for other in told if _one_inside_the_other(key, other)]
            if clash:
                yield Problem(
                    file=file,
                    key=f"family.transformers.{table}.{key}",
                    value=value,
                    expected=f"a key that is not already given by {clash[0]}",
                    mend="delete one of the two",
                )
            told.append(key)


def _keys_told(entries: Any) -> list[tuple[str, Any]]:
    if isinstance(entries, dict):
        return list(entries.items())
    return [(key, None) for key in _strings(entries)]


def _one_inside_the_other(key: str, other: str) -> bool:
    return f"{key}.".startswith(f"{other}.") or f"{other}.".startswith(f"{key}.")
