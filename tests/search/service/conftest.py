"""A filled project behind a real server on loopback, which the tests of a module share."""

import httpx
import pytest

from tests.search.desk import Desk
from tests.search.service.live import Live


@pytest.fixture(scope="package", autouse=True)
def short_idle():
    """Keep the store of a service open, as it is by default."""


@pytest.fixture(scope="module")
def desk(tmp_path_factory, template):
    """A filled desk with the default settings, but for patience with a busy machine."""
    return Desk(tmp_path_factory.mktemp("desk"), template=template).fill()


@pytest.fixture(scope="module")
def live(desk):
    with Live(desk.settings) as live:
        yield live


@pytest.fixture(scope="module")
def client(live):
    with httpx.Client(base_url=live.url, timeout=60) as client:
        yield client
