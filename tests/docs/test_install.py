"""docs/install.md and docs/backup.md: the SQL of the pages makes a user who can read and not write, and a ledger in
PostgreSQL is copied and put back by the commands of the page."""

import subprocess

import psycopg
import pymysql
import pytest

from tests.docs.pages import blocks, page, section
from tests.etl.plain import run_plain
from tests.live.mariadb import mariadb
from tests.live.postgres import find_postgres, postgres
from tests.project import Project

__all__ = ["mariadb", "postgres"]

POSTGRESQL, MARIADB = blocks(section(page("install"), "## A user who may only read"), "sql")


def test_the_reader_of_postgresql_reads_tables_of_today_and_of_tomorrow(postgres):
    with postgres.database() as name:
        with postgres.connect(name) as owner:
            owner.execute("CREATE TABLE note (id integer PRIMARY KEY); INSERT INTO note VALUES (1)")
            owner.execute(POSTGRESQL)
            owner.execute("CREATE TABLE later (id integer PRIMARY KEY)")
        try:
            with psycopg.connect(
                host="127.0.0.1", port=postgres.port, user="reader", password="change-me", dbname=name
            ) as reader:
                assert reader.execute("SELECT id FROM note").fetchall() == [(1,)]
                assert reader.execute("SELECT id FROM later").fetchall() == []
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    reader.execute("INSERT INTO note VALUES (2)")
        finally:
            with postgres.connect(name) as owner:
                owner.execute("DROP OWNED BY reader; DROP ROLE reader")


def test_the_reader_of_mariadb_reads_and_does_not_write(mariadb):
    with mariadb.connect() as owner, owner.cursor() as cursor:
        for statement in filter(str.strip, MARIADB.replace("servicedesk", mariadb.url.database).split(";")):
            cursor.execute(statement)
    place = {"host": "127.0.0.1", "port": mariadb.url.port, "database": mariadb.url.database}
    with pymysql.connect(**place, user="reader", password="change-me") as reader, reader.cursor() as cursor:
        cursor.execute("SELECT 1")
        with pytest.raises(pymysql.err.OperationalError, match="denied"):
            cursor.execute("CREATE TABLE note (id integer PRIMARY KEY)")


def test_a_ledger_in_postgresql_is_copied_and_put_back(postgres, tmp_path):
    copy, restore = blocks(page("backup"), "sh example")[0].strip().splitlines()
    with postgres.database() as name:
        url = postgres.url(name)
        ledger = f'[ledger]\nurl = "{url.render_as_string(hide_password=False)}"\n'
        project = Project(tmp_path / "project", extra=ledger).fill(5)
        run_plain(project)
        (project.folder / "backup").mkdir()
        environment = {
            "PATH": f"{find_postgres()}:/usr/bin:/bin",
            "LEDGER": url.set(drivername="postgresql").render_as_string(hide_password=False),
        }
        for command in (copy, restore):
            ended = subprocess.run(
                ["bash", "-c", command],
                cwd=project.folder,
                env=environment,
                capture_output=True,
                text=True,
                check=False,
            )
            assert ended.returncode == 0, ended.stderr
        assert run_plain(project).unchanged == 5
