"""Shards that are embedded while a Qdrant server has not acknowledged the ones before them.

The server holds back every acknowledgement until the test lets it answer.
"""

import pytest

from tests.fakes.qdrant import FakeQdrant
from tests.project import Project
from tests.reliability.victim import Victim, ledger_rows
from tests.waiting import eventually

pytestmark = pytest.mark.long

UPSERT = "PUT /collections/test_notes__1/points"
SHARD, IN_FLIGHT = 20, 3


@pytest.fixture
def qdrant():
    with FakeQdrant() as server:
        server.break_next(UPSERT)  # the mark with which a run begins its writes is answered
        yield server


@pytest.fixture
def project(tmp_path, qdrant) -> Project:
    return Project(tmp_path / "project", extra=f'[store]\nurl = "{qdrant.url}"').fill(100)


@pytest.fixture
def held(qdrant):
    return qdrant.break_next(UPSERT, times=None, together=1_000_000)


def test_a_worker_embeds_while_the_server_has_not_acknowledged_and_its_death_loses_nothing(
    prefect_server, project, held
):
    """It embeds a second and a third shard, and no fourth; nothing is committed before the answer."""
    with Victim(project, "--workers", "1", "--shard-documents", str(SHARD)) as victim:
        eventually(lambda: held.met >= IN_FLIGHT or victim.ended)
        assert held.met >= IN_FLIGHT, victim.output
        rows = ledger_rows(project)
        assert len(rows) == IN_FLIGHT * SHARD, "a window of shards is begun, and no more"
        assert all(row.pending for row in rows.values()), "documents are committed whose points are not acknowledged"
        [worker] = victim.workers()
        worker.kill()
        held.crowded.set()
        assert victim.process.wait() == 0, victim.output
    assert len(project.texts()) == len(ledger_rows(project)) == 100
    assert not any(row.pending for row in ledger_rows(project).values())
