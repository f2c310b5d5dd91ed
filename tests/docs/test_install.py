"""docs/install.md, backup.md and tutorial.md, typed with real servers: a user who reads, what is
restored, a watch."""

import os
import re
import subprocess
import sys
from pathlib import Path

import psycopg
import pymysql
import pytest

from tests.docs.pages import blocks, page, section, type_in
from tests.etl.plain import run_plain
from tests.fakes.ollama import FakeOllama
from tests.live.postgres import find_postgres
from tests.ports import free_port
from tests.project import Project
from tests.waiting import eventually

POSTGRESQL, MARIADB = blocks(section(page("install"), "## A user who may only read"), "sql")
COPY, RESTORE_STORE, RESTORE_LEDGER, LOOK = blocks(page("backup"), "sh")
PAGE = page("tutorial")


def test_the_reader_of_postgresql_reads_tables_of_today_and_of_tomorrow(postgres):
    with postgres.database() as name:
        with postgres.connect(name) as owner:
            owner.execute("CREATE TABLE note (id integer PRIMARY KEY); INSERT INTO note VALUES (1)")
            owner.execute(POSTGRESQL)
            owner.execute("CREATE TABLE later (id integer PRIMARY KEY)")
        try:
            url = postgres.url(name, "reader", "change-me").set(drivername="postgresql")
            with psycopg.connect(url.render_as_string(hide_password=False)) as reader:
                assert reader.execute("SELECT id FROM note").fetchall() == [(1,)]
                assert reader.execute("SELECT id FROM later").fetchall() == []
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    reader.execute("INSERT INTO note VALUES (2)")
        finally:
            with postgres.connect(name) as owner:
                owner.execute("DROP OWNED BY reader; DROP ROLE reader")


def test_the_reader_of_mariadb_reads_and_does_not_write(mariadb):
    with mariadb.connect() as owner, owner.cursor() as cursor:
        for statement in filter(
            str.strip, MARIADB.replace("servicedesk", mariadb.url.database).split(";")
        ):
            cursor.execute(statement)
    place = {"host": "127.0.0.1", "port": mariadb.url.port, "database": mariadb.url.database}
    try:
        with (
            pymysql.connect(**place, user="reader", password="change-me") as reader,
            reader.cursor() as cursor,
        ):
            cursor.execute("SELECT 1")
            with pytest.raises(pymysql.err.OperationalError, match="denied"):
                cursor.execute("CREATE TABLE note (id integer PRIMARY KEY)")
    finally:
        with mariadb.connect() as owner, owner.cursor() as cursor:
            cursor.execute("DROP USER reader@'%'")


def test_a_ledger_in_postgresql_is_copied_and_put_back(postgres, tmp_path):
    copy, restore = blocks(page("backup"), "sh example")[0].strip().splitlines()
    with postgres.database() as name:
        url = postgres.url(name)
        ledger = f'[ledger]\nurl = "{url.render_as_string(hide_password=False)}"\n'
        project = Project(tmp_path / "project", extra=ledger).fill(5)
        run_plain(project)
        (project.folder / "backup").mkdir()
        named = url.set(drivername="postgresql").render_as_string(hide_password=False)
        for command in (copy, restore):
            type_in(project.folder, command, find_postgres(), LEDGER=named)
        assert run_plain(project).unchanged == 5


@pytest.mark.long
@pytest.mark.parametrize("restore", ["store", "ledger", "both"])
def test_what_the_page_copies_each_night_is_restored_and_mended(restore, tmp_path):
    project = Project(tmp_path / "project").fill(30)
    for night in range(3):
        project.execute(f"UPDATE note SET body = 'night {night}' WHERE id = 1")
        run_plain(project)
        type_in(project.folder, COPY)
    folders = sorted(path.name for path in (project.folder / "backup").iterdir())
    assert folders == ["before", "last"], "two nights, and nothing within itself"
    assert not (project.folder / "backup/last/qdrant/qdrant").exists()
    assert (project.folder / "backup/last/ledger.db").stat().st_mode & 0o77 == 0
    project.execute("UPDATE note SET body = 'the pump is mended' WHERE id = 5")
    project.execute("DELETE FROM note WHERE id = 6")
    run_plain(project)
    scripts = {
        "store": RESTORE_STORE,
        "ledger": RESTORE_LEDGER,
        "both": RESTORE_STORE + RESTORE_LEDGER,
    }
    printed = type_in(project.folder, scripts[restore] + LOOK)
    if restore != "both":
        said = f"the {restore} was put back to an older copy"
        assert said in printed.split("every point was compared")[0], "by status"
        assert f"{said}; every point was compared" in printed
    assert project.texts()["5"] == ["Note 5\nthe pump is mended"]
    assert "6" not in project.texts()


@pytest.mark.long
def test_a_row_is_found_by_a_search_that_follows_changes(postgres, tmp_path):
    (sql,), (settings,) = blocks(PAGE, "sql"), blocks(PAGE, "toml")
    port, running = str(free_port()), []
    with postgres.database() as name, FakeOllama() as ollama:
        owner = (
            postgres.url(name).set(drivername="postgresql").render_as_string(hide_password=False)
        )
        here = {
            "127.0.0.1/desk": f"127.0.0.1:{postgres.port}/{name}",
            "psql -d desk": f"psql {owner}",
            "8765": port,
        }
        environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{find_postgres()}:{os.environ['PATH']}",
            "RAG_INDEX_EMBEDDER__HOSTS": ollama.url,
            "RAG_INDEX_EMBEDDER__MODEL": ollama.model,
            "RAG_INDEX_EMBEDDER__DOCUMENT_PREFIX": "",
            "RAG_INDEX_EMBEDDER__QUERY_PREFIX": "",
            "RAG_INDEX_SERVE__PORT": port,
        }

        def typed(text):
            for there, place in here.items():
                text = text.replace(there, place)
            return text

        def shell(commands, **how):
            return subprocess.Popen(
                ["bash", "-ec", typed(commands)],
                cwd=tmp_path,
                env=environment,
                text=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                **how,
            )

        (tmp_path / "desk.sql").write_text(sql)
        (tmp_path / "rag-index.toml").write_text(typed(settings))
        try:
            with postgres.connect(name) as connection:
                connection.execute(sql)
            first = section(PAGE, "## The first run")
            printed, _ = shell(blocks(first, "sh")[0]).communicate(timeout=120)
            said = (
                r"tickets: 4 documents: 4 new, 4 chunks embedded in .*\nCompleted: 1 index: 4"
                r" documents indexed\."
            )
            assert re.search(said, printed), printed
            assert (tmp_path / "rag-index.env").stat().st_mode & 0o77 == 0
            read = "set -a; . ./rag-index.env; set +a; exec "
            for heading in ("## A query over HTTP", "## Follow changes"):
                stays, asks = blocks(section(PAGE, heading), "sh")
                running.append(shell(read + stays))
                if heading == "## A query over HTTP":
                    ready = (
                        "curl --silent --fail --retry 60 --retry-delay 1 --retry-all-errors"
                        f" http://127.0.0.1:{port}/readyz"
                    )
                    shell(ready).communicate(timeout=100)
                answer = shell(asks).communicate(timeout=60)[0]
                if heading == "## A query over HTTP":
                    assert '"document_id":"1"' in answer, answer
            search = f"curl --silent 'http://127.0.0.1:{port}/search?query=E17&limit=1'"
            eventually(
                lambda: '"document_id":"5"' in shell(search).communicate()[0],
                "ticket 5 is found",
                every=0.5,
            )
        finally:
            for one in running:
                one.terminate()
                one.wait(30)
            with postgres.connect(name) as connection:
                connection.execute("DROP OWNED BY reader; DROP ROLE reader")
