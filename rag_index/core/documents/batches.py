"""The data that stages pass on, in columns: batches of documents, shards, embedded shards, points;
and commits.

An index name and a key identify a document. The key has two forms. `key` is the typed form (JSON,
so that `1` differs from `"1"`; see `keys.encode_key`), which hashes, point ids and the ledger use.
The document id is the form that people see (`keys.document_id`). All columns of an object have the
same length and order.
"""

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
text_hash and payload_hash. A document's may also have `groups` (see `documents.groups`), `title`
and `link`. A chunk's may also have `context` (the words embedded before its text), `own` (the names
of the payload fields that belong to the chunk and not to the document) and `part` (the part of the
document that the chunk is of). A chunk without a vector has `by_words`."""
TITLE, LINK, PART, BY_WORDS = "title", "link", "part", "by_words"
"""The keys of these in `_rag`."""
NO_LAYOUT = b""
"""The layout of a text that is not divided and has no title."""
FailureKind = Literal["failed", "skipped", "incomplete"]
"""`failed`: the document could not be indexed. `skipped`: a rule of its source excludes it.
`incomplete`: it is indexed but lacks something, such as contexts."""
FailureCause = Literal["", "server"]
"""Why a failure matters to the next run: "server" if a text of the document ends the embedding
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
        taken: list[list[Any]] = []
        for column in self._columns():
            # `layouts` and `files` are empty if the index has none.
            taken.append([column[row] for row in rows] if column else [])
        return DocumentBatch(*taken)

    def plus(self, other: DocumentBatch) -> DocumentBatch:
        """Return these documents followed by those of `other`."""
        joined = map(operator.add, self._columns(), other._columns())
        return DocumentBatch(*joined)

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
        has_files = bool(self.files) and bool(self.files[row])
        return not self.texts[row] and not has_files


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
    """Return the name of a part that a hit shows, such as "attachment 7, page 3"; "" for no
    part."""
    words = [part.get("name"), part.get("id")]
    name = " ".join(word for word in words if word)
    page = part.get("page")
    return f"{name}, page {page}" if page else name


@shows_sizes()
class AttachedFile(NamedTuple):
    """A file that belongs to a document."""

    part: TextPart
    stamp: str
    """A text that changes with the content. The hash of the document's text covers it."""
    read: Callable[[], Iterator[tuple[str, str]]]
    """Yields pairs of page and text. Raises NotText at the end if a part of the file cannot be
    read."""
    name: str = ""
    """The name of a file that a row names."""


@shows_sizes()
@dataclass(frozen=True, slots=True)
class TextLayout:
    """The layout of one text: its title, where the document's own text ends, and its parts in
    order.

    The parts of a document, such as the comments of a ticket, follow its own text. Only chunkers
    and hits distinguish them: a chunk of a part names its part. All other code sees one text.

    `lacks` is a sentence that lists the unreadable parts; "" if there are none. `language` is the
    name of the language in the row's language column; "" if it has none.
    """

    title: str
    end: int
    parts: list[TextPart]
    lacks: str = ""
    language: str = ""

    @classmethod
    def decode(cls, encoded: bytes) -> TextLayout:
        """Return the layout that `encode` encoded."""
        # Imported late: `status` decodes no payload.
        from rag_index.core.documents.canonical import decode_payload

        found = decode_payload(encoded)
        parts = [TextPart(*part) for part in found["parts"]]
        return cls(found["title"], found["end"], parts, found["lacks"], found.get("language", ""))

    def encode(self) -> bytes:
        """Return the layout as canonical JSON, the same for equal layouts."""
        from rag_index.core.documents.canonical import encode_payload

        fields: dict[str, Any] = {
            "title": self.title,
            "end": self.end,
            "parts": list(map(list, self.parts)),
            "lacks": self.lacks,
        }
        # Without a language the key is left out, since hashes cover the layout.
        if self.language:
            fields["language"] = self.language
        return encode_payload(fields)


@shows_sizes("index", "number", "documents", "chars", "pages", "suspect", "limit")
@dataclass(frozen=True, slots=True)
class Shard:
    """The unit of work of a worker: changed documents that take a few seconds to embed."""

    index: str
    number: int
    documents: DocumentBatch
    chars: int
    pages: tuple[int, ...] = ()
    """The numbers of the source's pages that the documents are from."""
    suspect: bool = False
    """Whether one of its documents may kill the process that embeds it: see `etl.window`."""
    ends_server: bool = False
    """Whether it is a single document that is listed because one of its texts ends the embedding
    server."""
    limit: float | None = None
    """Seconds after which a child process that embeds the shard ends itself."""


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
    """A sentence for a person about what the document lacks; "" if nothing."""
    work: Work | None = None
    """How many chunks have a context, by its origin; None if the index has no contexts."""

    def __reduce__(self) -> tuple[type[ChunkedDocument], tuple[Any, ...]]:
        """Pickle only the columns in use. A shard has thousands of documents, and a dataclass would
        look up each field."""
        optional = (self.contexts, self.payloads, self.incomplete, self.work)
        if optional == NO_MORE:
            return ChunkedDocument, (self.chunks,)
        return ChunkedDocument, (self.chunks, *optional)

    def texts_to_embed(self) -> list[str]:
        """Return the text to embed for each chunk: its context, if it has one, and its own text."""
        if not self.contexts:
            return self.chunks
        return [text_to_embed(*pair) for pair in zip(self.contexts, self.chunks, strict=True)]

    def with_halves(
        self, number: int, halves: Sequence[str], payloads: Sequence[bytes] = ()
    ) -> ChunkedDocument:
        """Return the document with two chunks in place of chunk `number`. Both keep its context,
        and its payload unless `payloads` are given."""
        # Empty if the document has no contexts, or no payloads.
        contexts = 2 * self.contexts[number : number + 1]
        kept = 2 * self.payloads[number : number + 1]
        return replace(
            self,
            chunks=_spliced(self.chunks, number, halves),
            contexts=_spliced(self.contexts, number, contexts),
            payloads=_spliced(self.payloads, number, payloads or kept),
        )


def _spliced(column: list[Any], number: int, values: Sequence[Any]) -> list[Any]:
    """Return the column with these values in place of value `number`."""
    return [*column[:number], *values, *column[number + 1 :]]


NO_MORE: tuple[Any, ...] = ([], [], "", None)
"""The fields of a `ChunkedDocument` after `chunks`, if none is in use."""


def text_to_embed(context: str, chunk: str) -> str:
    """Return the text to embed for a chunk."""
    return f"{context}\n\n{chunk}" if context else chunk


@shows_sizes("kind", "process_died")
@dataclass(frozen=True, slots=True)
class Failure:
    """A document that could not be indexed, or only incompletely, with the reason as a sentence for
    a person."""

    key: str
    reason: str
    text_hash: bytes = b""
    kind: FailureKind = "failed"
    process_died: bool = False
    """Whether its process died, so that some of its points may have been written."""
    cause: FailureCause = ""


def kinds_of(reason: str, kind: FailureKind) -> dict[str, str]:
    """Return each sentence of a reason by its pattern: the sentence without names in quotes and
    without numbers. Reasons of the same pattern are counted together.

    Only the reason of an incomplete document has several sentences, one for each missing part.

    Example:
        kinds_of("picture 'a.png' has 7 bytes", "incomplete")
        # {"picture … has … bytes": "picture 'a.png' has 7 bytes"}
    """
    sentences = reason.split("; ") if kind == "incomplete" else [reason]
    found: dict[str, str] = {}
    for sentence in sentences:
        words = _QUOTED.sub("…", sentence).split()
        pattern = " ".join("…" if any(map(str.isdigit, word)) else word for word in words)
        found[pattern] = sentence
    return found


@shows_sizes("index", "number", "documents", "work")
@attrs.frozen
class EmbeddedShard:
    """A shard with its chunks and their vectors.

    `documents` holds the documents that succeeded, and `chunked` the chunks of each (at least one).
    The rows of `vectors` (float32, shape (number of chunks, dimension)) have the same order,
    document after document; there are none if the chunks are written by their words alone.
    `failures` holds the failed documents, and the incomplete ones among those that succeeded.
    """

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
    dimension)), payloads. `vectors` is None for points without a vector, which only searches by
    words find. `sparse` has as many rows, or is None for a collection without sparse vectors; an
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
    """A point read from the store. A search also sets the scores of its candidates.

    `vector` and `sparse` are None unless the caller requested vectors; `sparse` also if the point
    has none. `score` is the cosine, `bm25` the score of the sparse vector, and `soft` the soft
    match; all are 0 outside searches. `exact` is set if the query is a name of the point, `names`
    counts the rare names of the query that it has, and `recency` is how new it is. A point found
    `by_words` has no vector, and its score is the lowest of all candidates.
    """

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
    """The record of an embedded shard whose points are in the store: everything that the ledger
    commits."""

    number: int
    keys: list[str]
    text_hashes: list[bytes]
    payload_hashes: list[bytes]
    chunk_counts: list[int]
    failures: list[Failure]
    work: Work


@dataclass(frozen=True, slots=True, order=True)
class CommitMark:
    """The last commit of a collection, as the ledger or the store has it. `at` (ISO, UTC)
    distinguishes two commits of the same number, one of which was undone by restoring a backup."""

    number: int = 0
    at: str = ""

    @classmethod
    def parse(cls, stored: Any) -> CommitMark:
        """Return the commit mark that a store keeps as JSON; number 0 if it is not one."""
        values = stored if isinstance(stored, dict) else {}
        return cls(int(values.get("number") or 0), str(values.get("at") or ""))

    def __str__(self) -> str:
        if not self.number:
            return "no commit"
        at = self.at[:19].replace("T", " ")
        return f"commit {self.number:,} ({at} UTC)"
