"""A run in a terminal is cancelled on Prefect's page: it ends as after Ctrl-C."""

import os
import subprocess

import httpx
import pytest

from tests.fakes.ollama import FakeOllama
from tests.project import PROGRAM, Project
from tests.waiting import eventually


@pytest.mark.long
def test_a_run_in_a_terminal_that_is_cancelled_in_the_ui_ends(tmp_path, prefect_server):
    user, password = os.environ["PREFECT_API_AUTH_STRING"].split(":")
    client = httpx.Client(base_url=prefect_server, auth=(user, password), trust_env=False, timeout=30)
    with FakeOllama() as fake, client as api:
        fake.seconds_per_text = 0.2
        project = Project(tmp_path / "project", extra=fake.settings).fill(300)
        running = subprocess.Popen(
            [*PROGRAM, "--config", str(project.config), "index-all", "--serial"],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "PREFECT_API_URL": prefect_server},
        )  # fmt: skip
        try:
            eventually(fake.embeds, "documents are being embedded", every=0.1)
            found = api.post("/flow_runs/filter", json={"sort": "START_TIME_DESC", "limit": 10}).json()
            run = next(one["id"] for one in found if one["name"] == "index all")
            api.post(f"/flow_runs/{run}/set_state", json={"state": {"type": "CANCELLING"}}).raise_for_status()
            _, said = running.communicate(timeout=100)
        finally:
            running.kill()
        assert running.returncode == 130
        assert "the next run" in said.splitlines()[-1], said
        state = api.get(f"/flow_runs/{run}").json()["state"]
        assert (state["type"], "cancelled" in state["message"]) == ("CANCELLED", True)
        found = api.post("/artifacts/filter", json={"artifacts": {"flow_run_id": {"any_": [run]}}}).json()
        said = {one["key"]: one["description"] for one in found}["test-all-progress"]
        assert said.startswith("0 of 1 indexes, cancelled; what was committed is kept")
