"""Death before every single write of a run, and in the middle of those to the store; then one more
run. Plain code, no processes: what a run calls on its store and its ledger is counted, and the call
of that number never happens, or happens by half, and nothing after it. `test_kill` shows the same
of real processes, at moments by chance."""

import random
import shutil
import sqlite3
import uuid
from pathlib import Path

import attrs
import pytest

from rag_index.components.chunking import open_chunker
from rag_index.components.embedders import identify
from rag_index.core.reports.progress import RunRecord
from rag_index.etl.changed import serially
from rag_index.etl.local_steps import LocalSteps
from rag_index.etl.opened import RunOptions, open_index
from rag_index.etl.run import AllDocuments, run_index
from rag_index.etl.scan import begin_scan
from tests.etl.plain import Died
from tests.project import Project
from tests.reliability.scenario import edit_corpus, make_project
from tests.reliability.victim import project_in
from tests.twin import copy_sparse

DOCUMENTS = 60
SEED = random.SystemRandom().randrange(1_000_000)
WRITES = {
    "store": (
        "create",
        "upsert",
        "update_payloads",
        "delete_chunks",
        "delete_points",
        "flush",
        "point_alias",
        "drop",
        "set_metadata",
        "set_commit_mark",
    ),
    "ledger": (
        "add_collection",
        "update_collection",
        "drop_collection",
        "mark_pending",
        "record",
        "forget",
        "unmark_pending",
        "record_commit",
        "fail",
        "clear_failures",
        "forget_unseen_failures",
        "record_scan",
        "begin_buckets",
        "commit_buckets",
        "open_buckets",
        "place",
        "forget_empty_buckets",
        "forget_digests",
        "forget_digests_of",
        "start_run",
        "finish_run",
        "record_emptied",
        "find_deleted",
        "forget_lost",
        "record_largest_size",
        "copy_sizes",
        "hold_back",
        "record_complete",
        "forget_sizes",
        "record_undecided",
        "keep_undecided",
        "reduce_size",
    ),
}
HALVES = {"upsert", "update_payloads", "delete_chunks", "delete_points"}
"""Writes that may be half done."""
UNDONE = {"second", "few", "other buckets"}
"""Scenes of which the next run also finds the source as it was before the change."""


@pytest.fixture(autouse=True)
def digests(monkeypatch):
    """Small tables have digests, too."""
    monkeypatch.setattr("rag_index.components.sources.digest.MIN_ROWS", 0)


class Death:
    """A death at the write of this number, counted from 1, or in its middle if `half`. Nothing is
    written after it."""

    def __init__(self, at: int = 0, *, half: bool = False) -> None:
        self.at, self.half = at, half
        self.writes: list[str] = []

    def __repr__(self) -> str:
        return f"death {'in the middle of' if self.half else 'at'} write {self.at}"


class Mortal:
    """A store, its points or a ledger, whose writes are counted."""

    def __init__(self, thing, names, death) -> None:
        self._thing, self._names, self._death = thing, names, death

    def __getattr__(self, name):
        method, death = getattr(self._thing, name), self._death
        if name == "points":
            return lambda collection: Mortal(method(collection), self._names, death)
        if name not in self._names:
            return method

        def call(*arguments, **named):
            death.writes.append(name)
            if not death.at or len(death.writes) < death.at:
                return method(*arguments, **named)
            if death.half and len(death.writes) == death.at and name in HALVES:
                (what,) = arguments
                method(_half(what), **named)
            raise Died

        return call


def _half(batch):
    if isinstance(batch, list | dict):
        return type(batch)(
            list(batch.items() if isinstance(batch, dict) else batch)[: len(batch) // 2]
        )
    count = max(1, len(batch) // 2)
    return type(batch)(batch.ids[:count], batch.vectors[:count], batch.payloads[:count])


class SmallShards(AllDocuments):
    """All documents, in small pages, and in small shards, whose size no rate changes."""

    def begin_run(self, opened, steps, record, checks):
        scan = begin_scan(
            opened,
            record,
            identify(opened.settings.embedder),
            open_chunker(opened.settings, opened.index),
        )
        scan.diff.sharder._fixed_documents = 12
        scan.diff.sharder.observe = lambda chars, seconds: (
            None
        )  # a busy machine would measure no rate, and write none
        return scan

    def pages(self, opened, fetch, record):
        def fetch_few(opened, number, cursor, rows):
            return fetch(opened, number, cursor, 25)

        return super().pages(opened, fetch_few, record)


class SmallSteps(LocalSteps):
    """One shard after the other: writes have an order."""

    shards_per_worker = 1

    def __init__(self, settings, embedder):
        super().__init__(serially(settings), embed_in_process=lambda job: job.embed(embedder))


def run_once(project: Project, embedder, *, full: bool = False, death: Death | None = None):
    """Run once, in small shards. What the run dies of is raised."""
    death = death or Death()
    options, record = RunOptions(full=full, allow_deletes=True), RunRecord("notes")
    with open_index(project.settings, "notes", options, run_id=str(uuid.uuid4())) as opened:
        store, ledger = (
            Mortal(opened.store, WRITES["store"], death),
            Mortal(opened.ledger, WRITES["ledger"], death),
        )
        mortal, steps = (
            attrs.evolve(opened, store=store, ledger=ledger),
            SmallSteps(project.settings, embedder),
        )
        run_index(mortal, steps, record, documents=SmallShards())
        if record.error is not None:
            raise record.error
        return record.outcome


def live_points(project: Project):
    """Return the points that readers see; None if there is no live collection yet."""
    alias = project.settings.alias("notes")
    with project.store() as store:
        if alias not in store.aliases():
            return None
        return {p.id: (p.payload, p.vector) for p in store.points(alias).scroll(vectors=True)}


def documents(project: Project):
    """Return the ledger's rows of the live collection."""
    with project.store() as store:
        name = store.aliases()[project.settings.alias("notes")]
    with sqlite3.connect(project.folder / ".rag-index" / "ledger.db") as db:
        return db.execute(
            "SELECT d.key, text_hash, payload_hash, chunks, pending FROM rag_index_documents d "
            "JOIN rag_index_collections c ON c.id = d.collection_id WHERE c.name = ? ORDER BY"
            " d.key",
            (name,),
        ).fetchall()


def state_of(project: Project):
    """Return what an index is: its points, and what the ledger has of its documents."""
    return live_points(project), documents(project)


def failed(project: Project) -> list[str]:
    """Return the keys of the documents that the ledger lists as failed."""
    with sqlite3.connect(project.folder / ".rag-index" / "ledger.db") as db:
        return [
            row[0] for row in db.execute("SELECT key FROM rag_index_failed_documents ORDER BY key")
        ]


def chunk_differently(project: Project) -> Project:
    project.write_settings(
        project.config.read_text().replace("chunk_chars = 200", "chunk_chars = 120")
    )
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
    """Make changes, and let the next run read everything and give a source that has grown other
    buckets."""
    edit_few(project)
    project.execute(
        "INSERT INTO note VALUES (4000, 'Newer', 'A note far away about the scanner.', 'a', 1)"
    )
    with sqlite3.connect(project.folder / ".rag-index" / "ledger.db") as db:
        db.execute("UPDATE rag_index_scan_states SET full_at = 0")
    return project


SCENES = {  # the first state, the change, and whether the run is a rebuild
    "first": (None, lambda project: project, False),
    "second": (lambda project: project, edit_corpus, False),
    "rebuild": (
        lambda project: project,
        lambda project: chunk_differently(edit_corpus(project)),
        True,
    ),
    "few": (lambda project: project, edit_few, False),
    "other buckets": (lambda project: project, into_other_buckets, False),
}


@pytest.mark.parametrize(
    ("scene", "every"),
    [
        *((scene, 24 if scene == "second" else 48) for scene in SCENES),
        *(pytest.param(scene, 4, marks=pytest.mark.long) for scene in SCENES),
    ],
)
def test_death_at_any_write_and_in_the_middle(folder, embedder, scene, every):
    """Die at every `every`th write of a run, from a random one on."""
    before, change, full = SCENES[scene]
    start = make_project(folder / "start", DOCUMENTS)
    old = None
    if before is not None:
        assert run_once(before(start), embedder).state == "completed"
        shutil.copy(start.folder / "source.db", folder / "before.db")
        old = state_of(start)
    change(start)

    clean = copied(start, folder / "clean")
    whole = Death()
    assert run_once(clean, embedder, full=full, death=whole).state == "completed"
    fresh = copied(start, folder / "fresh", indexed=False)
    assert run_once(fresh, embedder).state == "completed"
    new = state_of(clean)
    assert new == state_of(fresh), "the run differs from one that starts from nothing"
    assert len(whole.writes) > 20

    moments = [
        (at, half)
        for at, name in enumerate(whole.writes, 1)
        for half in (False, True)
        if name in HALVES or not half
    ]
    for at, half in moments[random.Random(SEED).randrange(every) :: every]:
        death = Death(at, half=half)
        victim = copied(start, folder / "victim")
        with pytest.raises(Died):
            run_once(victim, embedder, full=full, death=death)
        seen = live_points(victim)
        if full:
            assert seen in (old[0], new[0]), f"readers see a half-built index after {death}"
        if scene in UNDONE:
            undone = copied(victim, folder / "undone")
            shutil.copy(folder / "before.db", undone.folder / "source.db")
            assert_completed(undone, embedder, old, death)
        assert_completed(victim, embedder, new, death, full=full and seen != new[0])


def assert_completed(
    project: Project, embedder, expected, death: Death, *, full: bool = False
) -> None:
    """Check that one more run makes what is expected, and remove the project."""
    outcome = run_once(project, embedder, full=full)
    assert outcome.state == "completed", (death, outcome)
    assert "older copy" not in outcome.message, death
    assert state_of(project) == expected, death
    shutil.rmtree(project.folder)


def copied(project: Project, folder: Path, *, indexed: bool = True) -> Project:
    shutil.copytree(project.folder, folder, copy_function=copy_sparse)
    if not indexed:
        shutil.rmtree(folder / ".rag-index", ignore_errors=True)
    return project_in(folder)
