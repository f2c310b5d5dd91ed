"""The page for a browser: files as they are, without a build step and without requests to anywhere else."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.responses import FileResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import BaseRoute

FILES = Path(__file__).parent / "static"
ALWAYS_ASK = {"Cache-Control": "no-cache"}
"""A browser asks whether its copy is current, so that a newer rag-index is seen at once."""


def page_routes() -> list[BaseRoute]:
    """Return the routes of the page and its files, which need no token: they hold nothing of what is indexed."""
    return [
        Route("/", _page, methods=["GET", "HEAD"], include_in_schema=False),
        Mount("/static", _Files(directory=FILES), name="static"),
    ]


async def _page(_: Request) -> FileResponse:
    return FileResponse(FILES / "index.html", headers=ALWAYS_ASK)


class _Files(StaticFiles):
    """The files of the page."""

    def file_response(self, *arguments: Any, **options: Any) -> Response:
        """Return a file that a browser may keep, but asks about each time."""
        response = super().file_response(*arguments, **options)
        response.headers.update(ALWAYS_ASK)
        return response
