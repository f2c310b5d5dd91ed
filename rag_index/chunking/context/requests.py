"""Requests for many contexts: one for each chunk, several in flight at once, over the hosts of a pool."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rag_index.chunking.context.answer import extract_context
from rag_index.chunking.context.prompt import question
from rag_index.errors import (
    EmbedderUnavailable,
    HostUnreachable,
    RateLimited,
    RequestTimedOut,
    TextRefused,
    TextTooLong,
)
from rag_index.hosts.calls import HostCalls
from rag_index.hosts.trials import Request

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rag_index.chunking.context.prompt import Passage
    from rag_index.chunking.context.service import GeneratingModel, Recipe
    from rag_index.hosts.ollama_client import Answer
    from rag_index.hosts.pool import Clock, Host, Pool
    from rag_index.hosts.stats import RequestStats

__all__ = ["ContextRequest", "ContextRequests"]

MAX_ANSWERS = 2
"""Answers for one chunk that may be unusable; the second is requested with a temperature."""
MAX_REDUCTIONS = 4
"""How often the part of the document in the question is reduced because the model has no room for it."""
RETRY_TEMPERATURE = 0.8
"""The temperature of a second answer: without one the model would repeat the first."""


@dataclass(slots=True)
class ContextRequest(Request):
    """A chunk that needs a context, and what went wrong with it so far."""

    passage: Passage
    max_tokens: int
    """Tokens that its question may have."""
    answers: int = 0
    reductions: int = 0
    context: str = ""
    reason: str = ""
    """Why the chunk has no context, in words; empty while it is being requested, and if it has one."""


class ContextRequests(HostCalls[ContextRequest]):
    """Requests contexts once: after `await run()` each of `requests` has a context or a reason.

    At most `max_in_flight` requests are in flight at once. A host that asks for a pause, or lets a request time out,
    gets half as many. `on_context` is called with each request whose context arrives.
    """

    def __init__(
        self,
        pool: Pool,
        model: GeneratingModel,
        stats: RequestStats,
        clock: Clock,
        *,
        recipe: Recipe,
        requests: Sequence[ContextRequest],
        max_in_flight: int,
        patience: float,
        on_context: Callable[[ContextRequest], None],
    ) -> None:
        super().__init__(pool, model, stats, clock, patience=patience)
        self._recipe, self._max_in_flight, self._on_context = recipe, max_in_flight, on_context
        self._waiting = deque(requests)

    async def run(self) -> None:
        """Send all requests and wait for their outcome.

        Raises EmbedderUnavailable or RateLimited if no host recovers within `patience` seconds, and ModelMissing,
        ModelChanged or EmbedderError if a host answers but cannot be used.
        """
        await self._run_to_end()

    def _has_unsent(self) -> bool:
        return bool(self._waiting)

    def _send_what_fits(self) -> None:
        while self._waiting and self._in_flight < self._max_in_flight:
            request = self._waiting[0]
            now = self._clock.now()
            host = self._pool.pick(
                now, chars=1, waiting=len(self._waiting), alone=request.tries > 0, avoid=request.avoided
            )
            if host is None:
                return
            self._waiting.popleft()
            self._send_or_blame(request, host, now)

    async def _send(self, request: ContextRequest, host: Host, started: float) -> None:
        self._count_send(request)
        try:
            answer = await host.endpoint.generate(
                question(self._recipe.prompt, request.passage, request.max_tokens), **self._options(request)
            )
        except RateLimited as exc:
            self._host_paused(host, exc, started)
            self._requeue(request)
        except EmbedderUnavailable as exc:
            self._record_fault(request, host, exc, started)
        except TextTooLong as exc:
            self._reduce(request, request.max_tokens // 2, str(exc))
        except TextRefused as exc:
            host.revoke_admission()
            self._record_failure(request, host, exc)
        else:
            host.record_success(1, self._clock.now() - started)
            self._host_answered(host, started)
            self._accept(request, answer)
        finally:
            self._request_ended(host)

    def _options(self, request: ContextRequest) -> dict[str, float]:
        retry = request.answers > 0
        return {
            "num_ctx": self._recipe.num_ctx,
            "num_predict": self._recipe.num_predict,
            "temperature": RETRY_TEMPERATURE if retry else 0.0,
            "seed": int(self._clock.chance() * 2**31) if retry else 0,
        }

    def _record_fault(self, request: ContextRequest, host: Host, error: EmbedderUnavailable, started: float) -> None:
        self._host_failed(host, error, started)
        if isinstance(error, RequestTimedOut):
            host.record_timeout(started, self._clock.now())
        if isinstance(error, HostUnreachable):
            request.trial = None
            self._requeue(request)
        else:
            self._record_failure(request, host, error)

    def _requeue(self, request: ContextRequest) -> None:
        self._waiting.appendleft(request)

    def _blame(self, request: ContextRequest, host: Host) -> None:
        request.reason = f"{request.error} (each time for this chunk; {host.url} answers for others)"

    def _accept(self, request: ContextRequest, answer: Answer) -> None:
        """Use the answer, unless the server's count shows that the question did not fit or the answer is unusable."""
        available = self._recipe.question_tokens
        if answer.prompt_tokens is not None and answer.prompt_tokens > available:
            smaller = request.max_tokens * available // answer.prompt_tokens * 9 // 10
            self._reduce(request, smaller, f"the question has {answer.prompt_tokens} tokens, and {available} fit")
            return
        request.context, reason = extract_context(answer, self._recipe.max_chars)
        request.answers += 1
        if request.context:
            self._on_context(request)
        elif request.answers < MAX_ANSWERS:
            self._waiting.append(request)
        else:
            request.reason = reason

    def _reduce(self, request: ContextRequest, max_tokens: int, reason: str) -> None:
        """Send the request again with a smaller part of the document: the model has not read all of its question."""
        request.reductions += 1
        request.max_tokens = max_tokens
        if request.reductions > MAX_REDUCTIONS:
            request.reason = f"the model has no room for this chunk ({reason})"
        else:
            self._waiting.append(request)
