"""The requests and answers of HTTP and of the tools as models, which check them and describe them in
OpenAPI and MCP.

The docstrings of models and fields are descriptions for clients. Every error is answered with
problem details (RFC 9457).
"""

from __future__ import annotations

import json
import logging
import traceback
from dataclasses import asdict, dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic.json_schema import SkipJsonSchema  # noqa: TC002 - pydantic looks it up
from starlette.exceptions import HTTPException

from rag_index.core.settings.parts import PayloadKind  # noqa: TC001 - pydantic looks it up
from rag_index.errors import (
    DocumentNotFound,
    IndexBehind,
    NotAllowed,
    RagIndexError,
    RequestTooLarge,
    SearchFailed,
    SearchTimedOut,
    SettingsError,
    UnknownIndex,
)
from rag_index.search.json_answers import AsOfAnswer  # noqa: TC001 - pydantic looks it up
from rag_index.search.options import (
    DEFAULT_LIMIT,
    MAX_CHARS,
    AgentOptions,
    Collapse,
    Indexes,
    Limit,
    ProgramOptions,
    Timeout,
)
from rag_index.search.results import MAX_FACET_VALUES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from fastapi import FastAPI
    from starlette.requests import Request

logger = logging.getLogger(__name__)
MAX_FACETS = 100
MAX_CITATIONS = 100
MAX_DOCUMENT_CHARS = 200_000
EXAMPLE_FILTER = {"priority": "high", "created_at": {"gte": "2026-01-01"}}
LIKE = "like"
"""The query of a search for documents like another one: it needs no text of its own."""
RETRY_AFTER = "5"
"""Seconds after which a client may try again. Chosen; nothing depends on it."""
STATUS_OF = (
    (DocumentNotFound, HTTPStatus.NOT_FOUND),
    (NotAllowed, HTTPStatus.FORBIDDEN),
    (RequestTooLarge, HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
    (SettingsError, HTTPStatus.BAD_REQUEST),
    (SearchTimedOut, HTTPStatus.GATEWAY_TIMEOUT),
    (IndexBehind, HTTPStatus.GATEWAY_TIMEOUT),
)
"""The status of each kind of error. Any other error has 503, because nothing could be searched."""
HEADERS_OF: dict[HTTPStatus, dict[str, str]] = {
    HTTPStatus.SERVICE_UNAVAILABLE: {"Retry-After": RETRY_AFTER},
    # The rest of the body is not read.
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: {"Connection": "close"},
}


def check_unicode(value: Any) -> Any:
    """Return the value. Raises ValueError if it has a text that is not valid Unicode."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ValueError("has text that is not valid Unicode") from None
    return value


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with a field of a request; the field is "" if several are meant."""

    field: str
    detail: str

    def __str__(self) -> str:
        """Return "limit: Input should be greater than 0", or the detail alone."""
        return ": ".join(filter(None, [self.field, self.detail]))


def faults(errors: Iterable[Mapping[str, Any]]) -> list[Fault]:
    """Return the faults of a request from errors of pydantic."""
    found = list[Fault]()
    for error in errors:
        # One of several types of a field, which is null: the error of the other type stands beside.
        if error["type"] == "none_required":
            continue
        field, *inner = error["loc"] or ("",)
        # Texts inside a field are names of its types: ("indexes", "list[str]", 0) is indexes.0.
        parts = [field, *(part for part in inner if isinstance(part, int))]
        detail = error["msg"].removeprefix("Value error, ")
        found.append(Fault(".".join(map(str, parts)), detail))
    return found


FilterField = Annotated[dict[str, Any] | list[str] | str | None, AfterValidator(check_unicode)]


class Arguments(BaseModel):
    """A request over HTTP or by a tool. The text below a field is its description for clients and
    agents."""

    model_config = ConfigDict(
        extra="forbid", hide_input_in_errors=True, use_attribute_docstrings=True
    )


class SearchQuestion(Arguments):
    """What is searched for."""

    query: str = Field(
        min_length=1, max_length=MAX_CHARS, examples=["printer offline after update"]
    )
    """Words, a question, or an exact name. A "phrase" in quotes must occur, and a -word after a
    minus must not."""


class SearchArguments(AgentOptions, SearchQuestion):
    """What HTTP and the tools of agents ask alike."""

    model_config = ConfigDict(json_schema_extra=lambda schema: schema["required"].remove("query"))

    @model_validator(mode="before")
    @classmethod
    def _need_query(cls, given: Any) -> Any:
        """Let `like` replace the query, which may then be missing."""
        like = given.get("like") if isinstance(given, dict) else None
        if not like:
            return given
        return {**given, "query": given.get("query") or LIKE}

    @property
    def text(self) -> str:
        """The text to search for; "" if `like` replaces it."""
        is_replaced = self.query == LIKE and self.like
        return "" if is_replaced else self.query


class _Search(ProgramOptions, SearchArguments):
    """The arguments of both ways to search over HTTP."""

    explain: bool = False
    """Whether to add ranks, scores, chunks and timings."""

    def options(self) -> dict[str, Any]:
        """Return the options for `Retriever.search`."""
        return self.model_dump(exclude={"query", "explain"})


class SearchBody(_Search):
    """The body of `POST /search`."""

    filter: FilterField = Field(default=None, examples=[EXAMPLE_FILTER])
    """The payload fields that a document must match: an object, or text such as `priority=high`."""


class SearchQuery(_Search):
    """The parameters of `GET /search`."""

    filter: list[str] = Field(default=[], examples=[["priority=high", "created_at>=2026-01-01"]])
    """Payload fields that a document must match, as on the command line. All conditions must
    hold."""


class WhyQuestion(Arguments):
    """The question why a search does not find a document."""

    query: str = Field(
        min_length=1, max_length=MAX_CHARS, examples=["printer offline after update"]
    )
    """What was searched for."""
    document: str = Field(pattern="^[^/]+/", max_length=MAX_CHARS, examples=["comments/4711"])
    """The document that was not found, as INDEX/ID."""


class WhyBody(WhyQuestion):
    """The body of `POST /why`."""

    filter: FilterField = Field(default=None, examples=[EXAMPLE_FILTER])
    """The filter of the search."""
    groups: list[str] | SkipJsonSchema[None] = None
    """The groups for whom you ask; by default yourself."""
    collapse: Collapse = None
    limit: Limit = DEFAULT_LIMIT


class FacetsBody(Arguments):
    """The body of `POST /facets`."""

    fields: Annotated[list[str], Field(min_length=1, max_length=MAX_FACETS)] | None = Field(
        default=None, examples=[["priority"]]
    )
    """The fields to count; by default all that have a keyword index."""
    filter: FilterField = Field(default=None, examples=[EXAMPLE_FILTER])
    """The payload fields that a document must match, as for a search."""
    limit: int = Field(default=10, ge=1, le=MAX_FACET_VALUES)
    """The maximum number of values of each field."""
    indexes: Indexes = None
    timeout: Timeout = None


class VerifyBody(Arguments):
    """The body of `POST /verify`."""

    citations: Annotated[list[str], Field(min_length=1, max_length=MAX_CITATIONS)]
    """The `citation` of hits and documents."""


class DocumentQuery(Arguments):
    """The chunks of a document to return: from `first_chunk` on, around one, or with some words.

    The answer has as many whole chunks as fit into `max_chars`, and at least one.
    """

    document_id: str = Field(
        default="", description="The id, if it is `.` or `..`; the path then ends with a slash."
    )
    first_chunk: int = Field(
        default=0, ge=0, description="The first chunk: `next_chunk` of the answer before."
    )
    around: Annotated[int, Field(ge=0)] | SkipJsonSchema[None] = Field(
        default=None, description="The number of a chunk to return with its neighbours."
    )
    find: Annotated[str, Field(max_length=MAX_CHARS)] | SkipJsonSchema[None] = Field(
        default=None, description="Words; the answer has the chunks with the most of them."
    )
    max_chars: Annotated[int, Field(ge=1, le=MAX_DOCUMENT_CHARS)] | SkipJsonSchema[None] = Field(
        default=None, description="The maximum number of characters of text."
    )

    @model_validator(mode="after")
    def _check_one_way(self) -> DocumentQuery:
        ways = (self.first_chunk > 0, self.around is not None, self.find is not None)
        if sum(ways) > 1:
            raise ValueError("first_chunk, around and find exclude each other: give one of them")
        return self


class FieldInfo(BaseModel):
    """A payload field that filters may name; `kind` is that of its payload index, None without
    one."""

    name: str
    kind: PayloadKind | None
    label: str = ""
    """What the page calls it; "" for its name."""


class IndexInfo(BaseModel):
    """An index of the settings: what can be asked of it, and what it holds.

    `fields` is None if only the index's own source knows its fields. `documents` and `chunks` are
    None where the ledger does not know the collection, and for an index with access rights, whose
    counts are not told.
    """

    name: str
    kind: str
    language: str
    search: str
    fields: list[FieldInfo] | None
    live: bool
    """Whether the index can be searched; False before its first run."""
    documents: int | None
    chunks: int | None
    as_of: AsOfAnswer
    closed: bool = False
    """Whether the index answers nothing to the caller, because it has access rights and the caller
    no groups."""


class KindModel(BaseModel):
    """The JSON type of a kind's values, and how ranges compare them: as `numbers`, as `times`, or
    "" if they cannot."""

    type: Literal["string", "integer", "number", "boolean"]
    ordered: Literal["", "numbers", "times"]


class IndexesModel(BaseModel):
    """All indexes, and the kinds that their fields may have."""

    indexes: list[IndexInfo]
    kinds: dict[PayloadKind, KindModel]


class ProblemModel(BaseModel):
    """Problem details (RFC 9457). `code` names the problem for programs."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    code: str | None = None
    errors: Any = None


class ProblemResponse(JSONResponse):
    """A response with problem details."""

    media_type = "application/problem+json"


def log_place(error: Exception) -> None:
    """Log where an unexpected error was raised.

    The message is not logged, because it may repeat the query.
    """
    *_, place = traceback.extract_tb(error.__traceback__)
    kind = type(error).__name__
    logger.error("unexpected %s in %s line %s", kind, place.filename, place.lineno)


def problem(
    status: int,
    detail: str,
    *,
    code: str = "",
    headers: Mapping[str, str] | None = None,
    **more: Any,
) -> ProblemResponse:
    """Return a response with problem details.

    Args:
        code: The name of the problem for programs.
        headers: By default those of the status in `HEADERS_OF`.
        more: Further members of the problem.
    """
    content = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
    }
    if code:
        content["code"] = code
    if headers is None:
        headers = HEADERS_OF.get(HTTPStatus(status), {})
    return ProblemResponse({**content, **more}, status, headers=dict(headers))


def problem_of(error: RagIndexError, *, in_path: bool = False) -> ProblemResponse:
    """Return the problem for an error of rag-index.

    Args:
        in_path: Whether the path names the index: an unknown index is then a missing resource.
    """
    status = _status_of(error)
    if in_path and isinstance(error, UnknownIndex):
        status = HTTPStatus.NOT_FOUND
    more: dict[str, Any] = {}
    if isinstance(error, SearchFailed):
        more = {"errors": error.errors}
        if error.timed_out:
            status = HTTPStatus.GATEWAY_TIMEOUT
    if isinstance(error, IndexBehind):
        more = {"as_of": error.as_of}
    return problem(status, str(error), code=type(error).__name__, **more)


def _status_of(error: RagIndexError) -> HTTPStatus:
    for kind, status in STATUS_OF:
        if isinstance(error, kind):
            return status
    return HTTPStatus.SERVICE_UNAVAILABLE


def add_problem_handlers(app: FastAPI) -> None:
    """Answer every error of the application with problem details, also errors of routing and
    validation."""

    @app.exception_handler(RagIndexError)
    async def _ours(request: Request, error: RagIndexError) -> ProblemResponse:
        in_path = request.url.path.startswith("/documents/")
        return problem_of(error, in_path=in_path)

    @app.exception_handler(UnicodeEncodeError)
    async def _not_unicode(_: Request, error: UnicodeEncodeError) -> ProblemResponse:
        return problem(
            HTTPStatus.BAD_REQUEST,
            "the request has text that is not valid Unicode",
            code="InvalidText",
        )

    @app.exception_handler(HTTPException)
    async def _http(_: Request, error: HTTPException) -> ProblemResponse:
        detail = str(error.detail)
        if error.status_code == HTTPStatus.NOT_FOUND:
            detail = (
                "there is nothing at this address; /openapi.json describes those that there are"
            )
        return problem(error.status_code, detail, headers=error.headers)

    @app.exception_handler(RequestValidationError)
    async def _invalid(_: Request, error: RequestValidationError) -> ProblemResponse:
        found = _validation_errors(error.errors())
        errors = [asdict(fault) for fault in found]
        detail = "; ".join(map(str, found))
        status = HTTPStatus.UNPROCESSABLE_ENTITY
        return problem(status, detail, code="InvalidRequest", errors=errors)


def _validation_errors(found: Sequence[Mapping[str, Any]]) -> list[Fault]:
    """Return the faults without the values, which may be long, or not be JSON."""
    first = found[0]
    # The body is not complete: '{"query": '.
    if first["type"] == "json_invalid":
        reason = f"{first['ctx']['error']} at character {first['loc'][1]}"
        return [Fault("", f"the body is not JSON: {reason}")]
    # The body is a list: '["printer"]'.
    if first["loc"] == ("body",):
        return [Fault("", 'the body has to be a JSON object, such as {"query": "printer"}')]
    # The first part of a location is "body" or "query": ("body", "limit").
    named = faults({**error, "loc": error["loc"][1:]} for error in found)
    return [Fault(fault.field.encode("utf-8", "replace").decode(), fault.detail) for fault in named]
