"""Filters on indexes of every kind: source code and installed sources have no `payload` in the settings."""

from __future__ import annotations

import json

import pytest

from rag_index.cli import main
from rag_index.errors import SettingsError
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


@pytest.mark.parametrize("kind", KINDS)
def test_a_filter_in_python_on_the_command_line_and_in_the_settings(tmp_path, capsys, kind):
    desk = make_desk(tmp_path, kind)
    with desk.retriever() as retriever:
        for given in ({"language": "python"}, {"lines": 9}, "language=python", ["language=python", "lines"]):
            assert found(retriever.search_sync("retry", filter=given)) == [("files", "a.py")]
        if kind == "code":
            with pytest.raises(SettingsError, match="index files has: docstring, kind, language"):
                retriever.search_sync("retry", filter={"author": "ann"})
        else:  # it may have any field
            assert found(retriever.search_sync("retry", filter={"author": "ann"})) == []
            assert found(retriever.search_sync("retry", filter="tags.level>=1")) == [("files", "a.py")]
    with pytest.raises(SystemExit) as ended:
        main(["--config", str(desk.config), "search", "retry", "--filter", "language=python", "--json"])
    out, err = capsys.readouterr()
    assert (ended.value.code, err) == (0, "")
    assert [hit["document_id"] for hit in json.loads(out)["hits"]] == ["a.py"]
    with make_desk(tmp_path / "required", kind, 'required_filter = { language = "go" }').retriever() as retriever:
        assert found(retriever.search_sync("retry")) == [("files", "b.go")]
        assert found(retriever.search_sync("retry", filter={"language": "python"})) == []


def test_settings_name_no_field_that_source_code_does_not_have(tmp_path):
    for key, value in (("required_filter", '{ author = "ann" }'), ("payload_indexes", '{ author = "keyword" }')):
        with pytest.raises(SettingsError, match=rf"{key} names 'author', but payload has no such column \(path, "):
            make_desk(tmp_path / key, "code", f"{key} = {value}")
    assert make_desk(tmp_path, "installed", 'payload_indexes = { author = "keyword" }')
