"""docs/configuration.md: every key with its default and variable; examples of settings load."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import jsonschema
import pytest
from pydantic import BaseModel, SecretStr

from rag_index import cli
from rag_index.chunking.context.prompt import DEFAULT_PROMPT
from rag_index.settings import SECTIONS, IndexSettings, Settings, load_settings
from rag_index.settings.loading import overlay
from rag_index.settings.parts import JoinSettings, PartSettings
from rag_index.settings.sections import KNOWN_PREFIXES, ContextSettings, GateSettings, ServerSettings
from rag_index.settings.values import keys_of
from rag_index.status.effective_settings import settings_schema
from tests.docs.pages import ALL, EVERYTHING, blocks, code, page, section, table

PAGE = page("configuration")
MODELS: dict[str, type[BaseModel]] = {
    **{f"### `[{name}]`": model for name, model in SECTIONS.items()},
    "### `[store.server]`": ServerSettings,
    "### `[[indexes]]`": IndexSettings,
    "### `[indexes.gate]`": GateSettings,
    "### `[indexes.context]`": ContextSettings,
}
WITHOUT_VARIABLES: dict[str, type[BaseModel]] = {
    "### `[indexes.joins.NAME]`": JoinSettings,
    "### `[[indexes.parts]]`": PartSettings,
}
TOML = [(name, text) for name, content in ALL.items() for text in blocks(content, "toml")]


def default_cell(value: object) -> str:
    """Return a default as the file would have it, or a dash."""
    if value is None or isinstance(value, BaseModel):
        return "–"
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    if isinstance(value, float):
        return f"`{value:g}`"
    return f"`{json.dumps(str(value) if isinstance(value, Path) else value)}`"


@pytest.mark.parametrize("heading", MODELS)
def test_every_setting_is_documented_with_default_and_variable(heading):
    rows = {code(row[0]): row for row in table(section(PAGE, heading), "key")}
    keys = keys_of(MODELS[heading])
    assert rows.keys() == keys.keys()
    name = heading.strip("#` []").upper().replace("INDEXES.", "INDEXES__COMMENTS__").replace(".", "__")
    for key, field in keys.items():
        _, default, _, meaning, variable = rows[key]
        assert default == ("required" if field.is_required() else default_cell(field.default)), key
        assert meaning.endswith("."), key
        if name != "INDEXES":
            assert variable == f"`RAG_INDEX_{name}__{key.upper()}`"
        elif key != "name":
            assert variable == f"`RAG_INDEX_INDEXES__COMMENTS__{key.upper()}`"


@pytest.mark.parametrize("heading", WITHOUT_VARIABLES)
def test_every_setting_of_joins_and_parts_is_documented(heading):
    rows = {code(row[0]): row for row in table(section(PAGE, heading), "key")}
    keys = keys_of(WITHOUT_VARIABLES[heading])
    assert rows.keys() == keys.keys()
    for key, field in keys.items():
        assert rows[key][1] == ("required" if field.is_required() else default_cell(field.default)), key
        assert rows[key][3].endswith("."), key


def test_the_top_of_the_settings_file_is_documented():
    rows = {code(row[0]): row for row in table(section(PAGE, "### Top of the file"), "key")}
    assert {*rows, "indexes", *SECTIONS} == keys_of(Settings).keys()
    for key, row in rows.items():
        assert row[1] == default_cell(Settings.model_fields[key].default)
        assert row[4] == f"`RAG_INDEX_{key.upper()}`"


@pytest.mark.parametrize("variable", sorted(set(re.findall(r"\bRAG_INDEX_[A-Z_]*[A-Z]\b", EVERYTHING))))
def test_variables_that_are_named_are_read(variable):
    if variable == "RAG_INDEX_CONFIG":
        return  # tests/settings/test_settings.py
    environment = {variable: "[]" if variable == "RAG_INDEX_INDEXES" else "1"}
    _, origin = overlay(environment, {"indexes": [{"name": "comments"}, {"name": "work-logs"}]})
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
    example = tomllib.loads(blocks(section(PAGE, "## A settings file from your database"), "toml")[0])["indexes"][0]
    for key in ("chunk_chars", "chunk_overlap"):
        assert example[key] == IndexSettings.model_fields[key].default


def test_prefixes_of_models_are_those_of_the_code():
    rows = table(section(page("servers"), "### Prefixes"), "model")
    assert {code(row[0]): (code(row[1]), code(row[2])) for row in rows} == KNOWN_PREFIXES


def test_the_prompt_for_contexts_is_that_of_the_code():
    assert DEFAULT_PROMPT in blocks(page("sources"), "text")


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
