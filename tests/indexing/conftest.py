"""What all tests of runs share."""

import sys

import pytest

from rag_index.evaluation import calibrate
from rag_index.indexing.scan import Scan


@pytest.fixture(autouse=True)
def no_calibration(monkeypatch):
    """Leave out the searches at the end of a first run; `tests.retrieve.test_calibration` has them."""
    monkeypatch.setattr(calibrate, "MIN_DOCUMENTS", sys.maxsize)


@pytest.fixture(autouse=True)
def suspects_here(monkeypatch):
    """Embed suspects in this process: a child takes seconds to start, and `tests.flows.test_suspects` has it."""
    monkeypatch.setattr(Scan, "_marked", lambda scan, shard: shard)
