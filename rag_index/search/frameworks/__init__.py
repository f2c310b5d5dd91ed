"""Retrievers for other frameworks: LangChain and LlamaIndex. Each module needs its framework
installed.

All take a `Retriever`, which the caller closes, or a `Service`, and options: the arguments of
`Retriever.search`.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Unpack

import httpx

from rag_index import errors
from rag_index.core.connections import tls_context, why_failed
from rag_index.search.options import SearchOptions

if TYPE_CHECKING:
    from rag_index.search import SearchResult

__all__ = ["SearchOptions", "Service", "found_in"]

SERVICE_SECONDS = 60.0
logger = logging.getLogger(__name__)
SAID = (
    "remark",
    "missing",
    "errors",
    "unsure",
    "nothing_fits",
    "corrected",
    "synonyms",
    "rerank_error",
)
OWN = (
    "index",
    "document_id",
    "score",
    "relevance",
    "title",
    "link",
    "citation",
    "part",
    "collapsed",
)
"""The members of a hit that are in its metadata."""


class Service:
    """A `rag-index serve`, asked as a Retriever is. Its token says whose groups count."""

    def __init__(
        self, url: str, token: str | None = None, *, timeout: float = SERVICE_SECONDS
    ) -> None:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._asked: dict[str, Any] = {
            "url": f"{url.rstrip('/')}/search",
            "headers": headers,
            "timeout": timeout,
            "verify": tls_context(),
        }

    def search_sync(self, query: str, **options: Unpack[SearchOptions]) -> dict[str, Any]:
        """Return what the service answers. Raises SettingsError for a mistake, and
        StoreUnavailable."""
        try:
            return _answer(
                httpx.post(**self._asked, json={"query": query, "explain": True, **options})
            )
        except httpx.HTTPError as exc:
            url = str(self._asked["url"])
            raise errors.StoreUnavailable(
                f"the service at {url} does not answer: {why_failed(exc, url) or exc}"
            ) from exc

    async def search(self, query: str, **options: Unpack[SearchOptions]) -> dict[str, Any]:
        """Return what `search_sync` returns."""
        return await asyncio.to_thread(self.search_sync, query, **options)

    def close(self) -> None:
        """Do nothing: each search has a connection of its own."""


def _answer(response: httpx.Response) -> dict[str, Any]:
    try:
        found: dict[str, Any] = response.json()
    except ValueError:
        found = {"detail": f"{response.status_code} {response.reason_phrase}"}
    if response.is_success and "hits" in found:
        return found
    wrong = response.status_code in (httpx.codes.BAD_REQUEST, httpx.codes.UNPROCESSABLE_ENTITY)
    raise (errors.SettingsError if wrong else errors.StoreUnavailable)(
        f"the service says: {found.get('detail')}"
    )


def found_in(
    result: SearchResult | dict[str, Any],
) -> tuple[list[tuple[str, str, dict[str, Any]]], dict[str, Any]]:
    """Return the hits of a result, and what else it says: those of `SAID` that it has.

    Of each hit these are a name that no other document has, the text of its best chunks in their
    order, and the metadata: its payload, and our own members, which have `rag_index_` before them
    where the payload has a field of that name. The log has what failed, since most frameworks
    return documents alone.
    """
    plain = result if isinstance(result, dict) else result.to_json(explain=True)
    said = {name: plain[name] for name in SAID if plain.get(name)}
    if "missing" in said:
        logger.warning("%s", said["missing"])
    if "nothing_fits" in said:
        logger.warning("no document is likely to fit the query: those returned are the nearest")
    if "unsure" in said:
        logger.warning(
            "no document has the words of the query together: those returned are the nearest in"
            " meaning"
        )
    if "rerank_error" in said:
        logger.warning("the hits are not reranked: %s", said["rerank_error"])
    hits = []
    for hit in plain["hits"]:
        chunks = sorted(hit["chunks"], key=lambda chunk: chunk["chunk"])
        own = (
            {name: hit[name] for name in hit if name in OWN}
            | said
            | {"chunks": [one["chunk"] for one in chunks]}
        )
        own = {
            name if name not in hit["payload"] else f"rag_index_{name}": value
            for name, value in own.items()
        }
        hits.append(
            (
                f"{hit['index']}/{hit['document_id']}",
                "\n\n".join(one["text"] for one in chunks),
                {**hit["payload"], **own},
            )
        )
    return hits, said
