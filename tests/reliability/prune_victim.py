"""A process whose children prune a project and kill themselves in the midst of it, each at a later step.

    python -m tests.reliability.prune_victim FOLDER SETTINGS FIRST EVERY

A step is a statement of SQLite, or a file or folder that is deleted. The first child dies at step FIRST, each of the
others EVERY steps later. This prints a line of JSON for each: what was left when it died, and after another one has
pruned to the end.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import sys
from contextlib import closing
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rag_index.indexing.pruning import prune
from rag_index.ledger import Ledger
from rag_index.settings import load_settings
from rag_index.stores import open_store

if TYPE_CHECKING:
    from collections.abc import Callable

    from rag_index.settings import Settings

DATABASES = ("ledger.db", "contexts.db")
LATER = {"rag_index_leases"}
"""Tables that say when something was done."""
COLUMNS = {
    "rag_index_contexts": "document, chunk, recipe, context",  # the day of the last use may have been noted, or not yet
    "rag_index_watches": "alias",
}


def prune_all(settings: Settings) -> None:
    """Prune what a run prunes itself."""
    open_store(settings.store).close()
    with closing(Ledger(settings.ledger_url)) as ledger:
        prune(settings, ledger)


def die_at(step: int) -> None:
    """Kill this process with SIGKILL at a step."""
    left = [step]

    def count(*_: object) -> None:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def hear(event: str, _: tuple[Any, ...]) -> None:
        if event in {"os.remove", "os.rmdir"}:
            count()

    def connect(*given: Any, **named: Any) -> sqlite3.Connection:
        connection = original(*given, **named)
        connection.set_trace_callback(count)
        return connection

    original = sqlite3.connect
    sqlite3.connect = sqlite3.dbapi2.connect = connect  # SQLAlchemy has it from dbapi2
    sys.addaudithook(hear)


def in_child(work: Callable[[], None]) -> bool:
    """Do the work in a child process; return whether it was killed."""
    pid = os.fork()
    if not pid:
        work()
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        return True
    assert status == 0
    return False


def left_in(data: Path) -> dict[str, list[str]]:
    """Return a hash of each row of all databases, and what the trash has. The rows of changes are legible."""
    found = {"trash": sorted(path.name for path in (data / "qdrant" / "trash").rglob("*"))}
    for file in DATABASES:
        with closing(sqlite3.connect(data / file)) as db:
            assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)], file
            names = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            for name in set(names) - LATER:
                columns = COLUMNS.get(name, "*")
                rows = sorted(map(repr, db.execute(f'SELECT {columns} FROM "{name}"')))
                legible = name in {"rag_index_inbox", "rag_index_look_ups"}
                found[f"{file} {name}"] = (
                    rows if legible else [blake2b(r.encode(), digest_size=8).hexdigest() for r in rows]
                )
    return found


def main(folder: str, settings_name: str, first: str, every: str) -> None:
    """Kill children until one prunes to the end."""
    pristine, work = Path(folder), Path(f"{folder}-killed")
    killed, step = True, int(first)
    while killed:
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(pristine, work, ignore=shutil.ignore_patterns("test_notes__*"))  # no collection is opened
        settings = load_settings(work / settings_name)
        killed = in_child(lambda step=step, settings=settings: (die_at(step), prune_all(settings)))  # type: ignore[misc]
        died = left_in(settings.data)
        in_child(lambda settings=settings: prune_all(settings))  # type: ignore[misc]
        print(json.dumps({"killed": killed, "died": died, "after": left_in(settings.data)}), flush=True)
        step += int(every)


if __name__ == "__main__":
    main(*sys.argv[1:])
