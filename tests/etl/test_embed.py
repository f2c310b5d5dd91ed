"""A shard into vectors: each distinct text once, documents in order, and a text that fails fails
its document alone. Children that embed end with their parent, whatever they are doing, and the
document that kills them is found."""

import hashlib
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import BrokenExecutor
from itertools import islice
from unittest.mock import Mock

import numpy as np
import psutil
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from rag_index.components.chunking.text_chunker import TextChunker
from rag_index.components.embedders import identify
from rag_index.core.documents.batches import DocumentBatch, Shard, WrittenShard
from rag_index.core.documents.canonical import hash_text
from rag_index.core.documents.work import Work
from rag_index.core.machine.child import Process
from rag_index.core.recovery import add_downtime
from rag_index.core.settings import EmbedderSettings
from rag_index.errors import (
    BadVectors,
    EmbedderUnavailable,
    ProcessDied,
    TerminalError,
    TextRefused,
    TextTooLong,
)
from rag_index.etl import local_steps
from rag_index.etl.embed import EmbedJob, embed
from rag_index.etl.upsert import write_shard
from rag_index.etl.window import in_parts
from tests.waiting import eventually

DIMENSION = 4
words = st.sampled_from(["printer", "is", "broken.", "again\n\n", "poison", "äöü", "x" * 30])
texts = st.lists(st.lists(words, min_size=1, max_size=30).map(" ".join), max_size=8)
LOCAL = EmbedderSettings()


def vector_of(text):
    digest = hashlib.blake2b(text.encode(), digest_size=DIMENSION).digest()
    return np.frombuffer(digest, dtype=np.uint8).astype(np.float32) + 1


class HashEmbedder:
    """An embedder whose vectors say which text they are of, with a longest text and a word that it
    refuses."""

    def __init__(self, longest=1000, refused="poison"):
        self.longest, self.refused = longest, refused
        self.stats = Work()
        self.sent = []

    def embed_documents(self, texts):
        assert all(texts), "an empty text was sent"
        self.sent.append(list(texts))
        self.stats.requests += 1
        self.stats.embed_seconds += 0.5
        return [self._entry(text) for text in texts]

    def _entry(self, text):
        if len(text) > self.longest:
            return TextTooLong(f"{len(text)} characters are too long")
        if self.refused in text:
            return TextRefused(f"the text {text!r:.20} is refused")
        return vector_of(text)

    @property
    def all_sent(self):
        return [text for texts in self.sent for text in texts]


def shard_of(texts):
    page = DocumentBatch(
        [f'"{i}"' for i in range(len(texts))],
        list(texts),
        [b"{}"] * len(texts),
        [hash_text(text) for text in texts],
        [b"p"] * len(texts),
    )
    return Shard("notes", 1, page, sum(map(len, texts)))


def embed_shard(shard, chunker, embedder, **known):
    return EmbedJob(shard, chunker, None, None, **known).embed(embedder)


def chunks_of(embedded):
    return [chunk for document in embedded.chunked for chunk in document.chunks]


def check(embedded):
    """What holds for every embedded shard: columns of one length, and each vector that of its
    chunk."""
    assert len(embedded.chunk_counts) == len(embedded.documents)
    assert sum(embedded.chunk_counts) == len(chunks_of(embedded)) == len(embedded.vectors)
    assert embedded.vectors.dtype == np.float32
    for chunk, vector in zip(chunks_of(embedded), embedded.vectors, strict=True):
        assert (vector == vector_of(chunk)).all()
    return embedded


@hypothesis_settings(deadline=None)
@given(texts, st.integers(20, 60), st.integers(1, 50))
def test_every_document_is_embedded_whole_or_is_a_failure(texts, chars, longest):
    """Whatever is too long for the embedder is cut further; only what it refuses fails, with its
    document alone."""
    embedder = HashEmbedder(longest)
    embedded = check(embed_shard(shard_of(texts), TextChunker(chars, 0), embedder))
    failed = {failure.key: failure for failure in embedded.failures}
    assert sorted([*embedded.documents.keys, *failed]) == sorted(
        f'"{i}"' for i in range(len(texts))
    )
    assert len(set(embedder.all_sent)) == len(embedder.all_sent), "a text was sent twice"
    made = iter(chunks_of(embedded))
    for key, count in zip(embedded.documents.keys, embedded.chunk_counts, strict=True):
        chunks = list(islice(made, count))
        assert all(len(chunk) <= min(longest, chars) and "poison" not in chunk for chunk in chunks)
        assert "".join("".join(chunks).split()) == "".join(texts[int(key.strip('"'))].split())
    for key, failure in failed.items():
        text = texts[int(key.strip('"'))]
        assert "poison" in text
        assert "refused" in failure.reason
        assert failure.text_hash == hash_text(text)
    if (
        longest >= 24
    ):  # a half has 12 characters, and ends between words if there is a space in its second half
        assert len(failed) == sum("poison" in text for text in texts)


def embed_here(texts, **given):
    """Embed texts, check the shard, and return it with the embedder."""
    embedder = HashEmbedder(**given)
    return check(embed_shard(shard_of(texts), TextChunker(100, 0), embedder)), embedder


def test_equal_texts_are_embedded_once_and_statistics_are_of_this_shard_alone():
    texts = ["thank you", "printer", "thank you", "Thank you", "thank you"]
    embedded, embedder = embed_here(texts)
    assert (embedder.sent, chunks_of(embedded)) == (
        [sorted({"thank you", "printer", "Thank you"})],
        texts,
    )
    for work in (embedded.work, embed_shard(shard_of(texts), TextChunker(100, 0), embedder).work):
        assert (work.texts, work.reused, work.requests) == (3, 0, 1)
        assert (work.embed_seconds, work.chars) == (0.5, sum(map(len, texts)))
        assert work.seconds > 0


def test_what_is_too_long_is_halved_until_it_fits_and_halves_that_are_known_are_not_sent_again():
    embedded, embedder = embed_here(["one two three four five six", "ten"], longest=10)
    assert " ".join(chunks_of(embedded)) == "one two three four five six ten"
    assert embedded.work.texts == len(embedder.all_sent) > len(chunks_of(embedded))
    assert embedded.work.requests == len(embedder.sent)
    embedded, embedder = embed_here(["thank you thank you", "thank you"], longest=9)
    assert chunks_of(embedded) == ["thank you"] * 3
    assert (embedder.sent, embedded.work.texts) == ([["thank you", "thank you thank you"]], 2)


def test_a_character_that_is_too_long_by_itself_and_white_space_alone_fail_their_documents():
    embedded, _ = embed_here(["ab", "c"], longest=0)
    assert [failure.key for failure in embedded.failures] == ['"0"', '"1"']
    assert "too long for the embedder" in embedded.failures[0].reason
    assert embedded.vectors.shape == (0, 0)
    embedded, embedder = embed_here([" \n"])
    assert embedded.failures[0].reason == "no text is left after white space"
    assert (embedder.sent, len(embed_here([])[0].documents)) == ([], 0), "no empty request"


def test_vectors_that_are_there_already_are_taken_and_the_rest_is_made():
    known = {
        "one": np.full(DIMENSION, 7, dtype=np.float32),
        "elsewhere": np.ones(DIMENSION, dtype=np.float32),
    }
    embedder = HashEmbedder()
    embedded = embed_shard(
        shard_of(["one", "two", "one", "two"]), TextChunker(50, 0), embedder, known=known
    )
    assert (embedded.vectors[0] == 7).all()
    assert (embedded.vectors[1] == vector_of("two")).all()
    assert (embedder.all_sent, embedded.work.texts, embedded.work.reused) == (["two"], 1, 2)


def test_what_is_the_fault_of_the_embedder_is_no_failure_of_documents():
    for answered, error, message in (
        (
            Mock(side_effect=EmbedderUnavailable("it does not answer")),
            EmbedderUnavailable,
            "does not answer",
        ),
        (Mock(return_value=[vector_of("b")]), BadVectors, "1 vectors for 2"),
    ):
        embedder = HashEmbedder()
        embedder.embed_documents = answered
        with pytest.raises(error, match=message):
            embed_shard(shard_of(["a", "b"]), TextChunker(50, 0), embedder)


class Chunker(TextChunker):
    """A chunker that does what its first text says."""

    def chunk(self, documents):
        match documents.texts[0]:
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "hang":
                time.sleep(3600)
            case "down":
                raise EmbedderUnavailable("down")
            case "divide":
                raise ZeroDivisionError
        return super().chunk(documents)


class LateEmbedder(HashEmbedder):
    """An embedder whose server did not answer for a hundred seconds."""

    def embed_documents(self, texts):
        add_downtime(100.0)
        return super().embed_documents(texts)


class LatePoints:
    """Points of a store that did not answer for a hundred seconds."""

    def upsert(self, batch):
        add_downtime(100.0)


def test_seconds_in_which_a_server_did_not_answer_are_none_of_a_shard():
    """By them, shards are sized and the length of a run is told."""
    shard = shard_of(["the printer is broken"])
    began = time.perf_counter()
    embedded = embed_shard(shard, TextChunker(100, 0), LateEmbedder())
    written = write_shard(LatePoints(), embedded)
    took = time.perf_counter() - began
    assert -100 < embedded.work.seconds <= took - 100
    assert -100 < written.work.write_seconds <= took - 100


def job(text: str) -> EmbedJob:
    return EmbedJob(shard_of([text]), Chunker(100, 10), LOCAL, identify(LOCAL))


def embedded_by(child: Process, wanted: EmbedJob):
    return local_steps.embedded_by(child.submit(embed, wanted, limited=True), wanted)


@pytest.mark.long
def test_a_child_embeds_raises_errors_as_ours_and_is_started_again_after_a_death():
    text = "The printer is out of paper."
    with Process() as child:
        assert embedded_by(child, job(text)).chunk_counts == [1]
        with pytest.raises(EmbedderUnavailable, match="down"):
            embedded_by(child, job("down"))
        with pytest.raises(TerminalError, match="ZeroDivisionError"):
            embedded_by(child, job("divide"))
        dying = [child.submit(embed, job(one), limited=True) for one in ("kill", text)]
        for one in dying:  # what waits for the same child ends, too
            with pytest.raises(ProcessDied):
                local_steps.embedded_by(one, job(text))
        found = embedded_by(child, job(text))
        assert (found.chunk_counts, found.documents.texts) == ([1], [text])
        hanging = child.submit(embed, job("hang"), limited=True)
    with pytest.raises(BrokenExecutor):
        hanging.result(60)
    before = set(multiprocessing.active_children())
    with pytest.raises(BrokenExecutor, match="the run has ended"):
        child.submit(embed, job("late"), limited=True)
    assert set(multiprocessing.active_children()) <= before, "those of earlier tests may end"


@pytest.mark.long
def test_no_child_outlives_its_parent():
    """Whatever the child is doing: it hangs here."""
    code = (
        "from tests.etl.test_embed import *\n"
        "if __name__ == '__main__':\n"
        "    with Process() as child:\n"
        "        embedded_by(child, job('text'))\n"
        "        print('ready', flush=True)\n"
        "        embedded_by(child, job('hang'))\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert parent.stdout is not None
    assert parent.stdout.readline() == b"ready\n"
    children = psutil.Process(parent.pid).children(recursive=True)
    assert children
    time.sleep(0.2)  # let it begin to hang; the test holds either way
    parent.kill()
    parent.wait(30)
    eventually(
        lambda: (
            not any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in children)
        )
    )


def test_a_shard_that_kills_is_split_until_the_document_is_found():
    alone = []

    def write_alone(shard: Shard) -> list[str]:
        alone.append(shard)
        if "kill" in shard.documents.texts:
            raise ProcessDied("it died")
        return shard.documents.texts

    found = list(in_parts(shard_of([*"abcdefghijkl", "kill", "m"]), write_alone))
    [poison] = [one for one in found if isinstance(one, WrittenShard)]
    assert [(one.key, one.process_died) for one in poison.failures] == [('"12"', True)]
    assert not poison.keys
    assert [text for one in found if one is not poison for text in one] == [*"abcdefghijklm"]
    assert len(alone) <= 1 + 8 + 2
