"""Random nights: the source is changed, and changed back, and between these some runs die and some
documents fail."""

import random
import shutil
from contextlib import suppress
from pathlib import Path

import pytest

from rag_index.components.embedders import Embedder
from rag_index.errors import SettingsError, StoreMismatch, StoreRestored
from rag_index.etl import deletes
from rag_index.etl.changed import index_documents
from tests.etl.plain import Died, watched_run
from tests.project import Project
from tests.reliability.scenario import make_project
from tests.reliability.test_every_step import Death, copied, failed, live_points, run_once
from tests.twin import LEDGER, STORE, back_up, restore

NIGHTS = 30
IDS = 64
"""Four buckets of sixteen keys: each is often changed, and often not."""
EDITS = (
    "UPDATE note SET body = 'Now it works {0} times.' WHERE id = {1}",
    "UPDATE note SET author = 'editor {0}' WHERE id = {1}",
    "UPDATE note SET title = '', body = NULL WHERE id = {1}",
    "UPDATE note SET body = x'00ff' WHERE id = {1}",  # no text
    "UPDATE note SET title = 'Note', body = 'as at first' WHERE id = {1}",
    "DELETE FROM note WHERE id = {1}",
    "DELETE FROM note WHERE id BETWEEN {1} AND {1} + 20",
    "INSERT OR IGNORE INTO note VALUES ({1}, 'Note', 'as at first', 'a', 1)",
    (
        "INSERT OR IGNORE INTO note SELECT id, 'Note', 'as at first', 'a', 1 FROM kept WHERE id"
        " BETWEEN {1} - 30 AND {1}"
    ),
)


class Nights:
    """A project, and what happens to it."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self.random = random.Random(seed)
        self.project = make_project(folder / "project", IDS)
        self.project.execute("CREATE TABLE kept AS SELECT id FROM note")
        self._kept: list[Path] = []
        self._backups: list[Path] = []

    def change_source(self) -> None:
        """Keep the source as it is, and edit it or go back to one that was kept."""
        source = self.project.folder / "source.db"
        self._kept.append(shutil.copy(source, self.folder / f"source-{len(self._kept)}.db"))
        if self.random.random() < 0.4:
            shutil.copy(self.random.choice(self._kept[-4:]), source)
        for _ in range(self.random.randrange(4)):
            edit = self.random.choice(EDITS)
            self.project.execute(edit.format(self.random.randrange(3), self.random.randint(1, IDS)))

    def put_back(self) -> None:
        """Keep store and ledger as they are, and put back the one, the other or both as they were
        on some night."""
        self._backups.append(
            back_up(self.project, self.folder / f"backup-{len(self._backups)}", STORE, LEDGER)
        )
        for part in self.random.choice(([], [], [STORE], [LEDGER], [STORE, LEDGER])):
            restore(self.project, self.random.choice(self._backups[-4:]), part)

    def index_some(self) -> None:
        """Index a few documents, as somebody who names them, or all as a watch does."""
        some = [str(self.random.randint(1, IDS)) for _ in range(2)]
        if self.random.random() < 0.5:
            end = watched_run(self.project)
            assert end.error is None or isinstance(end.error, StoreRestored | StoreMismatch), end
            return
        for one in some:
            with suppress(SettingsError):  # neither source nor index may have it
                index_documents(self.project.settings, "notes", [one])


def assert_as_if_new(project: Project, folder: Path, embedder: Embedder, where: str) -> None:
    """Check that the index is as one that is made of the source now, but for documents that cannot
    be read."""
    fresh = copied(project, folder / "fresh", indexed=False)
    run_once(fresh, embedder)
    unreadable = failed(fresh)
    assert failed(project) == unreadable, where

    def readable(points):
        return {
            i: point for i, point in points.items() if point[0]["_rag"]["key"] not in unreadable
        }

    found, expected = readable(live_points(project)), readable(live_points(fresh))
    differing = {i for i in found.keys() | expected.keys() if found.get(i) != expected.get(i)}
    keys = {(found.get(i) or expected[i])[0]["_rag"]["key"] for i in differing}
    assert not keys, where
    shutil.rmtree(fresh.folder)


def run_or_repair(project: Project, embedder: Embedder, *, death: Death | None = None):
    """Run once; after a repair if store and ledger are copies of one commit, and a run that died
    had begun another."""
    try:
        return run_once(project, embedder, death=death)
    except StoreMismatch:
        project.cli("doctor", "--repair")
        return run_once(project, embedder, death=death)


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("digests", [False, True])
def test_random_nights_leave_what_the_source_has(folder, embedder, monkeypatch, digests):
    if digests:
        monkeypatch.setattr("rag_index.components.sources.digest.MIN_ROWS", 0)
    monkeypatch.setattr(deletes, "UNGUARDED_DELETES", 3)
    seed = random.SystemRandom().randrange(1_000_000)
    nights = Nights(folder, seed)
    run_once(nights.project, embedder)
    nights.project.execute("DELETE FROM note WHERE id <= 40")
    assert nights.project.run().indexes[0].held_back > 0, "the guard works with so few documents"
    died = 0
    for night in range(NIGHTS):
        nights.change_source()
        nights.put_back()
        if nights.random.random() < 0.3:
            nights.index_some()
        for _ in range(nights.random.choice((0, 0, 0, 1, 1, 3))):  # the run that repairs dies, too
            try:
                death = Death(nights.random.randint(1, 25), half=nights.random.random() < 0.5)
                run_or_repair(nights.project, embedder, death=death)
            except Died:
                died += 1
                if nights.random.random() < 0.7:
                    nights.change_source()
        if nights.random.random() < 0.3:
            nights.project.run()  # deletes many only if it is told that it may
            nights.change_source()
        if run_or_repair(
            nights.project, embedder
        ).held_back:  # a loss that came after the one that was shown
            run_once(nights.project, embedder)
        assert_as_if_new(nights.project, folder, embedder, f"night {night} of seed {seed}")
    assert died
