"""Serial against parallel on a sample: what the usual script does, and what a run does.

Both write into stores that are thrown away; the real collections and the real ledger are not opened.
"""

from __future__ import annotations

import tempfile
import time
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from rag_index.chunking import open_chunker
from rag_index.indexing.run import IndexRun, RunOptions
from rag_index.ledger import Ledger
from rag_index.ledger.lease import IndexLease
from rag_index.machine.memory import MemoryWatch
from rag_index.machine.resources import choose_worker_count, estimate_worker_memory
from rag_index.settings import LedgerSettings
from rag_index.sources.sample import read_sample
from rag_index.stores import open_store
from rag_index.tuning.benchmark_report import BenchmarkReport, Measured
from rag_index.tuning.parity import Vectors, parity, stored_vectors
from rag_index.tuning.serial_script import run_serial_script

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rag_index.embedders import EmbedderIdentity
    from rag_index.indexing.scan import Scan
    from rag_index.settings import ParallelSettings, Settings

__all__ = ["Bench", "open_bench"]


class Bench:
    """A sample of an index, a folder for what is made of it, and what was measured so far."""

    def __init__(self, settings: Settings, name: str | None, size: int, folder: Path) -> None:
        self.settings = settings
        index = settings.index(name) if name else settings.indexes[0]
        self.index = index.model_copy(update={"context": None})  # what embedding takes is measured
        self.folder = folder
        self.size = size
        self.report = BenchmarkReport(self.index.name, 0, "")
        self._serial: Vectors | None = None
        self._chars_per_second: float | None = None

    def take_sample(self) -> int:
        """Read the sample, and return its size. Raises as the source does."""
        self.sample = read_sample(self.settings, self.index, self.size)
        self.report.documents = len(self.sample.documents)
        return self.report.documents

    def worker_counts(self, given: Sequence[int] | None) -> list[int]:
        """Return the numbers of workers to try: as given, or 1, 2, 4, … up to what the settings say."""
        if given:
            return sorted(set(given))
        limit = max(1, choose_worker_count(self.settings.parallel, estimate_worker_memory(self.settings.embedder)))
        return sorted({limit, *(2**power for power in range(limit.bit_length()) if 2**power < limit)})

    def run_serially(self, identity: EmbedderIdentity) -> Measured:
        """Embed the sample as the usual script does, and measure it."""
        self.report.embedder = str(identity)
        chunker, documents = open_chunker(self.settings, self.index), self.sample.documents
        made = run_serial_script(self._settings("serial", 1), self.index.name, documents, chunker, identity)
        self._serial = made.points
        self._chars_per_second = sum(map(len, documents.texts)) / max(1e-9, made.stages["embed"])
        return self._record("serial", 1, len(made.points.ids), made.seconds, made.stages, made.memory)

    @contextmanager
    def scan(self, workers: int, identity: EmbedderIdentity, run_id: str) -> Iterator[Scan]:
        """Begin a run of the sample with `workers` workers, in a folder of its own, and give its scan."""
        settings = self._settings(f"{workers}-workers", workers)
        source: Any = self.sample
        with (
            closing(Ledger(settings.ledger_url)) as ledger,
            IndexLease(ledger, settings.alias(self.index.name), run_id) as lease,
            closing(open_store(settings.store)) as store,
        ):
            run = IndexRun(
                settings,
                self.index,
                RunOptions(),
                run_id=run_id,
                source=source,
                ledger=ledger,
                lease=lease,
                store=store,
            )
            yield run.begin(identity, run.open_chunker(), chars_per_second=self._chars_per_second)

    @contextmanager
    def measured(self, scan: Scan, names: dict[int, str]) -> Iterator[None]:
        """Measure the block, which embeds and writes everything; `names` of worker processes by their process id."""
        with MemoryWatch(names) as watch:
            started = time.perf_counter()
            yield
            seconds = time.perf_counter() - started
        points, metrics = stored_vectors(scan.run.store, scan.collection.name), scan.run.metrics
        stages = {
            "chunk": max(0.0, metrics.worker_seconds - metrics.embed_seconds),
            "embed": metrics.embed_seconds,
            "upsert": metrics.write_seconds,
        }
        name = f"{metrics.workers} worker{'s' if metrics.workers > 1 else ''}"
        one = self._record(name, metrics.workers, len(points.ids), seconds, stages, watch.peaks)
        if self._serial is not None:
            one.parity = parity(self._serial, points)
            one.speed_up = self.report.measured[0].seconds / max(1e-9, one.seconds)

    def _record(
        self, name: str, workers: int, chunks: int, seconds: float, stages: dict[str, float], memory: dict[str, int]
    ) -> Measured:
        stages = {**stages, "fetch": self.sample.seconds}
        whole = seconds + self.sample.seconds  # the sample was read once, before
        one = Measured(name, workers, self.report.documents, chunks, whole, stages, memory)
        self.report.measured.append(one)
        return one

    def parallel(self, workers: int) -> ParallelSettings:
        """Return the settings with `workers` workers on a cluster of this machine's own."""
        changed = {"workers": workers, "serial": False, "address": None}
        return self.settings.parallel.model_copy(update=changed)

    def _settings(self, name: str, workers: int) -> Settings:
        """Return the settings with everything that is written in the temporary folder."""
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
    """Open a bench on an index (the first by default), with a temporary folder. Raises UnknownIndex."""
    with tempfile.TemporaryDirectory(prefix="rag-index-benchmark-") as folder:
        yield Bench(settings, name, size, Path(folder))
