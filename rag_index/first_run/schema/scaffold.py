"""The scaffold: a first settings file with comments, and with the indexes that the source suggests."""

from __future__ import annotations

import os
import shlex
import tempfile
import textwrap
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tomlkit
from sqlalchemy.engine import make_url

from rag_index.core.database.drivers import database_url, is_file, is_secret, redacted_url
from rag_index.core.settings.parts import FILE
from rag_index.core.settings.project import load_settings, project_name
from rag_index.errors import SettingsError
from rag_index.first_run.schema.catalog import read_catalog
from rag_index.first_run.schema.proposal import Proposal, propose

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from rag_index.core.settings import Settings
    from rag_index.first_run.schema.catalog import DatabaseCatalog
    from rag_index.first_run.schema.proposal import Question
    from rag_index.first_run.schema.proposed_index import ProposedIndex

MAX_FILE_NAME = 200
EXAMPLE_URL = "postgresql+psycopg://reader@127.0.0.1/servicedesk"
EXAMPLE_INDEX = """\
[[indexes]]
name = "tickets"
table = "ticket"
key = "id"
title = "subject"
text = ["description"]
payload = ["state"]
[[indexes.parts]]
table = "comment"
on = "ticket_id"
order_by = "created_at"
text = ["body"]
"""
_URL_NOTE = "# This URL has no password: set RAG_INDEX_SOURCE__URL to the complete URL.\n"
_HEAD = """\
# Settings of rag-index. An environment variable can set every key but those of indexes: RAG_INDEX_SOURCE__URL,
# RAG_INDEX_PARALLEL__WORKERS, … Keep secrets there. Paths are relative to this file. Most commented lines show the
# defaults: to change one, remove the "# " before it and before the [table] above it. There are more sections.

project = {project}  # the prefix of all collection names, so that projects can share one Qdrant
# data = ".rag-index"                   # the folder for what rag-index keeps; name another if this one is read-only

[source]
{note}url = {url}

# [embedder]
# kind = "local"                        # wordllama, in the process, without a server
# kind = "ollama"                       # one or more servers; first run `ollama pull nomic-embed-text`
# model = "nomic-embed-text"
# hosts = ["http://127.0.0.1:11434"]

# [store]
# path = ".rag-index/qdrant"            # the folder of the embedded Qdrant
# url = "http://127.0.0.1:6333"         # or a Qdrant server; set its key in RAG_INDEX_STORE__API_KEY

# [ledger]
# url = "sqlite:///.rag-index/ledger.db"

"""


@dataclass(frozen=True, slots=True)
class Scaffold:
    """The text of a settings file, what it proposes, and what a person should know of what it leaves out."""

    text: str
    left_out: list[str] = field(default_factory=list)
    """Reasons with the tables that they hold for, and columns, a sentence each."""
    proposal: Proposal = field(default_factory=Proposal)
    coverage: list[str] = field(default_factory=list)
    """The share of the text that a search reaches, and what it does not reach, a sentence each."""
    catalog: DatabaseCatalog | None = None
    """What was read of the database, for the next one."""


def scaffold(
    source: str | None,
    folder: Path | None = None,
    *,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    add: Sequence[str] = (),
    answers: Mapping[str, bool] | None = None,
    uses: Mapping[str, str] | None = None,
    files: Path | None = None,
    catalog: DatabaseCatalog | None = None,
) -> Scaffold:
    """Return a rag-index.toml for `folder`, by default the current folder.

    `include` and `exclude` are patterns of the names of tables; `add` names tables that become an index in any case.
    `answers` are those to the questions of an earlier one, by their keys; open questions stand in the file as comments.
    `uses` are what a person chose of columns, such as `ticket.subject`: `title`, `text`, `secret` or `out`.
    `files` is a folder: columns that name files in it become the text of these.
    `catalog` is that of an earlier one: the database is not read again.

    Raises:
        SettingsError: `source` is not a database URL, its file does not exist, or its database has no table with text.
        SourceUnavailable: the database does not answer.
    """
    here = Path.cwd()
    project = _toml(project_name((folder or here).absolute().name))
    if source is None:
        return Scaffold(_HEAD.format(project=project, url=_toml(EXAMPLE_URL), note="") + EXAMPLE_INDEX)
    try:
        url = database_url(source, here)
    except ValueError as error:
        raise SettingsError(f"the source {error}") from None
    with ExitStack() as stack:
        catalog = catalog or stack.enter_context(read_catalog(url))
        uses = (_names_of_files(catalog, files) if files else {}) | dict(uses or {})
        proposal = propose(catalog, include=include, exclude=exclude, add=add, answers=answers, uses=uses)
    for index in proposal.indexes if FILE in uses.values() else ():
        if any(FILE in one.get("format", {}).values() for one in (index.settings, *index.settings.get("parts", ()))):
            index.settings = {"files": str(files and files.resolve())} | index.settings
    left_out = _left_out(proposal)
    if not proposal.indexes:
        where = redacted_url(url)
        raise SettingsError("; ".join([f"{where} has no table whose rows people would look for", *left_out]))
    note = _URL_NOTE if url.password or any(map(is_secret, url.query)) else ""
    shown = _without_secrets(source, here, folder or here)
    head = _HEAD.format(project=project, url=_toml(shown), note=note)
    reach = proposal.coverage.sentences(proposal.left_out)
    sections = [*map(_index_section, proposal.indexes), *[_question(one, shown) for one in proposal.questions]]
    sections += filter(None, [_comments("Left out", left_out), _comments("Reached", reach)])
    first = f"{_comments('Row level security', proposal.policies)}\n".lstrip()
    return Scaffold(first + head + "\n".join(sections), left_out, proposal, reach, catalog)


def _names_of_files(catalog: DatabaseCatalog, folder: Path) -> dict[str, str]:
    """Return the columns whose values are mostly names of files below a folder, each with this use."""
    found = {}
    for table in catalog.tables:
        for column in table.columns.values():
            names = [str(one) for one in column.filled if column.kind == "text" and not str(one).startswith(("/", "."))]
            there = sum(len(one) < MAX_FILE_NAME and "\0" not in one and (folder / one).is_file() for one in names)
            if 2 * there > len(column.filled):
                found[f"{table.full_name}.{column.name}"] = FILE
    return found


def _left_out(proposal: Proposal) -> list[str]:
    """Return what is left out, with the reason: tables by reason, and columns by table."""
    by_reason: dict[str, list[str]] = {}
    for name, reason in sorted(proposal.left_out.items()):
        by_reason.setdefault(reason, []).append(name)
    fewest_first = sorted(by_reason.items(), key=lambda one: len(one[1]))
    sentences = [f"{', '.join(names)}: {reason}" for reason, names in fewest_first]
    for what, columns in (("secrets", proposal.secrets), ("personal or internal", proposal.personal)):
        named = [f"{table} ({', '.join(names)})" for table, names in sorted(columns.items())]
        if named:
            sentences.append(f"columns with what may be {what}: {'; '.join(named)}")
    return sentences


def _comments(title: str, sentences: Sequence[str]) -> str:
    """Return a comment with a title; "" if there is nothing to say."""
    return f"# {title}:\n{''.join(map(_comment, sentences))}" if sentences else ""


def _comment(sentence: str) -> str:
    """Return a comment of lines that are not too long."""
    lines = textwrap.wrap(_printable(sentence), 116, break_on_hyphens=False)
    return "".join(f"# {'  ' if number else '- '}{line}\n" for number, line in enumerate(lines))


def _question(question: Question, source: str) -> str:
    """Return a comment with a question, its guess, and what would change it."""
    answers = [("yes", question.yes), ("no", question.no)]
    (said, taken), (_, other) = answers if question.guess else reversed(answers)
    options = ["--source", source, *[part for table in question.tables for part in ("--add", table)]]
    change = "remove the [[indexes]] above" if question.guess else f"rag-index init --force {shlex.join(options)}"
    change = f"remove the condition of `{question.column}` from `where` above" if question.column else change
    asked = _comment(f"{question.sentence} The guess is {said}: {taken}. Otherwise {other}:")
    return f"{asked}#   {_printable(change)}\n"


def _index_section(index: ProposedIndex) -> str:
    """Return the [[indexes]] section of an index, with the reasons as comments."""
    lines = [_comment(one).rstrip() for one in index.unclear]
    changed = _line("changed_since", index.changed, "if each change sets it: then runs read newer rows alone")
    more = [f"# {changed}"] if index.changed else []
    return "\n".join([*lines, *_lines("[indexes]", {"name": index.name} | index.settings, index.reasons, more), ""])


def _lines(
    table: str, settings: Mapping[str, Any], reasons: Mapping[str, str], more: Sequence[str] = ()
) -> Iterator[str]:
    """Yield the lines of a table of the settings, and of those below it: its joins and its parts."""
    yield f"[{table}]"
    for key, value in settings.items():
        if key not in ("joins", "parts"):
            yield _line(key, value, reasons.get(key) or reasons.get(str(value), ""))
    yield from more
    inner = table.strip("[]")
    for name, join in settings.get("joins", {}).items():
        yield from _lines(f"{inner}.joins.{name}", join, reasons)
    for part in settings.get("parts", ()):
        yield from _lines(f"[{inner}.parts]", part, reasons)


def _line(key: str, value: Any, reason: str) -> str:
    return f"{key} = {_toml(value)}" + (f"  # {_printable(reason)}" if reason else "")


def _printable(text: str) -> str:
    """Return a text as it may stand in a comment: a name of a database holds any character."""
    return " ".join("".join(one if one.isprintable() else " " for one in text).split())


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        table = tomlkit.inline_table()
        table.update(value)
        return table.as_string()
    return str(tomlkit.item(value).as_string())


def proposed_settings(made: Scaffold, source: str) -> Settings:
    """Return the settings of a scaffold, with the whole URL of its database, before the file is written.

    Raises:
        SettingsError: a variable of the environment does not fit them.
    """
    url = database_url(source, Path.cwd()).render_as_string(hide_password=False)
    with tempfile.TemporaryDirectory(prefix="rag-index-init-") as name:
        file = Path(name) / "rag-index.toml"
        file.write_text(made.text, encoding="utf-8")
        return load_settings(file, source={"url": url})


def _without_secrets(source: str, here: Path, folder: Path) -> str:
    """Return the URL for the settings file: without password, and with the path of a file relative to `folder`."""
    url = make_url(source)
    if is_file(url) and not Path(str(url.database)).expanduser().is_absolute():
        url = url.set(database=os.path.relpath(here / str(url.database), folder.absolute()))
    query = {key: value for key, value in url.query.items() if not is_secret(key)}
    stripped = type(url).create(url.drivername, url.username, None, url.host, url.port, url.database, query)
    return stripped.render_as_string(hide_password=False)
