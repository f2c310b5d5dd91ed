"""The graph that Prefect draws of a run is the diagram, in every way of running: no edge is missing, and none false."""

import logging
import os
import re

import httpx
import pytest
from prefect.tasks import Task

from rag_index.etl import sharding
from tasks import etl as tasks
from tests.docs.pages import README, blocks
from tests.fakes.qdrant import FakeQdrant
from tests.project import Project
from tests.waiting import eventually


def seen_of(url: str, name: str) -> tuple[dict[str, set[str]], dict, list[dict]]:
    """Return the names of the tasks before each task of the newest flow run of this name, the run, and its log."""
    user, _, password = os.environ["PREFECT_API_AUTH_STRING"].partition(":")
    with httpx.Client(base_url=url, auth=(user, password), timeout=30) as client:
        wanted = {"flow_runs": {"name": {"any_": [name]}}, "sort": "START_TIME_DESC", "limit": 1}
        [run] = client.post("/flow_runs/filter", json=wanted).raise_for_status().json()
        asked = {"logs": {"flow_run_id": {"any_": [run["id"]]}}, "limit": 200}
        log = client.post("/logs/filter", json=asked).raise_for_status().json()
        nodes = dict(client.get(f"/flow_runs/{run['id']}/graph-v2").raise_for_status().json()["nodes"])
    labels = {key: node["label"] for key, node in nodes.items()}
    assert not any(node["encapsulating"] for node in nodes.values()), "a task is hidden in another"
    graph = {node["label"]: {labels[parent["id"]] for parent in node["parents"]} for node in nodes.values()}
    return graph, run, log


def kind(task: str) -> str:
    """Return which step a task is, without its index and number."""
    return re.sub(r" notes \d+$", "", task)


def edges_of_readme() -> set[tuple[str, str]]:
    """Return the arrows of the README's diagram from one task to another."""
    [diagram] = blocks(README, "mermaid")
    names = {one.name for one in vars(tasks).values() if isinstance(one, Task)}
    titles = dict(re.findall(r'(\w+)\["([\w ]+)', diagram))
    arrows = re.findall(r"^ *(\w+)\S* *--[^\n]*> *(\w+)", diagram, re.MULTILINE)
    called = [tuple(titles.get(end, end) if titles.get(end) in names else end for end in arrow) for arrow in arrows]
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
    with FakeQdrant() as qdrant:
        store = f'[store]\nurl = "{qdrant.url}"\n' if server else ""
        project = Project(tmp_path / "project", extra=store).fill(180)
        monkeypatch.setattr("rag_index.etl.run.MAX_PAGE_ROWS", 60)
        assert project.index(**way).state == "completed"
    found, run, log = seen_of(prefect_server, "index notes")
    pages = {1: {1}, 2: {1, 2}, 3: {2, 3}, 4: {3}}  # of 60 rows each, and shards of 50
    expected = {f"fetch notes {page}": set() for page in (1, 2, 3)}
    expected |= {f"embed notes {shard}": {f"fetch notes {page}" for page in pages[shard]} for shard in pages}
    expected |= {f"upsert notes {shard}": {f"embed notes {shard}"} for shard in pages}
    expected |= {"delete gone": {f"upsert notes {shard}" for shard in pages}, "verify and publish": {"delete gone"}}
    steps = {name: before for name, before in found.items() if not name.startswith("check ")}
    assert steps == expected
    assert edges_of_readme() == {(kind(one), kind(name)) for name, before in steps.items() for one in before}
    assert not any(before for name, before in found.items() if name.startswith("check "))
    assert {"test", "notes"} <= set(run["tags"])
    warnings = [line["message"] for line in log if line["level"] >= logging.WARNING]
    assert log
    assert not warnings, "Prefect's own about the time limit of a task in a thread, once a shard, says nothing"


@pytest.mark.long
def test_the_steps_that_end_a_run_say_what_they_did(tmp_path, prefect_server):
    def said() -> str:
        return "\n".join(line["message"] for line in seen_of(prefect_server, "index notes")[2])

    project = Project(tmp_path / "project", "[store]\nerase = true\n").fill(30)
    assert project.run().state == "completed"
    assert project.index(full=True).state == "completed"
    live = r"^verified \d+ points of 30 documents, \d+ of \d+ sampled found themselves; test_notes__2 is live now$"
    eventually(lambda: re.search(live, said(), re.MULTILINE), "the log is sent in the background")
    project.execute("DELETE FROM note WHERE id = 7")
    assert project.index().state == "completed"
    points = len(project.points())
    erased = rf"^1 document erased: {points} points copied to test_notes__\d, and .* dropped$"
    eventually(lambda: re.search(erased, said(), re.MULTILINE), "it was erased")
    then = said()
    assert "\n1 document deleted\n" in then
    assert f"\n{points} points of 29 documents counted, as many as the ledger has\n" in then
