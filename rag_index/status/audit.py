"""An audit of a Qdrant collection that another program made: how true it is to the source. Nothing is written.

Where key and text are in the payload is guessed from the values, unless it is given. Source and collection are read
once into a database of SQLite's that is on disk, has no name and ends with its connection, and are compared there.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections import Counter, defaultdict
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import numpy as np

from rag_index.documents.keys import document_id
from rag_index.embedders import open_embedder
from rag_index.errors import RagIndexError, SettingsError
from rag_index.sources import open_source
from rag_index.sources.attachments import with_files
from rag_index.status.plan import CostCounter, RunCost
from rag_index.stores.server.link import Link

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qdrant_client import QdrantClient, models

    from rag_index.settings import IndexSettings, Settings

PAGE, SAMPLE, EXAMPLES = 500, 200, 5
POINT_ID = "(point id)"
MAX_DEPTH = 4
MIN_KEYS = 0.5
"""The share of a sample's values that must be keys of the source, for a field to be taken for the key."""
USUAL = 0.5
"""If more of the documents have it, it is how that program writes texts, and no fault of one."""
COMPARED, SAME_MODEL = 16, 0.95
_WORD = re.compile(r"\w+")
KINDS = {
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
    dimensions: dict[str, int]
    """Those of the collection's vectors, by their name ("" for one without)."""
    wrong_dimension: bool
    other_model: bool | None
    """Whether the settings' embedder makes other vectors of the same texts; None if that was not compared."""
    model: str
    """The embedder of the settings, or why it was not asked."""
    switch: RunCost
    """What a first run of rag-index embeds."""

    @property
    def faults(self) -> int:
        """Return how many kinds of fault there are."""
        return sum(map(bool, (*self.counts.values(), self.wrong_dimension, self.other_model)))

    def to_json(self) -> dict[str, Any]:
        """Return the object that `--json` prints."""
        return {**asdict(self), "switch": self.switch.to_json(), "faults": self.faults}

    def lines(self) -> Iterator[str]:
        """Yield what a person should know."""
        yield f"{self.collection}: {self.points:,} points, key in {self.key}, text in {self.text} (--key, --text)"
        yield f"{self.index}: {self.documents:,} documents in the source"
        for kind, count in self.counts.items():
            some = f" ({', '.join(self.examples[kind])}{', …' if count > EXAMPLES else ''})" if count else ""
            yield f"{kind}, {KINDS[kind]}: {count:,}{some}"
        sizes = ", ".join(f"{size}-d {name}".strip() for name, size in self.dimensions.items()) or "none"
        said = "another dimension" if self.wrong_dimension else "other vectors of the same texts"
        if not (self.wrong_dimension or self.other_model):
            said = "not compared" if self.other_model is None else "the same vectors"
        yield f"vectors: {sizes}; {self.model}: {said}"
        yield f"a switch to rag-index: {self.switch.sentence()}"


def audit(
    settings: Settings,
    index: IndexSettings,
    collection: str,
    url: str,
    *,
    api_key: str | None = None,
    key: str | None = None,
    text: str | None = None,
) -> Audit:
    """Compare a collection of a Qdrant server with the source of an index.

    Raises SettingsError if key or text are not found in the payload, and what the source and the server raise.
    """
    with (
        closing(Link(url, api_key=api_key, timeout=settings.store.timeout)) as link,
        closing(sqlite3.connect("")) as scratch,
    ):
        scratch.executescript(
            "CREATE TABLE source (id TEXT PRIMARY KEY, text TEXT); CREATE TABLE points (point TEXT, id TEXT, text TEXT)"
        )
        vectors = link.call(lambda client: client.get_collection(collection)).config.params.vectors
        named = vectors if isinstance(vectors, dict) else {"": vectors} if vectors is not None else {}
        cost = _read_source(settings, index, scratch)
        records = _scroll(link, collection)
        sample = [next(records, None) for _ in range(SAMPLE)]
        known = [fields for fields in sample if fields is not None]
        key = _require(key, "key", known) if key else _guess_key(known, scratch)
        text = _require(text, "text", known) if text else _guess_text(known, key)
        for some in (known, records):
            rows = ((fields[POINT_ID], fields.get(key), str(fields.get(text) or "")) for fields in some)
            scratch.executemany("INSERT INTO points VALUES (?, ?, ?)", rows)
        counts, examples, current = _compare(scratch)
        dimensions = {name: one.size for name, one in named.items()}
        [(documents,)] = scratch.execute("SELECT count(*) FROM source WHERE text <> ''")
        [(points,)] = scratch.execute("SELECT count(*) FROM points")
        model, dimension, other = _ask_embedder(settings, link, collection, current)
        return Audit(
            index.name, collection, key, text, documents, points, counts, examples, dimensions,
            dimension is not None and dimension not in dimensions.values(), other, model, cost,
        )  # fmt: skip


def _read_source(settings: Settings, index: IndexSettings, scratch: sqlite3.Connection) -> RunCost:
    """Copy ids and texts of the source, and return what it costs to embed them."""
    counter, cursor, first = CostCounter(settings, index, None), None, True
    with closing(open_source(settings, index)) as source:
        source.check()
        while first or cursor is not None:
            page = source.page(cursor, settings.source.page_rows)
            for read in with_files(page.documents):
                ids = map(document_id, read.keys)
                scratch.executemany("INSERT INTO source VALUES (?, ?)", zip(ids, read.texts, strict=True))
                counter.add(read.take([row for row, text in enumerate(read.texts) if text]))
            cursor, first = page.cursor, False
    return counter.cost()


def _scroll(link: Link, collection: str) -> Iterator[dict[str, Any]]:
    """Yield the fields of each point, by their path in the payload, with its id."""
    offset: Any = None

    def scroll(client: QdrantClient) -> tuple[list[models.Record], Any]:
        return client.scroll(collection, limit=PAGE, offset=offset, with_payload=True)

    while True:
        records, offset = link.call(scroll)
        for record in records:
            yield {POINT_ID: str(record.id), **dict(_fields(record.payload or {}))}
        if offset is None:
            return


def _fields(value: Any, path: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Yield the values in a payload by their paths, also those in JSON that is a text, as LlamaIndex has it."""
    if isinstance(value, str) and value.startswith("{"):
        with suppress(ValueError):
            value = json.loads(value)
    if isinstance(value, dict) and depth < MAX_DEPTH:
        for name, inner in value.items():
            yield from _fields(inner, f"{path}.{name}" if path else name, depth + 1)
    elif isinstance(value, str | int) and not isinstance(value, bool):
        yield path, str(value)


def _paths(known: list[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(path for fields in known for path in fields))


def _require(path: str, what: str, known: list[dict[str, Any]]) -> str:
    if known and not any(path in fields for fields in known):
        raise SettingsError(f"--{what} {path}: no payload has it; they have {', '.join(_paths(known)) or 'nothing'}")
    return path


def _guess_key(known: list[dict[str, Any]], scratch: sqlite3.Connection) -> str:
    """Return the field whose values are most keys of the source: many of one key are a constant."""
    ranks: dict[str, tuple[int, int]] = {}
    for path in _paths(known):
        values = [fields[path] for fields in known if path in fields]
        found = scratch.execute(
            "SELECT id FROM source WHERE id IN (SELECT value FROM json_each(?))", [json.dumps(values)]
        )
        ids = {row[0] for row in found}
        if sum(value in ids for value in values) >= MIN_KEYS * len(known):
            ranks[path] = (len(ids), -path.count("."))
    best = max(ranks, key=lambda path: ranks[path], default="")
    if not best:
        example = ", ".join(f"{path} ({value:.40})" for path, value in (known[0] if known else {}).items())
        raise SettingsError(
            f"no field of the payload has the source's keys; name it with --key: {example or 'no points'}"
        )
    return best


def _guess_text(known: list[dict[str, Any]], key: str) -> str:
    words = {path: sum(len(fields.get(path, "").split()) for fields in known) for path in _paths(known) if path != key}
    if not words:
        raise SettingsError("the payloads have no text; name its field with --text")
    return max(words, key=lambda path: words[path])


def _compare(scratch: sqlite3.Connection) -> tuple[dict[str, int], dict[str, list[str]], list[tuple[str, str]]]:
    """Return the counts by kind, examples, and some points, with their texts, of documents that are not stale."""
    scratch.execute("CREATE INDEX by_id ON points (id, text)")
    queries = {
        "missing": "SELECT id FROM source WHERE text <> '' AND id NOT IN (SELECT id FROM points WHERE id IS NOT NULL)",
        "orphaned": "SELECT coalesce(id, point) FROM points WHERE id IS NULL OR id NOT IN (SELECT id FROM source)",
        "duplicated": "SELECT id FROM (SELECT id, row_number() OVER (PARTITION BY id, text) AS n FROM points "
        "WHERE id IS NOT NULL) WHERE n > 1",
    }
    found = {kind: [row[0] for row in scratch.execute(query)] for kind, query in queries.items()}
    odd, lacking, labels = defaultdict[str, set[str]](set), set[str](), Counter[str]()
    points: list[tuple[str, str, str]] = []
    query = "SELECT s.id, s.text, p.text, p.point FROM source s JOIN points p ON p.id = s.id ORDER BY s.id"
    documents = 0
    for name, rows in groupby(scratch.execute(query), itemgetter(0)):
        chunks, documents = list(rows), documents + 1
        there, here = set(_WORD.findall(chunks[0][1])), {word for row in chunks for word in _WORD.findall(row[2])}
        if more := here - there:
            odd[name] = more
            labels.update(more)
        if there - here:
            lacking.add(name)
        if len(points) < SAMPLE:
            points.append((name, chunks[0][3], chunks[0][2]))
    usual = {word for word, count in labels.items() if count > USUAL * documents}
    stale = {name for name, words in odd.items() if words - usual}
    stale |= lacking if len(lacking) <= USUAL * documents else set()
    found["stale"] = sorted(stale)
    current = [(point, text) for name, point, text in points if name not in stale and text][:COMPARED]
    return (
        {kind: len(found[kind]) for kind in KINDS},
        {kind: sorted(set(found[kind]))[:EXAMPLES] for kind in KINDS},
        current,
    )


def _ask_embedder(
    settings: Settings, link: Link, collection: str, current: list[tuple[str, str]]
) -> tuple[str, int | None, bool | None]:
    """Return what the embedder of the settings is, its dimension, and whether its vectors of some texts are others."""
    try:
        with closing(open_embedder(settings.embedder)) as embedder:
            identity = embedder.identity()
            made = dict(zip(current, embedder.embed_documents([text for _, text in current]), strict=True))
    except RagIndexError as error:
        return f"the embedder of the settings does not answer ({error})", None, None
    ids: list[Any] = [int(point) if point.isdecimal() else point for point, _ in current]
    records = link.call(lambda client: client.retrieve(collection, ids, with_payload=False, with_vectors=True))
    stored = {str(record.id): record.vector for record in records}
    likeness = []
    for (point, _), vector in made.items():
        given = stored.get(point)
        for one in given.values() if isinstance(given, dict) else [given]:
            if isinstance(one, list) and not isinstance(vector, Exception) and len(one) == len(vector):
                other = np.asarray(one, dtype=np.float32)
                length = float(np.linalg.norm(other)) * float(np.linalg.norm(vector))
                likeness.append(float(other @ vector) / max(1e-9, length))
    return str(identity), identity.dimension, float(np.median(likeness)) < SAME_MODEL if likeness else None
