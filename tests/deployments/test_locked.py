"""The services of systemd's units and of the image, as users who may write to their state alone."""

import re
import shutil
import sqlite3
from contextlib import closing

import httpx
import pytest
import yaml

from tests.deployments.locked_machine import LockedMachine
from tests.deployments.server import ROOT
from tests.deployments.test_compose import SERVICES, pod_in, stages
from tests.deployments.test_operations import blocks
from tests.waiting import eventually

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
WRONG = re.compile("UserWarning|Permission denied|Read-only file system|Traceback")


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
            return httpx.get(url, headers={"Accept": "text/html"}, trust_env=False, follow_redirects=True, timeout=60)
        except httpx.TransportError:
            return None

    return eventually(answered, f"{url} answers", every=0.25)


def is_html(page: httpx.Response) -> bool:
    return page.status_code == 200 and page.headers["Content-Type"].startswith("text/html") and "</html>" in page.text


def watched_alone(machine: LockedMachine) -> None:
    """Start the watch on a source that has times of change, unlike the sample, and wait until it has indexed it."""
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
    units = {unit.stem for unit in (ROOT / "deployments" / "systemd").glob("*.service")}
    assert machine.services.keys() == units
    for port in (4200, 8765):
        assert is_html(page_of(machine, port)), port
    assert is_html(page_of(machine, 4200, "/runs")), "an address inside the page"
    assert page_of(machine, 4200, "/api/admin/version").status_code == 401
    for name, process in machine.services.items():
        assert process.poll() is None, (machine.log / name).read_text()
        assert not WRONG.search((machine.log / name).read_text()), (machine.log / name).read_text()


@pytest.mark.parametrize("of", ["compose", "image"])
def test_prefects_server_has_its_page_in_a_container_that_is_read_only(machine, of):
    """The image alone says where the page is copied to, for those who start it by other means."""
    service = SERVICES["prefect"]
    if of == "compose":
        own = {key: value for key, value in service["environment"].items() if "$" not in value}
    else:
        own = dict(one.split("=", 1) for name, text in stages()[-1] if name == "ENV" for one in text.split())
        del own["PATH"]
    own = {key: machine.here(value) for key, value in own.items()}
    machine.start("prefect", service["command"], machine.folder / "data", own)
    log = machine.log / "prefect"
    assert is_html(page_of(machine, 4200)), log.read_text()
    assert not WRONG.search(log.read_text()), log.read_text()


def test_each_pod_that_is_read_only_may_write_to_the_home_of_its_user():
    """Prefect keeps a folder there, and a worker of Dask imports Prefect, too."""
    items = yaml.safe_load((ROOT / "deployments" / "kubernetes.yaml").read_text())["items"]
    for item in filter(pod_in, items):
        [container] = item["spec"].get("jobTemplate", item)["spec"]["template"]["spec"]["containers"]
        places = {mount["mountPath"] for mount in container["volumeMounts"]}
        assert container["securityContext"]["readOnlyRootFilesystem"]
        assert "scheduler" in container["name"] or "/home/rag" in places, container["name"]
