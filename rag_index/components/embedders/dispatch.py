"""Texts on their way to the hosts of a pool: they are sent in batches, and each failure is found out about."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from dataclasses import dataclass, replace
from itertools import starmap
from typing import TYPE_CHECKING, TypeVar

from rag_index.components.hosts.retries import SUSPECT_TRIES, AskedHosts, HostCalls, Request
from rag_index.core.documents.canonical import hash_bytes
from rag_index.core.documents.sizes import shows_sizes
from rag_index.core.documents.vectors import broken_reason
from rag_index.errors import (
    BadVectors,
    EmbedderUnavailable,
    RagIndexError,
    RateLimited,
    RequestTooLong,
    TextEndsServer,
    TextRefused,
    TextTooLong,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from rag_index.components.hosts.host_pool import Host, Pool
    from rag_index.core.settings import EmbedderSettings

FAULT_TRIES = 3
"""Faults of a server after which a batch is halved."""
MIN_TEXTS = 16
"""The smallest share of texts: with fewer, none are kept back for a host that is busy."""

T = TypeVar("T")
log = logging.getLogger("rag_index.embedders")


@shows_sizes()
@dataclass(slots=True, eq=False)
class Text:
    """A text without its prefix, and its vector or its error once there is one."""

    text: str
    entry: NDArray[np.float32] | Exception | None = None

    @property
    def wanted(self) -> bool:
        return self.entry is None


@shows_sizes("tries", "texts")
@dataclass(slots=True, eq=False)
class Batch(Request):
    """The texts of one request."""

    texts: Sequence[Text]

    @property
    def single(self) -> bool:
        """Whether there is only one text, so that no other can be at fault."""
        return len(self.texts) == 1


def take_batch(waiting: deque[T], length: Callable[[T], int], max_texts: int, max_chars: int) -> list[T]:
    """Remove and return the first texts that fit into one request; the first one in any case."""
    batch = [waiting.popleft()]
    room = max_chars - length(batch[0])
    while waiting and len(batch) < max_texts and (room := room - length(waiting[0])) >= 0:
        batch.append(waiting.popleft())
    return batch


def sendable(texts: Sequence[Text]) -> list[Text]:
    """Return the texts that can be sent, after giving each of the others its error."""
    for one in texts:
        if not one.text:
            one.entry = TextRefused("the text is empty, and a server would return a meaningless vector for it")
        try:
            one.text.encode()
        except UnicodeEncodeError as exc:
            one.entry = TextRefused(f"the text is not valid Unicode and cannot be sent: {exc}")
    return [one for one in texts if one.wanted]


class Dispatch(HostCalls[Batch]):
    """One call to embed texts. `await Dispatch(…).run(texts)` returns an entry for each.

    The longest texts go first, so that those of a request have similar lengths and none waits long for another. Free
    hosts get equal shares. These rules decide whether a host or a text is at fault:

    - A host that refuses connections or asks for a pause is at fault. The batch is sent again, and no text suffers.
    - A batch of several texts is halved if a host refuses it, or if it ends in a fault of the server three times. A
      text whose vector is broken is sent again, alone.
    - A text that fails alone is tried as `HostCalls` says.
    - A text that is too long gets its error at once.

    A vector counts once the model of its host was compared after it came, because a model that is pulled again under
    its name changes while texts are embedded. If the host cannot be asked any more, its texts are sent again.
    """

    def __init__(
        self,
        asked: AskedHosts,
        settings: EmbedderSettings,
        prefix: str | None,
        *,
        patience: float,
        one_by_one: bool = False,
    ) -> None:
        """With `one_by_one`, the texts are those of one document, which ended a server on another day: once one is at
        fault, no other is sent."""
        super().__init__(asked, patience=patience, one_by_one=one_by_one)
        self._settings, self._prefix = settings, prefix or ""
        self._texts: deque[Text] = deque()
        """The texts that were not sent yet. Batches that are sent again are among those that wait (`_waiting`)."""
        self._unconfirmed: dict[Host, list[Text]] = {}
        """The texts that have a vector of a host whose model was not compared since."""
        self._all_sent: Callable[[], object] = lambda: None

    async def run(
        self, texts: Sequence[str], all_sent: Callable[[], object] = lambda: None
    ) -> list[NDArray[np.float32] | Exception]:
        """Return one entry per text, in order: its vector or its error. `all_sent` is called once all are on their way,
        when the hosts have room for those of the next call. If some have to be sent again, both calls share the hosts.
        Raises EmbedderUnavailable or RateLimited if no host recovers within `patience` seconds, and ModelMissing,
        ModelChanged, BadVectors or EmbedderError if a host answers but cannot be used."""
        given, self._all_sent = [Text(text) for text in texts], all_sent
        ordered = sorted(sendable(given), key=self._length, reverse=True)
        failed = {one for one in ordered if self._name(one) in self._failed} if self._failed else set()
        self._suspects.extend(self._suspected(failed))
        others = [one for one in ordered if one not in failed]
        if self._one_by_one:
            self._require_plain_text()
            self._suspects.extend(Batch([one]) for one in others)
        else:
            self._texts.extend(others)
        await self.run_to_end()
        return [one.entry for one in given if one.entry is not None]

    def _name(self, text: Text) -> bytes:
        return hash_bytes((self._prefix + text.text).encode())

    def _names(self, batch: Batch) -> list[bytes]:
        return [self._name(one) for one in batch.texts]

    def _suspected(self, texts: Iterable[Text]) -> Iterator[Batch]:
        """Yield the halves of requests that failed in earlier calls, as far as these texts were in them."""
        together: dict[int, tuple[Request, list[Text]]] = {}
        for one in texts:
            past = self._failed[self._name(one)]
            together.setdefault(id(past), (past, []))[1].append(one)
        for past, some in sorted(together.values(), key=lambda one: one[0].tries):
            middle = -(-len(some) // 2)
            for half in filter(None, (some[:middle], some[middle:])):
                yield Batch(half, tries=past.tries, error=past.error)

    def _length(self, text: Text) -> int:
        return len(self._prefix) + len(text.text)

    def _is_unfinished(self) -> bool:
        return bool(self._texts) or super()._is_unfinished()

    def _others_wait(self) -> bool:
        return bool(self._texts) or super()._others_wait()

    async def _work(self) -> None:
        """Also compare the models once every text has its vector."""
        await super()._work()
        while self._unconfirmed:
            unconfirmed, self._unconfirmed = self._unconfirmed, {}
            confirmed = await asyncio.gather(*starmap(self._confirm, unconfirmed.items()), return_exceptions=True)
            for error in filter(None, confirmed):
                raise error
            await super()._work()

    async def _confirm(self, host: Host, texts: Sequence[Text]) -> None:
        """Keep the vectors of a host's texts if its model is still the same, or send these again."""
        if not await self._probe(host, self._clock.now(), plain=False):
            for one in texts:
                one.entry = None
                self._texts.append(one)

    def _send_what_fits(self, now: float) -> None:
        super()._send_what_fits(now)
        most_texts, most_chars = self._settings.usual_request
        while self._texts and not self._waiting:
            used = self._pool.in_use(now)
            free = [host for host in used if host.free_slots(now) > 0]
            if not free:
                return
            count = len(self._texts)
            share = min(most_texts, -(-count // len(free)), max(MIN_TEXTS, -(-count // len(used))))
            texts = take_batch(self._texts, self._length, share, most_chars)
            self._waiting.append(Batch(texts))
            super()._send_what_fits(now)
        if not (self._texts or self._waiting or self._suspects):
            self._all_sent()

    def _send_to(self, batch: Batch, host: Host, now: float) -> None:
        batch.texts = [one for one in batch.texts if one.wanted]
        if len(batch.texts) > host.max_texts:
            self._requeue_halves(batch)
        elif batch.texts:
            super()._send_to(batch, host, now)

    async def _ask(self, batch: Batch, host: Host) -> list[NDArray[np.float32]]:
        return await host.endpoint.embed([self._prefix + one.text for one in batch.texts])

    def _is_suspect(self, batch: Batch) -> bool:
        return super()._is_suspect(batch) if batch.single else batch.tries >= FAULT_TRIES

    def _requeue_halves(self, batch: Batch, tries: int = 0) -> None:
        """Send the halves of a batch, with `tries` as their number of failures."""
        middle = len(batch.texts) // 2
        for texts in (batch.texts[middle:], batch.texts[:middle]):
            half = Batch(texts, tries=tries, error=batch.error)
            (self._suspects.append if tries >= SUSPECT_TRIES else self._waiting.appendleft)(half)

    def _refused(self, batch: Batch, host: Host, error: Exception) -> None:
        """Find the text that the host refuses: halve the batch, or count a failure of its only text."""
        if not batch.single:
            if isinstance(error, RequestTooLong):
                host.max_texts = min(host.max_texts, len(batch.texts) // 2)
            if isinstance(error, BadVectors):
                self._stats.retries += 2  # half of what was too long repeats nothing
            self._requeue_halves(batch)
        elif isinstance(error, TextTooLong):
            batch.texts[0].entry = error
        else:
            host.revoke_admission()
            self._record_failure(batch, host, error)

    def _timed_out(self, batch: Batch, host: Host, started: float) -> None:
        host.record_timeout(started, self._clock.now(), len(batch.texts))

    def _accept(self, batch: Batch, host: Host, vectors: list[NDArray[np.float32]], started: float) -> None:
        """Keep the vectors that can be right, and try the texts of the others again, each alone."""
        broken: list[tuple[Batch, BadVectors]] = []
        for one, vector in zip(batch.texts, vectors, strict=True):
            why = broken_reason(vector, self._model.dimension)
            if why is None:
                one.entry = vector
                self._forget(Batch([one]))
                self._unconfirmed.setdefault(host, []).append(one)
            else:
                error = BadVectors(f"{host.url} returned a vector of {why} for a text")
                broken.append((batch if batch.single else Batch([one]), error))
        if broken:
            host.revoke_admission()
            for retry, error in reversed(broken):
                self._record_failure(retry, host, error)
        else:
            host.record_success()
        if len(broken) < len(batch.texts):
            self._host_answered(host, started)

    def _blame(self, batch: Batch, host: Host) -> None:
        """Halve a batch that is at fault, since the host is well, or give its only text its error."""
        error = batch.error
        if batch.single:
            self._forget(batch)
            self._stats.retries = max(0, self._stats.retries - batch.tries)  # its own: the servers are well
        if not batch.single:
            self._requeue_halves(batch, tries=batch.tries)
        elif isinstance(error, EmbedderUnavailable):
            said = f"{error} (each time this text is sent; {host.url} embeds other texts)"
            batch.texts[0].entry = TextEndsServer(said)
            if self._one_by_one:
                self._give_up(batch.texts[0].entry)
        elif error is not None:
            batch.texts[0].entry = error

    def _give_up(self, error: Exception) -> None:
        """Give all texts that were not embedded this error, since their document fails as a whole."""
        for batch in (*self._waiting, *self._suspects):
            for one in batch.texts:
                if one.wanted:
                    one.entry = error
        self._waiting.clear()
        self._suspects.clear()


class QueryDispatch(Dispatch):
    """One call to embed queries, for a caller who waits. Calls share a pool, and each has requests of its own.

    It treats queries as `Dispatch` treats the texts of documents, except that nothing is repeated for long:

    - A host with another model gets no queries, as long as another host is well.
    - If no host can be used, the call says why at once. `run` raises what a host has answered, if one has.
    """

    def __init__(self, asked: AskedHosts, settings: EmbedderSettings) -> None:
        super().__init__(asked, settings, settings.query_prefix, patience=0.0)

    async def run_to_end(self) -> None:
        """Run without saying whom this process waits for: only runs say that."""
        try:
            await HostCalls._work(self)  # models are compared before, and not once more for each query
        except RagIndexError as exc:
            answers = (one.error for one in self._pool.hosts if not isinstance(one.error, EmbedderUnavailable))
            raise next(filter(None, answers), exc) from None

    def _timed_out(self, batch: Batch, host: Host, started: float) -> None:
        """Change nothing: a host must not get fewer queries as long as it is used."""

    def _unusable(self, host: Host, error: RagIndexError, started: float) -> None:
        if not host.down:
            log.warning("queries are embedded without %s: %s", host.url, error)
        host.record_failure(error, started, self._clock, at_once=True)


class Queries:
    """The calls to embed queries, which share a pool of hosts. All must be made on one event loop."""

    def __init__(self, asked: AskedHosts, settings: EmbedderSettings, new_pool: Callable[[], Pool]) -> None:
        self._asked, self._settings, self._new_pool = replace(asked, pool=new_pool()), settings, new_pool

    async def embed(self, texts: Sequence[str]) -> list[NDArray[np.float32] | Exception]:
        """Return one entry per query, in order: its vector, or TextTooLong, TextRefused or BadVectors.

        If no host can be used, the next call tries all of them afresh: the pauses between tries suit runs, which can
        wait. Only a pause that the hosts asked for is kept. Raises EmbedderUnavailable, RateLimited, ModelMissing,
        ModelChanged or EmbedderError then.
        """
        asked = self._asked
        try:
            return await QueryDispatch(asked, self._settings).run(texts)
        except RagIndexError as exc:
            if self._asked is asked and not isinstance(exc, RateLimited):
                self._asked = replace(asked, pool=self._new_pool())
            raise
