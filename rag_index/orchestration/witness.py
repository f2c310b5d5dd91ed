"""The witness of a deployed run: a process that puts the run off if the run's own process is killed or told to end.

Prefect's worker kills a run a moment after it is told to stop. If SIGTERM comes when the flow's function has not begun,
or has returned, Prefect's engine makes a crash of it, or a failure if the signal's exception met one of its own. The
witness hears of each signal that nothing in the run took care of, and imports nothing of Prefect, so that it is there
at once and takes little memory.
"""

from __future__ import annotations

import atexit
import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from base64 import b64encode
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import httpx

if TYPE_CHECKING:
    from collections.abc import Callable

PUT_OFF = "this run was stopped; what was committed is kept. If its worker was stopped, too, the next worker resumes it"
PUT_OFF_SECONDS = 70.0
"""Longer than the leases of the run's indexes last, which a worker on another machine would have to wait for."""
TRY_SECONDS = 60.0
ENDED = b"ended"
KILLED_STATES = {"RUNNING", "PENDING"}
STOPPED_STATES = KILLED_STATES | {"CRASHED", "FAILED"}
"""States of a run that are not its own end if a signal came which nothing in the run took care of."""

_PENDING: list[object] = []


def run_of_process() -> str | None:
    """Return the id of the deployed run that this process is; None in any other, such as one that a run has started."""
    started = sys.modules["__main__"].__spec__
    return os.environ.get("PREFECT__FLOW_RUN_ID") if started is not None and started.name == "prefect.engine" else None


def start_witness(run_id: str) -> None:
    """Have a witness until this process exits by itself."""
    witness = subprocess.Popen(
        [sys.executable, "-P", "-m", __name__],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # the worker kills the whole group of a run that it cancels
    )

    def tell(words: bytes) -> None:
        with suppress(OSError):  # it has gone, which must not end the run
            witness.stdin.write(words)  # type: ignore[union-attr]
            witness.stdin.flush()  # type: ignore[union-attr]

    def dismiss() -> None:
        tell(ENDED)
        witness.communicate()

    # By a pipe: everybody may read command lines, and there is a password among the headers.
    tell(json.dumps(_address(run_id)).encode() + b"\n")
    atexit.register(dismiss)
    os.set_blocking(witness.stdin.fileno(), False)  # type: ignore[union-attr]
    _in_main_thread(lambda: signal.set_wakeup_fd(witness.stdin.fileno(), warn_on_full_buffer=False))  # type: ignore[union-attr]


def _in_main_thread(call: Callable[[], object]) -> None:
    """Have the main thread call this as soon as it runs Python code: Prefect imports flows in another one."""

    def pending(_: int | None) -> int:
        call()
        return 0

    function = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p)(pending)
    _PENDING.append(function)  # Python keeps its address alone
    ctypes.pythonapi.Py_AddPendingCall(function, None)


def _address(run_id: str) -> dict[str, Any]:
    from prefect.settings import get_current_settings

    settings = get_current_settings()
    api = settings.api
    headers = {str(name): str(value) for name, value in settings.client.custom_headers.items()}
    if api.auth_string is not None:
        headers["Authorization"] = "Basic " + b64encode(api.auth_string.get_secret_value().encode()).decode()
    elif api.key is not None:
        headers["Authorization"] = f"Bearer {api.key.get_secret_value()}"
    verify = not api.tls_insecure_skip_verify and (api.ssl_cert_file or True)
    return {"url": f"{api.url}/flow_runs/{run_id}", "headers": headers, "verify": verify}


def main() -> None:
    """Wait for the end of the run's process, and put the run off if it was killed or told to end."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)  # systemd sends it to the whole service
    address = json.loads(sys.stdin.buffer.readline())
    with httpx.Client(headers=address["headers"], verify=address["verify"], timeout=10) as client:
        words = sys.stdin.buffer.read()  # of signals, the numbers
        if words.endswith(ENDED) and signal.SIGTERM not in words:
            return
        states = STOPPED_STATES if signal.SIGTERM in words else KILLED_STATES
        deadline = time.monotonic() + TRY_SECONDS
        while not _put_off(client, address["url"], states) and time.monotonic() < deadline:
            time.sleep(1)


def _put_off(client: httpx.Client, url: str, states: set[str]) -> bool:
    """Schedule the run again if it is in one of these states. Return whether the server was there to decide it."""
    later = (datetime.now(UTC) + timedelta(seconds=PUT_OFF_SECONDS)).isoformat()
    state = {"type": "SCHEDULED", "name": "AwaitingRetry", "message": PUT_OFF}
    try:
        answer = client.get(url)
        if answer.is_success and answer.json()["state_type"] in states:
            proposed = {"state": state | {"state_details": {"scheduled_time": later}}, "force": False}
            answer = client.post(f"{url}/set_state", json=proposed)
    except httpx.TransportError:
        return False
    return answer.status_code < 500


if __name__ == "__main__":
    main()
