"""A watch that is told to stop ends cleanly, whatever it is doing."""

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
    extra = f"{fake.settings}\n[parallel]\nserial = true\nshard_documents = 10"
    return Project(tmp_path / "project", extra=extra).fill(200)


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


def documents(project) -> int:
    with closing(Ledger(project.settings.ledger_url)) as ledger:
        totals = [ledger.totals(one.id) for one in ledger.collections(ALIAS)]
        return sum(one.documents - one.by_words for one in totals)


@pytest.mark.parametrize("how", ["SIGTERM", "Ctrl-C"])
def test_a_run_is_ended_at_its_next_commit_and_the_next_watch_goes_on(project, fake, how):
    fake.seconds_per_text = 0.05
    with watching(project) as (running, said):
        eventually(lambda: len(fake.embeds()) > 4, said.read_text, every=0.05)
        tell(running, how)
        assert running.wait(timeout=60) == 0, said.read_text()
    assert not [word for word in ("Traceback", "Error", "backing off") if word in said.read_text()], said.read_text()
    kept = documents(project)
    assert 0 < kept < 200
    fake.seconds_per_text = 0.0
    with watching(project) as (running, said):
        eventually(lambda: documents(project) == 200, said.read_text, every=0.2)
        tell(running, how)
        assert running.wait(timeout=60) == 0, said.read_text()
    embedded = [text for request in fake.embeds() for text in request.texts if "Note" in text]
    assert len(embedded) == len(set(embedded)), "what was committed was not embedded again"
