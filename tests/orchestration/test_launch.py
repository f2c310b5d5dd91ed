"""A Prefect server that a run cannot reach."""

from tests.project import Project


def test_a_prefect_server_that_does_not_answer_ends_the_run(tmp_path):
    project = Project(tmp_path / "project").fill(5)
    ended = project.cli("index-all", PREFECT_API_URL="http://127.0.0.1:9/api", PREFECT_CLIENT_MAX_RETRIES="0")
    assert ended.returncode == 1
    message = ended.stderr.strip().splitlines()[-1]
    assert "the Prefect server at http://127.0.0.1:9/api does not answer" in message
    assert "PREFECT_API_URL" in message
    assert not list(project.folder.rglob("ledger.db")), "it had done something"
