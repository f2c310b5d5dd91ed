"""The scaffold: a first settings file with comments, and with the indexes that the source suggests."""

from __future__ import annotations

import os
import shlex
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
from rag_index.first_run.schema.catalog import read_catalog
from rag_index.first_run.schema.embedder import COMMENTED, embedder_section
from rag_index.first_run.schema.proposed import UNREAD, Choices, Proposal
from rag_index.first_run.schema.reading import propose
from rag_index.first_run.schema.screen import left_out, note, share_sentence
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
    choices: Choices = field(default_factory=Choices)
    catalog: DatabaseCatalog | None = None
    """What was read of the database, for the next one."""
    lacks_password: bool = False
    """Whether the URL in the file is not the whole one."""


def source_url(source: str) -> str:
    """Return the URL of a database that a person named, by its URL or by the path of an SQLite file."""
    return URL.create("sqlite", database=source).render_as_string() if Path(source).is_file() else source


def scaffold(
    source: str | None,
    folder: Path | None = None,
    *,
    choices: Choices | None = None,
    catalog: DatabaseCatalog | None = None,
    progress: Progress | None = None,
) -> Scaffold:
    """Return a rag-index.toml for `folder`, by default the current folder.

    `catalog` is that of an earlier one: the database is not read again. `progress` is called as by `read_catalog`. What
    is open stands in the file as comments. The text is "" if nothing is proposed: `nothing_found` says why.

    Raises:
        SettingsError: `source` is no database, its file does not exist, or the choices do not fit it.
        SourceUnavailable: the database does not answer.
    """
    here = Path.cwd()
    project = _toml(project_name((folder or here).absolute().name))
    if source is None:
        return Scaffold(
            _HEAD.format(project=project, url=_toml(EXAMPLE_URL), note="", embedder=COMMENTED) + EXAMPLE_INDEX
        )
    source, choices = source_url(source), choices or Choices()
    try:
        url = database_url(source, here)
    except ValueError as error:
        raise SettingsError(f"the source {error}") from None
    with ExitStack() as stack:
        catalog = catalog or stack.enter_context(read_catalog(url, progress))
        proposal = propose(catalog, choices)
    for table in proposal.tables:
        if table.name in choices.include and table.becomes != "document":
            raise SettingsError(f"the rows of {table.name} cannot be documents: it {table.why or 'has no text'}")
    if not proposal.indexes:
        return Scaffold("", proposal, choices, catalog)  # a person may still include a table
    lacks_password = bool(url.password or any(map(is_secret, url.query)))
    shown = _without_secrets(source, here, folder or here)
    head = _HEAD.format(project=project, url=_toml(shown), note=_URL_NOTE if lacks_password else "", embedder=COMMENTED)
    sections = ["\n".join([*_lines("[indexes]", {"name": one.name} | one.settings, one.reasons), ""])
                for one in proposal.indexes]  # fmt: skip
    verbs = [(one, "show" if one.hidden else "hide") for one in proposal.questions]
    asked = [f"{one.place}: {note(one)}. To {verb} them: --{verb} {shlex.quote(one.place)}." for one, verb in verbs]
    sections[:0] = [_comments("Open, until you answer", asked)] if asked else []
    out = left_out(proposal)
    reached = _comments(share_sentence(proposal) + ". Left out, the largest first" * bool(out), out)
    first = f"{_comments('Rights of the user of this database', proposal.notes)}\n" if proposal.notes else ""
    return Scaffold(first + head + "\n".join([*sections, reached]), proposal, choices, catalog, lacks_password)


def with_embedder(made: Scaffold, proposed: ProposedEmbedder | None) -> Scaffold:
    """Return a scaffold whose file proposes this embedder, if one is proposed."""
    if proposed is None:
        return made
    return replace(made, text=made.text.replace(COMMENTED, embedder_section(proposed), 1))


def nothing_found(source: str, proposal: Proposal) -> SettingsError:
    """Return the error of a database without anything to propose, with the tables that could not be read."""
    url = redacted_url(database_url(source_url(source), Path.cwd()))
    if not proposal.tables:
        return SettingsError(f"{url} has no table: name another database, or ask for the right to read its tables")
    unread = [f"{one.name}: {one.why}" for one in proposal.tables if one.why.startswith(UNREAD)]
    told = [one for one in proposal.tables if one.chars and not one.why.startswith(UNREAD)]
    said = f"{url} has no table whose rows people would look for: name one with --include"
    said += f", such as {told[0].name}, which {told[0].why}" if told else ""
    return SettingsError("; ".join([said, *unread[:3]]))


def _comments(title: str, sentences: Sequence[str]) -> str:
    """Return a comment with a title, and a line for each sentence."""
    return f"# {title}{':' if sentences else '.'}\n{''.join(map(_comment, sentences))}"


def _comment(sentence: str) -> str:
    """Return a comment of lines that are not too long."""
    lines = textwrap.wrap(_printable(sentence), 116, break_on_hyphens=False)
    return "".join(f"# {'  ' if number else '- '}{line}\n" for number, line in enumerate(lines))


def _lines(table: str, settings: Mapping[str, Any], reasons: Mapping[str, str]) -> Iterator[str]:
    """Yield the lines of a table of the settings, and of those below it: its joins and its parts."""
    yield f"[{table}]"
    for key, value in settings.items():
        if key not in ("joins", "parts"):
            reason = reasons.get(key) or reasons.get(str(value), "")
            yield f"{key} = {_toml(value)}" + (f"  # {_printable(reason)}" if reason else "")
    inner = table.strip("[]")
    for name, join in settings.get("joins", {}).items():
        yield from _lines(f"{inner}.joins.{name}", join, reasons)
    for part in settings.get("parts", ()):
        yield from _lines(f"[{inner}.parts]", part, reasons)


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
