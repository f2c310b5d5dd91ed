"""PgBouncer in front of a test's PostgreSQL, which gives each transaction another session than the one before."""

import os
import shutil
import subprocess
import tempfile
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psycopg
import pytest

from tests.live.postgres import PASSWORD, START_SECONDS, server_user
from tests.ports import free_port

SESSIONS = 3


@contextmanager
def pooler(postgres, mode="transaction"):
    """Yield a function that gives the URL by which the pooler names a database of the server."""
    program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
    if program is None:
        pytest.skip("there is no PgBouncer (apt-get install pgbouncer)")
    folder, port = Path(tempfile.mkdtemp(prefix="rag-index-pooler-")), free_port()
    user, as_user = server_user("postgres")
    target = f"host=127.0.0.1 port={postgres.port} user=owner password='{PASSWORD}'"
    (folder / "ini").write_text(
        f"[databases]\n* = {target}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
        f"auth_type = any\npool_mode = {mode}\nserver_round_robin = 1\n"
    )
    for path in (folder, folder / "ini"):
        os.chown(path, user.pw_uid, user.pw_gid)
    process = subprocess.Popen(
        [program, "-q", folder / "ini"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **as_user
    )
    try:
        yield lambda name: _several_sessions(postgres.url(name).set(port=port), mode)
    finally:
        process.terminate()
        process.wait(timeout=START_SECONDS)
        shutil.rmtree(folder)


def _several_sessions(url, mode):
    """Return the URL, once the pooler has several sessions for it to choose from."""
    text, deadline = url.set(drivername="postgresql").render_as_string(hide_password=False), time.monotonic() + 60
    with ExitStack() as stack:
        for _ in range(SESSIONS):
            while True:
                try:
                    connection = stack.enter_context(psycopg.connect(text, autocommit=mode == "statement"))
                    break
                except psycopg.OperationalError:
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.05)
            connection.execute("SELECT 1")
    return url


@pytest.fixture(scope="session")
def pooled(postgres):
    """A function that gives the URL of a database behind a pooler in transaction mode."""
    with pooler(postgres) as url:
        yield url
