"""The steps of a run, and the services that it waits for once: where each is carried out, and what the run's caller may
ask in between. `core.recovery` says how often each is tried, and `etl.run` in which order. `etl.plain` carries them out
in this process and its children, and `orchestration.task_steps` as tasks of Prefect on Dask workers."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from rag_index.core.settings.index import SQL
from rag_index.errors import EmbedderUnavailable, TransientError
from rag_index.etl.collection import revision_of

if TYPE_CHECKING:
    from concurrent.futures import Future

    from rag_index.components.chunking import Chunker
    from rag_index.components.embedders import EmbedderIdentity
    from rag_index.components.sources import SourcePage
    from rag_index.core.documents.batches import WrittenShard
    from rag_index.core.reports.progress import RunRecord
    from rag_index.etl.commit import Destination
    from rag_index.etl.deletes import Deleted
    from rag_index.etl.embed import EmbedJob
    from rag_index.etl.opened import Opened
    from rag_index.etl.publish import Hooks
    from rag_index.etl.scan import Scan

LOCKED_SECONDS = 5.0
"""How long a source is asked again by a run that is not to wait for services, and workers that others have started by
any run: it can do without them."""
MIN_PATIENCE = 30.0
"""The time that a run may spend in all on a service that does not answer, even if it is not to wait for services."""


class Steps(ABC):
    """Where the steps of runs are carried out. `close` ends what is under way."""

    workers = 1
    """How many processes embed, once there are several shards."""
    shards_per_worker = 3
    """How many shards are under way for each process that embeds: one that it embeds, one that is written, one that
    waits. A process that asks servers embeds two of them at a time."""
    wait = 0.0
    """For how many seconds services that do not answer at the start are asked again."""
    started = False
    """Whether what embeds several shards was started."""

    @abstractmethod
    def check_source(self, opened: Opened, wait: float) -> None:
        """Check that the source can be read, and that all that the settings name exists there. Each check
        is tried again for `wait` seconds."""

    @abstractmethod
    def check_store(self, opened: Opened, wait: float) -> None:
        """Check that the store answers."""

    @abstractmethod
    def check_parts(self, opened: Opened, wait: float) -> dict[str, int]:
        """Return how many rows each part has. Raises SourceError if it lost too many."""

    @abstractmethod
    def check_context(self, opened: Opened, wait: float) -> Chunker:
        """Check the model that writes contexts, and return the chunker that has it."""

    @abstractmethod
    def check_embedder(self, opened: Opened, wait: float) -> EmbedderIdentity:
        """Embed one text, and return the embedder's identity."""

    check_workers: Callable[[float], int] | None = None
    """What counts the workers of a cluster that others have started, and checks that they can be used."""

    @abstractmethod
    def fetch(self, opened: Opened, number: int, cursor: object, rows: int) -> SourcePage:
        """Read the page of this number from the source. A retry reads the same rows again, which is harmless."""

    @abstractmethod
    def write(self, job: EmbedJob, to: Destination) -> Future[WrittenShard]:
        """Embed a shard, upsert it, and return the future of what the ledger needs once the points are durable. It
        raises ProcessDied if a process died under the shard, and otherwise as `EmbedJob.embed` and `write_shard`."""

    @abstractmethod
    def write_alone(self, job: EmbedJob, to: Destination) -> WrittenShard:
        """Embed a shard that may kill its process in a child, upsert it, and wait for that. Raises as `write`."""

    @abstractmethod
    def write_words(self, opened: Opened, write: Callable[[], str]) -> None:
        """Have all documents written by their words, before they are embedded. `write` does it, and says how many."""

    @abstractmethod
    def delete_gone(self, opened: Opened, scan: Scan, record: RunRecord) -> Deleted:
        """Delete what the source no longer has."""

    @abstractmethod
    def publish(self, opened: Opened, scan: Scan, record: RunRecord, hooks: Hooks | None, *, all_deleted: bool) -> None:
        """Verify the collection, and let readers see a rebuilt one."""

    @abstractmethod
    def erase(self, opened: Opened, record: RunRecord) -> None:
        """Erase what was deleted or changed from the files of the store."""

    @abstractmethod
    def build_search_index(self, opened: Opened, name: str, record: RunRecord) -> None:
        """Build the search index of a large embedded collection."""

    def start(self) -> None:  # noqa: B027 - many have nothing to do
        """Begin to start what embeds several shards, because there will be some. Returns at once."""

    def warm_up(self, job: EmbedJob) -> None:
        """Start what embeds several shards, and have each process embed a job, so that it has its model."""
        self.start()

    def tick(self) -> None:  # noqa: B027
        """Take note that a second has passed, or that a shard is done. What this raises ends the run."""

    def close(self) -> None:  # noqa: B027
        """End what is under way, and what was started."""


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


def questions(opened: Opened, steps: Steps) -> Iterator[Question]:
    """Yield what a run asks its services. A source is asked again for a moment in any case: it may be locked."""
    index, wait = opened.index, steps.wait
    source = max(wait, LOCKED_SECONDS)
    source_key = "" if index.kind == SQL else ("source", index.name)
    yield Question("source", partial(steps.check_source, opened, source), source_key)
    yield Question("store", partial(steps.check_store, opened, wait))
    if index.parts:
        yield Question("parts", partial(steps.check_parts, opened, source), ("parts", index.name))
    if steps.check_workers is not None:
        yield Question("workers", partial(steps.check_workers, LOCKED_SECONDS))
    if index.context is not None:
        service = ("context", index.context.model, *(index.context.hosts or []))
        yield Question("context", partial(steps.check_context, opened, wait), service)
    # The store has answered, which knows with which files of a model the index was made: another's may be others.
    revision = revision_of(opened)
    key = ("embedder", revision) if revision else ""
    yield Question("embedder", partial(steps.check_embedder, opened, wait), key, kept=True)
