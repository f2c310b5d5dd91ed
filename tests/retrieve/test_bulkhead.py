"""Threads by index: what one index takes from the others when its calls hang, which is nothing."""

from __future__ import annotations

import threading

import pytest

from rag_index.errors import StoreError
from rag_index.retrieve.concurrency import Bulkhead
from tests.waiting import eventually

NAMES = ["a", "b", "c", "d", "e"]


@pytest.fixture
def gate():
    gate = threading.Event()
    yield gate
    gate.set()


@pytest.mark.parametrize("width", [1, 32])
def test_a_name_that_hangs_takes_no_thread_of_another(gate, width):
    bulkhead = Bulkhead(NAMES, width)
    before = threading.active_count()
    hanging = [bulkhead.submit("a", gate.wait, 60) for _ in range(200)]
    for name in NAMES[1:]:
        assert [bulkhead.submit(name, str.upper, name).result(30) for _ in range(20)] == [name.upper()] * 20
    assert threading.active_count() - before <= max(width, len(NAMES))
    assert sum(future.running() for future in hanging) == max(1, width // len(NAMES))
    gate.set()
    assert all(future.result(30) for future in hanging)
    bulkhead.close()


def test_a_call_that_is_given_up_never_begins(gate):
    bulkhead = Bulkhead(NAMES, 1)
    running = bulkhead.submit("a", gate.wait, 60)
    eventually(running.running)
    calls = []
    for number in range(1000):
        assert bulkhead.submit("a", calls.append, number).cancel()
    kept = bulkhead.submit("a", calls.append, "kept")
    gate.set()
    kept.result(30)
    assert calls == ["kept"]
    bulkhead.close()


def test_after_closing_calls_that_wait_are_cancelled_and_others_refused(gate):
    bulkhead = Bulkhead(NAMES, 1)
    running, waiting = bulkhead.submit("a", gate.wait, 60), bulkhead.submit("a", gate.wait, 60)
    eventually(running.running)
    bulkhead.close()
    assert waiting.cancelled()
    with pytest.raises(StoreError, match="closed"):
        bulkhead.submit("b", len, "")
    gate.set()
    assert running.result(30)
