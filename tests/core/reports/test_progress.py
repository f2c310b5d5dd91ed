"""Progress of a run: correct numbers, regular lines, a bar that leaves the terminal as it was, and
outages."""

import io
import os
import re
import sys
import time
from contextlib import suppress

import pytest

from rag_index.core.recovery import Outage, Services
from rag_index.core.reports.progress import Lines, Progress, open_display
from rag_index.errors import EmbedderUnavailable
from tests.fakes.ollama import FakeOllama
from tests.flows.conftest import Recorder
from tests.project import PROGRAM, Project
from tests.reliability.victim import FLOW, in_environment
from tests.terminal import in_terminal, plain_lines
from tests.waiting import Clock

SCRIPT = (
    "from rag_index.core.reports.progress import *\n"
    "now = [0.0]; p = Progress('a-long-name-of-an-index', interval=0, clock=lambda: now[0])\n"
    "p.displays = [open_display()]; p.start(64000)\n"
    "now[0] = 10.0; p.advance(12345, failed=678); p.say('waiting for [bold]the server'); p.tick()\n"
)
WORKER = ["--workers", "1", "--shard-documents", "5"]
WAYS = {
    "in this process": ["--serial", "--shard-documents", "5"],
    "in a child": WORKER,
    "on a Dask worker": WORKER,
}


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def progress(clock):
    progress = Progress("notes", clock=clock)
    progress.start(1000)
    return progress


def test_the_sentence_has_documents_the_rate_time_left_and_failures(progress, clock):
    assert progress.sentence() == "notes: 0 of 1,000 documents"
    clock.now += 10
    progress.advance(200, failed=3)
    assert progress.sentence() == "notes: 200 of 1,000 documents, 3 failed, 40 s left, 20/s"
    progress.say("waiting for the embedder")
    assert progress.sentence().endswith("3 failed, 40 s left, waiting for the embedder, 20/s")
    clock.now += 90
    assert progress.rate == pytest.approx(2), "it falls while nothing is done"
    for _ in range(40):
        clock.now += 1
        progress.advance(10)
    assert progress.sentence() == "notes: 600 of 1,000 documents, 3 failed, 40 s left, 10/s", (
        "the recent rate"
    )


def test_the_first_documents_foretell_nothing(clock):
    """An empty document among a million is done in the first second; the others have to be
    embedded."""
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
    assert progress.sentence().endswith("50 min left, 333/s")


def test_time_and_documents_of_something_else_count_for_no_rate(progress, clock):
    """100 documents in 10 s; then words come first, for 300 s in which 5 of them are embedded."""
    clock.now += 10
    progress.advance(100)
    assert progress.eta == pytest.approx(90)
    with progress.aside():
        progress.say("finding documents by their words first")
        for _ in range(5):
            clock.now += 60
            progress.advance(1)
            assert (progress.eta, progress.sentence().count("/s")) == (None, 0)
    assert (progress.rate, progress.eta) == (pytest.approx(10), pytest.approx(89.5))
    clock.now += 10
    progress.advance(100)
    assert (progress.rate, progress.eta) == (pytest.approx(10), pytest.approx(79.5))


def test_something_else_before_the_first_document_leaves_the_time_left_unknown(progress, clock):
    with progress.aside():
        clock.now += 300
    assert progress.eta is None
    clock.now += 5
    progress.advance(100)
    assert progress.eta == pytest.approx(45)


def test_displays_are_updated_a_few_times_per_second(progress, clock):
    display = Recorder()
    progress.displays = [display]
    for _ in range(100):
        clock.now += 0.01
        progress.advance(1)
    assert 3 <= len(display.sentences) <= 5
    progress.say("waiting")
    count = len(display.sentences)
    clock.now += 0.1
    progress.tick()
    assert len(display.sentences) == count
    clock.now += 1
    progress.tick()
    assert len(display.sentences) == count + 1
    assert ", waiting, " in display.sentences[-1]
    progress.finish("notes: done")
    assert display.sentences[-1] == "notes: done"


def test_lines_come_every_few_seconds_even_after_a_long_wait_before_the_start_and_the_same_one_once(
    clock,
):
    """The first line comes at once. Restarting the clock of the run at its start delays no line."""
    stream = io.StringIO()
    progress = Progress("notes", clock=clock)
    progress.displays = [Lines(stream, clock=clock)]
    clock.now += 120
    progress.say("waiting for the source")
    progress.tick()
    clock.now += 6
    progress.start(100)
    for _ in range(12):
        clock.now += 1
        progress.advance(1)
    progress.finish("notes: done")
    lines = stream.getvalue().splitlines()
    assert lines[0].endswith(", waiting for the source")
    assert len(lines) == 5
    assert lines[-1] == "notes: done"
    stream = io.StringIO()
    progress = Progress("notes", clock=clock)
    progress.displays = [Lines(stream, clock=clock)]
    for _ in range(30):
        clock.now += 6
        progress.say("waiting for the source")
        progress.tick()
    assert len(stream.getvalue().splitlines()) == 1
    assert isinstance(open_display(stream), Lines), "a stream that is no terminal gets lines"


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_the_bar_shows_failures_and_the_time_left_and_leaves_the_terminal_its_cursor(width):
    """After Ctrl-C, for example, nothing finishes the bar."""
    end = "exit(1)" if width == 80 else "p.finish('done')"
    output = in_terminal([sys.executable, "-c", SCRIPT + end], width, forked=True)
    lines = plain_lines(output)
    assert max(map(len, lines)) <= width
    headlines = [line for line in lines if "12,345 of 64,000" in line]
    assert any(re.search(r"678 failed, \S+ s left *$", line) for line in headlines), lines
    assert any(line.startswith("waiting for [bold]the server") for line in lines)
    assert "done" not in end or lines[-2] == "done"
    assert output.rfind("\x1b[?25h") > output.rfind("\x1b[?25l") >= 0


def test_without_colour_nothing_is_coloured_and_a_dumb_terminal_gets_lines():
    script = [sys.executable, "-c", f"{SCRIPT}p.finish('done')"]
    coloured = re.compile(r"\x1b\[[39]\d")
    assert coloured.search(in_terminal(script, 80, forked=True))
    assert not coloured.search(in_terminal(script, 80, forked=True, NO_COLOR="1"))
    dumb = in_terminal(script, 40, forked=True, TERM="dumb")
    assert "\x1b" not in dumb
    assert [line[:37] for line in dumb.split("\r\n")] == [
        "a-long-name-of-an-index: 0 of 64,000 ",
        "done",
        "",
    ]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.long
def test_the_bar_moves_and_ctrl_c_says_what_is_kept(tmp_path, way, request):
    drawn = set()
    if way == "on a Dask worker":
        request.getfixturevalue("prefect_server")

    def interrupt(output):
        drawn.update(int(one) for one in re.findall(r"(\d+) of 300 documents", output))
        return len(drawn) >= 4

    with FakeOllama(seconds_per_text=0.05) as fake:
        project = Project(tmp_path / "project", extra=f"{fake.settings}batch_texts = 4\n").fill(300)
        command = [*PROGRAM, "--config", str(project.config), "index", "notes", *WAYS[way]]
        given = in_environment(WAYS[way]) | {"RAG_INDEX_CONFIG": str(project.config)}
        program = FLOW if way == "on a Dask worker" else command
        lines = plain_lines(in_terminal(program, 80, until=interrupt, **given))
    found = project.json("status")["indexes"][0]
    documents = found["documents"] - found["by_words"]
    assert len(drawn) >= 4, lines
    said, end = [line for line in lines if " stopped" in line][-2:]
    kept = (
        r"notes: stopped; (\d+) of 300 documents are done and kept, and the next run continues from"
        r" there"
    )
    kept = re.fullmatch(kept, said)
    assert kept, said
    assert documents - int(kept[1]) in (0, 5), "a shard may be committed and not yet counted"
    assert end == "rag-index: stopped"


def test_an_outage_takes_the_place_of_rate_and_time_left_and_before_the_scan_began_of_0_of_0(
    progress, clock
):
    progress.start(100)
    for _ in range(10):
        clock.now += 1
        progress.advance(2)
    assert progress.sentence() == "notes: 20 of 100 documents, 40 s left, 2/s"
    outage = Outage("Qdrant at h", time.time() - 6)
    progress.outages = [outage]
    assert progress.eta is None
    since = time.strftime("%H:%M:%S", time.localtime(outage.since))
    assert (
        progress.sentence()
        == f"notes: 20 of 100 documents, Qdrant at h does not answer, waiting since {since}"
    )
    progress.outages = []
    assert progress.eta is not None
    progress = Progress("notes", clock=clock)
    progress.outages = [Outage("Ollama at h", clock.now)]
    assert progress.sentence().startswith(
        "notes: not begun, Ollama at h does not answer, waiting since "
    )
    progress.outages = []
    assert progress.sentence() == "notes: waiting for the database, the embedder and Qdrant"


def work(progress, clock, seconds, *, done):
    """Let so many seconds go by, in each of which so many documents are done."""
    for _ in range(seconds):
        clock.now += 1
        progress.advance(done)


def wait_for_qdrant(progress, clock, seconds, *, done=0):
    """Let Qdrant not answer for so many seconds, in each of which so many documents are done all
    the same."""
    for second in range(1, seconds + 1):
        clock.now += 1
        outage = Outage("Qdrant at h", time.time() - second + 0.5)
        progress.outages = [outage] if second > 10 else []  # it is named after some seconds
        progress.advance(done) if done else progress.tick()
    progress.outages = []


@pytest.mark.parametrize("before", [2, 10, 100])
def test_the_time_left_and_the_rate_are_those_of_before_an_outage_as_soon_as_it_ends(clock, before):
    progress = Progress("notes", clock=clock)
    progress.start(120_000)
    work(progress, clock, before, done=1000)
    wait_for_qdrant(progress, clock, 360)
    clock.now += 0.5
    progress.tick()
    assert 1000 / 1.5 <= progress.rate <= 1000, progress.sentence()
    assert progress.eta == pytest.approx((120_000 - 1000 * before) / progress.rate)
    clock.now += 0.5
    progress.advance(5000)  # what was embedded meanwhile
    assert progress.rate == pytest.approx(1000), progress.sentence()
    work(progress, clock, 1, done=1000)
    assert progress.rate == pytest.approx(1000), progress.sentence()


def test_documents_done_while_a_service_does_not_answer_count_for_no_rate_and_several_outages_do_not_add_up(
    clock,
):
    """One of two servers does not answer, the other goes on slowly."""
    progress = Progress("notes", clock=clock)
    progress.start(100_000)
    for _ in range(5):
        work(progress, clock, 20, done=100)
        wait_for_qdrant(progress, clock, 600, done=1)
        work(progress, clock, 1, done=100)
    work(progress, clock, 20, done=100)
    assert progress.rate == pytest.approx(100, rel=0.05)


def test_an_outage_before_the_first_document_foretells_nothing(clock):
    progress = Progress("notes", clock=clock)
    progress.start(100_000)
    wait_for_qdrant(progress, clock, 600)
    assert progress.rate == 0
    work(progress, clock, 2, done=1)
    assert progress.eta is None, "two seconds were measured, though ten minutes have gone by"
    work(progress, clock, 20, done=100)
    assert progress.rate == pytest.approx(100, rel=0.1)


def test_a_display_whose_reader_is_gone_ends_no_run_and_hides_no_other(clock):
    progress, shown = Progress("notes", clock=clock), io.StringIO()
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as broken:  # noqa: PTH123 - it is a file descriptor
        progress.displays = [Lines(broken, clock=clock), Lines(shown, clock=clock)]
        progress.start(2)
        clock.now += 10
        progress.advance(2)
        progress.finish("notes: done")
        with suppress(BrokenPipeError):
            broken.close()
    assert shown.getvalue().splitlines()[-1] == "notes: done"


def test_a_call_is_an_outage_once_its_patience_is_used_up_until_it_ends_or_an_answer_comes(clock):
    calls = Services(clock=clock)
    with calls.asking("Qdrant", patience=5):
        clock.now += 4.9
        assert not calls.outages()
        clock.now += 0.2
        assert [outage.service for outage in calls.outages()] == ["Qdrant"]
    assert not calls.outages()
    with calls.asking("Ollama", patience=5) as call:
        clock.now += 6
        call.record_error(ValueError("accepts no connection"))
        assert calls.outages()[0].sentence().endswith(": accepts no connection")
        call.record_answer()
        clock.now += 4
        assert not calls.outages()
        clock.now += 1
        assert [(outage.service, outage.reason) for outage in calls.outages()] == [("Ollama", "")]


def test_whether_a_service_is_unavailable_is_a_state_of_the_service_and_not_of_a_call(clock):
    """One request hangs, and others are answered."""
    services = Services(clock=clock)
    with services.asking("Ollama", patience=5):
        for _ in range(3):
            clock.now += 4
            with services.asking("Ollama", patience=5):
                clock.now += 0.5
            assert not services.outages()
        clock.now += 6
        assert [outage.service for outage in services.outages()] == ["Ollama"]


def test_a_call_that_gave_up_and_the_next_one_are_one_outage(clock):
    services = Services(clock=clock)
    for _ in range(2):
        with suppress(EmbedderUnavailable), services.asking("Ollama", patience=15) as service:
            clock.now += 10
            service.record_error("accepts no connection")
            raise EmbedderUnavailable("accepts no connection")
        clock.now += 15
    [outage] = services.outages()
    with services.asking("Ollama", patience=15):
        assert services.outages() == (outage,)
    assert not services.outages()


def test_what_other_processes_send_is_part_of_the_same_answer(clock):
    services, sent = Services(clock=clock), [Outage("Ollama", 100.0), Outage("Qdrant", 50.0)]
    received = sent.copy
    services.include(received)
    with services.asking("Ollama", patience=5):
        clock.now += 6
        assert [outage.service for outage in services.outages()] == ["Qdrant", "Ollama"]
    sent.clear()
    assert not services.outages()
    sent.append(Outage("Qdrant", 50.0))
    services.exclude(received)
    assert not services.outages()


def test_a_pause_that_a_service_asks_for_is_its_pace(progress, clock):
    work(progress, clock, 10, done=10)
    progress.outages = [
        Outage(
            "the embedding server at h", time.time() - 6, "too many requests", True, is_slow=True
        )
    ]
    clock.now += 10
    progress.tick()
    assert progress.eta is None
    progress.outages = []
    assert progress.rate == pytest.approx(5)
