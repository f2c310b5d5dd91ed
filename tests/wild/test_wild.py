"""What `init` writes for databases that it has never seen: found first, nothing hidden, no secret;
on three databases."""

from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa

from rag_index.components.sources import open_source
from rag_index.core.database import database_url
from rag_index.core.settings import Settings
from rag_index.first_run.schema import propose, read_catalog
from tests.live.mariadb import mariadb
from tests.live.sessions import new_database
from tests.wild.judge import judge, proposed
from tests.wild.sample import SEEN, UNSEEN, sample, write

__all__ = ["mariadb"]

SOON, LONG = ("forum",), [pytest.mark.long]
ALLOWED = {"tracker": 1, "helpdesk": 1}
"""Questions of a kind whose first hit is another document."""


@pytest.fixture
def written(request, tmp_path):
    """Return a context that writes a sample into an empty database of a kind, by default a file,
    and yields its URL."""

    @contextmanager
    def fill(name, kind="sqlite"):
        with new_database(kind, request, tmp_path, name) as url:
            engine = sa.create_engine(url)
            write(sample(name), engine)
            engine.dispose()
            yield url

    return fill


def proposal(url):
    with read_catalog(
        database_url(url.render_as_string(hide_password=False), Path.cwd())
    ) as catalog:
        made = propose(catalog)
    return {index.name: index.settings for index in made.indexes}


@pytest.mark.parametrize(
    "kind", [pytest.param(one, marks=LONG * (one not in SOON)) for one in (*SEEN, *UNSEEN)]
)
def test_without_an_edit_the_right_document_is_first_and_nobody_sees_what_is_hidden(
    written, tmp_path, kind
):
    """All indexes are settings, and no kind has more than ten."""
    made = sample(kind)
    with written(kind) as url:
        verdict = judge(made, tmp_path, proposed(url, tmp_path))
    assert (verdict.hidden, verdict.secrets, verdict.empty) == ([], [], 0)
    assert verdict.right >= len(made.questions) - ALLOWED.get(kind, 0), verdict.wrong
    assert verdict.evidence >= len(made.questions) - 1
    assert 1 <= verdict.indexes <= 10


@pytest.mark.long
@pytest.mark.parametrize("server", ["postgresql", "mariadb"])
def test_servers_get_the_same_indexes_as_a_file(written, server):
    with written("helpdesk", server) as url, written("helpdesk") as file:
        assert _plain(proposal(url)) == _plain(proposal(file))
    with (
        written("pages", server) as url,
        written("pages") as file,
    ):  # with the time in seconds and a tree
        assert _keys(url, "pages") == _keys(file, "pages")


def _keys(url, name):
    """Return the keys of the documents of a proposed index."""
    index = {"name": name, **proposal(url)[name]}
    settings = Settings(source={"url": url.render_as_string(hide_password=False)}, indexes=[index])
    with closing(open_source(settings, settings.indexes[0])) as source:
        return set(source.page(None, 500).documents.keys)


def _plain(indexes):
    """Return the settings without how a database quotes names and writes truth."""
    text = str(indexes).replace("true", "1").replace("false", "0")
    return text.translate(dict.fromkeys(map(ord, "`\"'\\")))


def test_all_schemas_of_postgresql_are_read(written):
    with written("forum", "postgresql") as url:
        engine = sa.create_engine(url)
        with engine.begin() as connection:
            connection.exec_driver_sql("CREATE SCHEMA press")
            for table in ("frm_topics", "frm_posts"):
                connection.exec_driver_sql(f"ALTER TABLE {table} SET SCHEMA press")
        topics = proposal(url)["topics"]
        assert (topics["schema"], topics["table"], topics["parts"][0].get("schema")) == (
            "press",
            "frm_topics",
            None,
        )
        with engine.begin() as connection:
            connection.exec_driver_sql("ALTER TABLE press.frm_posts SET SCHEMA public")
        engine.dispose()
        topics = proposal(url)["topics"]
    assert (topics["schema"], topics["parts"][0]["schema"]) == ("press", "public")


@pytest.mark.long
def test_a_thousand_tables_have_one_proposal(tmp_path):
    url = sa.make_url(f"sqlite:///{tmp_path}/many.db")
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        for number in range(1000):
            columns = "id INTEGER PRIMARY KEY, name TEXT, description TEXT"
            connection.exec_driver_sql(f"CREATE TABLE thing_{number} ({columns})")
            if number % 50 == 0:
                told = f"A longer text about the thing {{}} in box {number}."
                rows = [(n, f"Thing {n} of it", told.format(n)) for n in range(30)]
                connection.exec_driver_sql(f"INSERT INTO thing_{number} VALUES (?, ?, ?)", rows)
    engine.dispose()
    assert len(proposal(url)) == 20
