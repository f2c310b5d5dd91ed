"""Pragmas wait for a process that is creating the same file; messages name the remedy and no secret."""

import re
import sqlite3
import threading

import pytest
from sqlalchemy.engine import URL, make_url

from rag_index.components.sources.engine import open_read_only
from rag_index.core.database import first_line, set_pragmas
from rag_index.errors import SettingsError, install_command


@pytest.fixture
def other(tmp_path):
    """A connection with an open write transaction on a file that has no write-ahead log yet."""
    connection = sqlite3.connect(tmp_path / "new.db", isolation_level=None, check_same_thread=False)
    connection.execute("CREATE TABLE made (a)")
    connection.execute("BEGIN IMMEDIATE")
    yield connection
    connection.close()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("oracle://u@h/d", "`pip install 'oracledb'` installs one, and the URL begins with oracle+oracledb"),
        ("snowflake://u@h/d", "`pip install 'snowflake-sqlalchemy'` installs one"),
        ("sqlit:///x", "did you mean sqlite"),
        ("notadb://x", "install the SQLAlchemy dialect that the URL names"),
        ("mysql+mysqldb://u:s3cret@h/d", f"`{install_command('mariadb')}` installs"),
        ("postgresql+asyncpg://u:s3cret@h/d", "'postgresql+asyncpg' is an asynchronous driver"),
    ],
)
def test_an_unknown_database_names_what_to_install_or_to_write(url, said):
    with pytest.raises(SettingsError, match=re.escape(said)) as caught:
        open_read_only(make_url(url))
    assert "s3cret" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("password", ["a", "o", "s3cret", "p@ss word"])
def test_a_password_is_masked_where_it_stands_and_garbles_nothing(password):
    url = URL.create("postgresql", "bob", password, "h", database="d")
    full = f"no route to {url.render_as_string(hide_password=False)} from a host"
    assert first_line(OSError(full), url) == "no route to postgresql://bob:***@h/d from a host"


def test_the_switch_to_a_write_ahead_log_waits_for_the_writer(tmp_path, other):
    connection = sqlite3.connect(tmp_path / "new.db")
    with pytest.raises(sqlite3.OperationalError, match="locked"):  # what SQLite does by itself, at once
        connection.execute("PRAGMA busy_timeout=30000").execute("PRAGMA journal_mode=WAL")
    threading.Timer(0.5, other.execute, ["COMMIT"]).start()
    set_pragmas(connection, ("journal_mode=WAL",))
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()
