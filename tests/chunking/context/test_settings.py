"""`[indexes.context]`, a table within an index: in the settings file and in the environment."""

from __future__ import annotations

import pytest

from rag_index.errors import SettingsError
from rag_index.settings import load_settings
from rag_index.settings.sections import ContextSettings
from rag_index.status.effective_settings import effective_settings

FILE = """\
[source]
url = "sqlite:///a.db"
[[indexes]]
name = "work-notes"
table = "note"
key = "id"
text = "body"
"""
CONTEXT = '[indexes.context]\nmodel = "llama3.2"\nconcurrency = 3\n'
VARIABLE = "RAG_INDEX_INDEXES__WORK_NOTES__CONTEXT"


@pytest.fixture
def load(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def load(text):
        (tmp_path / "rag-index.toml").write_text(text, encoding="utf-8")
        return load_settings()

    return load


def test_the_table_needs_only_a_model(load):
    context = load(FILE + '[indexes.context]\nmodel = "m"\n').indexes[0].context
    assert context == ContextSettings(model="m")
    assert (context.concurrency, context.max_chars, context.required, context.hosts) == (10, 300, False, None)


def test_a_key_can_come_from_the_environment_and_the_others_stay(load, monkeypatch):
    monkeypatch.setenv(f"{VARIABLE}__HOSTS", "http://a:1, http://b:2")
    context = load(FILE + CONTEXT).indexes[0].context
    assert context == ContextSettings(model="llama3.2", concurrency=3, hosts=["http://a:1", "http://b:2"])


def test_a_variable_for_one_key_overrides_a_variable_for_the_table(load, monkeypatch):
    monkeypatch.setenv(f"{VARIABLE}__CONCURRENCY", "7")
    monkeypatch.setenv(VARIABLE, '{"model": "m", "max_chars": 90}')
    assert load(FILE + CONTEXT).indexes[0].context == ContextSettings(model="m", max_chars=90, concurrency=7)


def test_an_empty_variable_for_the_table_disables_contexts(load, monkeypatch):
    monkeypatch.setenv(VARIABLE, "")
    assert load(FILE + CONTEXT).indexes[0].context is None


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("concurrency = 3", "index work-notes, [indexes.context]: model is missing: name a generative model"),
        ('modle = "m"', "unknown key 'modle' in index work-notes, [indexes.context], did you mean 'model'?"),
        (
            'model = "m"\nprompt = "{document}"',
            "[indexes.context]: prompt should contain {document} and {chunk} exactly once each",
        ),
        ('model = "m"\nhosts = ["http://me:s3cret@a"]', "must not hold a user and password"),
    ],
)
def test_a_mistake_in_the_file_is_reported(load, table, message):
    with pytest.raises(SettingsError) as caught:
        load(f"{FILE}[indexes.context]\n{table}\n")
    assert message in str(caught.value)
    assert str(caught.value).startswith("rag-index.toml: ")
    assert "s3cret" not in str(caught.value)


def test_effective_settings_have_each_key_and_its_source(load, monkeypatch):
    monkeypatch.setenv(f"{VARIABLE}__MAX_CHARS", "90")
    values = {value.key: value for value in effective_settings(load(FILE + CONTEXT), {})}
    table = "indexes.work-notes.context"
    assert (values[f"{table}.model"].value, values[f"{table}.model"].source) == ("llama3.2", "rag-index.toml")
    assert (values[f"{table}.max_chars"].value, values[f"{table}.max_chars"].source) == (90, f"{VARIABLE}__MAX_CHARS")
    assert values[f"{table}.timeout"].source == "default"
    assert table not in values
