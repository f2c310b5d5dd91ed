"""The scaffold: a first settings file with comments, and with the indexes that the source
suggests."""

from __future__ import annotations

import json
import os
import tempfile
import textwrap
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tomlkit
from sqlalchemy.engine import URL, make_url

from rag_index.core.database import database_url, is_file, redacted_url
from rag_index.core.settings.project import load_settings, project_name
from rag_index.errors import SettingsError
from rag_index.first_run.schema.answers import Answers
from rag_index.first_run.schema.catalog import read_catalog
from rag_index.first_run.schema.embedder import COMMENTED, embedder_section
from rag_index.first_run.schema.proposed import UNREAD, Proposal
from rag_index.first_run.schema.reading import propose
from rag_index.first_run.schema.screen import left_out, share_sentence, treatment
from rag_index.redaction import is_secret

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from rag_index.components.embedders.candidates import ProposedEmbedder
    from rag_index.core.settings import Settings
    from rag_index.first_run.schema.catalog import DatabaseCatalog, Progress

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

{embedder}
# [store]
# path = ".rag-index/qdrant"            # the folder of the embedded Qdrant
# url = "http://127.0.0.1:6333"         # or a Qdrant server; set its key in RAG_INDEX_STORE__API_KEY

# [ledger]
# url = "sqlite:///.rag-index/ledger.db"

"""


@dataclass(frozen=True, slots=True)
class Scaffold:
    """The text of a settings file, and what it proposes."""

    text: str
    """"" if nothing is proposed."""
    proposal: Proposal = field(default_factory=Proposal)
    first: Proposal = field(default_factory=Proposal)
    """What is proposed without answers: what can be answered."""
    answers: Answers = field(default_factory=Answers)
    catalog: DatabaseCatalog | None = None
    """What was read of the database, for other answers."""
    source: str = ""
    """The whole URL of the database."""
    folder: Path = Path()
    lacks_password: bool = False
    """Whether the URL in the file is not the whole one."""
    embedder: ProposedEmbedder | None = None

    def answered(self, answers: Answers) -> Scaffold:
        """Return the scaffold with other answers, without reading the database again. Raises
        SettingsError."""
        catalog, first = self.catalog, self.first
        made = scaffold(self.source, self.folder, answers=answers, catalog=catalog, first=first)
        return made.with_embedder(self.embedder)

    def with_embedder(self, proposed: ProposedEmbedder | None) -> Scaffold:
        """Return the scaffold with a file that proposes this embedder, if one is proposed."""
        if proposed is None:
            return self
        text = self.text.replace(COMMENTED, embedder_section(proposed), 1)
        return replace(self, text=text, embedder=proposed)


def source_url(source: str) -> str:
    """Return the URL of a database that a person named, by its URL or by the path of an SQLite
    file."""
    if not Path(source).is_file():
        return source
    # desk.db
    url = URL.create("sqlite", database=source)
    return url.render_as_string()


def scaffold(
    source: str | None,
    folder: Path | None = None,
    *,
    answers: Answers | None = None,
    catalog: DatabaseCatalog | None = None,
    first: Proposal | None = None,
    progress: Progress | None = None,
) -> Scaffold:
    """Return a rag-index.toml for `folder`, by default the current folder.

    What is open stands in the file as comments. The text is "" if nothing is proposed:
    `nothing_found` says why.

    Args:
        source: The URL of a database, or the path of an SQLite file; None for an example.
        catalog: That of an earlier scaffold: the database is not read again.
        first: The proposal of an earlier scaffold without answers.
        progress: Called as by `read_catalog`.

    Raises:
        SettingsError: `source` is no database, its file does not exist, or the answers do not fit
            it.
        SourceUnavailable: the database does not answer.
    """
    here = Path.cwd()
    folder = folder or here
    project = _toml(project_name(folder.absolute().name))
    if source is None:
        head = _HEAD.format(project=project, url=_toml(EXAMPLE_URL), note="", embedder=COMMENTED)
        return Scaffold(head + EXAMPLE_INDEX)
    source = source_url(source)
    try:
        url = database_url(source, here)
    except ValueError as error:
        raise SettingsError(f"the source {error}") from None
    answers = answers or Answers()
    with ExitStack() as stack:
        catalog = catalog or stack.enter_context(read_catalog(url, progress))
        first = first or propose(catalog)
        proposal = _answered(catalog, first, answers) if answers.root else first
    _check_documents(proposal, answers)
    lacks_password = bool(url.password or any(map(is_secret, url.query)))
    text = ""
    if proposal.indexes:
        note = _URL_NOTE if lacks_password else ""
        shown = _toml(_without_secrets(source, here, folder))
        head = _HEAD.format(project=project, url=shown, note=note, embedder=COMMENTED)
        text = _text(head, proposal)
    return Scaffold(text, proposal, first, answers, catalog, source, folder, lacks_password)


def _answered(catalog: DatabaseCatalog, first: Proposal, answers: Answers) -> Proposal:
    """Return what is proposed with answers, given the proposal without any. Raises
    SettingsError."""
    known = answers.known_to(first)
    proposal = propose(catalog, known.decisions(first))
    if len(known.root) == len(answers.root):
        return proposal
    # an answer that hides rows may lead to another question: whether rows elsewhere refer to them
    ids = {one.id for one in first.candidates}
    more = [one for one in proposal.candidates if one.id not in ids]
    asked = replace(first, candidates=(*first.candidates, *more))
    return propose(catalog, answers.decisions(asked))


def _check_documents(proposal: Proposal, answers: Answers) -> None:
    """Raise SettingsError if the rows of a table cannot be documents, though a person wants
    them."""
    for table in proposal.tables:
        if answers.root.get(table.name) == "document" and table.becomes != "document":
            why = table.why or "has no text"
            raise SettingsError(f"the rows of {table.name} cannot be documents: it {why}")


def _text(head: str, proposal: Proposal) -> str:
    """Return a settings file: the head, what is open, the indexes, and what is left out."""
    sections = []
    if proposal.notes:
        sections.append(_comments("Rights of the user of this database", proposal.notes))
    sections.append(head.removesuffix("\n"))
    if proposal.questions:
        asked = [f"{one.id}: {treatment(one)}" for one in proposal.questions]
        sections.append(
            _comments(
                "Open, until you answer with rag-index init --answers FILE, or decide here", asked
            )
        )
    for index in proposal.indexes:
        lines = _lines("[indexes]", {"name": index.name} | index.settings, index.reasons)
        sections.append("\n".join([*lines, ""]))
    unsearched = left_out(proposal)
    title = share_sentence(proposal)
    if unsearched:
        title += ". Left out, the largest first"
    sections.append(_comments(title, unsearched))
    return "\n".join(sections)


def nothing_found(made: Scaffold) -> SettingsError:
    """Return the error of a database without anything to propose, with the tables that could not be
    read."""
    url = redacted_url(database_url(made.source, Path.cwd()))
    tables = made.proposal.tables
    if not tables:
        return SettingsError(
            f"{url} has no table: name another database, or ask for the right to read its tables"
        )
    message = f"{url} has no table whose rows people would look for"
    unread = []
    readable = []
    for table in tables:
        if table.why.startswith(UNREAD):
            unread.append(f"{table.name}: {table.why}")
        elif table.chars:
            readable.append(table)
    if readable:
        # the largest table: `member` has names alone, but a person may want to search them
        largest = readable[0]
        answer = json.dumps({largest.name: "document"}, ensure_ascii=False)
        message += f": {largest.name} {largest.why}"
        message += f"; to search it, answer {answer} with --answers FILE"
    return SettingsError("; ".join([message, *unread[:3]]))


def _comments(title: str, sentences: Sequence[str]) -> str:
    """Return a comment with a title, and a line for each sentence."""
    end = ":" if sentences else "."
    comments = "".join(map(_comment, sentences))
    return f"# {title}{end}\n{comments}"


def _comment(sentence: str) -> str:
    """Return a sentence as an item of a list, in comment lines of at most 120 characters."""
    lines = textwrap.wrap(_printable(sentence), 116, break_on_hyphens=False)
    text = "\n#   ".join(lines)
    return f"# - {text}\n"


def _lines(table: str, settings: Mapping[str, Any], reasons: Mapping[str, str]) -> Iterator[str]:
    """Yield the lines of a table of the settings, and of those below it: its joins and its
    parts."""
    yield f"[{table}]"
    for key, value in settings.items():
        if key not in ("visible", "joins", "parts"):
            # `where` has a reason by its SQL
            reason = reasons.get(key) or reasons.get(str(value), "")
            yield _with_reason(f"{key} = {_toml(value)}", reason)
    inner = table.strip("[]")
    for name, decision in settings.get("visible", {}).items():
        column = tomlkit.key(name).as_string()
        reason = reasons.get(f"visible.{name}", "")
        yield _with_reason(f"[{inner}.visible.{column}]", reason)
        for key, value in decision.items():
            yield f"{key} = {_toml(value)}"
    for name, join in settings.get("joins", {}).items():
        yield from _lines(f"{inner}.joins.{name}", join, reasons)
    for part in settings.get("parts", ()):
        yield from _lines(f"[{inner}.parts]", part, reasons)


def _with_reason(line: str, reason: str) -> str:
    """Return a line with a comment that gives its reason, if there is one."""
    if not reason:
        return line
    return f"{line}  # {_printable(reason)}"


def _printable(text: str) -> str:
    """Return a text as it may stand in a comment: a name of a database holds any character."""
    chars = [char if char.isprintable() else " " for char in text]
    printable = "".join(chars)
    return " ".join(printable.split())


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        table = tomlkit.inline_table()
        table.update(value)
        return table.as_string()
    return str(tomlkit.item(value).as_string())


def proposed_settings(made: Scaffold) -> Settings:
    """Return the settings of a scaffold, with the whole URL of its database, before the file is
    written.

    Raises:
        SettingsError: a variable of the environment does not fit them.
    """
    url = database_url(made.source, Path.cwd()).render_as_string(hide_password=False)
    with tempfile.TemporaryDirectory(prefix="rag-index-init-") as name:
        file = Path(name) / "rag-index.toml"
        file.write_text(made.text, encoding="utf-8")
        return load_settings(file, source={"url": url})


def _without_secrets(source: str, here: Path, folder: Path) -> str:
    """Return the URL for the settings file: without password, and with the path of a file relative
    to `folder`."""
    url = make_url(source)
    file = Path(str(url.database))
    if is_file(url) and not file.expanduser().is_absolute():
        # desk.db, for a settings file in search/: ../desk.db
        url = url.set(database=os.path.relpath(here / file, folder.absolute()))
    # `sslpassword`
    query = {key: value for key, value in url.query.items() if not is_secret(key)}
    stripped = type(url).create(
        url.drivername, url.username, None, url.host, url.port, url.database, query
    )
    return stripped.render_as_string(hide_password=False)
