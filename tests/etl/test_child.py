"""Children that embed end with their parent, whatever they are doing, and the document that kills them is found."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import BrokenExecutor

import psutil
import pytest

from rag_index.components.chunking.text_chunker import TextChunker
from rag_index.components.embedders import identify
from rag_index.components.sources import page_of
from rag_index.core.documents.batches import Shard, WrittenShard
from rag_index.core.machine import Process
from rag_index.core.settings import EmbedderSettings
from rag_index.errors import EmbedderUnavailable, ProcessDied, TerminalError
from rag_index.etl.embed import EmbedJob, embed
from rag_index.etl.plain import answer
from rag_index.etl.window import in_parts
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


def job(text: str) -> EmbedJob:
    return EmbedJob(shard_of(text), Chunker(100, 10), LOCAL, identify(LOCAL))


def embedded(child: Process, wanted: EmbedJob):
    return answer(child.submit(embed, wanted, limited=True), wanted)


@pytest.mark.long
def test_a_child_embeds_raises_errors_as_ours_and_is_started_again_after_a_death():
    text = "The printer is out of paper."
    with Process() as child:
        assert embedded(child, job(text)).chunk_counts == [1]
        with pytest.raises(EmbedderUnavailable, match="down"):
            embedded(child, job("down"))
        with pytest.raises(TerminalError, match="ZeroDivisionError"):
            embedded(child, job("divide"))
        dying = [child.submit(embed, job(one), limited=True) for one in ("kill", text)]
        for one in dying:  # what waits for the same child ends, too
            with pytest.raises(ProcessDied):
                answer(one, job(text))
        found = embedded(child, job(text))
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
        "from tests.etl.test_child import *\n"
        "if __name__ == '__main__':\n"
        "    with Process() as child:\n"
        "        embedded(child, job('text'))\n"
        "        print('ready', flush=True)\n"
        "        embedded(child, job('hang'))\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert parent.stdout is not None
    assert parent.stdout.readline() == b"ready\n"
    children = psutil.Process(parent.pid).children(recursive=True)
    assert children
    time.sleep(0.2)  # let it begin to hang; the test holds either way
    parent.kill()
    parent.wait(30)
    eventually(lambda: not any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in children))


def test_a_shard_that_kills_is_split_until_the_document_is_found():
    alone = []

    def write_alone(shard: Shard) -> list[str]:
        alone.append(shard)
        if "kill" in shard.documents.texts:
            raise ProcessDied("it died")
        return shard.documents.texts

    found = list(in_parts(shard_of(*"abcdefghijkl", "kill", "m"), write_alone))
    [poison] = [one for one in found if isinstance(one, WrittenShard)]
    assert [(one.key, one.died) for one in poison.failures] == [("12", True)]
    assert not poison.keys
    assert [text for one in found if one is not poison for text in one] == [*"abcdefghijklm"]
    assert len(alone) <= 1 + 8 + 2
