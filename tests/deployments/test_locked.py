"""The services of systemd's units and of the image, as users who may write to their state alone."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack, closing
from pathlib import Path

import httpx
import pytest
import yaml

from tests.deployments.server import ROOT
from tests.deployments.test_compose import SERVICES, pod_in, stages
from tests.deployments.test_operations import blocks
from tests.ports import free_port
from tests.strangers import NOBODY
from tests.waiting import eventually, tracebacks

pytestmark = pytest.mark.long

WATCHED = """
data = "/var/lib/rag-index/watched"
[source]
url = "sqlite:////etc/rag-index/watched.db"
[[indexes]]
name = "notes"
table = "note"
key = "id"
text = "body"
"""
WRONG = re.compile(
    "UserWarning|Permission denied|Read-only file system|readonly database|unable to open"
)
BIN = Path(sys.executable).parent
BUILT = ("ui_build", "ui_v2_build", ".*_ui_static.lock")
"""What a server of Prefect that may write to its package has left there."""
SETPRIV = (
    "setpriv",
    "--reuid",
    str(NOBODY),
    "--regid",
    str(NOBODY),
    "--clear-groups",
    "--no-new-privs",
)
READ_ALL = ("--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search")
"""For a checkout, or a Python, below a folder that only root may enter."""


@pytest.fixture
def machine():
    """A machine without services."""
    with LockedMachine() as machine:
        yield machine


def page_of(machine: LockedMachine, port: int, path: str = "/") -> httpx.Response:
    """Return what a browser gets that opens this address, as soon as there is a server."""
    url = f"http://127.0.0.1:{machine.ports[port]}{path}"

    def answered() -> httpx.Response | None:
        for name, process in machine.services.items():
            assert process.poll() is None, (machine.log / name).read_text()
        try:
            return httpx.get(
                url,
                headers={"Accept": "text/html"},
                trust_env=False,
                follow_redirects=True,
                timeout=60,
            )
        except httpx.TransportError:
            return None

    return eventually(answered, f"{url} answers", every=0.25)


def faults(log: str) -> list[str]:
    """Return what a log says of files that a service may not write to, and of errors that nobody
    caught."""
    return [line for line in log.splitlines() if WRONG.search(line)] + tracebacks(log)


def is_html(page: httpx.Response) -> bool:
    return (
        page.status_code == 200
        and page.headers["Content-Type"].startswith("text/html")
        and "</html>" in page.text
    )


def watched_alone(machine: LockedMachine) -> None:
    """Start the watch on a source that has times of change, unlike the sample, and wait until it
    has indexed it."""
    etc = machine.folder / "etc/rag-index"
    with closing(sqlite3.connect(etc / "watched.db")) as source:
        source.execute("CREATE TABLE note (id INTEGER PRIMARY KEY, body TEXT, changed TEXT)")
        source.execute("INSERT INTO note VALUES (1, 'the printer', '2026-01-01 00:00:00')")
        source.commit()
    (etc / "watched.toml").write_text(machine.here(WATCHED))
    with (etc / "rag-index.env").open("a") as variables:
        variables.write(f"RAG_INDEX_CONFIG={etc}/watched.toml\n")
    machine.start_unit("rag-index-watch")
    log = machine.log / "rag-index-watch"
    eventually(lambda: "1 new" in log.read_text(), log.read_text, every=0.25)


@pytest.mark.timeout(900)
def test_the_systemd_blocks_of_the_page_work_for_a_user_who_can_write_to_its_state_alone(machine):
    place = machine.folder / "repository"
    shutil.copytree(ROOT / "deployments", place / "deployments")
    shutil.copy(ROOT / "prefect.yaml", place)
    typed = [lines for kind, lines in blocks() if kind == "systemd"]
    [sample] = [lines for _, lines in blocks() if lines[0].startswith("rag-index sample ")]
    shown = [machine.type(lines, place) for lines in (sample, *typed)]
    assert "'Completed'" in shown[2], "the run that the page starts"
    assert "completed" in shown[-1], "status says so"
    watched_alone(machine)
    assert machine.services.keys() == {
        unit.stem for unit in (ROOT / "deployments" / "systemd").glob("*.service")
    }
    for port in (4200, 8765):
        assert is_html(page_of(machine, port)), port
    assert is_html(page_of(machine, 4200, "/runs")), "an address inside the page"
    assert page_of(machine, 4200, "/api/admin/version").status_code == 401
    for name, process in machine.services.items():
        assert process.poll() is None, (machine.log / name).read_text()
        assert not faults((machine.log / name).read_text())


@pytest.mark.parametrize("of", ["compose", "image"])
def test_prefects_server_has_its_page_in_a_container_that_is_read_only(machine, of):
    """The image alone says where the page is copied to, for those who start it by other means."""
    service = SERVICES["prefect"]
    if of == "compose":
        own = {key: value for key, value in service["environment"].items() if "$" not in value}
    else:
        own = dict(
            one.split("=", 1)
            for name, text in stages()[-1]
            if name == "ENV"
            for one in text.split()
        )
        del own["PATH"]
    own = {key: machine.here(value) for key, value in own.items()}
    machine.start("prefect", service["command"], machine.folder / "data", own)
    log = machine.log / "prefect"
    assert is_html(page_of(machine, 4200)), log.read_text()
    assert not faults(log.read_text())


def test_each_pod_that_is_read_only_may_write_to_the_home_of_its_user():
    """Prefect keeps a folder there, and a worker of Dask imports Prefect, too."""
    for item in filter(
        pod_in, yaml.safe_load((ROOT / "deployments" / "kubernetes.yaml").read_text())["items"]
    ):
        [container] = item["spec"].get("jobTemplate", item)["spec"]["template"]["spec"][
            "containers"
        ]
        places = {mount["mountPath"] for mount in container["volumeMounts"]}
        assert container["securityContext"]["readOnlyRootFilesystem"]
        assert "scheduler" in container["name"] or "/home/rag" in places, container["name"]


class LockedMachine:
    """The folders /etc, /var/lib and /data of a machine, and its services, until the `with` block
    ends."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self.folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
        self.folder.chmod(0o755)
        self.log = self.folder / "log"
        self.ports = {4200: free_port(), 8765: free_port()}
        self.places = {
            "/opt/rag-index/venv/bin": str(BIN),
            "/var/lib/": f"{self.folder}/var/lib/",
            "/etc/": f"{self.folder}/etc/",
            "/data": str(self.folder / "data"),
            "0.0.0.0": "127.0.0.1",
        }
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
                "PATH": f"{BIN}:/usr/bin:/bin",
                "LANG": "C.UTF-8",
                "HOME": str(self.folder),
                "PYTHONPATH": str(prefect.parent),
                "PYTHONSAFEPATH": "1",
                "PREFECT_WORKER_QUERY_SECONDS": "1",
                "RAG_INDEX_SERVE__PORT": str(self.ports[8765]),
            }
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
            ended = subprocess.run(
                command, cwd="/", env=self._environment, stderr=subprocess.DEVNULL, check=False
            )
            if ended.returncode == 0:
                return found
        pytest.skip("needs setpriv, and an environment that another user can read")

    def here(self, text: str) -> str:
        """Return the text with the folders and ports of this machine."""
        for place, value in self.places.items():
            text = re.sub(rf"(?<![\w.}}]){re.escape(place)}", value, text)
        text = text.replace(
            "setpriv --reuid rag --regid rag --init-groups ", f"{shlex.join(self.as_user)} "
        )
        return re.sub(
            r"(?<![\w.])(4200|8765)(?!\w)", lambda found: str(self.ports[int(found[1])]), text
        )

    def start(
        self, name: str, command: list[str], state: Path, environment: Mapping[str, str]
    ) -> dict[str, str]:
        """Start a service in its state folder, to which alone it can write, and return its
        environment."""
        state.mkdir(parents=True, exist_ok=True)
        if self.as_user:
            os.chown(state, NOBODY, NOBODY)
        environment = {**self._environment, "HOME": str(state), **environment}
        with (self.log / name).open("wb") as log:
            self.services[name] = subprocess.Popen(
                [*self.as_user, *map(self.here, command)],
                cwd=state,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
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
        """Type commands as the owner of the machine, in one shell for all calls, and return what
        they printed."""
        kept = self.folder / "shell"
        kept.touch()
        started, typed = r"systemctl enable --now (\S+)", []
        for line in [*lines, "systemctl enable --now"]:
            if not line.startswith("systemctl"):
                typed.append(self.here(line))
                continue
            script = "\n".join(
                ["set -ae", f". {kept}", "useradd() { :; }", *typed, f"export -p >{kept}"]
            )
            ended = subprocess.run(
                ["bash", "-c", script],
                cwd=folder,
                env=self._environment,
                capture_output=True,
                text=True,
                check=False,
            )
            assert ended.returncode == 0, ended.stdout + ended.stderr
            typed = []
            if found := re.fullmatch(started, line):
                self.start_unit(found[1])
        return ended.stdout + ended.stderr
