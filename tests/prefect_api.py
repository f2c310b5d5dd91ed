"""A Prefect API for tests and benchmarks."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from rag_index.orchestration.launch import own_server


@contextmanager
def temporary_server(home: Path | None = None) -> Iterator[dict[str, str]]:
    """Give the variables that lead to a Prefect API on a free loopback port, for the time of the
    block.

    Its database is in `home`, by default in a folder that is removed at the end.
    """
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        before = dict(os.environ)
        for name in [name for name in os.environ if name.startswith("PREFECT_")]:
            del os.environ[name]  # they lead to another server
        os.environ["PREFECT_HOME"] = str(home or folder)
        try:
            url, password = stack.enter_context(own_server())
        finally:
            os.environ.clear()
            os.environ.update(before)
        yield {"PREFECT_API_URL": url, "PREFECT_API_AUTH_STRING": password, "PREFECT_UI_URL": ""}
