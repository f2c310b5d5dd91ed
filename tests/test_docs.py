"""The documentation says what the program does: commands, options, settings, examples, JSON, figures, links."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import get_args
from unittest.mock import Mock

import click
import numpy as np
import pytest
from pydantic import BaseModel, SecretStr

import rag_index.doctor
import rag_index.indexing.publish
import rag_index.status.failed
from rag_index import cli, errors
from rag_index.chunking.context.prompt import DEFAULT_PROMPT
from rag_index.chunking.text import TextChunker
from rag_index.cli import program, runs
from rag_index.doctor import Advice, Diagnosis, Finding
from rag_index.documents.batches import (
    RESERVED_KEY,
    ChunkedDocument,
    DocumentBatch,
    EmbeddedShard,
    Shard,
    ShardStats,
    StoredPoint,
)
from rag_index.embedders import EmbedderIdentity, open_embedder
from rag_index.hosts import pool
from rag_index.indexing import diff as plan
from rag_index.indexing import guards as guard
from rag_index.indexing.embed import embed_shard
from rag_index.indexing.points import batches
from rag_index.indexing.target import Target
from rag_index.ledger import Ledger, lease, tables
from rag_index.reports.outcome import IndexOutcome, RunReport, State
from rag_index.settings import SECTIONS, IndexSettings, Settings, load_settings
from rag_index.settings.context import ContextSettings
from rag_index.settings.environment import Overlay, keys_of
from rag_index.settings.sections import KNOWN_PREFIXES
from rag_index.sources.rows import RowReader
from rag_index.stores import open_store
from rag_index.stores.edge import store as edge_store
from rag_index.stores.server import writes
from rag_index.transfer.export import line
from tests.project import Project

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")])
README = (ROOT / "README.md").read_text(encoding="utf-8")
CONFIGURATION = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
SERVERS = (ROOT / "docs" / "servers.md").read_text(encoding="utf-8")
HOW = (ROOT / "docs" / "how-it-works.md").read_text(encoding="utf-8")
ALL = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in DOCUMENTS}
EVERYTHING = "\n".join(ALL.values())

for module in cli.COMMANDS:
    __import__(f"rag_index.cli.{module}")


def blocks(text: str, language: str) -> list[str]:
    """The code blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def section(text: str, heading: str) -> str:
    """What stands under a heading, up to the next of its level or above."""
    level = heading.split(maxsplit=1)[0]
    found = re.search(rf"^{re.escape(heading)}\n(.*?)(?=^#{{1,{len(level)}}} |\Z)", text, re.MULTILINE | re.DOTALL)
    assert found, f"there is no heading {heading!r}"
    return found[1]


def table(text: str, first: str) -> list[list[str]]:
    """The rows of the table whose first column has this name, without the head."""
    for lines in re.findall(r"(?:^\|.*\n?)+", text, re.MULTILINE):
        rows = [[cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in lines.splitlines()]
        if rows[0][0] == first:
            return rows[2:]
    raise AssertionError(f"there is no table with a first column {first!r}")


def code(cell: str) -> str:
    """What stands between the first backticks of a cell; empty where there are none."""
    found = re.match(r"`([^`]*)`", cell)
    return found[1].replace("\\|", "|") if found else ""


# Commands


def options(command: click.Command) -> set[str]:
    names = {name for p in command.params if isinstance(p, click.Option) for name in p.opts if name.startswith("--")}
    return names - {"--help"}


def documented_commands() -> dict[str, str]:
    """Command to the cell with its options."""
    return {code(row[0]).split()[0]: row[2] for row in table(section(README, "## Commands"), "command")}


def test_every_command_is_documented_and_no_other():
    assert documented_commands().keys() == program.commands.keys()


@pytest.mark.parametrize("name", sorted(program.commands))
def test_every_option_of_a_command_is_documented_and_no_other(name):
    said = documented_commands()[name]
    found = set(re.findall(r"`(--[a-z-]+)", said))
    if "run options" in said:
        found |= {code(row[0]).split()[0] for row in table(section(README, "### Run options"), "option")}
    assert found == options(program.commands[name])


def test_the_options_before_a_command_are_documented():
    intro = section(README, "## Commands").split("\n|")[0]
    assert set(re.findall(r"`(--[a-z-]+)", intro)) == options(program) | {"--help"}


def lines_of_the_program() -> list[str]:
    """Every `rag-index …` that a reader may type: in shell blocks, and between backticks."""
    found = []
    for text in ALL.values():
        shown = "\n".join([*blocks(text, "sh"), *re.findall(r"(?<!`)`([^`\n]+)`(?!`)", text)])
        found += re.findall(r"^(?:\S*/)?rag-index (.+)$", shown, re.MULTILINE)
    return found


@pytest.mark.parametrize("typed", sorted(set(lines_of_the_program())))
def test_what_a_reader_may_type_is_understood(typed):
    context = program.make_context("rag-index", shlex.split(typed, comments=True))
    name, *arguments = [*context._protected_args, *context.args]
    command = program.commands[name]
    needed = any(p.required for p in command.params)
    try:
        command.make_context(name, arguments, parent=context)
    except click.MissingParameter:
        assert needed
        assert not arguments, "only a command's bare name may leave out what it needs"


def test_the_documentation_names_commands_a_reader_can_type():
    assert len(lines_of_the_program()) > 15


def test_make_targets_that_are_named_are_there_and_the_others_are_named():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    phony = re.search(r"^\.PHONY:(.*)$", makefile, re.MULTILINE)
    assert phony
    named = set(re.findall(r"`make ([a-z]+)|^make ([a-z]+)$", README, re.MULTILINE))
    assert {one or other for one, other in named} == set(phony[1].split())


# Settings

MODELS: dict[str, type[BaseModel]] = {
    **{f"### `[{name}]`": model for name, model in SECTIONS.items()},
    "### `[[indexes]]`": IndexSettings,
    "### `[indexes.context]`": ContextSettings,
}


def written(value: object) -> str:
    """A default as the file would have it; a dash where there is none."""
    if value is None:
        return "–"
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    if isinstance(value, float):
        return f"`{value:g}`"
    return f"`{json.dumps(str(value) if isinstance(value, Path) else value)}`"


@pytest.mark.parametrize("heading", MODELS)
def test_every_setting_is_documented_with_default_and_variable(heading):
    rows = {code(row[0]): row for row in table(section(CONFIGURATION, heading), "key")}
    keys = keys_of(MODELS[heading])
    assert rows.keys() == keys.keys()
    name = heading.strip("#` []").upper().replace("INDEXES.", "INDEXES__COMMENTS__")
    for key, field in keys.items():
        _, default, _, meaning, variable = rows[key]
        assert default == ("required" if field.is_required() else written(field.default)), key
        assert meaning.endswith("."), key
        if name != "INDEXES":
            assert variable == f"`RAG_INDEX_{name}__{key.upper()}`"
        elif key != "name":
            assert variable == f"`RAG_INDEX_INDEXES__COMMENTS__{key.upper()}`"


def test_the_top_of_the_settings_file_is_documented():
    (row,) = table(section(CONFIGURATION, "### Top of the file"), "key")
    assert (code(row[0]), row[1]) == ("project", written(Settings.model_fields["project"].default))
    assert {"project", "indexes", *SECTIONS} == keys_of(Settings).keys()


@pytest.mark.parametrize("variable", sorted(set(re.findall(r"\bRAG_INDEX_[A-Z_]*[A-Z]\b", EVERYTHING))))
def test_variables_that_are_named_are_read(variable):
    if variable == "RAG_INDEX_CONFIG":
        return  # tests/settings/test_settings.py
    overlay = Overlay({variable: "[]" if variable == "RAG_INDEX_INDEXES" else "1"}, SECTIONS)
    overlay.over({"indexes": [{"name": "comments"}, {"name": "work-logs"}]})
    assert variable in overlay.origin.values()


TOML = [(name, text) for name, content in ALL.items() for text in blocks(content, "toml")]


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


def test_the_short_example_shows_the_defaults_it_names():
    example = tomllib.loads(blocks(section(README, "## Settings"), "toml")[0])["indexes"][0]
    for key in ("chunk_chars", "chunk_overlap"):
        assert example[key] == IndexSettings.model_fields[key].default


def test_prefixes_of_models_are_those_of_the_code():
    rows = table(section(SERVERS, "### Prefixes"), "model")
    assert {code(row[0]): (code(row[1]), code(row[2])) for row in rows} == KNOWN_PREFIXES


def test_the_prompt_for_contexts_is_that_of_the_code():
    assert DEFAULT_PROMPT in blocks(ALL["docs/sources.md"], "text")


# What --json prints


def shape(value: object) -> object:
    """The keys of JSON, all the way down; a payload is the user's."""
    if isinstance(value, dict):
        return {key: None if key == "payload" else shape(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    return None


def documented_json() -> dict[str, object]:
    """Command to the example of what it prints."""
    found = {}
    for label, example in re.findall(r"^(`.*):\n\n```json\n((?:.*\n)*?)```", section(README, "## JSON"), re.MULTILINE):
        named = re.match(r"(?:`[\w-]+`(?:, )?)+", label)
        assert named, f"no command before {example!r}"
        found.update({name: shape(json.loads(example)) for name in re.findall(r"`([\w-]+)`", named[0])})
    return found


RUNS = ["index", "index-all", "rebuild", "retry-failed"]
MAIN = {*RUNS, "status", "failed", "plan", "search", "rollback", "doctor"}
FINDING = Finding("notes", "kind", 1, "what", "remedy", ("7",))
OUTCOME = IndexOutcome("notes", state="partial", message="why", verified="how")
ARGUMENTS = {
    "index": ["notes"],
    "rebuild": ["notes"],
    "retry-failed": ["notes"],
    "search": ["x"],
    "rollback": ["notes"],
}


FAILED = rag_index.status.failed.FailedDocument("notes", "7", "why", 1, "then", "now")
MADE_UP: dict[str, tuple[object, str, object]] = {
    **dict.fromkeys(["index", "index-all", "rebuild", "retry-failed"], (runs, "_launch", RunReport([OUTCOME], 1.0))),
    "failed": (rag_index.status.failed, "failed", [FAILED]),
    "rollback": (rag_index.indexing.publish, "roll_back", ("test_notes__2", "test_notes__1")),
    "doctor": (rag_index.doctor, "examine", Diagnosis([FINDING], [Advice("notes", "what")], [FINDING])),
}
"""What the work behind a command gives: one of everything, so that every key is printed. Other commands do theirs."""


def a_little_indexed(project: Project) -> None:
    """One document, as a run leaves it."""
    settings = project.settings
    index, embedder = settings.index("notes"), open_embedder(settings.embedder)
    chunker = TextChunker(index.chunk_chars, index.chunk_overlap)
    page, _ = RowReader(index).read([(1, "printer", "no paper", "kim", 1)])
    shard = embed_shard(Shard("notes", 1, page, 20), chunker, embedder)
    ledger, store = Ledger(settings.ledger_url), open_store(settings.store)
    try:
        made = Target(ledger, store, settings.alias("notes"), embedder.identity(), chunker).current()
        for batch in batches(shard):
            store.upsert(made.name, batch)
        store.flush(made.name)
        rows = zip(page.keys, page.text_hashes, page.payload_hashes, shard.chunk_counts, strict=True)
        ledger.record(made.id, rows)
        ledger.start_run("1", settings.alias("notes"), host="here", pid=1)
    finally:
        store.close()
        ledger.close()


def printed(name: str, project: Project, monkeypatch, capsys) -> object:
    """What the command prints."""
    a_little_indexed(project)
    if name in MADE_UP:
        module, function, result = MADE_UP[name]
        monkeypatch.setattr(module, function, lambda *_, **__: result)
    with pytest.raises(SystemExit):
        cli.main(["--config", str(project.config), name, *ARGUMENTS.get(name, []), "--json"])
    return json.loads(capsys.readouterr().out)


def test_the_commands_that_scripts_call_have_an_example():
    assert documented_json().keys() >= MAIN | {"export"}


@pytest.mark.parametrize("name", sorted(documented_json().keys() - {"export"}))
def test_json_is_as_documented(name, tmp_path, monkeypatch, capsys):
    project = Project(tmp_path / "project").fill(2)
    assert shape(printed(name, project, monkeypatch, capsys)) == documented_json()[name]


def test_a_line_of_an_export_is_as_documented():
    point = StoredPoint("1", {RESERVED_KEY: {"document_id": "7"}}, [0.5])
    example = documented_json()["export"]
    assert shape(json.loads(line(point))) == {**example, "vector": [None]}


# Points, ledger, exit codes, figures


def test_the_payload_of_a_point_is_as_documented():
    documents = DocumentBatch(["7"], ["text"], [b'{"author":"kim"}'], [b"t"], [b"p"])
    vectors = np.ones((1, 2), dtype=np.float32)
    (batch,) = batches(EmbeddedShard("notes", 1, documents, [ChunkedDocument(["text"])], vectors, [], ShardStats()))
    ours = [code(row[0]) for row in table(section(HOW, "## Points"), f"key in `{RESERVED_KEY}`")]
    assert set(batch.payloads[0]) == {"author", RESERVED_KEY}
    assert sorted(ours) == sorted(batch.payloads[0][RESERVED_KEY])


def test_the_metadata_of_a_collection_is_as_documented(tmp_path):
    settings = Project(tmp_path / "project").settings
    ledger, store = Ledger(settings.ledger_url), edge_store.EdgeStore(settings.store.path)
    identity = EmbedderIdentity("local", "wordllama", "digest", 4)
    made = Target(ledger, store, "test_notes", identity, TextChunker(100, 10)).current()
    metadata = store.collections()[made.name]
    store.close()
    ledger.close()
    assert {code(row[0]) for row in table(section(HOW, "## Points"), "key of the metadata")} == metadata.keys()
    assert made.name == "test_notes__1"


def test_the_tables_of_the_ledger_are_as_documented():
    assert {code(row[0]) for row in table(section(HOW, "## The ledger"), "table")} == tables.metadata.tables.keys()


def test_exit_codes_are_as_documented(monkeypatch):
    found = {int(row[0]) for row in table(section(README, "## Exit codes"), "code")}
    states = {RunReport([IndexOutcome("x", state=state)]).exit_code for state in get_args(State)}
    raised = {kind.exit_code for name in errors.__all__ if (kind := getattr(errors, name))}
    monkeypatch.setattr(program, "main", Mock(side_effect=KeyboardInterrupt))
    with pytest.raises(SystemExit) as interrupted:
        cli.main(["status"])
    assert found == states | raised | {interrupted.value.code, Diagnosis([FINDING]).exit_code}
    failing = {int(row[-1]) for row in table(section(README, "## What happens when something fails"), "what fails")}
    assert failing - {137} <= found


FIGURES = [
    (HOW, f"at most {plan.MAX_TRIES} times with the same text"),
    (HOW, f"a lease of {lease.LEASE_SECONDS:.0f} s, which the run renews every {lease.RENEW_SECONDS:.0f} s"),
    (HOW, f"{rag_index.indexing.publish.SAMPLE} sampled documents"),
    (CONFIGURATION, f"beyond {guard.UNGUARDED_DELETES} documents"),
    (README, f"more than {guard.UNGUARDED_DELETES} documents"),
    (README, f"fewer than {edge_store.MIN_FREE // 1024**2} MB are free"),
    (SERVERS, f"{writes.BATCH_POINTS}, at most {writes.BATCH_BYTES // 10**6} MB"),
    (SERVERS, f"rests for {pool.FIRST_REST:.0f} s, doubled each time, up to {pool.LONGEST_REST:.0f} s"),
]


@pytest.mark.parametrize(("text", "said"), FIGURES, ids=[said for _, said in FIGURES])
def test_figures_are_those_of_the_code(text, said):
    assert said in text


# Links and places


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as they are made where it is shown."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links() -> list[tuple[str, str]]:
    found = [(name, link) for name, text in ALL.items() for link in re.findall(r"\]\(([^)\s]+)\)", text)]
    return [(name, link) for name, link in found if not link.startswith(("http://", "https://"))]


@pytest.mark.parametrize(("name", "link"), links(), ids=[f"{name} {link}" for name, link in links()])
def test_links_lead_somewhere(name, link):
    path, _, anchor = link.partition("#")
    target = (ROOT / name).parent / path if path else ROOT / name
    assert target.exists()
    if anchor:
        assert anchor in anchors(target.read_text(encoding="utf-8"))


FOLDERS = r"rag_index|tasks|flows|tests|benchmarks|docs|deployments|\.ci"
PLACES = sorted(set(re.findall(rf"`((?:{FOLDERS})/[\w./-]*)`", EVERYTHING)))


@pytest.mark.parametrize("place", PLACES)
def test_files_that_are_named_are_there(place):
    assert (ROOT / place).exists()


MEASURING = sorted(set(re.findall(r"`python (benchmarks/\w+\.py)((?: \w+)?)", EVERYTHING)))


@pytest.mark.parametrize("file", sorted({file for file, _ in MEASURING}))
def test_commands_that_measure_are_there(file):
    ended = subprocess.run([sys.executable, ROOT / file, "--help"], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert all(command.strip() in ended.stdout for named, command in MEASURING if named == file)


def test_every_folder_of_the_house_is_named():
    named = {entry.split("/")[0] for entry in re.findall(r"^(\w+/) ", section(README, "## Development"), re.MULTILINE)}
    assert all((ROOT / name).is_dir() for name in named)
    assert {"rag_index", "tasks", "flows", "tests", "docs"} <= named
