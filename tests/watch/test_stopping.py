"""A watch that is told to stop ends cleanly, whatever it is doing."""

import os
import signal
import subprocess
from contextlib import closing, contextmanager

import pytest

from rag_index.components.ledger import Ledger
from tests.project import PROGRAM, Project
from tests.waiting import eventually


@pytest.fixture
def project(tmp_path, fake):
    extra = f"{fake.settings}\n[parallel]\nserial = true\nshard_documents = 10"
    return Project(tmp_path / "project", extra=extra).fill(200)


@contextmanager
def watching(project):
    """Run `rag-index watch` as the first of its process group, as a shell does."""
    said = project.folder / "said.txt"
    with said.open("w") as out:
        command = [*PROGRAM, "--config", str(project.config), "watch"]
        running = subprocess.Popen(command, stdout=out, stderr=out, process_group=0)
    try:
        yield running, said
    finally:
        running.kill()
        running.wait()


def documents(project) -> int:
    with closing(Ledger(project.settings.ledger_url)) as ledger:
        totals = [ledger.totals(one.id) for one in ledger.collections("test_notes")]
        return sum(one.documents - one.by_words for one in totals)


@pytest.mark.long
def test_a_run_is_ended_at_its_next_commit_and_the_next_watch_goes_on(project, fake):
    """By SIGTERM in the middle of a run, by Ctrl-C in the middle of the next one, and by SIGTERM
    where it waits."""
    kept = [0]
    for how in ("SIGTERM", "Ctrl-C", "SIGTERM at rest"):
        fake.seconds_per_text, asked = 0.0 if "rest" in how else 0.05, len(fake.embeds())
        with watching(project) as (running, said):
            if "rest" in how:
                eventually(lambda: documents(project) == 200, said.read_text, every=0.1)
            else:
                eventually(
                    lambda asked=asked: len(fake.embeds()) > asked + 4, said.read_text, every=0.05
                )
            os.killpg(running.pid, signal.SIGINT) if how == "Ctrl-C" else running.terminate()
            assert running.wait(timeout=60) == 0, said.read_text()
        wrong = [word for word in ("Traceback", "Error", "backing off") if word in said.read_text()]
        assert not wrong, said.read_text()
        kept.append(documents(project))
    assert 0 < kept[1] < kept[2] < kept[3] == 200
    embedded = [text for request in fake.embeds() for text in request.texts if "Note" in text]
    assert len(embedded) == len(set(embedded)), "what was committed was not embedded again"
