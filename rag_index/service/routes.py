"""The HTTP interface: one route for each thing that the service can do, and three for those who run it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from fastapi.routing import APIRoute

from rag_index.service.models import (
    DocumentModel,
    IndexesModel,
    ProblemModel,
    SearchAnswerModel,
    SearchBody,
    SearchQuery,
)
from rag_index.service.requests import Caller

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from rag_index.service.search_service import SearchService

OPEN_PATHS = frozenset({"/", "/healthz", "/readyz", "/openapi.json", "/favicon.ico"})
"""The addresses that need no token: they tell nothing of what is indexed."""
OPEN_FOLDER = "/static/"
"""The files of the page, which need no token either. Every other address does."""
PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": ProblemModel, "description": description, "content": {"application/problem+json": {}}}
    for status, description in (
        (400, "An index, a field or a filter that does not exist or is not valid."),
        (401, "There is no valid token."),
        (413, "The body is too large."),
        (422, "A parameter is missing, unknown or out of bounds."),
        (429, "Too many requests; Retry-After says when to come back."),
        (503, "Nothing could be searched; the detail says why."),
        (504, "The time limit has passed."),
    )
}
NOT_FOUND: dict[int | str, dict[str, Any]] = {
    **PROBLEMS,
    404: {"model": ProblemModel, "description": "There is no such index or document for the caller."},
}
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def caller_of(request: Request) -> Caller:
    """Return who asks; the guard has found that out."""
    found = getattr(request.state, "caller", None)
    return found if isinstance(found, Caller) else Caller()


class _JsonRoute(APIRoute):
    """A route whose body is JSON, whatever the client says: `curl -d` says that it is a form."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler, which sees another content type."""
        handle = super().get_route_handler()

        async def handle_json(request: Request) -> Response:
            others = [header for header in request.scope["headers"] if header[0] != b"content-type"]
            request.scope["headers"] = [*others, (b"content-type", b"application/json")]
            return await handle(Request(request.scope, request.receive))

        return handle_json


def make_router(service: SearchService, metrics_text: Callable[[], str]) -> APIRouter:
    """Return the routes over a service. `metrics_text` gives what `/metrics` answers."""
    router = APIRouter(route_class=_JsonRoute)

    async def answer(asked: SearchBody | SearchQuery, request: Request) -> JSONResponse:
        found = await service.search(asked.request(), caller_of(request))
        return JSONResponse(found.to_json(explain=asked.explain))

    @router.post("/search", responses=PROBLEMS, response_model=SearchAnswerModel, summary="Search")
    async def post_search(body: SearchBody, request: Request) -> JSONResponse:
        """Find the documents that fit a query best, by meaning and by words, in all indexes at once."""
        return await answer(body, request)

    @router.get("/search", responses=PROBLEMS, response_model=SearchAnswerModel, summary="Search by address")
    async def get_search(query: Annotated[SearchQuery, Query()], request: Request) -> JSONResponse:
        """Do the same as `POST /search`. `filter` is written as on the command line, such as `priority=high`."""
        return await answer(query, request)

    @router.get("/documents/{index}", responses=NOT_FOUND, response_model=DocumentModel, summary="A document by its id")
    async def find_document(
        index: str, document_id: Annotated[str, Query(alias="id")], request: Request
    ) -> JSONResponse:
        """Return a document as it is indexed: its payload, and its chunks in order."""
        return await get_document(index, document_id, request)

    @router.get(
        "/documents/{index}/{document_id:path}", responses=NOT_FOUND, response_model=DocumentModel, summary="A document"
    )
    async def get_document(index: str, document_id: str, request: Request) -> JSONResponse:
        """Do the same by address. The id may contain slashes, but no client sends one that is `.` or `..`."""
        found = await service.document(index, document_id, caller_of(request))
        fresh = await service.freshness([index])
        return JSONResponse({**found.to_json(), "freshness": fresh[index].to_json()})

    @router.get("/indexes", responses=PROBLEMS, response_model=IndexesModel, summary="Indexes")
    async def get_indexes(request: Request) -> JSONResponse:
        """List the indexes: their fields for filters, how much they hold, and how fresh they are."""
        return JSONResponse({"indexes": [one.to_json() for one in await service.indexes(caller_of(request))]})

    @router.head("/healthz", include_in_schema=False)
    @router.get("/healthz", summary="Is the process alive")
    async def healthz() -> JSONResponse:
        """Answer, which is all that this asks."""
        return JSONResponse({"status": "alive"})

    @router.head("/readyz", include_in_schema=False)
    @router.get("/readyz", responses={503: PROBLEMS[503]}, summary="Can it search")
    async def readyz() -> JSONResponse:
        """Answer 200 if the store can be reached and at least one index is live."""
        await service.check_ready()
        return JSONResponse({"status": "ready"})

    @router.get("/metrics", response_class=PlainTextResponse, summary="Metrics for Prometheus")
    async def metrics() -> PlainTextResponse:
        """Return the times and counts of searches and requests in Prometheus' text format."""
        return PlainTextResponse(metrics_text(), media_type=METRICS_TYPE)

    return router
