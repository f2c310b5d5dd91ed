"""An answer says what it is true of, and a search can wait for what was just committed."""

from __future__ import annotations

import threading
from contextlib import closing, contextmanager

import pytest

from rag_index.errors import IndexBehind
from rag_index.retrieve import Retriever
from rag_index.watch.loop import Stop
from rag_index.watch.plain import PlainRunner, open_watch
from tests.project import Project


@pytest.fixture
def project(tmp_path):
    project = Project(tmp_path / "project", extra='changes = "queue"\n[watch]\npoll_seconds = 0.2\n').fill(30)
    with project.source() as db:
        db.executescript(project.cli("watch", "--setup").stdout)
    return project


@contextmanager
def watched(project):
    stop = Stop()
    with (
        closing(PlainRunner(project.settings)) as runner,
        open_watch(project.settings, None, runner, stop) as watch,
    ):
        thread = threading.Thread(target=watch.run)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()


def position(project):
    with project.source() as db:
        return str(db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'rag_index_test'").fetchone()[0])


def test_a_search_waits_for_what_was_just_committed(project):
    with watched(project), Retriever(project.settings) as retriever:
        for number in range(5):
            project.execute("INSERT INTO note VALUES (?, 'zebra', 'quagga', 'me', 1)", 1000 + number)
            after = position(project)
            found = retriever.search_sync("zebra quagga", limit=20, after=after, timeout=60)
            assert {f"{1000 + one}" for one in range(number + 1)} <= {hit.document_id for hit in found.hits}
            as_of = found.as_of["notes"]
            assert int(as_of.position) >= int(after)
            assert as_of.known_by == "queue"
            assert retriever.search_sync("zebra", max_age="10 s", timeout=60).as_of["notes"].seconds_behind < 10
    with Retriever(project.settings) as retriever:
        project.execute("INSERT INTO note VALUES (2000, 'zebra', 'quagga', 'me', 1)")
        with pytest.raises(
            IndexBehind, match=f"index notes has not reached {position(project)} within 0.3 s: it is at"
        ):
            retriever.search_sync("zebra", after=position(project), timeout=0.3)
