"""A Prefect API for tests and benchmarks."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rag_index.orchestration import prefect_api


@contextmanager
def temporary_server(home: Path | None = None) -> Iterator[dict[str, str]]:
    """Give the variables that lead to a Prefect API on a free loopback port, for the time of the block.

    Its database is in `home`, by default in a folder that is removed at the end.
    """
    with tempfile.TemporaryDirectory() as folder, prefect_api.temporary_server(home or Path(folder)) as wait:
        yield wait()
