"""A signal that ends a run is never lost, whatever runs when it arrives."""

from __future__ import annotations

import os
import signal
import time

import pytest

from rag_index.orchestration.signals import hold_sigterm, terminable


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


def test_the_exception_of_a_flow_engine_ends_the_flow():
    class Termination(BaseException):
        pass

    def work() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)
        except Termination as error:
            raise ValueError from error

    def engine(number: int, frame: object) -> None:
        raise Termination

    before = signal.signal(signal.SIGTERM, engine)
    try:
        with pytest.raises(Termination), hold_sigterm(lambda: False):
            work()
        assert signal.getsignal(signal.SIGTERM) is engine
    finally:
        signal.signal(signal.SIGTERM, before)
