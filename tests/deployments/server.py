"""A Prefect server with all its services, started as docs/operations.md says, and ways to ask
it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import psutil

from tests.ports import free_port
from tests.prefect_api import copy_tables
from tests.waiting import eventually

ROOT = Path(__file__).parents[2]
PREFECT = [sys.executable, "-m", "prefect"]
FINAL = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
SUSPENDED = {"type": "PAUSED", "name": "Suspended", "state_details": {"pause_reschedule": True}}
"""What Prefect's page sets."""


OWN = ("config", "indexes", "index")
"""Parameters of flows that are not among the options of a run."""


class PrefectServer:
    """`prefect server start` on a free port with its own PREFECT_HOME, until the `with` block
    ends."""

    def __init__(self, home: Path, **environment: str) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.home = home
        self.environment = {
            **os.environ,
            "PREFECT_HOME": str(home),
            "PREFECT_API_URL": f"{self.url}/api",
            "PREFECT_SERVER_UI_API_URL": f"{self.url}/api",
            "PREFECT_UI_URL": self.url,
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "1",
            "PREFECT_WORKER_QUERY_SECONDS": "1",
            "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "200",
            "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
            "PREFECT_SERVER_SERVICES_SCHEDULER_RECENT_DEPLOYMENTS_LOOP_SECONDS": "1",
            **environment,
        }
        auth = environment.get("PREFECT_SERVER_API_AUTH_STRING")
        self.client = httpx.Client(
            base_url=f"{self.url}/api",
            trust_env=False,
            timeout=120,
            auth=tuple(auth.split(":", 1)) if auth else None,
        )

    def __enter__(self) -> PrefectServer:
        self.home.mkdir(parents=True, exist_ok=True)
        copy_tables(self.home / "prefect.db")
        self.start_server()
        return self

    def __exit__(self, *error: object) -> None:
        self.client.close()
        self.stop_server()

    def start_server(self) -> None:
        """Start the server, and wait until it answers."""
        command = [*PREFECT, "server", "start", "--host", "127.0.0.1", "--port", str(self.port)]
        own = {
            name: value for name, value in self.environment.items() if name != "PREFECT_API_URL"
        }  # as on the page
        with (self.home / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, env=own, stdout=log, stderr=log, cwd=self.home
            )
        try:
            eventually(self._answers, "the Prefect server answers", every=0.25)
        except BaseException:
            self._process.kill()
            raise

    def stop_server(self) -> None:
        """Stop the server. What it knows is kept for another start."""
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
        """Run a `prefect` command in the repository's root, as a user does, and return what it
        printed."""
        ended = subprocess.run(
            [*PREFECT, *arguments],
            cwd=ROOT,
            env={**self.environment, **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )
        assert ended.returncode == code, ended.stdout + ended.stderr
        return ended.stdout + ended.stderr

    @contextmanager
    def worker(self, folder: Path, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
        """Run `prefect worker start` in this folder until the block ends."""
        folder.mkdir(parents=True, exist_ok=True)
        command = [*PREFECT, "worker", "start", "--pool", "rag-index", "--name", "worker"]
        given = self.environment | environment
        with (folder / "worker.log").open("ab") as log:
            worker = subprocess.Popen(command, env=given, stdout=log, stderr=log, cwd=folder)
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
        return self._request("POST", path, json=body)

    def get(self, path: str) -> Any:
        return self._request("GET", path)

    def patch(self, path: str, **body: Any) -> None:
        self._request("PATCH", path, json=body)

    def delete(self, path: str) -> None:
        self._request("DELETE", path)

    def _request(self, method: str, path: str, **body: Any) -> Any:
        """Return the server's answer. As in Prefect's own client, 503 is tried again: its SQLite
        was busy."""

        def answered() -> httpx.Response | None:
            response = self.client.request(method, path, **body)
            return None if response.status_code == 503 else response

        answer = eventually(answered, f"{path} answers something but 503", every=0.5)
        assert answer is not None
        assert answer.status_code < 300, (answer.status_code, answer.text)
        return answer.json() if answer.content else None

    def deployment(self, name: str) -> dict[str, Any]:
        """Return the deployment "flow/deployment"."""
        return self.get(f"/deployments/name/{name}")

    def start(
        self, name: str, *, state: dict[str, Any] | None = None, **parameters: Any
    ) -> dict[str, Any]:
        """Start a flow run of a deployment, and return the run."""
        flat = parameters if name.startswith(("benchmark", "doctor")) else OWN
        own = {one: parameters.pop(one) for one in [*flat] if one in parameters}
        body: dict[str, Any] = {"parameters": own | ({"options": parameters} if parameters else {})}
        if state:
            body["state"] = state
        return self.post(f"/deployments/{self.deployment(name)['id']}/create_flow_run", **body)

    def run(self, run_id: str) -> dict[str, Any]:
        return self.get(f"/flow_runs/{run_id}")

    def runs(self, **flow_runs: Any) -> list[dict[str, Any]]:
        return self.post(
            "/flow_runs/filter", flow_runs=flow_runs, sort="EXPECTED_START_TIME_ASC", limit=200
        )

    def wait_for_end(self, run_id: str) -> dict[str, Any]:
        """Return the run as soon as it has ended."""

        def final() -> dict[str, Any] | None:
            run = self.run(run_id)
            return run if run["state_type"] in FINAL else None

        return eventually(final, f"run {run_id} ends", every=0.25)

    def artifacts(self) -> dict[str, dict[str, Any]]:
        """Return the latest artifact of each key."""
        return {one["key"]: one for one in self.post("/artifacts/latest/filter", limit=200)}

    def logs(self, run_id: str, *, only: bool = False) -> list[str]:
        """Return the log lines of a flow run and its tasks in order, or of the flow run only."""
        wanted = {
            "flow_run_id": {"any_": [run_id]},
            **({"task_run_id": {"is_null_": True}} if only else {}),
        }
        return [
            line["message"]
            for line in self.post("/logs/filter", logs=wanted, limit=200, sort="TIMESTAMP_ASC")
        ]


def kill_all(process: subprocess.Popen[Any]) -> None:
    """Kill a process, so that it starts and tells nothing more, and all that it has started."""
    with suppress(psutil.NoSuchProcess):
        for one in (process, *psutil.Process(process.pid).children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                one.kill()
