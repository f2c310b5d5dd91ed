"""Embed a shard: chunk its documents, embed or reuse each text once, and split what is too long.
`embed` is what a run calls, in whatever process embeds: its own, a child, or a Dask worker."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
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
from rag_index.core.recovery import PATIENCE, downtime, waiting
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
    from numpy.typing import NDArray

    from rag_index.components.chunking import Chunker
    from rag_index.components.stores.protocol import Store
    from rag_index.core.documents.vectors import SparseVectors
    from rag_index.core.settings import EmbedderSettings, StoreSettings

NO_FIELDS = b"{}"
NO_TEXT = "no text is left after white space"
CODE_NAMES = ("name", "qualified_name", "path")
"""The payload fields that name a chunk of source code as a whole."""
Vectors = dict[str, "NDArray[np.float32] | Exception"]
EmbedTexts = Callable[[list[str]], "list[NDArray[np.float32] | Exception]"]
NO_VECTOR = np.empty(0, dtype=np.float32)
"""What stands for the vector of a text that is not embedded yet."""
ChunkedDocuments = list[ChunkedDocument | RagIndexError]
NO_MEMORY = "the process had no more memory ([parallel] worker_memory)"
ShardName = tuple[str, str, int]
"""What tells a shard from others: its index, its first key, and its number of documents."""


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
        """Chunk and embed the shard's documents; texts in `known` take the vector given there. If
        one chunk of a document cannot be embedded, the whole document fails, so that no half of it
        is ever searched. Raises EmbedderUnavailable (RateLimited), ModelMissing, ModelChanged or
        BadVectors if the service is the reason."""
        shard, started = self.shard, time.perf_counter()
        asked_before = replace(embedder.stats)
        vectors: Vectors = dict(self.known)
        with downtime() as down:
            chunked = self.chunker.chunk(shard.documents)
            chunk_seconds = time.perf_counter() - started - down.seconds
            embed_texts = embedder.embed_documents
            if shard.ends_server:  # embedders on servers alone can do more
                embed_texts = getattr(embedder, "embed_one_by_one", embed_texts)
            sent = _embed(chunked, vectors, self.chunker, embed_texts)
        documents, whole, matrix, texts, failures = _gather(shard.documents, chunked, vectors)
        sparse = _sparse_vectors(self.bm25, documents, whole, texts) if self.bm25 else None
        elapsed = time.perf_counter() - started - down.seconds
        work = embedder.stats - asked_before
        for document in chunked:
            if (
                isinstance(document, ChunkedDocument) and document.work is not None
            ):  # its chunks have contexts
                work += document.work
        work.seconds = elapsed - work.waited_seconds
        work.chunk_seconds = chunk_seconds
        work.texts = len(sent)
        work.chars = shard.chars
        work.reused = sum(text in self.known for text in texts)
        return EmbeddedShard(
            shard.index, shard.number, documents, whole, matrix, failures, work, sparse
        )


def weigh(shard: Shard, chunker: Chunker, bm25: Bm25Model) -> EmbeddedShard:
    """Chunk the shard's documents, and weigh their words: they can be found before they are
    embedded. Documents that have no chunks fail."""
    documents, chunked = shard.documents, chunker.chunk(shard.documents)
    texts = {
        text: NO_VECTOR
        for one in chunked
        if isinstance(one, ChunkedDocument)
        for text in one.texts_to_embed()
    }
    documents, whole, matrix, sent, failures = _gather(documents, chunked, dict(texts))
    sparse = _sparse_vectors(bm25, documents, whole, sent)
    return EmbeddedShard(
        shard.index, shard.number, documents, whole, matrix[:0], failures, Work(), sparse
    )


def process_died(shard: Shard | EmbeddedShard, why: str) -> ProcessDied:
    """Return the error of a process that died under a shard. It says where the document at fault
    will be listed."""
    documents, listed = len(shard.documents), f"`rag-index status {shard.index} --failed` lists"
    then = f"its {documents:,} documents are tried in parts, and {listed} any that does it again"
    if documents == 1:
        then = f"{listed} its document, unless another try succeeds"
    return ProcessDied(f"{why} under shard {shard.number} of {shard.index}: {then}")


class _Process:
    """The one global: loading a model takes seconds, and opening a connection tenths of them, so
    shards share both."""

    turn = threading.RLock()
    embedder: tuple[tuple[EmbedderSettings, EmbedderIdentity, int], Embedder] | None = None
    store: tuple[StoreSettings, Store] | None = None
    interrupted: ClassVar[set[ShardName]] = set()
    """The shards under which the embedding service went away while it had their texts."""
    worker: int | None = None
    """The number of this process among the workers of a run; None in every other process."""


def begin_worker(number: int) -> None:
    """Say that this process is the worker of this number: it ends itself if a shard hangs."""
    _Process.worker = number


def process_embedder(
    settings: EmbedderSettings, identity: EmbedderIdentity, workers: int, home: int | None = None
) -> Embedder:
    """Return this process's embedder, one of `workers`, opened on first use, and again when another
    is wanted. `home` is the number of this process, by default that of the worker: they spread over
    the hosts."""
    wanted = settings, identity, workers
    number = home if home is not None else _Process.worker or 0
    with _Process.turn:
        if _Process.embedder is None or _Process.embedder[0] != wanted:
            close_process_embedder()
            _Process.embedder = (
                wanted,
                open_embedder(settings, home=number, workers=workers, expected=identity),
            )
        return _Process.embedder[1]


def process_store(settings: StoreSettings) -> Store:
    """Return this process's connection to a server, opened on first use. It is the task that waits
    for the server."""
    with _Process.turn:
        if _Process.store is None or _Process.store[0] != settings:
            _Process.store = settings, open_store(settings, patience=PATIENCE)
        return _Process.store[1]


def close_process_embedder() -> None:
    """Close this process's embedder, if it has one. A thread that it embeds for gets an error."""
    with _Process.turn:
        opened, _Process.embedder = _Process.embedder, None
        if opened is not None:
            opened[1].close()


def embed(job: EmbedJob, *, home: int | None = None, limited: bool | None = None) -> EmbeddedShard:
    """Chunk and embed a shard with this process's embedder, `home` of its `workers`.

    A `limited` process, such as every worker, ends itself if it takes longer than the shard's
    `limit`: its shard is then tried alone.

    Raises:
        ShardHalved: The service went away under the shard a second time. Its halves are embedded
            next, so that most documents advance; they go on from what was embedded.
        EmbedderUnavailable, …: As `EmbedJob.embed`.
    """
    limited = _Process.worker is not None if limited is None else limited
    embedder = process_embedder(job.embedder, job.identity, job.workers, home)
    before = embedder.stats.requests
    try:
        with (
            waiting(job.wait),
            end_process_after(job.shard.limit if limited else None),
            collect_seldom(),
        ):
            embedded = job.embed(embedder)
    except EmbedderUnavailable as error:
        had_texts = embedder.stats.requests > before
        if had_texts and not isinstance(error, RateLimited):
            _note_interrupted(job.shard, error)
        raise
    _Process.interrupted.discard(_name(job.shard))
    return embedded


def _note_interrupted(shard: Shard, error: EmbedderUnavailable) -> None:
    """Record that the service went away while it had texts of a shard. Raises ShardHalved the
    second time."""
    name, documents = _name(shard), len(shard.documents)
    if name not in _Process.interrupted:
        _Process.interrupted.add(name)
        return
    if documents > 1:
        which = (
            f"shard {shard.number} of {shard.index} is embedded in halves ({documents:,} documents)"
        )
        raise ShardHalved(f"{which}: its service went away twice") from error


def _name(shard: Shard) -> ShardName:
    documents = shard.documents
    return shard.index, documents.keys[0] if len(documents) else "", len(documents)


def _embed(
    chunked: ChunkedDocuments, vectors: Vectors, chunker: Chunker, embed_texts: EmbedTexts
) -> list[str]:
    """Embed the texts that have no vector yet, split in `chunked` those that are too long; return
    what was sent."""
    sent: list[str] = []
    too_long: set[str] = set()
    texts = {
        text
        for document in chunked
        if isinstance(document, ChunkedDocument)
        for text in document.texts_to_embed()
    }
    while new := sorted(texts - vectors.keys()):
        found = embed_texts(new)
        if len(found) != len(new):
            raise BadVectors(f"the embedder gave {len(found)} vectors for {len(new)} texts")
        sent += new
        vectors.update(zip(new, found, strict=True))
        too_long.update(text for text in new if isinstance(vectors[text], TextTooLong))
        texts = set()
        for i, document in enumerate(chunked if too_long else ()):
            if isinstance(document, ChunkedDocument) and not too_long.isdisjoint(
                document.texts_to_embed()
            ):
                chunked[i] = shorter = _split_long(document, too_long, chunker)
                texts.update(
                    shorter.texts_to_embed() if isinstance(shorter, ChunkedDocument) else ()
                )
    return sent


def _split_long(
    document: ChunkedDocument, too_long: set[str], chunker: Chunker
) -> ChunkedDocument | RagIndexError:
    while numbers := [i for i, text in enumerate(document.texts_to_embed()) if text in too_long]:
        for number in reversed(numbers):
            shorter = chunker.split_chunk(document, number)
            if shorter is None:
                return RagIndexError("one character is too long for the embedder")
            document = shorter
    return document


def _gather(
    documents: DocumentBatch, chunked: ChunkedDocuments, vectors: Vectors
) -> tuple[DocumentBatch, list[ChunkedDocument], NDArray[np.float32], list[str], list[Failure]]:
    done: list[int] = []
    whole: list[ChunkedDocument] = []
    texts: list[str] = []
    failures: list[Failure] = []
    for i, document in enumerate(chunked):
        key, text_hash = documents.keys[i], documents.text_hashes[i]
        if not isinstance(document, ChunkedDocument):
            failures.append(Failure(key, str(document), text_hash))
            continue
        sent = document.texts_to_embed()
        wrong = [vectors[text] for text in sent if isinstance(vectors[text], Exception)]
        ending = [error for error in wrong if isinstance(error, TextEndsServer)]
        if ending:
            failures.append(Failure(key, str(ending[0]), text_hash, cause="server"))
            continue
        if wrong or not sent:
            failures.append(
                Failure(key, str(wrong[0]) if wrong else document.incomplete or NO_TEXT, text_hash)
            )
            continue
        if document.incomplete:
            failures.append(Failure(key, document.incomplete, text_hash, "incomplete"))
        done.append(i)
        whole.append(document)
        texts.extend(sent)
    rows = [vectors[text] for text in texts]
    matrix = np.asarray(rows, dtype=np.float32) if rows else np.empty((0, 0), dtype=np.float32)
    return (
        documents.take(done) if len(done) < len(documents) else documents,
        whole,
        matrix,
        texts,
        failures,
    )


def _sparse_vectors(
    bm25: Bm25Model, documents: DocumentBatch, chunked: list[ChunkedDocument], texts: list[str]
) -> SparseVectors:
    """Return a sparse vector for each chunk, of what is embedded, and of the document's key or the
    code's names."""
    rows = [row for row, document in enumerate(chunked) for _ in document.chunks]
    if bm25.identifiers:
        own = [
            payload for one in chunked for payload in one.payloads or [NO_FIELDS] * len(one.chunks)
        ]
        payloads = [
            {**decode_payload(documents.payloads[row]), **decode_payload(payload)}
            for row, payload in zip(rows, own, strict=True)
        ]
        heads = [
            f"{names_of(payload)}\n{definitions(str(payload.get('name', '')))}"
            for payload in payloads
        ]
        names = [tuple(str(payload.get(field, "")) for field in CODE_NAMES) for payload in payloads]
    else:
        words = [key_words(document_id(key)) for key in documents.keys]
        heads = [words[row] for row in rows]
        names = [
            own if number == 0 else ()
            for own, document in zip(_names(documents), chunked, strict=True)
            for number, _ in enumerate(document.chunks)
        ]
    texts = [f"{head}\n{text}" if head else text for head, text in zip(heads, texts, strict=True)]
    encoder = Bm25Encoder(bm25)
    if len(encoder.languages) == 1 or not documents.layouts:
        return encoder.documents(texts, names=names)
    languages = [
        TextLayout.decode(layout).language if layout else "" for layout in documents.layouts
    ]
    return encoder.documents(texts, [languages[row] for row in rows], names)


def _names(documents: DocumentBatch) -> list[tuple[str, ...]]:
    """Return the names by which each document is found as a whole: its key, its title, and the
    first line."""
    layouts = documents.layouts or [b""] * len(documents)
    titles = [TextLayout.decode(layout).title if layout else "" for layout in layouts]
    lines = [text.lstrip()[: MAX_NAME + 1].partition("\n")[0] for text in documents.texts]
    return list(zip(map(document_id, documents.keys), titles, lines, strict=True))
