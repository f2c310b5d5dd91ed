"""docs/operations.md, followed command by command on a machine without any of it."""

from __future__ import annotations

import os
import re
import sys
import tomllib
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from tests.deployments.server import ROOT
from tests.deployments.terminal import Terminal
from tests.ports import free_port
from tests.waiting import eventually

PAGE = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
NOT_FOLLOWED = {"install", "example", "systemd"}
"""Kinds of blocks to leave out: rag-index is installed already, examples name machines that do not exist, and those for
systemd are followed by test_systemd.py."""


def blocks() -> list[tuple[str, list[str]]]:
    """Return the kind and the lines of each block of commands, in order."""
    found = re.findall(r"^```sh ?(\w*)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    return [(kind, text.strip().splitlines()) for kind, text in found]


def test_images_and_links_exist():
    for target in re.findall(r"\]\(([^)#]+)\)", PAGE):
        assert target.startswith("https://") or (ROOT / "docs" / target).exists(), target
    used = set(re.findall(r"images/([\w-]+\.png)", PAGE))
    assert used <= {path.name for path in (ROOT / "docs" / "images").glob("*.png")}


@pytest.mark.long
@pytest.mark.timeout(900)
def test_the_commands_of_the_page_work_in_a_terminal(tmp_path):
    """Each block is typed in a terminal, in which a command that asks a question would wait for ever."""
    port = str(free_port())
    place = tmp_path / "repository"
    place.mkdir()
    (place / "prefect.yaml").write_text((ROOT / "prefect.yaml").read_text())
    environment = {**clean_environment(tmp_path), "PREFECT_SERVER_API_PORT": port}
    shown = {}
    with ExitStack() as stack:
        main = stack.enter_context(Terminal(place, environment))
        for kind, commands in blocks():
            if kind in NOT_FOLLOWED:
                continue
            stays = kind in ("server", "worker")
            terminal = stack.enter_context(Terminal(place, environment)) if stays else main
            *before, last = [line.replace("4200", port) for line in commands]
            for line in before:
                shown[line] = terminal.run(line)
            if not stays:
                shown[last] = terminal.run(last)
                continue
            terminal.type(last)
            if kind == "server":
                eventually(lambda: answers(port), terminal.text, every=0.25)
        watched = [output for line, output in shown.items() if "--watch" in line]
        assert len(watched) == 3
        assert all("'Completed'" in output for output in watched)
        assert "completed" in shown["rag-index status"]
        assert "0 2 * * *" in shown["prefect deployment schedule ls index-all/index-all"]
        assert "Nothing changed" in main.run("rag-index index-all"), "a night by hand, without the server"
        home = tmp_path / ".prefect"
        assert home.stat().st_mode & 0o77 == 0
        profiles = tomllib.loads((home / "profiles.toml").read_text())
        user, password = profiles["profiles"][profiles["active"]]["PREFECT_API_AUTH_STRING"].split(":")
        with httpx.Client(trust_env=False, base_url=f"http://127.0.0.1:{port}/api") as client:
            assert client.get("/admin/settings").status_code == 401, "every user of the machine reaches the server"
            client.auth = (user, password)
            assert client.get("/admin/settings").json()["server"]["analytics_enabled"] is False
            names = {one["name"] for one in client.post("/automations/filter", json={}).json()}
            assert names == set(re.findall(r"^\| `(rag-index: .+?)` \|", PAGE, re.MULTILINE)) != set()


def clean_environment(home: Path) -> dict[str, str]:
    """Return the environment of a person who has just installed rag-index, and never used Prefect."""
    names = ("PREFECT_", "RAG_INDEX_", "DASK_", "CI", "DO_NOT_TRACK", "GITHUB_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(names)}
    return {**kept, "HOME": str(home), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


def answers(port: str) -> bool:
    try:
        return httpx.Client(trust_env=False).get(f"http://127.0.0.1:{port}/api/health").status_code == 200
    except httpx.TransportError:
        return False
