"""The systemd units, set up as docs/operations.md says, run as their user and with their restrictions."""

import re

import pytest

from tests.deployments.machine import VENV, Machine, missing
from tests.deployments.server import ROOT

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

PAGE = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
STEPS = (
    "\n".join(re.findall(r"^```sh systemd\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL))
    .replace("$(openssl rand -hex 24)", "a-password-of-this-test")
    .splitlines()
)  # each line is typed in a shell of its own
SAMPLE = "rag-index sample workshop --out desk/desk.db --settings"


@pytest.fixture
def machine(tmp_path):
    if reason := missing():
        pytest.skip(reason)
    with Machine(tmp_path / "machine") as machine:
        machine.run(f"{VENV}/bin/{SAMPLE}")
        yield machine


def test_the_units_run_a_night_with_their_restrictions(machine):
    exported, shown = "auth=rag:a-password-of-this-test", {}
    for line in STEPS:
        if not line.strip():
            continue
        shown[line] = machine.run(f"{exported} && {line}")
        if line.startswith(("export ", "cd ")):
            exported += f" && {line}"
    (watched,) = (output for line, output in shown.items() if "--watch" in line)
    log = machine.run("cat /var/log/rag-index-worker.log")
    assert "'Completed'" in watched, log
    assert "completed" in shown[STEPS[-1]]
    kept = machine.run("cd /var/lib/rag-index && ls -A; ls -A /etc/rag-index; find / -xdev -user rag | head -50")
    assert {"ledger.db", "qdrant", "prefect-server", "prefect-worker"} <= set(kept.split())
    assert ".rag-index" not in kept
    assert machine.run("stat -c %a /etc/rag-index/prefect.env /etc/rag-index/worker.env").split() == ["600", "600"]
    open_to_all = "curl --silent --output /dev/null --write-out '%{http_code}' http://127.0.0.1:4200/api/admin/settings"
    assert machine.run(open_to_all) == "401"
    assert "telemetry" not in machine.run("cat /var/log/rag-index-prefect.log")

    (cron,) = re.findall(r"^0 2 \* \* \* (.*)$", PAGE, re.MULTILINE)
    as_cron = "env -i HOME=/var/lib/rag-index LOGNAME=rag SHELL=/bin/sh PATH=/usr/bin:/bin"
    rag = "setpriv --reuid rag --regid rag --init-groups"
    mail = machine.run(f"cd /var/lib/rag-index && {rag} {as_cron} /bin/sh -c '{cron}'")
    assert "Nothing changed" in mail
    assert "Traceback" not in mail

    machine.run("sed -i /^data/d /etc/rag-index/rag-index.toml")
    (again,) = (line for line in STEPS if "--watch" in line)
    assert "'Failed'" in machine.run(f"{exported} && cd - && {again} || true")
    log = machine.run("cat /var/log/rag-index-worker.log")
    assert "/etc/rag-index/.rag-index/ledger.db cannot be created: Read-only file system; set `data`" in log
