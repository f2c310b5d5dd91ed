"""A signal that ends a run is never lost, whatever runs when it arrives."""

import os
import signal
import time

import pytest

from rag_index.core.machine import terminable


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
