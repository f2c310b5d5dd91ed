"""The policies of a run's steps: how often each is tried again, and how long it may take at most.

A plain run and the tasks of a flow (`tasks.index`) have the same.

A run waits for each service once, and not once an index. One that answered is not asked again for the next index,
unless an index has failed since. The time that was spent on a service that does not answer is counted for the whole
run: once it is used up, each further index ends at once.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar

from rag_index.errors import EmbedderUnavailable, SourceTimedOut, TransientError
from rag_index.machine import given

T = TypeVar("T")
MAX_RETRIES = 3
MAX_TIMED_OUT = 1
"""How often a query is tried again that took all of its time."""

RETRY_SECONDS = 5.0
QUICK_SECONDS = 15.0
"""How long a check that fails may have taken to be tried once more, in a run that is not to wait for services."""

MIN_SECONDS = 30.0
"""The time that a run may spend in all on a service that does not answer, even if it is not to wait for services."""

JITTER = 0.5
LONG, VERY_LONG = 6 * 3600.0, 24 * 3600.0
"""Seconds after which a task of a flow ends, if nothing below it has. Drivers and requests have limits of their own,
which end sooner and say more; these are for what has none, such as a file system that does not answer."""

logger = logging.getLogger("rag_index.indexing")


@dataclass(frozen=True, slots=True)
class ProcessLimit:
    """When a process that embeds a shard ends itself, if `[parallel] process_timeout` is `auto`.

    It is `spare` seconds beyond all that the shard may take and wait for (`indexing.embed.hang_limit`). A process that
    does not hang and is ended costs little: its shard is run again in parts, which have a limit each.
    """

    spare: float = 600.0
    times_slower: float = 30.0
    """How many times slower than measured, or than assumed before that, a shard may be: machines get busy."""
    requests: int = 4
    """Requests in a row that may use up their time limit before the wait for recovery begins: one, and three probes."""


@dataclass(frozen=True, slots=True)
class Policy:
    """How often a step, which is harmless to repeat, is tried again after a transient error."""

    retries: int = MAX_RETRIES
    delay: float | None = None
    """Seconds before each retry; by default 1, 2, 4, … They get up to half as long again."""
    within: float | None = None
    """The seconds after the start of the step in which a retry may begin."""
    limit: float | None = LONG
    """Seconds after which Prefect ends the step. It can in the main thread of a process alone."""
    process: ProcessLimit | None = None
    """When the process ends itself, if the step may run in another thread or process, where Prefect cannot end it."""
    waits_for: tuple[type[TransientError], ...] = ()
    """Errors that the step raises when it has waited as long as it may: another try would wait again."""


CHECK = Policy()
FETCH = Policy()
EMBED = Policy(retries=1, limit=None, process=ProcessLimit(), waits_for=(EmbedderUnavailable,))
"""A request ends after `[embedder] timeout`, and the step waits for servers that are down (`wait_for_recovery`)."""
UPSERT = Policy(limit=None)
"""A request ends after `[store] timeout`; each is repeated for 30 s if the server is down."""
DELETE = Policy(limit=VERY_LONG)
PUBLISH = Policy(limit=VERY_LONG)
ERASE = Policy(limit=VERY_LONG)
SEARCH_INDEX = Policy(retries=0, limit=VERY_LONG)


def tries_left(policy: Policy, error: BaseException | None, tries: int) -> int:
    """Return how often a step may be tried again after this many tries, the last of which ended with `error`."""
    if not isinstance(error, TransientError) or isinstance(error, policy.waits_for):
        return 0
    return max(0, (MAX_TIMED_OUT if isinstance(error, SourceTimedOut) else policy.retries) - tries + 1)


def with_retries(call: Callable[[], T], policy: Policy) -> T:
    """Return what `call` returns, which is harmless to repeat: transient errors are tried again, terminal ones are not.

    Each retry waits for up to half as long again as the policy says, so that runs on many machines ask apart.
    """
    began, tries = time.monotonic(), 0
    while True:
        tries += 1
        try:
            return call()
        except TransientError as error:
            left = tries_left(policy, error, tries)
            if not left or (policy.within is not None and time.monotonic() - began >= policy.within):
                raise
            logger.warning("transient, trying again (tries left: %d): %s", left, error)
        seconds = 2.0 ** (tries - 1) if policy.delay is None else policy.delay
        time.sleep(seconds * (1 + JITTER * random.random()))  # noqa: S311 - not for secrets


class ServiceChecks:
    """The services of one run. `wait` is how long the run may wait for each of them at the start, in seconds."""

    def __init__(self, wait: float = 0.0, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = max(MIN_SECONDS, wait)
        self._clock = clock
        self._answers: dict[Hashable, Any] = {}
        self._spent: dict[Hashable, float] = {}
        self._given_up: dict[Hashable, str] = {}
        self.sent_chars = 0
        """Characters that the indexes so far had embedded."""

    def check(self, service: Hashable, ask: Callable[[], T]) -> T:
        """Return what `ask` returns. Raises as it does, and at once if too much time was spent on this service."""
        if service in self._given_up:
            raise TransientError(self._given_up[service])
        began = self._clock()
        try:
            answer = ask()
        except TransientError as error:
            spent = self._spent[service] = self._spent.get(service, 0.0) + self._clock() - began
            if spent >= self._limit:
                self._given_up[service] = f"{error} (the run has waited {spent:.0f} s for it, and does not ask again)"
            raise
        self._spent.pop(service, None)
        return answer

    def remember(self, service: Hashable, ask: Callable[[], T]) -> T:
        """Return the answer that an earlier index got; without one, as `check`."""
        if service not in self._answers:
            self._answers[service] = self.check(service, ask)
        known: T = self._answers[service]
        return known

    def index_failed(self, error: Exception, *, embedder_only: bool) -> None:
        """Forget the answers, because a service may be the reason why an index failed.

        If the embedder answered at the start and went silent later, the index has waited for it as long as the run may:
        the rest fails at once. `embedder_only` says that no other service raises EmbedderUnavailable.
        """
        if embedder_only and isinstance(error, EmbedderUnavailable) and "embedder" in self._answers:
            self._given_up["embedder"] = f"{error} (the run has waited for it, and does not ask again)"
        self._answers.clear()


_SHARED: ContextVar[ServiceChecks | None] = ContextVar("service checks", default=None)


def shared_checks(wait: float) -> AbstractContextManager[ServiceChecks]:
    """Let all indexes that are run within the block share what they learn about services."""
    return given(_SHARED, ServiceChecks(wait))


def current_checks() -> ServiceChecks:
    """Return the checks of the run of several indexes that this is called in, or new ones."""
    return _SHARED.get() or ServiceChecks()


def patience(wait: float, min_retries: int = 1) -> Policy:
    """Return the policy of asking a service in a run that may wait this many seconds for it."""
    return Policy(min_retries + int(wait / RETRY_SECONDS), RETRY_SECONDS, max(wait, QUICK_SECONDS))
