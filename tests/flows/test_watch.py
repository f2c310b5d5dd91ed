"""A watch under Prefect: each batch with work is a flow run, and looking for changes makes none."""

from contextlib import closing
from functools import partial

import httpx
import pytest
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, temporary_settings

from rag_index.components.ledger import Ledger
from rag_index.errors import TransientError
from rag_index.orchestration.stopping import FlowRunner
from rag_index.watch.loop import Stop
from tests.etl.plain import run_plain
from tests.ports import free_port
from tests.prefect_api import temporary_server
from tests.project import Project
from tests.reliability.victim import Victim
from tests.waiting import eventually


def watch(project):
    """Run the flow in this process once, against the session's Prefect server; return whether it caught up."""
    from rag_index.orchestration.launch import launch

    def load():
        from flows.watch import watch

        return watch

    return launch(load, project.folder / ".prefect", config=str(project.config), indexes=["notes"], once=True)


def batches():
    """Return the names and states of all batches that the server knows."""
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs()
    return sorted((run.name, run.state_name) for run in runs if run.name.startswith("notes: "))


def test_a_batch_is_a_flow_run_and_a_look_is_none(tmp_path, prefect_server):
    project = Project(tmp_path / "project").fill(12)
    project.execute("ALTER TABLE note ADD COLUMN changed TEXT DEFAULT '2020-01-01 00:00:00'")
    project.write_settings(project.config.read_text() + 'changed_since = "changed"\n')
    run_plain(project)
    assert watch(project)  # polling without a watermark gives every row once
    before = batches()
    assert watch(project)
    project.execute("UPDATE note SET body = 'the pump is mended', changed = datetime('now') WHERE id = 5")
    assert watch(project)
    assert project.texts()["5"] == ["Note 5\nthe pump is mended"]
    assert len(batches()) > len(before)
    assert {state for _, state in batches()} == {"Completed"}


@pytest.mark.long
def test_an_ordinary_run_uses_the_temporary_server_of_its_watch(tmp_path, fake):
    project = Project(tmp_path / "project", fake.settings).fill(5)
    project.execute("ALTER TABLE note ADD COLUMN changed TEXT DEFAULT '2020-01-01 00:00:00'")
    project.write_settings(project.config.read_text() + 'changed_since = "changed"\n')
    nowhere = {"PREFECT_HOME": str(tmp_path / "nowhere"), "PREFECT_API_AUTH_STRING": ""}
    fake.fault("hang", marker="Note")
    with Victim(project, "--once", run="watch", **nowhere) as watch:
        eventually(lambda: watch.ended or any("Note" in one.texts[0] for one in fake.embeds()))
        servers = [one for one in watch.processes() if "prefect.server.api.server" in " ".join(one.cmdline())]
        assert len(servers) == 1, watch.output
        fake.clear()
        fake.restart()
        eventually(lambda: watch.ended)
    home = project.folder / ".rag-index" / "prefect"
    shown = [line for line in watch.output.splitlines() if "shows this run at" in line]
    assert [f"PREFECT_HOME={home}" in line for line in shown] == [True, True], watch.output
    assert len(project.texts()) == 5
    with temporary_server(home) as found, httpx.Client(
        base_url=found["PREFECT_API_URL"], auth=tuple(found["PREFECT_API_AUTH_STRING"].split(":")), timeout=60
    ) as api:  # fmt: skip
        runs = api.post("/flow_runs/filter", json={}).raise_for_status().json()
    assert {(run["name"], run["state_name"]) for run in runs} >= {("index notes", "Completed")}


@pytest.mark.parametrize(
    "whole", [pytest.param(False, id="batch"), pytest.param(True, id="ordinary run", marks=pytest.mark.long)]
)
def test_a_watch_outlives_a_prefect_server_that_is_gone(tmp_path, monkeypatch, whole):
    """A batch is indexed without a flow run; a whole run, which needs workers, waits for the server."""
    from flows.watch import index_changes

    project = Project(tmp_path / "project").fill(12)
    run_plain(project)
    project.execute("UPDATE note SET body = 'the pump is mended' WHERE id = 5")
    with closing(Ledger(project.settings.ledger_url)) as ledger:
        ledger.put_changes([("test_notes", "5", 1.0)])
        gone = f"http://127.0.0.1:{free_port()}/api"
        monkeypatch.setenv("PREFECT_API_URL", gone)
        with (
            temporary_settings({PREFECT_API_URL: gone}),
            closing(FlowRunner(project.settings, Stop(), index_changes)) as runner,
        ):
            begun = partial(runner.index_changes, "notes", 1) if not whole else runner.begin_run("notes").applied
            applied = eventually(begun)
        if whole:
            assert isinstance(applied.error, TransientError)
            assert f"the Prefect server at {gone} does not answer" in str(applied.error)
            assert "PREFECT_API_URL" in str(applied.error)
        else:
            assert (applied.error, project.texts()["5"]) == (None, ["Note 5\nthe pump is mended"])
