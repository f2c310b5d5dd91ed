"""The data passed between stages, in columns: batches of documents, shards, embedded shards,
points; and commits. An index name and a key identify a document. The key has two forms. `key` is
the typed form (JSON, so that `1` differs from `"1"`; see `keys.encode_key`), which hashes, point
ids and the ledger use. The document id is the form that people see (`keys.document_id`). The
columns of one object always have the same length and order."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import attrs

from rag_index.core.documents.sizes import shows_sizes

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from rag_index.core.documents.vectors import SparseVector, SparseVectors
    from rag_index.core.documents.work import Work

RESERVED_KEY = "_rag"
"""The only payload key that rag-index adds: a dict with key, document_id, chunk, chunks, text,
text_hash, payload_hash. Those of a document may have `groups` (see `documents.groups`), `title` and
`link`. A chunk may also have `context`, the words that were embedded before its text, `own`, the
names of the payload fields that belong to it and not to the document, and `part`, which says what
part of the document it is of. One without a vector has `by_words`."""
TITLE, LINK, PART, BY_WORDS = "title", "link", "part", "by_words"
"""The keys of these in our own part of a payload."""
NO_LAYOUT = b""
"""The layout of a text that is not divided and has no title."""
FailureKind = Literal["failed", "skipped", "incomplete"]
"""`failed`: the document could not be indexed. `skipped`: a rule of its source excludes it.
`incomplete`: it is indexed but lacks something, such as contexts."""
FailureCause = Literal["", "server"]
"""What the next run has to know of a failure: "server" if a text of the document ends the embedding
server."""
_QUOTED = re.compile(r"'[^']*+'")


@shows_sizes()
@dataclass(frozen=True, slots=True)
class DocumentBatch:
    """Documents in columns: typed keys, the texts to embed, payloads as canonical JSON, and the
    hashes of both."""

    keys: list[str]
    texts: list[str]
    payloads: list[bytes]
    text_hashes: list[bytes]
    payload_hashes: list[bytes]
    layouts: list[bytes] = field(default_factory=list)
    """How each text is divided (`TextLayout`), which its hash covers; empty if no text is."""
    files: list[list[AttachedFile]] = field(default_factory=list)
    """The files of each document, whose text is not read yet; empty if the index has no column of
    files."""

    @classmethod
    def empty(cls) -> DocumentBatch:
        """Return a batch without documents."""
        return cls([], [], [], [], [])

    def __len__(self) -> int:
        return len(self.keys)

    def take(self, rows: list[int]) -> DocumentBatch:
        """Return the documents at these positions, in this order."""
        return DocumentBatch(
            *([column[i] for i in rows] if column else [] for column in self._columns())
        )

    def plus(self, other: DocumentBatch) -> DocumentBatch:
        """Return these documents followed by those of `other`."""
        return DocumentBatch(*map(operator.add, self._columns(), other._columns()))

    def _columns(self) -> tuple[list[Any], ...]:
        return (
            self.keys,
            self.texts,
            self.payloads,
            self.text_hashes,
            self.payload_hashes,
            self.layouts,
            self.files,
        )

    def is_empty(self, row: int) -> bool:
        """Return whether a document has neither text nor files."""
        return not self.texts[row] and not (self.files and self.files[row])


@shows_sizes()
class TextPart(NamedTuple):
    """A part of a text, from `start` to `end`."""

    start: int
    end: int
    name: str
    """What such a part is called, such as "comment"."""
    id: str
    """The id of its row as people see it; "" if nothing names it."""
    link: str
    payload: dict[str, Any]
    page: str = ""


def part_name(part: Mapping[str, str]) -> str:
    """Return what a part is called where a hit is shown, such as "attachment 7, page 3"; "" for no
    part."""
    name = " ".join(filter(None, [part.get("name"), part.get("id")]))
    return f"{name}, page {part['page']}" if part.get("page") else name


@shows_sizes()
class AttachedFile(NamedTuple):
    """A file that belongs to a document."""

    part: TextPart
    stamp: str
    """What changes with its content. The hash of the document's text covers it."""
    read: Callable[[], Iterator[tuple[str, str]]]
    """Yields page and text; then raises NotText if something of the file cannot be read."""
    name: str = ""
    """The name of a file that a row names."""


@shows_sizes()
@dataclass(frozen=True, slots=True)
class TextLayout:
    """The layout of one text: its title, where the document's own text ends, and its parts in
    order.

    The parts of a document, such as the comments of a ticket, follow its own text. Whatever looks
    at texts needs not know of them. Only a chunker does, and the hits: a chunk of a part says which
    part it is of.

    `lacks` says in a sentence which parts cannot be read; "" if none. `language` is the name of the
    language that the row says the text is in; "" if it says none.
    """

    title: str
    end: int
    parts: list[TextPart]
    lacks: str = ""
    language: str = ""

    @classmethod
    def decode(cls, encoded: bytes) -> TextLayout:
        """Return the layout that `encode` encoded."""
        from rag_index.core.documents.canonical import (
            decode_payload,
        )  # here: `status` needs no JSON of payloads

        found = decode_payload(encoded)
        parts = [TextPart(*part) for part in found["parts"]]
        return cls(found["title"], found["end"], parts, found["lacks"], found.get("language", ""))

    def encode(self) -> bytes:
        """Return the layout as canonical JSON, the same for equal layouts."""
        from rag_index.core.documents.canonical import encode_payload

        fields = {
            "title": self.title,
            "end": self.end,
            "parts": list(map(list, self.parts)),
            "lacks": self.lacks,
        }
        return encode_payload(fields | ({"language": self.language} if self.language else {}))


@shows_sizes("index", "number", "documents", "chars", "pages", "suspect", "limit")
@dataclass(frozen=True, slots=True)
class Shard:
    """The unit of work of one worker: changed documents that take a few seconds to embed."""

    index: str
    number: int
    documents: DocumentBatch
    chars: int
    pages: tuple[int, ...] = ()
    """The numbers of the pages of the source that the documents are from."""
    suspect: bool = False
    """Whether a document of it may kill the process that embeds it: see `etl.window`."""
    ends_server: bool = False
    """Whether it is one document that is listed because a text of it ends the embedding server."""
    limit: float | None = None
    """Seconds after which a process of its own that embeds the shard ends itself."""


@shows_sizes("work")
@dataclass(frozen=True, slots=True)
class ChunkedDocument:
    """The chunks of one document, in columns. `contexts` and `payloads` are empty lists if the
    chunks have none."""

    chunks: list[str]
    contexts: list[str] = field(default_factory=list)
    """The words embedded before each chunk's text, "" for none. They are never displayed as words
    of the source."""
    payloads: list[bytes] = field(default_factory=list)
    """Each chunk's own payload fields, as canonical JSON. They override the document's fields of
    the same name."""
    incomplete: str = ""
    """A sentence for a person that says what the document lacks; "" if nothing."""
    work: Work | None = None
    """How many of the chunks have a context, by its origin; None if none should have one."""

    def __reduce__(self) -> tuple[type[ChunkedDocument], tuple[Any, ...]]:
        """Pickle only the columns in use: a shard has thousands of documents, and a dataclass looks
        up every field."""
        more = (self.contexts, self.payloads, self.incomplete, self.work)
        return ChunkedDocument, (self.chunks, *more) if more != NO_MORE else (self.chunks,)

    def texts_to_embed(self) -> list[str]:
        """Return the text to embed for each chunk: its context, if it has one, and its own text."""
        if not self.contexts:
            return self.chunks
        return [text_to_embed(*pair) for pair in zip(self.contexts, self.chunks, strict=True)]

    def with_halves(
        self, number: int, halves: Sequence[str], payloads: Sequence[bytes] = ()
    ) -> ChunkedDocument:
        """Return the document with two chunks in place of chunk `number`; they keep its context.
        They keep its payload too, unless `payloads` are given."""

        def replaced(column: list[Any], two: Sequence[Any] = ()) -> list[Any]:
            return [
                *column[:number],
                *(two or 2 * column[number : number + 1]),
                *column[number + 1 :],
            ]

        return replace(
            self,
            chunks=replaced(self.chunks, halves),
            contexts=replaced(self.contexts),
            payloads=replaced(self.payloads, payloads),
        )


NO_MORE: tuple[Any, ...] = ([], [], "", None)


def text_to_embed(context: str, chunk: str) -> str:
    """Return the text to embed for a chunk."""
    return f"{context}\n\n{chunk}" if context else chunk


@shows_sizes("kind", "died")
@dataclass(frozen=True, slots=True)
class Failure:
    """A document that could not be indexed, or only incompletely, with the reason as a sentence for
    a person."""

    key: str
    reason: str
    text_hash: bytes = b""
    kind: FailureKind = "failed"
    died: bool = False
    """Whether its process died, so that some of its points may have been written."""
    cause: FailureCause = ""


def kinds_of(reason: str, kind: FailureKind) -> dict[str, str]:
    """Return what a reason says, by what many reasons of its kind have in common: no names in
    quotes and no numbers. Only a document that lacks something may have several reasons, one for
    each part of it."""
    return {
        " ".join(
            "…" if any(map(str.isdigit, word)) else word for word in _QUOTED.sub("…", said).split()
        ): said
        for said in (reason.split("; ") if kind == "incomplete" else [reason])
    }


@shows_sizes("index", "number", "documents", "work")
@attrs.frozen
class EmbeddedShard:
    """A shard with its chunks and their vectors. `documents` holds the documents that succeeded,
    and `chunked` the chunks of each (at least one). The rows of `vectors` (float32, shape (number
    of chunks, dimension)) have the same order, document after document; there are none if the
    chunks are written by their words alone. `failures` holds the documents that failed, and the
    incomplete ones among those that succeeded."""

    index: str
    number: int
    documents: DocumentBatch
    chunked: list[ChunkedDocument]
    vectors: NDArray[np.float32]
    failures: list[Failure]
    work: Work
    sparse: SparseVectors | None = None
    """A sparse vector for each row of `vectors`; None if the index has none."""

    @property
    def chunk_counts(self) -> list[int]:
        """The number of chunks of each document."""
        return [len(document.chunks) for document in self.chunked]


@shows_sizes()
@dataclass(frozen=True, slots=True)
class PointBatch:
    """Points to write to the store: ids (UUIDs as text), vectors (float32, shape (len(ids),
    dimension)), payloads. `vectors` is None for points that have none yet, which searches by words
    alone find. `sparse` has as many rows, or is None for a collection without sparse vectors. An
    empty row is not stored."""

    ids: list[str]
    vectors: NDArray[np.float32] | None
    payloads: list[dict[str, Any]]
    sparse: SparseVectors | None = None

    def __len__(self) -> int:
        return len(self.ids)


@shows_sizes("id")
@dataclass(slots=True)
class StoredPoint:
    """A point read from the store, which belongs to its reader: a search gives its candidates what
    it learns. `vector` and `sparse` are None unless the caller asked for vectors; `sparse` also if
    the point has none. `score` is the cosine, `bm25` the score of the sparse vector, and `soft` the
    soft match; all are 0 outside searches. `exact` says that the query is one of its names, `names`
    how many rare names of the query it has, and `recency` how new it is. One found `by_words` has
    no vector, and its score is the lowest of all candidates."""

    id: str
    payload: dict[str, Any]
    vector: list[float] | None = None
    score: float = 0.0
    sparse: SparseVector | None = None
    bm25: float = 0.0
    soft: float = 0.0
    exact: bool = False
    names: int = 0
    has_words: bool = False
    recency: float = 0.0
    by_words: bool = False


@shows_sizes("number", "work")
@attrs.frozen
class WrittenShard:
    """The record of an embedded shard whose points are in the store: everything the ledger has to
    commit."""

    number: int
    keys: list[str]
    text_hashes: list[bytes]
    payload_hashes: list[bytes]
    chunk_counts: list[int]
    failures: list[Failure]
    work: Work


@dataclass(frozen=True, slots=True, order=True)
class CommitMark:
    """The last commit of a collection, as the ledger has it or as the store keeps it with the
    points. `at` (ISO, UTC) tells apart two commits of the same number, one of which was undone by
    restoring a backup."""

    number: int = 0
    at: str = ""

    @classmethod
    def parse(cls, stored: Any) -> CommitMark:
        """Return the mark that a store keeps as JSON; no commit if it is none."""
        values = stored if isinstance(stored, dict) else {}
        return cls(int(values.get("number") or 0), str(values.get("at") or ""))

    def __str__(self) -> str:
        return (
            f"commit {self.number:,} ({self.at[:19].replace('T', ' ')} UTC)"
            if self.number
            else "no commit"
        )
