"""The command that installs an extra works where rag-index came from: a checkout, a wheel, a registry."""

import json
from importlib import metadata
from types import SimpleNamespace
from urllib.parse import quote

import pytest

from rag_index.errors import install_command


@pytest.fixture
def command(monkeypatch, tmp_path):
    """What is said for an installation of which pip noted this; "" where nothing is installed."""
    (tmp_path / "rag index").mkdir()

    def install(noted):
        install_command.cache_clear()
        text = None if noted is None else json.dumps(noted)
        found = SimpleNamespace(read_text=lambda name: text if name == "direct_url.json" else None)

        def distribution(name):
            if noted == "":
                raise metadata.PackageNotFoundError(name)
            return found

        monkeypatch.setattr("rag_index.errors.distribution", distribution)
        return install_command("mcp")

    yield install
    install_command.cache_clear()


def test_it_names_the_place_that_pip_noted(command, tmp_path):
    place = tmp_path / "rag index"
    url = f"file://{quote(str(place))}"
    assert command({"url": url, "dir_info": {"editable": True}}) == f"pip install -e '{place}[mcp]'"
    assert command({"url": url, "dir_info": {}}) == f"pip install '{place}[mcp]'"
    assert command({"url": f"{url}/gone.whl", "archive_info": {}}) == "pip install '.[mcp]' in a checkout of rag-index"
    assert command("") == "pip install '.[mcp]' in a checkout of rag-index"
    assert command(None) == "pip install 'rag-index[mcp]'"


def test_it_is_that_of_this_installation():
    extras = metadata.metadata("rag-index").get_all("Provides-Extra")
    assert extras
    assert "[mcp]" in install_command("mcp")
