"""The servers of a process that have one model, and the line of calls that they work for:

1. Calls share the servers in the order in which they come. A server gets what is next as soon as it
  has room.
2. A server that fails rests for 0.25 to 30 s, or as long as its Retry-After says. Then one check
   decides whether it gets work again: its model is compared, and it embeds a plain text.
3. What may be an item's fault goes last, alone and in halves (`host_call`).
4. A call that gives up is kept. Made again in this process, it goes on from there.
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
from rag_index.core.recovery import Service, add_downtime, asking

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence
    from contextlib import AbstractContextManager

    from rag_index.components.hosts.endpoint import Endpoint, KnownModel
    from rag_index.components.hosts.host_call import HostCall

MAX_SLEEP = 1.0
"""The seconds after which a call looks at its hosts at the latest."""
KEPT_CALLS = 4
"""How many calls that gave up are kept. A process embeds two shards at a time, each of which may go
on in halves."""
KEPT_SECONDS = 600.0
"""How long one is kept: a later run shall judge its texts anew."""
log = logging.getLogger("rag_index.embedders")


class HostPool:
    """All servers of an embedder, and the share of them that this process uses as long as one of
    those is well.

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
        share = (
            [number for number in order if number % workers == home % workers]
            if workers < count
            else [first]
        )
        sharing = max(1, len(range(first, workers, count)))
        requests = max(1, in_flight // sharing + (home // count < in_flight % sharing))
        hosts = [Host(endpoint, requests) for endpoint in endpoints]
        self.own = [hosts[number] for number in share]
        self.hosts = self.own + [hosts[number] for number in order if number not in share]
        self._max_in_flight = in_all or requests * len(self.own)
        self._model, self._patience, self._for_queries = model, patience, for_queries
        self._calls: list[HostCall[Any]] = []
        """The line: the earliest call first."""
        self._kept: list[HostCall[Any]] = []
        self._accused: defaultdict[Host, list[Batch[Any]]] = defaultdict(list)
        """Batches of one item that failed at a server: its next plain text shows whose fault that
        was."""
        self._checks: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        self._service = Service(self.name)
        self._failing_since: float | None = None
        """When every server had failed; None while one has not. Calls one after the other share one
        wait."""
        self._is_reported = False
        """Whether that is in the log."""
        self._down_since: float | None = None
        """When the request was sent that failed first, with no other server at work; None if one
        answered since."""

    @property
    def name(self) -> str:
        where = (
            f"at {self.hosts[0].url}" if len(self.hosts) == 1 else f"(all {len(self.hosts)} hosts)"
        )
        return f"{self.hosts[0].endpoint.service} {where}"

    async def run(self, call: HostCall[Any]) -> None:
        """Have the items of a call done. Afterwards each has an entry.

        Raises:
            EmbedderUnavailable, RateLimited, BadVectors: All servers fail for too long, or none
            will be back before. ModelMissing, ModelChanged, EmbedderError: A server answers, but
            cannot be used.
        """
        came = self._now()
        self._kept = [kept for kept in self._kept if came - kept.gave_up_at < KEPT_SECONDS]
        for kept in self._kept:
            call.take_over(kept)
        self._ask_again()
        with self._reported() as self._service:
            async with (
                noticing_work(self._service, self._asked)
                if not self._for_queries
                else nullcontext()
            ):
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
        if not self._for_queries:
            call.gave_up_at = self._now()
            self._kept = [*self._kept, call][-KEPT_CALLS:]

    def _reported(self) -> AbstractContextManager[Service]:
        if self._for_queries:
            return nullcontext(self._service)
        return asking(self.name, patience=SILENCE_SHARE * self.hosts[0].endpoint.timeout)

    def _asked(self) -> list[Endpoint]:
        return [host.endpoint for host in self.hosts if host.in_flight or host.is_checked]

    def _ask_again(self) -> None:
        """Let servers that all fail be checked at once, but for the pauses that they asked for: a
        call begins."""
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
        """Take a call out of the line, and end what is under way for it."""
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
        """Return the servers that get items: those of the share that do not fail, or else all that
        do not."""
        own = [host for host in self.own if not host.failures]
        if own:
            return own
        return [host for host in self.hosts if not host.failures]

    def _start_requests(self) -> None:
        """Give each server what it has room for, the least busy one first."""
        now = self._now()
        if self._calls:
            self._note_began(self._calls[0], now)
        while any(
            self._start_next(host, now)
            for host in sorted(self.hosts, key=lambda host: host.in_flight)
        ):
            pass

    def _start_next(self, host: Host, now: float) -> bool:
        """Start what a server is to do next. Return whether there was something."""
        used = self._used()
        if not self._calls or not host.may_be_asked(now):
            return False
        # a server outside the share is left alone, unless all of the share fail
        if used and host not in used and host not in self.own:
            return False
        # one that was never asked, or where something failed
        if not host.is_well:
            if not host.in_flight:
                self._start_check(host, plain=True)
            return host.is_checked
        # one with an old comparison: its model may have been pulled again meanwhile
        if host.has_room and now - host.compared_at > host.endpoint.compare_seconds:
            self._start_check(host, plain=False)
            return True
        if not host.has_room or sum(one.in_flight for one in self.hosts) >= self._max_in_flight:
            return False
        for call in list(self._calls):
            if call.fresh or call.again:
                free = sum(one.has_room and one.works(now) for one in used)
                self._send(
                    call, call.next_batch(host.max_items, free=free, used=len(used)), host, now
                )
                return True
            # another server than the one where it failed last tries it, if there is another
            may_try = [batch for batch in call.suspects if batch.host is not host or used == [host]]
            if may_try:
                return self._start_suspect(call, may_try[0], host, now)
        return False

    def _start_suspect(
        self, call: HostCall[Any], batch: Batch[Any], host: Host, now: float
    ) -> bool:
        """Try a suspect batch, or prepare the server for it. Return whether something was started
        or decided."""
        # it goes alone: what is under way ends first
        if host.in_flight:
            return False
        # one item is judged by the plain texts before and after it, the first of which may be the
        # one after another's
        is_shown_well = host.shown_well_at > -math.inf and host.shown_well_at >= batch.failed_at
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
            self._failed(call, batch, host, error, started)
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

    def _failed(
        self,
        call: HostCall[Any],
        batch: Batch[Any],
        host: Host,
        error: errors.RagIndexError,
        started: float,
    ) -> None:
        """Decide what becomes of a request that failed: whose fault may it be?"""
        # the server's: it asks for a pause, or accepts no connection
        if isinstance(error, errors.RateLimited | errors.HostUnreachable):
            self._host_failed(host, error, started)
            if isinstance(error, errors.RateLimited):
                call.stats.rate_limited += 1
            call.send_again(batch)
        # the server's or an item's: it answers 500, breaks the connection, or is silent
        elif isinstance(error, errors.EmbedderUnavailable):
            self._host_failed(host, error, started)
            if isinstance(error, errors.RequestTimedOut) and not self._for_queries:
                host.record_timeout(started, self._now(), len(batch.items))
            self._suspect(call, batch, error, host)
        elif isinstance(error, errors.TextTooLong | errors.TextRefused | errors.BadVectors):
            self._refused(call, batch, host, error)
        # neither: another try would end in the same way
        elif self._for_queries:
            self._host_failed(host, error, started)
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
            if isinstance(error, errors.BadVectors):
                call.stats.retries += 2  # half of what was too long repeats nothing
            call.send_halves(batch)
        # the model takes no text of this length
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
        """Keep the answers that can be right, and try the items of the others again, each alone."""
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
            host.shown_well_at = started if batch.alone else host.shown_well_at
        for item, why in broken:
            host.is_well = False
            self._suspect(call, batch if batch.single else Batch([item]), why, host)

    async def _confirm(self, call: HostCall[Any]) -> None:
        """Compare the models of the servers that answered. The items of one that cannot be asked
        are sent again: its model may have been another one, and nobody can tell any more."""
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
        """Compare a server's model, with `plain` also let it embed a plain text. Calls end with
        what it raises."""
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
        """Return whether a server has the right model, and with `plain` embeds. Raises what it
        answers if it cannot be used; a pool for queries does without it."""
        started = self._now()
        try:
            # one that was silent is asked first whether it answers at all, which costs little
            if (
                isinstance(host.error, errors.RequestTimedOut)
                and not await host.endpoint.is_alive()
            ):
                raise errors.RequestTimedOut(
                    f"{host.url} is silent, also when it is asked for nothing but an answer"
                )
            await (self._model.try_out if plain else self._model.compare)(host.endpoint)
        except (errors.EmbedderUnavailable, errors.BadVectors) as error:
            self._host_failed(host, error, started)
            if not isinstance(error, errors.RateLimited):
                self._judge(host, is_well=False)
            return False
        except errors.RagIndexError as error:
            if not self._for_queries:
                raise
            if not host.failures:
                log.warning("queries are embedded without %s: %s", host.url, error)
            self._host_failed(host, error, started)
            return False
        if plain:
            host.record_well(started, self._now())
            self._judge(host, is_well=True)
            self._service_answered()
        else:
            host.compared_at = self._now()
        return True

    def _judge(self, host: Host, *, is_well: bool) -> None:
        """Count a failure against each item that failed at a server before it embedded a plain
        text. If it failed at that, too, it was at fault, and the row of failures begins anew."""
        for batch in self._accused.pop(host, ()):
            batch.proofs = batch.proofs + 1 if is_well else 0

    def _host_failed(self, host: Host, error: errors.RagIndexError, started: float) -> None:
        now = self._now()
        asks_pause = isinstance(error, errors.RateLimited)
        host.record_failure(error, started, now)
        others = [one for one in self.hosts if one is not host]
        others_work = any(one.in_flight or one.works(now) for one in others)
        if self._down_since is None and not asks_pause and not others_work:
            self._down_since = started
        answered = asks_pause or isinstance(error, errors.BadVectors)
        self._service.failed(error, answered=answered, asks_pause=asks_pause)

    def _service_answered(self) -> None:
        """Record that a server has answered well, which ends an outage."""
        now = self._now()
        self._service.answered()
        if self._is_reported and self._failing_since is not None:
            log.warning("%s accepts texts again after %.0f s", self.name, now - self._failing_since)
        self._failing_since, self._is_reported = None, False
        if self._down_since is not None:
            for call in self._calls:
                if call.began is not None:
                    call.down_seconds += now - max(self._down_since, call.began)
            self._down_since = None

    def _rest_until(self, end: float) -> bool:
        """Let servers rest no longer than the patience of a call, for one last check. Return
        whether one is checked by then: a pause that a server asks for stays as long as it is."""
        for host in self.hosts:
            if not isinstance(host.error, errors.RateLimited):
                host.rests_until = min(host.rests_until, end)
        return any(host.rests_until <= end for host in self.hosts)

    def _require_patience(self) -> None:
        """Raise EmbedderUnavailable if all servers have failed for too long, or ask for longer
        pauses. Raises what they answer instead if all of them do, and RateLimited or BadVectors if
        every one has that reason."""
        now = self._now()
        if not all(host.failures for host in self.hosts):
            return
        reasons = [host.error for host in self.hosts if host.error is not None]
        said = "; ".join(map(str, reasons))
        if self._failing_since is None:
            self._failing_since = now
        # a failure that the next check ends is no news
        if not (self._for_queries or self._is_reported) and all(
            host.failures > 1 for host in self.hosts
        ):
            self._is_reported = True
            log.warning("no host accepts texts: %s", said)
        if any(host.is_checked or host.in_flight for host in self.hosts):
            return
        answers = [one for one in reasons if not isinstance(one, errors.EmbedderUnavailable)]
        # a query: nobody waits for a server with another model
        if self._for_queries and len(answers) == len(reasons):
            raise answers[0]
        until = self._failing_since + self._patience
        if now < until and self._rest_until(until):
            return
        if self._for_queries and answers:
            raise answers[0]
        message = f"no host could be used: {said}"
        if all(isinstance(one, errors.BadVectors) for one in reasons):
            raise errors.BadVectors(message)
        if all(isinstance(one, errors.RateLimited) for one in reasons):
            back = min(host.rests_until for host in self.hosts)
            raise errors.RateLimited(message, max(0.0, back - now))
        raise errors.EmbedderUnavailable(message)
