"""A call that needs servers: its items, the batches in which they are sent, and what becomes of
each. `host_pool` sends the batches.

How an item at fault is found: if a request fails and one of its items may be the reason, its halves
are sent after all other items of the call, with nothing else under way at their server, until one
item is left. That item is at fault after three failures in a row (`PROOFS`), each with a plain text
embedded by the same server just before and just after it. If the server fails at the plain text,
the count begins anew. After ten failures the item is at fault in any case (`MOST_FAILURES`): else a
text that ends its server each time would be sent for ever.
"""

from __future__ import annotations

import logging
import math
import sys
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from rag_index.core.documents.sizes import shows_sizes
from rag_index.errors import EmbedderUnavailable

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

    from rag_index.components.hosts.endpoint import Endpoint
    from rag_index.components.hosts.host import Host
    from rag_index.core.documents.work import Work

PROOFS = 3
"""Failures in a row, between plain texts that the same server embeds, after which an item is at
fault. Chosen; nothing depends on it."""
MOST_FAILURES = 10
"""Failures after which an item is at fault although its server failed at the plain texts, too.
Chosen; nothing depends on it."""
MIN_ITEMS = 16
"""The smallest share of a server: with fewer items left, none are kept back for a server that is
busy. Chosen; nothing depends on it."""

Item = TypeVar("Item", bound=Hashable)
log = logging.getLogger("rag_index.embedders")


@shows_sizes("alone", "failures", "proofs")
@dataclass(slots=True, eq=False)
class Batch(Generic[Item]):
    """The items of one request, and how it has failed so far."""

    items: Sequence[Item]
    alone: bool = False
    """Whether it is sent with nothing else under way at its server."""
    failures: int = 0
    """How many requests with these items failed so that an item may be the reason."""
    proofs: int = 0
    """How many failures in a row of its only item were between plain texts that the server
    embedded."""
    host: Host | None = None
    """The server where it failed last."""
    last_failure_at: float = -math.inf
    error: Exception | None = None

    @property
    def single(self) -> bool:
        """Whether there is only one item, so that no other can be at fault."""
        return len(self.items) == 1

    def halves(self) -> list[Batch[Item]]:
        """Return its halves, each with the failures so far; itself if it has one item."""
        if self.single:
            return [self]
        middle = len(self.items) // 2
        parts = self.items[:middle], self.items[middle:]
        return [self.part(items) for items in parts]

    def part(self, items: Sequence[Item]) -> Batch[Item]:
        """Return a batch of some of its items, with its failures so far."""
        return replace(self, items=items)


class HostCall(ABC, Generic[Item]):
    """The items that one caller wants done by servers, each once. After `HostPool.run` each item
    has an entry.

    The pool keeps a call that gave up. A later call takes over its entries and suspects of items
    that both have.
    """

    confirms: ClassVar[bool] = True
    """Whether an answer counts only once the model of its server was compared after the answer."""
    most_items = 1
    """The items of a request at most."""
    most_chars = sys.maxsize
    """The characters of a request at most. An item that has more is sent by itself."""

    def __init__(self, items: Iterable[Item], stats: Work, *, one_by_one: bool = False) -> None:
        """Order the items by their length.

        Args:
            one_by_one: Whether the items are those of one document that ended a server before. Then
                each is sent alone, between two plain texts, and is at fault after one failure.
        """
        self.stats = stats
        self.entries: dict[Item, Any] = {}
        """The answer or the error of each item that is done."""
        ordered = sorted(dict.fromkeys(items), key=self.length, reverse=True)
        self.fresh: deque[Item] = deque() if one_by_one else deque(ordered)
        """Items that were not sent yet, the longest first: the items of a request have similar
        lengths, so that none waits for another."""
        self.again: deque[Batch[Item]] = deque()
        """Batches that are sent again before the fresh items, since no item is suspected."""
        self.suspects: list[Batch[Item]] = []
        """Batches that failed, and one of whose items may be the reason: all others go first."""
        if one_by_one:
            self.suspects = [Batch([item], alone=True) for item in ordered]
        self.one_by_one = one_by_one
        self._most_failures = 1 if one_by_one else MOST_FAILURES
        self.unconfirmed: dict[Host, list[Item]] = {}
        """The items that have an answer of a server whose model was not compared since."""
        self.tasks: set[asyncio.Task[None]] = set()
        self.in_flight = 0
        self.busy_since = 0.0
        self.began: float | None = None
        """The time at which its first request could be sent. None while it waits for the calls
        before it."""
        self.down_seconds = 0.0
        """Seconds since then in which no server answered."""
        self.error: Exception | None = None
        """The error with which it ends, without entries for all items."""
        self.gave_up_at = -math.inf

    @abstractmethod
    async def ask(self, endpoint: Endpoint, items: Sequence[Item]) -> Sequence[Any]:
        """Return an answer for each item. Raises the errors of `Endpoint`."""

    def length(self, item: Item) -> int:
        """Return how many characters of a request an item takes."""
        return 0

    def why_broken(self, item: Item, answer: Any, host: Host) -> Exception | None:
        """Return why an answer cannot be right; None if it can."""
        return None

    def fault(self, error: Exception, host: Host) -> Exception:
        """Return the error of an item that is at fault.

        Args:
            error: The error of its last request.
            host: The server of that request, which has embedded a plain text since.
        """
        return error

    @property
    def is_unsent(self) -> bool:
        """Whether items wait to be sent."""
        has_any = self.fresh or self.again or self.suspects
        return bool(has_any)

    @property
    def is_worth_keeping(self) -> bool:
        """Whether it has answers or suspects, which a later call with the same items goes on from.
        A call that no server ever took an item of has none."""
        return bool(self.entries or self.suspects)

    def next_batch(self, most: int, *, free: int, used: int) -> Batch[Item]:
        """Take the next batch for a server.

        Free servers get equal shares. With few items left, each gets a share that is large enough
        to be worth a request: of 40 items and two servers the free one gets 20.

        Args:
            most: The items that the server takes at most.
            free: The number of servers that could take a batch now.
            used: The number of servers that are used at all.
        """
        if self.again:
            batch = self.again.popleft()
            if len(batch.items) <= most:
                return batch
            self.again.extendleft(reversed(batch.halves()))
            return self.next_batch(most, free=free, used=used)
        left = len(self.fresh)
        # Rounded up.
        free_share = -(-left // free)
        equal_share = -(-left // used)
        share = min(self.most_items, most, free_share, max(MIN_ITEMS, equal_share))
        return Batch(take_batch(self.fresh, self.length, share, self.most_chars))

    def send_again(self, batch: Batch[Item]) -> None:
        """Send a batch again as it is, because its failure is the server's fault."""
        self.stats.retries += 1
        if batch.alone:
            self.suspects.insert(0, batch)
        else:
            self.again.appendleft(batch)

    def send_halves(self, batch: Batch[Item]) -> None:
        """Send the halves of a batch that a server refuses. A server that refuses works, so it needs
        no check before."""
        halves = batch.halves()
        if batch.alone:
            self.suspects[:0] = halves
        else:
            self.again.extendleft(reversed(halves))

    def suspect(self, batch: Batch[Item], error: Exception, host: Host, now: float) -> None:
        """Send the halves of a batch after all others, because one of its items may be why its
        request failed."""
        batch.failures += 1
        batch.host, batch.error, batch.last_failure_at = host, error, now
        self.stats.retries += 1
        if not self.suspects:
            log.warning("a request failed, so all others go first: %s", error)
        batch.alone = True
        # One item at fault is enough for the document, so it is tried again before the others.
        if self.one_by_one:
            self.suspects.insert(0, batch)
        else:
            self.suspects += batch.halves()

    def is_at_fault(self, batch: Batch[Item]) -> bool:
        """Return whether the only item of a batch is why its requests fail. Its server embeds plain
        texts now."""
        if not batch.single:
            return False
        return batch.proofs >= PROOFS or batch.failures >= self._most_failures

    def blame(self, batch: Batch[Item], host: Host) -> None:
        """Give an item its error."""
        [item] = batch.items
        # The servers work, so its failures were no retries because of them.
        self.stats.retries = max(0, self.stats.retries - batch.failures)
        if batch.error is None:
            return
        fault = self.fault(batch.error, host)
        self.entries[item] = fault
        # The item has ended its server: its document fails, and its other items are not sent, since
        # they may end the server again.
        if self.one_by_one and isinstance(batch.error, EmbedderUnavailable):
            for other in _items_of(self.suspects):
                self.entries[other] = fault
            self.suspects.clear()

    def take_over(self, kept: HostCall[Item]) -> None:
        """Go on from where a call gave up, with the items that both have. That call loses them.

        A call that sends its items one by one takes over only answers of a call that did not: what
        failed there failed beside others, and proves nothing of a single item.
        """
        wanted = {*self.fresh, *_items_of(self.suspects)}
        done = wanted & kept.entries.keys()
        for item in done:
            self.entries[item] = kept.entries.pop(item)
        for host, items in kept.unconfirmed.items():
            ours = [item for item in items if item in done]
            if ours:
                self.unconfirmed.setdefault(host, []).extend(ours)
            kept.unconfirmed[host] = [item for item in items if item not in done]
        failed: list[Batch[Item]] = []
        if kept.one_by_one or not self.one_by_one:
            failed = kept.release_suspects(wanted)
        known = done | set(_items_of(failed))
        self.fresh = deque(item for item in self.fresh if item not in known)
        self.suspects = failed + [batch for batch in self.suspects if known.isdisjoint(batch.items)]

    def release_suspects(self, wanted: Collection[Item]) -> list[Batch[Item]]:
        """Remove and return the suspects of these items, with their failures so far."""
        failed: list[Batch[Item]] = []
        others: list[Batch[Item]] = []
        for batch in self.suspects:
            shared = [item for item in batch.items if item in wanted]
            # [a, b] failed here, and a, b and c are wanted: both go last there, too.
            if len(shared) == len(batch.items):
                failed.append(batch)
                continue
            # b and c are wanted: b goes last there, and a stays here.
            if shared:
                failed.append(batch.part(shared))
                batch.items = [item for item in batch.items if item not in wanted]
            others.append(batch)
        self.suspects = others
        return failed


def _items_of(batches: Iterable[Batch[Item]]) -> Iterator[Item]:
    for batch in batches:
        yield from batch.items


def take_batch(
    waiting: deque[Item], length: Callable[[Item], int], max_items: int, max_chars: int
) -> list[Item]:
    """Remove and return the first items that fit into one request; the first one in any case."""
    batch = [waiting.popleft()]
    chars_left = max_chars - length(batch[0])
    while waiting and len(batch) < max_items:
        chars_left -= length(waiting[0])
        if chars_left < 0:
            break
        batch.append(waiting.popleft())
    return batch
