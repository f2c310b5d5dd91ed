"""Progress of a run: correct numbers, lines at regular intervals, a bar that leaves the terminal as it was."""

import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import time

import pytest

from rag_index.core.outages import Outage
from rag_index.core.reports.progress import Lines, Progress, open_display
from tests.flows.conftest import Recorder
from tests.test_outages import Clock


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def progress(clock):
    progress = Progress("notes", clock=clock)
    progress.start(1000)
    return progress


def test_the_sentence_has_documents_rates_time_left_busy_workers_and_failures(progress, clock):
    assert progress.sentence() == "notes: 0 of 1,000 documents"
    clock.now += 10
    progress.advance(200, failed=3)
    assert progress.sentence() == "notes: 200 of 1,000 documents, 20/s, 40 s left, 3 failed"
    progress.say("waiting for the embedder")
    assert progress.sentence().endswith("3 failed (waiting for the embedder)")
    progress.under_way(5, 2)
    clock.now += 90
    assert progress.rate == pytest.approx(2.0), "it falls while nothing is done"
    progress.advance(100)
    clock.now += 20
    progress.advance(200)
    assert progress.sentence() == (
        "notes: 500 of 1,000 documents, 10/s (4/s on average), 50 s left, 2 of 2 workers busy, 3 shards queued, "
        "3 failed"
    )
    progress.under_way(1, 2)
    progress.set_process("tcp://a", requests=3)
    progress.set_process("tcp://b", requests=1)
    assert ", 1 of 2 workers busy, 4 requests in flight" in progress.sentence()
    progress.under_way(0, 2)
    assert "busy" not in progress.sentence()


def test_the_first_documents_foretell_nothing(clock):
    """An empty document among a million is done in the first second; the others have to be embedded."""
    progress = Progress("notes", clock=clock)
    assert progress.eta is None
    progress.start(1_000_000)
    clock.now += 1
    progress.advance(1)
    assert progress.sentence() == "notes: 1 of 1,000,000 documents, 1/s"
    clock.now += 4
    progress.advance(1)  # 138 h
    assert progress.eta is None
    clock.now += 10
    progress.advance(5_000)
    assert progress.sentence().endswith("333/s, 50 min left")


def test_displays_are_updated_a_few_times_per_second_and_always_with_a_note(progress, clock):
    display = Recorder()
    progress.displays = [display]
    for _ in range(100):
        clock.now += 0.01
        progress.advance(1)
    assert 3 <= len(display.sentences) <= 5
    progress.say("waiting")
    assert display.sentences[-1].endswith("(waiting)")
    count = len(display.sentences)
    progress.tick()
    assert len(display.sentences) == count
    clock.now += 1
    progress.tick()
    assert len(display.sentences) == count + 1
    progress.finish("notes: done")
    assert display.sentences[-1] == "notes: done"


def test_lines_come_every_few_seconds_even_after_a_long_wait_before_the_start(clock):
    """The first line comes at once. Restarting the clock of the run at its start delays no line."""
    stream = io.StringIO()
    progress = Progress("notes", clock=clock)
    progress.displays = [Lines(stream, clock=clock)]
    clock.now += 120
    progress.say("waiting for the source")
    clock.now += 6
    progress.start(100)
    for _ in range(12):
        clock.now += 1
        progress.advance(1)
    progress.finish("notes: done")
    lines = stream.getvalue().splitlines()
    assert lines[0].endswith("(waiting for the source)")
    assert len(lines) == 5
    assert lines[-1] == "notes: done"


def test_a_line_that_says_the_same_is_not_repeated(clock):
    stream = io.StringIO()
    progress = Progress("notes", clock=clock)
    progress.displays = [Lines(stream, clock=clock)]
    for _ in range(30):
        clock.now += 6
        progress.say("waiting for the source")
    assert len(stream.getvalue().splitlines()) == 1
    assert isinstance(open_display(stream), Lines), "a stream that is no terminal gets lines"


def in_terminal(script: str, width: int) -> str:
    """Return what a script writes to its standard error if that is a terminal of this width."""
    main, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
    environment = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES")} | {"TERM": "xterm"}
    running = subprocess.Popen([sys.executable, "-c", script], stderr=terminal, env=environment)
    os.close(terminal)
    output = b""
    try:
        while part := os.read(main, 65536):
            output += part
    except OSError:  # the other end is closed
        pass
    os.close(main)
    running.wait(timeout=60)
    return output.decode()


@pytest.mark.parametrize(("width", "end"), [(60, "p.finish('done')"), (80, "exit(1)"), (200, "p.finish('done')")])
def test_the_bar_shows_failures_and_the_time_left_and_leaves_the_terminal_its_cursor(width, end):
    """After Ctrl-C, for example, nothing finishes the bar."""
    script = (
        "from rag_index.core.reports.progress import *\n"
        "now = [0.0]; p = Progress('a-long-name-of-an-index', interval=0, clock=lambda: now[0])\n"
        "p.displays = [open_display()]; p.start(64000)\n"
        "p.under_way(4, 2); p.set_process('tcp://a', requests=3)\n"
        f"now[0] = 10.0; p.advance(12345, failed=678); p.say('waiting for [bold]the server')\n{end}"
    )
    output = in_terminal(script, width)
    lines = [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|[\r]", "", line) for line in output.split("\n")]
    assert max(map(len, lines)) <= width
    headlines = [line for line in lines if "12,345 of 64,000" in line]
    assert any(re.search(r"678 failed, \S+ s left *$", line) for line in headlines), lines
    assert any(line.startswith("waiting for [bold]the server") for line in lines)
    assert "done" not in end or lines[-2] == "done"
    assert output.rfind("\x1b[?25h") > output.rfind("\x1b[?25l") >= 0


# A service that does not answer


@pytest.fixture
def timed(progress, clock):
    """A progress after 20 documents at 2 a second."""
    progress.start(100)
    for _ in range(10):
        clock.now += 1
        progress.advance(2)
    progress.under_way(3, 2)
    return progress


def test_an_outage_takes_the_place_of_rate_time_left_and_busy_workers(timed, clock):
    assert timed.sentence() == "notes: 20 of 100 documents, 2/s, 40 s left, 2 of 2 workers busy, 1 shard queued"
    outage = Outage("Qdrant at h", clock.now - 6)
    timed.set_process("tcp://a", requests=2, outages=(outage,))
    timed.set_process("tcp://b", outages=(Outage("Qdrant at h", clock.now - 1),))
    assert timed.eta is None
    since = time.strftime("%H:%M:%S", time.localtime(clock.now - 6))
    assert timed.sentence() == f"notes: 20 of 100 documents (Qdrant at h does not answer, waiting since {since})"
    timed.set_process("tcp://b")
    assert timed.outages == [outage]
    timed.set_process("tcp://a")
    assert timed.eta is not None


def test_a_worker_that_died_waits_for_nothing(timed, clock):
    timed.set_process("tcp://a", requests=2, outages=(Outage("Ollama at h", clock.now),))
    timed.set_process("flow", outages=(Outage("Qdrant at h", clock.now),))
    timed.keep_workers({"tcp://b"})
    assert [outage.service for outage in timed.outages] == ["Qdrant at h"]
    assert "in flight" not in timed.sentence()


def test_a_line_before_the_scan_began_says_why_and_not_0_of_0(clock):
    progress = Progress("notes", clock=clock)
    progress.set_process("flow", outages=(Outage("Ollama at h", clock.now),))
    assert progress.sentence().startswith("notes: not begun (Ollama at h does not answer, waiting since ")
    progress.set_process("flow")
    assert progress.sentence() == "notes: waiting for the database, the embedder and Qdrant"
