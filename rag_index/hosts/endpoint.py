"""One Ollama server, asked for one model. Every foreign error becomes one of ours here, and nowhere else."""

from __future__ import annotations

import asyncio
import re
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from hashlib import sha256
from typing import TYPE_CHECKING, Protocol

import httpx
import numpy as np
import ollama
import orjson
from pydantic import ValidationError

from rag_index.errors import (
    BadVectors,
    EmbedderError,
    EmbedderUnavailable,
    HostUnreachable,
    ModelMissing,
    RagIndexError,
    RateLimited,
    RequestTimedOut,
    TextRefused,
    TextTooLong,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from numpy.typing import NDArray

__all__ = [
    "Answer",
    "Endpoint",
    "EndpointSettings",
    "ModelDetails",
    "HostUnreachable",
    "RequestTimedOut",
    "plain_model_name",
]

CONNECT_SECONDS = 5.0
QUESTION_SECONDS = 30.0
"""For what a server answers without the model."""
PASSING_STATUS = frozenset({408, 425, 499})

TOO_LONG = re.compile(r"context length|input (length|is too l)|too (long|many tokens)|physical batch size", re.I)
"""How versions of Ollama and llama.cpp say it: the input (length) exceeds the (maximum) context length; input is too
large to process, increase the physical batch size."""
NOT_FINITE = re.compile(r"\bNaN\b", re.I)
"""500 "json: unsupported value: NaN" (ollama#15582), 400 "embedding contains NaN or Inf values" (0.17)."""
CRASHED = re.compile(r"\bEOF\b|embed\w* request|runner|connection (refused|reset)|forcibly closed", re.I)
"""What a server says, also with 400, where its own model process died under the request (ollama#16582)."""


@dataclass(frozen=True, slots=True)
class ModelDetails:
    """What a server says of its model.

    `digest` is that of the weights (a hash over them all, where an adapter is there too). The digest that /api/tags
    and `ollama list` show is over a manifest, which holds the licence and, for a model made by `ollama create`, a
    path on that machine: it differs between hosts with the same weights. It stands in where a server names no weights.
    """

    digest: str
    context_length: int | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What a generating model wrote."""

    text: str
    ended: bool
    """It came to its end, and was not cut off at the most tokens it may have."""
    prompt_tokens: int | None
    """Of the question, as far as the model took it in; None where the server does not say."""


class EndpointSettings(Protocol):
    """How a server is asked; `EmbedderSettings` is one."""

    @property
    def model(self) -> str:
        """The model's name."""

    @property
    def timeout(self) -> float:
        """Seconds for one request."""

    @property
    def keep_alive(self) -> str:
        """How long the model stays loaded."""

    @property
    def num_thread(self) -> int | None:
        """Threads for a request; the server's own choice where None."""

    @property
    def requests_in_flight(self) -> int:
        """Requests at once."""


class Endpoint:
    """One Ollama server with connections that are kept. Everything is awaited on one event loop."""

    def __init__(self, url: str, settings: EndpointSettings) -> None:
        self.url = url
        self._model = settings.model
        self._seconds = settings.timeout
        self._keep_alive = settings.keep_alive
        self._known: tuple[str, ModelDetails] | None = None
        self._options = {"num_thread": settings.num_thread} if settings.num_thread else None
        self._client = ollama.AsyncClient(
            host=url,
            timeout=httpx.Timeout(settings.timeout, connect=min(settings.timeout, CONNECT_SECONDS)),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=settings.requests_in_flight),
            event_hooks={"response": [self._refuse_errors]},
        )

    async def embed(self, texts: Sequence[str]) -> list[NDArray[np.float32]]:
        """A vector (float32) for each text, in order; whether the vectors can be right is not looked at.

        Raises:
            HostUnreachable, EmbedderUnavailable, RateLimited: the server, or perhaps a text that it cannot bear.
            TextTooLong, TextRefused, BadVectors: one text or several of them.
            ModelMissing, EmbedderError: asking again gives the same.
        """
        async with self._asked(self._seconds):
            answer = await self._client.embed(
                self._model, list(texts), truncate=False, options=self._options, keep_alive=self._keep_alive
            )
            vectors = _vectors(answer.embeddings)
        if len(vectors) != len(texts):
            raise BadVectors(f"{self.url} answers {len(vectors)} vectors for {len(texts)} texts")
        return vectors

    async def generate(self, prompt: str, **options: float) -> Answer:
        """What the model writes after a prompt, without its thinking; `options` are Ollama's (num_ctx, seed, …).

        Raises:
            HostUnreachable, EmbedderUnavailable, RateLimited: the server, or perhaps a prompt that it cannot bear.
            TextTooLong, TextRefused: the prompt.
            ModelMissing, EmbedderError: asking again gives the same.
        """
        async with self._asked(self._seconds):
            answer = await self._client.generate(
                self._model,
                prompt,
                stream=False,
                think=False,
                options={**(self._options or {}), **options},
                keep_alive=self._keep_alive,
            )
        ended = bool(answer.done) and answer.done_reason != "length"  # neither where it repeats itself without end
        return Answer(answer.response or "", ended, answer.prompt_eval_count)

    async def details(self) -> ModelDetails:
        """What the model is. Its tag is looked up each time, the rest only where that is new.

        Raises ModelMissing, and as `embed` where the server is the reason.
        """
        async with self._asked(min(self._seconds, QUESTION_SECONDS)):
            answer = await self._client.list()
            manifest = {plain_model_name(model.model or ""): model.digest for model in answer.models}.get(
                plain_model_name(self._model)
            )
            if manifest is None:
                raise self._model_missing()
            if self._known is None or self._known[0] != manifest:
                shown = await self._client.show(self._model)
                self._known = manifest, _details(shown, manifest)
        return self._known[1]

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()  # type: ignore[no-untyped-call]

    @asynccontextmanager
    async def _asked(self, seconds: float) -> AsyncIterator[None]:
        """Map what can go wrong within one question, which may take this long in all."""
        try:
            async with asyncio.timeout(seconds):
                yield
        except RagIndexError:
            raise
        except (ConnectionError, httpx.ConnectError, httpx.ConnectTimeout) as exc:
            raise HostUnreachable(f"{self.url} accepts no connection: is Ollama running there?") from exc
        except (TimeoutError, httpx.TimeoutException) as exc:
            raise RequestTimedOut(f"{self.url} gave no answer within {seconds:g} s") from exc
        except ollama.ResponseError as exc:
            raise self._refusal(exc.status_code, str(exc.error), {}) from exc
        except (httpx.HTTPError, httpx.StreamError) as exc:
            raise EmbedderUnavailable(f"{self.url} broke off: {str(exc) or type(exc).__name__}") from exc
        except httpx.InvalidURL as exc:
            raise EmbedderError(f"{self.url} is not an address: {exc}; write hosts as http://host:port") from exc
        except ValidationError as exc:
            if any(error["loc"][:1] == ("embeddings",) and len(error["loc"]) > 1 for error in exc.errors()):
                raise BadVectors(f"{self.url} answers values that are no numbers") from exc
            raise EmbedderUnavailable(f"{self.url} answers something else than asked: is it Ollama?") from exc
        except (ValueError, TypeError) as exc:
            raise EmbedderUnavailable(f"{self.url} answers no JSON, or half of it: is it Ollama?") from exc

    async def _refuse_errors(self, response: httpx.Response) -> None:
        """A response hook: the client's own error has neither headers nor survives a body that it does not expect."""
        if response.is_error:
            await response.aread()
            raise self._refusal(response.status_code, _words(response), response.headers)

    def _refusal(self, status: int, words: str, headers: Mapping[str, str]) -> RagIndexError:
        """Our error for an answer with this status and these words."""
        said = f"{self.url} answers {status}: {words}"
        asked = headers.get("retry-after")
        if status == 429 or (status == 503 and (asked or "server busy" in words)):
            return RateLimited(said, _seconds_asked(asked))
        if TOO_LONG.search(words):
            return TextTooLong(f"{said} (model {self._model}): lower chunk_chars of this index")
        if NOT_FINITE.search(words):
            return BadVectors(said)
        if status == 404:
            named = re.search(r"model\b.*not found", words)
            return self._model_missing() if named else EmbedderError(f"{said}; is it an Ollama server?")
        if status >= 500 or status in PASSING_STATUS or CRASHED.search(words):
            return EmbedderUnavailable(said)
        return TextRefused(said)

    def _model_missing(self) -> ModelMissing:
        return ModelMissing(
            f"{self.url} has no model {self._model!r}: run `OLLAMA_HOST={self.url} ollama pull {self._model}`"
        )


def plain_model_name(name: str) -> str:
    """A model's name without the tag that Ollama takes where none is given."""
    return name.removesuffix(":latest")


def _details(shown: ollama.ShowResponse, manifest: str) -> ModelDetails:
    weights = re.findall(r"^(?:FROM|ADAPTER)\s.*sha256[-:]([0-9a-f]{64})", shown.modelfile or "", re.M)
    digest = weights[0] if len(weights) == 1 else sha256("".join(weights).encode()).hexdigest() if weights else manifest
    lengths = [value for key, value in (shown.modelinfo or {}).items() if key.endswith(".context_length")]
    return ModelDetails(digest, int(lengths[0]) if lengths else None)


def _vectors(rows: Sequence[Sequence[float]]) -> list[NDArray[np.float32]]:
    with np.errstate(over="ignore"):
        try:
            return list(np.asarray(rows, dtype=np.float32).reshape(len(rows), -1))
        except ValueError:  # rows of several lengths
            return [np.asarray(row, dtype=np.float32) for row in rows]


def _words(response: httpx.Response) -> str:
    """What a server says of its error, in one line."""
    try:
        content = orjson.loads(response.content)
        words = content["error"] if isinstance(content, dict) else response.text
    except (orjson.JSONDecodeError, KeyError):
        words = re.sub(r"<[^>]*>", " ", response.text)
    return " ".join(str(words).split())[:300]


def _seconds_asked(header: str | None) -> float | None:
    """Seconds that a Retry-After header asks for: a number, or an HTTP date (RFC 9110, 10.2.3)."""
    if header is None:
        return None
    try:
        seconds = float(header)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(header).timestamp() - time.time()
        except (TypeError, ValueError):
            return None
    return max(0.0, seconds) if np.isfinite(seconds) else None
