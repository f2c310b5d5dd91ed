"""The services of a run: what a run checks before it writes anything, and how long it waits.

Each check is a step (`etl.steps`): a function whose first argument is the opened run. To add one,
write such a function, yield a `ServiceCheck` with it in `questions`, and add its task to `tasks.etl`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from rag_index.components.chunking import open_chunker
from rag_index.components.stores import open_reader
from rag_index.core.settings.index import SQL
from rag_index.errors import EmbedderUnavailable, TransientError
from rag_index.etl.collection import identify_for, revision_of
from rag_index.etl.deletes import count_parts_of

if TYPE_CHECKING:
    from rag_index.components.chunking import Chunker
    from rag_index.components.embedders import EmbedderIdentity
    from rag_index.components.stores.protocol import StoreReader
    from rag_index.core.settings import StoreSettings
    from rag_index.etl.opened import Opened
    from rag_index.etl.steps import Steps

LOCKED_SECONDS = 5.0
"""Seconds for which the check of a source is tried again, even by a run that does not wait for
services: a source may be locked for a moment. The workers of a cluster that the run has not started
are waited for as long. Chosen; nothing depends on it."""
MIN_PATIENCE = 30.0
"""Seconds that a run over several indexes may wait for one service in all, even if it does not wait
for services. Chosen; nothing depends on it."""


def check_source(opened: Opened) -> None:
    """Check that the source can be read, and that the tables and columns of the settings exist
    there. Raises as `Source.check`."""
    opened.source.check()


def check_store(opened: Opened) -> None:
    """Check that the store answers, and the store of the live collection if that is another one.

    Raises StoreUnavailable and StoreError.
    """
    _check_store(opened.store, opened.settings.store)
    if opened.origin is not None:
        _check_store(opened.origin.store, opened.origin.settings)


def _check_store(store: StoreReader, settings: StoreSettings) -> None:
    if store.embedded:
        store.collections()
        return
    # A connection of its own, which does not wait: this step is tried again, and each attempt is
    # logged.
    with closing(open_reader(settings, patience=0.0)) as connection:
        connection.aliases()


def check_parts(opened: Opened) -> dict[str, int]:
    """Count the rows of each part. Raises SourceError if a part lost too many: then nothing is
    written."""
    return count_parts_of(opened)


def check_context(opened: Opened) -> Chunker:
    """Check the model that writes contexts of chunks, and return the chunker that has it."""
    return open_chunker(opened.settings, opened.index)


def check_embedder(opened: Opened) -> EmbedderIdentity:
    """Embed one text, and return the model, its digest and its dimension. Raises as
    `Embedder.identity`."""
    return identify_for(opened)


@dataclass(frozen=True, slots=True)
class ServiceCheck:
    """A check of a service at the start of a run."""

    service: str
    """Its name for people: source, store, embedder, …"""
    ask: Callable[[], Any]
    """Carries out the check, with its retries, and returns the answer."""
    key: Hashable = ""
    """Distinguishes services of one kind, such as the sources of several indexes. By default there
    is only one."""
    is_kept: bool = False
    """Whether the next index of the same run takes the answer, unless an index has failed since."""
    is_count: bool = False
    """Whether the answer counts what the source has now. Then no later run takes it, however soon
    it begins."""


class RecentAnswers:
    """Answers of services, each for some seconds after it was given; for ever by default."""

    def __init__(
        self, seconds: float = math.inf, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._seconds = seconds
        self._clock = clock
        self._answers: dict[Hashable, tuple[float, Any]] = {}

    def __contains__(self, key: Hashable) -> bool:
        if key not in self._answers:
            return False
        answered_at, _ = self._answers[key]
        return self._clock() - answered_at < self._seconds

    def __getitem__(self, key: Hashable) -> Any:
        _, answer = self._answers[key]
        return answer

    def remember(self, key: Hashable, answer: Any) -> None:
        """Keep an answer that was given just now."""
        answered_at = self._clock()
        self._answers[key] = (answered_at, answer)

    def clear(self) -> None:
        """Forget all answers."""
        self._answers.clear()


class ServiceChecks:
    """The services of one run over one or several indexes.

    Args:
        wait: The seconds that the run may wait for each service at the start, for all its indexes
            together.
        recent: Answers of every check that is no count, for later runs as well. A watch runs often
            and checks seldom.
    """

    def __init__(
        self,
        wait: float = 0.0,
        *,
        recent: RecentAnswers | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limit = max(MIN_PATIENCE, wait)
        self._clock = clock
        self._keeps_all = recent is not None
        self._answers = recent or RecentAnswers()
        self._spent: dict[Hashable, float] = {}
        self._given_up: dict[Hashable, str] = {}
        self.warnings: set[str] = set()
        """Sentences about a service that one index has reported for all."""

    def ask(self, questions: Iterable[ServiceCheck]) -> dict[str, Any]:
        """Return the answers by service. Raises as the questions do, and TransientError at once if
        the run has waited too long for a service already."""
        answers: dict[str, Any] = {}
        for question in questions:
            answers[question.service] = self._answer(question)
        return answers

    def _answer(self, question: ServiceCheck) -> Any:
        key = question.key or question.service
        is_kept = question.is_kept or (self._keeps_all and not question.is_count)
        if is_kept and key in self._answers:
            return self._answers[key]
        # An earlier index has waited for the service as long as the run may.
        if key in self._given_up:
            raise TransientError(self._given_up[key])
        began = self._clock()
        try:
            answer = question.ask()
        except TransientError as error:
            spent = self._spent.get(key, 0.0) + self._clock() - began
            self._spent[key] = spent
            if spent >= self._limit:
                self._given_up[key] = (
                    f"{error} (the run has waited {spent:.0f} s for it, and does not ask again)"
                )
            raise
        self._spent.pop(key, None)
        if is_kept:
            self._answers.remember(key, answer)
        return answer

    def on_run_failed(self, error: Exception, *, embedder_only: bool) -> None:
        """Forget the answers, because a service may be the reason why an index failed.

        Args:
            embedder_only: Whether the embedder alone raises EmbedderUnavailable. A model that
                writes contexts raises it, too.
        """
        # The embedder answered at the start and became unavailable later: the index has waited for
        # it as long as the run may, so the rest fails at once.
        if embedder_only and isinstance(error, EmbedderUnavailable) and "embedder" in self._answers:
            self._given_up["embedder"] = (
                f"{error} (the run has waited for it, and does not ask again)"
            )
        self._answers.clear()


def questions(opened: Opened, steps: Steps) -> Iterator[ServiceCheck]:
    """Yield the checks of a run, in their order. Each is answered before the next one is yielded."""
    index, wait = opened.index, steps.wait
    source_wait = max(wait, LOCKED_SECONDS)
    # All tables are in one database; folders of code are sources of their own.
    source_key = "" if index.kind == SQL else ("source", index.name)
    ask_source = partial(steps.call_for, source_wait, check_source, opened)
    yield ServiceCheck("source", ask_source, source_key)

    yield ServiceCheck("store", partial(steps.call_for, wait, check_store, opened))

    if index.parts:
        ask_parts = partial(steps.call_for, source_wait, check_parts, opened)
        yield ServiceCheck("parts", ask_parts, ("parts", index.name), is_count=True)

    if steps.has_shared_workers:
        yield ServiceCheck("workers", partial(steps.count_workers, LOCKED_SECONDS))

    if index.context is not None:
        context_key = ("context", index.context.model, *(index.context.hosts or []))
        ask_context = partial(steps.call_for, wait, check_context, opened)
        yield ServiceCheck("context", ask_context, context_key)

    # The store has answered by now. It records with which revision of a model the index was made,
    # and another index may have another one.
    revision = revision_of(opened)
    embedder_key = ("embedder", revision) if revision else ""
    ask_embedder = partial(steps.call_for, wait, check_embedder, opened)
    yield ServiceCheck("embedder", ask_embedder, embedder_key, is_kept=True)
