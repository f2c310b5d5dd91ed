"""A run that is told to stop ends in the state that its end has, whoever told it, and however often."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from rag_index.orchestration import stopping
from rag_index.orchestration.signals import hold_sigterm


def test_a_part_that_asks_why_it_was_stopped_is_not_stopped_again(monkeypatch):
    """The server may take longer to answer than it takes until the run itself sees that it was cancelled."""
    assert threading.current_thread() is threading.main_thread()
    looked = threading.Event()

    def is_cancelled(_: str) -> bool:
        if threading.current_thread() is threading.main_thread():
            assert looked.wait(30)
            time.sleep(0.2)  # so long a signal may take
        else:
            looked.set()
        return True

    def end(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(stopping, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(stopping, "_is_cancelled", is_cancelled)
    top, part = stopping.FlowStop("run"), stopping.FlowStop("run")
    before = signal.signal(signal.SIGTERM, end)
    try:
        with stopping._watched(top), hold_sigterm(lambda: stopping._end(part, top)):
            os.kill(os.getpid(), signal.SIGTERM)
            threading.Event().wait(30)
    except KeyboardInterrupt:
        pytest.fail("it was stopped again")
    finally:
        signal.signal(signal.SIGTERM, before)
    assert part.state.is_cancelled()
