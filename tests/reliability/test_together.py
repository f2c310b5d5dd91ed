"""A service that searches all the time, and runs, rebuilds and rollbacks of the same embedded
store, killed or not."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import ExitStack

import pytest

from rag_index.components.stores.edge.folder import Catalog
from tests.project import PROGRAM, Project
from tests.waiting import eventually

SERVICE = """
import json, sys, threading, time
from rag_index.search import Retriever
retriever = Retriever.from_settings(sys.argv[1])
done = {"searches": 0, "errors": []}
def search(number):
    while True:
        try:
            result = retriever.search_sync(f"printer {number}", limit=20, timeout=100)
            done["errors"] += [*result.errors.values(), *([] if len(result.hits) == 20 else ["too few hits"])]
        except Exception as exc:
            done["errors"].append(repr(exc))
        done["searches"] += 1
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
        command = [sys.executable, "-c", SERVICE, self._config]
        self.popen = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, query: str) -> dict:
        """Search, and return the best hit and what happened so far. No search may have failed."""
        self.popen.stdin.write(f"{query}\n")
        self.popen.stdin.flush()
        answer = json.loads(self.popen.stdout.readline())
        assert answer["errors"] == []
        return answer

    def kill(self) -> None:
        self.popen.kill()
        self.popen.communicate()


def started_run(project: Project, *arguments: str) -> subprocess.Popen[bytes]:
    """Start a command in a process group of its own."""
    command = [*PROGRAM, "--config", str(project.config), *arguments]
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )


def entries(project: Project):
    return list(Catalog(project.settings.store.path).entries().values())


def writing(project: Project) -> bool:
    unflushed = project.settings.store.path.glob("collections/*/unflushed")
    return any(entry.writing for entry in entries(project)) or any(unflushed)


def nothing_left(project: Project) -> bool:
    """Whether the store has one folder for each collection and no trash."""
    store = project.settings.store.path
    folders = {folder.name for folder in (store / "collections").iterdir()}
    return folders == {entry.folder for entry in entries(project)} and not any(
        (store / "trash").iterdir()
    )


@pytest.mark.long
def test_searches_go_on_whatever_is_killed_and_nothing_is_lost_or_left(tmp_path):
    project = Project(tmp_path / "p").fill(300)
    project.json("index-all")
    random_ = random.Random()
    with ExitStack() as stack:
        service = Service(project)
        stack.callback(service.kill)
        assert service.ask("zebra crossing")["id"] != "7"
        for number, words in enumerate(("zebra crossing", "giraffe feeding")):
            project.execute("UPDATE note SET body = ? WHERE id = 7", words)
            run = started_run(project, "index-all", *(["--serial"] if number else []))
            eventually(lambda run=run: writing(project) or run.poll() is not None)
            time.sleep(random_.uniform(0, 0.5))
            os.killpg(run.pid, signal.SIGKILL)
            run.wait()
            project.json("index-all")
            assert eventually(lambda text=words: service.ask(text)["text"].endswith(text)), (
                "it is not found"
            )
        project.json("rebuild", "notes")
        assert service.ask("giraffe feeding")["collections"] == {"notes": "test_notes__2"}, (
            "the alias has moved"
        )
        project.json("rollback", "notes")
        answer = service.ask("giraffe feeding")
        assert (answer["id"], answer["collections"]) == ("7", {"notes": "test_notes__1"})
        assert answer["searches"] > 100
        run = started_run(project, "index-all")
        for _ in range(2):
            time.sleep(random_.uniform(0.5, 2))
            service.kill()
            service.start()
            service.ask("printer")
        assert run.wait() == 0
    project.json("doctor")
    assert project.json("index-all")["indexes"][0]["chunks_embedded"] == 0
    assert eventually(lambda: nothing_left(project))
    assert not any((project.settings.store.path / "readers").iterdir())
