"""The client of one server and one model, whatever protocol it speaks.

Foreign errors become ours in this module (`_errors_mapped`, `_refusal`), and their class says whose
fault it is: the server's (HostUnreachable, RateLimited), the server's or a text's
(EmbedderUnavailable), a text's (TextTooLong, TextRefused, BadVectors), or one that no retry changes
(ModelMissing, EmbedderError). `agreed_model` compares the models of all servers before a run.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import ssl
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

import httpx
import numpy as np
import orjson

from rag_index.core.connections import MAX_ANSWER, proxy_remedy, tls_context, why_failed
from rag_index.core.documents.vectors import PROBE, broken_reason, same_digest, shorten
from rag_index.core.recovery import ServiceState, asking
from rag_index.errors import (
    BadVectors,
    EmbedderError,
    EmbedderUnavailable,
    HostUnreachable,
    ModelChanged,
    ModelMissing,
    RagIndexError,
    RateLimited,
    RequestTimedOut,
    TextRefused,
    TextTooLong,
    one_line,
)
from rag_index.quotes import without_texts, without_values

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from rag_index.core.settings import EmbedderSettings

HOST_CONNECT_SECONDS = 5.0
"""Seconds for a connection to a server. Chosen; nothing depends on it."""
METADATA_SECONDS = 30.0
"""Seconds of a request that a server answers without loading the model. Chosen; nothing depends on
it."""
SILENCE_SHARE = 1 / 8
"""The share of its `timeout` for which a server may not answer until it counts as unavailable: 15 s
of 120. Chosen; nothing depends on it."""
RECOVERY_LOOK_SECONDS = 1.0
"""Seconds between two looks whether a server has not answered for long. Chosen; nothing depends on
it."""

TRANSIENT_STATUS = frozenset({408, 424, 425, 499})
"""Statuses below 500 that are temporary faults of the server."""

TOO_LONG = re.compile(
    r"context (length|size)|input (length|is too l)|too (long|many tokens)|physical batch size"
    r"|less than \d+ tokens|exceed\w* max\w* \d+ tokens",
    re.I,
)
"""The wordings of several versions of Ollama, llama.cpp, vLLM, OpenAI, TEI and Mistral: the input
(length) exceeds the (maximum) context length; input is too large to process, increase the physical
batch size; `inputs` must have less than 512 tokens."""

NOT_FINITE = re.compile(r"\bNaN\b", re.I)
"""Status 500 with "json: unsupported value: NaN" (ollama#15582), or 400 with "embedding contains
NaN" (Ollama 0.17)."""

CRASHED = re.compile(
    r"\bEOF\b|embed\w* request|runner|connection (refused|reset)|forcibly closed", re.I
)
"""The message of a server whose model process died during the request; the status may be 400
(ollama#16582)."""
NO_MODEL = re.compile(r"model\b.*not found", re.I)
PLAIN_HTTP = re.compile(r"HTTP request (was sent )?to (an )?HTTPS", re.I)
"""The message of nginx and of Go on a port that speaks TLS."""
PLAIN_TEXT = "a plain text, to see whether the model answers"


@dataclass(frozen=True, slots=True)
class ModelDetails:
    """A server's description of its model; `digest` is that of the weights."""

    digest: str
    context_length: int | None = None
    dimension: int | None = None
    """Dimension of the model's vectors, if a text was embedded to find out."""
    plain_vector: NDArray[np.float32] | None = field(default=None, compare=False, repr=False)
    """Vector of the plain text, if the digest was made from it."""

    def __str__(self) -> str:
        weights = f"weights {self.digest[:12]}"
        if self.dimension is None:
            return weights
        return f"{weights} ({self.dimension}-d)"


class Endpoint(ABC):
    """One server with persistent connections. All methods must be awaited on the same event
    loop."""

    service: ClassVar[str]
    _http: httpx.AsyncClient
    """The connections for texts, which each protocol opens."""
    usual_requests: ClassVar[int] = 4
    """Requests that it gets at once by default: more would only wait there."""
    compare_seconds: ClassVar[float] = 15.0
    """Maximum age of the comparison of its model when it gets work."""

    def __init__(self, url: str, settings: EmbedderSettings, dimensions: int | None = None) -> None:
        """Vectors are cut to `dimensions`, if that is given."""
        self.url = url
        self._dimensions = dimensions
        self._model = settings.model
        self.timeout = settings.timeout
        connect_seconds = min(settings.timeout, HOST_CONNECT_SECONDS)
        self._client_options: dict[str, Any] = {
            "timeout": httpx.Timeout(settings.timeout, connect=connect_seconds),
            "limits": httpx.Limits(max_connections=None, max_keepalive_connections=None),
            "event_hooks": {"response": [self._bound, self._refuse_errors]},
            "headers": {"Accept-Encoding": "identity"},
            # Texts and keys go to the host that the settings name, and to no other.
            "follow_redirects": False,
            "verify": tls_context(),
        }

    async def embed(self, texts: Sequence[str]) -> list[NDArray[np.float32]]:
        """Return a float32 vector for each text, in order. The caller checks whether the vectors
        can be right.

        Raises:
            HostUnreachable, EmbedderUnavailable, RateLimited: The server is at fault, or a text
                that crashes it.
            TextTooLong, TextRefused, BadVectors: One or several of the texts are at fault.
            ModelMissing, EmbedderError: Another try would fail in the same way.
        """
        async with self._errors_mapped(self.timeout):
            vectors = await self._embed(list(texts))
        if len(vectors) != len(texts):
            raise BadVectors(f"{self.url} returned {len(vectors)} vectors for {len(texts)} texts")
        return [shorten(vector, self._dimensions) for vector in vectors]

    @abstractmethod
    async def _embed(self, texts: list[str]) -> list[NDArray[np.float32]]:
        """Send one request, and return the vectors of the answer. Raises the foreign errors that
        `_errors_mapped` maps."""

    async def _post(self, address: str, body: dict[str, Any]) -> Any:
        """Send a request with texts, and return the answer. Raises as `_embed`."""
        headers = {"Content-Type": "application/json"}
        response = await self._http.post(address, content=orjson.dumps(body), headers=headers)
        try:
            return orjson.loads(response.content)
        except orjson.JSONDecodeError:
            # Some servers write NaN, which the library json accepts.
            return json.loads(response.content)

    def _vectors(self, rows: Sequence[Sequence[float]]) -> list[NDArray[np.float32]]:
        try:
            return to_vectors(rows)
        except (TypeError, ValueError) as exc:
            raise BadVectors(
                f"{self.url} returned vectors with values that are not numbers"
            ) from exc

    @abstractmethod
    async def details(self) -> ModelDetails:
        """Return the details of the model. Raises ModelMissing, and the errors of `embed` for which
        the server is at fault."""

    async def is_alive(self) -> bool:
        """Return whether the server answers a plain GET, with whatever status. A server that
        computes does."""
        try:
            tls = tls_context()
            async with httpx.AsyncClient(timeout=HOST_CONNECT_SECONDS, verify=tls) as client:
                await client.get(self.url)
        except (httpx.HTTPError, httpx.InvalidURL, OSError):
            return False
        return True

    @abstractmethod
    async def close(self) -> None:
        """Close the connections."""

    @abstractmethod
    def _model_missing(self) -> ModelMissing:
        """Return the error of a server that does not have the model, with a remedy."""

    @asynccontextmanager
    async def _errors_mapped(self, seconds: float) -> AsyncIterator[None]:
        """Map foreign errors of one request to ours, and limit the time of the whole request."""
        try:
            async with asyncio.timeout(seconds):
                yield
        except (
            ConnectionError,
            ssl.SSLError,
            httpx.ConnectError,
            httpx.ConnectTimeout,
            httpx.ProxyError,
        ) as exc:
            # Such as a certificate that is not trusted.
            reason = why_failed(exc, self.url)
            if reason:
                raise HostUnreachable(f"{self.url} cannot be used: {reason}") from exc
            raise HostUnreachable(
                f"{self.url} accepts no connection: is {self.service} running there?"
            ) from exc
        except (TimeoutError, httpx.TimeoutException) as exc:
            raise RequestTimedOut(f"{self.url} gave no answer within {seconds:g} s") from exc
        except (httpx.HTTPError, httpx.StreamError) as exc:
            reason = why_failed(exc, self.url) or without_values(str(exc)) or type(exc).__name__
            raise EmbedderUnavailable(f"{self.url} broke the connection: {reason}") from exc
        except httpx.InvalidURL as exc:
            raise EmbedderError(
                f"{self.url} is not a valid address ({exc}): write hosts as http://host:port"
            ) from exc
        except (ValueError, TypeError, KeyError) as exc:
            raise EmbedderUnavailable(
                f"{self.url} returned invalid or incomplete JSON: is it {self.service}?"
            ) from exc

    async def _bound(self, response: httpx.Response) -> None:
        """Refuse a redirect and a compressed answer, and limit the bytes of any other. The time of
        the request is limited by `_errors_mapped`."""
        if response.is_redirect:
            location = response.headers.get("location")
            raise EmbedderError(f"{self.url} answers {response.status_code}: name {location}")
        encoding = response.headers.get("content-encoding", "identity")
        if encoding != "identity":
            raise EmbedderUnavailable(
                f"{self.url} answers compressed ({encoding}), which was not asked for"
            )
        response.stream = _Bounded(response.stream, self.url)

    async def _refuse_errors(self, response: httpx.Response) -> None:
        """Raise our error for an error status, with the server's own message in one line.

        This is a response hook because a client's own error may have no headers, and may fail at an
        unexpected body.
        """
        if not response.is_error:
            return
        await response.aread()
        try:
            words = orjson.loads(response.content)
        except orjson.JSONDecodeError:
            words = response.text
        # The message may be two levels deep: {"error": {"message": "model not found"}}.
        for key in ("error", "message", "detail"):
            if isinstance(words, dict) and words.get(key):
                words = words[key]
        message = one_line(words)
        error = self._refusal(response.status_code, message, response.headers)
        # An answer may repeat a text, as {"detail": [{"input": "…"}]} does. Neither the reason of a
        # failure nor a log may have it.
        shown = without_texts(message, _texts_in(response.request))
        error.args = (str(error).replace(message, shown), *error.args[1:])
        raise error

    def _refusal(self, status: int, words: str, headers: Mapping[str, str]) -> RagIndexError:
        """Return our error for an error status and the server's message."""
        message = f"{self.url} answers {status}: {words}"
        retry_after = headers.get("retry-after")
        if status == 429 or (status == 503 and (retry_after or "server busy" in words)):
            return RateLimited(message, _parse_retry_after(retry_after))
        if TOO_LONG.search(words):
            return TextTooLong(f"{message} (model {self._model}): lower chunk_chars of this index")
        if NOT_FINITE.search(words):
            return BadVectors(message)
        if status == 400 and PLAIN_HTTP.search(words):
            return EmbedderError(f"{message}: write https:// in place of http://")
        if status == 407:
            return EmbedderError(f"the proxy before {message}: {proxy_remedy(self.url)}")
        if status == 404 and NO_MODEL.search(words):
            return self._model_missing()
        # Another server, which does not have this route.
        if status == 404:
            return EmbedderError(f"{message}; is it {self.service}?")
        if status >= 500 or status in TRANSIENT_STATUS or CRASHED.search(words):
            return EmbedderUnavailable(message)
        return TextRefused(message)


def _texts_in(request: httpx.Request) -> list[str]:
    """Return the texts of documents and queries in a request, without `PLAIN_TEXT`."""
    try:
        body = orjson.loads(request.content)
    except (orjson.JSONDecodeError, httpx.RequestNotRead):
        # A request without a body, or for a model's details.
        return []
    given = [body.get(name) for name in ("input", "prompt")] if isinstance(body, dict) else []
    texts: list[str] = []
    for value in given:
        texts += value if isinstance(value, list) else [str(value or "")]
    return [text for text in texts if text != PLAIN_TEXT]


class _Bounded(httpx.AsyncByteStream):
    """An answer of at most `MAX_ANSWER` bytes."""

    def __init__(self, stream: Any, url: str) -> None:
        self._stream, self._url = stream, url
        self.aclose = stream.aclose  # type: ignore[method-assign]

    async def __aiter__(self) -> AsyncIterator[bytes]:
        left = MAX_ANSWER
        async for part in self._stream:
            left -= len(part)
            if left < 0:
                raise EmbedderUnavailable(f"{self._url} answers more than {MAX_ANSWER >> 20} MB")
            yield part


@asynccontextmanager
async def noticing_work(
    service: ServiceState, asked: Callable[[], Iterable[Endpoint]]
) -> AsyncIterator[None]:
    """Record during the block whether a service that has not answered for long is at work.

    Args:
        asked: Returns the servers with a request under way.
    """

    async def look() -> None:
        while True:
            await asyncio.sleep(RECOVERY_LOOK_SECONDS)
            if service.is_quiet:
                alive = await asyncio.gather(*(endpoint.is_alive() for endpoint in asked()))
                # It may have answered meanwhile.
                if service.is_quiet:
                    service.at_work(any(alive))

    looking = asyncio.create_task(look())
    try:
        yield
    finally:
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)


def equal_model_remedy(digest: str, name: str) -> str:
    """Return the remedy if hosts have different models."""
    if digest.startswith(PROBE):
        return f"load the same {name} on each host"
    return f"run `ollama pull {name}` on each host to give all hosts the same one"


def plain_model_name(name: str) -> str:
    """Return a model's name without the tag that Ollama assumes by default."""
    return name.removesuffix(":latest")


def to_vectors(rows: Sequence[Sequence[float]]) -> list[NDArray[np.float32]]:
    """Return the rows as float32 vectors, which share a matrix if they have one length."""
    with np.errstate(over="ignore"):
        try:
            return list(np.asarray(rows, dtype=np.float32).reshape(len(rows), -1))
        except ValueError:
            # The rows differ in length.
            return [np.asarray(row, dtype=np.float32) for row in rows]


def _parse_retry_after(header: str | None) -> float | None:
    """Return the seconds of a Retry-After header. None if there is none, or it has a date."""
    try:
        seconds = float(header or "nan")
    except ValueError:
        return None
    return max(0.0, seconds) if np.isfinite(seconds) else None


@dataclass(slots=True)
class KnownModel:
    """The digest and the dimension that every host must have. If they are None, the first host sets
    them."""

    name: str
    digest: str | None = None
    dimension: int | None = None

    async def compare(self, endpoint: Endpoint) -> ModelDetails:
        """Compare the host's digest, and return what the host reports of its model.

        Raises ModelChanged if the digest is not the expected one, and as `Endpoint.details`.
        """
        details = await endpoint.details()
        digest = details.digest
        if self.digest is None:
            self.digest = digest
            return details
        if same_digest(digest, self.digest):
            return details
        remedy = equal_model_remedy(digest, self.name)
        raise ModelChanged(
            f"{endpoint.url} has {self.name} with weights {digest[:12]}, but the run began with"
            f" weights {self.digest[:12]}: start a new run to index with the new model, or {remedy}"
        )

    async def try_out(self, endpoint: Endpoint) -> None:
        """Compare the model, and embed a plain text with it.

        Raises:
            BadVectors: The vector cannot be right.
            EmbedderError: The host refuses even a plain text.
            ModelChanged, EmbedderUnavailable, …: As `compare` and `Endpoint.embed`.
        """
        details = await self.compare(endpoint)
        vector = details.plain_vector
        # Ollama reports a digest. Other servers were compared by their vector of the plain text.
        if vector is None:
            vector = await plain_vector(endpoint, self.name)
        if self.dimension is None:
            self.dimension = vector.size
        why = broken_reason(vector, self.dimension)
        if why is not None:
            raise BadVectors(
                f"{endpoint.url} returned a vector of {why}, though its {self.name} has the"
                " expected digest: restart that server"
            )


async def plain_vector(endpoint: Endpoint, name: str) -> NDArray[np.float32]:
    """Return a host's vector of a plain text.

    Raises:
        BadVectors: The vector is zero or not finite.
        EmbedderError: The host refuses even a plain text.
        EmbedderUnavailable, …: As `Endpoint.embed`.
    """
    try:
        [vector] = await endpoint.embed([PLAIN_TEXT])
    except (TextRefused, TextTooLong) as exc:
        raise EmbedderError(
            f"{exc} (the host refuses even {PLAIN_TEXT!r}: {name} cannot embed there)"
        ) from exc
    why = broken_reason(vector, None)
    if why is not None:
        raise BadVectors(f"{endpoint.url} returned a vector of {why} for a plain text")
    return vector


# The survey before a run


UseModel = Callable[["Endpoint", "ModelDetails"], Awaitable[int | None]]
"""Uses a host's model once, and returns the dimension of its vectors if it embeds."""


async def agreed_model(
    endpoints: Sequence[Endpoint],
    use_model: UseModel,
    settings: EmbedderSettings,
    log: logging.Logger,
    setting: str,
) -> ModelDetails:
    """Use the model of all hosts at the same time, and return its details if they are the same on
    all hosts that answer.

    A host has the `timeout` of the settings for everything together, the loading of its model
    included. If there are several hosts, those that do not answer are only logged.

    Args:
        setting: The setting to raise if the timeout is too short, for messages.

    Raises:
        EmbedderUnavailable: No host answers. A caller that can wait tries again.
        ModelMissing, BadVectors, EmbedderError: A host answers, but cannot be used.
        ModelChanged: The hosts have different models of this name.
    """
    surveys = [_survey(host, use_model, settings.timeout, setting) for host in endpoints]
    found = await asyncio.gather(*surveys)
    unavailable: list[RagIndexError] = []
    models: dict[str, ModelDetails] = {}
    for host, answer in zip(endpoints, found, strict=True):
        if isinstance(answer, ModelDetails):
            models[host.url] = answer
        elif isinstance(answer, EmbedderUnavailable):
            unavailable.append(answer)
        else:
            # It answers and cannot be used, whatever the others do.
            raise answer
    for error in unavailable:
        if not models:
            raise error
        log.warning("%s: continuing without one of %d hosts: %s", settings.model, len(found), error)

    first, *others = models.values()
    for other in others:
        has_same_weights = same_digest(other.digest, first.digest)
        if other.dimension != first.dimension or not has_same_weights:
            listed = ", ".join(f"{url} {model}" for url, model in models.items())
            remedy = equal_model_remedy(first.digest, settings.model)
            raise ModelChanged(
                f"hosts have different models named {settings.model}: {listed}; {remedy}"
            )
    return first


async def _survey(
    host: Endpoint, use_model: UseModel, seconds: float, setting: str
) -> ModelDetails | RagIndexError:
    """Return the model of a host after it was used once, or the error if it cannot be used."""

    async def answer(service: ServiceState) -> ModelDetails:
        try:
            async with asyncio.timeout(seconds), noticing_work(service, lambda: [host]):
                details = await host.details()
                dimension = await use_model(host, details)
                return replace(details, dimension=dimension)
        except (TimeoutError, RequestTimedOut) as exc:
            reason = str(exc) or f"{host.url} did not answer within {seconds:g} s"
            raise RequestTimedOut(
                f"{reason}: restart {host.service} there if it hangs, "
                f"or raise {setting} if its model takes longer to load"
            ) from exc

    try:
        with asking(f"{host.service} at {host.url}", patience=SILENCE_SHARE * seconds) as service:
            return await answer(service)
    except RagIndexError as exc:
        # By now it has the time since which the server fails.
        return exc
