"""The flow on real Dask processes and a real Prefect server, as a user sees it."""

import json

import pytest

from flows.index_all import index_all
from tests.project import Project
from tests.waiting import eventually


@pytest.fixture(scope="module")
def run(tmp_path_factory, prefect_server):
    """The report of a run by a worker, in which a document and an index fail, and what Prefect then knows."""
    from prefect.client.orchestration import get_client

    project = Project(tmp_path_factory.mktemp("run") / "project").fill(50)
    project.execute("INSERT INTO note VALUES (51, 'blob', ?, 'a', 1)", b"\xff")
    section = project.config.read_text().partition("[[indexes]]")[2]
    broken = section.replace('"notes"', '"broken"').replace('"note"', '"nothing"')
    head, _, good = project.config.read_text().partition("[[indexes]]")
    project.write_settings(f"{head}[[indexes]]{broken}\n[[indexes]]{good}")
    report = project.index(workers=1, shard_documents=20)
    with get_client(sync_client=True) as client:
        runs = {one.name: one for one in client.read_flow_runs(sort="START_TIME_DESC", limit=3)}
        ids = {"any_": [str(one.id) for one in runs.values()]}

        def tasks() -> set[str]:
            asked = {"flow_runs": {"id": ids}, "limit": 200}
            return {one["name"] for one in client._client.post("/task_runs/filter", json=asked).json()}

        # Task runs reach the server as events, some moments later.
        eventually(lambda: "delete gone" in tasks() and len(tasks()) > 8, every=0.3)
        artifacts = {one["key"]: one for one in client._client.post("/artifacts/latest/filter", json={}).json()}
        return project, report, runs, tasks(), artifacts


@pytest.mark.long
def test_prefect_shows_states_and_names(run):
    _, _, runs, tasks, _ = run
    state = runs["index notes"].state
    assert (state.type.value, state.name) == ("FAILED", "Failed"), "a deployment's page lists no state of another name"
    assert state.message.startswith("partially indexed: 1 index: 50 documents indexed, 1 failed")
    assert {f"embed notes {number}" for number in (1, 2, 3)} | {"upsert notes 1", "delete gone"} <= tasks


def test_prefect_shows_artifacts(run):
    _, report, runs, _, found = run
    assert found["test-notes-progress"]["description"].startswith("51 documents: 50 new, 1 failed")
    assert found["test-notes-report"]["data"].startswith("# notes: partial")
    assert '"document": "51"' in found["test-notes-failed"]["data"]
    outcomes = json.loads(found["test-all-outcome"]["data"])
    assert list(outcomes[1])[:4] == ["index", "state", "failed", "message"]
    assert [one["state"] for one in outcomes] == ["failed", "partial"]
    for name in ("progress", "outcome", "failed"):
        assert found[f"test-all-{name}"]["flow_run_id"] == str(runs["index all"].id), "it is on the page of this run"
    assert (found["test-all-progress"]["data"], found["test-all-progress"]["description"]) == (100, report.sentence())
    (failed,) = json.loads(found["test-all-failed"]["data"])
    assert (failed["index"], failed["document"]) == ("notes", "51")


def test_a_mistake_in_the_settings_ends_in_a_failed_state_with_one_line(prefect_server, tmp_path):
    state = index_all(config=str(tmp_path / "missing.toml"), return_state=True)
    assert (state.name, "missing.toml" in state.message, "\n" in state.message) == ("Failed", True, False)
