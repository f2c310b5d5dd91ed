"""Errors as problem details (RFC 9457): one form for everything that a request can meet."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

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
from rag_index.search.service.models import faults

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fastapi import FastAPI
    from starlette.requests import Request

RETRY_AFTER = "5"
STATUS_OF = (
    (DocumentNotFound, HTTPStatus.NOT_FOUND),
    (NotAllowed, HTTPStatus.FORBIDDEN),
    (RequestTooLarge, HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
    (SettingsError, HTTPStatus.BAD_REQUEST),
    (SearchTimedOut, HTTPStatus.GATEWAY_TIMEOUT),
)
"""The status of each kind of error; of all others it is 503, because nothing could be searched."""


HEADERS_OF = {
    HTTPStatus.SERVICE_UNAVAILABLE: {"Retry-After": RETRY_AFTER},
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: {"Connection": "close"},  # what is left of the body is not read
}


class ProblemResponse(JSONResponse):
    """A response with problem details."""

    media_type = "application/problem+json"


def problem(
    status: int, detail: str, *, code: str = "", headers: Mapping[str, str] | None = None, **more: Any
) -> ProblemResponse:
    """Return a problem. `code` names it for programs, and `more` are further members."""
    content = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    if code:
        content["code"] = code
    return ProblemResponse({**content, **more}, status, headers=dict(headers or {}))


def problem_of(error: RagIndexError, *, in_path: bool = False) -> ProblemResponse:
    """Return the problem for an error of ours. With `in_path`, the address names an index that does not exist."""
    found = next((status for kind, status in STATUS_OF if isinstance(error, kind)), HTTPStatus.SERVICE_UNAVAILABLE)
    if in_path and isinstance(error, UnknownIndex):
        found = HTTPStatus.NOT_FOUND
    more: dict[str, Any] = {}
    if isinstance(error, SearchFailed):
        found, more = HTTPStatus.GATEWAY_TIMEOUT if error.timed_out else found, {"errors": error.errors}
    if isinstance(error, IndexBehind):
        more = {"as_of": error.as_of}
    return problem(found, str(error), code=type(error).__name__, headers=HEADERS_OF.get(found), **more)


def add_problem_handlers(app: FastAPI) -> None:
    """Answer every error of the app with problem details, also those that routing and validation find."""

    @app.exception_handler(RagIndexError)
    async def _ours(request: Request, error: RagIndexError) -> ProblemResponse:
        return problem_of(error, in_path=request.url.path.startswith("/documents/"))

    @app.exception_handler(UnicodeEncodeError)
    async def _not_unicode(_: Request, error: UnicodeEncodeError) -> ProblemResponse:
        return problem(HTTPStatus.BAD_REQUEST, "the request has text that is not valid Unicode", code="InvalidText")

    @app.exception_handler(HTTPException)
    async def _http(_: Request, error: HTTPException) -> ProblemResponse:
        nothing = "there is nothing at this address; /openapi.json describes those that there are"
        detail = nothing if error.status_code == HTTPStatus.NOT_FOUND else str(error.detail)
        return problem(error.status_code, detail, headers=error.headers)

    @app.exception_handler(RequestValidationError)
    async def _invalid(_: Request, error: RequestValidationError) -> ProblemResponse:
        found = _validation_errors(error.errors())
        errors = [{"field": field, "detail": detail} for field, detail in found]
        wrong = "; ".join(": ".join(filter(None, one)) for one in found)
        return problem(HTTPStatus.UNPROCESSABLE_ENTITY, wrong, code="InvalidRequest", errors=errors)


def _validation_errors(found: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Return the fields and the messages. Values are left out: they may be long, or not be JSON."""
    if found[0]["type"] == "json_invalid":
        reason = f"{found[0]['ctx']['error']} at character {found[0]['loc'][1]}"
        return [("", f"the body is not JSON: {reason}")]
    if found[0]["loc"] == ("body",):
        return [("", 'the body has to be a JSON object, such as {"query": "printer"}')]
    named = faults({**one, "loc": one["loc"][1:]} for one in found)  # the first part says whether it is body or query
    return [(field.encode("utf-8", "replace").decode(), detail) for field, detail in named]
