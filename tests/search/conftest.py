"""The stores that searches are tested on: embedded, a fake server over HTTP, and the real server at
QDRANT_URL."""

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from rag_index.search import fan_out
from tests.fakes.ollama import FakeOllama
from tests.fakes.qdrant import FakeQdrant
from tests.search.desk import PATIENT, Desk

MODEL = "nomic-embed-text"
SHARED = "[retrieve]\ntimeout = 30"
KINDS = ["edge", "http", pytest.param("server", marks=pytest.mark.qdrant_server)]


@pytest.fixture(scope="package", autouse=True)
def short_idle():
    """Let each test's retriever give the embedded store up for the next."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fan_out, "IDLE_SECONDS", 0.05)
        yield


@pytest.fixture(scope="session")
def template(tmp_path_factory):
    """A filled embedded store: making one takes a second or two, copying it a twentieth of that."""
    return Desk(tmp_path_factory.mktemp("template")).fill().settings.store.path


@pytest.fixture(scope="session")
def ollama_template(tmp_path_factory):
    """The same with vectors of a fake Ollama server, which are equal wherever it listens."""
    with FakeOllama(model=MODEL) as ollama:
        return (
            Desk(tmp_path_factory.mktemp("template"), extra=ollama.settings)
            .fill()
            .settings.store.path
        )


@pytest.fixture(scope="module", params=KINDS)
def full(request, tmp_path_factory, template):
    """A filled desk that tests only read."""
    for desk in _desk(request.param, tmp_path_factory.mktemp("desk"), template):
        yield desk.fill()


@pytest.fixture(params=KINDS)
def empty(request, tmp_path, template):
    """A desk with nothing indexed."""
    yield from _desk(request.param, tmp_path / "desk", template)


@pytest.fixture(params=["edge", pytest.param("http", marks=pytest.mark.long), KINDS[-1]])
def blank(request, tmp_path, template):
    """The same for what is the same in each store, such as the words of a query: servers have it in
    long tests."""
    yield from _desk(request.param, tmp_path / "desk", template)


@pytest.fixture
def ollama():
    with FakeOllama(model=MODEL) as ollama:
        yield ollama


@pytest.fixture
def ollama_desk(ollama, tmp_path, ollama_template):
    """A filled embedded desk whose vectors come from an Ollama server."""
    return Desk(
        tmp_path / "ollama_desk", extra=f"{ollama.settings}\n{PATIENT}", template=ollama_template
    ).fill()


@pytest.fixture
def served(qdrant, tmp_path):
    """A filled desk with the default time limits on a fake server, whose faults a test can dial
    in."""
    return Desk(tmp_path / "desk", f'[store]\nurl = "{qdrant.url}"', "").fill()


@pytest.fixture
def embedded(tmp_path, template):
    return Desk(tmp_path / "desk", template=template).fill()


def _desk(kind: str, folder: Path, template: Path) -> Iterator[Desk]:
    if kind == "edge":
        yield Desk(folder, extra=SHARED, template=template)
        return
    if kind == "http":
        with FakeQdrant() as qdrant:
            yield Desk(folder, f'[store]\nurl = "{qdrant.url}"', SHARED)
        return
    if "QDRANT_URL" not in os.environ:
        pytest.skip("needs a Qdrant server: set QDRANT_URL")
    key = f'\napi_key = "{os.environ["QDRANT_API_KEY"]}"' if "QDRANT_API_KEY" in os.environ else ""
    store = f'[store]\nurl = "{os.environ["QDRANT_URL"]}"{key}'
    desk = Desk(folder, store, SHARED, project=f"test-{uuid.uuid4().hex[:12]}")
    try:
        yield desk
    finally:
        with desk.opened() as store:
            for name in store.collections():
                if name.startswith(f"{desk.project}_"):
                    store.drop(name)
