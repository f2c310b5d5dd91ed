"""docs/operations.md, followed command by command on a machine without any of it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from tests.deployments.server import ROOT, free_port
from tests.deployments.test_cluster import kill, psutil_children
from tests.waiting import eventually

PAGE = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
NOT_FOLLOWED = {"install", "example"}
"""Kinds of blocks to leave out: rag-index is installed already, and examples name machines that do not exist."""


def blocks() -> list[tuple[str, list[str]]]:
    """Return the kind and the lines of each block of commands, in order."""
    found = re.findall(r"^```sh ?(\w*)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    return [(kind, text.strip().splitlines()) for kind, text in found]


def test_images_and_links_exist():
    for target in re.findall(r"\]\(([^)#]+)\)", PAGE):
        assert target.startswith("https://") or (ROOT / "docs" / target).exists(), target
    used = set(re.findall(r"images/([\w-]+\.png)", PAGE))
    assert used <= {path.name for path in (ROOT / "docs" / "images").glob("*.png")}


def test_the_tests_that_the_page_names_exist():
    for name in set(re.findall(r"`(test_\w+\.py)`", PAGE)):
        assert list((ROOT / "tests").rglob(name)), name


@pytest.mark.long
def test_the_commands_of_the_page_work(tmp_path):
    port = str(free_port())
    place = tmp_path / "repository"
    place.mkdir()
    (place / "prefect.yaml").write_text((ROOT / "prefect.yaml").read_text())
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "RAG_INDEX_", "DASK_"))}
    environment = {
        **clean, "HOME": str(tmp_path), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PREFECT_SERVER_API_PORT": port, "DO_NOT_TRACK": "1",
    }  # fmt: skip
    with ExitStack() as stack:
        for kind, commands in blocks():
            if kind in NOT_FOLLOWED:
                continue
            for command in commands:
                line = command.replace("4200", port)
                if export := re.fullmatch(r"export (\w+)=(.*)", line):
                    environment[export[1]] = export[2].replace("$PWD", str(place))
                elif kind in ("server", "worker"):
                    folder = place if kind == "server" else tmp_path
                    log = (tmp_path / f"{kind}.log").open("wb")
                    process = subprocess.Popen(
                        ["bash", "-c", f"exec {line}"], cwd=folder, env=environment, stdout=log, stderr=log
                    )
                    stack.callback(lambda one=process: [kill(p) for p in [*psutil_children(one), one]] and one.wait())
                    if kind == "server":
                        eventually(lambda: answers(port), "the server answers", every=0.25)
                else:
                    ended = subprocess.run(
                        ["bash", "-c", line],
                        cwd=place, env=environment, capture_output=True, text=True, timeout=170, check=False,
                    )  # fmt: skip
                    output = ended.stdout + ended.stderr
                    assert ended.returncode == 0, f"{line}\n{output}\n{(tmp_path / 'server.log').read_text()[-1000:]}"
                    if "--watch" in line:
                        assert "Completed" in output, (line, output)
                    if line == "rag-index status":
                        assert "completed" in output, output
                    if "schedule ls" in line:
                        assert "0 2 * * *" in output, output
                    time.sleep(0.1)


def answers(port: str) -> bool:
    try:
        return httpx.Client(trust_env=False).get(f"http://127.0.0.1:{port}/api/health").status_code == 200
    except httpx.TransportError:
        return False
