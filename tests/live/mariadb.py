"""A real MariaDB server for tests, in a temporary folder, on a free port of the loopback
interface."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from sqlalchemy.engine import URL

from tests.live.postgres import server_user
from tests.ports import free_port
from tests.waiting import START_SECONDS, until_it_answers

PASSWORD = "s3cret@:/x"


def find_mariadb():
    """Return the paths of mariadb-install-db and mariadbd, or the reason why there are none."""
    places = f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin"
    found = [shutil.which(name, path=places) for name in ("mariadb-install-db", "mariadbd")]
    if not all(found):
        return "there is no MariaDB (apt-get install mariadb-server)"
    try:
        import pymysql
    except ImportError:
        return "there is no driver for MariaDB (pip install '.[mariadb]' in a checkout)"
    return [*map(Path, found), pymysql]


class MariadbServer:
    """A server that runs until the `with` block ends; `url(user)` names an empty database."""

    def __init__(self, install, server, driver):
        self._install, self._server, self._driver = install, server, driver

    def __enter__(self):
        self._folder = Path(tempfile.mkdtemp(prefix="rag-index-mariadb-"))
        user, self._as = server_user("mysql")
        data, temporary = self._folder / "data", self._folder / "tmp"
        temporary.mkdir()
        for path in (self._folder, temporary):
            os.chown(path, user.pw_uid, user.pw_gid)
        self.port = free_port()
        self._folders = [f"--datadir={data}", f"--tmpdir={temporary}"]
        self._init = self._folder / "init.sql"
        self._init.write_text(
            f"CREATE DATABASE IF NOT EXISTS desk CHARACTER SET utf8mb4;\n"
            f"CREATE USER IF NOT EXISTS owner@'127.0.0.1' IDENTIFIED BY '{PASSWORD}';\n"
            "GRANT ALL ON *.* TO owner@'127.0.0.1' WITH GRANT OPTION;\n"
        )
        self._init.chmod(0o644)
        # a server deletes the temporary tables that it finds when it starts: those of another one,
        # in a shared folder
        install = [
            self._install,
            "--no-defaults",
            *self._folders,
            "--auth-root-authentication-method=normal",
        ]
        made = subprocess.run(
            [
                *install,
                "--skip-test-db",
                "--innodb-use-native-aio=0",
            ],  # the kernel's limit on AIO is shared by all
            check=False,
            capture_output=True,
            text=True,
            timeout=120,
            cwd="/",
            **self._as,
        )
        assert made.returncode == 0, made.stdout + made.stderr
        self.start()
        return self

    def start(self):
        """Start the server on its port and wait until it answers."""
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [
                    self._server,
                    "--no-defaults",
                    *self._folders,
                    f"--port={self.port}",
                    "--bind-address=127.0.0.1",
                    f"--socket={self._folder}/socket",
                    f"--pid-file={self._folder}/pid",
                    f"--init-file={self._init}",
                    "--innodb-flush-log-at-trx-commit=0",
                    "--innodb-use-native-aio=0",
                    "--skip-name-resolve",
                ],
                stdout=log,
                stderr=log,
                cwd="/",
                **self._as,
            )
        try:
            log = self._folder / "log"
            until_it_answers(
                lambda: self.connect().close(),
                self._process,
                log,
                self._driver.err.OperationalError,
            )
        except RuntimeError:
            self.__exit__()
            raise

    def __exit__(self, *error):
        if self._process.poll() is None:
            self._process.terminate()
            self._process.wait(timeout=START_SECONDS)
        shutil.rmtree(self._folder, ignore_errors=True)

    def connect(self):
        """Return a connection that may write; each statement is its own transaction."""
        return self._driver.connect(
            host="127.0.0.1",
            port=self.port,
            user="owner",
            password=PASSWORD,
            database="desk",
            autocommit=True,
            ssl_disabled=True,
        )

    @property
    def url(self):
        """Return the URL of the database for a source."""
        return URL.create("mariadb+pymysql", "owner", PASSWORD, "127.0.0.1", self.port, "desk")


@pytest.fixture(scope="session")
def mariadb():
    """A running server; tests that need it are skipped if the programs or the driver are
    missing."""
    programs = find_mariadb()
    if isinstance(programs, str):
        pytest.skip(programs)
    with MariadbServer(*programs) as server:
        yield server
