"""A run that is told to stop ends in the state that its end has, whoever told it, and however often."""

import os
import signal
import threading
import time
from contextlib import nullcontext

import pytest

from rag_index.core.machine import terminable
from rag_index.orchestration import stopping
from rag_index.orchestration.stopping import stoppable


def test_a_part_that_asks_why_it_was_stopped_is_not_stopped_again(monkeypatch):
    """The server may take longer to answer than it takes until the run itself sees that it was cancelled."""
    assert threading.current_thread() is threading.main_thread()
    asking, looked = threading.Event(), threading.Event()

    def is_cancelled(_: str) -> bool:
        if threading.current_thread() is threading.main_thread():
            asking.set()
            assert looked.wait(30)
            time.sleep(0.2)  # so long a signal may take
        else:
            assert asking.wait(30)  # or the run would be told that it is cancelled before the signal arrives
            looked.set()
        return True

    def end(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(stopping, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(stopping, "_is_cancelled", is_cancelled)
    before = signal.signal(signal.SIGTERM, end)
    try:
        with stoppable() as top, stoppable() as part:
            os.kill(os.getpid(), signal.SIGTERM)
            threading.Event().wait(30)
    except KeyboardInterrupt:
        pytest.fail("it was stopped again")
    finally:
        signal.signal(signal.SIGTERM, before)
    assert part.state.is_cancelled()
    assert top.state.is_cancelled()


@pytest.mark.parametrize("is_cancelled", [True, False])
def test_whatever_the_signal_became_a_cancelled_run_ends_as_cancelled_and_no_other_does(monkeypatch, is_cancelled):
    here = threading.main_thread()  # the run does not see it by itself
    monkeypatch.setattr(stopping, "_is_cancelled", lambda _: is_cancelled and threading.current_thread() is here)
    before = signal.getsignal(signal.SIGTERM)
    try:
        with nullcontext() if is_cancelled else pytest.raises(ValueError, match="written"), stoppable() as stop:
            raise ValueError("cannot be written down")
    finally:
        signal.signal(signal.SIGTERM, before)
    assert (stop.state is not None) is is_cancelled


def test_a_signal_that_a_library_turns_into_its_own_error_ends_the_block():
    def library() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)
        except BaseException as error:
            raise ValueError("cannot be written down") from error

    with pytest.raises(KeyboardInterrupt), terminable():
        library()
    with pytest.raises(ValueError, match="another"), terminable():
        raise ValueError("another error stays as it is")
