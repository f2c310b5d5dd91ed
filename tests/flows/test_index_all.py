"""The flow on real Dask processes and a real Prefect server, as a user sees it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from rag_index.orchestration.cluster import Workers
from tests.project import Project
from tests.waiting import eventually


@pytest.fixture
def project(tmp_path, prefect_server) -> Project:
    return Project(tmp_path / "project")


def counts(report, index=0) -> dict[str, Any]:
    outcome = report.indexes[index].to_json()
    return {key: outcome[key] for key in ("new", "changed", "payload_only", "unchanged", "empty", "deleted", "failed")}


NOTHING = dict.fromkeys(("new", "changed", "payload_only", "unchanged", "empty", "deleted", "failed"), 0)


def test_every_kind_of_change_reaches_the_index(project):
    project.fill(300)
    project.execute("INSERT INTO note VALUES (1000, NULL, '  ', 'a', 1)")
    first = project.index(workers=1, shard_documents=200)
    assert first.state == "completed"
    assert counts(first) == {**NOTHING, "new": 300, "empty": 1}
    assert first.indexes[0].documents == 301

    again = project.run()
    assert counts(again) == {**NOTHING, "unchanged": 300, "empty": 1}
    assert again.indexes[0].nothing_to_do

    before = project.points()
    project.execute("UPDATE note SET body = 'Quite another story about whales.' WHERE id = 7")
    project.execute("UPDATE note SET body = 'Short now.' WHERE id = 10")  # it had several chunks
    project.execute("UPDATE note SET author = 'somebody else' WHERE id = 20")
    project.execute("UPDATE note SET title = NULL, body = '' WHERE id = 30")
    project.execute("DELETE FROM note WHERE id IN (40, 41)")
    project.fill(5, first=2000)
    report = project.run()
    assert counts(report) == {
        "new": 5, "changed": 2, "payload_only": 1, "unchanged": 294, "empty": 2, "deleted": 3, "failed": 0,
    }  # fmt: skip

    after, texts = project.points(), project.texts()
    assert texts["7"] == ["Note 7\nQuite another story about whales."]
    assert texts["10"] == ["Note 10\nShort now."]
    assert {"30", "40", "41", "1000"}.isdisjoint(texts)
    assert len(texts) == 302
    twenty = [(i, p) for i, (p, _) in after.items() if p["_rag"]["document_id"] == "20"]
    assert len(twenty) > 1
    assert all(payload["author"] == "somebody else" for _, payload in twenty)
    assert all(after[i][1] == before[i][1] for i, _ in twenty), "a payload alone changed: its vectors are untouched"


@pytest.mark.long
def test_serial_and_parallel_make_the_same_points(tmp_path, prefect_server):
    made = []
    for name, how in (
        ("one", {"workers": 1, "shard_documents": 400}),
        ("two", {"workers": 2, "shard_documents": 37}),
        ("serial", {"serial": True}),
    ):
        project = Project(tmp_path / name).fill(400)
        assert project.index(**how).state == "completed"
        made.append(project.points())
    assert made[0].keys() == made[1].keys() == made[2].keys()
    for point, (payload, vector) in made[0].items():
        for other in made[1:]:
            assert other[point][0] == payload
            assert other[point][1] == pytest.approx(vector, abs=1e-6)


@pytest.mark.parametrize(
    ("settings", "options"),
    [
        ("", {}),
        ("", {"workers": 2}),
        ("[parallel]\nworkers = 2", {}),
        ("[parallel]\nmemory = 10", {"shard_documents": 3}),
    ],
    ids=["default", "option", "setting", "no memory"],
)
def test_no_workers_are_started_for_little_work_or_without_memory(
    tmp_path, prefect_server, monkeypatch, settings, options
):
    def start(workers, count):
        pytest.fail(f"{count} workers were started")

    monkeypatch.setattr(Workers, "_local_cluster", start)
    report = Project(tmp_path / "p", extra=settings).fill(10).index(**options)
    assert (report.state, report.indexes[0].new, report.indexes[0].message) == ("completed", 10, "")


def test_one_index_that_fails_does_not_stop_the_others(project):
    project.fill(20)
    good = project.config.read_text()
    bad = good[good.index("[[indexes]]") :].replace('"notes"', '"broken"').replace('"note"', '"nothing"')
    project.write_settings(good.replace("[[indexes]]", bad + "\n[[indexes]]", 1))
    report = project.index(serial=True)
    assert [(o.index, o.state) for o in report.indexes] == [("broken", "failed"), ("notes", "completed")]
    assert "table 'nothing' cannot be read" in report.indexes[0].message
    assert len(project.texts()) == 20


def test_prefect_shows_states_names_and_artifacts(project, prefect_server):
    project.fill(50)
    project.execute("INSERT INTO note VALUES (51, 'blob', ?, 'a', 1)", b"\xff")
    project.index(workers=1, shard_documents=20)

    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, TaskRunFilter

    async def seen():
        async with get_client() as client:
            runs = await client.read_flow_runs(sort="START_TIME_DESC", limit=2)
            ids = {"any_": [run.id for run in runs]}
            tasks = await client.read_task_runs(flow_run_filter=FlowRunFilter(id=ids), task_run_filter=TaskRunFilter())
            artifacts = (await client._client.post("/artifacts/latest/filter", json={})).json()
            return runs, tasks, artifacts

    embeds = {f"embed notes {number} of 3" for number in (1, 2, 3)}
    expected = {*embeds, "upsert notes 1 of 3", "delete gone"}
    # Task runs reach the server as events, some moments later.
    eventually(lambda: expected <= {task.name for task in asyncio.run(seen())[1]}, every=0.3)
    runs, tasks, artifacts = asyncio.run(seen())
    names = {run.name: run.state for run in runs}
    state = names["index notes"]
    assert state.type.value == "FAILED"
    assert state.name == "Failed", "the page of a deployment lists no state of another name"
    assert "partially indexed" in state.message
    assert "50 documents indexed, 1 failed" in state.message
    assert expected <= {task.name for task in tasks}
    keys = {artifact["key"]: artifact for artifact in artifacts}
    assert "failed" in keys["test-notes-progress"]["description"]
    assert keys["test-notes-progress"]["description"].startswith("51 documents: 50 new, 1 failed")
    assert "# notes: partial" in keys["test-notes-report"]["data"]
    assert '"document": "51"' in keys["test-notes-failed"]["data"]
    assert list(json.loads(keys["test-all-outcome"]["data"])[0])[:4] == ["index", "state", "failed", "message"]
    assert '"state": "partial"' in keys["test-all-outcome"]["data"]
    whole = next(run.id for run in runs if run.name == "index all")
    for name in ("progress", "outcome", "failed"):
        assert keys[f"test-all-{name}"]["flow_run_id"] == str(whole), "it is on the page of the run over all indexes"
    assert keys["test-all-progress"]["data"] == 100
    assert keys["test-all-progress"]["description"] == names["index all"].message.removeprefix("partially indexed: ")
    (failed,) = json.loads(keys["test-all-failed"]["data"])
    assert (failed["index"], failed["document"]) == ("notes", "51")


@pytest.mark.long
def test_a_large_embedded_collection_gets_its_search_index(tmp_path, prefect_server, shown, monkeypatch):
    monkeypatch.setattr("rag_index.indexing.search_index.AUTO_MB", 5)
    project = Project(tmp_path / "p")
    with project.source() as db:  # more than 10 MB of vectors
        db.executemany("INSERT INTO note (id, title, body) VALUES (?, 'note', ?)", ((i, f"{i}") for i in range(12_000)))
    assert project.index(serial=True).state == "completed"
    assert shown.says("building the search index")
    with project.store() as store:
        assert store.indexed(store.aliases()["test_notes"])
    assert project.json("search", "note 77")["hits"]
