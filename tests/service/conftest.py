"""A filled project behind a real server on loopback, which the tests of a module share."""

from collections.abc import Iterator

import httpx
import pytest

from tests.search.conftest import ollama, ollama_desk, ollama_template, served, template  # noqa: F401
from tests.search.desk import Desk
from tests.service.live import Live


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory, template) -> Desk:  # noqa: F811
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
