"""The service: one process over one `Retriever`, asked over HTTP, by agents and from a page in a browser.

`SearchService` is what all of them call; it knows nothing of HTTP. `make_app` puts it on the web.
"""

from __future__ import annotations

from rag_index.search import Caller
from rag_index.search.service.search_service import SearchService

__all__ = ["Caller", "SearchService"]
