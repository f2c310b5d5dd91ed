"""The child that embeds suspects finds the document that kills it, and ends with its parent, whatever it is doing."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import psutil
import pytest

from rag_index.chunking.text_chunker import TextChunker
from rag_index.documents.batches import EmbeddedShard, Shard
from rag_index.embedders import identify
from rag_index.errors import EmbedderUnavailable, ProcessDied, TerminalError
from rag_index.indexing.embed import ChildEmbedder, EmbedJob, quarantine
from rag_index.settings import EmbedderSettings
from rag_index.sources import page_of
from tests.waiting import eventually

LOCAL = EmbedderSettings()


class Chunker(TextChunker):
    """A chunker that does what its first text says."""

    def chunk(self, documents):
        if documents.texts[0] == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif documents.texts[0] == "hang":
            time.sleep(3600)
        elif documents.texts[0] == "down":
            raise EmbedderUnavailable("down")
        elif documents.texts[0] == "divide":
            raise ZeroDivisionError
        return super().chunk(documents)


def shard_of(*texts: str) -> Shard:
    return Shard("notes", 1, page_of([(number, text, {}) for number, text in enumerate(texts)]), sum(map(len, texts)))


def job(text: str, **changed) -> EmbedJob:
    return EmbedJob(shard_of(text), Chunker(100, 10), LOCAL, identify(LOCAL), **changed)


def test_it_embeds_and_raises_errors_as_ours_and_is_started_again_after_a_death():
    with closing(ChildEmbedder()) as child:
        assert child.embed(job("The printer is out of paper.")).chunk_counts == [1]
        with pytest.raises(EmbedderUnavailable, match="down"):
            child.embed(job("down"))
        with pytest.raises(TerminalError, match="ZeroDivisionError"):
            child.embed(job("divide"))
        with pytest.raises(ProcessDied):
            child.embed(job("kill"))
        assert child.embed(job("The printer is out of paper.")).chunk_counts == [1]
        with pytest.raises(ProcessDied):
            child.embed(job("hang", timeout=0.5))


def test_what_is_asked_after_its_end_starts_no_process():
    child = ChildEmbedder()
    child.close()
    before = set(multiprocessing.active_children())
    with pytest.raises(ProcessDied, match="the run has ended"):
        child.embed(job("late"))
    assert set(multiprocessing.active_children()) == before


def test_each_thread_gets_the_answer_to_what_it_asked():
    texts = [f"The printer of room {number} is out of paper." for number in range(8)]
    with closing(ChildEmbedder()) as child, ThreadPoolExecutor(len(texts)) as threads:
        answers = list(threads.map(lambda text: child.embed(job(text)), texts))
    assert [answer.chunks for answer in answers] == [[text] for text in texts]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_no_child_outlives_its_parent(number):
    """Whatever the child is doing: it hangs here."""
    code = (
        "from tests.indexing.test_child import *\n"
        "with closing(ChildEmbedder()) as child:\n"
        "    child.embed(job('text'))\n"
        "    print('ready', flush=True)\n"
        "    child.embed(job('hang'))\n"
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


def test_the_quarantine_splits_until_it_has_found_the_killer():
    alone = []

    def run_alone(shard: Shard) -> list[str]:
        alone.append(shard)
        if "kill" in shard.documents.texts:
            raise ProcessDied("it died")
        return shard.documents.texts

    found = list(quarantine(shard_of(*"abcdefghijkl", "kill", "m"), run_alone))
    [poison] = [one for one in found if isinstance(one, EmbeddedShard)]
    assert [(one.key, one.died) for one in poison.failures] == [("12", True)]
    assert (len(poison.documents), len(poison.vectors)) == (0, 0)
    assert [text for one in found if one is not poison for text in one] == [*"abcdefghijklm"]
    assert len(alone) <= 1 + 8 + 2
