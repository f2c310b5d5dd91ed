"""Sessions that write databases of tests, and empty databases of each kind."""

import sqlite3
from contextlib import contextmanager

import psycopg
from sqlalchemy.engine import URL


class Session:
    """A connection that may write."""

    def __init__(self, url):
        self._url = url
        backend = url.get_backend_name()
        if backend == "sqlite":
            self.connection = sqlite3.connect(
                url.database, timeout=30, isolation_level=None, check_same_thread=False
            )
        elif backend == "postgresql":
            text = url.set(drivername="postgresql").render_as_string(hide_password=False)
            self.connection = psycopg.connect(
                text, autocommit=True, prepare_threshold=None
            )  # tables are made anew
        else:
            import pymysql

            self.connection = pymysql.connect(
                host=url.host,
                port=url.port,
                user=url.username,
                password=url.password,
                database=url.database,
                autocommit=True,
                ssl_disabled=True,  # each connection would read all certificates
            )

    def run(self, statement, *values):
        cursor = self.connection.cursor()
        cursor.execute(statement, values or None) if values else cursor.execute(statement)
        rows = cursor.fetchall() if cursor.description else []
        cursor.close()
        return rows

    def close(self):
        self.connection.close()


@contextmanager
def new_database(kind, request, folder, name):
    """Yield the URL of an empty database of a kind; `request` gives the servers."""
    if kind == "sqlite":
        Session(url := URL.create("sqlite", database=str(folder / f"{name}.db"))).close()
        yield url
    elif kind == "postgresql":
        server = request.getfixturevalue("postgres")
        with server.database() as made:
            yield server.url(made)
    else:
        admin = Session(url := request.getfixturevalue("mariadb").url)
        admin.run(f"DROP DATABASE IF EXISTS {name}")
        admin.run(f"CREATE DATABASE {name} CHARACTER SET utf8mb4")
        yield url.set(database=name)
        admin.run(f"DROP DATABASE {name}")
        admin.close()
