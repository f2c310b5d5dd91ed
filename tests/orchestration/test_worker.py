"""What a worker process keeps open from shard to shard."""

from __future__ import annotations

import pytest

from rag_index.errors import StoreError
from rag_index.orchestration.worker import process_store
from rag_index.settings import StoreSettings
from tests.fakes.qdrant import FakeQdrant


def connections(qdrant: FakeQdrant) -> int:
    """Return how often the server was asked for its version, with which each connection begins."""
    return sum(seen == "GET /" for seen in qdrant.seen)


def test_shards_share_a_connection_until_there_is_an_error() -> None:
    with FakeQdrant() as qdrant, FakeQdrant() as other:
        settings = StoreSettings(url=qdrant.url)
        for _ in range(3):
            with process_store(settings) as store:
                store.aliases()
        assert connections(qdrant) == 1
        with pytest.raises(StoreError), process_store(settings):
            raise StoreError("refused")
        with process_store(settings) as store:
            store.aliases()
        assert connections(qdrant) == 2
        with process_store(StoreSettings(url=other.url)) as store:
            store.aliases()
        assert (connections(qdrant), connections(other)) == (2, 1)
