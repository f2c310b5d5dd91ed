"""A real PostgreSQL server for tests, in a temporary folder, on a free port of the loopback
interface."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import uuid
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from sqlalchemy.engine import URL

from tests.ports import free_port
from tests.waiting import START_SECONDS, until_it_answers

PASSWORD = "s3cret@:/x"


def find_postgres():
    """Return the folder of initdb and postgres, or the reason why there is none."""
    folders = [Path(found).resolve().parent] if (found := shutil.which("initdb")) else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    for folder in folders:
        if (folder / "initdb").is_file() and (folder / "postgres").is_file():
            return folder
    return "there is no PostgreSQL (apt-get install postgresql)"


def server_user(name):
    """Return the user whose files a server has, and how `subprocess` starts it: it refuses to run
    as root."""
    if os.geteuid() != 0:
        return pwd.getpwuid(os.geteuid()), {}
    names = {user.pw_name: user for user in pwd.getpwall()}
    user = names.get(name) or names["nobody"]
    return user, {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


class PostgresServer:
    """A server that runs until the `with` block ends. It refuses to run as root, so root starts it
    as another user."""

    def __init__(self, programs, *settings):
        self._programs, self._settings = programs, settings
        self._process, self.port = None, 0

    def __enter__(self):
        self._folder = Path(tempfile.mkdtemp(prefix="rag-index-postgres-"))
        user, self._as = server_user("postgres")
        try:
            (self._folder / "password").write_text(PASSWORD)
            for path in (self._folder, self._folder / "password"):
                os.chown(path, user.pw_uid, user.pw_gid)
            self._initialise()
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _initialise(self):
        self._run(
            "initdb",
            "--pgdata",
            self._folder / "data",
            "--username",
            "owner",
            "--auth",
            "md5",  # scram-sha-256 costs each connection 10 ms of processor time
            "--pwfile",
            self._folder / "password",
            "--encoding",
            "UTF8",
            "--locale",
            "C.UTF-8",
            "--no-sync",
        )

    def __exit__(self, *error):
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def start(self):
        """Start, or start again on the same port, and wait until it answers."""
        if not self.port:
            self.port = free_port()
        settings = [
            "listen_addresses=127.0.0.1",
            f"unix_socket_directories={self._folder}",
            "fsync=off",
        ]
        settings += ["full_page_writes=off", "shared_buffers=16MB", *self._settings]
        options = [part for setting in settings for part in ("-c", setting)]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    self._programs / "postgres",
                    "-D",
                    self._folder / "data",
                    "-p",
                    str(self.port),
                    *options,
                ],
                stdout=log,
                stderr=log,
                cwd="/",
                **self._as,
            )
        log = self._folder / "log"
        until_it_answers(
            lambda: self.connect().close(), self._process, log, psycopg.OperationalError
        )

    def stop(self, *, crash=False):
        """Stop it at once, and break its connections."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGQUIT if crash else signal.SIGINT)
            self._process.wait(timeout=START_SECONDS)
        self._process = None

    @contextmanager
    def standby(self):
        """Yield a server that replays what this one writes."""
        standby = Standby(self._programs, *self._settings)
        standby.primary = self
        with standby:
            yield standby

    def connect(self, database="postgres"):
        """Return a connection that may write; each statement is its own transaction."""
        url = {
            "host": "127.0.0.1",
            "port": self.port,
            "user": "owner",
            "password": PASSWORD,
            "dbname": database,
        }
        return psycopg.connect(**url, autocommit=True, connect_timeout=10)

    def rows(self, database):
        """Return all rows of all tables as one text."""
        with self.connect(database) as connection:
            tables = connection.execute(
                "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
            ).fetchall()
            found = [
                connection.execute(f'SELECT t::text FROM "{table}" AS t').fetchall()
                for (table,) in tables
            ]
        return "\n".join(row for rows in found for (row,) in rows)

    def url(self, database, user="owner", password=PASSWORD):
        """Return the URL of a database for a source or a ledger."""
        return URL.create("postgresql+psycopg", user, password, "127.0.0.1", self.port, database)

    @contextmanager
    def database(self):
        """Yield the name of an empty database, and drop it afterwards."""
        name = f"test_{uuid.uuid4().hex[:12]}"
        with self.connect() as connection:
            connection.execute(f"CREATE DATABASE {name}")
        try:
            yield name
        finally:
            with self.connect() as connection:
                connection.execute(f"DROP DATABASE {name} WITH (FORCE)")

    def _run(self, program, *arguments):
        subprocess.run(
            [self._programs / program, *arguments],
            check=True,
            capture_output=True,
            cwd="/",
            timeout=120,
            env={**os.environ, "PGPASSWORD": PASSWORD},
            **self._as,
        )


class Standby(PostgresServer):
    """A hot standby of `primary`."""

    primary: PostgresServer

    def _initialise(self):
        where = "--host", "127.0.0.1", "--port", str(self.primary.port), "--username", "owner"
        self._run(
            "pg_basebackup",
            "--pgdata",
            self._folder / "data",
            *where,
            "--checkpoint=fast",
            "-R",
            "-X",
            "stream",
        )


@pytest.fixture(scope="session")
def postgres():
    """A running server whose log can be decoded; tests that need it are skipped if the programs are
    missing."""
    programs = find_postgres()
    if not isinstance(programs, Path):
        pytest.skip(programs)
    settings = "wal_level=logical", "max_replication_slots=30", "max_prepared_transactions=30"
    with PostgresServer(programs, *settings) as server:
        yield server
