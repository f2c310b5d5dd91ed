"""docs/operations.md, followed command by command on a machine without any of it."""

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from tests.deployments.server import ROOT
from tests.ports import free_port
from tests.waiting import answers, eventually

PAGE = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
NOT_FOLLOWED = {"install", "example", "systemd"}
"""Kinds of blocks to leave out: what is installed already, machines that do not exist, and systemd
(test_locked.py)."""


def blocks() -> list[tuple[str, list[str]]]:
    """Return the kind and the lines of each block of commands, in order."""
    found = re.findall(r"^```sh ?(\w*)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    return [(kind, text.strip().splitlines()) for kind, text in found]


@pytest.mark.long
@pytest.mark.timeout(900)
def test_the_commands_of_the_page_work_in_a_terminal(tmp_path):
    """The commands of each block are typed in a terminal, in which one that asks a question would
    be answered nothing. A block for the server or the worker ends with a command that stays."""
    port = str(free_port())
    place = tmp_path / "repository"
    place.mkdir()
    for name in ("prefect.yaml", "deployments/automations.yaml"):
        (place / name).parent.mkdir(exist_ok=True)
        (place / name).write_text((ROOT / name).read_text())
    ours = (
        "PREFECT_",
        "RAG_INDEX_",
        "DASK_",
        "CI",
        "DO_NOT_TRACK",
        "GITHUB_",
    )  # which a newcomer does not have
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**kept, "HOME": str(tmp_path), "PATH": path, "PREFECT_SERVER_API_PORT": port}
    shown, exported = {}, ""
    with ExitStack() as stack:
        for number, (kind, commands) in enumerate(blocks()):
            if kind in NOT_FOLLOWED:
                continue
            log = tmp_path / f"{number}.log"
            script = exported + "\n".join(commands).replace("4200", port)
            running = stack.enter_context(in_terminal(script, place, environment, log))
            if kind == "server":
                eventually(
                    lambda: answers(f"http://127.0.0.1:{port}/api/health"),
                    log.read_text,
                    every=0.25,
                )
            elif kind == "worker":
                eventually(
                    lambda log=log: "Worker" in log.read_text() and "started" in log.read_text(),
                    log.read_text,
                )
            else:
                assert running.wait(timeout=600) == 0, log.read_text()
                exported += "".join(
                    f"{line}\n" for line in commands if line.startswith(("export ", "set -a"))
                )
            shown[commands[-1]] = log.read_text()
        ran = shown["prefect deployment run doctor/doctor --watch"]
        assert ran.count("'Completed'") >= 3, ran
        assert "completed" in ran, "status says so"
        assert "0 2 * * *" in shown["prefect deployment schedule ls index-all/index-all"]
        with in_terminal(
            f"{exported}rag-index index-all", place, environment, tmp_path / "night.log"
        ) as night:
            assert night.wait(timeout=120) == 0
        assert "Nothing changed" in (tmp_path / "night.log").read_text(), (
            "a night by hand, without the server"
        )
        home = tmp_path / ".prefect"
        assert home.stat().st_mode & 0o77 == 0
        profiles = tomllib.loads((home / "profiles.toml").read_text())
        assert profiles.get("active") != "rag-index", (
            "what a person has of Prefect already stays as it is"
        )
        user, password = profiles["profiles"]["rag-index"]["PREFECT_API_AUTH_STRING"].split(":")
        with httpx.Client(
            trust_env=False, base_url=f"http://127.0.0.1:{port}/api", timeout=60
        ) as client:
            assert client.get("/admin/settings").status_code == 401, (
                "every user of the machine reaches the server"
            )
            client.auth = (user, password)
            assert client.get("/admin/settings").json()["server"]["analytics_enabled"] is False
            names = {one["name"] for one in client.post("/automations/filter", json={}).json()}
            assert (
                names == set(re.findall(r"^\| `(rag-index: .+?)` \|", PAGE, re.MULTILINE)) != set()
            )


@contextmanager
def in_terminal(
    script: str, folder: Path, environment: Mapping[str, str], log: Path
) -> Iterator[subprocess.Popen]:
    """Run a script of bash in a terminal until the block ends; what it shows goes to `log`."""
    file = log.with_suffix(".sh")
    file.write_text(script)
    command = [
        "script",
        "--quiet",
        "--return",
        "--flush",
        "--command",
        f"exec bash -e {file}",
        "/dev/null",
    ]
    with log.open("wb") as output:
        streams = {"stdin": subprocess.DEVNULL, "stdout": output, "stderr": output}
        running = subprocess.Popen(command, cwd=folder, env=environment, **streams)
    try:
        yield running
    finally:
        for one in (
            psutil.Process(running.pid).children(recursive=True) if running.poll() is None else ()
        ):
            one.terminate()
        running.wait(timeout=100)
