"""The client of one server that answers POST /v1/embeddings, as OpenAI's API describes it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx

from rag_index.components.hosts.endpoint import TOO_LONG, Endpoint, ModelDetails, plain_vector
from rag_index.core.documents.vectors import probe_digest
from rag_index.errors import BadVectors, EmbedderError, ModelMissing, RagIndexError, RequestTooLong

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from rag_index.core.settings import EmbedderSettings

ROUTE = "/embeddings"
TOO_MANY = re.compile(
    r"batch size|(in one|per|submitted) batch|more batches|too many (inputs|texts|documents)|tokens per request"
    r"|array too long|at most \d+ (inputs|items|texts)",
    re.I,
)
"""The wordings of TEI, OpenAI, Mistral, Gemini, Voyage and Cohere for a request with too many texts."""
NO_MODEL = re.compile(r"model\b.*(not found|does not exist|no such)|invalid model|unknown model|model_not_found", re.I)


class OpenAIEndpoint(Endpoint):
    """One server with OpenAI's embeddings API. The server may be any: vLLM, TEI, llama-server, LiteLLM, a service. Such
    a server names no digest. Its model is known by the vector of a plain text, which `same_digest` compares."""

    service = "the embedding server"
    compare_seconds = 300.0  # a comparison is an embedding, which may cost money

    def __init__(self, url: str, settings: EmbedderSettings) -> None:
        super().__init__(url, settings, settings.dimensions)
        self._address = embeddings_address(url)
        self._key_variable = settings.api_key_env
        self._key = settings.api_key.get_secret_value() if settings.api_key else ""
        if self._key_variable and not self._key:
            raise EmbedderError(f"the environment variable {self._key_variable} ([embedder] api_key_env) is not set")
        if self._key:
            self._client_options["headers"]["Authorization"] = f"Bearer {self._key}"
        self._http = httpx.AsyncClient(**self._client_options)

    async def details(self) -> ModelDetails:
        """Return a digest made of the vector of a plain text, which costs an embedding. Raises BadVectors, and what
        `embed` raises."""
        return ModelDetails(probe_digest(await plain_vector(self, self._model)))

    async def close(self) -> None:
        await self._http.aclose()

    async def _embed(self, texts: list[str]) -> list[NDArray[np.float32]]:
        answer = await self._post(self._address, {"model": self._model, "input": texts})
        return self._vectors(self._in_order(answer["data"]))

    def _in_order(self, rows: Sequence[Mapping[str, Any]]) -> list[Any]:
        found = {row.get("index", place): row["embedding"] for place, row in enumerate(rows)}
        if sorted(found) != list(range(len(rows))):
            raise BadVectors(f"{self.url} does not number its vectors from 0 to {len(rows) - 1}")
        return [found[place] for place in range(len(rows))]

    def _refusal(self, status: int, words: str, headers: Mapping[str, str]) -> RagIndexError:
        words = words.replace(self._key, "***") if self._key else words
        message = f"{self.url} answers {status}: {words}"
        if status in (401, 403):
            remedy = "set [embedder] api_key_env to the environment variable that holds the server's key"
            if self._key:
                remedy = f"correct the key in {self._key_variable} ([embedder] api_key_env), or what it may do"
            return EmbedderError(f"{message}: {remedy}")
        if status in (400, 404, 422) and NO_MODEL.search(words):
            return self._model_missing()
        if status == 405:
            return EmbedderError(f"{message}; is there a server with POST {self._address}?")
        if status in (400, 413, 422) and not TOO_LONG.search(words) and (status == 413 or TOO_MANY.search(words)):
            return RequestTooLong(f"{message}: lower batch_texts of [embedder]")
        return super()._refusal(status, words, headers)

    def _model_missing(self) -> ModelMissing:
        return ModelMissing(f"{self.url} has no model {self._model!r}: correct [embedder] model, or load it there")


def embeddings_address(url: str) -> str:
    """Return the address of the route: `url` may end before /v1, with it or another path, or be the address itself."""
    if url.endswith(ROUTE):
        return url
    return f"{url}{ROUTE}" if urlsplit(url).path else f"{url}/v1{ROUTE}"
