"""Another user of the machine: what he can read of a project, and what runs of a folder that he has prepared."""

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.forked_program import without_api
from tests.project import Project
from tests.reliability.victim import FLOW
from tests.strangers import needs_second_user, readable_by_others

PROGRAM = Path(sys.executable).parent / "rag-index"
IMPORTED = "flows tasks rag_index prefect distributed dask multiprocessing uvicorn socket json".split()


def run(project: Project, folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the installed program in a folder, or without arguments the flow, without a Prefect server."""
    clean = {name: value for name, value in without_api().items() if name != "PYTHONSAFEPATH"}
    command = [PROGRAM, *arguments] if arguments else FLOW
    own = {"RAG_INDEX_CONFIG": str(project.config), "PREFECT_HOME": str(project.folder / "prefect")}
    environment = {**clean, **own, **environment}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


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
    ended = run(project, project.folder, "index-all", "--workers", "1", "--shard-documents", "100")
    assert ended.returncode == 0, ended.stderr
    data = project.folder / ".rag-index"
    assert sorted(path.name for path in data.iterdir()) == ["ledger.db", "qdrant"]
    not_ours = ["rag-index.toml", "source.db"]
    assert readable_by_others(project.folder) == not_ours

    for path in (data, *data.rglob("*")):  # as an earlier version left it
        path.chmod(0o755)
    assert len(readable_by_others(project.folder)) > 10
    ended = run(project, project.folder, "index-all")
    assert (ended.returncode, readable_by_others(project.folder)) == (0, not_ours), ended.stderr


@pytest.mark.long
def test_a_folder_that_a_command_or_the_flow_is_started_in_is_not_imported_from(tmp_path):
    """Nor do the workers and the Prefect server of the flow import from there."""
    project = Project(tmp_path / "project").fill(300)
    place = tmp_path / "planted"
    place.mkdir()
    for name in IMPORTED:
        (place / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'a').write({name + chr(10)!r})\n")
    ended = run(project, place, "index-all", "--workers", "1", "--shard-documents", "100")
    ran = (tmp_path / "ran").read_text().split() if (tmp_path / "ran").exists() else []
    assert (ended.returncode, ran) == (0, []), ended.stderr
    project.execute("UPDATE note SET body = 'changed' WHERE id = 7")
    flow = run(project, place, RAG_INDEX_PARALLEL__WORKERS="1", RAG_INDEX_PARALLEL__SHARD_DOCUMENTS="1")
    assert (flow.returncode, (tmp_path / "ran").exists()) == (0, False), flow.stderr
    assert run(project, place, "doctor").returncode == 0
    assert run(project, place, "index", "notes", "--id", "7").returncode == 0
    assert not (tmp_path / "ran").exists()
