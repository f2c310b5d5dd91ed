"""Deployments get a schedule, and one run at a time. With packages that do not fit, they deploy but never schedule."""

from __future__ import annotations

import datetime as dt

import pytest

from tests.deployments.server import ROOT
from tests.project import Project
from tests.waiting import eventually

pytestmark = pytest.mark.long


def test_the_server_schedules_future_runs_of_the_deployments(deployed):
    def planned():
        index_all = deployed.deployment("index-all/index-all")["id"]
        found = deployed.runs(deployment_id={"any_": [index_all]}, state={"type": {"any_": ["SCHEDULED"]}})
        return found if len(found) >= 3 else None

    runs = eventually(planned, "three nights are scheduled", every=0.25)
    now = dt.datetime.now(dt.UTC)
    times = [dt.datetime.fromisoformat(run["expected_start_time"]) for run in runs]
    assert all(time > now and (time.hour, time.minute) == (2, 0) for time in times)
    assert times == sorted(set(times))


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


def test_runs_come_one_at_a_time_and_missed_nights_are_made_up_once(deployed, tmp_path):
    """Three nights were missed, and somebody starts a run by hand as well: the worker runs only one of them."""
    project = Project(tmp_path / "project").fill(20)
    past = dt.datetime.now(dt.UTC) - dt.timedelta(days=3)
    started = []
    for night in range(3):
        scheduled = {"scheduled_time": (past + dt.timedelta(days=night)).isoformat()}
        state = {"type": "SCHEDULED", "state_details": scheduled}
        started.append(deployed.start("index-all/index-all", state=state, serial=True)["id"])
    started.append(deployed.start("index-all/index-all", serial=True)["id"])
    with deployed.worker(tmp_path / "elsewhere", RAG_INDEX_CONFIG=str(project.config)):
        ended = [deployed.wait_for_end(run) for run in started]
        states = sorted(run["state_name"] for run in ended)
        assert states == ["Cancelled", "Cancelled", "Cancelled", "Completed"], [run["state"] for run in ended]
        assert "concurrency" in next(run["state"]["message"] for run in ended if run["state_name"] == "Cancelled")
        assert len(project.texts()) == 20
        again = deployed.start("index-all/index-all", serial=True)["id"]
        assert deployed.wait_for_end(again)["state_name"] == "Completed", "the slot is not released"
