"""docs/evaluation.md: the example, typed, prints the table of the page."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import blocks, page, section

PAGE = page("evaluation")


@pytest.mark.long
def test_the_example_prints_what_the_page_shows(tmp_path):
    first = section(PAGE, "## Measure with a golden file")
    (tmp_path / "golden.jsonl").write_text(blocks(first, "json")[0])
    typed = blocks(first, "sh")[0]
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    ended = subprocess.run(
        ["bash", "-ec", typed], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert blocks(section(PAGE, "## Read the table"), "text")[0] in ended.stdout
