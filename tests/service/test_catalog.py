"""How fresh an answer is: as the ledger knows it, without a search ever waiting long for the ledger."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from datetime import UTC, datetime

import httpx
import pytest

from rag_index.service.search_service import OLD_SECONDS, SECONDS, Catalog
from tests.indexing.plain import run_plain
from tests.project import Project
from tests.service.live import Live


@pytest.fixture
def project(tmp_path) -> Project:
    project = Project(tmp_path / "project").fill(12)
    run_plain(project)
    return project


def test_after_a_run_an_answer_says_when_it_was_complete(project):
    with Live(project.settings) as live, httpx.Client(base_url=live.url, timeout=60) as client:
        (found,) = client.get("/indexes").json()["indexes"]
        assert found["documents"] == 12
        assert found["chunks"] >= 12
        assert found["freshness"]["last_run"] == "completed"
        complete = datetime.fromisoformat(found["freshness"]["complete_at"])
        assert 0 <= (datetime.now(UTC) - complete).total_seconds() < 3600
        answer = client.post("/search", json={"query": "printer"}).json()
        assert answer["freshness"]["notes"]["complete_at"] == found["freshness"]["complete_at"]


RUN = """
import sys
from rag_index.indexing.run import RunOptions, open_run
from rag_index.settings import load_settings
with open_run(load_settings(sys.argv[1]), "notes", RunOptions(), run_id="another"):
    print("running", flush=True)
    input()
"""


def test_a_run_that_was_killed_is_not_told_to_be_running(project):
    def told() -> str:
        with Live(project.settings) as live:
            return httpx.get(f"{live.url}/indexes", timeout=60).json()["indexes"][0]["freshness"]["last_run"]

    command = [sys.executable, "-c", RUN, str(project.config)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout.readline() == "running\n"
        assert told() == "running"
        run.kill()
    assert told() == "interrupted"
    assert project.json("report")["runs"][0]["state"] == "interrupted"


def test_a_search_does_not_depend_on_the_ledger(project):
    ledger = project.folder / ".rag-index" / "ledger.db"
    ledger.write_bytes(b"this is no database" * 100)
    with Live(project.settings) as live, httpx.Client(base_url=live.url, timeout=60) as client:
        answer = client.post("/search", json={"query": "printer"})
        assert answer.status_code == 200
        assert answer.json()["freshness"]["notes"] == {"complete_at": None, "age_seconds": None, "last_run": None}
        assert client.get("/indexes").status_code == 503
        assert client.get("/readyz").status_code == 503


class Slow(Catalog):
    """A catalog whose ledger hangs until it is released."""

    def __init__(self, settings, **more) -> None:
        super().__init__(settings, **more)
        self.free, self.readings = threading.Event(), 0

    def _read(self):
        self.readings += 1
        self.free.wait(60)
        return super()._read()


def at_once(coroutine):
    """Return the result of a coroutine that waits for nothing."""
    try:
        coroutine.send(None)
    except StopIteration as ended:
        return ended.value
    raise AssertionError("it waits")


def test_a_ledger_that_hangs_is_waited_for_once_and_briefly(project):
    now = [1000.0]

    async def main():
        slow = Slow(project.settings, clock=lambda: now[0])
        assert await slow.freshness() == {}
        now[0] += 1
        assert at_once(slow.freshness()) == {}
        assert slow.readings == 1
        slow.free.set()
        assert [one.name for one in await slow.indexes()] == ["notes"]
        assert (await slow.freshness())["notes"].last_run == "completed"
        assert slow.readings == 1
        now[0] += SECONDS + 1
        await asyncio.gather(*(slow.indexes() for _ in range(50)))
        assert slow.readings == 2

    asyncio.run(main())


def test_a_search_is_told_what_is_known_while_that_is_read_again(project):
    now = [1000.0]

    async def main():
        slow = Slow(project.settings, clock=lambda: now[0])
        slow.free.set()
        assert (await slow.freshness())["notes"].last_run == "completed"
        slow.free.clear()
        now[0] += SECONDS + 1
        assert at_once(slow.freshness())["notes"].last_run == "completed"
        assert at_once(slow.freshness())["notes"].last_run == "completed"
        await asyncio.sleep(0)  # the reading begins
        slow.free.set()
        await slow.indexes()
        assert slow.readings == 2
        now[0] += OLD_SECONDS + 1
        waiting = slow.freshness()
        assert (await waiting)["notes"].last_run == "completed"
        assert slow.readings == 3

    asyncio.run(main())
