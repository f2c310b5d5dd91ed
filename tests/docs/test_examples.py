"""examples/: the one command of each README prints what the README says, and its links lead somewhere."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, blocks

EXAMPLES = sorted(path.parent for path in (ROOT / "examples").glob("*/README.md"))


def test_there_are_examples():
    assert {path.name for path in EXAMPLES} == {"agent", "source-tree", "wiki"}


@pytest.mark.parametrize(
    "folder",
    [
        pytest.param(folder, id=folder.name, marks=pytest.mark.long if folder.name == "agent" else ())
        for folder in EXAMPLES
    ],
)
def test_the_command_of_an_example_prints_what_its_page_says(folder, tmp_path):
    readme = (folder / "README.md").read_text()
    (command,), (expected,) = blocks(readme, "sh"), blocks(readme, "text")
    here = shutil.copytree(folder, tmp_path / "example")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path}
    ended = subprocess.run(
        ["bash", "-c", command], cwd=here, env=environment, check=False, capture_output=True, text=True, timeout=240
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert expected.strip() in ended.stdout
    for link in re.findall(r"\]\(([^)#]+)", readme):
        assert (folder / link).exists(), link
