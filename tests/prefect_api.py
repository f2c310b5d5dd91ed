"""A Prefect API for tests and benchmarks."""

from collections.abc import Iterator
from contextlib import contextmanager

from rag_index.orchestration.api_server import ApiServer


@contextmanager
def temporary_server() -> Iterator[dict[str, str]]:
    """Give the variables that lead to a Prefect API on a free loopback port, for the time of the block."""
    with ApiServer() as server:
        yield {"PREFECT_API_URL": server.wait(), "PREFECT_API_AUTH_STRING": server.password}
