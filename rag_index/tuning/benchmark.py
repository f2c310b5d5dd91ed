"""Serial against parallel on a sample: what the usual script does, and what a run does.

Both write into stores that are thrown away; the real collections and the real ledger are not opened.
"""

from __future__ import annotations

import tempfile
import time
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import SecretStr

from rag_index.chunking import open_chunker
from rag_index.documents.batches import PointBatch, Shard
from rag_index.embedders import open_embedder
from rag_index.indexing.embed import embed_shard
from rag_index.indexing.points import batches
from rag_index.indexing.run import IndexRun, RunOptions
from rag_index.ledger import Ledger
from rag_index.ledger.lease import IndexLease
from rag_index.machine.memory import MemoryWatch
from rag_index.machine.resources import worker_memory, workers_for
from rag_index.settings import LedgerSettings
from rag_index.sources.part import read_part
from rag_index.stores import open_store
from rag_index.tuning.parity import Parity, Vectors, parity

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from rag_index.documents.batches import EmbeddedShard, ShardStats, WrittenShard
    from rag_index.embedders import Embedder, EmbedderIdentity
    from rag_index.settings import EmbedderSettings, ParallelSettings, Settings
    from rag_index.stores import Store

__all__ = ["Bench", "BenchRun", "BenchmarkReport", "Measured", "OneByOne", "open_bench", "serial_settings"]

STAGES = ("fetch", "chunk", "embed", "upsert")
UPSERT_POINTS = 100
"""Points that the serial script writes at a time."""


@dataclass(slots=True)
class Measured:
    """One way of doing it."""

    name: str
    workers: int
    documents: int
    chunks: int
    seconds: float
    """Start-up apart: from the first document to the last vector in the store."""
    stages: dict[str, float]
    """Busy seconds of each stage, of all processes together."""
    memory: dict[str, int]
    """Highest own memory of each process, in bytes."""
    speed_up: float = 1.0
    agrees: Parity | None = None
    """With the serial run."""

    @property
    def rate(self) -> float:
        """Documents a second."""
        return self.documents / self.seconds if self.seconds else 0.0

    @property
    def shares(self) -> dict[str, float]:
        """Each stage's part of all busy seconds, 0 to 1."""
        busy = sum(self.stages.values())
        return {name: seconds / busy if busy else 0.0 for name, seconds in self.stages.items()}

    def to_json(self) -> dict[str, Any]:
        """As `--json` prints it."""
        return {
            "name": self.name,
            "workers": self.workers,
            "seconds": round(self.seconds, 3),
            "documents_per_second": round(self.rate, 2),
            "speed_up": round(self.speed_up, 3),
            "stages": {name: round(share, 4) for name, share in self.shares.items()},
            "memory_mb": {name: round(size / 1e6, 1) for name, size in self.memory.items()},
            **(asdict(self.agrees) if self.agrees else {}),
        }


@dataclass(slots=True)
class BenchmarkReport:
    """What was measured, the serial way first."""

    index: str
    documents: int
    embedder: str
    measured: list[Measured] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """As `--json` prints it."""
        serial, *parallel = [one.to_json() for one in self.measured]
        head = {"index": self.index, "documents": self.documents, "chunks": self.measured[0].chunks}
        return head | {"embedder": self.embedder, "serial": serial, "parallel": parallel}

    @property
    def agrees(self) -> bool:
        """Whether every way made the same ids, and vectors that find the same."""
        found = [one.agrees for one in self.measured if one.agrees]
        return all(one.same_ids and one.recall >= 0.999 for one in found)

    def sentence(self) -> str:
        """The best, in a line."""
        best = max(self.measured, key=lambda one: one.rate)
        same = "the same ids and neighbours" if self.agrees else "NOT the same ids and neighbours: see the table"
        return (
            f"{self.index}: {self.documents:,} documents, best with {best.name}: {best.rate:,.1f} documents/s, "
            f"{best.speed_up:.2f} times the serial way; {same}"
        )


class OneByOne:
    """An embedder that is asked for one text at a time."""

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder
        self.stats = embedder.stats

    def embed_documents(self, texts: Sequence[str]) -> list[NDArray[np.float32] | Exception]:
        """As Embedder, a request a text."""
        return [self._embedder.embed_documents([text])[0] for text in texts]

    def identity(self) -> EmbedderIdentity:
        """As Embedder."""
        return self._embedder.identity()

    def embed_query(self, text: str) -> NDArray[np.float32]:
        """As Embedder."""
        return self._embedder.embed_query(text)

    def close(self) -> None:
        """As Embedder."""
        self._embedder.close()


def serial_settings(embedder: EmbedderSettings) -> EmbedderSettings:
    """What the usual script does: one server, one request at a time, the server's own choice of threads."""
    changed = {"hosts": embedder.hosts[:1], "batch_texts": 1, "requests_in_flight": 1, "num_thread": None}
    return embedder.model_copy(update=changed)


class _Writer:
    """Writes points as a script does: as they come, `UPSERT_POINTS` at a time."""

    def __init__(self, store: Store, collection: str) -> None:
        self._store = store
        self._collection = collection
        self._waiting: list[PointBatch] = []
        self.seconds = 0.0

    def add(self, embedded: EmbeddedShard) -> None:
        """Take a document's points."""
        self._waiting += batches(embedded)
        if sum(map(len, self._waiting)) >= UPSERT_POINTS:
            self.write()

    def write(self) -> None:
        """Write what waits."""
        started = time.perf_counter()
        if self._waiting:
            ids = [point for batch in self._waiting for point in batch.ids]
            payloads = [payload for batch in self._waiting for payload in batch.payloads]
            vectors = np.concatenate([batch.vectors for batch in self._waiting])
            self._store.upsert(self._collection, PointBatch(ids, vectors, payloads))
            self._waiting = []
        self.seconds += time.perf_counter() - started

    def finish(self) -> None:
        """Write what is left, and make it all durable."""
        self.write()
        started = time.perf_counter()
        self._store.flush(self._collection)
        self.seconds += time.perf_counter() - started


class BenchRun(IndexRun):
    """A run over a sample, which also notes what each stage took."""

    rate: float = 0.0
    """Characters a second that a worker is known to embed, as a collection's ledger row would say; 0: not known."""

    def begin(self, identity: EmbedderIdentity, *, documents: int | None = None) -> None:
        """As in any run, with a known rate."""
        super().begin(identity, documents=documents)
        self.stages = dict.fromkeys(STAGES, 0.0)
        if self.rate:
            self.sharder.chars_per_second = self.rate

    def commit(self, written: WrittenShard) -> None:
        """As in any run."""
        super().commit(written)
        self.note(written.stats, written.write_seconds)

    def note(self, stats: ShardStats, write_seconds: float) -> None:
        """Add a shard's seconds."""
        self.stages["embed"] += stats.embed_seconds
        self.stages["chunk"] += max(0.0, stats.seconds - stats.embed_seconds)
        self.stages["upsert"] += write_seconds


class Bench:
    """A sample of an index, a folder for what is made of it, and what was measured so far."""

    def __init__(self, settings: Settings, name: str | None, size: int, folder: Path) -> None:
        self.settings = settings
        index = settings.index(name) if name else settings.indexes[0]
        self.index = index.model_copy(update={"context": None})  # embedding is measured, and what is around it
        self.folder = folder
        self.size = size
        self.report = BenchmarkReport(self.index.name, 0, "")
        self._serial: Vectors | None = None
        self._rate = 0.0

    def take_sample(self) -> int:
        """Read the sample. Raises as the source does."""
        self.part = read_part(self.settings, self.index, self.size)
        self.report.documents = len(self.part.documents)
        return self.report.documents

    def counts(self, given: Sequence[int] | None) -> list[int]:
        """The numbers of workers to try: as given, or 1, 2, 4, … up to what the settings say."""
        if given:
            return sorted(set(given))
        most = workers_for(self.settings.parallel, worker_memory(self.settings.embedder))
        return sorted({most, *(2**power for power in range(most.bit_length()) if 2**power < most)})

    def run_serially(self, identity: EmbedderIdentity) -> Measured:
        """What the usual script does: a document, its chunks, a request for each; points in batches of 100."""
        self.identity, self.report.embedder = identity, str(identity)
        documents, stages = self.part.documents, dict.fromkeys(STAGES, 0.0)
        chunker = open_chunker(self.settings, self.index)
        embedder = OneByOne(open_embedder(serial_settings(self.settings.embedder), expected=identity))
        store = open_store(self._settings("serial", 1).store)
        store.create("serial", identity.dimension, {})
        writer = _Writer(store, "serial")
        try:
            embedder.embed_documents(["start up"])
            with MemoryWatch({}) as watch:
                started = time.perf_counter()
                for row in range(len(documents)):
                    page = documents.take([row])
                    embedded = embed_shard(Shard(self.index.name, row, page, len(page.texts[0])), chunker, embedder)
                    stages["embed"] += embedded.stats.embed_seconds
                    stages["chunk"] += max(0.0, embedded.stats.seconds - embedded.stats.embed_seconds)
                    writer.add(embedded)
                writer.finish()
                seconds = time.perf_counter() - started
            stages["upsert"] = writer.seconds
            self._serial = _vectors(store, "serial")
        finally:
            embedder.close()
            store.close()
        self._rate = sum(map(len, documents.texts)) / max(1e-9, stages["embed"])
        return self._note("serial", 1, len(self._serial.ids), seconds, stages, watch.peaks)

    @contextmanager
    def run(self, workers: int, run_id: str) -> Iterator[BenchRun]:
        """A run of the sample with so many workers, in a folder of its own."""
        settings = self._settings(f"{workers}-workers", workers)
        with ExitStack() as stack:
            ledger = Ledger(settings.ledger_url)
            stack.callback(ledger.close)
            lease = stack.enter_context(IndexLease(ledger, settings.alias(self.index.name), run_id))
            store = open_store(settings.store)
            stack.callback(store.close)
            part: Any = self.part
            run = BenchRun(
                settings, self.index, RunOptions(), run_id=run_id, source=part, ledger=ledger, lease=lease, store=store
            )
            run.rate = self._rate
            yield run

    @contextmanager
    def measured(self, run: BenchRun, names: dict[int, str]) -> Iterator[None]:
        """The block embeds and writes everything; `names` of worker processes by their id."""
        with MemoryWatch(names) as watch:
            started = time.perf_counter()
            yield
            seconds = time.perf_counter() - started
        points = _vectors(run.store, run.collection.name)
        name = f"{run.workers} worker{'s' if run.workers > 1 else ''}"
        one = self._note(name, run.workers, len(points.ids), seconds, run.stages, watch.peaks)
        if self._serial is not None:
            one.agrees = parity(self._serial, points)
            one.speed_up = self.report.measured[0].seconds / max(1e-9, one.seconds)

    def _note(
        self, name: str, workers: int, chunks: int, seconds: float, stages: dict[str, float], memory: dict[str, int]
    ) -> Measured:
        stages = {**stages, "fetch": self.part.seconds}
        whole = seconds + self.part.seconds  # the sample was read once, before
        one = Measured(name, workers, self.report.documents, chunks, whole, stages, memory)
        self.report.measured.append(one)
        return one

    def parallel(self, workers: int) -> ParallelSettings:
        """As configured, with so many workers on a cluster of this machine's own."""
        changed = {"workers": workers, "serial": False, "address": None}
        return self.settings.parallel.model_copy(update=changed)

    def _settings(self, name: str, workers: int) -> Settings:
        """The settings, with everything that is written in the temporary folder."""
        folder = self.folder / name
        folder.mkdir(parents=True, exist_ok=True)
        settings, url = self.settings, SecretStr(f"sqlite:///{folder / 'ledger.db'}")
        return settings.model_copy(
            update={
                "store": settings.store.model_copy(update={"path": folder / "qdrant", "url": None}),
                "ledger": LedgerSettings(url=url),
                "parallel": self.parallel(workers),
            }
        )


@contextmanager
def open_bench(settings: Settings, name: str | None, size: int) -> Iterator[Bench]:
    """A bench on an index (the first where none is named), with a temporary folder. Raises UnknownIndex."""
    with tempfile.TemporaryDirectory(prefix="rag-index-benchmark-") as folder:
        yield Bench(settings, name, size, Path(folder))


def _vectors(store: Store, collection: str) -> Vectors:
    points = list(store.scroll(collection, vectors=True))
    return Vectors([point.id for point in points], np.array([point.vector for point in points], dtype=np.float32))
