"""The workers as a place of the pool: what they hold for a run, and what ends with it."""

import threading
from types import SimpleNamespace

import pytest
from distributed import Client, LocalCluster

from rag_index.errors import StoreError, TerminalError
from rag_index.machine import in_thread
from rag_index.orchestration import window
from rag_index.orchestration.window import WorkerPlace
from tests.waiting import eventually

BEGUN, MAY_END = threading.Event(), threading.Event()
"""What tasks set and wait for: the threads of a cluster without processes."""


def embed(job) -> str:
    return f"vectors {job.shard.number}"


def fail(job) -> str:
    raise ValueError(f"shard {job.shard.number}")


def hang(job) -> str:
    BEGUN.set()
    MAY_END.wait(60)
    return "too late"


def write(settings, collection, found, epoch) -> tuple[str, int]:
    return found, epoch


def refuse(settings, collection, found, epoch) -> None:
    raise StoreError("refused")


@pytest.fixture
def place(monkeypatch):
    """Workers that write to a server, and the client whose futures they work at."""
    progress = SimpleNamespace(note_later=None, set_process=None, keep_workers=None)
    store, settings = SimpleNamespace(embedded=False), SimpleNamespace(store=None)
    run = SimpleNamespace(store=store, progress=progress, settings=settings)
    scan = SimpleNamespace(run=run, collection=SimpleNamespace(name="notes__1"), epoch=7)
    monkeypatch.setattr(window, "write_on_worker", write)
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield WorkerPlace(scan, client, workers=1), client


def embedded(place: WorkerPlace, number: int = 1):
    job = SimpleNamespace(shard=SimpleNamespace(index="notes", number=number, pages=()))
    return place.embed(job, lambda step, function: function())


@pytest.mark.parametrize(
    ("embedding", "writing", "error"),
    [
        (embed, write, None),
        (fail, write, "a worker failed at a shard: ValueError: shard 1"),
        (embed, refuse, "refused"),
    ],
)
def test_workers_keep_nothing_of_a_shard_that_is_done_or_failed(monkeypatch, place, embedding, writing, error):
    """What is kept otherwise is all vectors of the shard, as long as the workers live."""
    place, client = place
    monkeypatch.setattr(window, "embed_on_worker", embedding)
    monkeypatch.setattr(window, "write_on_worker", writing)
    if error is None:
        assert embedded(place) == ("vectors 1", 7)
    else:
        with pytest.raises((TerminalError, StoreError), match=error):
            embedded(place)
    eventually(lambda: not client.futures, "the workers are told to forget the shard")


def test_shards_that_are_under_way_when_a_run_ends_are_not_written(monkeypatch, place):
    place, client = place
    monkeypatch.setattr(window, "embed_on_worker", hang)
    under_way = [in_thread(lambda number=number: embedded(place, number), "embed") for number in (1, 2)]
    assert BEGUN.wait(60)
    eventually(lambda: len(client.futures) == 2, "both shards are submitted")
    place.close()
    for one in under_way:
        with pytest.raises(TerminalError, match="the workers are gone"):
            one.result(60)
    MAY_END.set()
    eventually(lambda: not client.futures, "the workers are told to forget both")
