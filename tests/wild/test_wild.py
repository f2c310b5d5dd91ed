"""What `init` writes for databases that it has never seen: found first, nothing hidden, no secret; on three databases."""

from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa

from rag_index.components.sources import open_source
from rag_index.core.database import database_url
from rag_index.core.settings import Settings, load_settings
from rag_index.first_run.schema import propose, read_catalog
from tests.live.mariadb import mariadb
from tests.live.postgres import PostgresServer
from tests.wild.judge import judge, proposed
from tests.wild.sample import SEEN, UNSEEN, sample, write

__all__ = ["mariadb"]

SOON, LONG = ("forum",), [pytest.mark.long]
ALLOWED = {"tracker": 1, "helpdesk": 1}
"""Questions of a kind whose first hit is another document."""


@pytest.fixture
def source(tmp_path):
    """A function that writes a sample into a file and returns its URL."""

    def fill(kind):
        url = sa.make_url(f"sqlite:///{tmp_path}/{kind}.db")
        engine = sa.create_engine(url)
        write(sample(kind), engine)
        engine.dispose()
        return url

    return fill


def proposal(url):
    with read_catalog(database_url(url.render_as_string(hide_password=False), Path.cwd())) as catalog:
        made = propose(catalog)
    return {index.name: index.settings for index in made.indexes}


@pytest.mark.parametrize("kind", [pytest.param(one, marks=LONG * (one not in SOON)) for one in (*SEEN, *UNSEEN)])
def test_without_an_edit_the_right_document_is_first_and_nobody_sees_what_is_hidden(source, tmp_path, kind):
    made = sample(kind)
    verdict = judge(made, tmp_path, proposed(source(kind), tmp_path))
    assert (verdict.hidden, verdict.secrets, verdict.empty) == ([], [], 0)
    assert verdict.right >= len(made.questions) - ALLOWED.get(kind, 0), verdict.wrong
    assert verdict.evidence >= len(made.questions) - 1


@pytest.mark.long
def test_no_kind_has_more_than_ten_indexes_and_all_of_them_are_settings(source, tmp_path):
    for kind in (*SEEN, *UNSEEN):
        proposed(source(kind), tmp_path)
        settings = load_settings(tmp_path / "rag-index.toml")
        assert 1 <= len(settings.indexes) <= 10, kind


@pytest.mark.long
@pytest.mark.parametrize("server", ["postgres", pytest.param("mariadb", marks=LONG)])
def test_servers_get_the_same_indexes_as_a_file(request, source, server):
    running = request.getfixturevalue(server)
    with _written(running, "helpdesk") as url:
        assert _plain(proposal(url)) == _plain(proposal(source("helpdesk")))
    with _written(running, "pages") as url:  # with the time in seconds and a tree in its conditions
        assert _keys(url, "pages") == _keys(source("pages"), "pages")


@contextmanager
def _written(running, kind):
    """Yield the URL of a database of a server that has nothing but this sample."""
    with ExitStack() as stack:
        if isinstance(running, PostgresServer):
            url = running.url(stack.enter_context(running.database()))
        else:
            url = running.url
            with running.connect() as connection, connection.cursor() as cursor:
                cursor.execute("DROP DATABASE desk")
                cursor.execute("CREATE DATABASE desk CHARACTER SET utf8mb4")
        engine = sa.create_engine(url)
        write(sample(kind), engine)
        engine.dispose()
        yield url


def _keys(url, name):
    """Return the keys of the documents of a proposed index."""
    index = {"name": name, **proposal(url)[name]}
    settings = Settings(source={"url": url.render_as_string(hide_password=False)}, indexes=[index])
    with closing(open_source(settings, settings.indexes[0])) as source:
        return set(source.page(None, 500).documents.keys)


def _plain(indexes):
    """Return the settings without how a database quotes names and writes truth."""
    text = str(indexes).replace("= true", "= 1").replace("= false", "= 0").replace(", false)", ", 0)")
    return text.translate(dict.fromkeys(map(ord, "`\"'\\")))


def test_all_schemas_of_postgresql_are_read(postgres):
    with postgres.database() as name:
        engine = sa.create_engine(postgres.url(name))
        write(sample("forum"), engine)
        with engine.begin() as connection:
            connection.exec_driver_sql("CREATE SCHEMA press")
            for table in ("frm_topics", "frm_posts"):
                connection.exec_driver_sql(f"ALTER TABLE {table} SET SCHEMA press")
        topics = proposal(postgres.url(name))["topics"]
        assert (topics["schema"], topics["table"], topics["parts"][0].get("schema")) == ("press", "frm_topics", None)
        with engine.begin() as connection:
            connection.exec_driver_sql("ALTER TABLE press.frm_posts SET SCHEMA public")
        engine.dispose()
        topics = proposal(postgres.url(name))["topics"]
    assert (topics["schema"], topics["parts"][0]["schema"]) == ("press", "public")


@pytest.mark.long
def test_a_thousand_tables_have_one_proposal(tmp_path):
    url = sa.make_url(f"sqlite:///{tmp_path}/many.db")
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        for number in range(1000):
            connection.exec_driver_sql(
                f"CREATE TABLE thing_{number} (id INTEGER PRIMARY KEY, name TEXT, description TEXT)"
            )
            if number % 50 == 0:
                rows = [
                    (n, f"Thing {n} of it", f"A longer text about the thing {n} in box {number}.") for n in range(30)
                ]
                connection.exec_driver_sql(f"INSERT INTO thing_{number} VALUES (?, ?, ?)", rows)
    engine.dispose()
    assert len(proposal(url)) == 20
