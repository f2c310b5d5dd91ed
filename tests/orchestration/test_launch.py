"""A Prefect server that a run cannot reach."""

import os
import subprocess

from tests.project import PROGRAM, Project


def test_a_prefect_server_that_does_not_answer_ends_the_run(tmp_path):
    project = Project(tmp_path / "project").fill(5)
    ended = project.cli("index-all", PREFECT_API_URL="http://127.0.0.1:9/api", PREFECT_CLIENT_MAX_RETRIES="0")
    assert ended.returncode == 1
    message = ended.stderr.strip().splitlines()[-1]
    assert "the Prefect server at http://127.0.0.1:9/api does not answer" in message
    assert "PREFECT_API_URL" in message
    assert not list(project.folder.rglob("ledger.db")), "it had done something"


def test_settings_of_dask_that_cannot_be_read_are_named_and_stop_no_run(tmp_path):
    project = Project(tmp_path / "project").fill(3)
    file = tmp_path / "dask.yaml"
    for text, said in (("a: [1", "malformed"), ("logging: {version: 1, root: {handlers: [no]}}", "root logger")):
        file.write_text(text)
        api = {"PREFECT_API_URL": "http://127.0.0.1:9/api", "PREFECT_CLIENT_MAX_RETRIES": "0"}
        command = [*PROGRAM, "--config", str(project.config), "index-all"]
        env = {**os.environ, **api, "DASK_CONFIG": str(file)}
        ended = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stderr
        assert "Dask cannot be used" in ended.stderr
        assert said in ended.stderr
        assert "goes on without workers and Prefect" in ended.stderr
