"""The contracts of plug-ins: our embedders and chunkers fulfil them, and so do those of the page's
example."""

import importlib
import sys

import pytest

from rag_index.components.chunking.code import CodeChunker
from rag_index.components.chunking.text_chunker import TextChunker
from rag_index.components.embedders import open_embedder
from rag_index.core.settings import EmbedderSettings
from rag_index.search import Retriever
from rag_index.search.rerankers import make_reranker
from tests.contracts import ChunkerContract, EmbedderContract
from tests.docs.pages import blocks, page
from tests.fakes.ollama import FakeOllama
from tests.plugin_site import install_as_written
from tests.project import Project

(EXAMPLE,), (PYPROJECT, SETTINGS) = (
    blocks(page("plugins"), language) for language in ("python", "text")
)


class TestLocal(EmbedderContract):
    def make_embedder(self):
        return open_embedder(EmbedderSettings())


class TestShortened(EmbedderContract):
    def make_embedder(self):
        return open_embedder(EmbedderSettings(dimensions=64))


@pytest.mark.parametrize("kind", ["ollama", "openai"])
class TestServers(EmbedderContract):
    @pytest.fixture(autouse=True)
    def _server(self, kind):
        with FakeOllama() as server:
            self.settings = EmbedderSettings(kind=kind, model=server.model, url=server.url)
            yield

    def make_embedder(self):
        return open_embedder(self.settings)


class TestTextChunker(ChunkerContract):
    def make_chunker(self):
        return TextChunker(200, 20)


class TestCodeChunker(ChunkerContract):
    def make_chunker(self):
        return CodeChunker(200, 10.0)


@pytest.fixture
def site(tmp_path, monkeypatch):
    """The example's package, installed."""
    folder = tmp_path / "site"
    install_as_written(PYPROJECT, folder, {"words.py": EXAMPLE})
    monkeypatch.syspath_prepend(str(folder))
    sys.modules.pop("words", None)
    return folder


def test_the_example_fulfils_the_contracts(site):
    words = importlib.import_module("words")
    settings = EmbedderSettings(kind="words", model="words")
    embedder = type(
        "Embedder", (EmbedderContract,), {"make_embedder": lambda _: words.WordEmbedder(settings)}
    )
    chunker = type(
        "Chunker", (ChunkerContract,), {"make_chunker": lambda _: words.LineChunker(200, 0)}
    )
    for contract in (embedder(), chunker()):
        for name in dir(contract):
            if name.startswith("test_"):
                getattr(contract, name)()


def test_the_example_indexes_and_searches(site, tmp_path):
    project = Project(tmp_path / "project").fill(20)
    (project.folder / "words").mkdir()  # that of the package: the plug-in of this name comes first
    project.write_settings('project = "test"\n[source]\nurl = "sqlite:///source.db"\n' + SETTINGS)
    assert project.run().exit_code == 0
    assert {len(vector) for _, vector in project.points().values()} == {256}
    assert make_reranker(project.settings).score("a printer", ["the printer", "a printer"]) == [
        1,
        2,
    ]
    with Retriever(project.settings) as retriever:
        result = retriever.search_sync("printer network", limit=3)
    assert len(result.hits) == 3
    assert result.reranked
    project.write_settings(project.config.read_text().replace('"lines"', '"pages"'))
    (outcome,) = project.run().indexes
    assert "chunker of index notes: there is no 'pages' (there are: lines)" in outcome.message
