"""The servers of a process that have one model, and the line of calls that they work for:

1. Calls share the servers in the order in which they come. A server gets what is next as soon as it
  has room.
2. A server that fails rests for 0.25 to 30 s, or as long as its Retry-After says. Then one check
   decides whether it gets work again: its model is compared, and it embeds a plain text.
3. If a request fails and one of its items may be the reason, they go last, alone and in halves
   (`host_call`).
4. A call that gives up is kept. If it is made again in this process, it goes on from there.
5. Whether a service is unavailable is a state of the service, by its name (`core.recovery`).
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import defaultdict
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING, Any

from rag_index import errors
from rag_index.components.hosts.endpoint import SILENCE_SHARE, noticing_work
from rag_index.components.hosts.host import Host
from rag_index.components.hosts.host_call import Batch
from rag_index.core.recovery import ServiceState, add_downtime, asking

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence
    from contextlib import AbstractAsyncContextManager, AbstractContextManager

    from rag_index.components.hosts.endpoint import Endpoint, KnownModel
    from rag_index.components.hosts.host_call import HostCall

MAX_SLEEP = 1.0
"""The seconds after which a call looks at its hosts at the latest. Chosen; nothing depends on it."""
KEPT_CALLS = 4
"""How many calls that gave up are kept. A process embeds two shards at a time, each of which may go
on in halves."""
KEPT_SECONDS = 600.0
"""Seconds for which such a call is kept, so that a later run judges its texts anew. Chosen; nothing
depends on it."""
log = logging.getLogger("rag_index.embedders")


class HostPool:
    """All servers of an embedder, and the share of them that this process uses while one of these
    works.

    With H servers and W workers, the share of worker `home` is home, home + W, home + 2W, …. With
    at least as many workers as servers it is home modulo H. Each server gets `in_flight` requests
    at once from all its workers together, and at least one from each. So every server is used, none
    has a longer queue than it needs, and the faster ones of a share do more of the work. The
    servers outside the share are used only while the whole share fails. There are at most `in_all`
    requests at once, if given.

    A call waits `patience` seconds where all servers fail. A pool `for_queries` does without a
    server that answers but cannot be used, such as one with another model, and names no outage:
    only runs do that.

    All methods must be called on one event loop.
    """

    def __init__(
        self,
        endpoints: Sequence[Endpoint],
        model: KnownModel,
        *,
        home: int = 0,
        workers: int = 1,
        in_flight: int,
        in_all: int | None = None,
        patience: float,
        for_queries: bool = False,
    ) -> None:
        count = len(endpoints)
        first = home % count
        order = [*range(first, count), *range(first)]
        # 5 servers and 2 workers: worker 1 has the servers 1 and 3.
        share = [first]
        if workers < count:
            share = [number for number in order if number % workers == home % workers]
        # 2 servers and 5 workers: three of them share server 0.
        sharing = max(1, len(range(first, workers, count)))
        requests = max(1, in_flight // sharing + (home // count < in_flight % sharing))
        hosts = [Host(endpoint, requests) for endpoint in endpoints]
        self.own = [hosts[number] for number in share]
        self.hosts = self.own + [hosts[number] for number in order if number not in share]
        self._max_in_flight = in_all or requests * len(self.own)
        self._model, self._patience, self._for_queries = model, patience, for_queries
        self._calls: list[HostCall[Any]] = []
        """The calls under way, the earliest first."""
        self._kept: list[HostCall[Any]] = []
        self._accused: defaultdict[Host, list[Batch[Any]]] = defaultdict(list)
        """Batches of one item that failed at a server: its next plain text shows whether the server
        was at fault."""
        self._checks: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        self._service = ServiceState(self.name)
        self._failing_since: float | None = None
        """The time at which the last of all servers failed. None while one has not failed. Calls
        one after the other share one wait."""
        self._is_reported = False
        """Whether that is in the log."""
        self._down_since: float | None = None
        """The time of the request that failed first, with no other server at work. None if one
        answered since."""

    @property
    def name(self) -> str:
        """The name of the service, such as "Ollama at http://gpu:11434"."""
        first = self.hosts[0]
        service = first.endpoint.service
        if len(self.hosts) == 1:
            return f"{service} at {first.url}"
        return f"{service} (all {len(self.hosts)} hosts)"

    async def run(self, call: HostCall[Any]) -> None:
        """Have the items of a call done. Afterwards each has an entry.

        Raises:
            EmbedderUnavailable, RateLimited, BadVectors: All servers fail for too long, or ask for
                longer pauses.
            ModelMissing, ModelChanged, EmbedderError: A server answers, but cannot be used.
        """
        came = self._now()
        self._kept = [kept for kept in self._kept if came - kept.gave_up_at < KEPT_SECONDS]
        for kept in self._kept:
            call.take_over(kept)
        # A call whose items have all gone over to others takes the place of none that still knows
        # something.
        self._kept = [kept for kept in self._kept if kept.is_worth_keeping]
        self._end_rests()
        with self._reported() as self._service:
            noticing: AbstractAsyncContextManager[None] = nullcontext()
            if not self._for_queries:
                noticing = noticing_work(self._service, self._asked)
            async with noticing:
                self._calls.append(call)
                try:
                    await self._work(call)
                except (errors.EmbedderUnavailable, errors.BadVectors):
                    self._keep(call)
                    raise
                finally:
                    await self._leave(call, came)
        add_downtime(call.down_seconds)

    def _keep(self, call: HostCall[Any]) -> None:
        if self._for_queries or not call.is_worth_keeping:
            return
        call.gave_up_at = self._now()
        self._kept = [*self._kept, call][-KEPT_CALLS:]

    def _reported(self) -> AbstractContextManager[ServiceState]:
        if self._for_queries:
            return nullcontext(self._service)
        return asking(self.name, patience=SILENCE_SHARE * self.hosts[0].endpoint.timeout)

    def _asked(self) -> list[Endpoint]:
        """Return the servers with a request under way."""
        asked = [host for host in self.hosts if host.in_flight or host.is_checked]
        return [host.endpoint for host in asked]

    def _end_rests(self) -> None:
        """Let servers be checked at once if all fail, because a call begins. Pauses that they asked
        for stay."""
        now = self._now()
        if all(host.failures for host in self.hosts):
            for host in self.hosts:
                if not isinstance(host.error, errors.RateLimited):
                    host.rests_until = min(host.rests_until, now)

    async def _work(self, call: HostCall[Any]) -> None:
        """Send all items of a call, and compare the models of the servers that have answered
        them."""
        await self._send_all(call)
        while call.unconfirmed:
            await self._confirm(call)
            await self._send_all(call)

    async def _send_all(self, call: HostCall[Any]) -> None:
        while True:
            self._start_requests()
            if call.error is not None:
                raise call.error
            if not call.is_unsent and not call.in_flight:
                return
            self._require_patience()
            await self._wait_for_change()

    async def _leave(self, call: HostCall[Any], came: float) -> None:
        """Remove a call from those under way, and end its requests."""
        self._calls.remove(call)
        ended = [*call.tasks]
        if not self._calls:
            ended += self._checks
        for task in ended:
            task.cancel()
        await asyncio.gather(*ended, return_exceptions=True)
        turn = self._now() if call.began is None else call.began
        call.stats.waited_seconds += max(0.0, turn - came)
        self._start_requests()
        self._notify()

    async def _wait_for_change(self) -> None:
        """Wait until a request ends, a server may be checked again, or it is time to give up."""
        now = self._now()
        moments = [host.rests_until for host in self.hosts]
        if self._failing_since is not None:
            moments.append(self._failing_since + self._patience)
        coming = [moment for moment in moments if moment > now]
        with suppress(TimeoutError):
            async with asyncio.timeout_at(min([now + MAX_SLEEP, *coming])):
                await self._changed.wait()

    def _notify(self) -> None:
        """Wake the calls that wait for a change."""
        self._changed.set()
        self._changed = asyncio.Event()

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    # What a server gets next

    def _used(self) -> list[Host]:
        """Return the servers that get items: those of the share without failures, or else all
        without failures."""
        own = [host for host in self.own if not host.failures]
        if own:
            return own
        return [host for host in self.hosts if not host.failures]

    def _start_requests(self) -> None:
        """Give each server as many requests as it has room for, the least busy one first."""
        now = self._now()
        if self._calls:
            self._note_began(self._calls[0], now)
        has_started = True
        while has_started:
            by_load = sorted(self.hosts, key=lambda host: host.in_flight)
            # `any` ends at the first server that gets something, and the servers are ordered anew.
            has_started = any(self._start_next(host, now) for host in by_load)

    def _start_next(self, host: Host, now: float) -> bool:
        """Start the next request or check of a server. Return whether there was one."""
        used = self._used()
        if not self._calls or not host.may_be_asked(now):
            return False
        # A server outside the share gets nothing, unless all of the share fail.
        if used and host not in used and host not in self.own:
            return False
        # It has not had a request yet, or one has failed there.
        if not host.is_well:
            if not host.in_flight:
                self._start_check(host, plain=True)
            return host.is_checked
        # Its last comparison is old: its model may have been pulled again meanwhile.
        if host.has_room and now - host.compared_at > host.endpoint.compare_seconds:
            self._start_check(host, plain=False)
            return True
        in_flight = sum(other.in_flight for other in self.hosts)
        if not host.has_room or in_flight >= self._max_in_flight:
            return False
        for call in list(self._calls):
            if call.fresh or call.again:
                free = sum(other.has_room and other.works(now) for other in used)
                batch = call.next_batch(host.max_items, free=free, used=len(used))
                self._send(call, batch, host, now)
                return True
            # A suspect is tried by another server than the one where it failed last, if there is
            # another.
            may_try = [batch for batch in call.suspects if batch.host is not host or used == [host]]
            if may_try:
                return self._start_suspect(call, may_try[0], host, now)
        return False

    def _start_suspect(
        self, call: HostCall[Any], batch: Batch[Any], host: Host, now: float
    ) -> bool:
        """Try a suspect batch, or prepare the server for it. Return whether something was started
        or decided."""
        # It is sent alone: requests under way end first.
        if host.in_flight:
            return False
        # One item is judged by the plain texts before and after it. The plain text after another
        # item may be the one before this item.
        is_shown_well = (
            host.shown_well_at > -math.inf and host.shown_well_at >= batch.last_failure_at
        )
        if batch.single and not is_shown_well:
            self._start_check(host, plain=True)
            return True
        call.suspects.remove(batch)
        if call.is_at_fault(batch):
            call.blame(batch, host)
            self._notify()
            return True
        if len(batch.items) > host.max_items:
            call.suspects[:0] = batch.halves()
            return True
        host.is_alone = True
        self._send(call, batch, host, now)
        return True

    def _send(self, call: HostCall[Any], batch: Batch[Any], host: Host, now: float) -> None:
        self._note_began(call, now)
        if not host.in_flight:
            host.busy_since = now
        if not call.in_flight:
            call.busy_since = now
        host.in_flight += 1
        call.in_flight += 1
        call.stats.requests += 1
        host.shown_well_at = -math.inf
        self._start(self._request(call, batch, host, now), call.tasks)

    def _note_began(self, call: HostCall[Any], now: float) -> None:
        if call.began is None:
            call.began = now

    def _start(self, work: Coroutine[Any, Any, None], tasks: set[asyncio.Task[None]]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    # Requests

    async def _request(
        self, call: HostCall[Any], batch: Batch[Any], host: Host, started: float
    ) -> None:
        try:
            answers = await call.ask(host.endpoint, batch.items)
        except errors.RagIndexError as error:
            self._handle_failure(call, batch, host, error, started)
        except Exception as error:  # noqa: BLE001 - the caller of `run` gets it
            call.error = error
        else:
            self._answered(call, batch, host, answers, started)
        finally:
            now = self._now()
            host.is_alone = False
            host.in_flight -= 1
            call.in_flight -= 1
            if not host.in_flight:
                call.stats.asked_seconds += now - host.busy_since
            if not call.in_flight:
                call.stats.embed_seconds += now - call.busy_since
            self._start_requests()
            self._notify()

    def _handle_failure(
        self,
        call: HostCall[Any],
        batch: Batch[Any],
        host: Host,
        error: errors.RagIndexError,
        started: float,
    ) -> None:
        """Decide what becomes of a request that failed, by whose fault it may be."""
        # The server's: it asks for a pause, or accepts no connection.
        if isinstance(error, errors.RateLimited | errors.HostUnreachable):
            self._record_host_failure(host, error, started)
            if isinstance(error, errors.RateLimited):
                call.stats.rate_limited += 1
            call.send_again(batch)
        # The server's or an item's: it answers 500, breaks the connection, or does not answer.
        elif isinstance(error, errors.EmbedderUnavailable):
            self._record_host_failure(host, error, started)
            if isinstance(error, errors.RequestTimedOut) and not self._for_queries:
                host.record_timeout(started, self._now(), len(batch.items))
            self._suspect(call, batch, error, host)
        # An item's: it is too long, or its vector is not finite.
        elif isinstance(error, errors.TextTooLong | errors.TextRefused | errors.BadVectors):
            self._refused(call, batch, host, error)
        # Neither, such as ModelMissing: another try would end in the same way. Queries do without
        # the server.
        elif self._for_queries:
            self._record_host_failure(host, error, started)
            call.send_again(batch)
        else:
            call.error = error

    def _suspect(
        self, call: HostCall[Any], batch: Batch[Any], error: Exception, host: Host
    ) -> None:
        if batch.single and batch.alone:
            self._accused[host].append(batch)
        call.suspect(batch, error, host, self._now())

    def _refused(
        self, call: HostCall[Any], batch: Batch[Any], host: Host, error: Exception
    ) -> None:
        """Find the item that a server refuses: halve the batch, or have the server show that it is
        well."""
        if not batch.single:
            if isinstance(error, errors.RequestTooLong):
                host.max_items = min(host.max_items, len(batch.items) // 2)
            # The halves repeat all items. After TextTooLong, a half repeats nothing.
            if isinstance(error, errors.BadVectors):
                call.stats.retries += 2
            call.send_halves(batch)
        # The model takes no text of this length.
        elif isinstance(error, errors.TextTooLong):
            call.entries[batch.items[0]] = error
        else:
            host.is_well = False
            self._suspect(call, batch, error, host)

    def _answered(
        self,
        call: HostCall[Any],
        batch: Batch[Any],
        host: Host,
        answers: Sequence[Any],
        started: float,
    ) -> None:
        """Keep the answers that can be right. The items of the others become suspects, each
        alone."""
        broken: list[tuple[Any, Exception]] = []
        for item, answer in zip(batch.items, answers, strict=True):
            why = call.why_broken(item, answer, host)
            if why is not None:
                broken.append((item, why))
                continue
            call.entries[item] = answer
            if call.confirms:
                call.unconfirmed.setdefault(host, []).append(item)
        if len(broken) < len(batch.items):
            self._service_answered()
        if not broken:
            host.record_success()
            # An item that was sent alone shows as much as a plain text.
            if batch.alone:
                host.shown_well_at = started
        for item, why in broken:
            host.is_well = False
            self._suspect(call, batch if batch.single else Batch([item]), why, host)

    async def _confirm(self, call: HostCall[Any]) -> None:
        """Compare the models of the servers that answered. If one does not answer now, its items
        are sent again, since its model may have been another one."""
        unconfirmed, call.unconfirmed = call.unconfirmed, {}
        same = await asyncio.gather(*(self._compare(host, plain=False) for host in unconfirmed))
        for items, is_same in zip(unconfirmed.values(), same, strict=True):
            if not is_same:
                for item in items:
                    del call.entries[item]
                call.fresh.extend(items)

    # Servers: are they well, and do they have the right model?

    def _start_check(self, host: Host, *, plain: bool) -> None:
        host.is_checked = True
        self._start(self._check(host, plain=plain), self._checks)

    async def _check(self, host: Host, *, plain: bool) -> None:
        """Compare a server's model. With `plain`, the server also embeds a plain text. An error ends
        all calls."""
        try:
            await self._compare(host, plain=plain)
        except Exception as error:  # noqa: BLE001 - the callers of `run` get it
            for call in self._calls:
                call.error = error
        finally:
            host.is_checked = False
            self._start_requests()
            self._notify()

    async def _compare(self, host: Host, *, plain: bool) -> bool:
        """Return whether a server has the right model and, with `plain`, embeds.

        Raises ModelChanged and other errors of a server that answers and cannot be used. A pool for
        queries does without such a server.
        """
        started = self._now()
        try:
            # It did not answer its last request: whether it answers at all costs little to find out.
            has_timed_out = isinstance(host.error, errors.RequestTimedOut)
            if has_timed_out and not await host.endpoint.is_alive():
                raise errors.RequestTimedOut(
                    f"{host.url} is silent, also when it is asked for nothing but an answer"
                )
            if plain:
                await self._model.try_out(host.endpoint)
            else:
                await self._model.compare(host.endpoint)
        except (errors.EmbedderUnavailable, errors.BadVectors) as error:
            self._record_host_failure(host, error, started)
            if not isinstance(error, errors.RateLimited):
                self._judge(host, is_well=False)
            return False
        except errors.RagIndexError as error:
            if not self._for_queries:
                raise
            if not host.failures:
                log.warning("queries are embedded without %s: %s", host.url, error)
            self._record_host_failure(host, error, started)
            return False
        if plain:
            host.record_well(started, self._now())
            self._judge(host, is_well=True)
            self._service_answered()
        else:
            host.compared_at = self._now()
        return True

    def _judge(self, host: Host, *, is_well: bool) -> None:
        """Judge the items that failed at a server, by whether it has embedded a plain text since."""
        for batch in self._accused.pop(host, ()):
            # If it failed at the plain text, too, the server was at fault, and the count begins
            # anew.
            batch.proofs = batch.proofs + 1 if is_well else 0

    def _record_host_failure(self, host: Host, error: errors.RagIndexError, started: float) -> None:
        now = self._now()
        asks_pause = isinstance(error, errors.RateLimited)
        host.record_failure(error, started, now)
        others = [other for other in self.hosts if other is not host]
        others_work = any(other.in_flight or other.works(now) for other in others)
        if self._down_since is None and not asks_pause and not others_work:
            self._down_since = started
        answered = asks_pause or isinstance(error, errors.BadVectors)
        self._service.record_error(error, answered=answered, asks_pause=asks_pause)

    def _service_answered(self) -> None:
        """Record that a server has answered well, which ends an outage."""
        now = self._now()
        self._service.record_answer()
        if self._is_reported and self._failing_since is not None:
            log.warning("%s accepts texts again after %.0f s", self.name, now - self._failing_since)
        self._failing_since, self._is_reported = None, False
        if self._down_since is not None:
            for call in self._calls:
                if call.began is not None:
                    call.down_seconds += now - max(self._down_since, call.began)
            self._down_since = None

    def _rest_until(self, end: float) -> bool:
        """Let servers rest until `end` at most, for one last check. Return whether one is checked by
        then: a pause that a server asks for is not shortened."""
        for host in self.hosts:
            if not isinstance(host.error, errors.RateLimited):
                host.rests_until = min(host.rests_until, end)
        return any(host.rests_until <= end for host in self.hosts)

    def _require_patience(self) -> None:
        """Raise an error if all servers have failed for too long, or ask for longer pauses.

        It is RateLimited or BadVectors if all servers have that reason, and EmbedderUnavailable
        otherwise. For queries it is the error of a server that answers and cannot be used.
        """
        now = self._now()
        if not all(host.failures for host in self.hosts):
            return
        reasons = [host.error for host in self.hosts if host.error is not None]
        listed = "; ".join(map(str, reasons))
        if self._failing_since is None:
            self._failing_since = now
        # A failure that ends with the next check is not logged.
        has_lasted = all(host.failures > 1 for host in self.hosts)
        if has_lasted and not (self._for_queries or self._is_reported):
            self._is_reported = True
            log.warning("no host accepts texts: %s", listed)
        # A server may answer yet.
        if any(host.is_checked or host.in_flight for host in self.hosts):
            return
        answers = [error for error in reasons if not isinstance(error, errors.EmbedderUnavailable)]
        # A query does not wait if all servers have another model.
        if self._for_queries and len(answers) == len(reasons):
            raise answers[0]
        until = self._failing_since + self._patience
        if now < until and self._rest_until(until):
            return
        if self._for_queries and answers:
            raise answers[0]
        message = f"no host could be used: {listed}"
        if all(isinstance(error, errors.BadVectors) for error in reasons):
            raise errors.BadVectors(message)
        if all(isinstance(error, errors.RateLimited) for error in reasons):
            back = min(host.rests_until for host in self.hosts)
            raise errors.RateLimited(message, max(0.0, back - now))
        raise errors.EmbedderUnavailable(message)
