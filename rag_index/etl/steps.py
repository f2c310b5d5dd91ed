"""The steps of a run: how often each is tried, where it is carried out, and what the run's caller may ask in between.
`etl.run` says in which order. `etl.plain` carries them out without Prefect, and `tasks.steps` as tasks of Prefect."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias, TypeVar

from rag_index.core.machine import Policy
from rag_index.errors import EmbedderUnavailable, StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from rag_index.components.sources import SourcePage
    from rag_index.core.documents.batches import WrittenShard
    from rag_index.core.reports.progress import ProcessState
    from rag_index.core.settings import IndexSettings, Settings
    from rag_index.etl.commit import Destination
    from rag_index.etl.embed import EmbedJob
    from rag_index.etl.run import IndexRun

T = TypeVar("T")
WAITED_FOR = (EmbedderUnavailable, StoreUnavailable)
"""Embedder and store wait for their servers in each call: they know which request failed, and what pause it needs."""

CHECK = Policy()
FETCH = Policy()
EMBED = Policy(retries=1, limit=None, waits_for=WAITED_FOR)
"""A request ends after `[embedder] timeout`, and the step waits for servers that are down (`wait_for_recovery`)."""
UPSERT = Policy(retries=0, limit=None)
"""A request ends after `[store] timeout`, and each is tried again for two minutes if the server does not answer."""
DELETE = Policy(waits_for=WAITED_FOR)
PUBLISH = Policy(waits_for=WAITED_FOR)
ERASE = Policy(waits_for=WAITED_FOR)
SEARCH_INDEX = Policy(retries=0, limit=None)
"""Qdrant builds it in one call, which nothing interrupts. The run is complete already."""
Ending: TypeAlias = Literal["delete gone", "verify and publish", "erase", "build search index"]
ENDINGS: dict[Ending, Policy] = {
    "delete gone": DELETE, "verify and publish": PUBLISH, "erase": ERASE, "build search index": SEARCH_INDEX,
}  # fmt: skip
"""The policies of the steps that follow the last page."""

BUSY = 0.8
"""If a process computes for this share of a shard's time, it is too busy to ask servers: another one helps."""


class Steps(ABC):
    """Where the steps of runs are carried out. `close` ends what is under way."""

    workers = 1
    """How many processes embed, once there are several shards. It grows if servers embed, and these are too busy."""
    size = 2
    """How many shards may be under way."""
    count_workers: Callable[[], int] | None = None
    """What counts the workers of a cluster that others have started, and checks that they can be used."""
    waits = True
    """Whether services that do not answer at the start are asked again. A command does so if it is told to."""
    started = False
    """Whether what embeds several shards was started."""

    @abstractmethod
    def check(self, service: str, ask: Callable[[], T], policy: Policy) -> T:
        """Ask a service of the run whether it can be used, and return its answer."""

    @abstractmethod
    def fetch(self, run: IndexRun, number: int, cursor: object, rows: int) -> SourcePage:
        """Read the page of this number from the source. A retry reads the same rows again, which is harmless."""

    @abstractmethod
    def write(self, job: EmbedJob, to: Destination) -> Future[WrittenShard]:
        """Embed a shard, upsert it, and return the future of what the ledger needs once the points are durable. It
        raises ProcessDied if a process died under the shard, and otherwise as `EmbedJob.embed` and `write_shard`."""

    @abstractmethod
    def write_alone(self, job: EmbedJob, to: Destination) -> WrittenShard:
        """Embed a shard that may kill its process in a child, upsert it, and wait for that. Raises as `write`."""

    @abstractmethod
    def end(self, ending: Ending, run: IndexRun, do: Callable[[IndexRun], str]) -> None:
        """Carry out a step that follows the last page. `do` returns what it did, for the log, or ""."""

    def prepare(self) -> None:  # noqa: B027 - many have nothing to do
        """Begin to start what embeds several shards, because there will be some."""

    def start(self) -> str:
        """Start what embeds several shards. Return why this process has to embed instead; otherwise ""."""
        self.started = True
        return ""

    def warm_up(self, job: EmbedJob) -> None:
        """Start what embeds several shards, and have each process embed a job, so that it has its model."""
        self.start()

    def observe(self, written: WrittenShard) -> None:  # noqa: B027
        """Take note of a shard that is written."""

    def tick(self) -> None:  # noqa: B027
        """Take note that a second has passed without a result. What this raises ends the run."""

    def states(self) -> dict[str, ProcessState]:
        """Return what each child of this process does, as far as it has told."""
        return {}

    def close(self) -> None:  # noqa: B027
        """End what is under way, and what was started."""


class Hooks(Protocol):
    """Questions that the caller of a run asks its collections by search; the run itself knows no search.
    `search.evaluation.gate` has the gate of a rebuild, and what scores mean. An error of a question ends no run."""

    def before_publishing(self, run: IndexRun, live: str | None) -> str:
        """Return why the rebuilt collection may not take the place of the `live` one; "" if it may."""

    def after_run(self, run: IndexRun) -> None:
        """Ask at the end of a run over all documents."""


HooksOf: TypeAlias = "Callable[[Settings, IndexSettings, bool], Hooks]"
"""Makes the hooks of a run, given settings, index and whether it rebuilds. Raises SettingsError."""
