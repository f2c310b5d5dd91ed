"""A machine on which services may write to their state alone: what systemd's units and containers give them.

They are plain processes of another user (or of this one, if it is not root), and their package of Prefect is read-only.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.ports import free_port
from tests.strangers import NOBODY

if TYPE_CHECKING:
    from collections.abc import Mapping

BIN = Path(sys.executable).parent
BUILT = ("ui_build", "ui_v2_build", ".*_ui_static.lock")
"""What a server of Prefect that may write to its package has left there."""
SETPRIV = ("setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups", "--no-new-privs")
READ_ALL = ("--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search")
"""For a checkout, or a Python, below a folder that only root may enter."""


class LockedMachine:
    """The folders /etc, /var/lib and /data of a machine, and its services, until the `with` block ends."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self.folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
        self.folder.chmod(0o755)
        self.log = self.folder / "log"
        self.ports = {4200: free_port(), 8765: free_port()}
        self.places = {
            "/opt/rag-index/venv/bin": str(BIN), "/var/lib/": f"{self.folder}/var/lib/", "/etc/": f"{self.folder}/etc/",
            "/data": str(self.folder / "data"), "0.0.0.0": "127.0.0.1",
        }  # fmt: skip
        self.services: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> LockedMachine:
        with self._stack:
            for folder in (self.log, self.folder / "etc/systemd/system"):
                folder.mkdir(parents=True)
            [package] = importlib.util.find_spec("prefect").submodule_search_locations
            prefect = self.folder / "packages" / "prefect"
            shutil.copytree(package, prefect, ignore=shutil.ignore_patterns(*BUILT))
            subprocess.run(["chmod", "-R", "a-w", prefect], check=True)
            self._stack.callback(subprocess.run, ["chmod", "-R", "u+w", prefect], check=True)
            self._environment = {
                "PATH": f"{BIN}:/usr/bin:/bin", "LANG": "C.UTF-8", "HOME": str(self.folder),
                "PYTHONPATH": str(prefect.parent), "PYTHONSAFEPATH": "1", "PREFECT_WORKER_QUERY_SECONDS": "1",
                "RAG_INDEX_SERVE__PORT": str(self.ports[8765]),
            }  # fmt: skip
            self.as_user = self._unprivileged()
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        for process in reversed(self.services.values()):
            process.terminate()
        for process in self.services.values():
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        self._stack.close()

    def _unprivileged(self) -> tuple[str, ...]:
        """Return the command before each command of a service."""
        if os.geteuid() != 0:
            return ()
        code = f"import sys, prefect, rag_index; sys.exit(sys.base_prefix != {sys.base_prefix!r})"
        for found in (SETPRIV, (*SETPRIV, *READ_ALL)):
            command = [*found, sys.executable, "-c", code]
            ended = subprocess.run(command, cwd="/", env=self._environment, stderr=subprocess.DEVNULL, check=False)
            if ended.returncode == 0:
                return found
        pytest.skip("needs setpriv, and an environment that another user can read")

    def here(self, text: str) -> str:
        """Return the text with the folders and ports of this machine."""
        for place, value in self.places.items():
            text = re.sub(rf"(?<![\w.}}]){re.escape(place)}", value, text)
        text = text.replace("setpriv --reuid rag --regid rag --init-groups ", f"{shlex.join(self.as_user)} ")
        return re.sub(r"(?<![\w.])(4200|8765)(?!\w)", lambda found: str(self.ports[int(found[1])]), text)

    def start(self, name: str, command: list[str], state: Path, environment: Mapping[str, str]) -> dict[str, str]:
        """Start a service in its state folder, to which alone it can write, and return its environment."""
        state.mkdir(parents=True, exist_ok=True)
        if self.as_user:
            os.chown(state, NOBODY, NOBODY)
        environment = {**self._environment, "HOME": str(state), **environment}
        with (self.log / name).open("wb") as log:
            self.services[name] = subprocess.Popen(
                [*self.as_user, *map(self.here, command)], cwd=state, env=environment, stdin=subprocess.DEVNULL,
                stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        return environment

    def start_unit(self, name: str) -> None:
        """Start a unit in /etc/systemd/system, and wait until systemd would call it started."""
        unit = self.here((self.folder / f"etc/systemd/system/{name}.service").read_text())
        lines = re.findall(r"^(\w+)=(.*)$", unit.partition("[Service]")[2], re.MULTILINE)
        given = dict(lines)
        variables = [value for key, value in lines if key == "Environment"]
        if (file := Path(given["EnvironmentFile"].removeprefix("-"))).exists():
            variables += file.read_text().split()
        state = self.folder / "var/lib" / given["StateDirectory"]
        assert given["WorkingDirectory"] == str(state)
        environment = dict(variable.split("=", 1) for variable in variables)
        environment = self.start(name, shlex.split(given["ExecStart"]), state, environment)
        if "ExecStartPost" in given:
            after = [*self.as_user, *shlex.split(given["ExecStartPost"])]
            subprocess.run(after, cwd=state, env=environment, check=True, stdout=subprocess.DEVNULL)

    def type(self, lines: list[str], folder: Path) -> str:
        """Type commands as the owner of the machine, in one shell for all calls, and return what they printed."""
        kept = self.folder / "shell"
        kept.touch()
        started, typed = r"systemctl enable --now (\S+)", []
        for line in [*lines, "systemctl enable --now"]:
            if not line.startswith("systemctl"):
                typed.append(self.here(line))
                continue
            script = "\n".join(["set -ae", f". {kept}", "useradd() { :; }", *typed, f"export -p >{kept}"])
            ended = subprocess.run(
                ["bash", "-c", script], cwd=folder, env=self._environment, capture_output=True, text=True, check=False,
            )  # fmt: skip
            assert ended.returncode == 0, ended.stdout + ended.stderr
            typed = []
            if found := re.fullmatch(started, line):
                self.start_unit(found[1])
        return ended.stdout + ended.stderr
