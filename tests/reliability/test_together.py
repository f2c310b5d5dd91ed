"""A service that searches all the time, and runs, rebuilds and rollbacks of the same embedded store, killed or not."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from rag_index.stores.edge.catalog import Catalog, CatalogEntry
from tests.project import PROGRAM, Project
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.long

SERVICE = """
import json, sys, threading, time
from rag_index.retrieve import Retriever
retriever = Retriever.from_settings(sys.argv[1])
done = {"searches": 0, "errors": [], "slowest": 0.0}
def search(number):
    while True:
        began = time.monotonic()
        try:
            result = retriever.search_sync(f"printer {number}", limit=20, timeout=100)
            done["errors"] += result.errors.values()
            if len(result.hits) != 20:
                done["errors"].append(f"{len(result.hits)} hits")
        except Exception as exc:
            done["errors"].append(repr(exc))
        done["searches"] += 1
        done["slowest"] = max(done["slowest"], time.monotonic() - began)
        time.sleep(0.01)
for number in range(3):
    threading.Thread(target=search, args=[number], daemon=True).start()
for line in sys.stdin:
    result = retriever.search_sync(line.strip(), limit=5, timeout=100)
    best = {"id": result.hits[0].document_id, "text": result.hits[0].text, "collections": result.collections}
    print(json.dumps({**done, **best}), flush=True)
"""


class Service:
    """A process with three threads that search without a pause."""

    def __init__(self, project: Project) -> None:
        self._config = project.config
        self.start()

    def start(self) -> None:
        self.popen = subprocess.Popen(
            [sys.executable, "-c", SERVICE, self._config], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, query: str) -> dict[str, Any]:
        """Search, and return the best hit and what happened so far. No search may have failed."""
        assert self.popen.stdin is not None
        assert self.popen.stdout is not None
        self.popen.stdin.write(f"{query}\n")
        self.popen.stdin.flush()
        answer: dict[str, Any] = json.loads(self.popen.stdout.readline())
        assert answer["errors"] == []
        return answer

    def kill(self) -> None:
        self.popen.kill()
        self.popen.communicate()


@contextmanager
def serving(project: Project) -> Iterator[Service]:
    service = Service(project)
    try:
        yield service
    finally:
        service.kill()


def started_run(project: Project, *arguments: str) -> subprocess.Popen[bytes]:
    """Start a command in a process group of its own."""
    command = [*PROGRAM, "--config", str(project.config), *arguments]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)


def killed_run(project: Project, number: int, random_: random.Random) -> None:
    """Start a run, and kill it with all its processes: at any time, or soon after it began to write."""
    run = started_run(project, "index-all", *(["--serial"] if number % 2 else []))
    if number % 3 == 0:
        time.sleep(random_.uniform(3, 12))
    else:
        eventually(lambda: writing(project) or run.poll() is not None)
        time.sleep(random_.uniform(0, 0.5))
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()


def entries(project: Project) -> list[CatalogEntry]:
    return list(Catalog(project.settings.store.path).entries().values())


def writing(project: Project) -> bool:
    unflushed = project.settings.store.path.glob("collections/*/unflushed")
    return any(entry.writing for entry in entries(project)) or any(unflushed)


@pytest.fixture
def project(tmp_path: Path, prefect_server: str) -> Project:
    project = Project(tmp_path / "p").fill(300)
    project.json("index-all")
    return project


def nothing_left(project: Project) -> bool:
    """Whether the store has one folder for each collection, and readers that live alone."""
    store = project.settings.store.path
    named = {entry.folder for entry in entries(project)}
    return {folder.name for folder in (store / "collections").iterdir()} == named and not any(
        (store / "trash").iterdir()
    )


def test_searches_go_on_during_runs_a_rebuild_and_a_rollback(project):
    with serving(project) as service:
        assert service.ask("zebra crossing")["id"] != "7"
        for words in ("zebra crossing", "giraffe feeding"):
            project.execute("UPDATE note SET body = ? WHERE id = 7", words)
            project.json("index-all")
            assert eventually(lambda text=words: service.ask(text)["text"].endswith(text)), "it is not found"
        project.json("index-all")
        project.json("rebuild", "notes")
        assert service.ask("giraffe feeding")["collections"] == {"notes": "test_notes__2"}, "the alias has moved"
        project.json("rollback", "notes")
        answer = service.ask("giraffe feeding")
        assert (answer["id"], answer["collections"]) == ("7", {"notes": "test_notes__1"})
        assert answer["searches"] > 100
        print(f"{answer['searches']} searches, the slowest took {answer['slowest']:.2f} s")
        assert eventually(lambda: nothing_left(project))
    project.execute("DELETE FROM note WHERE id = 7")
    project.json("index-all")
    assert "7" not in project.texts()
    assert nothing_left(project)
    assert not any((project.settings.store.path / "readers").iterdir())


def test_kills_of_either_side_lose_nothing_and_leave_nothing(project):
    random_ = random.Random()
    with serving(project) as service:
        service.ask("printer")
        for number in range(4):
            project.execute("UPDATE note SET body = body || ?", f" again {number}")
            killed_run(project, number, random_)
            service.ask("printer")
        service.kill()
    project.execute("UPDATE note SET body = 'zebra crossing' WHERE id = 7")
    with serving(project) as service:
        service.ask("printer")
        run = started_run(project, "index-all")
        for _ in range(3):
            time.sleep(random_.uniform(0.5, 2))
            service.kill()
            service.start()
            service.ask("printer")
        assert run.wait() == 0
        assert eventually(lambda: service.ask("zebra crossing")["id"] == "7")
    project.json("index-all")
    project.json("doctor")
    assert project.json("index-all")["indexes"][0]["chunks_embedded"] == 0
    assert nothing_left(project)
    assert not any((project.settings.store.path / "readers").iterdir())
