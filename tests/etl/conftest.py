"""What all tests of runs share."""

import pytest

from rag_index.etl.sharding import Sharder
from rag_index.orchestration import hooks


@pytest.fixture(autouse=True)
def no_calibration(monkeypatch):
    """Leave out the searches at the end of a first run; `tests.search.test_calibration` has
    them."""
    monkeypatch.setattr(hooks, "to_learn", lambda ledger, store, collection: 0)


@pytest.fixture(autouse=True)
def suspects_here(monkeypatch):
    """Embed suspects in this process: a child takes seconds to start, and
    `tests.flows.test_failures` has it."""
    monkeypatch.setattr(Sharder, "_is_suspect", lambda sharder, documents: False)
