"""Pages as a newcomer meets them: their commands, typed in their order by another account with an
empty home, do what the pages say.

A block of commands is typed if it begins with ```sh. What needs a server, a name or a cloud that
only its reader has is marked as ```sh example; tests/docs/test_commands.py checks its commands and
options. Other marks of a page's source:

```sh until stopped   runs beside the commands after it, until the page ends
```json NAME          is saved as the file NAME; so with other kinds
```text printed       is among what the commands before it print, but for numbers
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.docs.pages import README, ROOT, blocks, page
from tests.ports import free_port
from tests.strangers import NOBODY

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(not shutil.which("make"), reason="needs make"),
]
SCORE = re.compile(r"^([\d.]+) +")
BLOCK = re.compile(r"^```(\w+)(?: ([^\n]*))?\n(.*?)^```", re.MULTILINE | re.DOTALL)
NUMBER = re.compile(r"\b[0-9a-f]{12}\b|\d[\d.,]*")
TYPED_ELSEWHERE = {"backup", "operations", "plugins", "tutorial"}
"""Pages whose commands other tests type, with the servers that they need."""
NEEDS_A_SAMPLE = {
    "agents",
    "deleted-data",
    "doctor",
    "models",
    "performance",
    "service",
    "upgrade",
    "watching",
}
"""Pages for people who have an index already."""
SAMPLE = "rag-index sample workshop --out workshop.db --settings\n"
TYPED = sorted(
    path.stem
    for path in (ROOT / "docs").glob("*.md")
    if re.search(r"^```sh(?: until stopped)?$", path.read_text(encoding="utf-8"), re.MULTILINE)
    and path.stem not in TYPED_ELSEWHERE
)


@dataclass(frozen=True)
class Newcomer:
    """An account of its own, if there can be one, with a clone of the repository in its home."""

    home: Path

    @property
    def environment(self) -> Path:
        return self.home / "rag-index/.venv"

    def type_in(self, folder: Path, script: str, **more: str) -> subprocess.CompletedProcess[str]:
        """Type lines into a shell that ends at the first error."""
        is_root = os.geteuid() == 0
        # The Python of root may be in a folder that is root's alone.
        python = "" if is_root else f"{Path(sys._base_executable).parent}:"
        kept = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
        variables = {"PATH": f"{python}/usr/bin:/bin", "HOME": str(self.home), "LANG": "C.UTF-8"}
        account = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if is_root else {}
        return subprocess.run(
            ["bash", "-e"],
            input=script,
            cwd=folder,
            text=True,
            capture_output=True,
            check=False,
            env={**variables, **kept, **more},
            **account,
        )

    def folder(self, name: str) -> Path:
        """Make an empty folder of this account."""
        folder = self.home / name
        folder.mkdir()
        if os.geteuid() == 0:
            os.chown(folder, NOBODY, NOBODY)
        return folder


@pytest.fixture(scope="module")
def newcomer():
    """(Each start of pytest closes pytest's own folders to others.)"""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        subprocess.run(["git", "clone", "--quiet", ROOT, folder / "rag-index"], check=True)
        if os.geteuid() == 0:
            subprocess.run(["chown", "-R", f"{NOBODY}:{NOBODY}", folder], check=True)
        yield Newcomer(folder)


def test_a_newcomer_types_the_readme_in_its_order(newcomer):
    typed = "\n".join(blocks(README, "sh"))
    assert typed.count("rag-index try ") == 1
    # It would serve until Ctrl-C.
    typed = re.sub(r"^(rag-index try .*)$", r"\1 --once", typed, flags=re.MULTILINE)
    ended = newcomer.type_in(newcomer.home / "rag-index", typed)
    assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[:3000]
    assert "Warning" not in ended.stderr
    printed = {SCORE.sub("", line): line for line in ended.stdout.splitlines()}
    for line in "".join(blocks(README, "text")).splitlines():
        assert SCORE.sub("", line) in printed, line
        scores, now = SCORE.findall(line), SCORE.findall(printed[SCORE.sub("", line)])
        for score, present in zip(scores, now, strict=True):
            # Versions of Python differ a little.
            assert float(score) == pytest.approx(float(present), abs=0.02)


def without_numbers(line: str) -> str:
    """Return a line with # for each number, and single blanks."""
    return " ".join(NUMBER.sub("#", line).split())


@pytest.mark.parametrize("name", TYPED)
def test_a_reader_types_a_page_in_its_order(name, newcomer):
    made = newcomer.type_in(newcomer.home / "rag-index", "make environment")
    assert made.returncode == 0, made.stdout + made.stderr
    folder = newcomer.folder(name)
    script, expected, serves = "", "", False
    if name in NEEDS_A_SAMPLE:
        script += SAMPLE
        # On the page about performance, the first command plans a run.
        script += "" if name == "performance" else "rag-index index-all\n"
    # Whoever goes back has made the copy of the page about backups.
    if name == "upgrade":
        script += blocks(page("backup"), "sh")[0]
    for language, mark, body in BLOCK.findall(page(name)):
        if language == "sh" and mark == "until stopped":
            # It has begun once it has said something.
            script += (
                f"{body.strip()} >beside.log 2>&1 &\nuntil [ -s beside.log ]; do sleep 0.2; done\n"
            )
            serves = True
        elif (language, mark) == ("sh", "") and not body.startswith("make environment"):
            script += body
        elif (language, mark) == ("text", "printed"):
            expected += body
        elif "." in mark:
            script += f"cat >{mark} <<'END'\n{body}END\n"
    port = str(free_port())
    script = script.replace("127.0.0.1:8765", f"127.0.0.1:{port}")
    script = script.replace(
        "curl ", "curl --silent --retry 60 --retry-delay 1 --retry-connrefused "
    )
    if serves:
        script += "kill $!; wait $! || test $? = 130; cat beside.log\n"
    variables = {
        "PATH": f"{newcomer.environment}/bin:/usr/bin:/bin",
        "RAG_INDEX_SERVE__PORT": port,
    }
    ended = newcomer.type_in(folder, script, **variables)
    assert ended.returncode == 0, f"{script}\n{ended.stdout[-3000:]}{ended.stderr[-3000:]}"
    assert "Traceback" not in ended.stdout + ended.stderr
    printed = {without_numbers(line) for line in ended.stdout.splitlines()}
    lacking = [
        line for line in expected.splitlines() if without_numbers(line) not in printed | {""}
    ]
    assert lacking == []


def test_pages_that_are_typed_elsewhere_are_typed():
    """Each page with commands is typed by one of our tests."""
    tests = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    for name in TYPED_ELSEWHERE:
        assert f'page("{name}")' in tests, name
