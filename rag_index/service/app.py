"""The web application: routes, agents' interface and page, behind one guard."""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from rag_index.service.guard import Guard
from rag_index.service.http_metrics import HttpMetrics
from rag_index.service.mcp_server import INSTALL, McpEndpoint, mcp_installed
from rag_index.service.page import page_routes
from rag_index.service.problems import add_problem_handlers
from rag_index.service.routes import OPEN_FOLDER, OPEN_PATHS, caller_of, make_router
from rag_index.service.search_service import SearchService
from rag_index.service.tokens import TokenRegister

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from rag_index.retrieve import Retriever
    from rag_index.settings import Settings

logger = logging.getLogger(__name__)

CORS_SECONDS = 600


def make_app(settings: Settings, retriever: Retriever, tokens: TokenRegister | None = None) -> FastAPI:
    """Return the application over a retriever, which stays the caller's to close.

    Every request goes through the guard, which says who asks (`request.state.caller`). By default the tokens are
    those of the settings. Raises SettingsError if a token is not valid.
    """
    service, metrics = SearchService(settings, retriever), HttpMetrics()
    agents = McpEndpoint(service, caller_of) if mcp_installed() else None

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            stack.callback(asyncio.ensure_future(retriever.warm_up()).cancel)
            if agents is None:
                logger.warning("agents cannot ask at /mcp: it needs the package mcp (%s)", INSTALL)
            else:
                await stack.enter_async_context(agents.run())
            yield

    app = FastAPI(
        title="rag-index",
        summary="Search the indexes of a project by meaning and by words.",
        lifespan=lifespan,
        docs_url=None,  # the pages of FastAPI load scripts from elsewhere
        redoc_url=None,
    )
    app.state.service = service
    add_problem_handlers(app)
    app.include_router(make_router(service, lambda: service.metrics().to_prometheus() + metrics.to_prometheus()))
    app.router.routes.extend([*([agents.route()] if agents else []), *page_routes()])
    app.add_middleware(
        Guard,
        serve=settings.serve,
        tokens=tokens or TokenRegister(settings.serve),
        metrics=metrics,
        needs_token=_needs_token,
    )
    if settings.serve.cors:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.serve.cors,
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type"],
            max_age=CORS_SECONDS,
        )
    return app


def _needs_token(path: str) -> bool:
    return path not in OPEN_PATHS and not path.startswith(OPEN_FOLDER)
