"""A watch under Prefect: each batch with work is a flow run, and looking for changes makes none."""

from __future__ import annotations

from prefect.client.orchestration import get_client

from tests.indexing.plain import run_plain
from tests.project import Project


def watch(project):
    """Run the flow in this process once, against the session's Prefect server; return whether it caught up."""
    from rag_index.orchestration.launch import launch

    def load():
        from flows.watch import watch

        return watch

    return launch(load, project.folder / ".prefect", config=str(project.config), indexes=["notes"], once=True)


def batches():
    """Return the names and states of all batches that the server knows."""
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs()
    return sorted((run.name, run.state_name) for run in runs if run.name.startswith("notes: "))


def test_a_batch_is_a_flow_run_and_a_look_is_none(tmp_path):
    project = Project(tmp_path / "project").fill(12)
    project.execute("ALTER TABLE note ADD COLUMN changed TEXT DEFAULT '2020-01-01 00:00:00'")
    project.write_settings(project.config.read_text() + 'changed_since = "changed"\n')
    run_plain(project)
    assert watch(project)  # polling without a watermark gives every row once
    before = batches()
    assert watch(project)
    project.execute("UPDATE note SET body = 'the pump is mended', changed = datetime('now') WHERE id = 5")
    assert watch(project)
    assert project.texts()["5"] == ["Note 5\nthe pump is mended"]
    assert len(batches()) > len(before)
    assert {state for _, state in batches()} == {"Completed"}
