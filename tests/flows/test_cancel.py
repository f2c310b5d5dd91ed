"""A flow in a terminal is cancelled on Prefect's page: it ends as after Ctrl-C."""

import os
from contextlib import ExitStack

import httpx
import pytest

from tests.fakes.ollama import FakeOllama
from tests.live.qdrant import STORES, project_on
from tests.project import Project
from tests.reliability.victim import Victim
from tests.waiting import eventually


@pytest.mark.long
@pytest.mark.parametrize("store", STORES)
def test_a_run_in_a_terminal_that_is_cancelled_in_the_ui_ends(tmp_path, prefect_server, store):
    """In one process, or with workers that write to a server."""
    arguments = ["--serial"] if store == "embedded" else ["--workers", "2", "--shard-documents", "20"]
    user, password = os.environ["PREFECT_API_AUTH_STRING"].split(":")
    client = httpx.Client(base_url=prefect_server, auth=(user, password), trust_env=False, timeout=30)
    with FakeOllama() as fake, client as api, ExitStack() as stack:
        fake.seconds_per_text = 0.2

        def make(settings: str) -> Project:
            return Project(tmp_path / "project", extra=fake.settings + settings).fill(300)

        project = stack.enter_context(project_on(store, make))
        with Victim(project, *arguments) as running:
            eventually(lambda: len(fake.embeds()) > 3, "documents are being embedded", every=0.1)
            found = api.post("/flow_runs/filter", json={"sort": "START_TIME_DESC", "limit": 10}).json()
            run = next(one["id"] for one in found if one["name"] == "index all")
            api.post(f"/flow_runs/{run}/set_state", json={"state": {"type": "CANCELLING"}}).raise_for_status()
            assert running.process.wait(100) == 130, running.output
            assert "Traceback" not in running.output
            eventually(running.gone, seconds=60)
        assert "the next run" in running.output.splitlines()[-1], running.output
        state = api.get(f"/flow_runs/{run}").json()["state"]
        assert (state["type"], "cancelled" in state["message"]) == ("CANCELLED", True)
        found = api.post("/artifacts/filter", json={"artifacts": {"flow_run_id": {"any_": [run]}}}).json()
        said = {one["key"]: one["description"] for one in found}[f"{project.settings.project}-all-progress"]
        assert said.startswith("0 of 1 indexes, cancelled; what was committed is kept")
