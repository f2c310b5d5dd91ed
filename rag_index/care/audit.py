"""An audit of a Qdrant collection that another program made: how true it is to the source. Nothing is written. Source
and collection are read once into a database of SQLite's that is on disk, has no name and ends with its connection, and
are compared there. Vectors are not: a switch to rag-index makes its own."""

from __future__ import annotations

import json
import re
import sqlite3
from collections import Counter, defaultdict
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from itertools import chain, groupby, islice
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from rag_index.care.plan import CostCounter, RunCost
from rag_index.components.sources import all_pages, open_source
from rag_index.components.sources.attachments import with_files
from rag_index.components.stores.server import ServerStore
from rag_index.components.stores.server.link import ServerAccess
from rag_index.core.documents.keys import document_id
from rag_index.core.reports.progress import counted
from rag_index.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rag_index.core.settings import IndexSettings, Settings

AUDIT_PAGE, AUDIT_SAMPLE, EXAMPLES = 500, 200, 5
POINT_ID = "(point id)"
MAX_PAYLOAD_DEPTH = 4
USUAL = 0.5
"""If more of the documents have it, it is how that program writes texts, and no fault of one."""
_WORD = re.compile(r"\w+")
FAULT_KINDS = {
    "missing": "documents of the source without a point",
    "orphaned": "points of no document of the source",
    "stale": "documents whose points have another text than the source",
    "duplicated": "points that repeat the text of another point of their document",
}


@dataclass(frozen=True, slots=True)
class Audit:
    """What is wrong with a collection. Each of `counts` has examples: document ids, or ids of points without one."""

    index: str
    collection: str
    key: str
    """Where the key of the document is in the payload."""
    text: str
    documents: int
    """Documents of the source that have text."""
    points: int
    counts: dict[str, int]
    examples: dict[str, list[str]]
    switch: RunCost
    """What a first run of rag-index embeds."""

    @property
    def faults(self) -> int:
        """Return how many kinds of fault there are."""
        return sum(map(bool, self.counts.values()))

    def to_json(self) -> dict[str, Any]:
        """Return the object that `--json` prints."""
        return {**asdict(self), "switch": self.switch.to_json(), "faults": self.faults}

    def lines(self) -> Iterator[str]:
        """Yield what a person should know."""
        yield f"{self.collection}: {self.points:,} points, key in {self.key}, text in {self.text}"
        yield f"{self.index}: {self.documents:,} documents in the source"
        for kind, count in self.counts.items():
            some = f" ({', '.join(self.examples[kind])}{', …' if count > EXAMPLES else ''})" if count else ""
            yield f"{kind}, {FAULT_KINDS[kind]}: {count:,}{some}"
        yield f"a switch to rag-index: {self.switch.sentence()}"


def audit(
    settings: Settings, index: IndexSettings, collection: str, url: str, *, api_key: str | None, key: str, text: str
) -> Audit:
    """Compare a collection of a Qdrant server with the source of an index, given the fields with key and text. Raises
    SettingsError if no payload has one of these fields, and what the source and the server raise."""
    with (
        closing(ServerStore(ServerAccess(url, api_key=api_key, timeout=settings.store.timeout))) as store,
        closing(sqlite3.connect("")) as scratch,
    ):
        scratch.executescript(
            "CREATE TABLE source (id TEXT PRIMARY KEY, text TEXT); CREATE TABLE points (point TEXT, id TEXT, text TEXT)"
        )
        stored = store.points(collection)
        scrolled = stored.scroll(page=AUDIT_PAGE)
        records = ({POINT_ID: point.id, **dict(_fields(point.payload))} for point in scrolled)
        sample = list(islice(records, AUDIT_SAMPLE))
        for field in (key, text):
            if sample and not any(field in fields for fields in sample):
                known = ", ".join(f"{path} ({value:.40})" for fields in sample[:1] for path, value in fields.items())
                raise SettingsError(f"no payload has a field {field}; the first point has {known}")
        cost = _read_source(settings, index, scratch)
        points = counted(chain(sample, records), "points read", stored.count)
        rows = ((fields[POINT_ID], fields.get(key), str(fields.get(text) or "")) for fields in points)
        scratch.executemany("INSERT INTO points VALUES (?, ?, ?)", rows)
        counts, examples = _compare(scratch)
        [(documents,)] = scratch.execute("SELECT count(*) FROM source WHERE text <> ''")
        [(count,)] = scratch.execute("SELECT count(*) FROM points")
        return Audit(index.name, collection, key, text, documents, count, counts, examples, cost)


def _read_source(settings: Settings, index: IndexSettings, scratch: sqlite3.Connection) -> RunCost:
    """Copy ids and texts of the source, and return what it costs to embed them."""
    counter = CostCounter(settings, index, None)
    with closing(open_source(settings, index)) as source:
        source.check()
        for page in all_pages(source):
            for read in with_files(page.documents):
                ids = map(document_id, read.keys)
                scratch.executemany("INSERT INTO source VALUES (?, ?)", zip(ids, read.texts, strict=True))
                counter.add(read.take([row for row, text in enumerate(read.texts) if text]))
    return counter.cost()


def _fields(value: Any, path: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Yield the values in a payload by their paths, also those in JSON that is a text, as LlamaIndex has it."""
    if isinstance(value, str) and value.startswith("{"):
        with suppress(ValueError):
            value = json.loads(value)
    if isinstance(value, dict) and depth < MAX_PAYLOAD_DEPTH:
        for name, inner in value.items():
            yield from _fields(inner, f"{path}.{name}" if path else name, depth + 1)
    elif isinstance(value, str | int) and not isinstance(value, bool):
        yield path, str(value)


def _compare(scratch: sqlite3.Connection) -> tuple[dict[str, int], dict[str, list[str]]]:
    scratch.execute("CREATE INDEX by_id ON points (id, text)")
    queries = {
        "missing": "SELECT id FROM source WHERE text <> '' AND id NOT IN (SELECT id FROM points WHERE id IS NOT NULL)",
        "orphaned": "SELECT coalesce(id, point) FROM points WHERE id IS NULL OR id NOT IN (SELECT id FROM source)",
        "duplicated": "SELECT id FROM (SELECT id, row_number() OVER (PARTITION BY id, text) AS n FROM points "
        "WHERE id IS NOT NULL) WHERE n > 1",
    }
    found = {kind: [row[0] for row in scratch.execute(query)] for kind, query in queries.items()}
    odd, lacking, labels = defaultdict[str, set[str]](set), set[str](), Counter[str]()
    query = "SELECT s.id, s.text, p.text FROM source s JOIN points p ON p.id = s.id ORDER BY s.id"
    documents = 0
    for name, rows in groupby(scratch.execute(query), itemgetter(0)):
        chunks, documents = list(rows), documents + 1
        there, here = set(_WORD.findall(chunks[0][1])), {word for row in chunks for word in _WORD.findall(row[2])}
        if more := here - there:
            odd[name] = more
            labels.update(more)
        if there - here:
            lacking.add(name)
    usual = {word for word, count in labels.items() if count > USUAL * documents}
    stale = {name for name, words in odd.items() if words - usual}
    stale |= lacking if len(lacking) <= USUAL * documents else set()
    found["stale"] = sorted(stale)
    return (
        {kind: len(found[kind]) for kind in FAULT_KINDS},
        {kind: sorted(set(found[kind]))[:EXAMPLES] for kind in FAULT_KINDS},
    )
