"""The test classes for plug-ins: rag-index's own embedders and chunkers pass them, and so does the page's example."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from rag_index.chunking.code.chunker import CodeChunker
from rag_index.chunking.text_chunker import TextChunker
from rag_index.embedders import open_embedder
from rag_index.errors import TextRefused
from rag_index.rerankers import reranker_opener
from rag_index.retrieve import Retriever
from rag_index.settings import EmbedderSettings
from rag_index.testing import ChunkerContract, EmbedderContract
from tests.fakes.ollama import FakeOllama
from tests.project import Project

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")
EXAMPLE, TESTS = re.findall(r"^```python\n(.*?)^```", PAGE, re.M | re.S)
ENTRIES, SETTINGS = re.findall(r"^```text\n(.*?)^```", PAGE, re.M | re.S)


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


def refused(made, contract, check):
    """Return what a test of a contract says of what `made` is; nothing if it passes."""
    name = "make_embedder" if contract is EmbedderContract else "make_chunker"
    try:
        getattr(type("Case", (contract,), {name: lambda _: made()})(), check)()
    except AssertionError as exc:
        return str(exc)
    return ""


class Neighbours(type(open_embedder(EmbedderSettings()))):
    """An embedder whose vectors depend on the texts beside a text."""

    def _embed(self, texts):
        entries = super()._embed(texts)
        mean = np.mean([entry for entry in entries if not isinstance(entry, Exception)] or [0], axis=0)
        return [entry if isinstance(entry, Exception) else (entry + mean).astype(np.float32) for entry in entries]


class Strict(type(open_embedder(EmbedderSettings()))):
    """An embedder that raises because of one text."""

    def _embed(self, texts):
        if entries := [entry for entry in super()._embed(texts) if isinstance(entry, Exception)]:
            raise TextRefused(str(entries[0]))
        return super()._embed(texts)


class Truncating(TextChunker):
    def split(self, text):
        return super().split(text)[:3]


def test_the_contracts_notice_what_they_say():
    def embedder(kind):
        return lambda: kind(EmbedderSettings())

    said = refused(embedder(Neighbours), EmbedderContract, "test_each_text_has_its_own_vector_in_order")
    assert said.startswith("the vector of 'The printer on the second floor is out of paper.' depends on the texts")
    with pytest.raises(TextRefused):
        refused(embedder(Strict), EmbedderContract, "test_a_bad_text_fails_alone")
    said = refused(lambda: Truncating(200, 0), ChunkerContract, "test_no_word_is_lost_and_no_chunk_is_empty")
    assert said.startswith("no chunk has ['")


@pytest.fixture
def site(tmp_path, monkeypatch):
    """The example's package, installed."""
    folder = tmp_path / "site"
    info = folder / "words-1.0.dist-info"
    info.mkdir(parents=True)
    (folder / "words.py").write_text(EXAMPLE)
    (folder / "test_words.py").write_text(TESTS)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: words\nVersion: 1.0\n")
    entries = re.sub(r'\[project\.entry-points\."(.*)"\]', r"[\1]", ENTRIES).replace('"', "")
    (info / "entry_points.txt").write_text(entries)
    monkeypatch.syspath_prepend(str(folder))
    sys.modules.pop("words", None)
    return folder


def test_the_example_passes(site):
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", site, site]
    environment = os.environ | {"PYTHONPATH": str(site)}
    ended = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=120)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "12 passed" in ended.stdout


def test_the_example_indexes_and_searches(site, tmp_path):
    project = Project(tmp_path / "project").fill(20)
    project.write_settings('project = "test"\n[source]\nurl = "sqlite:///source.db"\n' + SETTINGS)
    assert project.run().exit_code == 0
    assert {len(vector) for _, vector in project.points().values()} == {256}
    assert reranker_opener(project.settings)().score("a printer", ["the printer", "a printer"]) == [1, 2]
    with Retriever(project.settings) as retriever:
        result = retriever.search_sync("printer network", limit=3)
    assert len(result.hits) == 3
    assert result.reranked
    project.write_settings(project.config.read_text().replace('"lines"', '"pages"'))
    (outcome,) = project.run().indexes
    assert "chunker of index notes: there is no 'pages' (there are: lines)" in outcome.message
