"""The flow as a program: where Prefect's own settings say, or else with a server of its own. A
command is no flow. What another user of the machine can read of a project, and what runs of a
folder that he has prepared."""

import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path

import httpx
import psutil
import pytest
from prefect import flow

from flows.index_all import index_all
from rag_index.orchestration.launch import run_flow
from rag_index.orchestration.reporting import run_subflow
from tests.browser import Browser
from tests.docs.pages import ROOT
from tests.forked_program import without_api
from tests.ports import free_port
from tests.prefect_api import temporary_server
from tests.project import PROGRAM, Project
from tests.reliability.victim import FLOW, Victim
from tests.strangers import needs_second_user, readable_by_others
from tests.waiting import answers, eventually

NOWHERE = "http://127.0.0.1:9/api"
PROFILES = f'active = "office"\n[profiles.office]\nPREFECT_API_URL = "{NOWHERE}"\n'
QUIET = {
    "PREFECT_LOGGING_LEVEL": "CRITICAL",
    "DASK_LOGGING__DISTRIBUTED": "critical",
    "DO_NOT_TRACK": "1",
}
BROKEN = '\n[[indexes]]\nname = "broken"\ntable = "nothing"\nkey = "id"\ntext = ["title"]\n'
PLATFORM = {
    "PREFECT_FLOWS_DEFAULT_RETRIES": "2",
    "PREFECT_FLOWS_DEFAULT_RETRY_DELAY_SECONDS": "600",
    "PREFECT_RESULTS_PERSIST_BY_DEFAULT": "true",
    "PREFECT_RESULTS_DEFAULT_STORAGE_BLOCK": "local-file-system/missing",
    "PREFECT_TASKS_DEFAULT_RETRIES": "5",
    "PREFECT_TASKS_DEFAULT_RETRY_DELAY_SECONDS": "600",
    "PREFECT_TASKS_DEFAULT_PERSIST_RESULT": "true",
    "PREFECT_TASKS_REFRESH_CACHE": "true",
}
MANY_TASKS = """
from prefect import flow, task
from prefect.states import Completed
from rag_index.orchestration.launch import run_flow

@task
def step(number): pass

@flow
def part():
    for number in range(40):
        step(number)

@flow
def whole():
    part()
    return Completed(message="all done")

run_flow(whole)
"""
INSTALLED = Path(sys.executable).parent / "rag-index"
IMPORTED = (
    "flows tasks rag_index prefect distributed dask multiprocessing uvicorn socket json".split()
)


def run(project: Project, *command: str, folder: Path | None = None, **environment: str):
    """Run the flow, or a command, as a user without a Prefect server, unless the environment names
    one."""
    program = [*PROGRAM, *command] if command else FLOW
    own = {
        "RAG_INDEX_CONFIG": str(project.config),
        "PREFECT_HOME": str(project.folder / "prefect"),
        **QUIET,
    }
    # On a busy machine, a server of its own answers 503 while its SQLite is locked.
    retries = "0" if "PREFECT_API_URL" in environment else "3"
    environment = {**without_api(), **own, "PREFECT_CLIENT_MAX_RETRIES": retries, **environment}
    return subprocess.run(
        program, env=environment, cwd=folder, capture_output=True, text=True, check=False
    )


@pytest.fixture
def project(tmp_path) -> Project:
    return Project(tmp_path / "project").fill(5)


@pytest.mark.long
@pytest.mark.parametrize("way", ["profile", "environment", "folder"])
def test_a_prefect_server_that_does_not_answer_ends_the_flow_and_no_command(project, tmp_path, way):
    """The server is named in one of the ways of Prefect, which alone reads them."""
    (tmp_path / "profiles.toml").write_text(PROFILES if way == "profile" else "")
    (tmp_path / "prefect.toml").write_text(f'[api]\nurl = "{NOWHERE}"\n' if way == "folder" else "")
    named = {
        "PREFECT_HOME": str(tmp_path),
        **({"PREFECT_API_URL": NOWHERE} if way == "environment" else {}),
    }
    ended = run(project, folder=tmp_path, **named)
    assert (ended.returncode, ended.stdout) == (1, ""), ended
    assert len(ended.stderr.splitlines()) == 1, ended.stderr
    assert f"the Prefect server does not answer (Failed to reach API at {NOWHERE}" in ended.stderr
    assert not list(project.folder.rglob("ledger.db")), "it had done something"
    ended = run(project, "index-all", folder=tmp_path, **named)
    assert ended.returncode == 0, ended


@pytest.mark.long
def test_without_a_named_server_the_flow_starts_one_for_itself_and_its_workers(project, tmp_path):
    """Its runs are kept where Prefect's settings say, for `prefect server start`. Nothing else of
    it is left."""
    home = tmp_path / "home"
    parallel = {"RAG_INDEX_PARALLEL__WORKERS": "1", "RAG_INDEX_PARALLEL__SHARD_DOCUMENTS": "2"}
    ended = run(project, PREFECT_HOME=str(home), **parallel)
    assert (ended.returncode, ended.stdout) == (0, ""), ended.stderr
    assert ended.stderr.splitlines()[-1] == "rag-index: 1 index: 5 documents indexed"
    with temporary_server(home) as found:
        auth = tuple(found["PREFECT_API_AUTH_STRING"].split(":"))
        with httpx.Client(
            base_url=found["PREFECT_API_URL"], auth=auth, trust_env=False, timeout=60
        ) as api:
            assert httpx.get(f"{api.base_url}flow_runs/filter").status_code == 401, (
                "another user may read it"
            )
            runs = api.post("/flow_runs/filter", json={}).raise_for_status().json()
            tasks = api.post("/task_runs/filter", json={}).raise_for_status().json()
    ended = {one["name"]: one["state"]["message"] for one in runs}
    assert ended == dict.fromkeys(("index all", "index notes"), "1 index: 5 documents indexed")
    assert {task["state_type"] for task in tasks} == {"COMPLETED"}
    assert len([task for task in tasks if task["name"].startswith("embed ")]) == 3
    with sqlite3.connect(project.folder / ".rag-index" / "ledger.db") as db:
        assert db.execute("SELECT count(*) FROM rag_index_runs").fetchone() == (1,), (
            "workers ran no flow"
        )


@pytest.mark.long
def test_a_server_of_a_flow_is_ended_only_once_it_has_recorded_how_all_tasks_ended(tmp_path):
    """It records later than it is told, here of many tasks a second, and forgets the rest as it
    ends."""
    program = tmp_path / "program.py"
    program.write_text(MANY_TASKS)
    environment = {**without_api(), **QUIET, "PREFECT_HOME": str(tmp_path / "home")}
    ended = subprocess.run(
        [sys.executable, program], env=environment, capture_output=True, text=True, check=False
    )
    assert ended.stderr == "rag-index: all done\n"
    with closing(sqlite3.connect(tmp_path / "home" / "prefect.db")) as db:
        states = dict(
            db.execute(
                "SELECT state_type, count(*) FROM task_run WHERE name LIKE 'step%' GROUP BY 1"
            )
        )
    assert states == {"COMPLETED": 40}


@pytest.mark.long
@pytest.mark.parametrize("killed", ["server", "flow", "told to end"])
def test_a_flow_with_a_server_of_its_own_ends_with_all_its_processes(
    project, fake, tmp_path, killed
):
    """Whoever is killed: the flow ends without its server, and the server without the flow."""
    project = Project(tmp_path / "other", extra=fake.settings).fill(60)
    fake.seconds_per_text = 0.2
    own = {
        "PREFECT_HOME": str(tmp_path / "home"),
        "PREFECT_API_URL": "",
        "PREFECT_CLIENT_MAX_RETRIES": "1",
        **QUIET,
    }
    with Victim(project, "--workers", "2", "--shard-documents", "5", **own) as run:
        eventually(lambda: run.ended or len(fake.embeds()) > 6, lambda: run.output)
        [server] = [
            one for one in run.processes() if "prefect.server.api.server" in " ".join(one.cmdline())
        ]
        if killed == "told to end":
            run.process.terminate()
        else:
            (server if killed == "server" else psutil.Process(run.process.pid)).kill()
        assert (
            run.process.wait(240)
            == {"server": 1, "flow": -signal.SIGKILL, "told to end": 130}[killed]
        ), run.output
        eventually(run.gone, lambda: [one.cmdline() for one in run.processes()], seconds=60)
        if killed != "flow":
            ours = [
                line for line in run.output.splitlines() if " | ERROR " not in line
            ]  # Prefect logs what it lost
            assert ours[-1].startswith("rag-index: "), run.output
            assert "Traceback" not in run.output
    fake.seconds_per_text = 0
    assert (project.run().state, len(project.texts())) == ("completed", 60)


@pytest.mark.parametrize("stop", ["TerminationSignal", "KeyboardInterrupt"])
def test_a_stop_that_became_an_error_of_one_index_ends_the_whole_run(prefect_server, stop):
    """It may come while a serializer of Prefect's works, which makes an error of its own of it."""
    begun = []

    @flow
    def part(name):
        begun.append(name)
        raise ValueError(f"Error calling function `_ser_model`: {stop}: ")

    @flow
    def whole():
        for name in ("first", "second"):
            run_subflow(part, name)

    assert (run_flow(whole), begun) == (130, ["first"])


@pytest.mark.long
@pytest.mark.parametrize(
    ("settings", "code", "said"),
    [
        ("", 0, "1 index: 5 documents indexed"),
        ("blob", 3, "partially indexed: 1 index: 5 documents indexed, 1 failed"),
        (BROKEN, 1, "index broken: table 'nothing' cannot be read"),
        ("\n[parallel]\nworkers = 0\n", 2, "workers"),
    ],
)
def test_the_exit_code_is_that_of_the_command(
    project, prefect_server, monkeypatch, capsys, settings, code, said
):
    if settings == "blob":
        project.execute("INSERT INTO note VALUES (51, 'blob', ?, 'a', 1)", b"\xff")
    else:
        project.write_settings(project.config.read_text() + settings)
    monkeypatch.setenv("RAG_INDEX_CONFIG", str(project.config))
    assert run_flow(index_all) == code
    [line] = capsys.readouterr().err.strip().splitlines()[-1:]
    assert line.startswith(f"rag-index: {said}") or (code == 2 and said in line)
    assert project.cli("index-all", "--serial").returncode == code


@pytest.mark.long
def test_the_page_of_make_ui_shows_the_run_on_any_port(project, tmp_path):
    home, port = tmp_path / "home", free_port()
    assert run(project, PREFECT_HOME=str(home)).returncode == 0
    (home / "prefect.db").touch()
    command = [
        "make",
        "ui",
        f"PREFECT={home}",
        f"BIN={Path(sys.executable).parent}",
        f"PORT={port}",
    ]
    with (tmp_path / "ui.txt").open("w") as log:
        streams = {"stdout": log, "stderr": log, "stdin": subprocess.DEVNULL}
        serving = subprocess.Popen(command, cwd=ROOT, env=without_api(), process_group=0, **streams)
    try:
        url, said = f"http://127.0.0.1:{port}", (tmp_path / "ui.txt").read_text
        eventually(
            lambda: serving.poll() is not None or answers(f"{url}/api/health"), said, every=0.25
        )
        assert serving.poll() is None, said()
        with Browser(tmp_path / "chromium") as browser:
            browser.open(f"{url}/runs")
            browser.wait_for("index all", "Completed")
    finally:
        os.killpg(serving.pid, signal.SIGTERM)
        serving.wait(60)


@pytest.mark.long
@pytest.mark.parametrize("storage", ["environment", "server"])
def test_what_a_platform_sets_for_all_flows_changes_no_outcome(
    tmp_path, fake, prefect_server, storage
):
    project = Project(tmp_path / "project", extra=fake.settings).fill(40)
    given = {
        name: value
        for name, value in PLATFORM.items()
        if storage == "environment" or "BLOCK" not in name
    }
    api = {name: value for name, value in os.environ.items() if name.startswith("PREFECT_API_")}
    with server_storage(tmp_path / "nowhere") if storage == "server" else nullcontext():
        parallel = {"RAG_INDEX_PARALLEL__WORKERS": "1", "RAG_INDEX_PARALLEL__SHARD_DOCUMENTS": "20"}
        ended = run(project, **parallel, **given, **api)
        assert ended.returncode == 0, ended
        fake.fault("status", code=400, marker="POISON", words="cannot embed this")
        project.execute("UPDATE note SET body = 'POISON here' WHERE id = 7")
        ended = run(project, **given, **api)
    assert ended.returncode == 3, ended
    assert not (tmp_path / "nowhere").exists()
    auth = tuple(api["PREFECT_API_AUTH_STRING"].split(":"))
    wanted = {"sort": "START_TIME_DESC", "limit": 2}
    runs = httpx.post(
        f"{prefect_server}/flow_runs/filter", json=wanted, auth=auth, trust_env=False
    ).json()
    assert [one["name"] for one in runs] == ["index notes", "index all"]
    for one in runs:
        assert (one["state"]["name"], one["run_count"]) == ("Failed", 1)
        assert "1 failed" in one["state"]["message"]


@contextmanager
def server_storage(folder: Path):
    """Let the server name a folder as the place of all results."""
    from prefect import get_client
    from prefect.filesystems import LocalFileSystem

    block = LocalFileSystem(basepath=str(folder)).save("everybody", overwrite=True)
    with get_client(sync_client=True) as client:
        client.update_server_default_result_storage(block)
        try:
            yield
        finally:
            client.clear_server_default_result_storage()


def run_installed(
    project: Project, folder: Path, *arguments: str, **environment: str
) -> subprocess.CompletedProcess:
    """Run the installed program in a folder, or without arguments the flow, without a Prefect
    server."""
    clean = {name: value for name, value in without_api().items() if name != "PYTHONSAFEPATH"}
    command = [INSTALLED, *arguments] if arguments else FLOW
    own = {"RAG_INDEX_CONFIG": str(project.config), "PREFECT_HOME": str(project.folder / "prefect")}
    environment = {**clean, **own, **environment}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


@pytest.fixture
def shared_place():
    """A folder that other users can reach, unlike those of pytest."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.mark.long
@needs_second_user
def test_another_user_can_read_nothing_that_a_run_writes(shared_place):
    project = Project(shared_place / "project").fill(300)
    project.folder.chmod(0o755)
    ended = run_installed(
        project, project.folder, "index-all", "--workers", "1", "--shard-documents", "100"
    )
    assert ended.returncode == 0, ended.stderr
    data = project.folder / ".rag-index"
    assert sorted(path.name for path in data.iterdir()) == ["ledger.db", "qdrant"]
    not_ours = ["rag-index.toml", "source.db"]
    assert readable_by_others(project.folder) == not_ours

    for path in (data, *data.rglob("*")):  # as a copy may leave it
        path.chmod(0o755)
    assert len(readable_by_others(project.folder)) > 10
    ended = run_installed(project, project.folder, "index-all")
    assert (ended.returncode, readable_by_others(project.folder)) == (0, not_ours), ended.stderr


@pytest.mark.long
def test_a_folder_that_a_command_or_the_flow_is_started_in_is_not_imported_from(tmp_path):
    """Nor do the workers and the Prefect server of the flow import from there."""
    project = Project(tmp_path / "project").fill(300)
    place = tmp_path / "planted"
    place.mkdir()
    for name in IMPORTED:
        (place / f"{name}.py").write_text(
            f"open({str(tmp_path / 'ran')!r}, 'a').write({name + chr(10)!r})\n"
        )
    ended = run_installed(project, place, "index-all", "--workers", "1", "--shard-documents", "100")
    ran = (tmp_path / "ran").read_text().split() if (tmp_path / "ran").exists() else []
    assert (ended.returncode, ran) == (0, []), ended.stderr
    project.execute("UPDATE note SET body = 'changed' WHERE id = 7")
    flow = run_installed(
        project, place, RAG_INDEX_PARALLEL__WORKERS="1", RAG_INDEX_PARALLEL__SHARD_DOCUMENTS="1"
    )
    assert (flow.returncode, (tmp_path / "ran").exists()) == (0, False), flow.stderr
    assert run_installed(project, place, "doctor").returncode == 0
    assert run_installed(project, place, "index", "notes", "--id", "7").returncode == 0
    assert not (tmp_path / "ran").exists()
