"""README.md: its commands work, typed in their order in a fresh clone, by a person who has nothing
set up."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.docs.pages import README, ROOT, blocks
from tests.strangers import NOBODY

SCORE = re.compile(r"^([\d.]+) +")


@pytest.fixture
def home():
    """A folder of another user, if there can be one. (Each start of pytest closes pytest's own
    folders to others.)"""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        subprocess.run(["git", "clone", "--quiet", ROOT, folder / "rag-index"], check=True)
        if os.geteuid() == 0:
            subprocess.run(["chown", "-R", f"{NOBODY}:{NOBODY}", folder], check=True)
        yield folder


@pytest.mark.long
@pytest.mark.skipif(not shutil.which("make"), reason="needs make")
def test_a_newcomer_types_the_page_in_its_order(home):
    typed = "\n".join(blocks(README, "sh"))
    assert typed.count("rag-index try ") == 1
    typed = re.sub(
        r"^(rag-index try .*)$", r"\1 --once", typed, flags=re.MULTILINE
    )  # it would serve until Ctrl-C
    root = os.geteuid() == 0
    path = (  # root's may be root's alone
        f"{'' if root else f'{Path(sys._base_executable).parent}:'}/usr/bin:/bin"
    )
    kept = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
    ended = subprocess.run(
        ["bash", "-e"],
        input=typed,
        cwd=home / "rag-index",
        text=True,
        capture_output=True,
        check=False,
        env={"PATH": path, "HOME": str(home), "LANG": "C.UTF-8", **kept},
        **({"user": NOBODY, "group": NOBODY, "extra_groups": []} if root else {}),
    )
    assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[:3000]
    assert "Warning" not in ended.stderr
    printed = {SCORE.sub("", line): line for line in ended.stdout.splitlines()}
    for line in "".join(blocks(README, "text")).splitlines():
        assert SCORE.sub("", line) in printed, line
        for score, now in zip(
            SCORE.findall(line), SCORE.findall(printed[SCORE.sub("", line)]), strict=True
        ):
            assert float(score) == pytest.approx(
                float(now), abs=0.02
            )  # versions of Python differ a little
