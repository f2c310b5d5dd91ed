"""The reranker that asks a server: `/v1/rerank` of llama.cpp, vLLM, Infinity and others, or `/rerank` of TEI."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urldefrag, urlsplit

import httpx

from rag_index.errors import RerankerError

if TYPE_CHECKING:
    from collections.abc import Sequence

COMMON, TEI = "/v1/rerank", "/rerank"
CONNECT_SECONDS = 5.0
MAX_CHARS = 200
"""Characters of a server's answer that an error shows."""


class RerankServer:
    """A Reranker behind HTTP. The address may name a model: `http://gpu:8000#bge-reranker-v2-m3`."""

    def __init__(self, address: str, timeout: float) -> None:
        """Prepare the client; the first call connects. `timeout` is that of a request, in seconds."""
        url, self._model = urldefrag(address)
        parts = urlsplit(url)
        self._place = f"the reranker at {parts.scheme}://{parts.netloc.rpartition('@')[2]}"
        self._url, self._path = url.rstrip("/").removesuffix(COMMON), COMMON
        self._client = httpx.Client(timeout=httpx.Timeout(timeout, connect=CONNECT_SECONDS))

    def score(self, query: str, texts: Sequence[str]) -> list[float]:
        """Return the server's number for each text, in order. Raises RerankerError if it does not give one for each."""
        response = self._ask(query, texts)
        if response.status_code == httpx.codes.NOT_FOUND and self._path == COMMON:
            self._path = TEI
            response = self._ask(query, texts)
        if response.is_error:
            words = " ".join(response.text.split())[:MAX_CHARS]
            raise RerankerError(f"{self._place} answers {self._path} with status {response.status_code}: {words}")
        try:
            found = response.json()
            rows = found["results"] if isinstance(found, dict) else found
            scores = {int(row["index"]): float(row.get("relevance_score", row.get("score"))) for row in rows}
            return [scores[number] for number in range(len(texts))]
        except (AttributeError, KeyError, TypeError, ValueError) as exc:
            raise RerankerError(
                f"{self._place} does not give a number for each of {len(texts)} texts: is it a reranker?"
            ) from exc

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _ask(self, query: str, texts: Sequence[str]) -> httpx.Response:
        """Send one request. Text that is no Unicode goes as question marks, as in the store."""
        clean = [text.encode("utf-8", "replace").decode() for text in (query, *texts)]
        body: dict[str, Any] = {"query": clean[0], "documents": clean[1:], "top_n": len(texts)}
        if self._path == TEI:
            body = {"query": clean[0], "texts": clean[1:], "truncate": True}
        elif self._model:
            body["model"] = self._model
        try:
            return self._client.post(self._url + self._path, json=body)
        except httpx.TimeoutException as exc:
            raise RerankerError(f"{self._place} does not answer in time: raise [retrieve] timeout") from exc
        except (httpx.TransportError, httpx.InvalidURL) as exc:
            raise RerankerError(f"{self._place} cannot be reached ({exc}): start it, or correct reranker") from exc
