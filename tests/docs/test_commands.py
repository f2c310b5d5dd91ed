"""docs/commands.md and docs/configuration.md: every command, option, exit code and key, and no
other."""

import json
import os
import re
import shlex
import subprocess
import tomllib
from typing import get_args
from unittest.mock import Mock

import click
import jsonschema
import pytest
from click.testing import CliRunner

from rag_index import cli, errors
from rag_index.care.doctor import Diagnosis, Finding
from rag_index.care.effective_settings import descriptions, settings_schema
from rag_index.cli import program
from rag_index.core.reports.outcome import IndexOutcome, RunReport, State
from rag_index.core.settings import SECTIONS, IndexSettings, load_settings
from rag_index.core.settings.parts import keys_of
from rag_index.core.settings.project import overlay
from tests.docs.pages import ALL, EVERYTHING, README, ROOT, blocks, code, page, section, table
from tests.docs.settings_tables import MODELS, with_tables
from tests.forked_program import run_code

PAGE = page("commands")

for module in set(cli.COMMANDS.values()):
    __import__(f"rag_index.cli.{module}")
BENCHMARKS = sorted(set(re.findall(r"`python (benchmarks/\w+\.py)((?: \w+)?)", EVERYTHING)))
CONFIGURATION = page("configuration")
TOML = [(name, text) for name, content in ALL.items() for text in blocks(content, "toml")]
SCHEMA = settings_schema()


def options(command: click.Command) -> set[str]:
    shown = [p for p in command.params if isinstance(p, click.Option) and not p.hidden]
    return {name for p in shown for name in p.opts if name.startswith("--")} - {"--help"}


def documented_commands() -> dict[str, str]:
    """Return the cell with the options of each command."""
    return {
        code(row[0]).split()[0]: row[2]
        for row in table(section(PAGE, "## All commands"), "command")
    }


def typed_commands() -> list[str]:
    """Return every `rag-index …` that a reader may type: in shell blocks, between backticks, in
    help."""
    found = [command.epilog.split("rag-index ", 1)[1] for command in program.commands.values()]
    for text in ALL.values():
        snippets = "\n".join(
            [*blocks(text, r"sh(?: [^\n]*)?"), *re.findall(r"(?<!`)`([^`\n]+)`(?!`)", text)]
        )
        found += re.findall(r"^(?:\S*/)?rag-index (.+?)(?: >>? \S+)?$", snippets, re.MULTILINE)
    return found


def test_every_command_is_documented_and_no_other_and_the_options_before_one():
    assert documented_commands().keys() == program.commands.keys()
    intro = section(PAGE, "## All commands").split("\n|")[0]
    assert set(re.findall(r"`(--[a-z-]+)", intro)) == options(program) | {"--help"}


@pytest.mark.parametrize("name", sorted(program.commands))
def test_every_option_of_a_command_is_documented_and_no_other(name):
    cell = documented_commands()[name]
    found = set(re.findall(r"`(--[a-z-]+)", cell))
    if "run options" in cell:
        found |= {
            code(row[0]).split()[0] for row in table(section(PAGE, "## Run options"), "option")
        }
    if "search options" in cell:
        found |= set(re.findall(r"`(--[a-z-]+)", section(PAGE, "## Search options")))
    assert found == options(program.commands[name])


def test_help_lists_each_command_on_a_line_of_its_own_by_what_it_is_for():
    shown = CliRunner().invoke(program, ["--help"], terminal_width=80).output
    listed = re.findall(r"^  ([a-z][a-z-]+)  +\S.*\.$", shown, re.MULTILINE)
    assert sorted(listed) == sorted(program.commands), (
        "a sentence that fits each line, and none twice"
    )
    assert listed[0] == "try"
    assert [f"{group}:" in shown for group in cli.COMMAND_GROUPS] == [True] * len(
        cli.COMMAND_GROUPS
    )


@pytest.mark.parametrize("typed", sorted(set(typed_commands())))
def test_what_a_reader_may_type_is_understood(typed):
    context = program.make_context("rag-index", shlex.split(typed, comments=True))
    name, *arguments = [*context._protected_args, *context.args]
    command = program.get_command(context, name)
    required = any(p.required for p in command.params)
    try:
        command.make_context(name, arguments, parent=context)
    except click.MissingParameter:
        assert required
        assert not arguments, "only a command's bare name may leave out what it requires"


def test_exit_codes_are_as_documented(monkeypatch):
    documented = {int(row[0]) for row in table(section(PAGE, "## Exit codes"), "code")}
    states = {RunReport([IndexOutcome("x", state=state)]).exit_code for state in get_args(State)}
    raised = {kind.exit_code for kind in vars(errors).values() if hasattr(kind, "exit_code")}
    finding = Finding("notes", "kind", 1, "message", "remedy")
    monkeypatch.setattr(program, "main", Mock(side_effect=KeyboardInterrupt))
    with pytest.raises(SystemExit) as interrupted:
        cli.main(["status"])
    assert documented == states | raised | {interrupted.value.code, Diagnosis([finding]).exit_code}


def test_the_readme_shows_the_command_that_make_test_runs_and_all_targets_are_named_and_no_other():
    given = ("MAKEFLAGS", "MAKEOVERRIDES", "PYTEST_ARGS", "TEST_PROCESSES")
    outside = {name: value for name, value in os.environ.items() if name not in given}
    command = ["make", "--dry-run", "test"]
    dry = subprocess.run(
        command, cwd=ROOT, env=outside, capture_output=True, text=True, check=True
    ).stdout
    [command] = [line.strip() for line in dry.splitlines() if "-m pytest" in line]
    assert f"`{command}`" in README
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    phony = re.search(r"^\.PHONY:(.*)$", makefile, re.MULTILINE)
    assert phony
    named = set(
        re.findall(r"`make ([a-z]+)|^make ([a-z]+)", README + page("development"), re.MULTILINE)
    )
    assert {one or other for one, other in named} == set(phony[1].split())


@pytest.mark.long
@pytest.mark.parametrize("file", sorted({file for file, _ in BENCHMARKS}))
def test_benchmarks_that_are_named_exist(file):
    path = ROOT / file
    script = f"sys.argv, sys.path[0] = [{str(path)!r}, '--help'], {str(path.parent)!r}"
    ended = run_code(
        f"import runpy, sys; {script}; runpy.run_path(sys.argv[0], run_name='__main__')", os.environ
    )
    assert ended.returncode == 0, ended.stderr
    assert all(command.strip() in ended.stdout for named, command in BENCHMARKS if named == file)


def test_the_tables_are_those_of_the_settings():
    assert with_tables(CONFIGURATION) == CONFIGURATION, (
        "python -m tests.docs.settings_tables writes them"
    )
    for model in MODELS.values():
        for key, meaning in descriptions(model).items():
            assert meaning.endswith("."), key


def test_variables_that_are_named_are_read():
    """tests/core/settings/test_settings.py has the one that names the file."""
    for variable in {*re.findall(r"\bRAG_INDEX_[A-Z_]*[A-Z]\b", EVERYTHING)} - {"RAG_INDEX_CONFIG"}:
        _, origin = overlay({variable: "1"}, {})
        assert variable in origin.values()


@pytest.mark.parametrize(
    ("name", "text"), TOML, ids=[f"{name}-{number}" for number, (name, _) in enumerate(TOML)]
)
def test_examples_of_settings_load_and_are_valid_by_the_schema(tmp_path, name, text):
    given = tomllib.loads(text)
    if SCHEMA["properties"].keys() >= given.keys():  # others are of another program
        problems = jsonschema.Draft202012Validator(SCHEMA).iter_errors(given)
        assert [one.message for one in problems if one.validator != "required"] == [], (
            "they show a part of the file"
        )
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


def test_the_command_prints_the_schema_without_a_settings_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert json.loads(CliRunner().invoke(program, ["config", "--schema"]).output) == SCHEMA
