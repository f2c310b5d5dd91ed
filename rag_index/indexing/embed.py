"""A shard of documents into an embedded shard: cut, embed each distinct text once, halve what is too long."""

from __future__ import annotations

import os
import socket
import time
from collections import Counter
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from rag_index.documents.batches import Cut, EmbeddedShard, Failure, ShardStats
from rag_index.errors import BadVectors, RagIndexError, TextTooLong
from rag_index.machine.memory import peak_memory

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from rag_index.chunking import Cutter
    from rag_index.documents.batches import Page, Shard
    from rag_index.embedders import Embedder

__all__ = ["embed_shard"]

NOTHING_KNOWN: Mapping[str, NDArray[np.float32]] = MappingProxyType({})
Vectors = dict[str, "NDArray[np.float32] | Exception"]
Cuts = list[Cut | RagIndexError]


def embed_shard(
    shard: Shard, cutter: Cutter, embedder: Embedder, *, known: Mapping[str, NDArray[np.float32]] = NOTHING_KNOWN
) -> EmbeddedShard:
    """Cut and embed the shard's documents; texts in `known` take the vector given there.

    A document of which any chunk cannot be embedded is a failure as a whole, so that no half of it is ever shown.
    Raises EmbedderUnavailable (RateLimited), ModelMissing, ModelChanged, BadVectors where the service is the reason.
    """
    started = time.perf_counter()
    before = replace(embedder.stats, host_seconds=dict(embedder.stats.host_seconds))
    vectors: Vectors = dict(known)
    cuts = cutter.cut(shard.documents)
    cut_seconds = time.perf_counter() - started
    contexts = [cut.context_counts for cut in cuts if isinstance(cut, Cut)]
    cuts, sent = _embedded(cuts, vectors, cutter, embedder)
    documents, whole, matrix, texts, failures = _gathered(shard.documents, cuts, vectors)
    after = embedder.stats
    made = [text for text in texts if text not in known]
    stats = ShardStats(
        seconds=time.perf_counter() - started,
        embed_seconds=after.busy_seconds - before.busy_seconds,
        texts=sent,
        repeated=len(made) - len(set(made)),
        reused=len(texts) - len(made),
        requests=after.requests - before.requests,
        retries=after.retries - before.retries,
        rate_limited=after.rate_limited - before.rate_limited,
        chars=shard.chars,
        cut_seconds=cut_seconds,
        contexts_made=sum(counts.made for counts in contexts),
        contexts_cached=sum(counts.cached for counts in contexts),
        contexts_missing=sum(counts.missing for counts in contexts),
        host_seconds={
            host: seconds - before.host_seconds.get(host, 0.0) for host, seconds in after.host_seconds.items()
        },
        worker=f"{socket.gethostname()}:{os.getpid()}",
        symbols=dict(sum((Counter(cut.symbols) for cut in whole), Counter())),
        peak_memory=peak_memory(),
    )
    return EmbeddedShard(shard.index, shard.number, documents, whole, matrix, failures, stats)


def _embedded(cuts: Cuts, vectors: Vectors, cutter: Cutter, embedder: Embedder) -> tuple[Cuts, int]:
    """Embed what has no vector yet, halves of what is too long instead of it: the cuts then, and how many were sent."""
    sent = 0
    too_long: set[str] = set()
    texts = {text for cut in cuts if isinstance(cut, Cut) for text in cut.sent()}
    while new := sorted(texts - vectors.keys()):
        found = embedder.embed_documents(new)
        if len(found) != len(new):
            raise BadVectors(f"the embedder gave {len(found)} vectors for {len(new)} texts")
        sent += len(new)
        vectors.update(zip(new, found, strict=True))
        too_long.update(text for text in new if isinstance(vectors[text], TextTooLong))
        texts = set()
        for i, cut in enumerate(cuts if too_long else ()):
            if isinstance(cut, Cut) and not too_long.isdisjoint(cut.sent()):
                cuts[i] = shorter = _shortened(cut, too_long, cutter)
                texts.update(shorter.sent() if isinstance(shorter, Cut) else ())
    return cuts, sent


def _shortened(cut: Cut, too_long: set[str], cutter: Cutter) -> Cut | RagIndexError:
    """The cut without any of these texts: each in two, and its halves again where they are among them."""
    while numbers := [i for i, text in enumerate(cut.sent()) if text in too_long]:
        for number in reversed(numbers):
            shorter = cutter.halved(cut, number)
            if shorter is None:
                return RagIndexError(f"one character is too long for the embedder ({cut.chunks[number]!r:.20})")
            cut = shorter
    return cut


def _gathered(
    documents: Page, cuts: Cuts, vectors: Vectors
) -> tuple[Page, list[Cut], NDArray[np.float32], list[str], list[Failure]]:
    """The documents all of whose chunks have vectors: their cuts, vectors and texts as sent; and the failures."""
    done: list[int] = []
    whole: list[Cut] = []
    texts: list[str] = []
    failures: list[Failure] = []
    for i, cut in enumerate(cuts):
        sent = cut.sent() if isinstance(cut, Cut) else []
        reason = _reason(cut, sent, vectors)
        if reason or not isinstance(cut, Cut):
            failures.append(Failure(documents.keys[i], reason, documents.text_hashes[i]))
            continue
        if cut.incomplete:
            failures.append(Failure(documents.keys[i], cut.incomplete, documents.text_hashes[i], "incomplete"))
        done.append(i)
        whole.append(cut)
        texts.extend(sent)
    rows = [vectors[text] for text in texts]
    matrix = np.asarray(rows, dtype=np.float32) if rows else np.empty((0, 0), dtype=np.float32)
    return documents.take(done) if len(done) < len(documents) else documents, whole, matrix, texts, failures


def _reason(cut: Cut | RagIndexError, sent: list[str], vectors: Vectors) -> str:
    """Why a document cannot be indexed; nothing where it can."""
    if not isinstance(cut, Cut):
        return str(cut)
    if not sent:
        return "no text is left after white space"
    return next((str(vectors[text]) for text in sent if isinstance(vectors[text], Exception)), "")
