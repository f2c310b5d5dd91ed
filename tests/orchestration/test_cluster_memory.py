"""The memory of a long run: shards that workers have finished are not kept anywhere."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from distributed import Client

from rag_index.orchestration.cluster import Workers
from rag_index.settings import ParallelSettings

SHARDS, SHARD_BYTES = 150, 900_000  # Dask keeps messages of less than a megabyte


def private_bytes(pid: str = "self") -> int:
    found = re.search(r"RssAnon:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) * 1024 if found else 0


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc (Linux)")
def test_shards_that_are_done_leave_the_memory():
    settings = ParallelSettings(workers=1)
    with Workers(settings) as workers, workers.cluster() as cluster, Client(cluster, set_as_default=False) as client:
        worker = str(client.run(lambda dask_worker: os.getpid()).popitem()[1])

        def send(count: int) -> None:
            for _ in range(count):
                shard = os.urandom(SHARD_BYTES)  # nothing compresses it
                assert client.submit(len, shard, pure=False).result() == SHARD_BYTES

        send(15)
        before = [private_bytes(), private_bytes(worker)]
        send(SHARDS)
        after = [private_bytes(), private_bytes(worker)]
    for early, late in zip(before, after, strict=True):
        assert late - early < SHARDS * SHARD_BYTES / 4
