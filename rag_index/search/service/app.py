"""The web application: routes, agents' interface and page, behind one guard."""

from __future__ import annotations

import asyncio
import logging
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import unquote

from fastapi import APIRouter, FastAPI, Header, Query, Request
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse
from prometheus_client import CollectorRegistry, generate_latest
from starlette.middleware.cors import CORSMiddleware
from starlette.staticfiles import StaticFiles

from rag_index.core.settings.parts import PAYLOAD_KINDS
from rag_index.errors import RagIndexError, StoreError, install_command
from rag_index.search import Caller, Retriever
from rag_index.search.json_answers import (
    DocumentAnswer,
    ExplainedAnswer,
    FacetsAnswer,
    SearchAnswer,
    VerifyAnswer,
    WhyAnswer,
)
from rag_index.search.options import MAX_CHARS
from rag_index.search.service import SearchService
from rag_index.search.service.guard import Guard, HttpMetrics
from rag_index.search.service.mcp_tools import mcp_endpoint, mcp_installed
from rag_index.search.service.models import (
    DocumentQuery,
    FacetsBody,
    IndexesModel,
    ProblemModel,
    SearchBody,
    SearchQuery,
    VerifyBody,
    WhyBody,
    add_problem_handlers,
)
from rag_index.search.service.tokens import TokenRegister

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from rag_index.core.settings import ServeSettings, Settings

FILES = Path(__file__).parent / "page"
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
logger = logging.getLogger(__name__)
CORS_SECONDS = 600
"""How long a browser may cache the answer to a preflight request. Chosen; nothing depends on it."""
OPENED = "Rag-Index-Query"
"""The header with the query, percent-encoded, whose hit a person opens. It is no parameter, because
proxies log addresses."""
ALLOWED_HEADERS = (
    "Authorization",
    "Content-Type",
    OPENED,
    "MCP-Protocol-Version",
    "Mcp-Method",
    "Mcp-Name",
)
"""The request headers that pages of the origins in `[serve] cors` may send. MCP clients send the
last three."""
EXPOSED_HEADERS = ("Retry-After", "WWW-Authenticate")
"""The response headers that such pages may read, besides those that every page may read."""
OPENED_TEXT = (
    "The query whose hit a person opens, in percent codes. `[serve] query_log` then notes what was"
    " opened."
)
KINDS = {
    name: {"type": kind.json_type, "ordered": kind.ordered} for name, kind in PAYLOAD_KINDS.items()
}
SPARSE: dict[str, Any] = {"response_model_exclude_defaults": True}
"""The argument of routes whose answers leave out what has its default."""


PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {
        "model": ProblemModel,
        "description": description,
        "content": {"application/problem+json": {}},
    }
    for status, description in (
        (400, "An index, a field or a filter that does not exist or is not valid."),
        (401, "There is no valid token."),
        (413, "The body is too large."),
        (422, "A parameter is missing, unknown or out of bounds."),
        (503, "Nothing could be searched; the detail says why."),
        (
            504,
            (
                "The time limit of the request or of every index has passed, also to become as new"
                " as demanded."
            ),
        ),
    )
}
NOT_FOUND: dict[int | str, dict[str, Any]] = {
    404: {
        "model": ProblemModel,
        "description": "The index or document does not exist, or the caller may not see it.",
    },
}
NOT_ALLOWED: dict[int | str, dict[str, Any]] = {
    403: {"model": ProblemModel, "description": "The caller does not have all rights."},
}


def allowed_headers(serve: ServeSettings) -> list[str]:
    """Return the headers that pages of other origins may send.

    The header in which a proxy names groups is never one of them.
    """
    of_proxy = (serve.proxy_groups or "").lower()
    return [name for name in ALLOWED_HEADERS if name.lower() != of_proxy]


def caller_of(request: Request) -> Caller:
    """Return the caller that the guard has identified; without one, a caller without rights."""
    found = getattr(request.state, "caller", None)
    return found if isinstance(found, Caller) else Caller()


def make_router(service: SearchService) -> APIRouter:
    """Return the routes of a service. A member of an answer that has its default is left out."""
    # The response class writes numbers as Python does, 1e-05 for 0.00001. Pydantic alone would
    # write 1e-5.
    router = APIRouter(responses=PROBLEMS, default_response_class=JSONResponse)
    _add_search_routes(router, service)
    _add_document_routes(router, service)
    return router


def _add_search_routes(router: APIRouter, service: SearchService) -> None:
    """Add the routes that find documents. Their docstrings are descriptions in /openapi.json."""

    @router.post("/search", summary="Search", **SPARSE)
    async def post_search(body: SearchBody, request: Request) -> SearchAnswer | ExplainedAnswer:
        """Find the documents that fit a query best, by meaning and by words, in all indexes at
        once."""
        found = await service.search(body.text, caller_of(request), **body.options())
        return found.answer(explain=body.explain)

    @router.get("/search", summary="Search by address", **SPARSE)
    async def get_search(
        query: Annotated[SearchQuery, Query()], request: Request
    ) -> SearchAnswer | ExplainedAnswer:
        """Find documents as `POST /search` does. Write `filter` as on the command line, such as
        `priority=high`."""
        found = await service.search(query.text, caller_of(request), **query.options())
        return found.answer(explain=query.explain)

    @router.post("/why", responses=NOT_ALLOWED, summary="Why a document is not found", **SPARSE)
    async def why(body: WhyBody, request: Request) -> WhyAnswer:
        """Say why a search does not find a document, and what helps. The caller needs all
        rights."""
        found = await service.why(caller_of(request), **body.model_dump())
        return WhyAnswer.model_validate(found)

    @router.post("/facets", summary="Count values", **SPARSE)
    async def facets(body: FacetsBody, request: Request) -> FacetsAnswer:
        """Count the documents with each value of a field, among those that match and that the
        caller may see."""
        found = await service.retriever.facets(groups=caller_of(request), **body.model_dump())
        return FacetsAnswer.model_validate(found)


def _add_document_routes(router: APIRouter, service: SearchService) -> None:
    """Add the routes for documents, citations and indexes, with descriptions as above."""

    @router.get(
        "/documents/{index}/{document_id:path}", responses=NOT_FOUND, summary="A document", **SPARSE
    )
    async def get_document(
        index: str,
        document_id: str,
        query: Annotated[DocumentQuery, Query()],
        request: Request,
        found_by: Annotated[str, Header(alias=OPENED, description=OPENED_TEXT)] = "",
    ) -> DocumentAnswer:
        """Return a document as it is indexed: its payload, and all of its chunks in order or those
        that you choose.

        The id may contain slashes. One that is `.` or `..`, which clients take for a folder, is
        `?document_id=..`.
        """
        opened = unquote(found_by)[:MAX_CHARS] or None
        caller = caller_of(request)
        document_id = document_id or query.document_id
        found = await service.document(index, document_id, caller, query, opened=opened)
        return DocumentAnswer.model_validate(found)

    @router.post("/verify", summary="Check citations", **SPARSE)
    async def verify(body: VerifyBody, request: Request) -> VerifyAnswer:
        """Say whether each cited document is unchanged, changed, deleted, or unknown to the
        caller."""
        verified = await service.verify(caller_of(request), body.citations)
        return VerifyAnswer.model_validate({"citations": verified})

    @router.get("/indexes", summary="Indexes")
    async def get_indexes(request: Request) -> IndexesModel:
        """List the indexes: their fields for filters, how much they hold, and up to where they are
        complete."""
        indexes = await service.indexes(caller_of(request))
        return IndexesModel.model_validate({"indexes": indexes, "kinds": KINDS})


def make_trial(
    proposal: Callable[[dict[str, Any]], dict[str, Any]],
    documents: Callable[[dict[str, Any], str], dict[str, Any]],
    keep: Callable[[dict[str, Any]], dict[str, Any]],
    searchable: Callable[[], dict[str, Any]],
) -> APIRouter:
    """Return the routes of a trial. Request bodies are answers, as `init --answers` reads them.

    Args:
        proposal: Returns the settings that answers lead to.
        documents: Returns documents of an index with these answers.
        keep: Writes the settings of these answers.
        searchable: Returns the progress of the trial.
    """
    router = APIRouter()

    @router.post("/proposal")
    def post_proposal(body: dict[str, Any]) -> JSONResponse:
        return JSONResponse(proposal(body))

    @router.post("/proposal/{index}")
    def post_documents(index: str, body: dict[str, Any]) -> JSONResponse:
        return JSONResponse(documents(body, index))

    @router.post("/keep")
    def post_keep(body: dict[str, Any]) -> JSONResponse:
        return JSONResponse(keep(body))

    router.add_api_route("/searchable", searchable)
    return router


def make_probes(service: SearchService, *measured: CollectorRegistry) -> APIRouter:
    """Return the routes for monitoring: liveness, readiness and metrics."""
    router = APIRouter()

    @router.head("/healthz", include_in_schema=False)
    @router.get("/healthz", summary="Liveness")
    async def healthz() -> JSONResponse:
        """Return 200 while the process is running."""
        return JSONResponse({"status": "alive"})

    @router.head("/readyz", include_in_schema=False)
    @router.get("/readyz", responses={503: PROBLEMS[503]}, summary="Readiness")
    async def readyz() -> JSONResponse:
        """Return 200 if the store answers and at least one index is live, otherwise 503. The log
        says what is wrong."""
        try:
            await service.check_ready()
        except RagIndexError as error:
            # The reason is only in the log: this route needs no token.
            logger.warning("not ready: %s", error)
            raise StoreError("the service is not ready; its log says why") from None
        return JSONResponse({"status": "ready"})

    @router.get("/metrics", response_class=PlainTextResponse, summary="Metrics for Prometheus")
    async def metrics() -> PlainTextResponse:
        """Return the times and counts of searches and requests in Prometheus' text format."""
        text = b"".join(generate_latest(registry) for registry in measured)
        return PlainTextResponse(text, media_type=METRICS_TYPE)

    return router


def make_app(
    settings: Settings,
    retriever: Retriever,
    tokens: TokenRegister | None = None,
    more: APIRouter | None = None,
) -> FastAPI:
    """Return the application over a retriever, which the application does not close.

    Every request passes the guard, which identifies the caller (`request.state.caller`).

    Args:
        tokens: By default those of the settings.
        more: Routes of a trial. The page then shows its link.

    Raises:
        SettingsError: A token is not valid.
    """
    service = SearchService(settings, retriever)
    metrics = HttpMetrics()
    agents = mcp_endpoint(service, caller_of) if mcp_installed() else None
    app = FastAPI(
        title="rag-index",
        summary="Search the indexes of a project by meaning and by words.",
        lifespan=_lifespan(retriever, agents[1] if agents else None),
        docs_url=None,  # FastAPI's pages load scripts from other hosts
        redoc_url=None,
    )
    add_problem_handlers(app)
    app.include_router(make_router(service))
    app.include_router(make_probes(service, retriever.metrics(), metrics.registry))
    if agents is not None:
        app.router.routes.append(agents[0])
    if more is not None:
        app.include_router(more, include_in_schema=False)
    _add_page(app, is_trial=more is not None)
    register = tokens or TokenRegister(settings.serve, settings.source.caller_roles)
    app.add_middleware(Guard, serve=settings.serve, tokens=register, metrics=metrics)
    # Added last, so that it is outside of the guard: a preflight request has no token.
    if settings.serve.cors:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.serve.cors,
            allow_methods=["GET", "POST"],
            allow_headers=allowed_headers(settings.serve),
            expose_headers=EXPOSED_HEADERS,
            max_age=CORS_SECONDS,
        )
    return app


def _lifespan(
    retriever: Retriever, serve_agents: Callable[[], AbstractAsyncContextManager[None]] | None
) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    """Return what must be open while the application serves: the models, and MCP if it is
    installed."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            warming_up = asyncio.ensure_future(retriever.warm_up())
            stack.callback(warming_up.cancel)
            if serve_agents is None:
                logger.warning(
                    "agents cannot ask at /mcp: it needs the package mcp (%s)",
                    install_command("mcp"),
                )
            else:
                await stack.enter_async_context(serve_agents())
            yield

    return lifespan


def _add_page(app: FastAPI, *, is_trial: bool) -> None:
    """Add the page at / and its files at /static. In a trial, the page shows a link to its
    routes."""
    page = (FILES / "index.html").read_text(encoding="utf-8")
    if is_trial:
        page = page.replace('id="choose" hidden', 'id="choose"')
    app.router.add_route(
        "/", lambda _: HTMLResponse(page), methods=["GET", "HEAD"], include_in_schema=False
    )
    app.mount("/static", StaticFiles(directory=FILES), name="static")
