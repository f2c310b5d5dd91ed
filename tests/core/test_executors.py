"""The process that embeds for a plain run, however it ends."""

import os
from concurrent.futures import BrokenExecutor
from multiprocessing.connection import Connection

import pytest

from rag_index.core.machine import Process


def die_in_the_middle_of_the_answer() -> bytes:
    def send(self, data):
        os.write(self.fileno(), bytes(data)[:100])
        os._exit(9)

    Connection._send = send
    return bytes(100_000)


@pytest.mark.long
def test_a_process_that_dies_while_it_answers_is_not_waited_for():
    with Process() as process:
        with pytest.raises(BrokenExecutor):
            process.submit(die_in_the_middle_of_the_answer).result(timeout=60)
        assert process.submit(os.getpid).result(timeout=60) != os.getpid(), "the next call has a new one"
