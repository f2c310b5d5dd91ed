"""The clients of one server and one model: Ollama, and what answers POST /v1/embeddings as OpenAI's
API says."""

from __future__ import annotations

import re
from base64 import b64decode
from contextlib import asynccontextmanager
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx
import numpy as np
import ollama
from pydantic import ValidationError

from rag_index.components.hosts.endpoint import (
    METADATA_SECONDS,
    TOO_LONG,
    Endpoint,
    ModelDetails,
    plain_model_name,
    plain_vector,
)
from rag_index.core.documents.sizes import shows_sizes
from rag_index.core.documents.vectors import probe_digest
from rag_index.errors import (
    BadVectors,
    EmbedderError,
    EmbedderUnavailable,
    ModelMissing,
    RagIndexError,
    RequestTooLong,
    TextRefused,
)
from rag_index.quotes import without_values

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from numpy.typing import NDArray

    from rag_index.core.settings import EmbedderSettings

KEEP_ALIVE = "30m"
"""How long Ollama keeps a model loaded after its last request."""
ROUTE = "/embeddings"
BASE64 = {"encoding_format": "base64"}
"""Asks for the bytes of vectors: to read their numbers as JSON takes longer than all else that is
done with them."""
FORMAT_REFUSED = re.compile("encoding_format|base64", re.I)
SAME_VECTOR = 0.05
"""The share of its length by which a vector may differ if a server computes it twice."""
TOO_MANY = re.compile(
    r"batch size|(in one|per|submitted) batch|more batches|too many (inputs|texts|documents)|tokens"
    r" per request"
    r"|array too long|at most \d+ (inputs|items|texts)",
    re.I,
)
"""The wordings of TEI, OpenAI, Mistral, Gemini, Voyage and Cohere for a request with too many
texts."""
NO_MODEL = re.compile(
    r"model\b.*(not found|does not exist|no such)|invalid model|unknown model|model_not_found", re.I
)


@shows_sizes("ended", "prompt_tokens")
@dataclass(frozen=True, slots=True)
class Answer:
    """The answer of a generating model."""

    text: str
    ended: bool
    """Whether the model finished the answer, instead of reaching the maximum number of tokens."""
    prompt_tokens: int | None
    """Number of tokens of the prompt that the model read; None if the server does not say."""


class OllamaEndpoint(Endpoint):
    """One Ollama server."""

    service = "Ollama"

    def __init__(self, url: str, settings: EmbedderSettings, dimensions: int | None = None) -> None:
        super().__init__(url, settings, dimensions)
        self._known: tuple[str, ModelDetails] | None = None
        self._options = {"num_thread": settings.num_thread} if settings.num_thread else None
        self._client = ollama.AsyncClient(host=url, **self._client_options)
        self._http = httpx.AsyncClient(**self._client_options)

    async def _embed(self, texts: list[str]) -> list[NDArray[np.float32]]:
        """Send the request that the library's client would, whose reading of the answer costs twice
        as much."""
        body: dict[str, Any] = {"model": self._model, "input": texts, "truncate": False}
        body |= {"options": self._options} if self._options else {}
        body |= {"keep_alive": KEEP_ALIVE}
        return self._vectors((await self._post(f"{self.url}/api/embed", body))["embeddings"])

    async def generate(self, prompt: str, **options: float) -> Answer:
        """Return the model's answer to a prompt, without its thinking. `options` are Ollama's
        (num_ctx, seed, …). Raises as `embed`; the prompt is the text."""
        async with self._errors_mapped(self.timeout):
            answer = await self._client.generate(
                self._model,
                prompt,
                stream=False,
                think=False,
                options={**(self._options or {}), **options},
                keep_alive=KEEP_ALIVE,
            )
        ended = (
            bool(answer.done) and answer.done_reason != "length"
        )  # neither holds if it repeats itself endlessly
        return Answer(answer.response or "", ended, answer.prompt_eval_count)

    async def details(self) -> ModelDetails:
        """Return the details of the model. Its manifest is looked up each time, the rest only if
        that has changed. The digest is that of the weights, or a hash over several if the model has
        an adapter. Raises ModelMissing, and the errors of `embed` that mean the server is at
        fault."""
        async with self._errors_mapped(min(self.timeout, METADATA_SECONDS)):
            answer = await self._client.list()
            manifest = {
                plain_model_name(model.model or ""): model.digest for model in answer.models
            }.get(plain_model_name(self._model))
            if manifest is None:
                raise self._model_missing()
            if self._known is None or self._known[0] != manifest:
                response = await self._client.show(self._model)
                found = re.findall(
                    r"^(?:FROM|ADAPTER)\s.*sha256[-:]([0-9a-f]{64})", response.modelfile or "", re.M
                )
                weights = (
                    sha256("".join(found).encode()).hexdigest()
                    if len(found) > 1
                    else "".join(found)
                )
                lengths = [
                    size
                    for key, size in (response.modelinfo or {}).items()
                    if key.endswith(".context_length")
                ]
                # The manifest has the licence and, for a model made by `ollama create`, a path on
                # that machine, and differs between hosts with the same weights: it counts only if
                # the server names no weights.
                self._known = (
                    manifest,
                    ModelDetails(weights or manifest, int(lengths[0]) if lengths else None),
                )
        return self._known[1]

    async def close(self) -> None:
        await self._client.close()  # type: ignore[no-untyped-call]
        await self._http.aclose()

    @asynccontextmanager
    async def _errors_mapped(self, seconds: float) -> AsyncIterator[None]:
        async with super()._errors_mapped(seconds):
            try:
                yield
            except ollama.ResponseError as exc:
                raise self._refusal(exc.status_code, without_values(str(exc.error)), {}) from exc
            except ValidationError as exc:
                raise EmbedderUnavailable(
                    f"{self.url} returned JSON that Ollama would not return: is it Ollama?"
                ) from exc

    def _model_missing(self) -> ModelMissing:
        return ModelMissing(
            f"{self.url} has no model {self._model!r}: run `OLLAMA_HOST={self.url} ollama pull"
            f" {self._model}`"
        )


class OpenAIEndpoint(Endpoint):
    """One server with OpenAI's embeddings API. The server may be any: vLLM, TEI, llama-server,
    LiteLLM, a service. Such a server names no digest. Its model is known by the vector of a plain
    text, which `same_digest` compares."""

    service = "the embedding server"
    usual_requests = 16  # one that batches takes the texts of all
    compare_seconds = 300.0  # a comparison is an embedding, which may cost money

    def __init__(self, url: str, settings: EmbedderSettings) -> None:
        super().__init__(url, settings, settings.dimensions)
        self._address = embeddings_address(url)
        self._key_variable = settings.api_key_env
        self._key = settings.api_key.get_secret_value() if settings.api_key else ""
        if self._key_variable and not self._key:
            raise EmbedderError(
                f"the environment variable {self._key_variable} ([embedder] api_key_env) is not set"
            )
        if self._key:
            self._client_options["headers"]["Authorization"] = f"Bearer {self._key}"
        self._http = httpx.AsyncClient(**self._client_options)
        self._format: Mapping[str, str] | None = None
        """`BASE64` if the server takes it, and empty if it does not; None until it was tried."""

    async def details(self) -> ModelDetails:
        """Return a digest made of the vector of a plain text. Raises BadVectors, and what `embed`
        raises."""
        return ModelDetails(probe_digest(await plain_vector(self, self._model)))

    async def close(self) -> None:
        await self._http.aclose()

    async def _embed(self, texts: list[str]) -> list[NDArray[np.float32]]:
        try:
            vectors = self._vectors(await self._rows(texts, self._format or {}))
        except TextRefused as exc:  # by another server behind the same address
            if not (self._format and FORMAT_REFUSED.search(str(exc))):
                raise
            self._format = {}
            return self._vectors(await self._rows(texts, {}))
        if self._format is None:
            self._format = {}  # whatever becomes of this trial, it is the only one
            self._format = BASE64 if await self._takes_base64(texts, vectors) else {}
        return vectors

    async def _rows(self, texts: list[str], more: Mapping[str, str]) -> list[Any]:
        answer = await self._post(self._address, {"model": self._model, "input": texts, **more})
        return self._in_order(answer["data"])

    def _vectors(self, rows: Sequence[Any]) -> list[NDArray[np.float32]]:
        if all(isinstance(row, str) for row in rows):
            rows = [np.frombuffer(b64decode(row), "<f4") for row in rows]
        return super()._vectors(rows)

    async def _takes_base64(self, texts: list[str], vectors: list[NDArray[np.float32]]) -> bool:
        """Return whether the server answers these texts in base64 when asked, and with the same
        vectors: some refuse it, some ignore it, and some have numbers of another size."""
        try:
            rows = await self._rows(texts, BASE64)
            pairs = list(zip(self._vectors(rows), vectors, strict=True))
        except (RagIndexError, httpx.HTTPError, ValueError, TypeError, KeyError):
            return False
        same = all(
            a.size == b.size and np.linalg.norm(a - b) <= SAME_VECTOR * np.linalg.norm(b)
            for a, b in pairs
        )
        return same and all(isinstance(row, str) for row in rows)

    def _in_order(self, rows: Sequence[Mapping[str, Any]]) -> list[Any]:
        found = {row.get("index", place): row["embedding"] for place, row in enumerate(rows)}
        if sorted(found) != list(range(len(rows))):
            raise BadVectors(f"{self.url} does not number its vectors from 0 to {len(rows) - 1}")
        return [found[place] for place in range(len(rows))]

    def _refusal(self, status: int, words: str, headers: Mapping[str, str]) -> RagIndexError:
        message = f"{self.url} answers {status}: {words}"
        if status in (401, 403):
            remedy = (
                "set [embedder] api_key_env to the environment variable that holds the server's key"
            )
            if self._key:
                remedy = (
                    f"correct the key in {self._key_variable} ([embedder] api_key_env), or what it"
                    " may do"
                )
            return EmbedderError(f"{message}: {remedy}")
        if status in (400, 404, 422) and NO_MODEL.search(words):
            return self._model_missing()
        if status == 405:
            return EmbedderError(f"{message}; is there a server with POST {self._address}?")
        if (
            status in (400, 413, 422)
            and not TOO_LONG.search(words)
            and (status == 413 or TOO_MANY.search(words))
        ):
            return RequestTooLong(f"{message}: lower batch_texts of [embedder]")
        return super()._refusal(status, words, headers)

    def _model_missing(self) -> ModelMissing:
        return ModelMissing(
            f"{self.url} has no model {self._model!r}: correct [embedder] model, or load it there"
        )


def embeddings_address(url: str) -> str:
    """Return the address of the route: `url` may end before /v1, with it or another path, or be the
    address itself."""
    if url.endswith(ROUTE):
        return url
    return f"{url}{ROUTE}" if urlsplit(url).path else f"{url}/v1{ROUTE}"
