"""Which Prefect server a run of the command line uses: one that the environment or a Prefect profile names."""

import json
import subprocess
import sys

import pytest

from tests.forked_program import without_api
from tests.project import Project

PROFILE = 'active = "team"\n\n[profiles.team]\nPREFECT_API_URL = "{url}"\n'
ASK = """
import json
from pathlib import Path
from rag_index.orchestration import api_server, launch
named = launch.names_api(Path("unused"))
launch.quiet(Path("unused"))
started = api_server.ApiServer()
with api_server.prefect_api(started) as url:
    print(json.dumps({"named": named, "url": url, "running": started._process.poll() is None}))
"""


def chosen_server(folder, **environment) -> dict:
    command, environment = [sys.executable, "-c", ASK], {**without_api(), **environment}
    run = subprocess.run(command, capture_output=True, text=True, check=True, env=environment, cwd=folder)
    return json.loads(run.stdout)


@pytest.mark.parametrize("named_by", ["profile", "environment"])
def test_a_server_that_is_named_is_used_and_one_that_was_started_already_ends(tmp_path, prefect_server, named_by):
    (tmp_path / "profiles.toml").write_text(PROFILE.format(url=prefect_server))
    named = {"profile": {"PREFECT_HOME": str(tmp_path)}, "environment": {"PREFECT_API_URL": prefect_server}}[named_by]
    assert chosen_server(tmp_path, **named) == {"named": True, "url": prefect_server, "running": False}


def test_a_prefect_server_that_does_not_answer_ends_the_run(tmp_path):
    project = Project(tmp_path / "project").fill(5)
    ended = project.cli("index-all", PREFECT_API_URL="http://127.0.0.1:9/api", PREFECT_CLIENT_MAX_RETRIES="0")
    assert ended.returncode == 1
    message = ended.stderr.strip().splitlines()[-1]
    assert "the Prefect server at http://127.0.0.1:9/api does not answer" in message
    assert "PREFECT_API_URL" in message
    assert not list(project.folder.rglob("ledger.db")), "it had done something"
