"""Which servers write contexts, what decides them, and whether the servers can."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rag_index.errors import EmbedderError, EmbedderUnavailable, ModelChanged, RagIndexError, TextRefused, TextTooLong
from rag_index.hosts.endpoint import Endpoint
from rag_index.hosts.loop import EventLoopThread
from rag_index.hosts.model import KnownModel

if TYPE_CHECKING:
    from rag_index.hosts.endpoint import ModelDetails

__all__ = ["GeneratingModel", "Recipe", "Servers", "look"]

VERSION = 1
"""Of the frame, the window and what of an answer is used: another one means that contexts are made anew."""
PLAIN_PROMPT = "Answer with one word: are you there?"
TRIES = 3
FIRST_PAUSE = 0.2
UNKNOWN_CONTEXT = 2048
"""Tokens, of a model that does not say."""

log = logging.getLogger("rag_index.chunking.context")


@dataclass(frozen=True, slots=True)
class Servers:
    """Ollama servers and how they are asked; as `Endpoint` wants it."""

    hosts: tuple[str, ...]
    model: str
    timeout: float
    keep_alive: str
    requests_in_flight: int
    """In all, over the hosts."""
    num_thread: int | None
    patience: float
    """Seconds that hosts which are down are waited for."""
    num_ctx: int
    """Tokens that may be asked for."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """What decides contexts, beside documents and chunks."""

    digest: str
    """Of the model's weights."""
    prompt: str
    max_chars: int
    num_ctx: int
    """Tokens of question and answer."""

    @property
    def fingerprint(self) -> str:
        """A short hash of all (16 hex digits)."""
        said = "\0".join([str(VERSION), self.digest, self.prompt, str(self.max_chars), str(self.num_ctx)])
        return hashlib.blake2b(said.encode("utf-8", "replace"), digest_size=8).hexdigest()

    @property
    def num_predict(self) -> int:
        """Most tokens of an answer: what `max_chars` characters take in most languages."""
        return max(32, min(self.max_chars // 2, self.num_ctx // 4))


@dataclass(slots=True)
class GeneratingModel(KnownModel):
    """Compared when a host is first asked; made to write a word once it has failed."""

    num_ctx: int = UNKNOWN_CONTEXT
    _asked: set[str] = field(default_factory=set)

    async def try_out(self, endpoint: Endpoint) -> None:
        """As `HostModel.try_out`."""
        await self.compare(endpoint)
        if endpoint.url in self._asked:
            await write_a_word(endpoint, self.name, self.num_ctx)
        self._asked.add(endpoint.url)


async def write_a_word(endpoint: Endpoint, model: str, num_ctx: int) -> None:
    """See that a host's model writes. Raises as `Endpoint.generate`, EmbedderError where the model cannot."""
    try:
        await endpoint.generate(PLAIN_PROMPT, num_ctx=num_ctx, num_predict=1, temperature=0)
    except (TextRefused, TextTooLong) as exc:
        raise EmbedderError(f"{exc} (model {model}: is it one that generates text? name another one)") from exc


def look(servers: Servers) -> ModelDetails:
    """What the model is, from every host that answers, each made to write a word; `num_ctx` is asked for already.

    Raises:
        EmbedderUnavailable: no host answers.
        ModelMissing, EmbedderError: a host cannot be used.
        ModelChanged: hosts have different models of this name.
    """
    loop = EventLoopThread("rag-index-contexts")
    try:
        return loop.run(_look(servers))
    finally:
        loop.stop()


async def _look(servers: Servers) -> ModelDetails:
    endpoints = [Endpoint(url, servers) for url in servers.hosts]
    try:
        found = await asyncio.gather(*(_of_host(endpoint, servers) for endpoint in endpoints))
    finally:
        for endpoint in endpoints:
            await endpoint.close()
    well = {url: one for url, one in zip(servers.hosts, found, strict=True) if not isinstance(one, RagIndexError)}
    for error in found:
        if isinstance(error, RagIndexError):
            if not well or not isinstance(error, EmbedderUnavailable):
                raise error
            log.warning("contexts: going on without one of %d Ollama hosts: %s", len(found), error)
    if len({one.digest for one in well.values()}) > 1:
        having = ", ".join(f"{url} weights {one.digest[:12]}" for url, one in well.items())
        name = servers.model
        raise ModelChanged(f"hosts have different models named {name}: {having}; run `ollama pull {name}` on each")
    return next(iter(well.values()))


async def _of_host(endpoint: Endpoint, servers: Servers) -> ModelDetails | RagIndexError:
    failure: RagIndexError | None = None
    for attempt in range(TRIES):
        await asyncio.sleep(FIRST_PAUSE * 2**attempt if attempt else 0)
        try:
            details = await endpoint.details()
            await write_a_word(endpoint, servers.model, room_of(details, servers.num_ctx))
        except EmbedderUnavailable as exc:
            failure = exc
        except RagIndexError as exc:
            return exc
        else:
            return details
    return failure or EmbedderUnavailable(f"{endpoint.url} gave no answer")


def room_of(details: ModelDetails, num_ctx: int) -> int:
    """Tokens that a model is given room for."""
    return min(num_ctx, details.context_length or UNKNOWN_CONTEXT)
