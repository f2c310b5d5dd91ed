"""The servers that write contexts and their model, and everything that decides the contexts."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass, field

from rag_index.errors import EmbedderError, TextRefused, TextTooLong
from rag_index.hosts.loop import EventLoopThread
from rag_index.hosts.model import KnownModel
from rag_index.hosts.ollama_client import Endpoint, ModelDetails
from rag_index.hosts.survey import HostReport, StartLimit, agreed_report, survey_hosts

__all__ = ["GeneratingModel", "Recipe", "Servers", "check_model", "context_tokens"]

VERSION = 1
"""The version of the frame, the window and the use of answers: raising it means that all contexts are written again."""
PLAIN_PROMPT = "Answer with one word: are you there?"
UNKNOWN_CONTEXT = 2048
"""Tokens of context of a model that does not say how many it takes."""

log = logging.getLogger("rag_index.chunking.context")


@dataclass(frozen=True, slots=True)
class Servers:
    """Ollama servers and how to ask them, as `Endpoint` expects it."""

    hosts: tuple[str, ...]
    model: str
    timeout: float
    keep_alive: str
    requests_in_flight: int
    """Requests in flight at once, over all hosts."""
    num_thread: int | None
    patience: float
    """Seconds to wait for hosts that are down."""
    num_ctx: int
    """Tokens of context to ask for at most."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that decides the contexts, apart from documents and chunks."""

    digest: str
    """The digest of the model's weights."""
    prompt: str
    max_chars: int
    num_ctx: int
    """Tokens of question and answer together."""

    @property
    def fingerprint(self) -> str:
        """A short hash of all fields and of VERSION (16 hex digits)."""
        fields = "\0".join([str(VERSION), self.digest, self.prompt, str(self.max_chars), str(self.num_ctx)])
        return hashlib.blake2b(fields.encode("utf-8", "replace"), digest_size=8).hexdigest()

    @property
    def num_predict(self) -> int:
        """The tokens that an answer may have: enough for `max_chars` characters in most languages."""
        return max(32, min(self.max_chars // 2, self.num_ctx // 4))

    @property
    def question_tokens(self) -> int:
        """The tokens that a question may have."""
        return self.num_ctx - self.num_predict


@dataclass(slots=True)
class GeneratingModel(KnownModel):
    """The model that writes contexts: compared when a host is first asked, and tested with a word after a failure."""

    num_ctx: int = UNKNOWN_CONTEXT
    _compared: set[str] = field(default_factory=set)
    """The hosts whose model was compared before."""

    async def try_out(self, endpoint: Endpoint) -> None:
        """As `HostModel.try_out`."""
        await self.compare(endpoint)
        if endpoint.url in self._compared:
            await check_generating(endpoint, self.name, self.num_ctx)
        self._compared.add(endpoint.url)


async def check_generating(endpoint: Endpoint, model: str, num_ctx: int) -> None:
    """Make a host's model write a word. Raises as `Endpoint.generate`, and EmbedderError if the model cannot write."""
    try:
        await endpoint.generate(PLAIN_PROMPT, num_ctx=num_ctx, num_predict=1, temperature=0)
    except (TextRefused, TextTooLong) as exc:
        raise EmbedderError(f"{exc}: model {model} cannot write contexts; name one that generates text") from exc


def check_model(servers: Servers) -> ModelDetails:
    """Return the details of the model, after every host has written a word with it in a window of `num_ctx` tokens.

    Raises as `agreed_report`.
    """
    loop = EventLoopThread("rag-index-contexts")
    try:
        report = agreed_report(loop.run(_survey_servers(servers)), servers.model, log)
    finally:
        loop.stop()
    return ModelDetails(report.digest, report.context_length)


async def _survey_servers(servers: Servers) -> list[HostReport]:
    async def use_model(endpoint: Endpoint, details: ModelDetails) -> None:
        await check_generating(endpoint, servers.model, context_tokens(details, servers.num_ctx))

    endpoints = [Endpoint(url, servers) for url in servers.hosts]
    try:
        return await survey_hosts(endpoints, use_model, limit=StartLimit(servers.timeout, "timeout of the context"))
    finally:
        for endpoint in endpoints:
            await endpoint.close()


def context_tokens(details: ModelDetails, num_ctx: int) -> int:
    """Return the tokens of context to ask for: `num_ctx`, or fewer if the model takes fewer."""
    return min(num_ctx, details.context_length or UNKNOWN_CONTEXT)
