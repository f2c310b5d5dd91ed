"""A repair that dies before any of its writes is repeated, and the next run leaves what a clean run
leaves."""

import shutil

import pytest

from rag_index.care import doctor
from rag_index.care.doctor import Checkup, examine, repair
from rag_index.components.ledger.tables import documents
from rag_index.core.documents.batches import RESERVED_KEY
from rag_index.errors import StoreMismatch
from tests.etl.plain import Died, run_plain
from tests.project import Project
from tests.reliability.test_every_step import WRITES, Death, Mortal
from tests.twin import LEDGER, STORE, back_up, lose_ledger, restore, twin

WRITTEN = {
    "store": WRITES["store"],
    "ledger": (*WRITES["ledger"], "transaction", "drop_position", "add_erasable"),
}
"""A transaction may write by itself, so that dying before one counts as dying before a write."""


def edit(project: Project) -> None:
    project.execute("UPDATE note SET body = 'the pump is mended' WHERE id IN (5, 6)")
    project.execute("UPDATE note SET title = '', body = NULL WHERE id = 9")
    project.execute("DELETE FROM note WHERE id = 8")
    run_plain(project)


def lose_alias_and_ledger(project: Project) -> None:
    with project.store() as store:
        store.create("another__1", 4, {"alias": "another"})
        store.point_alias("test_notes", "another__1")
    lose_ledger(project)


def damage_points(project: Project) -> None:
    with project.store() as store, project.ledger() as ledger:
        [name] = store.collections()
        points = [*store.points(name).scroll()]
        store.points(name).delete_points([point.id for point in points[:4]])
        payloads = [
            (p.id, {**p.payload, RESERVED_KEY: {**p.payload[RESERVED_KEY], "text": "?"}})
            for p in points[4:7]
        ]
        store.points(name).update_payloads(payloads)
        with ledger.transaction() as connection:
            connection.execute(documents.delete().where(documents.c.key.in_(["11", "12", "13"])))
    project.execute("DELETE FROM note WHERE id = 12")


def put_back(part: str):
    def damage(project: Project) -> None:
        kept = back_up(project, project.folder / "kept", part)
        edit(project)
        restore(project, kept, part)

    return damage


DAMAGES = {
    "ledger lost": lose_ledger,
    "points damaged": damage_points,
    "store put back": put_back(STORE),
    "ledger put back": put_back(LEDGER),
    "alias and ledger lost": lose_alias_and_ledger,
}


@pytest.mark.long
@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_repair_that_dies_at_any_write_is_repeated(indexed_notes, tmp_path, monkeypatch, damage):
    start = indexed_notes(20)
    damage(start)
    fresh = twin(start, tmp_path / "fresh")
    shutil.rmtree(fresh.folder / ".rag-index")
    run_plain(fresh)
    assert examine(start.settings).findings
    death = Death()

    def mortal(settings, index, ledger, store, *rest, **named):
        ledger, store = (
            Mortal(ledger, WRITTEN["ledger"], death),
            Mortal(store, WRITTEN["store"], death),
        )
        return Checkup(settings, index, ledger, store, *rest, **named)

    monkeypatch.setattr(doctor, "Checkup", mortal)
    repair(twin(start, tmp_path / "whole").settings)
    count = len(death.writes)
    for number in range(1, count + 1):
        death, victim = Death(number, half=number % 2 == 0), twin(start, tmp_path / "victim")
        with pytest.raises(Died):
            repair(victim.settings)
        where = f"death at write {number}: {death.writes[-3:]}"
        death = Death()
        try:
            if damage is damage_points:  # a run does not notice all of it
                raise StoreMismatch
            outcome = run_plain(victim)
        except StoreMismatch:
            assert repair(victim.settings).findings == [], where
            outcome = run_plain(victim)
        assert outcome.state == "completed", where
        if damage in (lose_ledger, lose_alias_and_ledger):
            assert outcome.unchanged == outcome.documents, where
        assert victim.points() == fresh.points(), where
        assert examine(victim.settings).findings == [], where
        shutil.rmtree(victim.folder)
    assert count > 5
