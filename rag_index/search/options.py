"""The options of a search. Each is described once, with its bounds and its text, as an annotated
type.

Python (`Retriever.search`), HTTP, the tools of agents and the command line use these types. Their
JSON schemas, checks and help texts all come from this module.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, TypedDict

from pydantic import BaseModel, ConfigDict, Field, ValidationError, WithJsonSchema
from pydantic.json_schema import SkipJsonSchema

from rag_index.errors import SettingsError
from rag_index.search.access import Groups  # noqa: TC001 - looked up by name
from rag_index.search.filters import Filter  # noqa: TC001

MAX_HITS, DEFAULT_LIMIT = 1000, 10
"""Documents of an answer: the most, and the default."""
MAX_INDEXES, MAX_CHARS = 1000, 10_000
"""Limits of a request: indexes in a list, and characters of a query. Chosen; nothing depends on
them."""
Nothing = SkipJsonSchema[None]
"""The type of an option without a value, which does not appear in a schema."""

_Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
_FieldName = Annotated[str, Field(min_length=1, max_length=200)]

Indexes = Annotated[
    Annotated[list[str], Field(max_length=MAX_INDEXES)] | Nothing,
    Field(
        description="The indexes to search; by default all.", examples=[["comments", "solutions"]]
    ),
]
Limit = Annotated[
    int, Field(ge=1, le=MAX_HITS, description="The maximum number of documents, by default 10.")
]
Offset = Annotated[
    int,
    Field(
        ge=0,
        lt=MAX_HITS,
        description=(
            "How many of the best documents to leave out: `next_offset` of the answer before, with"
            " all else as it was."
        ),
    ),
]
Timeout = Annotated[
    Annotated[float, Field(gt=0, allow_inf_nan=False)] | Nothing,
    Field(description="The time limit of the search, in seconds; by default that of `[retrieve]`."),
]
DenseWeight = Annotated[
    _Share | Nothing,
    Field(
        description="The weight of meaning against words: 1 for meaning alone, 0 for words alone."
    ),
]
Rerank = Annotated[
    bool | Nothing,
    Field(
        description=(
            "Whether the reranker of the settings reorders the best hits, which takes longer; by"
            " default it does."
        )
    ),
]
MinRelevance = Annotated[
    _Share | Nothing,
    Field(description="Leave out documents of a lower relevance, from 0 to 1, such as 0.5."),
]
Collapse = Annotated[
    _FieldName | Nothing,
    Field(
        description=(
            'Collapse documents with the same value of this field, or the same "text", into the'
            " best of them."
        )
    ),
]
Order = Annotated[
    _FieldName | Nothing,
    Field(
        description=(
            "A field in whose order the documents that fit are returned; after a minus the newest"
            " or greatest first."
        ),
        examples=["-updated_at"],
    ),
]
Exact = Annotated[
    bool,
    Field(
        description="Whether to search for the words as they are, without correcting typing errors."
    ),
]
MaxAge = Annotated[
    Annotated[float | str, WithJsonSchema({"type": ["number", "string"]})] | Nothing,
    Field(
        description=(
            'The maximum age of the indexes, such as "10 s". If one is older, or its age is'
            " unknown, the search fails."
        ),
        examples=["10 s"],
    ),
]
Like = Annotated[
    Annotated[str, Field(max_length=MAX_CHARS)] | Nothing,
    Field(
        description="A document as INDEX/ID, in place of a query, to find others like it.",
        examples=["comments/4711"],
    ),
]


class SearchOptions(TypedDict, total=False):
    """The options of a search in Python: those of HTTP, with more types for the first three."""

    indexes: Sequence[str] | None
    """The indexes to search, in any sequence; by default all."""
    filter: Filter | None
    """The payload fields that a document must match, such as `{"priority": "high"}` or
    `"priority=high"`. An index's `required_filter` applies in any case."""
    groups: Groups
    """The groups of the caller. An index with `access` answers with documents that one of them may
    see, and with nothing to a caller without groups; `ALL_GROUPS` sees all. A `Caller` in their
    place has a role and claims too, for which a database with `access = "database"` is asked."""
    limit: Limit
    offset: Offset
    timeout: Timeout
    dense_weight: DenseWeight
    rerank: Rerank
    min_relevance: MinRelevance
    collapse: Collapse
    order: Order
    exact: Exact
    max_age: MaxAge
    like: Like


class AgentOptions(BaseModel):
    """The options of a search that agents and programs have."""

    indexes: Indexes = None
    limit: Limit = DEFAULT_LIMIT
    offset: Offset = 0
    rerank: Rerank = None
    min_relevance: MinRelevance = None
    collapse: Collapse = None
    order: Order = None
    exact: Exact = False
    max_age: MaxAge = None
    like: Like = None


class ProgramOptions(AgentOptions):
    """The options of a search over HTTP and on the command line."""

    timeout: Timeout = None
    dense_weight: DenseWeight = None


class PythonOptions(ProgramOptions):
    """The options of `Retriever.search`. The options of type Any are checked where they are used."""

    model_config = ConfigDict(extra="forbid")

    indexes: Any = None
    filter: Any = None
    groups: Any = None

    @classmethod
    def of(cls, options: SearchOptions) -> PythonOptions:
        """Return the checked options.

        Raises SettingsError for an option that does not exist or is out of bounds.
        """
        try:
            return cls.model_validate(options)
        except ValidationError as exc:
            fault = exc.errors()[0]
            raise SettingsError(f"{fault['loc'][0]}: {fault['msg']}") from None
