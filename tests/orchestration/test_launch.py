"""Which Prefect server a run of the command line uses: one that the environment or a Prefect profile names."""

import json
import subprocess
import sys

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


def test_a_server_that_a_profile_names_is_used_and_one_that_was_started_already_ends(tmp_path, prefect_server):
    """One that the environment names is used by the tests of all flows."""
    (tmp_path / "profiles.toml").write_text(PROFILE.format(url=prefect_server))
    environment = {**without_api(), "PREFECT_HOME": str(tmp_path)}
    asked = subprocess.run([sys.executable, "-c", ASK], capture_output=True, text=True, check=True, env=environment)
    assert json.loads(asked.stdout) == {"named": True, "url": prefect_server, "running": False}


def test_a_prefect_server_that_does_not_answer_ends_the_run(tmp_path):
    project = Project(tmp_path / "project").fill(5)
    ended = project.cli("index-all", PREFECT_API_URL="http://127.0.0.1:9/api", PREFECT_CLIENT_MAX_RETRIES="0")
    assert ended.returncode == 1
    message = ended.stderr.strip().splitlines()[-1]
    assert "the Prefect server at http://127.0.0.1:9/api does not answer" in message
    assert "PREFECT_API_URL" in message
    assert not list(project.folder.rglob("ledger.db")), "it had done something"
