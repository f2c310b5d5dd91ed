"""The services of a run: a run waits for each of them once, not once for each index. One that answered is not asked
again for the next index, unless an index has failed since. The time that was spent on a service that does not answer is
counted for the whole run: once it is used up, each further index ends at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import Any

from rag_index.core.machine import Policy
from rag_index.errors import EmbedderUnavailable, TransientError

ASK_AGAIN_SECONDS = 5.0
QUICK_SECONDS = 15.0
"""How long a check that fails may have taken to be tried once more, in a run that is not to wait for services."""
MIN_PATIENCE = 30.0
"""The time that a run may spend in all on a service that does not answer, even if it is not to wait for services."""


@dataclass(frozen=True, slots=True)
class Question:
    """What a run asks a service at the start."""

    service: str
    """As people see it: source, store, embedder, …"""
    ask: Callable[[], Any]
    policy: Policy
    key: Hashable = ""
    """Tells services of one kind apart, such as the sources of several indexes. By default there is only one."""
    kept: bool = False
    """Whether the next index takes the answer, unless an index has failed since."""


Check = Callable[[str, Callable[[], Any], Policy], Any]
"""What asks a service, with its policy: `Steps.check`."""


class ServiceChecks:
    """The services of one run. `wait` is how long the run may wait for each of them at the start, in seconds."""

    def __init__(self, wait: float = 0.0, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = max(MIN_PATIENCE, wait)
        self._clock = clock
        self._answers: dict[Hashable, Any] = {}
        self._spent: dict[Hashable, float] = {}
        self._given_up: dict[Hashable, str] = {}
        self.said: set[str] = set()
        """Sentences about a service that one index has said for all."""
        self.sent_chars = 0
        """Characters that the indexes so far had embedded."""

    def ask(self, questions: Iterable[Question], check: Check) -> dict[str, Any]:
        """Return the answers by service. Raises as the questions do, and at once if too much time was spent on one."""
        found: dict[str, Any] = {}
        for one in questions:
            key = one.key or one.service
            if one.kept and key in self._answers:
                found[one.service] = self._answers[key]
                continue
            if key in self._given_up:
                raise TransientError(self._given_up[key])
            began = self._clock()
            try:
                answer = check(one.service, one.ask, one.policy)
            except TransientError as error:
                spent = self._spent[key] = self._spent.get(key, 0.0) + self._clock() - began
                if spent >= self._limit:
                    self._given_up[key] = f"{error} (the run has waited {spent:.0f} s for it, and does not ask again)"
                raise
            self._spent.pop(key, None)
            found[one.service] = answer
            if one.kept:
                self._answers[key] = answer
        return found

    def index_failed(self, error: Exception, *, embedder_only: bool) -> None:
        """Forget the answers, because a service may be the reason why an index failed.

        If the embedder answered at the start and went silent later, the index has waited for it as long as the run may:
        the rest fails at once. `embedder_only` says that no other service raises EmbedderUnavailable.
        """
        if embedder_only and isinstance(error, EmbedderUnavailable) and "embedder" in self._answers:
            self._given_up["embedder"] = f"{error} (the run has waited for it, and does not ask again)"
        self._answers.clear()


def patience(wait: float, min_retries: int = 1) -> Policy:
    """Return the policy of asking a service in a run that may wait this many seconds for it."""
    return Policy(min_retries + int(wait / ASK_AGAIN_SECONDS), ASK_AGAIN_SECONDS, max(wait, QUICK_SECONDS))
