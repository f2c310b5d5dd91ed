"""The benchmark: a sample is embedded as a usual script does it, serially, and as a run does it.

Both write into temporary stores. The real collections and the real ledger are not opened.
"""

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
from rag_index.etl.scan import Scan, begin_scan

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from rag_index.core.documents.work import Work
    from rag_index.etl.steps import Steps

EQUAL = 1e-4
"""Two vectors of a text are the same if each component differs by less. The size of a batch may
change their last bits."""
MIN_SECONDS = 1e-9
"""The least divisor, so that nothing is divided by zero."""


@dataclass(slots=True)
class Measured:
    """One way of embedding the sample."""

    name: str
    workers: int
    chunks: int
    seconds: float
    """Wall-clock seconds from the first document to the last vector in the store, without
    start-up."""
    stages: dict[str, float]
    """The share of each stage in all busy seconds, 0 to 1."""
    documents_per_second: float
    speed_up: float = 1.0
    same_ids: bool = True
    """Whether the points have the same ids as those of the serial way."""
    largest_difference: float = 0.0
    """The largest difference from the serial way in any component of a vector."""

    @property
    def in_parity(self) -> bool:
        """Whether ids and vectors are the same as those of the serial way."""
        return self.same_ids and self.largest_difference < EQUAL


@dataclass(slots=True)
class BenchmarkReport:
    """The results of a benchmark, the serial way first."""

    index: str
    documents: int
    embedder: str
    measured: list[Measured] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Return the object that `--json` prints."""
        head = {"index": self.index, "documents": self.documents, "embedder": self.embedder}
        serial, *parallel = [asdict(measured) for measured in self.measured]
        return {**head, "serial": serial, "parallel": parallel}

    @property
    def in_parity(self) -> bool:
        """Whether all ways made the same ids and vectors."""
        return all(measured.in_parity for measured in self.measured)

    def sentence(self) -> str:
        """Return the best way in one line."""
        best = max(self.measured, key=lambda measured: measured.documents_per_second)
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
    """A sample of an index, a folder for its stores, and the results so far."""

    def __init__(self, settings: Settings, name: str | None, size: int, folder: Path) -> None:
        self.settings = settings
        self.folder = folder
        self.index = settings.index(name) if name else settings.indexes[0]
        self.sample = read_sample(settings, self.index, size)
        self._identity = identify(settings.embedder)
        documents = len(self.sample.documents)
        self.report = BenchmarkReport(self.index.name, documents, str(self._identity))
        self._serial: dict[str, NDArray[np.float32]] = {}
        """The vectors of the serial way, by id."""
        self._chars_per_second: float | None = None

    def worker_counts(self, given: Sequence[int] | None) -> list[int]:
        """Return the numbers of workers to try: the given ones, or 1, 2, 4, … up to that of the
        settings."""
        if given:
            return sorted(set(given))
        limit = worker_count(self.settings)
        # At least two if there are two processors, so that there is something to compare.
        if self.settings.parallel.workers == "auto":
            limit = max(limit, min(2, detect_machine().processors))
        limit = max(1, limit)
        counts = {limit}
        power = 1
        while power < limit:
            counts.add(power)
            power *= 2
        return sorted(counts)

    def with_workers(self, workers: int) -> Settings:
        """Return the settings of a run with so many workers."""
        changed = {"workers": workers, "serial": False, "address": None}
        parallel = self.settings.parallel.model_copy(update=changed)
        return self.settings.model_copy(update={"parallel": parallel})

    def run_serially(self, run_id: str) -> None:
        """Embed the sample one text after another in this process, as a usual script does, and
        measure it."""
        settings = serially(self.settings)
        script = {
            "hosts": self.settings.embedder.hosts[:1],
            "batch_texts": 1,
            "requests_in_flight": 1,
            "num_thread": None,
        }
        embedder_settings = self.settings.embedder.model_copy(update=script)
        with (
            self.begun(settings, run_id) as begun,
            closing(open_embedder(embedder_settings, expected=self._identity)) as embedder,
        ):

            def one_by_one(texts: Sequence[str]) -> list[NDArray[np.float32] | Exception]:
                return [embedder.embed_documents([text])[0] for text in texts]

            # Loads the model, before the time is measured.
            embedder.embed_documents(["start up"])
            usual: Any = SimpleNamespace(embed_documents=one_by_one, stats=embedder.stats)
            with closing(
                LocalSteps(settings, embed_in_process=lambda job: job.embed(usual))
            ) as steps:
                self._measure(begun, "serial", steps)

    def measure(self, workers: int, begun: BegunRun, steps: Steps) -> None:
        """Embed and write the sample as a run does, and measure it, once all workers have loaded
        their model."""
        target = begun.scan.target
        document = DocumentBatch(["0"], ["start up"], [b"{}"], [b""], [b""])
        shard = Shard(self.index.name, 0, document, 0)
        job = EmbedJob(
            shard, target.chunker, self.settings.embedder, target.identity, workers=workers
        )
        steps.warm_up(job)
        self._measure(begun, count_of(workers, "worker"), steps)

    @contextmanager
    def begun(self, settings: Settings, run_id: str, workers: int = 1) -> Iterator[BegunRun]:
        """Begin a run of the sample with these settings, in a folder of its own."""
        folder = self.folder / str(len(self.report.measured))
        folder.mkdir(parents=True, exist_ok=True)
        own, name = settings_in(folder, settings), self.index.name
        with sample_run(own, name, self.sample, self._identity, run_id, workers=workers) as begun:
            # Shards have the size that they have in a run, which knows the rate of the last one.
            if self._chars_per_second is not None:
                begun.scan.diff.sharder.chars_per_second = self._chars_per_second
            yield begun

    def _measure(self, begun: BegunRun, name: str, steps: Steps) -> None:
        """Embed and write the sample, and add the result to the report."""
        started = time.perf_counter()
        index_pages(begun.opened, begun.scan, steps, begun.record)
        # The sample was read before, once for all ways.
        seconds = time.perf_counter() - started + self.sample.seconds
        vectors = _vectors(begun)
        # The first way is the serial one.
        if not self._serial:
            self._serial = vectors
        work = begun.record.outcome.work
        if not self._chars_per_second:
            self._chars_per_second = work.chars / max(MIN_SECONDS, work.embed_seconds)
        speed_up = 1.0
        if self.report.measured:
            speed_up = self.report.measured[0].seconds / max(MIN_SECONDS, seconds)
        measured = Measured(
            name=name,
            workers=begun.record.outcome.workers,
            chunks=len(vectors),
            seconds=seconds,
            stages=self._shares(work),
            documents_per_second=self.report.documents / max(MIN_SECONDS, seconds),
            speed_up=speed_up,
            same_ids=vectors.keys() == self._serial.keys(),
            largest_difference=_largest_difference(vectors, self._serial),
        )
        self.report.measured.append(measured)

    def _shares(self, work: Work) -> dict[str, float]:
        """Return the share of each stage in all busy seconds."""
        stages = {
            "fetch": self.sample.seconds,
            "chunk": max(0.0, work.seconds - work.embed_seconds),
            "embed": work.embed_seconds,
            "upsert": work.write_seconds,
        }
        busy = max(MIN_SECONDS, sum(stages.values()))
        for stage, seconds in stages.items():
            stages[stage] = round(seconds / busy, 4)
        return stages


def _vectors(begun: BegunRun) -> dict[str, NDArray[np.float32]]:
    """Return the vectors that a run has written, by id."""
    collection = begun.scan.target.collection
    points = begun.opened.store.points(collection.name)
    vectors: dict[str, NDArray[np.float32]] = {}
    for point in points.scroll(vectors=True):
        vectors[point.id] = np.asarray(point.vector, dtype=np.float32)
    return vectors


def _largest_difference(
    some: Mapping[str, NDArray[np.float32]], others: Mapping[str, NDArray[np.float32]]
) -> float:
    """Return the largest difference in a component of a vector that both have; 0 without such."""
    both = some.keys() & others.keys()
    differences = [float(np.abs(some[point] - others[point]).max()) for point in both]
    return max(differences, default=0.0)


def settings_in(folder: Path, settings: Settings) -> Settings:
    """Return the settings with store and ledger in this folder, without gates, and without contexts,
    which take long."""
    store = settings.store.model_copy(update={"path": folder / "qdrant", "url": None})
    ledger = LedgerSettings(url=Secret(f"sqlite:///{folder / 'ledger.db'}"))
    left_out = {"context": None, "gate": None}
    indexes = [index.model_copy(update=left_out) for index in settings.indexes]
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
        chunker = open_chunker(settings, opened.index)
        record = RunRecord(name)
        scan = begin_scan(opened, record, identity, chunker, workers=workers)
        yield BegunRun(opened, scan, record)


@contextmanager
def open_bench(settings: Settings, name: str | None, size: int) -> Iterator[Bench]:
    """Open a bench on a sample of an index (the first by default), with a temporary folder.

    Raises UnknownIndex, and as the source does.
    """
    with tempfile.TemporaryDirectory(prefix="rag-index-benchmark-") as folder:
        bench = Bench(settings, name, size, Path(folder))
        with given(_CURRENT, bench):
            yield bench


_CURRENT: ContextVar[Bench | None] = ContextVar("the bench of this benchmark", default=None)
"""A context variable, because each way of embedding is a flow, and Prefect would store a sample that
is a parameter of a flow."""


def current_bench() -> Bench:
    """Return the bench that is open. Raises LookupError if none is."""
    bench = _CURRENT.get()
    if bench is None:
        raise LookupError("no benchmark is open")
    return bench
