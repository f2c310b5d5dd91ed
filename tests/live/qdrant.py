"""Projects whose store is embedded, a fake server, or the real Qdrant server at QDRANT_URL."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext

import pytest

from rag_index.components.stores import open_store
from tests.fakes.qdrant import FakeQdrant
from tests.project import Project

REAL = pytest.param("real", marks=pytest.mark.qdrant_server)
SERVERS = ["loopback", REAL]
STORES = ["embedded", *SERVERS]


@contextmanager
def project_on(
    store: str, make: Callable[[str], Project], fake: FakeQdrant | None = None
) -> Iterator[Project]:
    """Make a project on one of `STORES`, from the TOML that names it. On a real server it has a
    name of its own."""
    if store == "embedded":
        yield make("")
        return
    if store == "loopback":
        with nullcontext(fake) if fake else FakeQdrant() as server:
            yield make(f'[store]\nurl = "{server.url}"\n')
        return
    if "QDRANT_URL" not in os.environ:
        pytest.skip("needs a Qdrant server: set QDRANT_URL")
    key = f'api_key = "{os.environ["QDRANT_API_KEY"]}"\n' if "QDRANT_API_KEY" in os.environ else ""
    project = make(f'[store]\nurl = "{os.environ["QDRANT_URL"]}"\n{key}')
    name = f"test-{uuid.uuid4().hex[:12]}"
    project.write_settings(
        project.config.read_text().replace('project = "test"', f'project = "{name}"')
    )
    own = project.settings.store  # a test may write a key that can only read
    try:
        yield project
    finally:
        with closing(open_store(own)) as opened:
            for collection in opened.collections():
                if collection.startswith(f"{name}_"):
                    opened.drop(collection)
