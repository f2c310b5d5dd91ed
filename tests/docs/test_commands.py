"""docs/commands.md: every command, option and exit code, and no other; whatever a page tells to type is understood."""

import os
import re
import shlex
import subprocess
from typing import get_args
from unittest.mock import Mock

import click
import pytest
from click.testing import CliRunner

from rag_index import cli, errors
from rag_index.care.doctor import Diagnosis, Finding
from rag_index.cli import program
from rag_index.core.reports.outcome import IndexOutcome, RunReport, State
from tests.docs.pages import ALL, EVERYTHING, README, ROOT, blocks, code, page, section, table
from tests.forked_program import run_code

PAGE = page("commands")

for module in set(cli.COMMANDS.values()):
    __import__(f"rag_index.cli.{module}")


def options(command: click.Command) -> set[str]:
    shown = [p for p in command.params if isinstance(p, click.Option) and not p.hidden]
    names = {name for p in shown for name in p.opts if name.startswith("--")}
    return names - {"--help"}


def documented_commands() -> dict[str, str]:
    """Return the cell with the options of each command."""
    return {code(row[0]).split()[0]: row[2] for row in table(section(PAGE, "## All commands"), "command")}


def typed_commands() -> list[str]:
    """Return every `rag-index …` that a reader may type: in shell blocks, between backticks, in help."""
    found = [command.epilog.split("rag-index ", 1)[1] for command in program.commands.values()]
    for text in ALL.values():
        snippets = "\n".join([*blocks(text, "sh"), *re.findall(r"(?<!`)`([^`\n]+)`(?!`)", text)])
        found += re.findall(r"^(?:\S*/)?rag-index (.+?)(?: >>? \S+)?$", snippets, re.MULTILINE)
    return found


def test_every_command_is_documented_and_no_other():
    assert documented_commands().keys() == program.commands.keys()


@pytest.mark.parametrize("name", sorted(program.commands))
def test_every_option_of_a_command_is_documented_and_no_other(name):
    cell = documented_commands()[name]
    found = set(re.findall(r"`(--[a-z-]+)", cell))
    if "run options" in cell:
        found |= {code(row[0]).split()[0] for row in table(section(PAGE, "## Run options"), "option")}
    if "search options" in cell:
        found |= set(re.findall(r"`(--[a-z-]+)", section(PAGE, "## Search options")))
    assert found == options(program.commands[name])


def test_the_options_before_a_command_are_documented():
    intro = section(PAGE, "## All commands").split("\n|")[0]
    assert set(re.findall(r"`(--[a-z-]+)", intro)) == options(program) | {"--help"}


def test_help_lists_each_command_on_a_line_of_its_own_by_what_it_is_for():
    shown = CliRunner().invoke(program, ["--help"], terminal_width=80).output
    listed = re.findall(r"^  ([a-z][a-z-]+)  +\S.*\.$", shown, re.MULTILINE)
    assert sorted(listed) == sorted(program.commands), "a sentence that fits each line, and none twice"
    assert listed[0] == "try"
    assert [f"{group}:" in shown for group in cli.COMMAND_GROUPS] == [True] * len(cli.COMMAND_GROUPS)


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


def test_the_readme_shows_the_command_that_make_test_runs():
    # What was given to the make that runs the tests is not wanted: .ci/run gives arguments.
    given = ("MAKEFLAGS", "MAKEOVERRIDES", "PYTEST_ARGS", "TEST_PROCESSES")
    outside = {name: value for name, value in os.environ.items() if name not in given}
    command = ["make", "--dry-run", "test"]
    dry = subprocess.run(command, cwd=ROOT, env=outside, capture_output=True, text=True, check=True).stdout
    [command] = [line.strip() for line in dry.splitlines() if "-m pytest" in line]
    assert f"`{command}`" in README


def test_make_targets_that_are_named_exist_and_all_are_named():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    phony = re.search(r"^\.PHONY:(.*)$", makefile, re.MULTILINE)
    assert phony
    text = README + page("development")
    named = set(re.findall(r"`make ([a-z]+)|^make ([a-z]+)", text, re.MULTILINE))
    assert {one or other for one, other in named} == set(phony[1].split())


BENCHMARKS = sorted(set(re.findall(r"`python (benchmarks/\w+\.py)((?: \w+)?)", EVERYTHING)))


@pytest.mark.long
@pytest.mark.parametrize("file", sorted({file for file, _ in BENCHMARKS}))
def test_benchmarks_that_are_named_exist(file):
    path = ROOT / file
    script = f"sys.argv, sys.path[0] = [{str(path)!r}, '--help'], {str(path.parent)!r}"
    ended = run_code(f"import runpy, sys; {script}; runpy.run_path(sys.argv[0], run_name='__main__')", os.environ)
    assert ended.returncode == 0, ended.stderr
    assert all(command.strip() in ended.stdout for named, command in BENCHMARKS if named == file)
