"""Filters on indexes of every kind: source code and installed sources have no `payload` in the settings."""

from __future__ import annotations

import json

import pytest

from rag_index.cli import main
from rag_index.errors import SettingsError
from rag_index.retrieve import Retriever
from rag_index.settings import load_settings
from tests.retrieve.desk import HEAD, Desk, found

KINDS = {"code": 'kind = "code"\nroot = "."', "installed": 'kind = "mails"'}
"""No source `mails` is installed: a search does not open the source."""
ROWS = [
    ("a.py", "Retry the call after a pause", {"language": "python", "lines": [1, 9], "tags": {"level": 1}}),
    ("b.go", "Retry the call after a longer pause", {"language": "go", "lines": [4, 7]}),
]


def make_desk(folder, kind, more=""):
    desk = Desk(folder, names=("files",))
    text = HEAD.format(project=desk.project, extra="") + f'[[indexes]]\nname = "files"\n{KINDS[kind]}\n{more}\n'
    desk.config.write_text(text, encoding="utf-8")
    return desk.fill({"files": ROWS})


@pytest.fixture(scope="module", params=KINDS)
def desk(request, tmp_path_factory):
    return make_desk(tmp_path_factory.mktemp("desk"), request.param)


@pytest.mark.parametrize(
    "given", [{"language": "python"}, {"lines": 9}, "language=python", ["language=python", "lines"]]
)
def test_a_filter_in_python(desk, given):
    with desk.retriever() as retriever:
        assert found(retriever.search_sync("retry", filter=given)) == [("files", "a.py")]


def test_a_filter_on_the_command_line(desk, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--config", str(desk.config), "search", "retry", "--filter", "language=python", "--json"])
    out, err = capsys.readouterr()
    assert (ended.value.code, err) == (0, "")
    assert [hit["document_id"] for hit in json.loads(out)["hits"]] == ["a.py"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_required_filter(kind, tmp_path):
    desk = make_desk(tmp_path, kind, 'required_filter = { language = "go" }')
    with desk.retriever() as retriever:
        assert found(retriever.search_sync("retry")) == [("files", "b.go")]
        assert found(retriever.search_sync("retry", filter={"language": "python"})) == []


def test_source_code_has_its_own_fields_and_no_other(tmp_path):
    desk = make_desk(tmp_path, "code")
    with (
        desk.retriever() as retriever,
        pytest.raises(SettingsError, match="index files has: docstring, kind, language"),
    ):
        retriever.search_sync("retry", filter={"author": "ann"})
    for key, value in (("required_filter", '{ author = "ann" }'), ("payload_indexes", '{ author = "keyword" }')):
        with pytest.raises(SettingsError, match=rf"{key} names 'author', but payload has no such column \(path, "):
            make_desk(tmp_path / key, "code", f"{key} = {value}")


def test_an_installed_source_may_have_any_field(tmp_path):
    desk = make_desk(tmp_path, "installed", 'payload_indexes = { author = "keyword" }')
    with Retriever(load_settings(desk.config)) as retriever:
        assert found(retriever.search_sync("retry", filter={"author": "ann"})) == []
        assert found(retriever.search_sync("retry", filter="tags.level>=1")) == [("files", "a.py")]
