"""The pages of the documentation as text, and parts of them: sections, tables, code blocks."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
OTHERS = ("README.md", "CHANGELOG.md", "benchmarks/README.md")
ALL = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for path in sorted([*(ROOT / name for name in OTHERS), *DOCS.rglob("*.md")])
}
"""Every page by its path from the root."""
EVERYTHING = "\n".join(ALL.values())
README = ALL["README.md"]


def page(name: str) -> str:
    """Return the page docs/`name`.md."""
    return ALL[f"docs/{name}.md"]


def blocks(text: str, language: str) -> list[str]:
    """Return the code blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def type_in(folder: Path, script: str, *programs: Path, **variables: str) -> str:
    """Run lines of a page in a folder, with these folders of programs and ours first, and return
    what they print."""
    path = ":".join([*map(str, programs), str(Path(sys.executable).parent), os.environ["PATH"]])
    given = {**os.environ, "PATH": path, **variables}
    how = {"capture_output": True, "text": True, "timeout": 240}
    ended = subprocess.run(["bash", "-ec", script], cwd=folder, env=given, check=False, **how)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout + ended.stderr


def section(text: str, heading: str) -> str:
    """Return the text under a heading, up to the next heading of its level or above."""
    level = heading.split(maxsplit=1)[0]
    found = re.search(
        rf"^{re.escape(heading)}\n(.*?)(?=^#{{1,{len(level)}}} |\Z)", text, re.MULTILINE | re.DOTALL
    )
    assert found, f"there is no heading {heading!r}"
    return found[1]


def tables(text: str, first: str) -> list[list[list[str]]]:
    """Return the rows, without the head, of each table whose first column has this name."""
    found = []
    for lines in re.findall(r"(?:^\|.*\n?)+", text, re.MULTILINE):
        rows = [
            [cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]]
            for row in lines.splitlines()
        ]
        if rows[0][0] == first:
            found.append(rows[2:])
    return found


def table(text: str, first: str) -> list[list[str]]:
    """Return the rows, without the head, of the first table whose first column has this name."""
    found = tables(text, first)
    assert found, f"there is no table with a first column {first!r}"
    return found[0]


def code(cell: str) -> str:
    """Return the text between the backticks that a cell begins with, or an empty text."""
    found = re.match(r"`([^`]*)`", cell)
    return found[1].replace("\\|", "|") if found else ""
