"""A Prefect server as the page tells a user to start it, with all its services, and ways to ask it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["ROOT", "PrefectServer", "free_port", "wait_until"]

ROOT = Path(__file__).parents[2]
START_SECONDS = 120
FINAL = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def wait_until(condition: Callable[[], Any], what: str, *, seconds: float = 60, every: float = 0.25) -> Any:
    """What `condition` gives, once that is true."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(every)
    return found


class PrefectServer:
    """`prefect server start` on a free port with a PREFECT_HOME of its own, for the time of a `with` block."""

    def __init__(self, home: Path, **environment: str) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.home = home
        self.environment = {
            **os.environ,
            "PREFECT_HOME": str(home),
            "PREFECT_API_URL": f"{self.url}/api",
            "PREFECT_SERVER_UI_API_URL": f"{self.url}/api",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "1",
            "PREFECT_WORKER_QUERY_SECONDS": "1",
            "PREFECT_SERVER_SERVICES_SCHEDULER_RECENT_DEPLOYMENTS_LOOP_SECONDS": "1",
            **environment,
        }
        auth = environment.get("PREFECT_SERVER_API_AUTH_STRING")
        self.client = httpx.Client(
            base_url=f"{self.url}/api", trust_env=False, timeout=30, auth=tuple(auth.split(":", 1)) if auth else None
        )

    def __enter__(self) -> PrefectServer:
        self.home.mkdir(parents=True, exist_ok=True)
        command = [*PREFECT, "server", "start", "--host", "127.0.0.1", "--port", str(self.port)]
        with (self.home / "server.log").open("wb") as log:
            self._process = subprocess.Popen(command, env=self.environment, stdout=log, stderr=log, cwd=self.home)
        try:
            wait_until(self._answers, "the Prefect server answers", seconds=START_SECONDS)
        except BaseException:
            self._process.kill()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self.client.close()
        self._process.terminate()
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _answers(self) -> bool:
        assert self._process.poll() is None, (self.home / "server.log").read_text()[-3000:]
        try:
            return self.client.get("/health").status_code == 200
        except httpx.TransportError:
            return False

    def prefect(self, *arguments: str, code: int = 0, **environment: str) -> str:
        """A `prefect` command of a user's, from the repository's root; what it printed."""
        ended = subprocess.run(
            [*PREFECT, *arguments],
            cwd=ROOT, env={**self.environment, **environment}, capture_output=True, text=True, timeout=180, check=False,
        )  # fmt: skip
        assert ended.returncode == code, ended.stdout + ended.stderr
        return ended.stdout + ended.stderr

    def deploy(self) -> None:
        """As docs/operations.md says."""
        self.prefect("work-pool", "create", "rag-index", "--type", "process")
        self.prefect("--no-prompt", "deploy", "--all")

    @contextmanager
    def worker(self, folder: Path, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
        """`prefect worker start` in this folder."""
        folder.mkdir(parents=True, exist_ok=True)
        command = [*PREFECT, "worker", "start", "--pool", "rag-index", "--name", "worker"]
        with (folder / "worker.log").open("ab") as log:
            worker = subprocess.Popen(
                command, env={**self.environment, **environment}, stdout=log, stderr=log, cwd=folder
            )
        try:
            yield worker
        finally:
            if worker.poll() is None:
                worker.terminate()
                try:
                    worker.wait(timeout=60)
                except subprocess.TimeoutExpired:
                    worker.kill()
                    worker.wait()

    # Asking

    def post(self, path: str, **body: Any) -> Any:
        return self._asked("POST", path, json=body)

    def get(self, path: str) -> Any:
        return self._asked("GET", path)

    def delete(self, path: str) -> None:
        self._asked("DELETE", path)

    def _asked(self, method: str, path: str, **body: Any) -> Any:
        """As Prefect's own client does: 503 is asked again, the server's SQLite was busy."""
        deadline = time.monotonic() + 60
        while (answer := self.client.request(method, path, **body)).status_code == 503:
            assert time.monotonic() < deadline, f"{path} answers 503"
            time.sleep(0.5)
        assert answer.status_code < 300, (answer.status_code, answer.text)
        return answer.json() if answer.content else None

    def deployment(self, name: str) -> dict[str, Any]:
        """A deployment by "flow/deployment"."""
        found: dict[str, Any] = self.get(f"/deployments/name/{name}")
        return found

    def start(self, name: str, *, state: dict[str, Any] | None = None, **parameters: Any) -> dict[str, Any]:
        """A new flow run of a deployment."""
        body: dict[str, Any] = {"parameters": parameters}
        if state:
            body["state"] = state
        made: dict[str, Any] = self.post(f"/deployments/{self.deployment(name)['id']}/create_flow_run", **body)
        return made

    def run(self, run_id: str) -> dict[str, Any]:
        found: dict[str, Any] = self.get(f"/flow_runs/{run_id}")
        return found

    def runs(self, **flow_runs: Any) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.post(
            "/flow_runs/filter", flow_runs=flow_runs, sort="EXPECTED_START_TIME_ASC", limit=200
        )
        return found

    def ended(self, run_id: str, *, seconds: float = 120) -> dict[str, Any]:
        """A run once it has ended."""

        def final() -> dict[str, Any] | None:
            run = self.run(run_id)
            return run if run["state_type"] in FINAL else None

        found: dict[str, Any] = wait_until(final, f"run {run_id} ends", seconds=seconds)
        return found

    def running(self, run_id: str, *, seconds: float = 90) -> None:
        wait_until(lambda: self.run(run_id)["state_type"] == "RUNNING", f"run {run_id} runs", seconds=seconds)

    def artifacts(self) -> dict[str, dict[str, Any]]:
        """The latest artifact of each key."""
        return {one["key"]: one for one in self.post("/artifacts/latest/filter", limit=200)}

    def logs(self, run_id: str) -> list[str]:
        """What a flow run and its tasks logged."""
        found = self.post("/logs/filter", logs={"flow_run_id": {"any_": [run_id]}}, limit=200)
        return [line["message"] for line in found]


PREFECT = [sys.executable, "-m", "prefect"]
