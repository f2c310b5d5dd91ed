"""One Prefect server for all tests of deployments, and a browser for those that look at its
page."""

from contextlib import contextmanager

import pytest

from tests.browser import Browser
from tests.deployments.server import PrefectServer
from tests.shared_servers import SharedServer


@contextmanager
def deployed_on(postgres, home):
    """Run a Prefect server with the work pool and all deployments of prefect.yaml, made as
    docs/operations.md says. Its database is PostgreSQL: of runs that report at once, one may find
    SQLite locked for longer than Prefect waits."""
    with postgres.database() as name:
        url = (
            postgres.url(name)
            .set(drivername="postgresql+asyncpg")
            .render_as_string(hide_password=False)
        )
        kept = {"PREFECT_SERVER_DATABASE_CONNECTION_URL": url}
        with PrefectServer(home, **kept) as server:
            server.prefect("work-pool", "create", "rag-index", "--type", "process")
            server.prefect("deploy", "--all")
            yield server


@pytest.fixture(scope="session")
def shared_deployed(tmp_path_factory, postgres):
    """The Prefect server of this process with the deployments, which runs once a test asks for
    it."""
    with SharedServer(lambda: deployed_on(postgres, tmp_path_factory.mktemp("server"))) as server:
        yield server


@pytest.fixture(scope="module")
def deployed(shared_deployed):
    """A Prefect server with the work pool and all deployments of prefect.yaml."""
    return shared_deployed.running()


@pytest.fixture
def browser(tmp_path):
    """A window of headless Chromium, for one test: Prefect's page takes a sixth of a core as long
    as it is open."""
    with Browser(tmp_path / "chromium") as window:
        yield window
