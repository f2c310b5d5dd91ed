"""The steps of a run: where each is carried out, and what the run's caller may ask in between. `core.recovery` says how
often each is tried, and `etl.run` in which order. `etl.plain` carries them out in this process and its children, and
`orchestration.task_steps` as tasks of Prefect on Dask workers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from rag_index.components.chunking import Chunker
    from rag_index.components.embedders import EmbedderIdentity
    from rag_index.components.sources import SourcePage
    from rag_index.core.documents.batches import WrittenShard
    from rag_index.core.outages import Outage
    from rag_index.core.reports.record import RunRecord
    from rag_index.etl.commit import Destination
    from rag_index.etl.deletes import Deleted
    from rag_index.etl.embed import EmbedJob
    from rag_index.etl.opened import Opened
    from rag_index.etl.publish import Hooks
    from rag_index.etl.scan import Scan


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

    def waits(self) -> dict[str, tuple[Outage, ...]]:
        """Return what each child of this process waits for, as far as it has told."""
        return {}

    def close(self) -> None:  # noqa: B027
        """End what is under way, and what was started."""
