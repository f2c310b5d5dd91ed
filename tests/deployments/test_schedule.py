"""Deployments describe what they take and get a schedule, and one run of all indexes is under way at a time."""

import datetime as dt
import re
from contextlib import closing

import pytest

from rag_index.components.ledger import Ledger
from rag_index.components.ledger.runs import IndexLease
from tests.deployments.server import ROOT
from tests.project import Project
from tests.waiting import eventually

pytestmark = pytest.mark.long


def test_the_server_schedules_future_runs_of_the_deployments(deployed):
    """With packages that do not fit, it would deploy them, but never schedule."""
    index_all = deployed.deployment("index-all/index-all")["id"]

    def planned() -> list[dt.datetime]:
        found = deployed.runs(deployment_id={"any_": [index_all]}, state={"type": {"any_": ["SCHEDULED"]}})
        return sorted(dt.datetime.fromisoformat(run["expected_start_time"]) for run in found)

    times = eventually(lambda: len(planned()) >= 3 and planned(), "three nights are scheduled", every=0.25)
    assert all(time > dt.datetime.now(dt.UTC) and (time.hour, time.minute) == (2, 0) for time in times)
    assert len(set(times)) == len(times)


@pytest.mark.parametrize(
    "name", ["index-all/index-all", "index-collection/index-collection", "benchmark/benchmark", "doctor/doctor"]
)
def test_a_deployment_describes_its_parameters_and_names_no_folder(deployed, name):
    found = deployed.deployment(name)
    properties = found["parameter_openapi_schema"]["properties"]
    assert properties
    assert all(one.get("description") for one in properties.values()), properties
    assert found["description"]
    assert not found["pull_steps"]
    assert str(ROOT) not in str(found)


def test_runs_come_one_at_a_time(deployed, tmp_path):
    """While a run is under way, one more waits to index what changes meanwhile, and others end at once and say why."""
    project = Project(tmp_path / "project").fill(20)
    past = dt.datetime.now(dt.UTC) - dt.timedelta(days=2)
    scheduled = {"type": "SCHEDULED", "state_details": {"scheduled_time": past.isoformat()}}
    with deployed.worker(tmp_path / "elsewhere", RAG_INDEX_CONFIG=str(project.config)):
        with (
            closing(Ledger(project.settings.ledger_url)) as ledger,
            IndexLease(ledger, f"{project.settings.project} index-all", "another run"),
        ):
            waiting = deployed.start("index-all/index-all", state=scheduled, serial=True)["id"]
            eventually(lambda: "waiting for the run that is under way" in "".join(deployed.logs(waiting)), every=0.25)
            late = deployed.start("index-all/index-all", serial=True)["id"]
            ended = deployed.wait_for_end(late)
            assert ended["state_name"] == "Cancelled", ended["state"]
            said = "another run waits already, .* \\(the next run of all indexes waits in process [0-9]+ on "
            assert re.match(said, ended["state"]["message"])
            assert "Traceback" not in "".join(deployed.logs(late))
            project.fill(5, first=21)
        assert deployed.wait_for_end(waiting)["state_name"] == "Completed", "the lease is not released"
    assert len(project.texts()) == 25
