"""The flow on real Dask processes and a real Prefect server, as a user sees it: states, artifacts,
and the graph, which is the diagram in every way of running: no edge is missing, and none false."""

import json
import logging
import math
import re

import pytest
from prefect import get_client
from prefect.tasks import Task

from flows.index_all import index_all
from rag_index.etl import sharding, words_first
from tasks import etl as tasks
from tests.docs.pages import README, blocks
from tests.etl.test_publish import LOST, golden, live, lose, set_gate
from tests.fakes.qdrant import FakeQdrant
from tests.project import Project
from tests.waiting import eventually


@pytest.fixture(scope="module")
def run(tmp_path_factory, prefect_server):
    """The report of a run by a worker, in which a document and an index fail, and what Prefect then
    knows."""
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
            return {
                one["name"] for one in client._client.post("/task_runs/filter", json=asked).json()
            }

        # Task runs reach the server as events, some moments later.
        eventually(lambda: "delete gone" in tasks() and len(tasks()) > 8, every=0.3)
        artifacts = {
            one["key"]: one
            for one in client._client.post("/artifacts/latest/filter", json={}).json()
        }
        return project, report, runs, tasks(), artifacts


@pytest.mark.long
def test_prefect_shows_states_and_names(run):
    _, _, runs, tasks, _ = run
    state = runs["index notes"].state
    assert (state.type.value, state.name) == (
        "FAILED",
        "Failed",
    ), "a deployment's page lists no state of another name"
    assert state.message.startswith("partially indexed: 1 index: 50 documents indexed, 1 failed")
    assert {f"embed notes {number}" for number in (1, 2, 3)} | {
        "upsert notes 1",
        "delete gone",
    } <= tasks


def test_prefect_shows_artifacts(run):
    _, report, runs, _, found = run
    assert found["test-notes-progress"]["description"].startswith("51 documents: 50 new, 1 failed")
    assert found["test-notes-report"]["data"].startswith("# notes: partial")
    assert '"document": "51"' in found["test-notes-failed"]["data"]
    outcomes = json.loads(found["test-all-outcome"]["data"])
    assert list(outcomes[1])[:4] == ["index", "state", "failed", "message"]
    assert [one["state"] for one in outcomes] == ["failed", "partial"]
    for name in ("progress", "outcome", "failed"):
        assert found[f"test-all-{name}"]["flow_run_id"] == str(runs["index all"].id), (
            "it is on the page of this run"
        )
    assert (found["test-all-progress"]["data"], found["test-all-progress"]["description"]) == (
        100,
        report.sentence(),
    )
    (failed,) = json.loads(found["test-all-failed"]["data"])
    assert (failed["index"], failed["document"]) == ("notes", "51")


@pytest.mark.long
def test_a_rebuild_that_finds_less_is_partial_with_a_table_of_the_queries(tmp_path, prefect_server):
    project = set_gate(Project(tmp_path / "project").fill(60))
    golden(project)
    project.run()
    lose(project, *LOST)
    outcome = project.index(full=True, serial=True).indexes[0]
    assert (outcome.state, live(project)) == ("partial", "test_notes__1")
    assert [one.query for one in outcome.gate.worse] == [f"Note {number}" for number in LOST]
    with get_client(sync_client=True) as client:
        wanted = {"artifacts": {"key": {"any_": ["test-notes-gate"]}}}
        [artifact] = client._client.post("/artifacts/latest/filter", json=wanted).json()
    assert artifact["description"].startswith(
        "Not passed (max_loss 0.02): recall@10 of 60 golden queries 1.000"
    )
    assert '"query": "Note 3"' in artifact["data"]


def test_a_mistake_in_the_settings_ends_in_a_failed_state_with_one_line(prefect_server, tmp_path):
    state = index_all(config=str(tmp_path / "missing.toml"), return_state=True)
    assert (state.name, "missing.toml" in state.message, "\n" in state.message) == (
        "Failed",
        True,
        False,
    )


def seen_of(name: str, *tasks: str) -> tuple[dict[str, set[str]], dict, list[dict]]:
    """Return the names of the tasks before each task of the newest flow run of this name, the run,
    and its log.

    Task runs and logs reach the server some moments after they happened: wait until it has these
    tasks, and a log.
    """
    with get_client(sync_client=True) as opened:
        client = opened._client
        wanted = {"flow_runs": {"name": {"any_": [name]}}, "sort": "START_TIME_DESC", "limit": 1}
        [run] = client.post("/flow_runs/filter", json=wanted).raise_for_status().json()

        def complete() -> tuple[dict, list] | None:
            asked = {"logs": {"flow_run_id": {"any_": [run["id"]]}}, "limit": 200}
            log = client.post("/logs/filter", json=asked).raise_for_status().json()
            nodes = dict(
                client.get(f"/flow_runs/{run['id']}/graph-v2").raise_for_status().json()["nodes"]
            )
            return (
                (nodes, log)
                if log and {*tasks} <= {node["label"] for node in nodes.values()}
                else None
            )

        nodes, log = eventually(
            complete, f"the server has a log of {name} and its tasks {tasks}", every=0.3
        )
    labels = {key: node["label"] for key, node in nodes.items()}
    assert not any(node["encapsulating"] for node in nodes.values()), "a task is hidden in another"
    return (
        {
            node["label"]: {labels[parent["id"]] for parent in node["parents"]}
            for node in nodes.values()
        },
        run,
        log,
    )


def kind(task: str) -> str:
    """Return which step a task is, without its index and number."""
    return re.sub(r" notes \d+$", "", task)


def edges_of_readme() -> set[tuple[str, str]]:
    """Return the arrows of the README's diagram from one task to another."""
    [diagram] = blocks(README, "mermaid")
    names = {one.name for one in vars(tasks).values() if isinstance(one, Task)}
    titles = dict(re.findall(r'(\w+)\["([\w ]+)', diagram))
    arrows = re.findall(r"^ *(\w+)\S* *--[^\n]*> *(\w+)", diagram, re.MULTILINE)
    called = [
        tuple(titles.get(end, end) if titles.get(end) in names else end for end in arrow)
        for arrow in arrows
    ]
    return {(first, then) for first, then in called if {first, then} <= names}


@pytest.mark.parametrize(
    ("way", "server"),
    [
        ({"serial": True}, False),
        pytest.param({}, True, marks=pytest.mark.long),
        pytest.param({"workers": 2, "shard_documents": 50}, False, marks=pytest.mark.long),
        pytest.param({"workers": 2, "shard_documents": 50}, True, marks=pytest.mark.long),
    ],
)
def test_the_graph_is_the_diagram(tmp_path, monkeypatch, prefect_server, way, server):
    monkeypatch.setattr(sharding, "MAX_DOCUMENTS", 50)
    monkeypatch.setattr(
        words_first, "WORTH_SECONDS", math.inf
    )  # on a slow machine it would pay to write words first
    with FakeQdrant() as qdrant:
        project = Project(
            tmp_path / "project", extra=f'[store]\nurl = "{qdrant.url}"\n' if server else ""
        ).fill(180)
        monkeypatch.setattr("rag_index.etl.fetch.MAX_PAGE_ROWS", 60)
        assert project.index(**way).state == "completed"
    pages = {1: {1}, 2: {1, 2}, 3: {2, 3}, 4: {3}}  # of 60 rows each, and shards of 50
    expected = {f"fetch notes {page}": set() for page in (1, 2, 3)}
    expected |= {
        f"embed notes {shard}": {f"fetch notes {page}" for page in pages[shard]} for shard in pages
    }
    expected |= {f"upsert notes {shard}": {f"embed notes {shard}"} for shard in pages}
    expected |= {
        "delete gone": {f"upsert notes {shard}" for shard in pages},
        "verify and publish": {"delete gone"},
    }
    found, run, log = seen_of("index notes", *expected)
    steps = {name: before for name, before in found.items() if not name.startswith("check ")}
    assert steps == expected
    assert edges_of_readme() == {
        (kind(one), kind(name)) for name, before in steps.items() for one in before
    }
    assert not any(before for name, before in found.items() if name.startswith("check "))
    assert {"test", "notes"} <= set(run["tags"])
    warnings = [line["message"] for line in log if line["level"] >= logging.WARNING]
    assert not warnings, (
        "Prefect's own about the time limit of a task in a thread, once a shard, says nothing"
    )


@pytest.mark.long
def test_the_steps_that_end_a_run_say_what_they_did(tmp_path, prefect_server):
    def said() -> str:
        return "\n".join(line["message"] for line in seen_of("index notes")[2])

    project = Project(tmp_path / "project", "[store]\nerase = true\n").fill(30)
    assert (project.run().state, project.index(full=True).state) == ("completed", "completed")
    live = (
        r"^verified \d+ points of 30 documents, \d+ of \d+ sampled found themselves; test_notes__2"
        r" is live now$"
    )
    eventually(lambda: re.search(live, said(), re.MULTILINE), "the log is sent in the background")
    project.execute("DELETE FROM note WHERE id = 7")
    assert project.index().state == "completed"
    points = len(project.points())
    erased = rf"^1 document erased: {points} points copied to test_notes__\d, and .* dropped$"
    eventually(lambda: re.search(erased, said(), re.MULTILINE), "it was erased")
    then = said()
    assert "\n1 document deleted\n" in then
    assert f"\n{points} points of 29 documents counted, as many as the ledger has\n" in then


@pytest.mark.long
def test_a_first_run_writes_words_first_and_embeds_everything(
    tmp_path, fake, prefect_server, monkeypatch, caplog
):
    monkeypatch.setattr(words_first, "WORTH_SECONDS", 0.0)
    monkeypatch.setattr(words_first, "SHARE", 0)
    written, write = [], words_first.WordsFirst._write_shard

    def note(self, documents, chunker):
        written.extend(documents.keys)
        write(self, documents, chunker)

    monkeypatch.setattr(words_first.WordsFirst, "_write_shard", note)
    monkeypatch.setattr("rag_index.etl.fetch.MAX_PAGE_ROWS", 10)
    extra = f"{fake.settings}[parallel]\nshard_documents = 4\nworkers = 1\n"
    project = Project(tmp_path / "project", extra=extra).fill(30)
    caplog.set_level(logging.INFO)
    outcome = project.index().indexes[0]
    assert (outcome.state, outcome.new, outcome.failed) == ("completed", 30, 0)
    assert 10 < len(written) < 30
    assert all(vector for _, vector in project.points().values())
    assert f"{len(written)} documents can be found by their words" in caplog.text
    assert seen_of("index notes", "write words")
