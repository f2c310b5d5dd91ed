"""A filled project behind a real server on loopback, which the tests of a module share."""

from collections.abc import Iterator

import httpx
import pytest

from tests.search.desk import Desk
from tests.search.service.live import Live


@pytest.fixture(scope="package", autouse=True)
def short_idle() -> None:
    """Keep the store of a service open, as it is by default."""


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory, template) -> Desk:
    """A filled desk with the default settings, but for patience with a busy machine."""
    return Desk(tmp_path_factory.mktemp("desk"), template=template).fill()


@pytest.fixture(scope="module")
def live(desk: Desk) -> Iterator[Live]:
    with Live(desk.settings) as live:
        yield live


@pytest.fixture(scope="module")
def client(live: Live) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=live.url, timeout=60) as client:
        yield client
