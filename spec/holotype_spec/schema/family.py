"""The head of a spec file: sources, published counts, and what other libraries call the model."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from holotype_spec.schema.values import Count, Name, Strict


class Source(Strict):
    """A source of values."""

    id: Name
    title: str
    url: Annotated[str, msgspec.Meta(pattern="^https?://", description="a web address")]


class PublishedCount(Strict):
    """The parameter count that a source prints, in its own words, and why ours differs where it does."""

    published: str
    source: Name
    note: str | None = None


class Difference(Strict):
    """A known difference between a class of another library and the model that it is named after.

    `field` is the path of what differs. Where the spec has `stated` there, the class has `theirs`; neither is given
    where no field of ours tells the difference. `told` is passed to its configuration, so that nothing else of the
    difference is left. All else is then compared with the reference of the spec that the class does implement.
    """

    field: str
    reason: Annotated[str, msgspec.Meta(min_length=1, description="a sentence")]
    stated: Any = None
    theirs: Any = None
    told: dict[str, bool | int | float | str] = msgspec.field(default_factory=dict)


class Transformers(Strict):
    """The class of Hugging Face `transformers` that is this model, and its configuration in our terms.

    `fields` gives for a key of their configuration the path of our field ("layers",
    "architecture.normalization.eps"); `constants` what the family implies and their configuration
    must be given; `absent` the keys that must be null there, which TOML cannot write. A dotted key stands
    for a nested one: "rope_parameters.rope_theta" is the entry "rope_theta" of their dictionary
    "rope_parameters". Their `position_ids` are positions, counted from 0, or the rows of the position
    table, offset included. `differences` are those that are known between the class and the model.
    """

    config_class: str
    model_class: str
    absent: tuple[str, ...]
    position_ids: Literal["positions", "rows"]
    fields: dict[str, str]
    constants: dict[str, bool | int | float | str]
    differences: tuple[Difference, ...] = ()

    def __hash__(self) -> int:
        return hash((self.config_class, self.model_class, *sorted(self.fields.items())))


# What a generic spec can promise, and a property or a builder may then rely on: the paths of fields of a `Spec`.
Binding = Literal[
    "vocab_size",
    "max_positions",
    "architecture.structure",
    "architecture.objective",
    "architecture.decoder_start_id",
    "architecture.padding_id",
    "architecture.attention.pattern",
    "architecture.positions",
    "architecture.token_types",
    "architecture.dropout",
]


class StatedPart(Strict):
    """A part of a model of which a source states nothing but its size.

    There are `number` such parts of `parameters` each, and a token passes through `active` of them.
    """

    component: str
    parameters: Annotated[int, msgspec.Meta(ge=1, description="a whole number, at least 1")]
    number: Count
    active: Count
    source: Name


class Family(Strict):
    """The head of a spec file.

    `checkpoint` is the table of the published names of its weights, "none" where there is none here;
    `transformers` is "none" where that library has no class for it.

    `binding` is what the members promise. A model is all that its spec says, so a family of models binds "all",
    and need not say so. A generic family is no model but a kind of model: it binds the fields that it lists, and all
    others are hints to whoever builds one.
    """

    name: Name
    title: str
    sources: Annotated[tuple[Source, ...], msgspec.Meta(min_length=1)]
    checkpoint: Name
    transformers: Transformers | Literal["none"]
    binding: tuple[Binding, ...] | Literal["all"] = "all"

    @property
    def generic(self) -> bool:
        """Whether its members are kinds of models, and most of their fields hints."""
        return self.binding != "all"

    def binds(self, field: Binding) -> bool:
        """Whether the members promise this field."""
        return self.binding == "all" or field in self.binding
