"""The clients of one server and one model: for Ollama, and for servers with OpenAI's embeddings API
(POST /v1/embeddings)."""

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
"""How long Ollama keeps a model loaded after its last request: longer than the pauses of a run.
Chosen; nothing depends on it."""
ROUTE = "/embeddings"
BASE64 = {"encoding_format": "base64"}
"""The option of a request for the bytes of vectors: parsing their numbers as JSON takes longer than
everything else that is done with them."""
FORMAT_REFUSED = re.compile("encoding_format|base64", re.I)
SAME_VECTOR = 0.05
"""The share of its length by which a vector may differ if a server computes it twice. Chosen: numbers
of another size or order differ by far more."""
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
class GeneratedAnswer:
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
        """Send the request of the library's client, which takes twice as long to parse the
        answer."""
        body: dict[str, Any] = {"model": self._model, "input": texts, "truncate": False}
        if self._options:
            body["options"] = self._options
        body["keep_alive"] = KEEP_ALIVE
        answer = await self._post(f"{self.url}/api/embed", body)
        return self._vectors(answer["embeddings"])

    async def generate(self, prompt: str, **options: float) -> GeneratedAnswer:
        """Return the model's answer to a prompt, without its thinking.

        Args:
            options: Options of Ollama, such as num_ctx and seed.

        Raises as `embed`; the prompt is the text.
        """
        all_options = {**(self._options or {}), **options}
        async with self._errors_mapped(self.timeout):
            answer = await self._client.generate(
                self._model,
                prompt,
                stream=False,
                think=False,
                options=all_options,
                keep_alive=KEEP_ALIVE,
            )
        # A model that repeats itself endlessly does not finish: "length", or not done.
        has_ended = bool(answer.done) and answer.done_reason != "length"
        return GeneratedAnswer(answer.response or "", has_ended, answer.prompt_eval_count)

    async def details(self) -> ModelDetails:
        """Return the details of the model.

        Its manifest is requested each time, the rest only if that has changed. Raises ModelMissing,
        and the errors of `embed` for which the server is at fault.
        """
        async with self._errors_mapped(min(self.timeout, METADATA_SECONDS)):
            answer = await self._client.list()
            digests = {plain_model_name(model.model or ""): model.digest for model in answer.models}
            manifest = digests.get(plain_model_name(self._model))
            if manifest is None:
                raise self._model_missing()
            if self._known is None or self._known[0] != manifest:
                shown = await self._client.show(self._model)
                # The manifest has the licence and, for a model of `ollama create`, a path on that
                # machine, so it differs between hosts with the same weights. It counts only if the
                # server names no weights.
                digest = _weights_digest(shown.modelfile or "") or manifest
                lengths: list[Any] = []
                for key, value in (shown.modelinfo or {}).items():
                    if key.endswith(".context_length"):
                        lengths.append(value)
                context_length = int(lengths[0]) if lengths else None
                self._known = manifest, ModelDetails(digest, context_length)
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


def _weights_digest(modelfile: str) -> str:
    """Return the digest of the weights that a model file names; "" if it names none."""
    found = re.findall(r"^(?:FROM|ADAPTER)\s.*sha256[-:]([0-9a-f]{64})", modelfile, re.M)
    joined = "".join(found)
    # A model with an adapter has several: they are hashed together.
    if len(found) > 1:
        return sha256(joined.encode()).hexdigest()
    return joined


class OpenAIEndpoint(Endpoint):
    """One server with OpenAI's embeddings API: vLLM, TEI, llama-server, LiteLLM, a service, or any
    other.

    Such a server names no digest. Its model is identified by the vector of a plain text, which
    `same_digest` compares.
    """

    service = "the embedding server"
    usual_requests = 16
    """Requests at once: a server that batches embeds the texts of all of them together."""
    compare_seconds = 300.0
    """Seconds: a comparison is an embedding, which may cost money."""

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
        """`BASE64` if the server supports it, and empty if it does not. None until it was tried."""

    async def details(self) -> ModelDetails:
        """Return a digest of the vector of a plain text. Raises BadVectors, and as `embed`."""
        vector = await plain_vector(self, self._model)
        return ModelDetails(probe_digest(vector), plain_vector=vector)

    async def close(self) -> None:
        await self._http.aclose()

    async def _embed(self, texts: list[str]) -> list[NDArray[np.float32]]:
        try:
            rows = await self._rows(texts, self._format or {})
            vectors = self._vectors(rows)
        except TextRefused as exc:
            # Another server behind the same address does not support base64.
            if not (self._format and FORMAT_REFUSED.search(str(exc))):
                raise
            self._format = {}
            rows = await self._rows(texts, {})
            return self._vectors(rows)
        # The first request. Base64 is tried once, whatever its outcome.
        if self._format is None:
            self._format = {}
            if await self._supports_base64(texts, vectors):
                self._format = BASE64
        return vectors

    async def _rows(self, texts: list[str], options: Mapping[str, str]) -> list[Any]:
        """Return the vectors of an answer, in the order of the texts: lists of numbers, or texts in
        base64."""
        body = {"model": self._model, "input": texts, **options}
        answer = await self._post(self._address, body)
        return self._in_order(answer["data"])

    def _vectors(self, rows: Sequence[Any]) -> list[NDArray[np.float32]]:
        if all(isinstance(row, str) for row in rows):
            rows = [np.frombuffer(b64decode(row), "<f4") for row in rows]
        return super()._vectors(rows)

    async def _supports_base64(self, texts: list[str], vectors: list[NDArray[np.float32]]) -> bool:
        """Return whether the server returns the same vectors of these texts in base64."""
        # Some servers refuse it.
        try:
            rows = await self._rows(texts, BASE64)
            pairs = list(zip(self._vectors(rows), vectors, strict=True))
        except (RagIndexError, httpx.HTTPError, ValueError, TypeError, KeyError):
            return False
        # Some have numbers of another size.
        for vector, expected in pairs:
            if vector.size != expected.size:
                return False
            difference = np.linalg.norm(vector - expected)
            if not difference <= SAME_VECTOR * np.linalg.norm(expected):
                return False
        # Some ignore it, and return numbers.
        return all(isinstance(row, str) for row in rows)

    def _in_order(self, rows: Sequence[Mapping[str, Any]]) -> list[Any]:
        """Return the vectors of an answer by their numbers. Raises BadVectors if these are not 0, 1,
        2, ….

        A server that does not number its vectors returns them in order.
        """
        found = {row.get("index", position): row["embedding"] for position, row in enumerate(rows)}
        numbers = range(len(rows))
        if sorted(found) != list(numbers):
            raise BadVectors(f"{self.url} does not number its vectors from 0 to {len(rows) - 1}")
        return [found[number] for number in numbers]

    def _refusal(self, status: int, words: str, headers: Mapping[str, str]) -> RagIndexError:
        message = f"{self.url} answers {status}: {words}"
        if status in (401, 403):
            if self._key:
                remedy = (
                    f"correct the key in {self._key_variable} ([embedder] api_key_env), or what it"
                    " may do"
                )
            else:
                remedy = (
                    "set [embedder] api_key_env to the environment variable that holds the"
                    " server's key"
                )
            return EmbedderError(f"{message}: {remedy}")
        if status in (400, 404, 422) and NO_MODEL.search(words):
            return self._model_missing()
        if status == 405:
            return EmbedderError(f"{message}; is there a server with POST {self._address}?")
        # 413, or 400 with "maximum allowed batch size 32": too many texts, and none is too long.
        is_of_request = status in (400, 413, 422) and not TOO_LONG.search(words)
        if is_of_request and (status == 413 or TOO_MANY.search(words)):
            return RequestTooLong(f"{message}: lower batch_texts of [embedder]")
        return super()._refusal(status, words, headers)

    def _model_missing(self) -> ModelMissing:
        return ModelMissing(
            f"{self.url} has no model {self._model!r}: correct [embedder] model, or load it there"
        )


def embeddings_address(url: str) -> str:
    """Return the address of the route for the URL of the settings."""
    # http://host:8000/v1/embeddings
    if url.endswith(ROUTE):
        return url
    # http://host:8000/v1, or another path
    if urlsplit(url).path:
        return f"{url}{ROUTE}"
    # http://host:8000
    return f"{url}/v1{ROUTE}"
