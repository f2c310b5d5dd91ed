"""docs/backup.md: its commands copy and restore a project, and the next run does what the page says."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import blocks, page
from tests.etl.plain import run_plain
from tests.project import Project


@pytest.mark.long
@pytest.mark.skipif(not shutil.which("sqlite3"), reason="needs SQLite's command line")
def test_what_the_page_copies_is_restored_and_mended(tmp_path):
    project = Project(tmp_path / "project").fill(30)
    run_plain(project)
    copy, restore = blocks(page("backup"), "sh")
    _type(project, copy)
    project.execute("UPDATE note SET body = 'the pump is mended' WHERE id = 5")
    project.execute("DELETE FROM note WHERE id = 6")
    run_plain(project)
    printed = _type(project, restore)
    said = "the store was put back to an older copy"
    assert said in printed.split("every point was compared")[0], "by status"
    assert f"{said}; every point was compared: 1 document to index again, 1 deleted document to delete again" in printed
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
