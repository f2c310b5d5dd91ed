"""Deployments describe what they take; when their runs come (by a schedule, one at a time, after a
load), and what starts after them. A password in a Prefect Secret block: the worker gets it, and
nobody else. The reference to the block may not stand in prefect.yaml: `prefect deploy` puts the
value in its place."""

import datetime as dt
import re
import subprocess
import sys
from contextlib import closing
from functools import partial

import pytest
from sqlalchemy.engine import make_url

from rag_index.components.ledger import Ledger
from rag_index.components.ledger.runs import IndexLease
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
SECRET = "battery-staple-horse"
MAKE = (
    "from prefect.blocks.system import Secret; Secret(value={!r}).save('rag-index-source',"
    " overwrite=True)"
)


def now() -> str:
    return dt.datetime.now(dt.UTC).isoformat()


def events_of(deployed, asset: str, since: str) -> list[dict]:
    """Return the events of an asset; other tests of this server made one of this name before."""
    made = {"name": ["prefect.asset.materialization.succeeded"]}
    wanted = {
        "event": made,
        "resource": {"id": [asset]},
        "occurred": {"since": since, "until": now()},
    }
    return deployed.post("/events/filter", filter=wanted)["events"]


def test_an_index_follows_a_load_and_a_report_follows_the_index(deployed, tmp_path):
    project, began = Project(tmp_path / "project").fill(20), now()
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
            subprocess.Popen(
                [sys.executable, "served.py"], cwd=tmp_path, env=deployed.environment
            ) as served,
        ):
            try:
                known = {run["id"] for run in deployed.runs()}

                def new(name):
                    found = deployed.runs(deployment_id={"any_": [deployed.deployment(name)["id"]]})
                    return [
                        run
                        for run in found
                        if run["id"] not in known and run["state_type"] != "SCHEDULED"
                    ]

                path = "/deployments/name/report/report"
                eventually(
                    lambda: deployed.client.get(path).status_code == 200,
                    "the flows are served",
                    every=0.25,
                )
                loaded = deployed.wait_for_end(deployed.start("load/load")["id"])
                assert loaded["state_name"] == "Completed"
                (indexing,) = eventually(
                    lambda: new("index-all/index-all"), "index-all begins", every=0.25
                )
                indexed = deployed.wait_for_end(indexing["id"])
                assert indexed["state_name"] == "Completed", indexed["state"]
                assert indexed["start_time"] > loaded["end_time"]
                (reporting,) = eventually(
                    lambda: new("report/report"), "the report begins", every=0.25
                )
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
    (made,) = eventually(lambda: events_of(deployed, asset, began), every=0.25)
    assert (
        made["payload"].items() >= {"documents": 21, "new": 21, "deleted": 0, "failed": 0}.items()
    )
    assert made["payload"]["collection"].startswith(project.settings.alias("notes"))
    assert made["payload"]["as_of"]
    related = {one["prefect.resource.role"]: one["prefect.resource.id"] for one in made["related"]}
    assert (related["asset"], related["asset-materialized-by"]) == (
        "sqlite://source.db/note",
        "rag-index",
    )


@pytest.fixture(scope="module")
def elsewhere(deployed, tmp_path_factory):
    """The folder of a worker, which runs from here to the end of this file. No deployment may start
    runs by itself."""
    folder = tmp_path_factory.mktemp("elsewhere")
    with deployed.worker(folder):
        yield folder


def test_a_collection_that_is_held_back_is_not_made(deployed, elsewhere, tmp_path):
    project, began = Project(tmp_path / "project").fill(300), now()
    asset = f"qdrant://{project.settings.alias('notes')}"
    start = partial(deployed.start, "index-all/index-all", config=str(project.config), serial=True)
    assert deployed.wait_for_end(start()["id"])["state_name"] == "Completed"
    project.execute("DELETE FROM note WHERE id > 3")
    held = deployed.wait_for_end(start(full=True)["id"])
    assert held["state"]["message"].startswith("partially indexed"), held["state"]
    assert (
        deployed.wait_for_end(start(full=True, allow_deletes=True)["id"])["state_name"]
        == "Completed"
    )
    made = eventually(
        lambda: len(found := events_of(deployed, asset, began)) > 1 and found, every=0.25
    )
    assert [one["payload"]["documents"] for one in made] == [3, 300]


def test_runs_come_one_at_a_time(deployed, elsewhere, tmp_path):
    """While a run is under way, one more waits to index what changes meanwhile, and others end at
    once and say why."""
    project = Project(tmp_path / "project").fill(20)
    past = dt.datetime.now(dt.UTC) - dt.timedelta(days=2)
    scheduled = {"type": "SCHEDULED", "state_details": {"scheduled_time": past.isoformat()}}
    start = partial(deployed.start, "index-all/index-all", config=str(project.config), serial=True)
    with (
        closing(Ledger(project.settings.ledger_url)) as ledger,
        IndexLease(ledger, "test index-all", "another run"),
    ):
        waiting = start(state=scheduled)["id"]
        eventually(
            lambda: "waiting for the run that is under way" in "".join(deployed.logs(waiting)),
            every=0.25,
        )
        late = start()["id"]
        ended = deployed.wait_for_end(late)
        assert ended["state_name"] == "Cancelled", ended["state"]
        said = (
            "another run waits already, .* \\(the next run of all indexes waits in process"
            " [0-9]+ on "
        )
        assert re.match(said, ended["state"]["message"])
        assert "Traceback" not in "".join(deployed.logs(late))
        project.fill(5, first=21)
    assert deployed.wait_for_end(waiting)["state_name"] == "Completed", "the lease is not released"
    assert len(project.texts()) == 25


def test_a_secret_block_reaches_the_run_and_cannot_be_read(deployed, elsewhere, postgres, tmp_path):
    project = Project(tmp_path / "project").fill(10)
    project.write_settings(
        project.config.read_text().replace("sqlite:///source.db", "sqlite:///not-there.db")
    )
    (
        project.folder / SECRET
    ).mkdir()  # the name of the database alone is told, by Prefect's asset of the table
    (project.folder / "source.db").rename(project.folder / SECRET / "source.db")
    url = f"sqlite:///{project.folder}/{SECRET}/source.db"
    subprocess.run(
        [sys.executable, "-c", MAKE.format(url)], env=deployed.environment, check=True, timeout=60
    )

    # As a person does in the UI: Deployments, index-all, Edit, Job Variables.
    night = deployed.deployment("index-all/index-all")
    before = night["job_variables"]
    reference = {"RAG_INDEX_SOURCE__URL": "{{ prefect.blocks.secret.rag-index-source }}"}
    deployed.patch(
        f"/deployments/{night['id']}",
        job_variables={**before, "env": {**before["env"], **reference}},
    )
    ended = deployed.wait_for_end(
        deployed.start("index-all/index-all", config=str(project.config), serial=True)["id"]
    )
    deployed.patch(f"/deployments/{night['id']}", job_variables=before)
    assert ended["state_name"] == "Completed", ended["state"]
    kept = [
        elsewhere / "worker.log",
        *(path for path in deployed.home.rglob("*") if path.is_file()),
    ]
    assert not [path for path in kept if SECRET.encode() in path.read_bytes()]
    rows = postgres.rows(
        make_url(deployed.environment["PREFECT_SERVER_DATABASE_CONNECTION_URL"]).database
    )
    assert ("rag-index-source" in rows, SECRET in rows) == (True, False)


def test_the_server_schedules_future_runs_of_the_deployments(deployed):
    """With packages that do not fit, it would deploy them, but never schedule."""
    index_all = deployed.deployment("index-all/index-all")["id"]

    def planned() -> list[dt.datetime]:
        found = deployed.runs(
            deployment_id={"any_": [index_all]}, state={"type": {"any_": ["SCHEDULED"]}}
        )
        return sorted(dt.datetime.fromisoformat(run["expected_start_time"]) for run in found)

    times = eventually(
        lambda: len(planned()) >= 3 and planned(), "three nights are scheduled", every=0.25
    )
    assert all(
        time > dt.datetime.now(dt.UTC) and (time.hour, time.minute) == (2, 0) for time in times
    )
    assert len(set(times)) == len(times)


@pytest.mark.parametrize("name", ["index-all", "index-collection", "benchmark", "doctor"])
def test_a_deployment_describes_its_parameters_and_names_no_folder(deployed, name):
    found = deployed.deployment(f"{name}/{name}")
    properties = found["parameter_openapi_schema"]["properties"]
    assert properties
    assert all(one.get("description") for one in properties.values()), properties
    assert found["description"]
    assert not found["pull_steps"]
    assert str(ROOT) not in str(found)
