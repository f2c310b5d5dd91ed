"""What a platform sets for all of its flows, in the environment of a run or on its server."""

import os
from contextlib import contextmanager, nullcontext
from pathlib import Path

import httpx
import pytest

from tests.orchestration.test_launch import run
from tests.project import Project

PLATFORM = {
    "PREFECT_FLOWS_DEFAULT_RETRIES": "2", "PREFECT_FLOWS_DEFAULT_RETRY_DELAY_SECONDS": "600",
    "PREFECT_RESULTS_PERSIST_BY_DEFAULT": "true", "PREFECT_RESULTS_DEFAULT_STORAGE_BLOCK": "local-file-system/missing",
    "PREFECT_TASKS_DEFAULT_RETRIES": "5", "PREFECT_TASKS_DEFAULT_RETRY_DELAY_SECONDS": "600",
    "PREFECT_TASKS_DEFAULT_PERSIST_RESULT": "true", "PREFECT_TASKS_REFRESH_CACHE": "true",
}  # fmt: skip


@pytest.mark.long
@pytest.mark.parametrize("storage", ["environment", "server"])
def test_what_a_platform_sets_for_all_flows_changes_no_outcome(tmp_path, fake, prefect_server, storage):
    project = Project(tmp_path / "project", extra=fake.settings).fill(40)
    given = {name: value for name, value in PLATFORM.items() if storage == "environment" or "BLOCK" not in name}
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
    runs = httpx.post(f"{prefect_server}/flow_runs/filter", json=wanted, auth=auth, trust_env=False).json()
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
