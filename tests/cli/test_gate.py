"""The gate of a rebuild in the terminal and in Prefect: exit codes, what is printed, and the artifact."""

import asyncio

import pytest

from rag_index import cli
from tests.etl.plain import run_plain
from tests.etl.test_gate import LOST, golden, live, lose, set_gate
from tests.project import Project


@pytest.fixture
def project(tmp_path) -> Project:
    project = set_gate(Project(tmp_path / "project").fill(60))
    golden(project)
    return project


def call(project: Project, *arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main(["--config", str(project.config), *arguments])
    return ended.value.code


@pytest.mark.long
def test_report_lists_the_queries_that_got_worse(project, capsys):
    run_plain(project)
    lose(project, *range(21, 51))
    assert run_plain(project, full=True).state == "partial"
    assert call(project, "status", "--report") == 0
    lines = capsys.readouterr().out.splitlines()
    [means] = [line for line in lines if line.startswith("  recall@10 of 60 golden queries: 1.000 before, 0.5")]
    assert means.endswith("; 30 worse, 0 better")
    assert "    1.000 → 0.000  Note 21, lost 21" in lines
    assert "    and 10 more, which --json prints" in lines


@pytest.mark.long
def test_a_rebuild_in_prefect_ends_as_partial_with_a_table_of_the_queries(project, prefect_server):
    from prefect import get_client

    project.run()
    lose(project, *LOST)
    shown = project.index(full=True, serial=True).indexes[0]
    assert shown.state == "partial"
    assert [one.query for one in shown.gate.poorest.worse] == [f"Note {number}" for number in LOST]
    assert live(project) == "test_notes__1"

    async def latest() -> dict:
        async with get_client() as client:
            filters = {"artifacts": {"key": {"any_": ["test-notes-gate"]}}}
            return (await client._client.post("/artifacts/latest/filter", json=filters)).json()[0]

    artifact = asyncio.run(latest())
    assert artifact["description"].startswith("Not passed (max_loss 0.02): recall@10 of 60 golden queries 1.000")
    assert '"query": "Note 3"' in artifact["data"]
    assert project.json("rebuild", "notes", "--serial", "--allow-loss")["indexes"][0]["state"] == "completed"
    assert live(project) == "test_notes__2"
