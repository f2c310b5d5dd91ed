"""Commands that are flows: only if somebody says so, and then where Prefect's own settings say."""

import sqlite3
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from rag_index.orchestration.prefect_api import temporary_server
from tests.docs.pages import ROOT
from tests.forked_program import without_api
from tests.project import PROGRAM, Project

pytestmark = pytest.mark.long

NOWHERE = "http://127.0.0.1:9/api"
PROFILES = f'active = "office"\n[profiles.office]\nPREFECT_API_URL = "{NOWHERE}"\n'


def run(project: Project, *arguments: str, folder: Path | None = None, **environment: str):
    """Run the program as a user without a Prefect server, unless the environment names one."""
    command = [*PROGRAM, "--config", str(project.config), *arguments]
    environment = {**without_api(), "PREFECT_CLIENT_MAX_RETRIES": "0", **environment}
    return subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture
def project(tmp_path) -> Project:
    return Project(tmp_path / "project", extra='changes = "queue"\n').fill(5)


@pytest.mark.parametrize(
    ("way", "command"),
    [
        ("profile", "index-all"), ("environment", "doctor"), ("folder", "watch --once"),
        ("profile", "benchmark --sample-size 5 --workers 1"),
    ],
)  # fmt: skip
def test_a_prefect_server_that_does_not_answer_ends_a_flow_and_no_plain_command(project, tmp_path, way, command):
    """The server is named in one of the ways of Prefect, which alone reads them."""
    with project.source() as db:
        db.executescript(project.cli("watch", "--setup").stdout)
    (tmp_path / "profiles.toml").write_text(PROFILES if way == "profile" else "")
    (tmp_path / "prefect.toml").write_text(f'[api]\nurl = "{NOWHERE}"\n' if way == "folder" else "")
    named = {"PREFECT_HOME": str(tmp_path), **({"PREFECT_API_URL": NOWHERE} if way == "environment" else {})}
    ended = run(project, *command.split(), "--prefect", folder=tmp_path, **named)
    assert (ended.returncode, ended.stdout) == (1, ""), ended
    message = ended.stderr.strip().splitlines()[-1]
    assert f"the Prefect server at {NOWHERE} does not answer" in message
    assert "or leave out --prefect" in message
    assert not list(project.folder.rglob("ledger.db")), "it had done something"
    ended = run(project, *command.split(), folder=tmp_path, **named)
    assert ended.returncode == 0, ended


def test_without_a_named_server_a_flow_has_a_temporary_one_whose_runs_are_kept_in_the_data_folder(project, tmp_path):
    """Its tasks run on workers, which reach the server too. Nothing of it is left but its database."""
    home = project.folder / ".rag-index" / "prefect"
    own = {"HOME": str(tmp_path), "PREFECT_SERVER_DATABASE_CONNECTION_URL": "postgresql+asyncpg://nobody@127.0.0.1:9/x"}
    ended = run(project, "index-all", "--prefect", "--workers", "1", "--shard-documents", "2", **own)
    assert ended.returncode == 0, ended.stderr
    shown = ended.stderr.strip().splitlines()[-1]
    assert f"`PREFECT_HOME={home} prefect server start` shows this run at /runs/flow-run/" in shown
    assert home.stat().st_mode & 0o077 == 0
    run_id = shown.rpartition("/")[2]
    with temporary_server(home) as wait:
        found = wait()
        auth = tuple(found["PREFECT_API_AUTH_STRING"].split(":"))
        with httpx.Client(base_url=found["PREFECT_API_URL"], auth=auth, trust_env=False, timeout=60) as api:
            assert httpx.get(f"{api.base_url}flow_runs/{run_id}").status_code == 401, "another user may read it"
            state = api.get(f"/flow_runs/{run_id}").raise_for_status().json()["state"]
            assert state["message"] == "1 index: 5 documents indexed"
            tasks = api.post("/task_runs/filter", json={}).raise_for_status().json()
    assert {task["state_type"] for task in tasks} == {"COMPLETED"}
    assert len([task for task in tasks if task["name"].startswith("embed ")]) == 3
    with sqlite3.connect(project.folder / ".rag-index" / "ledger.db") as db:
        assert db.execute("SELECT count(*) FROM rag_index_runs").fetchone() == (1,)
    with subprocess.Popen([sys.executable, ROOT / ".ci/ui", home], stdout=subprocess.PIPE, text=True) as page:
        assert f"/runs/flow-run/{run_id}, until Ctrl-C" in page.stdout.readline(), "as `make ui` says"
        page.terminate()


@pytest.mark.parametrize("name", ["new/folder/prefect", "file/prefect"])
def test_a_home_of_prefect_that_does_not_exist_is_made_and_one_that_cannot_be_made_is_replaced(project, tmp_path, name):
    """Prefect warns, in each process, if it cannot create its folder."""
    (tmp_path / "file").touch()
    own = {"PREFECT_HOME": str(tmp_path / name), "HOME": str(tmp_path / "file")}
    ended = run(project, "index-all", "--prefect", "--workers", "1", "--shard-documents", "2", **own)
    assert ended.returncode == 0, ended.stderr
    assert "Warning" not in ended.stderr
    assert (tmp_path / name).exists() == name.startswith("new")


def test_a_temporary_server_that_does_not_start_is_named(project):
    home = project.folder / ".rag-index" / "prefect"
    home.mkdir(parents=True)
    (home / "prefect.db").write_text("not a database")
    ended = run(project, "index-all", "--prefect")
    assert ended.returncode == 1
    assert f"Prefect's temporary server with its database in {home} does not start" in ended.stderr
