"""The services of a run: a run waits for each of them once, not once for each index. One that answered is not asked
again for the next index, unless an index has failed since. The time that was spent on a service that does not answer is
counted for the whole run: once it is used up, each further index ends at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from rag_index.core.settings.index import SQL
from rag_index.errors import EmbedderUnavailable, TransientError

if TYPE_CHECKING:
    from rag_index.etl.opened import Opened
    from rag_index.etl.steps import Steps

LOCKED_SECONDS = 5.0
"""How long a source is asked again by a run that is not to wait for services, and workers that others have started by
any run: it can do without them."""
MIN_PATIENCE = 30.0
"""The time that a run may spend in all on a service that does not answer, even if it is not to wait for services."""


@dataclass(frozen=True, slots=True)
class Question:
    """What a run asks a service at the start."""

    service: str
    """As people see it: source, store, embedder, …"""
    ask: Callable[[], Any]
    """Asks it, as often as may help: a method of `Steps`."""
    key: Hashable = ""
    """Tells services of one kind apart, such as the sources of several indexes. By default there is only one."""
    kept: bool = False
    """Whether the next index takes the answer, unless an index has failed since."""


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

    def ask(self, questions: Iterable[Question]) -> dict[str, Any]:
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
                answer = one.ask()
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


def questions(opened: Opened, steps: Steps) -> list[Question]:
    """Return what a run asks its services. A source is asked again for a moment in any case: it may be locked."""
    index, wait = opened.index, steps.wait
    source = max(wait, LOCKED_SECONDS)
    source_key = "" if index.kind == SQL else ("source", index.name)
    asked = [
        Question("source", partial(steps.check_source, opened, source), source_key),
        Question("store", partial(steps.check_store, opened, wait)),
    ]
    if index.parts:
        asked.append(Question("parts", partial(steps.check_parts, opened, source), ("parts", index.name)))
    if steps.check_workers is not None:
        asked.append(Question("workers", partial(steps.check_workers, LOCKED_SECONDS)))
    if index.context is not None:
        service = ("context", index.context.model, *(index.context.hosts or []))
        asked.append(Question("context", partial(steps.check_context, opened, wait), service))
    return [*asked, Question("embedder", partial(steps.check_embedder, opened, wait), kept=True)]
