"""What all tests of runs share."""

from __future__ import annotations

import sys

import pytest

from rag_index.indexing import publish


@pytest.fixture(autouse=True)
def no_calibration(monkeypatch):
    """Leave out the 200 searches at the end of a first run; `tests.retrieve.test_calibration` has them."""
    monkeypatch.setattr(publish, "MIN_DOCUMENTS", sys.maxsize)
