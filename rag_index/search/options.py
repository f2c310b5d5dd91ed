"""The options of a search, described once: HTTP, agents and the command line have them from `SearchOptions`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, reduce
from operator import or_
from types import NoneType
from typing import Annotated, Any, TypedDict, TypeVar, get_args, get_origin, get_type_hints

from pydantic import BaseModel, Field, WithJsonSchema, create_model
from pydantic.json_schema import SkipJsonSchema

from rag_index.core.settings.parts import meanings
from rag_index.search.access import Groups  # noqa: TC001 - looked up by name, as the others
from rag_index.search.filters import Filter  # noqa: TC001

M = TypeVar("M", bound=BaseModel)
MAX_HITS, DEFAULT_LIMIT = 1000, 10
MAX_INDEXES, MAX_CHARS = 1000, 10_000
Nothing = SkipJsonSchema[None]
"""What may be left out, and is no type of its own in a schema."""
NUMBER_OR_TEXT = WithJsonSchema({"type": ["number", "string"]})


class SearchOptions(TypedDict, total=False):
    """The options of a search."""

    indexes: Annotated[Sequence[str] | None, Field(max_length=MAX_INDEXES, examples=[["comments", "solutions"]])]
    """The indexes to search; by default all."""
    limit: Annotated[int, Field(DEFAULT_LIMIT, ge=1, le=MAX_HITS)]
    """The maximum number of documents, by default 10."""
    offset: Annotated[int, Field(0, ge=0, lt=MAX_HITS)]
    """How many of the best documents to leave out: `next_offset` of the answer before, with all else as it was."""
    filter: Filter | None
    """The payload fields that a document must match, such as `{"priority": "high"}` or `"priority=high"`. An index's
    `required_filter` applies in any case."""
    groups: Groups
    """The groups of the caller. An index with `access` answers with documents that one of them may see, and with
    nothing to a caller without groups; `ALL_GROUPS` sees all. A `Caller` in their place has a role and claims too, for
    which a database with `access = "database"` is asked."""
    timeout: Annotated[float | None, Field(gt=0, allow_inf_nan=False)]
    """The time limit of the search, in seconds; by default that of `[retrieve]`."""
    dense_weight: Annotated[float | None, Field(ge=0, le=1, allow_inf_nan=False)]
    """The weight of meaning against words: 1 for meaning alone, 0 for words alone."""
    rerank: bool | None
    """Whether the reranker of the settings reorders the best hits, which takes longer; by default it does."""
    min_relevance: Annotated[float | None, Field(ge=0, le=1, allow_inf_nan=False)]
    """Leave out documents of a lower relevance, from 0 to 1, such as 0.5."""
    collapse: Annotated[str | None, Field(min_length=1, max_length=200)]
    """Collapse documents with the same value of this field, or the same "text", into the best of them."""
    order: Annotated[str | None, Field(min_length=1, max_length=200, examples=["-updated_at"])]
    """A field in whose order the documents that fit are returned; after a minus the newest or greatest first."""
    exact: Annotated[bool, Field(default=False)]
    """Whether to search for the words as they are, without correcting typing errors."""
    max_age: Annotated[float | str | None, NUMBER_OR_TEXT, Field(examples=["10 s"])]
    """The maximum age of the indexes, such as "10 s". If one is older, or its age is unknown, the search fails."""
    like: Annotated[str | None, Field(max_length=MAX_CHARS, examples=["comments/4711"])]
    """A document as INDEX/ID, in place of a query, to find others like it."""


@cache
def option_fields() -> dict[str, tuple[Any, Any]]:
    """Return the type and the field, with its bounds and its text, of each option. What may be None has that type."""
    texts, found = meanings(SearchOptions), {}
    for name, hint in get_type_hints(SearchOptions, include_extras=True).items():
        kind, *more, field = get_args(hint) if get_origin(hint) is Annotated else (hint, Field())
        optional = NoneType in get_args(kind)
        kinds = [list[str] if one == Sequence[str] else one for one in get_args(kind) if one is not NoneType]
        inner: Any = reduce(or_, kinds) if optional else kind
        if bounds := [*more, *field.metadata]:
            inner = Annotated[(inner, *bounds)]
        default, text = None if optional else field.default, texts[name]
        found[name] = inner | Nothing if optional else inner, Field(default, description=text, examples=field.examples)
    return found


def with_options(*names: str, **own: tuple[Any, Any]) -> Callable[[type[M]], type[M]]:
    """Return a decorator that gives a pydantic model these options as fields, and its `own`, with other bounds."""

    def add(model: type[M]) -> type[M]:
        fields: dict[str, Any] = {name: option_fields()[name] for name in names} | own
        doc, module = model.__doc__, model.__module__
        return create_model(model.__name__, __base__=model, __module__=module, __doc__=doc, **fields)

    return add
