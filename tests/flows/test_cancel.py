"""A run in a terminal is cancelled on Prefect's page: it ends as after Ctrl-C."""

import os

import httpx
import pytest

from tests.fakes.ollama import FakeOllama
from tests.project import Project
from tests.reliability.victim import Victim
from tests.waiting import eventually


@pytest.mark.long
def test_a_run_in_a_terminal_that_is_cancelled_in_the_ui_ends(tmp_path, prefect_server):
    user, password = os.environ["PREFECT_API_AUTH_STRING"].split(":")
    client = httpx.Client(base_url=prefect_server, auth=(user, password), trust_env=False, timeout=30)
    with FakeOllama() as fake, client as api:
        fake.seconds_per_text = 0.2
        project = Project(tmp_path / "project", extra=fake.settings).fill(300)
        with Victim(project, "--serial") as running:
            eventually(fake.embeds, "documents are being embedded", every=0.1)
            found = api.post("/flow_runs/filter", json={"sort": "START_TIME_DESC", "limit": 10}).json()
            run = next(one["id"] for one in found if one["name"] == "index all")
            api.post(f"/flow_runs/{run}/set_state", json={"state": {"type": "CANCELLING"}}).raise_for_status()
            assert running.process.wait(100) == 130, running.output
        assert "the next run" in running.output.splitlines()[-1], running.output
        state = api.get(f"/flow_runs/{run}").json()["state"]
        assert (state["type"], "cancelled" in state["message"]) == ("CANCELLED", True)
        found = api.post("/artifacts/filter", json={"artifacts": {"flow_run_id": {"any_": [run]}}}).json()
        said = {one["key"]: one["description"] for one in found}["test-all-progress"]
        assert said.startswith("0 of 1 indexes, cancelled; what was committed is kept")
