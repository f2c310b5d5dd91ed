"""Retrievers for other frameworks: LangChain and LlamaIndex. Each module imports its framework.

Each takes a `Retriever`, which the caller closes, or a `Service`, and options: the arguments of
`Retriever.search`. Nothing in rag-index may import this package; it imports `rag_index.search`.
tests/search/frameworks fails if hits or metadata differ between the two ways to search.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, NamedTuple, Unpack

import httpx

from rag_index import errors
from rag_index.core.connections import tls_context, why_failed
from rag_index.search.options import SearchOptions

if TYPE_CHECKING:
    from rag_index.search import SearchResult

__all__ = ["SearchOptions", "Service", "found_in"]

SERVICE_SECONDS = 60.0
"""Time limit of a request. It is longer than that of the service, whose error then arrives."""
logger = logging.getLogger(__name__)
RESULT_FIELDS = (
    "remark",
    "missing",
    "errors",
    "unsure",
    "nothing_fits",
    "corrected",
    "synonyms",
    "rerank_error",
)
"""The members of a result that are in the metadata of its hits."""
HIT_FIELDS = (
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
    """A `rag-index serve`, with the methods of a Retriever. The groups are those of its token."""

    def __init__(
        self, url: str, token: str | None = None, *, timeout: float = SERVICE_SECONDS
    ) -> None:
        self._url = f"{url.rstrip('/')}/search"
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._timeout = timeout
        self._tls = tls_context()

    def search_sync(self, query: str, **options: Unpack[SearchOptions]) -> dict[str, Any]:
        """Return the answer of the service.

        Raises SettingsError for a mistake in the request, and StoreUnavailable.
        """
        try:
            response = httpx.post(
                self._url,
                headers=self._headers,
                timeout=self._timeout,
                verify=self._tls,
                json={"query": query, "explain": True, **options},
            )
        except httpx.HTTPError as exc:
            reason = why_failed(exc, self._url) or exc
            raise errors.StoreUnavailable(
                f"the service at {self._url} does not answer: {reason}"
            ) from exc
        return _answer(response)

    async def search(self, query: str, **options: Unpack[SearchOptions]) -> dict[str, Any]:
        """Do the same as `search_sync`, in a thread."""
        return await asyncio.to_thread(self.search_sync, query, **options)

    def close(self) -> None:
        """Do nothing: each search has a connection of its own."""


def _answer(response: httpx.Response) -> dict[str, Any]:
    """Return the result of a search, or raise the error of a response."""
    try:
        found: dict[str, Any] = response.json()
    # For example the page of a proxy.
    except ValueError:
        found = {"detail": f"{response.status_code} {response.reason_phrase}"}
    if response.is_success and "hits" in found:
        return found
    message = f"the service says: {found.get('detail')}"
    if response.status_code in (httpx.codes.BAD_REQUEST, httpx.codes.UNPROCESSABLE_ENTITY):
        raise errors.SettingsError(message)
    raise errors.StoreUnavailable(message)


class FoundDocument(NamedTuple):
    """A hit for a framework."""

    name: str
    """INDEX/ID, which no other document has."""
    text: str
    """The best chunks in their order, with an empty line between them."""
    metadata: dict[str, Any]


def found_in(
    result: SearchResult | dict[str, Any],
) -> tuple[list[FoundDocument], dict[str, Any]]:
    """Return the hits of a result, and those of its `RESULT_FIELDS` that have a value.

    The metadata of a hit has its payload and our own members. A member has `rag_index_` before its
    name if the payload has a field of that name. What failed is also logged, because most frameworks
    return documents alone.
    """
    answer = result if isinstance(result, dict) else result.to_json(explain=True)
    fields = {name: answer[name] for name in RESULT_FIELDS if answer.get(name)}
    _log_doubts(fields)
    return [_found_document(hit, fields) for hit in answer["hits"]], fields


def _log_doubts(fields: dict[str, Any]) -> None:
    """Log what the result lacks, and why its hits may not fit."""
    if "missing" in fields:
        logger.warning("%s", fields["missing"])
    if "nothing_fits" in fields:
        logger.warning("no document is likely to fit the query: those returned are the nearest")
    if "unsure" in fields:
        logger.warning(
            "no document has the words of the query together: those returned are the nearest in"
            " meaning"
        )
    if "rerank_error" in fields:
        logger.warning("the hits are not reranked: %s", fields["rerank_error"])


def _found_document(hit: dict[str, Any], fields: dict[str, Any]) -> FoundDocument:
    """Return a hit. `fields` are those of the result, which every hit has."""
    chunks = sorted(hit["chunks"], key=lambda chunk: chunk["chunk"])
    own = {name: hit[name] for name in hit if name in HIT_FIELDS}
    own |= fields
    own["chunks"] = [chunk["chunk"] for chunk in chunks]
    payload = hit["payload"]
    metadata = dict(payload)
    for name, value in own.items():
        # "title" is `rag_index_title` if the payload has a title of its own.
        metadata[f"rag_index_{name}" if name in payload else name] = value
    text = "\n\n".join(chunk["text"] for chunk in chunks)
    return FoundDocument(f"{hit['index']}/{hit['document_id']}", text, metadata)
