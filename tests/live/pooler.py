"""PgBouncer in front of a test's PostgreSQL, which gives each transaction another session than the
one before."""

import os
import shutil
import subprocess
import tempfile
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psycopg
import pytest

from tests.live.postgres import PASSWORD, server_user
from tests.ports import free_port
from tests.waiting import START_SECONDS, until_it_answers

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
        f"[databases]\n* = {target}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port ="
        f" {port}\nunix_socket_dir =\nauth_type = any\npool_mode = {mode}\nserver_round_robin = 1\n"
    )
    for path in (folder, folder / "ini"):
        os.chown(path, user.pw_uid, user.pw_gid)
    nowhere = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen([program, "-q", folder / "ini"], **nowhere, **as_user)
    try:
        yield lambda name: _several_sessions(
            postgres.url(name).set(port=port), mode, process, folder / "ini"
        )
    finally:
        process.terminate()
        process.wait(timeout=START_SECONDS)
        shutil.rmtree(folder)


def _several_sessions(url, mode, process, file):
    """Return the URL, once the pooler has several sessions for it to choose from."""
    text = url.set(drivername="postgresql").render_as_string(hide_password=False)
    with ExitStack() as stack:

        def connect():
            stack.enter_context(psycopg.connect(text, autocommit=mode == "statement")).execute(
                "SELECT 1"
            )

        for _ in range(SESSIONS):
            until_it_answers(connect, process, file, psycopg.OperationalError)
    return url


@pytest.fixture(scope="session")
def pooled(postgres):
    """A function that gives the URL of a database behind a pooler in transaction mode."""
    with pooler(postgres) as url:
        yield url
