"""`status` while the store's server is away: an answer soon, because a person waits."""

import pytest

from rag_index.care.index_status import status
from rag_index.components.stores import PERSON_SECONDS
from rag_index.errors import StoreUnavailable
from tests.etl.plain import printed
from tests.project import Project, run_here


@pytest.fixture
def project(tmp_path, qdrant) -> Project:
    return Project(tmp_path / "project", extra=f'[store]\nurl = "{qdrant.url}"')


def test_a_server_that_is_down_is_asked_for_seconds_and_not_for_half_a_minute(project, qdrant):
    assert PERSON_SECONDS <= 2, "connecting, asking and trying again take five seconds together"
    qdrant.break_next("GET /aliases", times=None, status=503, error="starting")
    with pytest.raises(StoreUnavailable, match="503: starting"):
        status(project.settings)
    asked = qdrant.requests("GET /aliases")
    assert asked <= 7, "pauses grow from a tenth of a second: half a minute are ten tries"


def test_what_the_ledger_knows_is_shown_of_a_server_that_is_down(project, qdrant):
    project.fill(3).run()
    [before] = printed(project, "status")["indexes"]
    qdrant.break_next("GET /aliases", times=None, hang=3600.0)
    asked = qdrant.requests("GET /aliases")
    assert f"{qdrant.url} does not answer as it should" in run_here(project.config, "status", code=1)[1]
    assert qdrant.requests("GET /aliases") == asked + 1
    qdrant.faults.clear()
    qdrant.break_next("GET /aliases", times=None, status=503, error="starting")
    shown = printed(project, "status", code=1)
    assert shown["indexes"] == [{**before, "indexed": None}]
    assert "503: starting" in shown["error"]
    out, said = run_here(project.config, "status", code=1)
    assert out.splitlines()[1].split()[:4] == ["notes", "test_notes__1", "3", str(before["points"])]
    assert "503: starting (what is shown is from the ledger alone)" in said


def test_status_says_up_to_when_an_index_is_complete_where_its_last_run_was_not(project, qdrant):
    project.fill(3).run()
    [before] = printed(project, "status")["indexes"]
    assert "complete up to" not in run_here(project.config, "status")[0], "the last run says it"
    project.fill(1, first=4)
    qdrant.break_next("PUT /collections/test_notes__1/points", times=None, status=400, error="the disk is full")
    assert project.run().exit_code == 1
    qdrant.faults.clear()
    assert (
        f"notes: complete up to {before['as_of']['at']}, known by run"
        in run_here(project.config, "status")[0].splitlines()
    )
