"""One call for many contexts: each chunk is a request, several of them under way at once, over the hosts of a pool."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rag_index.chunking.context.answer import usable
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

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rag_index.chunking.context.prompt import Passage
    from rag_index.chunking.context.service import GeneratingModel, Recipe
    from rag_index.hosts.endpoint import Answer
    from rag_index.hosts.pool import Clock, Host, Pool
    from rag_index.hosts.stats import RequestStats

__all__ = ["Asking", "Wanted"]

FAULT_TRIES = 2
"""Requests for one chunk that end in a fault or beyond their time, the second with nothing beside it."""
ANSWER_TRIES = 2
"""Answers to one chunk that cannot be used; the second is asked for with chance."""
NARROWINGS = 4
"""How often a document is shown from a smaller part, where the model has no room for the last."""
CHANCE = 0.8
"""The temperature of a second answer: without it the model says the same again."""


@dataclass(slots=True)
class Wanted:
    """A chunk without context, and what went wrong with it so far."""

    passage: Passage
    room: int
    """Tokens that its question may have."""
    sends: int = 0
    faults: int = 0
    answers: int = 0
    narrowings: int = 0
    error: Exception | None = None
    failed_at: float = 0.0
    context: str = ""
    reason: str = ""
    """Why it has no context, in words; empty while it is asked for, and where it has one."""

    @property
    def suspect(self) -> bool:
        """Whether the chunk rather than the server is the reason, should the server prove to be well."""
        return self.faults >= FAULT_TRIES


class Asking(HostCalls):
    """Asks for contexts once: after `await Asking(…).run()` each of `wanted` has a context or a reason.

    Not more than `most` requests are under way at once; a host that asks for a pause, or lets a request run out of
    time, gets half as many. `tell` is called with each context as it comes.
    """

    def __init__(
        self,
        pool: Pool,
        model: GeneratingModel,
        stats: RequestStats,
        clock: Clock,
        *,
        recipe: Recipe,
        wanted: Sequence[Wanted],
        most: int,
        patience: float,
        tell: Callable[[Wanted], None],
    ) -> None:
        super().__init__(pool, model, stats, clock, patience=patience)
        self._recipe, self._most, self._tell = recipe, most, tell
        self._waiting = deque(wanted)

    async def run(self) -> None:
        """Raises EmbedderUnavailable or RateLimited where no host recovers within `patience` seconds, ModelMissing,
        ModelChanged or EmbedderError where a host answers, and cannot be used."""
        await self._done()

    def _unsent(self) -> bool:
        return bool(self._waiting)

    def _send_some(self) -> None:
        while self._waiting and self._sent < self._most:
            wanted = self._waiting[0]
            now = self._clock.now()
            host = self._pool.pick(now, chars=1, waiting=len(self._waiting), alone=wanted.faults > 0)
            if host is None:
                return
            self._waiting.popleft()
            if wanted.suspect and (host.admitted_at or 0.0) >= wanted.failed_at:
                wanted.reason = f"{wanted.error} (each time it is asked for this chunk; it answers others)"
                continue
            self._begun(host, now, alone=wanted.faults > 0)
            self._start(self._send(wanted, host, now))

    async def _send(self, wanted: Wanted, host: Host, started: float) -> None:
        self._stats.requests += 1
        self._stats.retries += wanted.sends > 0
        wanted.sends += 1
        try:
            answer = await host.endpoint.generate(
                question(self._recipe.prompt, wanted.passage, wanted.room), **self._options(wanted)
            )
        except RateLimited as exc:
            self._stats.rate_limited += 1
            host.limited(exc, exc.retry_after, started, self._clock)
            self._waiting.appendleft(wanted)
        except EmbedderUnavailable as exc:
            self._failed(wanted, host, exc, started)
        except TextTooLong as exc:
            self._narrow(wanted, wanted.room // 2, str(exc))
        except TextRefused as exc:
            wanted.reason = str(exc)
        else:
            host.succeeded(1, self._clock.now() - started)
            self._recovery.over(host, self._clock.now())
            self._accept(wanted, answer)
        finally:
            self._ended(host)

    def _options(self, wanted: Wanted) -> dict[str, float]:
        again = wanted.answers > 0
        return {
            "num_ctx": self._recipe.num_ctx,
            "num_predict": self._recipe.num_predict,
            "temperature": CHANCE if again else 0.0,
            "seed": int(self._clock.chance() * 2**31) if again else 0,
        }

    def _failed(self, wanted: Wanted, host: Host, error: EmbedderUnavailable, started: float) -> None:
        host.failed(error, started, self._clock)
        if isinstance(error, RequestTimedOut):
            host.slowed(started, self._clock.now())
        if not isinstance(error, HostUnreachable):
            wanted.faults += 1
            wanted.error, wanted.failed_at = error, self._clock.now()
        self._waiting.appendleft(wanted)

    def _accept(self, wanted: Wanted, answer: Answer) -> None:
        room = self._recipe.num_ctx - self._recipe.num_predict
        if answer.prompt_tokens is not None and answer.prompt_tokens > room:
            smaller = wanted.room * room // answer.prompt_tokens * 9 // 10
            self._narrow(wanted, smaller, f"of {answer.prompt_tokens} tokens it has room for {room}")
            return
        wanted.context, why = usable(answer, self._recipe.max_chars)
        wanted.answers += 1
        if wanted.context:
            self._tell(wanted)
        elif wanted.answers < ANSWER_TRIES:
            self._waiting.append(wanted)
        else:
            wanted.reason = why

    def _narrow(self, wanted: Wanted, room: int, why: str) -> None:
        """The model has not seen all of its question: ask again from a smaller part of the document."""
        wanted.narrowings += 1
        wanted.room = room
        if wanted.narrowings > NARROWINGS:
            wanted.reason = f"the model has no room for this chunk ({why})"
        else:
            self._waiting.append(wanted)
