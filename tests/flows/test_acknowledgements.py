"""Shards that are embedded while a Qdrant server has not acknowledged the ones before them.

The server holds back every acknowledgement until the test lets it answer.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from tests.fakes.qdrant import FakeQdrant, Fault
from tests.project import Project
from tests.reliability.victim import Row, Victim, ledger_rows
from tests.waiting import eventually, when

UPSERT = "PUT /collections/test_notes__1/points"
SHARD, IN_FLIGHT = 20, 3


@dataclass
class Slow:
    """A project whose server answers no upsert of points until `release`."""

    project: Project
    fault: Fault
    rows: list[dict[str, Row]] = field(default_factory=list)
    """The ledger at each `look`."""

    def is_full(self) -> bool:
        """Return whether so many shards wait for the server that one worker has to embed no more."""
        return self.fault.met >= IN_FLIGHT

    def look(self) -> None:
        self.rows.append(ledger_rows(self.project))

    def release(self) -> None:
        self.fault.crowded.set()


@pytest.fixture
def slow(tmp_path):
    with FakeQdrant() as qdrant:
        project = Project(tmp_path / "project", extra=f'[store]\nurl = "{qdrant.url}"').fill(100)
        qdrant.break_next(UPSERT)  # the mark with which a run begins its writes is answered
        yield Slow(project, qdrant.break_next(UPSERT, times=None, together=1_000_000))


@pytest.mark.long
def test_a_worker_embeds_while_the_server_has_not_acknowledged(prefect_server, slow):
    """The one worker embeds a second and a third shard, and no fourth; nothing is committed before the answer."""

    def look_and_release() -> None:
        slow.look()
        slow.release()

    with when(slow.is_full, look_and_release):
        report = slow.project.index(workers=1, shard_documents=SHARD)
    assert report.state == "completed", report.sentence()
    [rows] = slow.rows
    assert len(rows) == IN_FLIGHT * SHARD, "a window of shards is begun, and no more"
    assert all(row.pending for row in rows.values()), "documents are committed whose points are not acknowledged"
    assert len(slow.project.texts()) == 100


@pytest.mark.long
def test_a_run_that_is_killed_before_the_acknowledgement_loses_nothing(prefect_server, slow):
    with Victim(slow.project, "--workers", "1", "--shard-documents", str(SHARD)) as victim:
        eventually(lambda: slow.is_full() or victim.ended)
        assert slow.is_full(), victim.output
        slow.look()
        victim.kill_tree()
    slow.release()
    [rows] = slow.rows
    assert rows
    assert all(row.pending for row in rows.values())
    slow.project.execute("DELETE FROM note WHERE id <= 5")
    slow.project.execute("UPDATE note SET body = 'changed meanwhile' WHERE id BETWEEN 6 AND 15")
    assert slow.project.index(serial=True).state == "completed"
    texts = slow.project.texts()
    assert sorted(map(int, texts)) == list(range(6, 101))
    assert texts["6"] == ["Note 6\nchanged meanwhile"]


@pytest.mark.long
def test_a_worker_that_is_killed_before_the_acknowledgement_loses_nothing(prefect_server, slow):
    with Victim(slow.project, "--workers", "1", "--shard-documents", str(SHARD)) as victim:
        eventually(lambda: slow.is_full() or victim.ended)
        assert slow.is_full(), victim.output
        [worker] = victim.workers()
        worker.kill()
        slow.release()
        assert victim.process.wait() == 0, victim.output
    assert len(slow.project.texts()) == 100
    rows = ledger_rows(slow.project)
    assert len(rows) == 100
    assert not any(row.pending for row in rows.values())
