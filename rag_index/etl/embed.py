"""Embed a shard: chunk its documents, embed or reuse each text once, and split texts that are too
long.

    documents > chunks > texts without a vector > embedder > vectors, or a failure for each document
    of which a text failed

A run calls `embed` in the process that embeds: its own, a child, or a Dask worker. Nothing is
written. If one text of a document fails, the document fails, and the others of its shard do not. If
the process dies, `etl.window` finds the document at fault.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar

import attrs
import numpy as np

from rag_index.components.embedders import Embedder, EmbedderIdentity, open_embedder
from rag_index.components.embedders.bm25 import (
    MAX_NAME,
    Bm25Encoder,
    Bm25Model,
    definitions,
    key_words,
    names_of,
)
from rag_index.components.stores import open_store
from rag_index.core.documents.batches import (
    ChunkedDocument,
    DocumentBatch,
    EmbeddedShard,
    Failure,
    Shard,
    TextLayout,
)
from rag_index.core.documents.canonical import decode_payload
from rag_index.core.documents.keys import document_id
from rag_index.core.documents.sizes import shows_sizes
from rag_index.core.documents.work import Work
from rag_index.core.machine import collect_seldom, end_process_after
from rag_index.core.recovery import PATIENCE, downtime, retryable_for
from rag_index.errors import (
    BadVectors,
    EmbedderUnavailable,
    ProcessDied,
    RagIndexError,
    RateLimited,
    ShardHalved,
    TextEndsServer,
    TextTooLong,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from rag_index.components.chunking import Chunker
    from rag_index.components.stores.protocol import Store
    from rag_index.core.documents.vectors import SparseVectors
    from rag_index.core.settings import EmbedderSettings, StoreSettings

NO_FIELDS = b"{}"
"""The own payload fields of a chunk that has none."""
NO_TEXT = "no text is left after white space"
CODE_NAMES = ("name", "qualified_name", "path")
"""The payload fields that name a chunk of source code."""
Vectors = dict[str, "NDArray[np.float32] | Exception"]
EmbedTexts = Callable[[list[str]], "list[NDArray[np.float32] | Exception]"]
NO_VECTOR = np.empty(0, dtype=np.float32)
"""The vector of a text that is not embedded yet."""
ChunkedDocuments = list[ChunkedDocument | RagIndexError]
NO_MEMORY = "the process had no more memory ([parallel] worker_memory)"
ShardName = tuple[str, str, int]
"""What distinguishes shards: index, first key, and number of documents."""


@shows_sizes("shard", "chunker", "embedder", "identity", "bm25", "workers", "wait")
@attrs.frozen
class EmbedJob:
    """A shard, and how to embed it."""

    shard: Shard
    chunker: Chunker
    embedder: EmbedderSettings
    identity: EmbedderIdentity
    bm25: Bm25Model | None = None
    workers: int = 1
    wait: float = 0.0
    """For how many seconds the shard is tried again after a service failed first."""
    known: dict[str, NDArray[np.float32]] = attrs.Factory(dict)

    def embed(self, embedder: Embedder) -> EmbeddedShard:
        """Chunk and embed the shard's documents; texts in `known` take the vector given there.

        If a chunk of a document cannot be embedded, the document fails, so that no half of it is
        ever searched.

        Raises:
            EmbedderUnavailable, RateLimited, ModelMissing, ModelChanged, BadVectors: The embedding
                service is the reason.
        """
        shard = self.shard
        started = time.perf_counter()
        stats_before = replace(embedder.stats)
        vectors: Vectors = dict(self.known)
        with downtime() as down:
            chunked = self.chunker.chunk(shard.documents)
            chunk_seconds = time.perf_counter() - started - down.seconds
            embed_texts = embedder.embed_documents
            # A text of this document ended the server before. Only embedders on servers have this.
            if shard.ends_server:
                embed_texts = getattr(embedder, "embed_one_by_one", embed_texts)
            sent = _embed(chunked, vectors, self.chunker, embed_texts)
        complete = _gather(shard.documents, chunked, vectors)
        matrix = complete.matrix(vectors)
        sparse = _sparse_vectors(self.bm25, complete) if self.bm25 else None
        elapsed = time.perf_counter() - started - down.seconds

        work = embedder.stats - stats_before
        # The work of writing contexts, if the chunks have any.
        for document in chunked:
            if isinstance(document, ChunkedDocument) and document.work is not None:
                work += document.work
        work.seconds = elapsed - work.waited_seconds
        work.chunk_seconds = chunk_seconds
        work.texts = len(sent)
        work.chars = shard.chars
        work.reused = sum(text in self.known for text in complete.texts)
        return complete.shard(shard, matrix, work, sparse)


def weigh(shard: Shard, chunker: Chunker, bm25: Bm25Model) -> EmbeddedShard:
    """Chunk the shard's documents and weigh their words, so that they are found before they are
    embedded. Documents without chunks fail."""
    chunked = chunker.chunk(shard.documents)
    vectors: Vectors = dict.fromkeys(_texts_of(chunked), NO_VECTOR)
    complete = _gather(shard.documents, chunked, vectors)
    sparse = _sparse_vectors(bm25, complete)
    no_vectors = complete.matrix(vectors)[:0]
    return complete.shard(shard, no_vectors, Work(), sparse)


def process_died_error(shard: Shard | EmbeddedShard, why: str) -> ProcessDied:
    """Return the error of a process that died while it embedded a shard. Its message names the
    command that lists the document at fault."""
    count = len(shard.documents)
    lists = f"`rag-index status {shard.index} --failed` lists"
    if count == 1:
        then = f"{lists} its document, unless another try succeeds"
    else:
        then = f"its {count:,} documents are tried in parts, and {lists} any that does it again"
    return ProcessDied(f"{why} under shard {shard.number} of {shard.index}: {then}")


class _Process:
    """The state of this process, and the only global: loading a model takes seconds, and opening a
    connection takes tenths of one, so shards share both."""

    turn = threading.RLock()
    embedder: tuple[tuple[EmbedderSettings, EmbedderIdentity, int], Embedder] | None = None
    store: tuple[StoreSettings, Store] | None = None
    interrupted: ClassVar[set[ShardName]] = set()
    """The shards whose texts the embedding service had when it became unavailable."""
    worker: int | None = None
    """The number of this process among the workers of a run. None if it is no worker."""


def begin_worker(number: int) -> None:
    """Make this process the worker of this number. A worker ends itself if a shard hangs."""
    _Process.worker = number


def process_embedder(
    settings: EmbedderSettings, identity: EmbedderIdentity, workers: int, home: int | None = None
) -> Embedder:
    """Return this process's embedder. It is opened on first use, and again if other arguments come.

    Args:
        workers: The number of processes that embed.
        home: The number of this process, by default that of the worker. The processes spread over
            the hosts by it.
    """
    wanted = settings, identity, workers
    number = home if home is not None else _Process.worker or 0
    with _Process.turn:
        if _Process.embedder is not None:
            opened_with, embedder = _Process.embedder
            if opened_with == wanted:
                return embedder
        close_process_embedder()
        embedder = open_embedder(settings, home=number, workers=workers, expected=identity)
        _Process.embedder = wanted, embedder
        return embedder


def process_store(settings: StoreSettings) -> Store:
    """Return this process's connection to a server, opened on first use. The connection does not
    wait for the server: the task that uses it is retried."""
    with _Process.turn:
        if _Process.store is None or _Process.store[0] != settings:
            _Process.store = settings, open_store(settings, patience=PATIENCE)
        return _Process.store[1]


def close_process_embedder() -> None:
    """Close this process's embedder, if it has one. A thread that embeds with it gets an error."""
    with _Process.turn:
        opened, _Process.embedder = _Process.embedder, None
        if opened is not None:
            opened[1].close()


def embed(job: EmbedJob, *, home: int | None = None, limited: bool | None = None) -> EmbeddedShard:
    """Chunk and embed a shard with this process's embedder.

    Args:
        home: As `process_embedder`.
        limited: Whether the process ends itself if it takes longer than the shard's `limit`, after
            which the shard is tried alone. By default every worker does.

    Raises:
        ShardHalved: The service became unavailable under the shard a second time. The caller embeds
            its halves next, so that most documents advance.
        EmbedderUnavailable, …: As `EmbedJob.embed`.
    """
    if limited is None:
        limited = _Process.worker is not None
    embedder = process_embedder(job.embedder, job.identity, job.workers, home)
    before = embedder.stats.requests
    try:
        with (
            retryable_for(job.wait),
            end_process_after(job.shard.limit if limited else None),
            collect_seldom(),
        ):
            embedded = job.embed(embedder)
    except EmbedderUnavailable as error:
        # A text of the shard may have ended the server. A pause that a server asks for tells
        # nothing of the texts.
        had_texts = embedder.stats.requests > before
        if had_texts and not isinstance(error, RateLimited):
            _note_interrupted(job.shard, error)
        raise
    _Process.interrupted.discard(_name(job.shard))
    return embedded


def _note_interrupted(shard: Shard, error: EmbedderUnavailable) -> None:
    """Record that the service became unavailable while it had texts of a shard. Raises ShardHalved
    the second time, unless the shard has one document."""
    name = _name(shard)
    if name not in _Process.interrupted:
        _Process.interrupted.add(name)
        return
    count = len(shard.documents)
    if count > 1:
        raise ShardHalved(
            f"shard {shard.number} of {shard.index} is embedded in halves ({count:,} documents):"
            " its service went away twice"
        ) from error


def _name(shard: Shard) -> ShardName:
    keys = shard.documents.keys
    first_key = keys[0] if keys else ""
    return shard.index, first_key, len(keys)


def _texts_of(chunked: Iterable[ChunkedDocument | RagIndexError]) -> set[str]:
    """Return the texts to embed of all documents that could be chunked."""
    texts: set[str] = set()
    for document in chunked:
        if isinstance(document, ChunkedDocument):
            texts.update(document.texts_to_embed())
    return texts


def _embed(
    chunked: ChunkedDocuments, vectors: Vectors, chunker: Chunker, embed_texts: EmbedTexts
) -> list[str]:
    """Embed the texts that have no vector yet, and return what was sent.

    `vectors` gets the vector or the error of each text. Documents with texts that are too long are
    replaced in `chunked` by ones with shorter chunks, whose texts are embedded next.
    """
    sent: list[str] = []
    too_long: set[str] = set()
    texts = _texts_of(chunked)
    while new := sorted(texts - vectors.keys()):
        found = embed_texts(new)
        if len(found) != len(new):
            raise BadVectors(f"the embedder gave {len(found)} vectors for {len(new)} texts")
        sent += new
        vectors.update(zip(new, found, strict=True))
        too_long.update(text for text in new if isinstance(vectors[text], TextTooLong))
        texts = _split_documents(chunked, too_long, chunker)
    return sent


def _split_documents(chunked: ChunkedDocuments, too_long: set[str], chunker: Chunker) -> set[str]:
    """Split the chunks in `chunked` whose texts are too long. Return the texts of their
    documents."""
    texts: set[str] = set()
    if not too_long:
        return texts
    for i, document in enumerate(chunked):
        if not isinstance(document, ChunkedDocument):
            continue
        if too_long.isdisjoint(document.texts_to_embed()):
            continue
        shorter = _split_long(document, too_long, chunker)
        chunked[i] = shorter
        if isinstance(shorter, ChunkedDocument):
            texts.update(shorter.texts_to_embed())
    return texts


def _split_long(
    document: ChunkedDocument, too_long: set[str], chunker: Chunker
) -> ChunkedDocument | RagIndexError:
    """Split the chunks of a document until no text is too long. Return an error if that fails."""
    while numbers := [i for i, text in enumerate(document.texts_to_embed()) if text in too_long]:
        # The last one first, so that the numbers of the others stay.
        for number in reversed(numbers):
            shorter = chunker.split_chunk(document, number)
            if shorter is None:
                return RagIndexError("one character is too long for the embedder")
            document = shorter
    return document


@dataclass(frozen=True, slots=True)
class _CompleteDocuments:
    """The documents of a shard whose texts all have vectors, and the failures of the others."""

    documents: DocumentBatch
    chunked: list[ChunkedDocument]
    """The chunks of each document."""
    texts: list[str]
    """The text to embed of each chunk."""
    failures: list[Failure]

    def matrix(self, vectors: Vectors) -> NDArray[np.float32]:
        """Return the vector of each chunk: float32, shape (chunks, dimension)."""
        rows = [vectors[text] for text in self.texts]
        if not rows:
            return np.empty((0, 0), dtype=np.float32)
        return np.asarray(rows, dtype=np.float32)

    def shard(
        self,
        shard: Shard,
        matrix: NDArray[np.float32],
        work: Work,
        sparse: SparseVectors | None,
    ) -> EmbeddedShard:
        """Return the embedded form of `shard`."""
        return EmbeddedShard(
            shard.index,
            shard.number,
            self.documents,
            self.chunked,
            matrix,
            self.failures,
            work,
            sparse,
        )


def _gather(
    documents: DocumentBatch, chunked: ChunkedDocuments, vectors: Vectors
) -> _CompleteDocuments:
    """Separate the documents whose texts all have vectors from those that failed."""
    rows: list[int] = []
    complete: list[ChunkedDocument] = []
    texts: list[str] = []
    failures: list[Failure] = []
    for i, document in enumerate(chunked):
        key, text_hash = documents.keys[i], documents.text_hashes[i]
        failure = _failure_of(key, text_hash, document, vectors)
        if failure is not None:
            failures.append(failure)
        # An incomplete document is embedded and listed as well.
        if isinstance(document, ChunkedDocument) and (
            failure is None or failure.kind == "incomplete"
        ):
            rows.append(i)
            complete.append(document)
            texts += document.texts_to_embed()
    taken = documents.take(rows) if len(rows) < len(documents) else documents
    return _CompleteDocuments(taken, complete, texts, failures)


def _failure_of(
    key: str, text_hash: bytes, document: ChunkedDocument | RagIndexError, vectors: Vectors
) -> Failure | None:
    """Return why a document failed or is incomplete. None if it is complete."""
    # It could not be chunked, or split to a length that the embedder takes.
    if not isinstance(document, ChunkedDocument):
        return Failure(key, str(document), text_hash)
    texts = document.texts_to_embed()
    errors = [vectors[text] for text in texts if isinstance(vectors[text], Exception)]
    # A text of it ends the embedding server. That counts more than its other errors, because the
    # next run tries such a document last and alone.
    for error in errors:
        if isinstance(error, TextEndsServer):
            return Failure(key, str(error), text_hash, cause="server")
    if errors:
        return Failure(key, str(errors[0]), text_hash)
    # No text at all, such as an attachment that cannot be read and nothing else.
    if not texts:
        return Failure(key, document.incomplete or NO_TEXT, text_hash)
    if document.incomplete:
        return Failure(key, document.incomplete, text_hash, "incomplete")
    return None


def _sparse_vectors(bm25: Bm25Model, complete: _CompleteDocuments) -> SparseVectors:
    """Return a sparse vector for each chunk: the words of its text, and of its head, which is the
    document's key or the names of a piece of code."""
    documents = complete.documents
    rows: list[int] = []
    for row, document in enumerate(complete.chunked):
        rows += [row] * len(document.chunks)
    headed = _code_names(complete, rows) if bm25.identifiers else _document_names(complete)
    texts: list[str] = []
    for head, text in zip(headed.heads, complete.texts, strict=True):
        texts.append(f"{head}\n{text}" if head else text)
    encoder = Bm25Encoder(bm25)
    # The language of a text counts only if the index has several.
    if len(encoder.languages) == 1 or not documents.layouts:
        return encoder.documents(texts, names=headed.names)
    languages = [
        TextLayout.decode(layout).language if layout else "" for layout in documents.layouts
    ]
    return encoder.documents(texts, [languages[row] for row in rows], headed.names)


@dataclass(slots=True)
class _ChunkNames:
    """What is found of each chunk besides its text, in columns."""

    heads: list[str] = field(default_factory=list)
    """The words that stand before its text; "" for none."""
    names: list[tuple[str, ...]] = field(default_factory=list)
    """The names by which it is found as a unit; () for none."""


def _code_names(complete: _CompleteDocuments, rows: Sequence[int]) -> _ChunkNames:
    """Return the names of functions, classes and files that chunks of source code have."""
    found = _ChunkNames()
    own: list[bytes] = []
    for document in complete.chunked:
        own += document.payloads or [NO_FIELDS] * len(document.chunks)
    for row, own_payload in zip(rows, own, strict=True):
        payload = decode_payload(complete.documents.payloads[row])
        payload |= decode_payload(own_payload)
        defined = definitions(str(payload.get("name", "")))
        found.heads.append(f"{names_of(payload)}\n{defined}")
        found.names.append(tuple(str(payload.get(name, "")) for name in CODE_NAMES))
    return found


def _document_names(complete: _CompleteDocuments) -> _ChunkNames:
    """Return the words of a document's key for all of its chunks, and its names for the first."""
    found = _ChunkNames()
    names = _names(complete.documents)
    for row, document in enumerate(complete.chunked):
        count = len(document.chunks)
        head = key_words(document_id(complete.documents.keys[row]))
        found.heads += [head] * count
        # A document has at least one chunk.
        found.names += [names[row], *[()] * (count - 1)]
    return found


def _names(documents: DocumentBatch) -> list[tuple[str, ...]]:
    """Return the names by which each document is found as a unit: its id, its title, and its first
    line."""
    layouts = documents.layouts or [b""] * len(documents)
    names: list[tuple[str, ...]] = []
    for key, layout, text in zip(documents.keys, layouts, documents.texts, strict=True):
        title = TextLayout.decode(layout).title if layout else ""
        beginning = text.lstrip()[: MAX_NAME + 1]
        first_line = beginning.partition("\n")[0]
        names.append((document_id(key), title, first_line))
    return names
