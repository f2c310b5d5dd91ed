"""docs/backup.md: its commands copy and restore a project, and the next run does what the page says."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import blocks, page
from tests.etl.plain import run_plain
from tests.project import Project

COPY, RESTORE_STORE, RESTORE_LEDGER, LOOK = blocks(page("backup"), "sh")


@pytest.mark.long
@pytest.mark.parametrize(
    "restore", [RESTORE_STORE, RESTORE_LEDGER, RESTORE_STORE + RESTORE_LEDGER], ids=["store", "ledger", "both"]
)
def test_what_the_page_copies_each_night_is_restored_and_mended(restore, tmp_path):
    project = Project(tmp_path / "project").fill(30)
    for night in range(3):
        project.execute(f"UPDATE note SET body = 'night {night}' WHERE id = 1")
        run_plain(project)
        _type(project, COPY)
    folders = sorted(path.name for path in (project.folder / "backup").iterdir())
    assert folders == ["before", "last"], "two nights, and nothing within itself"
    assert not (project.folder / "backup/last/qdrant/qdrant").exists()
    assert (project.folder / "backup/last/ledger.db").stat().st_mode & 0o77 == 0
    project.execute("UPDATE note SET body = 'the pump is mended' WHERE id = 5")
    project.execute("DELETE FROM note WHERE id = 6")
    run_plain(project)
    printed = _type(project, restore + LOOK)
    if restore in (RESTORE_STORE, RESTORE_LEDGER):
        said = f"the {'store' if restore == RESTORE_STORE else 'ledger'} was put back to an older copy"
        assert said in printed.split("every point was compared")[0], "by status"
        assert f"{said}; every point was compared" in printed
    assert project.texts()["5"] == ["Note 5\nthe pump is mended"]
    assert "6" not in project.texts()


def _type(project: Project, script: str) -> str:
    """Run lines of the page in the project's folder, and return what they print."""
    path = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    ended = subprocess.run(
        ["bash", "-ec", script], cwd=project.folder, env=os.environ | path, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout + ended.stderr
