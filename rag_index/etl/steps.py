"""The steps of a run, and the two ways to carry them out.

A step is a typed function whose first argument is the opened run:

    check_source, check_store, check_parts, check_context, check_embedder    etl.checks
    fetch_page                                                               etl.fetch
    write_words                                                              etl.words_first
    embed, then upsert                                                       etl.embed, etl.upsert
    delete_gone                                                              etl.deletes
    publish, build_search_index                                              etl.publish
    erase_after                                                              etl.erase

A run for a few documents (`etl.changed`), which Prefect never carries out, also deletes by
`delete_some` and asks the source for counts.

`etl.run` calls them in their order by `Steps.call`. `etl.local_steps` carries them out in this
process and its children; `orchestration.task_steps` as tasks of Prefect, which `tasks.etl` defines.
How often a step is tried and after which delays is the same in both: `core.recovery`. Embedding and
upserting alone differ, because they cross processes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

from rag_index.components.sources import SourcePage
from rag_index.core.reports.outcome import count_of
from rag_index.etl.deletes import Deleted

if TYPE_CHECKING:
    from concurrent.futures import Future

    from rag_index.core.documents.batches import WrittenShard
    from rag_index.etl.embed import EmbedJob
    from rag_index.etl.opened import Opened
    from rag_index.etl.upsert import Destination

P = ParamSpec("P")
T = TypeVar("T")


class Steps(ABC):
    """Carries out the steps of runs. `close` ends what is under way."""

    workers = 1
    """How many processes embed, once there are several shards."""
    shards_per_worker = 3
    """How many shards are under way for each process that embeds: one is embedded, one is written,
    and one waits. A process that calls embedding servers embeds two of them at a time."""
    wait = 0.0
    """For how many seconds the checks at the start are tried again if a service is unavailable."""
    recovery = 0.0
    """For how many seconds every other step is tried again after its service failed first."""
    has_started_workers = False
    """Whether what embeds several shards was started."""
    has_shared_workers = False
    """Whether the workers are a cluster that this run has not started, and whose size it does not
    choose."""

    def call(
        self,
        step: Callable[Concatenate[Opened, P], T],
        opened: Opened,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Carry out a step that is harmless to repeat.

        After transient errors it is tried again, for `recovery` seconds after its service failed
        first.

        Example:
            deleted = steps.call(delete_gone, opened, scan, record)
        """
        return self.call_for(self.recovery, step, opened, *args, **kwargs)

    @abstractmethod
    def call_for(
        self,
        wait: float,
        step: Callable[Concatenate[Opened, P], T],
        opened: Opened,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Carry out a step as `call` does, and try it again for `wait` seconds."""

    @abstractmethod
    def call_once(
        self,
        step: Callable[Concatenate[Opened, P], T],
        opened: Opened,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Carry out a step that is never tried again."""

    @abstractmethod
    def write(self, job: EmbedJob, to: Destination) -> Future[WrittenShard]:
        """Embed a shard and upsert it. Return the future of what the ledger records of it.

        The future is done once the points are durable. It raises ProcessDied if the process that
        embedded the shard died, and otherwise as `EmbedJob.embed` and `write_shard`.
        """

    @abstractmethod
    def write_alone(self, job: EmbedJob, to: Destination) -> WrittenShard:
        """Embed a shard that may kill its process in a child, upsert it, and wait for that. Raises
        as `write`."""

    def start(self) -> None:  # noqa: B027 - many have nothing to do
        """Begin to start the processes that embed several shards. Returns at once."""

    def count_workers(self, wait: float) -> int:
        """Count the workers of a cluster that this run has not started, and check that they can be
        used. This is tried again for `wait` seconds."""
        return self.workers

    def warm_up(self, job: EmbedJob) -> None:
        """Start the processes that embed several shards, and have each embed a job, so that it has
        loaded its model."""
        self.start()

    def tick(self) -> None:  # noqa: B027
        """Do what is due each second, and after each shard. An error that this raises ends the
        run."""

    def close(self) -> None:  # noqa: B027
        """End what is under way, and what was started."""


def sentence_of(result: object) -> str:
    """Return the line that is logged of a step's result; empty if there is nothing to log."""
    if isinstance(result, str):  # "the search index of comments was built in 41.2 s"
        return result
    if isinstance(result, Deleted):  # "3 documents deleted"
        return result.sentence
    if isinstance(result, SourcePage):  # "2,000 documents read"
        return f"{count_of(len(result.documents), 'document')} read"
    return ""
