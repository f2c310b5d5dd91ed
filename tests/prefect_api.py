"""A Prefect API for tests and benchmarks."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rag_index.orchestration import prefect_api


@contextmanager
def temporary_server() -> Iterator[dict[str, str]]:
    """Give the variables that lead to a Prefect API on a free loopback port, for the time of the block."""
    with tempfile.TemporaryDirectory() as home, prefect_api.temporary_server(Path(home)) as wait:
        yield wait()
