"""The child that embeds suspects ends at once with its parent's block, and by itself when the parent dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from rag_index.chunking.text import TextChunker
from rag_index.documents.batches import Shard
from rag_index.embedders import identify
from rag_index.errors import EmbedderUnavailable, ProcessDied, TerminalError
from rag_index.indexing.child import ChildEmbedder
from rag_index.indexing.embed import EmbedJob
from rag_index.reports.metrics import Stopwatch
from rag_index.settings import EmbedderSettings
from rag_index.sources import page_of
from tests.waiting import eventually

LOCAL = EmbedderSettings()


class Kills(TextChunker):
    """A chunker that kills its process."""

    def chunk(self, documents):
        os.kill(os.getpid(), signal.SIGKILL)


class Hangs(TextChunker):
    """A chunker that never ends."""

    def chunk(self, documents):
        time.sleep(3600)


class Raises(TextChunker):
    """A chunker whose service is down."""

    def chunk(self, documents):
        raise EmbedderUnavailable("down")


class Divides(TextChunker):
    """A chunker with a fault."""

    def chunk(self, documents):
        return 1 / 0


def job(chunker: TextChunker, **changed) -> EmbedJob:
    shard = Shard("notes", 1, page_of([(1, "The printer is out of paper.", {})]), 28)
    return EmbedJob(shard, chunker, LOCAL, identify(LOCAL), **changed)


def test_it_embeds_and_is_started_again_after_a_death():
    with ChildEmbedder(Stopwatch()) as child:
        assert child.embed(job(TextChunker(100, 10))).chunk_counts == [1]
        with pytest.raises(ProcessDied):
            child.embed(job(Kills(100, 10)))
        assert child.embed(job(TextChunker(100, 10))).chunk_counts == [1]


def test_errors_come_back_as_errors_of_ours():
    with ChildEmbedder(Stopwatch()) as child:
        with pytest.raises(EmbedderUnavailable, match="down"):
            child.embed(job(Raises(100, 10)))
        with pytest.raises(TerminalError, match="ZeroDivisionError"):
            child.embed(job(Divides(100, 10)))
        assert child.embed(job(TextChunker(100, 10))).chunk_counts == [1]


def test_a_time_limit_ends_it():
    with ChildEmbedder(Stopwatch()) as child, pytest.raises(ProcessDied):
        child.embed(job(Hangs(100, 10), timeout=0.5))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_no_child_outlives_its_parent(number, tmp_path):
    """Whatever the child is doing: it hangs here."""
    code = (
        "from tests.indexing.test_child import *\n"
        "with ChildEmbedder(Stopwatch()) as child:\n"
        "    child.embed(job(TextChunker(100, 10)))\n"
        "    print('ready', flush=True)\n"
        "    child.embed(job(Hangs(100, 10)))\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert parent.stdout is not None
    assert parent.stdout.readline() == b"ready\n"
    children = psutil.Process(parent.pid).children(recursive=True)
    assert children
    time.sleep(0.2)  # let it begin to hang; the test holds either way
    parent.send_signal(number)
    parent.wait(30)
    eventually(lambda: not any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in children))
