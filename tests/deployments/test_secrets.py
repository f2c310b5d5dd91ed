"""A password in a Prefect Secret block: the worker gets it, and nobody else.

The reference to the block may not stand in prefect.yaml: `prefect deploy` puts the value in its place.
"""

import subprocess
import sys

import pytest

from tests.project import Project

SECRET = "battery-staple-horse"
MAKE = "from prefect.blocks.system import Secret; Secret(value={!r}).save('rag-index-source', overwrite=True)"


@pytest.mark.long
def test_a_secret_block_reaches_the_run_and_cannot_be_read(deployed, tmp_path):
    project = Project(tmp_path / "project").fill(10)
    settings = project.config.read_text()
    project.write_settings(settings.replace("sqlite:///source.db", "sqlite:///not-there.db"))
    (project.folder / SECRET).mkdir()  # the name of the database alone is told, by Prefect's asset of the table
    (project.folder / "source.db").rename(project.folder / SECRET / "source.db")
    url = f"sqlite:///{project.folder}/{SECRET}/source.db"
    subprocess.run([sys.executable, "-c", MAKE.format(url)], env=deployed.environment, check=True, timeout=60)

    # As a person does in the UI: Deployments, index-all, Edit, Job Variables.
    night = deployed.deployment("index-all/index-all")
    before = night["job_variables"]
    reference = {"RAG_INDEX_SOURCE__URL": "{{ prefect.blocks.secret.rag-index-source }}"}
    deployed.patch(f"/deployments/{night['id']}", job_variables={**before, "env": {**before["env"], **reference}})
    with deployed.worker(tmp_path / "elsewhere", RAG_INDEX_CONFIG=str(project.config)):
        ended = deployed.wait_for_end(deployed.start("index-all/index-all", serial=True)["id"])
    deployed.patch(f"/deployments/{night['id']}", job_variables=before)
    assert ended["state_name"] == "Completed", ended["state"]
    kept = [path for path in deployed.home.rglob("*") if path.is_file()]
    kept.append(tmp_path / "elsewhere" / "worker.log")
    assert any(path.name == "prefect.db" for path in kept)
    assert not [path for path in kept if SECRET.encode() in path.read_bytes()]
