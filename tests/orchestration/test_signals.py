"""A signal that ends a run is never lost, whatever runs when it arrives."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from subprocess import PIPE

import pytest

from rag_index.machine import terminable
from rag_index.orchestration.stopping import hold_sigterm
from tests.waiting import eventually


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


RUN = """\
import sys
from rich.console import Console
from rag_index.orchestration.stopping import outlive_output
outlive_output()
print("begun", flush=True)
sys.stdin.readline()
for error in (False, True):
    Console(stderr=error).print("a line that nobody reads")
sys.exit(7)
"""


def test_a_run_goes_on_if_nobody_reads_its_output_any_more():
    with subprocess.Popen([sys.executable, "-c", RUN], stdin=PIPE, stdout=PIPE, stderr=PIPE) as run:
        assert run.stdout.readline() == b"begun\n"
        run.stdout.close(), run.stderr.close()  # as Prefect's worker does that is killed
        eventually(lambda: Path(f"/proc/{run.pid}/fd/2").readlink() == Path(os.devnull))
        run.stdin.write(b"\n")
        run.stdin.close()
        assert run.wait(60) == 7


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
