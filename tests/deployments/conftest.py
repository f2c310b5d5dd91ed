"""One Prefect server and one browser window for all tests of deployments."""

import pytest

from tests.browser import Browser
from tests.deployments.server import PrefectServer


@pytest.fixture(scope="session")
def deployed(tmp_path_factory):
    """A Prefect server with the work pool and all deployments of prefect.yaml, made as docs/operations.md says."""
    with PrefectServer(tmp_path_factory.mktemp("server")) as server:
        server.prefect("work-pool", "create", "rag-index", "--type", "process")
        server.prefect("deploy", "--all")
        yield server


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    """A window of headless Chromium; tests that need it are skipped if it is not installed."""
    with Browser(tmp_path_factory.mktemp("chromium")) as window:
        yield window
