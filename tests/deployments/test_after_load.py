"""After the load: index-all begins when another deployment has ended, and what it publishes starts others."""

import datetime as dt
import re
import subprocess
import sys

import pytest

from tests.deployments.server import ROOT
from tests.project import Project
from tests.waiting import eventually

pytestmark = pytest.mark.long

FLOWS = """
import sqlite3
from prefect import flow, serve
from prefect.events import DeploymentEventTrigger

@flow
def load() -> None:
    with sqlite3.connect(SOURCE) as source:
        source.execute("INSERT INTO note (id, title, body) VALUES (99, 'Loaded', 'the pump was replaced')")

@flow
def report() -> None:
    print("made from the new index")

if __name__ == "__main__":
    made = DeploymentEventTrigger(
        expect={"prefect.asset.materialization.succeeded"}, match={"prefect.resource.id": ASSET}
    )
    serve(load.to_deployment("load"), report.to_deployment("report", triggers=[made]))
"""


def test_an_index_follows_a_load_and_a_report_follows_the_index(deployed, tmp_path):
    project, began = Project(tmp_path / "project").fill(20), _now()
    wanted, asset = tmp_path / "prefect.yaml", f"qdrant://{project.settings.alias('notes')}"
    text = (ROOT / "prefect.yaml").read_text(encoding="utf-8")
    wanted.write_text(re.sub(r"^    # (triggers:|  )", r"    \1", text, flags=re.MULTILINE))
    assert "    triggers:" in wanted.read_text()
    source = str(project.folder / "source.db")
    (tmp_path / "served.py").write_text(f"SOURCE, ASSET = {source!r}, {asset!r}\n{FLOWS}")
    deployed.prefect("deploy", "--name", "index-all", "--prefect-file", str(wanted))
    try:
        with (
            deployed.worker(tmp_path / "elsewhere", RAG_INDEX_CONFIG=str(project.config)),
            subprocess.Popen([sys.executable, "served.py"], cwd=tmp_path, env=deployed.environment) as served,
        ):
            try:
                known = {run["id"] for run in deployed.runs()}

                def new(name):
                    return [
                        run
                        for run in deployed.runs(deployment_id={"any_": [deployed.deployment(name)["id"]]})
                        if run["id"] not in known and run["state_type"] != "SCHEDULED"
                    ]

                eventually(lambda: _exists(deployed, "report/report"), "the flows are served", every=0.25)
                loading = deployed.start("load/load")["id"]
                loaded = deployed.wait_for_end(loading)
                assert loaded["state_name"] == "Completed"
                (indexing,) = eventually(lambda: new("index-all/index-all"), "index-all begins", every=0.25)
                indexed = deployed.wait_for_end(indexing["id"])
                assert indexed["state_name"] == "Completed", indexed["state"]
                assert indexed["start_time"] > loaded["end_time"]
                (reporting,) = eventually(lambda: new("report/report"), "the report begins", every=0.25)
                assert deployed.wait_for_end(reporting["id"])["start_time"] > indexed["start_time"]
                assert len(new("index-all/index-all")) == 1, "and only then"
            finally:
                served.terminate()
    finally:
        deployed.prefect("deploy", "--name", "index-all")
        for name in ("load/load", "report/report"):
            deployed.delete(f"/deployments/{deployed.deployment(name)['id']}")
        for one in deployed.post("/automations/filter"):
            deployed.delete(f"/automations/{one['id']}")
    assert project.texts()["99"] == ["Loaded\nthe pump was replaced"]
    (made,) = eventually(lambda: _events(deployed, asset, began), every=0.25)
    assert made["payload"].items() >= {"documents": 21, "new": 21, "deleted": 0, "failed": 0}.items()
    assert made["payload"]["collection"].startswith(project.settings.alias("notes"))
    assert made["payload"]["as_of"]
    related = {one["prefect.resource.role"]: one["prefect.resource.id"] for one in made["related"]}
    assert related["asset"] == "sqlite://source.db/note"
    assert related["asset-materialized-by"] == "rag-index"


def test_a_collection_that_is_held_back_is_not_made(deployed, tmp_path):
    project, began = Project(tmp_path / "project").fill(300), _now()
    asset = f"qdrant://{project.settings.alias('notes')}"
    with deployed.worker(tmp_path / "elsewhere", RAG_INDEX_CONFIG=str(project.config)):

        def run(**options):
            return deployed.wait_for_end(deployed.start("index-all/index-all", serial=True, **options)["id"])

        assert run()["state_name"] == "Completed"
        project.execute("DELETE FROM note WHERE id > 3")
        held = run(full=True)
        assert held["state"]["message"].startswith("partially indexed"), held["state"]
        assert run(full=True, allow_deletes=True)["state_name"] == "Completed"
    made = eventually(lambda: len(_events(deployed, asset, began)) > 1 and _events(deployed, asset, began), every=0.25)
    assert [one["payload"]["documents"] for one in made] == [3, 300]


def _exists(deployed, name) -> bool:
    return deployed.client.get(f"/deployments/name/{name}").status_code == 200


def _now() -> str:
    return dt.datetime.now(dt.UTC).isoformat()


def _events(deployed, asset: str, since: str) -> list[dict]:
    """Return the events of an asset; other tests of this server made one of this name before."""
    wanted = {
        "event": {"name": ["prefect.asset.materialization.succeeded"]},
        "resource": {"id": [asset]},
        "occurred": {"since": since, "until": _now()},
    }
    return deployed.post("/events/filter", filter=wanted)["events"]
