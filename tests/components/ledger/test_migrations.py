"""A ledger of an earlier version, as that wrote it (`version_19.sql`), is brought up to date and loses nothing."""

import re
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa

from rag_index.components.ledger import Ledger, migrations
from rag_index.components.ledger.tables import LEDGER_VERSION, contexts, schema_version
from rag_index.errors import LedgerError, LedgerUnavailable
from tests.live.sessions import new_database

SCRIPT = Path(__file__).with_name("version_19.sql").read_text()


def as_postgresql(script):
    script = script.replace("BLOB", "BYTEA").replace(" WITHOUT ROWID", "")
    return re.sub(r"X'(\w*)'", r"decode('\1', 'hex')", script)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path):
    with new_database(request.param, request, tmp_path, "ledger") as url:
        engine = sa.create_engine(url)
        with engine.begin() as connection:
            for statement in (SCRIPT if request.param == "sqlite" else as_postgresql(SCRIPT)).strip().split(";\n"):
                connection.exec_driver_sql(statement)
        engine.dispose()
        yield url


def shape(ledger):
    """Return the columns and indexes of all tables."""
    found = sa.inspect(ledger.engine)
    names = [name for name in found.get_table_names() if name.startswith("rag_index_")]
    columns = {name: {(one["name"], one["nullable"]) for one in found.get_columns(name)} for name in names}
    keys = {name: found.get_pk_constraint(name)["constrained_columns"] for name in names}
    return columns, keys, {name: {one["name"] for one in found.get_indexes(name)} for name in names}


def test_what_took_hours_and_what_a_person_has_to_see_stay(url):
    with closing(Ledger(url)) as ledger:
        [collection] = ledger.collections("test_notes")
        assert (collection.held, collection.held_since, collection.whole_in) == (1, 1795897000.5, 5)
        assert [key for key, _ in ledger.rows(collection.id)] == ["1", "2", "3", "4", "5"]
        assert ledger.failures(collection.id)["7"].tries == 2
        assert ledger.last_run("test_notes").number == 2
        assert ledger._value(sa.select(contexts.c.context)) == "A context that took an hour."
        assert (collection.policies, collection.erasable) == ("digest of policies", 2)
        assert ledger.largest_sizes(collection.id) == {"": 9, "comment": 12}
        assert (ledger.scan_state(collection.id), ledger.digests(collection.id)) == (None, {}), "the next run reads all"


def test_the_tables_are_those_of_a_new_ledger(url, request, tmp_path):
    (tmp_path / "new").mkdir()
    with (
        closing(Ledger(url)) as ledger,
        new_database(url.get_backend_name(), request, tmp_path / "new", "other") as other,
        closing(Ledger(other)) as new,
    ):
        assert shape(ledger) == shape(new)
    with closing(Ledger(url)) as again:
        assert again._value(sa.select(schema_version.c.version)) == LEDGER_VERSION


def test_a_step_that_fails_changes_nothing(url, monkeypatch):
    def step(connection):
        connection.exec_driver_sql("DELETE FROM rag_index_documents")
        raise sa.exc.OperationalError("a full disk", {}, Exception("a full disk"))

    with monkeypatch.context() as broken:
        broken.setitem(migrations.STEPS, 21, step)
        with pytest.raises((LedgerError, LedgerUnavailable)):
            Ledger(url)
    with closing(Ledger(url)) as ledger:
        assert len(ledger.rows(1)) == 5


def test_who_may_only_read_is_told_what_brings_it_up_to_date(url):
    with pytest.raises(LedgerError, match=r"has version 19, .*: `rag-index index-all` brings it up to date"):
        Ledger(url, read_only=True)


@pytest.mark.parametrize(("version", "said"), [(99, "a newer rag-index wrote it"), (18, "move the file away")])
def test_a_ledger_of_another_version_is_refused_by_name(url, version, said):
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.exec_driver_sql(f"UPDATE rag_index_schema_version SET version = {version}")
    engine.dispose()
    for read_only in (False, True):
        with pytest.raises(LedgerError, match=f"has version {version}, .*{said}"):
            Ledger(url, read_only=read_only)
