"""Another user of the machine: what he can read of a project, and what runs of a folder that he has prepared."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from rag_index.orchestration.launch import trusted_folder
from tests.forked_program import without_api
from tests.project import Project
from tests.strangers import NOBODY, needs_second_user, readable_by_others

PROGRAM = Path(sys.executable).parent / "rag-index"
IMPORTED = "flows tasks rag_index prefect distributed dask multiprocessing uvicorn socket json".split()


def run(project: Project, folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the installed program in a folder, without a Prefect server unless the environment names one."""
    clean = {name: value for name, value in without_api().items() if name != "PYTHONSAFEPATH"}
    return subprocess.run(
        [PROGRAM, "--config", project.config, *arguments],
        cwd=folder, env={**clean, **environment}, capture_output=True, text=True, check=False,
    )  # fmt: skip


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
def test_a_folder_that_a_command_is_started_in_is_not_imported_from(tmp_path):
    project = Project(tmp_path / "project").fill(300)
    place = tmp_path / "planted"
    place.mkdir()
    for name in IMPORTED:
        (place / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'a').write({name + chr(10)!r})\n")
    ended = run(project, place, "index-all", "--workers", "1", "--shard-documents", "100")
    ran = (tmp_path / "ran").read_text().split() if (tmp_path / "ran").exists() else []
    assert (ended.returncode, ran) == (0, []), ended.stderr
    project.execute("UPDATE note SET body = 'changed' WHERE id = 7")
    assert run(project, place, "doctor").returncode == 0
    assert run(project, place, "index", "notes", "--id", "7").returncode == 0
    assert not (tmp_path / "ran").exists()


LOGGING = """\
version: 1
handlers: {{planted: {{"()": os.system, command: "echo planted >> {ran}"}}}}
"""


@pytest.mark.long
@needs_second_user
def test_settings_of_prefect_count_only_in_a_folder_of_ones_own(tmp_path, prefect_server):
    project = Project(tmp_path / "project").fill(30)
    named = {name: os.environ[name] for name in ("PREFECT_API_URL", "PREFECT_API_AUTH_STRING")}
    place = tmp_path / "prepared"
    place.mkdir()
    (place / "prefect.toml").write_text(f'[logging]\nconfig_path = "{place}/logging.yml"\n')
    (place / "logging.yml").write_text(LOGGING.format(ran=tmp_path / "ran"))
    os.chown(place, NOBODY, NOBODY)
    ended = run(project, place, "index-all", "--prefect", **named)
    assert (ended.returncode, (tmp_path / "ran").exists()) == (0, False), ended.stderr
    os.chown(place, 0, 0)
    run(project, place, "index-all", "--prefect", **named)
    assert (tmp_path / "ran").exists(), "otherwise this tests nothing"


@pytest.mark.parametrize(("mode", "stays"), [(0o755, True), (0o775, False), (0o777, False), (0o1777, False)])
@needs_second_user
def test_a_folder_that_others_write_to_is_left_for_the_run(tmp_path, monkeypatch, mode, stays):
    os.chown(tmp_path, 0, NOBODY)
    tmp_path.chmod(mode)
    monkeypatch.chdir(tmp_path)
    with trusted_folder():
        assert Path.cwd() == (tmp_path if stays else Path("/"))
    assert Path.cwd() == tmp_path
