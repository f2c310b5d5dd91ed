"""A watch that is told to stop ends cleanly, whatever it is doing: a batch, an ordinary run, or nothing."""

import os
import signal
import subprocess
from contextlib import closing, contextmanager

import pytest

from rag_index.components.ledger import Ledger
from tests.project import PROGRAM, Project
from tests.waiting import eventually

ALIAS = "test_notes"


@pytest.fixture
def project(tmp_path, fake) -> Project:
    """A project whose queue is set up, so that the first watch begins with an ordinary run."""
    project = Project(tmp_path / "project", extra=f'changes = "queue"\n{fake.settings}').fill(200)
    with project.source() as db:
        db.executescript(project.cli("watch", "--setup").stdout)
    return project


@contextmanager
def watching(project):
    """Run `rag-index watch` as the first of its process group, as a shell does."""
    said = project.folder / "said.txt"
    with said.open("w") as out:
        running = subprocess.Popen(
            [*PROGRAM, "--config", str(project.config), "watch"], stdout=out, stderr=out, process_group=0
        )
    try:
        yield running, said
    finally:
        running.kill()
        running.wait()


def tell(running, how: str) -> None:
    """Send SIGTERM as systemd does, or what Ctrl-C in a terminal sends."""
    if how == "SIGTERM":
        running.terminate()
    else:
        os.killpg(running.pid, signal.SIGINT)


def watch_record(project):
    with closing(Ledger(project.settings.ledger_url)) as ledger:
        return ledger.watch(ALIAS), ledger.count_waiting(ALIAS)


def has_caught_up(project) -> bool:
    """Whether the watch has caught up; one that only begins has no record yet."""
    record, _ = watch_record(project)
    return record is not None and bool(record.caught_up_at) and record.state == "running"


@pytest.mark.long
@pytest.mark.parametrize("how", ["SIGTERM", "Ctrl-C"])
def test_an_ordinary_run_is_stopped_with_the_watch_and_a_batch_is_ended_first(project, fake, how):
    fake.seconds_per_text = 0.1
    with watching(project) as (running, said):
        eventually(lambda: len(fake.embeds()) > 2, said.read_text, every=0.05)
        tell(running, how)
        assert running.wait(timeout=60) == 0, said.read_text()
    text = said.read_text()
    assert "notes: the ordinary run was stopped with the watch; the next watch or run continues it" in text
    assert not [word for word in ("backing off", "Traceback", "Error", "ended with") if word in text], text
    record, _ = watch_record(project)
    assert (record.state, "was stopped with the watch" in record.message) == ("stopped", True)
    assert record.full_number is not None
    fake.seconds_per_text = 0.0
    with watching(project) as (running, said):
        eventually(lambda: has_caught_up(project), said.read_text, every=0.2)
        assert (len(project.texts()), watch_record(project)[0].full_number) == (200, None)
        fake.seconds_per_text = 0.5
        before = len(fake.embeds())
        project.execute("UPDATE note SET body = 'the pump is mended' || id WHERE id < 9")
        eventually(lambda: len(fake.embeds()) > before, said.read_text)
        tell(running, how)
        assert running.wait(timeout=60) == 0, said.read_text()
    record, waiting = watch_record(project)
    assert (record.state, waiting) == ("stopped", 0), said.read_text()
    assert project.texts()["5"] == ["Note 5\nthe pump is mended5"]
    assert "Traceback" not in said.read_text()


@pytest.mark.long
def test_a_run_that_has_taken_over_outlives_a_watch_that_is_killed_and_the_next_watch_waits_for_it(project, fake):
    fake.seconds_per_text = 0.1
    with watching(project) as (running, said):
        eventually(lambda: len(fake.embeds()) > 2, said.read_text, every=0.05)
        running.kill()
    with watching(project) as (running, said):
        eventually(lambda: watch_record(project)[0].state == "waiting", said.read_text, every=0.05)
        eventually(lambda: has_caught_up(project), said.read_text, every=0.2)
        running.terminate()
        assert running.wait(timeout=60) == 0, said.read_text()
    assert len(project.texts()) == 200
    embedded = [text for request in fake.embeds() for text in request.texts if "Note" in text]
    assert len(embedded) == len(set(embedded)), "the run that was under way was not repeated"
