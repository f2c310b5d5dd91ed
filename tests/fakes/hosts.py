"""Ollama servers within the process, on an event loop whose time is virtual.

Nothing here waits: when every coroutine sleeps, the loop's time jumps to the moment at which the
first of them wakes. A test of a decision therefore gives the same result on every machine, however
busy it is.

    hosts = FakeHosts(3) hosts[0].outcomes("a text", [ILL, None])      # the first request with that
    text fails, the second is answered hosts.at(5.0, hosts[1].stop)                  # after five
    virtual seconds entries = hosts.embed(["a text", "another"])
"""

from __future__ import annotations

import asyncio
import selectors
from collections import deque
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from rag_index.components.embedders.servers import EmbeddingCall
from rag_index.components.hosts.endpoint import PLAIN_TEXT, KnownModel, ModelDetails
from rag_index.components.hosts.host_pool import HostPool
from rag_index.core.documents.work import Work
from rag_index.core.settings import EmbedderSettings
from rag_index.errors import EmbedderUnavailable, HostUnreachable, RequestTimedOut
from tests.fakes.ollama import vector_of

ILL = EmbedderUnavailable("answers 503: ill for a moment")
OWN_DIGEST = "d1" * 32
HANG = RequestTimedOut("gave no answer in time")
"""An outcome that is raised only after the host's timeout."""


class _JumpingSelector(selectors.DefaultSelector):  # type: ignore[misc, valid-type]
    """A selector that lets virtual time pass in place of waiting."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise RuntimeError("every coroutine waits, and nothing will ever wake one of them")
        self.now += max(0.0, timeout)
        return super().select(0)


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An event loop on which sleeping takes no time."""

    def __init__(self) -> None:
        self._virtual = _JumpingSelector()
        super().__init__(self._virtual)

    def time(self) -> float:
        return self._virtual.now


class FakeHost:
    """One server, in the place of an `Endpoint`. It embeds one request after the other, as Ollama
    does."""

    service = "Ollama"
    compare_seconds = 15.0

    def __init__(self, url: str, *, seconds_per_text: float, timeout: float) -> None:
        self.url, self.timeout, self.digest = url, timeout, OWN_DIGEST
        self.seconds_per_text, self.seconds_per_request = seconds_per_text, 0.001
        self.sent: list[list[str]] = []
        """The texts of each request that reached it."""
        self.in_flight = 0
        self.beside: list[tuple[str, int]] = []
        """The first text of each request, and how many others were under way when it came."""
        self.embedded = 0
        """How many texts it has embedded, without the plain ones that try it out."""
        self.others_embedded = 0
        """How many of them with another model, which makes other vectors."""
        self._outcomes: list[tuple[str, deque[Exception | None]]] = []
        self._up, self._stops, self._turn = True, 0, asyncio.Lock()
        self._deadly: dict[str, float] = {}

    def outcomes(self, marker: str, outcomes: Iterable[Exception | None]) -> None:
        """What becomes of the next requests with a text that holds `marker`: an error, or None for
        vectors."""
        self._outcomes.append((marker, deque(outcomes)))

    def always(self, marker: str, error: Exception) -> None:
        """Fail every request with a text that holds `marker`."""
        self.outcomes(marker, [error] * 10_000)

    def ended_by(self, marker: str, *, back_after: float) -> None:
        """Stop at each text that holds `marker`, and start again after so many seconds."""
        self._deadly[marker] = back_after

    def stop(self) -> None:
        """Refuse connections, and break off what is under way."""
        self._up = False
        self._stops += 1

    def start(self) -> None:
        """Accept connections again."""
        self._up = True

    def requests_with(self, marker: str) -> int:
        """How many requests held a text with `marker`."""
        return sum(any(marker in text for text in texts) for texts in self.sent)

    async def details(self) -> ModelDetails:
        """Return the details of the model, unless the host is down."""
        self._refuse_if_down()
        return ModelDetails(self.digest, 2048)

    async def is_alive(self) -> bool:
        """Whether it answers others meanwhile."""
        return self._up

    async def embed(self, texts: Sequence[str]) -> list[NDArray[np.float32]]:
        """Return the vectors, or the next outcome of such texts."""
        self.beside.append((texts[0], self.in_flight))
        self.in_flight += 1
        try:
            return await self._embed(texts)
        finally:
            self.in_flight -= 1

    async def _embed(self, texts: Sequence[str]) -> list[NDArray[np.float32]]:
        self._refuse_if_down()
        stops = self._stops
        self.sent.append(list(texts))
        for marker, seconds in self._deadly.items():
            if any(marker in text for text in texts):
                self.stop()
                asyncio.get_running_loop().call_later(seconds, self.start)
                raise EmbedderUnavailable(f"{self.url} broke the connection")
        outcome = self._next_outcome(texts)
        if isinstance(outcome, RequestTimedOut):
            await asyncio.sleep(self.timeout)
            raise outcome
        try:
            async with asyncio.timeout(self.timeout), self._turn:
                await asyncio.sleep(self.seconds_per_request + self.seconds_per_text * len(texts))
        except TimeoutError:
            raise RequestTimedOut(f"{self.url} gave no answer in time") from None
        if self._stops > stops:
            raise EmbedderUnavailable(f"{self.url} broke off")
        if outcome is not None:
            raise outcome
        self.embedded += len(texts) * (texts != [PLAIN_TEXT])
        if is_other := self.digest != OWN_DIGEST:
            self.others_embedded += len(texts)
        return [
            np.asarray(vector_of(text), dtype=np.float32) * (-1 if is_other else 1)
            for text in texts
        ]

    def _next_outcome(self, texts: Sequence[str]) -> Exception | None:
        for marker, outcomes in self._outcomes:
            if outcomes and any(marker in text for text in texts):
                return outcomes.popleft()
        return None

    def _refuse_if_down(self) -> None:
        if not self._up:
            raise HostUnreachable(f"{self.url} accepts no connection")


class FakeHosts:
    """Hosts, the pool of one embedder over them, and calls to embed, one after the other in virtual
    time."""

    def __init__(
        self, count: int, *, seconds_per_text=(), batch_texts=16, patience=600.0, timeout=60.0
    ) -> None:
        self.loop = VirtualTimeLoop()
        paces = enumerate(seconds_per_text or [0.002] * count)
        self.hosts = [
            FakeHost(f"http://host{n}:11434", seconds_per_text=pace, timeout=timeout)
            for n, pace in paces
        ]
        self.stats, self._model = Work(), KnownModel("fake-embed")
        self.pool = HostPool(self.hosts, self._model, in_flight=2, patience=patience)  # type: ignore[arg-type]
        self._settings = EmbedderSettings(
            kind="ollama", model="fake-embed", batch_texts=batch_texts
        )

    def __getitem__(self, number: int) -> FakeHost:
        return self.hosts[number]

    def at(self, seconds: float, action: Callable[[], object]) -> None:
        """Call `action` when this many virtual seconds have passed from now on."""
        self.loop.call_later(seconds, action)

    def pass_time(self, seconds: float) -> None:
        """Let this many virtual seconds go by."""
        self.loop.run_until_complete(asyncio.sleep(seconds))

    def embed(
        self, texts: Sequence[str], *, one_by_one: bool = False
    ) -> list[NDArray[np.float32] | Exception]:
        """One call to embed, as ServerEmbedder makes it."""
        return self.embed_at_once([texts], one_by_one=one_by_one)[0]

    def embed_at_once(
        self, calls: Sequence[Sequence[str]], *, one_by_one: bool = False
    ) -> list[list[NDArray[np.float32] | Exception]]:
        """Several calls, in this order and at the same time."""
        made = [
            EmbeddingCall(
                texts, self._settings, self._model, self.stats, prefix="", one_by_one=one_by_one
            )
            for texts in calls
        ]

        async def run() -> None:
            async with asyncio.TaskGroup() as group:
                for call in made:
                    group.create_task(self.pool.run(call))

        try:
            self.loop.run_until_complete(run())
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None
        return [
            [call.entries[text] for text in texts] for call, texts in zip(made, calls, strict=True)
        ]

    def seconds_to_embed(self, texts: Sequence[str]) -> float:
        """How long (in virtual time) such a call takes; every text must get its own vector."""
        began = self.loop.time()
        assert_own_vectors(self.embed(texts), texts)
        return self.loop.time() - began


def assert_own_vectors(
    entries: Sequence[NDArray[np.float32] | Exception], texts: Sequence[str]
) -> None:
    """Each text has the vector that was made of it."""
    assert len(entries) == len(texts)
    for entry, text in zip(entries, texts, strict=True):
        assert not isinstance(entry, Exception), entry
        assert np.array_equal(entry, np.asarray(vector_of(text), dtype=np.float32))
