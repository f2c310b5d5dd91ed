"""Serial against parallel on a sample: what the usual script does, and what a run does. Both write into stores that are
thrown away; the real collections and the real ledger are not opened. So do known items: queries made of a column such
as the title, over samples that are indexed without it, since a text with the title is found by it trivially."""

from __future__ import annotations

import json
import tempfile
import time
import uuid
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field
from hashlib import blake2b
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from rag_index.components.chunking import open_chunker
from rag_index.components.embedders import EmbedderIdentity, identify, open_embedder
from rag_index.components.ledger import Ledger
from rag_index.components.sources import Sample, read_sample
from rag_index.core.documents.batches import DocumentBatch, Shard
from rag_index.core.documents.keys import document_id
from rag_index.core.machine.resources import cpu_count, worker_count
from rag_index.core.reports.outcome import count_of
from rag_index.core.reports.record import RunRecord
from rag_index.core.settings import LedgerSettings, Settings, load_settings
from rag_index.core.settings.index import SQL
from rag_index.core.settings.parts import Secret, split_name
from rag_index.errors import SettingsError
from rag_index.etl.changed import serially
from rag_index.etl.embed import EmbedJob
from rag_index.etl.opened import Opened, RunOptions, open_index
from rag_index.etl.plain import Plainly
from rag_index.etl.publish import publish
from rag_index.etl.run import AllDocuments, index_pages
from rag_index.etl.scan import Scan, begin
from rag_index.search.evaluation.golden import GoldenQuery

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from rag_index.core.settings import IndexSettings, Settings
    from rag_index.etl.steps import Steps

CHANGEABLE = ("embedder", "parallel", "store")
"""The tables of the settings file that decide how fast a sample is embedded and written."""
MIN_RECALL = 0.999
COMPARED_NEIGHBOURS = 10
MAX_COMPARED = 500
EQUAL_SIMILARITY = 1e-5
"""Similarities that differ by less count as equal, so it does not matter which of two equal neighbours is found."""


@dataclass(slots=True)
class Measured:
    """One way of embedding the sample."""

    name: str
    workers: int
    documents: int
    chunks: int
    seconds: float
    """Wall seconds from the first document to the last vector in the store, without start-up."""
    stages: dict[str, float]
    speed_up: float = 1.0
    parity: Parity | None = None

    @property
    def rate(self) -> float:
        """Documents per second."""
        return self.documents / self.seconds if self.seconds else 0.0

    @property
    def shares(self) -> dict[str, float]:
        """The share of each stage in all busy seconds, 0 to 1."""
        busy = sum(self.stages.values())
        return {name: seconds / busy if busy else 0.0 for name, seconds in self.stages.items()}

    def to_json(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        return {
            "name": self.name,
            "workers": self.workers,
            "seconds": round(self.seconds, 3),
            "documents_per_second": round(self.rate, 2),
            "speed_up": round(self.speed_up, 3),
            "stages": {name: round(share, 4) for name, share in self.shares.items()},
            **(asdict(self.parity) if self.parity else {}),
        }


@dataclass(slots=True)
class BenchmarkReport:
    """All that a benchmark measured, the serial way first."""

    index: str
    documents: int
    embedder: str
    measured: list[Measured] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        serial, *parallel = [one.to_json() for one in self.measured]
        head = {"index": self.index, "documents": self.documents, "chunks": self.measured[0].chunks}
        return head | {"embedder": self.embedder, "serial": serial, "parallel": parallel}

    @property
    def in_parity(self) -> bool:
        """Whether every way made the same ids, and vectors that find the same neighbours."""
        found = [one.parity for one in self.measured if one.parity]
        return all(one.same_ids and one.recall >= MIN_RECALL for one in found)

    def sentence(self) -> str:
        """Return the best way in one line."""
        best = max(self.measured, key=lambda one: one.rate)
        same = "the same ids and neighbours" if self.in_parity else "NOT the same ids and neighbours: see the table"
        return (
            f"{self.index}: {self.documents:,} documents, best with {best.name}: {best.rate:,.1f} documents/s, "
            f"{best.speed_up:.2f} times the serial way; {same}"
        )


@dataclass(frozen=True, slots=True)
class Vectors:
    """Point ids, and unit vectors of shape (len(ids), dimension), float32."""

    ids: list[str]
    matrix: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Parity:
    """The result of comparing two sets of points."""

    same_ids: bool
    largest_difference: float
    """Between the two vectors of a point, in any component, over the points that are in both sets."""
    recall: float
    """Share of the ten nearest neighbours in the second set that are as near in the first, 0 to 1."""


def parity(first: Vectors, second: Vectors) -> Parity:
    """Compare two sets of points, in any order."""
    rows = {point: row for row, point in enumerate(second.ids)}
    shared = [(row, rows[point]) for row, point in enumerate(first.ids) if point in rows]
    same = len(shared) == len(first.ids) == len(second.ids)
    if not shared:
        return Parity(same, 0.0, 1.0 if same else 0.0)
    one = first.matrix[[row for row, _ in shared]]
    other = second.matrix[[row for _, row in shared]]
    if one.shape != other.shape:
        return Parity(same, float("inf"), 0.0)
    return Parity(same, float(np.abs(one - other).max()), _recall(one, other))


def _recall(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Return the share of neighbours found by `other` that are no further away, by `one`, than its tenth neighbour."""
    count = min(COMPARED_NEIGHBOURS, len(one) - 1)
    if count < 1:
        return 1.0
    hits = total = 0
    for row in range(0, len(one), max(1, len(one) // MAX_COMPARED)):
        expected, actual = one @ one[row], other @ other[row]
        expected[row] = actual[row] = -np.inf
        limit = np.partition(expected, -count)[-count]
        nearest = np.argpartition(actual, -count)[-count:]
        hits += int((expected[nearest] >= limit - EQUAL_SIMILARITY).sum())
        total += count
    return hits / total


@dataclass(frozen=True, slots=True)
class Way:
    """One way to embed the sample: the settings that decide it, and its name in the report."""

    name: str
    settings: Settings
    workers: int = 1


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
        self.report = BenchmarkReport(self.index.name, len(self.sample.documents), "")
        self._identity: EmbedderIdentity | None = None
        self._serial: Vectors | None = None
        self._chars_per_second: float | None = None

    def worker_counts(self, given: Sequence[int] | None) -> list[int]:
        """Return the numbers of workers to try: as given, or 1, 2, 4, … up to what the settings say."""
        if given:
            return sorted(set(given))
        limit = worker_count(self.settings)
        if self.settings.parallel.workers == "auto":
            limit = max(limit, min(2, cpu_count()))  # two processors have something to compare, too
        limit = max(1, limit)
        return sorted({limit, *(2**power for power in range(limit.bit_length()) if 2**power < limit)})

    def ways(self, workers: Sequence[int] | None, change: str | None = None) -> list[Way]:
        """Return what is compared with the serial script: numbers of workers, or the values of a setting. `change` is
        such as "embedder.num_thread=1,2": each value is tried in one process, or with each number of workers if these
        are given. Raises SettingsError if it cannot be read, or if a value is not allowed."""
        if change is None:
            return [Way(count_of(n, "worker"), self._with_workers(n), n) for n in self.worker_counts(workers)]
        ways = []
        for name, settings in changed_settings(self.settings, change):
            ways += [
                Way(f"{name}, {count_of(n, 'worker')}", self._with_workers(n, settings), n) for n in workers or ()
            ] or [Way(name, serially(settings))]
        return ways

    def run_serially(self, run_id: str) -> None:
        """Embed the sample one text after another in this process, as the usual script does, and measure it."""
        given, serial = self.settings.embedder, Way("serial", serially(self.settings))
        identity = self._identity = identify(given)
        self.report.embedder = str(identity)
        script = {"hosts": given.hosts[:1], "batch_texts": 1, "requests_in_flight": 1, "num_thread": None}
        with (
            self.begun(serial, run_id) as begun,
            closing(open_embedder(given.model_copy(update=script), expected=identity)) as embedder,
        ):

            def one_by_one(texts: Sequence[str]) -> list[NDArray[np.float32] | Exception]:
                return [embedder.embed_documents([text])[0] for text in texts]

            embedder.embed_documents(["start up"])
            usual: Any = SimpleNamespace(embed_documents=one_by_one, stats=embedder.stats)
            with closing(Plainly(serial.settings, embed_here=lambda job: job.embed(usual))) as steps:
                self._measure(begun, "serial", steps)

    def measure(self, way: Way, begun: BegunRun, steps: Steps) -> None:
        """Embed and write the sample as a run does, and measure it, once all workers have their model."""
        one = DocumentBatch(["0"], ["start up"], [b"{}"], [b""], [b""])
        nothing, embedder = Shard(self.index.name, 0, one, 0), way.settings.embedder
        target = begun.scan.target
        steps.warm_up(EmbedJob(nothing, target.chunker, embedder, target.identity, workers=way.workers))
        self._measure(begun, way.name, steps)

    @contextmanager
    def begun(self, way: Way, run_id: str) -> Iterator[BegunRun]:
        """Begin a run of the sample in this way, in a folder of its own."""
        folder = self.folder / str(len(self.report.measured))
        folder.mkdir(parents=True, exist_ok=True)
        settings, same = settings_in(folder, way.settings), way.settings.embedder == self.settings.embedder
        identity = self._identity if same and self._identity else identify(way.settings.embedder)
        with sample_run(settings, self.index.name, self.sample, identity, run_id, workers=way.workers) as begun:
            if self._chars_per_second is not None:
                begun.scan.diff.sharder.chars_per_second = self._chars_per_second
            yield begun

    def _measure(self, begun: BegunRun, name: str, steps: Steps) -> None:
        started, target = time.perf_counter(), begun.scan.target
        index_pages(begun.opened, begun.scan, steps, begun.record, AllDocuments())
        seconds = time.perf_counter() - started + self.sample.seconds  # the sample was read once, before
        points = list(begun.opened.store.scroll(target.collection.name, vectors=True))
        metrics = begun.record.metrics
        matrix = np.array([point.vector for point in points], dtype=np.float32)
        vectors = Vectors([point.id for point in points], matrix)
        stages = {
            "fetch": self.sample.seconds,
            "chunk": max(0.0, metrics.work.seconds - metrics.work.embed_seconds),
            "embed": metrics.work.embed_seconds,
            "upsert": metrics.write_seconds,
        }
        counts = (metrics.workers, self.report.documents, len(points))
        one = Measured(name, *counts, seconds, stages)
        if self._serial is None:
            self._serial = vectors
            self._chars_per_second = metrics.work.chars / max(1e-9, metrics.work.embed_seconds)
        else:
            if target.identity == self._identity:  # another model's vectors are not comparable
                one.parity = parity(self._serial, vectors)
            one.speed_up = self.report.measured[0].seconds / max(1e-9, one.seconds)
        self.report.measured.append(one)

    def _with_workers(self, workers: int, settings: Settings | None = None) -> Settings:
        settings, changed = settings or self.settings, {"workers": workers, "serial": False, "address": None}
        return settings.model_copy(update={"parallel": settings.parallel.model_copy(update=changed)})


def changed_settings(settings: Settings, change: str) -> list[tuple[str, Settings]]:
    """Return the settings with each value of a key, such as "embedder.num_thread=1,2", and a name for each. Values are
    written as in JSON (`null` is the default of many keys), or as text without commas. Raises SettingsError."""
    place, _, text = change.partition("=")
    section, _, key = place.strip().partition(".")
    if section not in CHANGEABLE or not key or not text:
        tables = ", ".join(f"[{one}]" for one in CHANGEABLE)
        raise SettingsError(
            f"{change!r} is not a setting to compare; write a key of {tables} and its values: embedder.num_thread=1,2"
        )
    try:
        values = json.loads(f"[{text}]")
    except ValueError:
        values = [value.strip() for value in text.split(",")]
    return [
        (f"{key} = {json.dumps(value)}", load_settings(settings.path, **{section: {key: value}})) for value in values
    ]


def settings_in(folder: Path, settings: Settings) -> Settings:
    """Return the settings with store and ledger in this folder, and without contexts, which take long, and gates."""
    store = settings.store.model_copy(update={"path": folder / "qdrant", "url": None})
    ledger = LedgerSettings(url=Secret(f"sqlite:///{folder / 'ledger.db'}"))
    indexes = [index.model_copy(update={"context": None, "gate": None}) for index in settings.indexes]
    return settings.model_copy(update={"store": store, "ledger": ledger, "indexes": indexes})


@contextmanager
def sample_run(
    settings: Settings, name: str, sample: Sample, identity: EmbedderIdentity, run_id: str, *, workers: int = 1
) -> Iterator[BegunRun]:
    """Begin a run of an index whose source is the sample. Raises as `open_index`."""
    source: Any = sample
    with (
        closing(Ledger(settings.ledger_url)) as ledger,
        open_index(settings, name, RunOptions(), run_id=run_id, keep=(source, ledger)) as opened,
    ):
        chunker, record = open_chunker(settings, opened.index), RunRecord(name)
        yield BegunRun(opened, begin(opened, record, identity, chunker, workers=workers), record)


@contextmanager
def open_bench(settings: Settings, name: str | None, size: int) -> Iterator[Bench]:
    """Open a bench on a sample of an index (the first by default), with a temporary folder. Raises UnknownIndex, and as
    the source does."""
    with tempfile.TemporaryDirectory(prefix="rag-index-benchmark-") as folder:
        yield Bench(settings, name, size, Path(folder))


QUERIES, DOCUMENTS = 200, 5000


@contextmanager
def known_items(settings: Settings, names: Sequence[str], column: str) -> Iterator[tuple[Settings, list[GoldenQuery]]]:
    """Index samples of these indexes without the column; give settings with which they are searched, and the queries.
    The real store and ledger are not opened. One process embeds. Raises SettingsError or SourceError if an index has no
    such column, or nothing else than it to search, and what `run.index_pages` raises."""
    indexes = [without_column(settings.index(name), column) for name in names]
    changed = settings.model_copy(update={"indexes": indexes})
    samples = {index.name: read_sample(changed, index, DOCUMENTS) for index in indexes}
    queries = [one for index in indexes for one in column_queries(index, column, samples[index.name].documents)]
    with tempfile.TemporaryDirectory(prefix="rag-index-evaluate-") as folder:
        temporary = settings_in(Path(folder), changed)
        _index(temporary, samples)
        yield temporary, queries


def _index(settings: Settings, samples: Mapping[str, Sample]) -> None:
    identity = identify(settings.embedder)
    with closing(Plainly(serially(settings))) as steps:
        for name, sample in samples.items():
            with sample_run(settings, name, sample, identity, str(uuid.uuid4())) as begun:
                index_pages(begun.opened, begun.scan, steps, begun.record, AllDocuments())
                publish(begun.opened, begun.scan, begun.record)


def without_column(index: IndexSettings, column: str) -> IndexSettings:
    """Return the index with the column in its payload and not in its text, and without a filter that hides documents. A
    template of the text becomes the list of its other columns, and a title with the column is left out. Raises
    SettingsError if the index has no columns, or no other column of text."""
    if index.kind != SQL:
        raise SettingsError(
            f"index {index.name} has kind {index.kind!r} and no columns to make queries of: name other indexes with "
            f"--index"
        )
    texts = [name for name in index.text_columns if name != column]
    title = None if column in index.title_columns else index.title
    if not (texts or title or index.parts):
        raise SettingsError(
            f"the text of index {index.name} is the column {column!r} alone, and nothing is left to be found: "
            f"name another column with --query-column"
        )
    payload = list(dict.fromkeys([*index.payload, column]))
    return index.model_copy(update={"text": texts, "title": title, "payload": payload, "required_filter": {}})


def column_queries(index: IndexSettings, column: str, documents: DocumentBatch) -> list[GoldenQuery]:
    """Return some values of the column as queries, each with the documents that have it. The documents with the
    smallest hashes of their keys are chosen, so that they are the same each time. Raises SettingsError if the column
    has no text."""
    join, name = split_name(column, index.joins)
    payloads = map(json.loads, documents.payloads)
    values: list[Any] = [(payload if join is None else payload[join]).get(name) for payload in payloads]
    texts = [" ".join(value.split()) if isinstance(value, str) else "" for value in values]
    by_text: dict[str, dict[str, int]] = {}
    rows = sorted(range(len(texts)), key=lambda row: blake2b(documents.keys[row].encode(), digest_size=8).digest())
    for row in rows:
        if texts[row]:
            by_text.setdefault(texts[row], {})[document_id(documents.keys[row])] = 1
    if not by_text:
        other = next((value for value in values if value is not None and not isinstance(value, str)), None)
        reason = (
            "is empty in all documents" if other is None else f"holds {type(other).__name__} ({other!r:.40}), not text"
        )
        raise SettingsError(f"index {index.name}: column {column!r} {reason}; name another with --query-column")
    return [GoldenQuery(text, relevant, index.name) for text, relevant in list(by_text.items())[:QUERIES]]
