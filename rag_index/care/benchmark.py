"""Serial against parallel on a sample: what the usual script does, and what a run does. Both write
into stores that are thrown away; the real collections and the real ledger are not opened."""

from __future__ import annotations

import tempfile
import time
from contextlib import closing, contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from rag_index.components.chunking import open_chunker
from rag_index.components.embedders import EmbedderIdentity, identify, open_embedder
from rag_index.components.ledger import Ledger
from rag_index.components.sources import Sample, read_sample
from rag_index.core.documents.batches import DocumentBatch, Shard
from rag_index.core.machine import given
from rag_index.core.machine.resources import detect_machine, worker_count
from rag_index.core.reports.outcome import count_of
from rag_index.core.reports.progress import RunRecord
from rag_index.core.settings import LedgerSettings, Settings
from rag_index.core.settings.parts import Secret
from rag_index.etl.changed import serially
from rag_index.etl.embed import EmbedJob
from rag_index.etl.local_steps import LocalSteps
from rag_index.etl.opened import Opened, RunOptions, open_index
from rag_index.etl.run import index_pages
from rag_index.etl.scan import Scan, begin

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from rag_index.etl.steps import Steps

EQUAL = 1e-4
"""Two vectors of a text that differ by less in each component are the same: a batch may change
their last bits."""


@dataclass(slots=True)
class Measured:
    """One way of embedding the sample."""

    name: str
    workers: int
    chunks: int
    seconds: float
    """Wall seconds from the first document to the last vector in the store, without start-up."""
    stages: dict[str, float]
    """The share of each stage in all busy seconds, 0 to 1."""
    documents_per_second: float
    speed_up: float = 1.0
    same_ids: bool = True
    """Whether it made the same points as the serial way."""
    largest_difference: float = 0.0
    """Between the two vectors of a point, in any component, over the points that both ways made."""

    @property
    def in_parity(self) -> bool:
        """Whether it made the same ids and vectors as the serial way."""
        return self.same_ids and self.largest_difference < EQUAL


@dataclass(slots=True)
class BenchmarkReport:
    """All that a benchmark measured, the serial way first."""

    index: str
    documents: int
    embedder: str
    measured: list[Measured] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        serial, *parallel = map(asdict, self.measured)
        head = {"index": self.index, "documents": self.documents, "embedder": self.embedder}
        return head | {"serial": serial, "parallel": parallel}

    @property
    def in_parity(self) -> bool:
        """Whether every way made the same ids and vectors."""
        return all(one.in_parity for one in self.measured)

    def sentence(self) -> str:
        """Return the best way in one line."""
        best = max(self.measured, key=lambda one: one.documents_per_second)
        same = "the same points" if self.in_parity else "NOT the same points: see the table"
        return (
            f"{self.index}: {self.documents:,} documents, best with {best.name}:"
            f" {best.documents_per_second:,.1f} documents/s, {best.speed_up:.2f} times the serial"
            f" way; {same}"
        )


@dataclass(frozen=True, slots=True)
class BegunRun:
    """A run that has chosen its collection."""

    opened: Opened
    scan: Scan
    record: RunRecord


class Bench:
    """A sample of an index, a folder for what is made of it, and what was measured so far."""

    def __init__(self, settings: Settings, name: str | None, size: int, folder: Path) -> None:
        self.settings, self.folder = settings, folder
        self.index = settings.index(name) if name else settings.indexes[0]
        self.sample = read_sample(settings, self.index, size)
        self._identity = identify(settings.embedder)
        self.report = BenchmarkReport(
            self.index.name, len(self.sample.documents), str(self._identity)
        )
        self._serial: dict[str, NDArray[np.float32]] = {}
        self._chars_per_second: float | None = None

    def worker_counts(self, given: Sequence[int] | None) -> list[int]:
        """Return the numbers of workers to try: as given, or 1, 2, 4, … up to what the settings
        say."""
        if given:
            return sorted(set(given))
        limit = worker_count(self.settings)
        if self.settings.parallel.workers == "auto":
            limit = max(
                limit, min(2, detect_machine().processors)
            )  # two processors have something to compare, too
        limit = max(1, limit)
        return sorted(
            {limit, *(2**power for power in range(limit.bit_length()) if 2**power < limit)}
        )

    def with_workers(self, workers: int) -> Settings:
        """Return the settings of a run with so many workers."""
        changed = {"workers": workers, "serial": False, "address": None}
        return self.settings.model_copy(
            update={"parallel": self.settings.parallel.model_copy(update=changed)}
        )

    def run_serially(self, run_id: str) -> None:
        """Embed the sample one text after another in this process, as the usual script does, and
        measure it."""
        given, settings = self.settings.embedder, serially(self.settings)
        script = {
            "hosts": given.hosts[:1],
            "batch_texts": 1,
            "requests_in_flight": 1,
            "num_thread": None,
        }
        with (
            self.begun(settings, run_id) as begun,
            closing(
                open_embedder(given.model_copy(update=script), expected=self._identity)
            ) as embedder,
        ):

            def one_by_one(texts: Sequence[str]) -> list[NDArray[np.float32] | Exception]:
                return [embedder.embed_documents([text])[0] for text in texts]

            embedder.embed_documents(["start up"])
            usual: Any = SimpleNamespace(embed_documents=one_by_one, stats=embedder.stats)
            with closing(LocalSteps(settings, embed_here=lambda job: job.embed(usual))) as steps:
                self._measure(begun, "serial", steps)

    def measure(self, workers: int, begun: BegunRun, steps: Steps) -> None:
        """Embed and write the sample as a run does, and measure it, once all workers have their
        model."""
        one, target = DocumentBatch(["0"], ["start up"], [b"{}"], [b""], [b""]), begun.scan.target
        nothing = Shard(self.index.name, 0, one, 0)
        steps.warm_up(
            EmbedJob(
                nothing, target.chunker, self.settings.embedder, target.identity, workers=workers
            )
        )
        self._measure(begun, count_of(workers, "worker"), steps)

    @contextmanager
    def begun(self, settings: Settings, run_id: str, workers: int = 1) -> Iterator[BegunRun]:
        """Begin a run of the sample with these settings, in a folder of its own."""
        folder = self.folder / str(len(self.report.measured))
        folder.mkdir(parents=True, exist_ok=True)
        own, name = settings_in(folder, settings), self.index.name
        with sample_run(own, name, self.sample, self._identity, run_id, workers=workers) as begun:
            if self._chars_per_second is not None:
                begun.scan.diff.sharder.chars_per_second = self._chars_per_second
            yield begun

    def _measure(self, begun: BegunRun, name: str, steps: Steps) -> None:
        started = time.perf_counter()
        index_pages(begun.opened, begun.scan, steps, begun.record)
        seconds = (
            time.perf_counter() - started + self.sample.seconds
        )  # the sample was read once, before
        points = begun.opened.store.points(begun.scan.target.collection.name).scroll(vectors=True)
        vectors = {point.id: np.asarray(point.vector, dtype=np.float32) for point in points}
        outcome, documents, serial = (
            begun.record.outcome,
            self.report.documents,
            self._serial or vectors,
        )
        work = outcome.work
        stages = {
            "fetch": self.sample.seconds,
            "chunk": max(0.0, work.seconds - work.embed_seconds),
            "embed": work.embed_seconds,
            "upsert": work.write_seconds,
        }
        shares = {
            stage: round(spent / max(1e-9, sum(stages.values())), 4)
            for stage, spent in stages.items()
        }
        one = Measured(
            name, outcome.workers, len(vectors), seconds, shares, documents / max(1e-9, seconds)
        )
        one.speed_up = (
            self.report.measured[0].seconds / max(1e-9, seconds) if self.report.measured else 1.0
        )
        one.same_ids = vectors.keys() == serial.keys()
        differences = (
            np.abs(vectors[point] - serial[point]).max() for point in vectors.keys() & serial.keys()
        )
        one.largest_difference = float(max(differences, default=0.0))
        self._serial = serial
        self._chars_per_second = self._chars_per_second or work.chars / max(
            1e-9, work.embed_seconds
        )
        self.report.measured.append(one)


def settings_in(folder: Path, settings: Settings) -> Settings:
    """Return the settings with store and ledger in this folder, and without contexts, which take
    long, and gates."""
    store = settings.store.model_copy(update={"path": folder / "qdrant", "url": None})
    ledger = LedgerSettings(url=Secret(f"sqlite:///{folder / 'ledger.db'}"))
    indexes = [
        index.model_copy(update={"context": None, "gate": None}) for index in settings.indexes
    ]
    return settings.model_copy(update={"store": store, "ledger": ledger, "indexes": indexes})


@contextmanager
def sample_run(
    settings: Settings,
    name: str,
    sample: Sample,
    identity: EmbedderIdentity,
    run_id: str,
    *,
    workers: int = 1,
) -> Iterator[BegunRun]:
    """Begin a run of an index whose source is the sample. Raises as `open_index`."""
    source: Any = sample
    with (
        closing(Ledger(settings.ledger_url)) as ledger,
        open_index(
            settings, name, RunOptions(), run_id=run_id, keep=(source, ledger, None)
        ) as opened,
    ):
        chunker, record = open_chunker(settings, opened.index), RunRecord(name)
        yield BegunRun(opened, begin(opened, record, identity, chunker, workers=workers), record)


@contextmanager
def open_bench(settings: Settings, name: str | None, size: int) -> Iterator[Bench]:
    """Open a bench on a sample of an index (the first by default), with a temporary folder. Raises
    UnknownIndex, and as the source does."""
    with tempfile.TemporaryDirectory(prefix="rag-index-benchmark-") as folder:
        bench = Bench(settings, name, size, Path(folder))
        with given(_CURRENT, bench):
            yield bench


_CURRENT: ContextVar[Bench | None] = ContextVar("the bench of this benchmark", default=None)
"""A variable, because each way of embedding is a flow: Prefect would keep the sample that a flow is
given."""


def current_bench() -> Bench:
    """Return the bench that is open. Raises LookupError if none is."""
    bench = _CURRENT.get()
    if bench is None:
        raise LookupError("no benchmark is open")
    return bench
