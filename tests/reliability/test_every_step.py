"""Death before every single write of a run, and in the middle of those to the store; then one more run.

Plain code, no processes: what a run calls on its store and its ledger is counted, and the call of that number never
happens, or happens by half, and nothing after it. `test_kill` shows the same of real processes, at moments by chance.
"""

from __future__ import annotations

import random
import shutil
import sqlite3
import uuid
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from rag_index.indexing.diff import MAX_TRIES
from rag_index.indexing.run import RunOptions, open_run
from rag_index.indexing.steps import Here
from rag_index.stores import open_store
from tests.project import Project
from tests.reliability.scenario import edit_corpus, make_project
from tests.reliability.victim import project_in

DOCUMENTS = 60
SEED = random.SystemRandom().randrange(1_000_000)
WRITES = {
    "store": (
        "create", "upsert", "update_payloads", "delete_chunks", "delete_points", "flush", "point_alias", "drop",
        "set_metadata", "set_commit_mark",
    ),
    "ledger": (
        "add_collection", "update_collection", "drop_collection", "mark_pending", "record", "forget", "unmark_pending",
        "record_commit",
        "fail", "clear_failures", "forget_unseen_failures", "record_scan", "record_digests", "forget_digests",
        "forget_digests_of",
        "start_run", "finish_run", "note_emptied", "note_size", "copy_sizes", "hold_back", "release", "release_seen",
        "release_all",
    ),
}  # fmt: skip


class Died(BaseException):
    """The run has died."""


@dataclass
class Death:
    """A death at the write of this number, counted from 1, or in the middle of it if `half`."""

    at: int = 0
    half: bool = False
    writes: int = 0

    def of(self, thing, names):
        return Mortal(thing, names, self)


class Mortal:
    """A store or a ledger whose writes are counted."""

    def __init__(self, thing, names, death) -> None:
        self._thing, self._names, self._death = thing, names, death

    def __getattr__(self, name):
        attribute = getattr(self._thing, name)
        return self._count(name, attribute) if name in self._names else attribute

    def _count(self, name, method):
        death = self._death

        def call(*arguments, **named):
            death.writes += 1
            if death.writes != death.at:
                return method(*arguments, **named)
            if death.half and name in ("upsert", "update_payloads", "delete_chunks", "delete_points"):
                collection, what = arguments
                method(collection, _half(what), **named)
            raise Died

        return call


def _half(batch):
    if isinstance(batch, list):
        return batch[: len(batch) // 2]
    if isinstance(batch, dict):
        return dict(list(batch.items())[: len(batch) // 2])
    count = max(1, len(batch) // 2)
    return type(batch)(batch.ids[:count], batch.vectors[:count], batch.payloads[:count])


def run_once(project: Project, embedder, *, full: bool = False, death: Death | None = None):
    """Run once, as the flow does, in small shards."""
    death = death or Death()
    settings = project.settings
    options = RunOptions(full=full, allow_deletes=True)
    with open_run(settings, "notes", options, run_id=str(uuid.uuid4())) as run:
        run.store = death.of(run.store, WRITES["store"])
        run.ledger = death.of(run.ledger, WRITES["ledger"])
        scan = run.begin(embedder.identity(), run.open_chunker(), workers=1)
        scan.sharder._documents = 12
        scan.sharder.observe = lambda chars, seconds: None  # a busy machine would measure no rate, and not write it
        scan.index(pages(run), Here(embedder))
        scan.delete_gone()
        scan.publish()
        return run.finish()


def pages(run):
    cursor = None
    while True:
        page = run.source.page(cursor, 25)
        yield page
        cursor = page.cursor
        if cursor is None:
            return


def live_points(project: Project):
    """Return the points that readers see; None if there is no live collection yet."""
    settings = project.settings
    store = open_store(settings.store)
    try:
        if settings.alias("notes") not in store.aliases():
            return None
        return {p.id: (p.payload, p.vector) for p in store.scroll(settings.alias("notes"), vectors=True)}
    finally:
        store.close()


def documents(project: Project):
    """Return the ledger's rows of the live collection."""
    settings = project.settings
    store = open_store(settings.store)
    name = store.aliases()[settings.alias("notes")]
    store.close()
    with sqlite3.connect(project.folder / ".rag-index" / "ledger.db") as db:
        return db.execute(
            "SELECT d.key, text_hash, payload_hash, chunks, pending FROM rag_index_documents d "
            "JOIN rag_index_collections c ON c.id = d.collection_id WHERE c.name = ? ORDER BY d.key",
            (name,),
        ).fetchall()


def failed(project: Project) -> list[str]:
    """Return the keys of the documents that the ledger lists as failed."""
    with sqlite3.connect(project.folder / ".rag-index" / "ledger.db") as db:
        return [row[0] for row in db.execute("SELECT key FROM rag_index_failed_documents ORDER BY key")]


def chunk_differently(project: Project) -> Project:
    project.write_settings(project.config.read_text().replace("chunk_chars = 200", "chunk_chars = 120"))
    return project


def with_times(project: Project) -> Project:
    """Let runs read only rows that changed since the last one: every change but a deletion raises the time."""
    project.execute("ALTER TABLE note ADD COLUMN changed TEXT")
    project.execute("UPDATE note SET changed = '2020-01-01 00:00:00'")
    project.execute("UPDATE note SET changed = '2021-01-01 00:00:00' WHERE id = 1")
    project.write_settings(project.config.read_text() + 'changed_since = "changed"\n')
    return project


def edited_with_times(project: Project) -> Project:
    def rows(db):
        return {row[0]: row[1:5] for row in db.execute("SELECT id, title, body, author, priority FROM note")}

    with project.source() as db:
        before = rows(db)
        db.execute("ALTER TABLE note DROP COLUMN changed")
    edit_corpus(project)
    with project.source() as db:
        db.execute("ALTER TABLE note ADD COLUMN changed TEXT")
        for i, row in rows(db).items():
            when = "2020-01-01 00:00:00" if before.get(i) == row else "2022-01-01 00:00:00"
            db.execute("UPDATE note SET changed = ? WHERE id = ?", (when, i))
    return project


def with_digests(project: Project) -> Project:
    """Let runs read only the buckets of rows whose digests changed."""
    project.write_settings(project.config.read_text().replace("[source]", "[source]\ndigest = true"))
    return project


def edit_few(project: Project) -> Project:
    """Make one change of each kind, so that most buckets stay unread."""
    project.execute("UPDATE note SET body = 'Now it works again.' WHERE id = 5")
    project.execute("UPDATE note SET author = 'editor' WHERE id = 17")
    project.execute("DELETE FROM note WHERE id = 33")
    project.execute("UPDATE note SET title = NULL, body = '' WHERE id = 47")
    project.execute("INSERT INTO note VALUES (61, 'New', 'A new note about the printer.', 'a', 1)")
    return project


def into_other_buckets(project: Project) -> Project:
    """Make changes, and let the next run read everything and give a source that has grown other buckets."""
    edit_few(project)
    project.execute("INSERT INTO note VALUES (4000, 'Newer', 'A note far away about the scanner.', 'a', 1)")
    with sqlite3.connect(project.folder / ".rag-index" / "ledger.db") as db:
        db.execute("UPDATE rag_index_scan_states SET full_at = 0")
    return project


SCENES = {  # the first state, the change, and whether the run is a rebuild
    "first": (None, lambda project: project, False),
    "second": (lambda project: project, edit_corpus, False),
    "rebuild": (lambda project: project, lambda project: chunk_differently(edit_corpus(project)), True),
    "changed_since": (with_times, edited_with_times, False),
    "digest": (with_digests, edit_few, False),
    "first with digests": (None, with_digests, False),
    "digests, undone": (with_digests, edit_few, False),
    "other buckets": (with_digests, into_other_buckets, False),
    "other buckets, undone": (with_digests, into_other_buckets, False),
    "undone": (lambda project: project, edit_corpus, False),  # the source is as before when the next run reads it
}


@pytest.mark.parametrize("scene", SCENES)
def test_death_at_some_writes(folder, embedder, scene):
    deaths(folder, embedder, scene, half=random.Random(SEED).random() < 0.5, every=12)


@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("half", [False, True], ids=["before", "during"])
@pytest.mark.parametrize("scene", SCENES)
def test_death_at_every_write(folder, embedder, scene, half):
    deaths(folder, embedder, scene, half=half, every=1)


def deaths(folder: Path, embedder, scene: str, *, half: bool, every: int) -> None:
    """Die at every `every`th write of a run, from a random one on."""
    before, change, full = SCENES[scene]
    start = make_project(folder / "start", DOCUMENTS)
    if before is not None:
        assert run_once(before(start), embedder).state == "completed"
        shutil.copy(start.folder / "source.db", folder / "before.db")
    old = (live_points(start), documents(start)) if before is not None else (None, None)
    change(start)

    clean = copied(start, folder / "clean")
    whole = Death()
    assert run_once(clean, embedder, full=full, death=whole).state == "completed"
    fresh = copied(start, folder / "fresh", indexed=False)
    assert run_once(fresh, embedder).state == "completed"
    expected = live_points(clean), documents(clean)
    assert expected == (live_points(fresh), documents(fresh)), "the run differs from one that starts from nothing"
    if scene.endswith("undone"):
        expected = old
    assert whole.writes > 20

    moments = range(1 + random.Random(SEED).randrange(every), whole.writes + 1, every)
    for number in moments:
        where = f"death at write {number} of {whole.writes}, half: {half}"
        victim = copied(start, folder / "victim")
        with pytest.raises(Died):
            run_once(victim, embedder, full=full, death=Death(at=number, half=half))
        seen = live_points(victim)
        if full:
            assert seen in (old[0], expected[0]), f"readers see a half-built index after {where}"
        if scene.endswith("undone"):
            shutil.copy(folder / "before.db", victim.folder / "source.db")
        outcome = run_once(victim, embedder, full=full and seen != expected[0])
        assert outcome.state == "completed", (where, outcome)
        assert "older copy" not in outcome.message, where
        found = live_points(victim), documents(victim)
        assert found == expected, where
        shutil.rmtree(victim.folder)


def test_death_while_documents_that_failed_become_readable_for_a_while(folder, embedder):
    """What is listed as failed is listed again when the source is as it was, although the digests are too."""
    start = with_digests(make_project(folder / "start", DOCUMENTS))
    run_once(start, embedder)
    with start.source() as db:
        [(body,)] = db.execute("SELECT body FROM note WHERE id = 31").fetchall()
    start.execute("UPDATE note SET body = x'00ff' WHERE id = 31")
    start.execute("INSERT INTO note VALUES (61, 'Unreadable', x'00ff', 'a', 1)")
    for _ in range(MAX_TRIES):
        run_once(start, embedder)
    shutil.copy(start.folder / "source.db", folder / "before.db")
    expected = live_points(start), failed(start)
    assert len(expected[1]) == 2
    start.execute("UPDATE note SET body = ? WHERE id = 31", body)
    start.execute("UPDATE note SET title = '', body = '' WHERE id = 61")
    whole = Death()
    run_once(copied(start, folder / "clean"), embedder, death=whole)
    for number in range(1, whole.writes + 1):
        victim = copied(start, folder / "victim")
        with pytest.raises(Died):
            run_once(victim, embedder, death=Death(at=number))
        shutil.copy(folder / "before.db", victim.folder / "source.db")
        run_once(victim, embedder)
        assert (live_points(victim), failed(victim)) == expected, (number, whole.writes)
        shutil.rmtree(victim.folder)


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("digests", [False, True])
def test_one_death_after_another(folder, embedder, digests):
    """The run that repairs is killed too, four times, while the source changes back and forth."""
    random_ = random.Random(SEED)
    start = make_project(folder / "start", DOCUMENTS)
    start = with_digests(start) if digests else start
    shutil.copy(start.folder / "source.db", folder / "before.db")
    run_once(start, embedder)
    (edit_few if digests else edit_corpus)(start)
    shutil.copy(start.folder / "source.db", folder / "after.db")
    expected = {}
    for name in ("before", "after"):
        clean = copied(start, folder / f"clean-{name}")
        shutil.copy(folder / f"{name}.db", clean.folder / "source.db")
        run_once(clean, embedder)
        expected[name] = live_points(clean), documents(clean)
    for chain in range(60):
        victim = copied(start, folder / "victim")
        deaths = []
        for _ in range(4):
            name = random_.choice(("before", "after"))
            shutil.copy(folder / f"{name}.db", victim.folder / "source.db")
            deaths.append((name, Death(at=random_.randrange(1, 60), half=random_.random() < 0.5)))
            with suppress(Died):  # it may end before
                run_once(victim, embedder, death=deaths[-1][1])
        name = random_.choice(("before", "after"))
        shutil.copy(folder / f"{name}.db", victim.folder / "source.db")
        assert run_once(victim, embedder).state == "completed", (SEED, chain, deaths)
        assert (live_points(victim), documents(victim)) == expected[name], (SEED, chain, deaths, name)
        shutil.rmtree(victim.folder)


def copied(project: Project, folder: Path, *, indexed: bool = True) -> Project:
    shutil.copytree(project.folder, folder)
    if not indexed:
        shutil.rmtree(folder / ".rag-index", ignore_errors=True)
    return project_in(folder)
