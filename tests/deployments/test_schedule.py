"""What is deployed is scheduled, and one run at a time: a broken pair of packages deploys and never schedules."""

from __future__ import annotations

import datetime as dt

import pytest

from tests.deployments.server import ROOT, wait_until
from tests.project import Project

pytestmark = pytest.mark.long


def test_the_server_schedules_future_runs_of_what_is_deployed(deployed):
    def planned():
        index_all = deployed.deployment("index-all/index-all")["id"]
        found = deployed.runs(deployment_id={"any_": [index_all]}, state={"type": {"any_": ["SCHEDULED"]}})
        return found if len(found) >= 3 else None

    runs = wait_until(planned, "three nights are scheduled")
    now = dt.datetime.now(dt.UTC)
    times = [dt.datetime.fromisoformat(run["expected_start_time"]) for run in runs]
    assert all(time > now and (time.hour, time.minute) == (2, 0) for time in times)
    assert times == sorted(set(times))


@pytest.mark.parametrize(
    "name", ["index-all/index-all", "index-collection/index-collection", "benchmark/benchmark", "doctor/doctor"]
)
def test_a_deployment_says_what_its_parameters_are_and_knows_no_folder(deployed, name):
    found = deployed.deployment(name)
    properties = found["parameter_openapi_schema"]["properties"]
    assert properties
    assert all(one.get("description") for one in properties.values()), properties
    assert found["description"]
    assert not found["pull_steps"]
    assert str(ROOT) not in str(found)


def test_one_run_at_a_time_and_a_late_night_is_caught_up_once(deployed, tmp_path):
    """Three nights were missed, and somebody starts a run by hand as well: the worker runs one of them."""
    project = Project(tmp_path / "project").fill(20)
    past = dt.datetime.now(dt.UTC) - dt.timedelta(days=3)
    started = []
    for night in range(3):
        scheduled = {"scheduled_time": (past + dt.timedelta(days=night)).isoformat()}
        state = {"type": "SCHEDULED", "state_details": scheduled}
        started.append(deployed.start("index-all/index-all", state=state, serial=True)["id"])
    started.append(deployed.start("index-all/index-all", serial=True)["id"])
    with deployed.worker(tmp_path / "elsewhere", RAG_INDEX_CONFIG=str(project.config)):
        ended = [deployed.ended(run) for run in started]
        states = sorted(run["state_name"] for run in ended)
        assert states == ["Cancelled", "Cancelled", "Cancelled", "Completed"], [run["state"] for run in ended]
        assert "concurrency" in next(run["state"]["message"] for run in ended if run["state_name"] == "Cancelled")
        assert len(project.texts()) == 20
        again = deployed.start("index-all/index-all", serial=True)["id"]
        assert deployed.ended(again)["state_name"] == "Completed", "the slot is given back"
