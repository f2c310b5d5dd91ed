"""Where a run without Prefect embeds its shards, and that the servers that embed always have a
request at hand."""

import os
import threading
import time
from concurrent.futures import BrokenExecutor

import pytest

from rag_index.core.machine import InlineExecutor, in_thread
from rag_index.core.machine.child import Process
from rag_index.etl.local_steps import Places
from tests.fakes.ollama import FakeOllama
from tests.project import Project, run_here
from tests.waiting import eventually

STARVED_SECONDS = 30.0
"""Seconds without a further request after which the server of these tests gives up. No run that
feeds it waits for more than a process to start."""


class HungryOllama(FakeOllama):
    """A server that answers a request with several texts only once it has the next one, or all
    texts: it is always at work. `starved` says that it had to answer one without."""

    def __init__(self, all_texts: int) -> None:
        super().__init__(concurrent=True, seconds_per_text=0.004)
        self._all_texts = all_texts
        self._texts, self._requests, self.starved = 0, 0, False
        self._came = threading.Condition()

    def embed(self, texts, *, truncate, fault):
        # A single text only compares models.
        if len(texts) > 1:
            with self._came:
                self._texts += len(texts)
                self._requests += 1
                number = self._requests
                self._came.notify_all()
                is_fed = self._came.wait_for(
                    lambda: (
                        self._requests > number or self._texts >= self._all_texts or self.starved
                    ),
                    STARVED_SECONDS,
                )
                self.starved = self.starved or not is_fed
        return super().embed(texts, truncate=truncate, fault=fault)


@pytest.mark.long
@pytest.mark.parametrize("workers", [1, 2])
def test_a_server_has_the_next_request_before_it_answers_one_at_the_start_and_between_shards(
    tmp_path, workers
):
    with HungryOllama(all_texts=1000) as fake:
        project = Project(tmp_path / "project", extra=f"{fake.settings}batch_texts = 8\n")
        with project.source() as source:
            rows = [(number, f"Note {number}", f"body {number}") for number in range(1000)]
            source.executemany("INSERT INTO note (id, title, body) VALUES (?, ?, ?)", rows)
        run_here(project.config, "index-all", "--workers", workers, "--shard-documents", 40)
        assert not fake.starved


def test_a_child_makes_as_many_calls_at_a_time_as_it_is_told():
    with Process(0, None, 2) as child:
        meeting = [child.submit(meet, 2) for _ in range(2)]
        assert [one.result(60) for one in meeting] == [True, True]


_MET = threading.Barrier(2)


def meet(count: int) -> bool:
    """Wait in the child until both calls are under way."""
    return _MET.wait(60) < count


class Untold(Exception):
    """It cannot be unpickled, as errors of some libraries."""

    def __init__(self, one: str, two: str) -> None:
        super().__init__(one + two)


def raise_untold() -> None:
    raise Untold("no ", "room")


def test_what_cannot_be_sent_ends_its_own_call_alone():
    with Process() as child:
        with pytest.raises(RuntimeError, match="Untold: no room"):
            child.submit(raise_untold).result(60)
        with pytest.raises(Exception, match="pickle"):
            child.submit(threading.Lock).result(60)
        with pytest.raises(Exception, match="pickle"):
            child.submit(print, threading.Lock()).result(60)
        assert child.submit(os.getppid).result(60) == os.getpid()


def test_places_go_to_the_executor_with_the_fewest_shards():
    places, one, other = Places(), InlineExecutor(), InlineExecutor()
    places.add(one, 2)
    places.add(other, 2)
    with places.taken() as first, places.taken() as second:
        assert {first, second} == {one, other}


def test_an_executor_that_was_removed_gets_no_shard_after_the_present_ones():
    places, one, other = Places(), InlineExecutor(), InlineExecutor()
    places.add(one, 2)
    with places.taken() as first:
        places.remove(one)
        places.add(other, 1)
        with places.taken() as second:
            assert (first, second) == (one, other)
    for _ in range(3):
        with places.taken() as later:
            assert later is other


def test_who_waits_for_a_place_is_ended_with_the_run():
    places = Places()

    def wait_for_a_place() -> None:
        with places.taken():
            pass

    waiting = [in_thread(wait_for_a_place, "waits") for _ in range(3)]
    time.sleep(0.05)
    assert not any(one.done() for one in waiting)
    places.close()
    for one in waiting:
        with pytest.raises(BrokenExecutor, match="the run has ended"):
            one.result(60)
    eventually(lambda: not [one for one in threading.enumerate() if one.name == "waits"])
