"""The setup of all tests: one Prefect server, no telemetry, and skips that count as failures in
CI."""

import gc
import logging
import os
import shutil
import signal
import tempfile
from collections import Counter, defaultdict
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import hypothesis
import psutil
import pytest
from sqlalchemy.dialects.mysql.pymysql import MySQLDialect_pymysql
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.engine import Engine
from sqlalchemy.util import LRUCache
from xdist.scheduler import LoadFileScheduling

from rag_index import redaction
from rag_index.orchestration.prefect_api import send_pending_logs
from tests.etl.plain import run_plain
from tests.fakes.ollama import FakeOllama
from tests.fakes.qdrant import FakeQdrant
from tests.prefect_api import temporary_server
from tests.project import Project
from tests.read_once import (
    copy_schemas_quickly,
    keep_model,
    leave_vectors_on_disk,
    trust_one_certificate,
)
from tests.shared_servers import SharedServer, end_shared_servers
from tests.twin import twin

pytest_plugins = ["tests.live.fixtures"]

QUIET = {
    "DO_NOT_TRACK": "1",
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    "DASK_LOGGING__DISTRIBUTED": "critical",
}
DIALECTS = (SQLiteDialect_pysqlite, PGDialect_psycopg, MySQLDialect_pymysql)
MAY_SKIP = {"qdrant_server", "mount", "not_root"}
"""Markers of tests whose needs CI cannot meet."""
MEMORY = Path("/dev/shm")
ENOUGH = 10_000_000_000
"""Bytes. All tests at once need a quarter of that."""
LONG_SECONDS = 1200
LISTED = 20
MANY_FILES = 2 * LISTED
"""Of fewer files, pytest's own list of the slowest tests says enough."""
LONGEST = (
    "tests/deployments/test_worker.py",
    "tests/flows",
    "tests/orchestration",
    "tests/deployments",
    "tests/docs/test_typed.py",
    "tests/reliability",
    "tests/search/frameworks",
    "tests/live",
    "tests/watch",
    "tests/etl",
    "tests/care",
    "tests/cli",
    "tests/care/doctor",
    "tests",
    "tests/wild",
)
"""The folders and files that take longest: one that begins at the end keeps the other processes
waiting. The last lines of `make test PYTEST_ARGS="-m ''"` show which those are."""
TOGETHER = {
    "tests/flows/": "prefect",
    "tests/orchestration/test_launch.py::test_a_stop_that_became": "prefect",
    "tests/orchestration/": "prefect of programs",
    "tests/components/embedders/test_model_in_process.py": "prefect of others",
    "tests/core/reports/test_progress.py": "prefect of others",
    "tests/deployments/test_cluster.py": "prefect of others",
    "tests/reliability/test_disk_and_clock.py": "prefect of others",
    "tests/reliability/test_frozen.py": "prefect of others",
    "tests/reliability/test_kill.py": "prefect of others",
    "tests/reliability/test_words_first_kill.py": "prefect of others",
    "tests/live/test_ollama.py": "ollama",
    "tests/components/chunking/context/test_live.py": "ollama",
    "tests/deployments/test_automations": "deployed",
    "tests/deployments/test_schedule": "deployed",
}
"""Tests that share a server, which takes long to start, by how their names begin. One process has
the tests of a group, and ends their server with the last of them. Three groups have a Prefect
server each: together they would take as long as all other tests do in three processes."""


@contextmanager
def prefect_in(home):
    """Run a Prefect server for the time of the block, and yield the URL of its API, which this
    process and its children use."""
    with pytest.MonkeyPatch.context() as patch, temporary_server(home) as variables:
        for name, value in {**QUIET, "PREFECT_HOME": str(home), **variables}.items():
            patch.setenv(name, value)
        from prefect.context import SettingsContext, get_settings_context
        from prefect.settings import Settings

        # Earlier tests may have imported Prefect, which then read the environment without this URL:
        # each run in this process would start a server.
        with SettingsContext(profile=get_settings_context().profile, settings=Settings()):
            yield variables["PREFECT_API_URL"]
            send_pending_logs()


@pytest.fixture(scope="session")
def shared_prefect(tmp_path_factory):
    """The Prefect server of this process, which runs once a test asks for it."""
    with SharedServer(lambda: prefect_in(tmp_path_factory.mktemp("prefect"))) as server:
        yield server


@pytest.fixture(scope="module")
def prefect_server(shared_prefect):
    """The URL of the Prefect API that this process and its children use."""
    return shared_prefect.running()


@pytest.fixture
def fake():
    """A fake Ollama server."""
    with FakeOllama() as server:
        yield server


@pytest.fixture
def qdrant():
    """A fake Qdrant server."""
    with FakeQdrant() as server:
        yield server


@pytest.fixture
def project(tmp_path):
    """A project whose table is empty."""
    return Project(tmp_path / "project")


@pytest.fixture(scope="session")
def indexed_once(tmp_path_factory):
    """Return a function that returns a project with so many notes, which is indexed once in this
    process."""

    @cache
    def make(notes):
        project = Project(tmp_path_factory.mktemp("indexed") / "project").fill(notes)
        assert run_plain(project).state == "completed"
        return project

    return make


@pytest.fixture
def indexed_notes(indexed_once, tmp_path):
    """Return a function that makes the test's project: so many notes, which are indexed already.

    It is a copy, for whose settings batches of a watch demand a run first: the source is in another
    place.
    """
    return lambda notes: twin(indexed_once(notes), tmp_path / "project")


@pytest.fixture
def ledger(project):
    """The ledger of the test's project."""
    with project.ledger() as opened:
        yield opened


@pytest.fixture(autouse=True)
def _no_secrets_of_other_tests(monkeypatch):
    """Let a test know its own secrets alone: some are words that others expect in messages."""
    monkeypatch.setattr(redaction, "_KNOWN", redaction._Known())


@pytest.fixture(autouse=True)
def _no_logs_of_other_tests():
    """Let no logger write to what was the standard error of another test, and is closed."""
    yield
    for logger in [logging.root, *logging.root.manager.loggerDict.values()]:
        for handler in [*getattr(logger, "handlers", ())]:
            if getattr(getattr(handler, "stream", None), "closed", False):
                logger.removeHandler(handler)


def share_statements():
    """Let the engines of this process compile a statement once: each run of each test makes engines
    of its own.

    SQLAlchemy keeps what it compiled by engine and by dialect. Here dialects are alike that quote
    alike.
    """
    compiled, make = LRUCache(10_000), Engine.__init__

    def quotes(dialect):
        return (
            type(dialect),
            getattr(dialect, "_backslash_escapes", None),
            getattr(dialect, "_server_ansiquotes", None),
        )

    def make_sharing(engine, *args, **named):
        make(engine, *args, **named)
        if isinstance(engine.dialect, DIALECTS):
            engine._compiled_cache = compiled

    Engine.__init__ = make_sharing
    for dialect in DIALECTS:
        dialect.__hash__ = lambda dialect: hash(type(dialect))
        dialect.__eq__ = lambda dialect, other: quotes(dialect) == quotes(other)


def write_to_memory():
    """Put what tests write into memory, if there is enough: small stores and ledgers wait for a
    disk too often."""
    if "TMPDIR" in os.environ or not MEMORY.is_dir():
        return
    if min(shutil.disk_usage(MEMORY).free, psutil.virtual_memory().available) > ENOUGH:
        os.environ["TMPDIR"] = tempfile.tempdir = str(MEMORY)


def pytest_configure(config):
    gc.set_threshold(50_000)  # the usual one costs a fifth of the time of importing all tests
    write_to_memory()
    keep_model()
    copy_schemas_quickly()
    leave_vectors_on_disk()
    share_statements()
    trust_one_certificate()
    signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # a shell that starts this in the background ignores it
    hypothesis.settings.register_profile("tests", deadline=None)  # machines here are noisy
    hypothesis.settings.load_profile("tests")
    for name in [name for name in os.environ if name.startswith(("RAG_INDEX_", "PREFECT_"))]:
        del os.environ[name]  # a person's own settings must not change the tests


def pytest_collection_finish():
    gc.freeze()  # all imported modules would be scanned again and again


def pytest_collection_modifyitems(items):
    """Begin with the longest files, and give long tests a time limit that a busy machine does not
    reach."""
    order = {folder: number for number, folder in enumerate(LONGEST)}

    def place(item):
        path = item.path.relative_to(item.config.rootpath)
        return order.get(path.as_posix(), order.get(path.parent.as_posix(), len(LONGEST)))

    items.sort(key=place)
    for item in items:
        if item.get_closest_marker("long") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(LONG_SECONDS))


def group_of(nodeid):
    """Return what the tests have in common that run one after another in a process: their file, or
    their server."""
    for place, name in TOGETHER.items():
        if nodeid.startswith(place):
            return name
    return nodeid.partition("::")[0]


class Scheduling(LoadFileScheduling):
    """Give each file to a process, and those that share a server to one."""

    def _split_scope(self, nodeid):
        return group_of(nodeid)


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item, nextitem):
    """End the servers of a group with its last test: one that nobody asks takes a fiftieth of a
    processor."""
    if nextitem is None or group_of(item.nodeid) != group_of(nextitem.nodeid):
        end_shared_servers()


def pytest_xdist_make_scheduler(config, log):
    return Scheduling(config, log) if config.option.dist == "loadfile" else None


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    allowed = MAY_SKIP & {marker.name for marker in item.iter_markers()}
    if (
        report.skipped
        and os.environ.get("CI") == "true"
        and not allowed
        and not hasattr(report, "wasxfail")
    ):
        report.outcome = "failed"
        report.longrepr = f"skipped, which is a failure in CI: {report.longrepr}"


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter):
    """Name what was skipped, and why, and the files that took longest, where a person looks."""
    skipped = defaultdict(Counter)
    for report in terminalreporter.stats.get("skipped", []):
        reason = str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr)
        skipped[reason.removeprefix("Skipped: ")][report.nodeid.partition("::")[0]] += 1
    for reason, files in sorted(skipped.items()):
        tests = ", ".join(f"{number} of {file}" for file, number in sorted(files.items()))
        terminalreporter.write_line(f"NOT TESTED HERE: {reason} ({tests})")
    seconds = Counter[str]()
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport):
                seconds[report.nodeid.partition("::")[0]] += report.duration
    if len(seconds) > MANY_FILES:
        files = ", ".join(f"{taken:.0f} s {file}" for file, taken in seconds.most_common(LISTED))
        terminalreporter.write_line(f"LONGEST FILES, of {seconds.total():,.0f} s: {files}")
