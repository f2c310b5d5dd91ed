"""What flows are run against."""

from __future__ import annotations

import pytest

from tests.fakes.ollama import FakeOllama


@pytest.fixture
def fake():
    with FakeOllama() as server:
        yield server
