"""docs/configuration.md: every key with its default and variable; examples of settings load."""

import json
import re
import tomllib

import jsonschema
import pytest

from rag_index import cli
from rag_index.care.effective_settings import descriptions, settings_schema
from rag_index.core.settings import SECTIONS, IndexSettings, load_settings
from rag_index.core.settings.parts import keys_of
from rag_index.core.settings.project import overlay
from tests.docs.pages import ALL, EVERYTHING, blocks, page, section
from tests.docs.settings_tables import MODELS, with_tables

PAGE = page("configuration")
TOML = [(name, text) for name, content in ALL.items() for text in blocks(content, "toml")]


def test_the_tables_are_those_of_the_settings():
    assert with_tables(PAGE) == PAGE, "python -m tests.docs.settings_tables writes them"
    for model in MODELS.values():
        for key, meaning in descriptions(model).items():
            assert meaning.endswith("."), key


@pytest.mark.parametrize("variable", sorted(set(re.findall(r"\bRAG_INDEX_[A-Z_]*[A-Z]\b", EVERYTHING))))
def test_variables_that_are_named_are_read(variable):
    if variable == "RAG_INDEX_CONFIG":
        return  # tests/core/settings/test_settings.py
    _, origin = overlay({variable: "1"}, {})
    assert variable in origin.values()


@pytest.mark.parametrize(("name", "text"), TOML, ids=[f"{name}-{number}" for number, (name, _) in enumerate(TOML)])
def test_examples_of_settings_load(tmp_path, name, text):
    given = tomllib.loads(text)
    if "source" not in given:
        text += '\n[source]\nurl = "sqlite:///s.db"\n'
    if "indexes" not in given:
        text += '\n[[indexes]]\nname = "n"\ntable = "t"\nkey = "k"\ntext = "b"\n'
    (tmp_path / "rag-index.toml").write_text(text, encoding="utf-8")
    settings = load_settings(tmp_path / "rag-index.toml")
    for key, values in given.items():
        if isinstance(values, dict):
            assert values.keys() <= keys_of(type(getattr(settings, key))).keys()


def test_the_smallest_example_names_the_real_defaults():
    (written,) = blocks(section(page("install"), "## A settings file from your database"), "toml")
    example = tomllib.loads(written)["indexes"][0]
    for key in ("chunk_chars", "chunk_overlap"):
        assert example[key] == IndexSettings.model_fields[key].default


SCHEMA = settings_schema()


@pytest.mark.parametrize(("name", "text"), TOML)
def test_examples_of_settings_are_valid_by_the_schema(name, text):
    given = tomllib.loads(text)
    if not SCHEMA["properties"].keys() >= given.keys():
        return  # of another program
    problems = [
        error.message
        for error in jsonschema.Draft202012Validator(SCHEMA).iter_errors(given)
        if error.validator != "required"  # examples show a part of the file
    ]
    assert problems == []


def test_the_schema_has_each_key_with_its_default_and_refuses_others():
    for table_name, model in {**SECTIONS, "indexes": IndexSettings}.items():
        properties = SCHEMA["$defs"][model.__name__]["properties"]
        assert properties.keys() == keys_of(model).keys(), table_name
        for key, field in keys_of(model).items():
            if not field.is_required() and "default" in properties[key]:
                schema = {**properties[key], "$defs": SCHEMA["$defs"]}
                jsonschema.Draft202012Validator(schema).validate(properties[key]["default"])
    validator = jsonschema.Draft202012Validator(SCHEMA)
    [wrong] = validator.iter_errors({"store": {"pth": "x"}, "indexes": [{"name": "notes"}]})
    assert "pth" in wrong.message
    assert SCHEMA["properties"]["project"]["description"].startswith("The prefix of collections")


def test_the_command_prints_the_schema_without_a_settings_file(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        cli.main(["config", "--schema"])
    assert ended.value.code in (0, None)
    assert json.loads(capsys.readouterr().out) == SCHEMA
