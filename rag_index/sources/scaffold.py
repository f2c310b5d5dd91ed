"""The scaffold: a first settings file with comments, and with an index for each table of the source that has text."""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
import tomlkit
from sqlalchemy import exc
from sqlalchemy.dialects.postgresql import TSVECTOR
from sqlalchemy.engine import make_url
from sqlalchemy.types import JSON, Enum, LargeBinary, NullType, String

from rag_index.database.urls import database_url, is_file, is_secret, redacted_url
from rag_index.documents.batches import RESERVED_KEY, DocumentBatch
from rag_index.errors import SettingsError, SourceError
from rag_index.settings.index import is_named_like_a_secret
from rag_index.settings.project import project_name
from rag_index.sources import SourcePage, open_source
from rag_index.sources.engine import open_read_only, source_error

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.engine import URL, Connection

    from rag_index.settings import IndexSettings, Settings
    from rag_index.sources import ScanState

MAX_PAYLOAD = 8
MAX_SHORT_CHARS = 40
"""A column that is declared for at most this many characters holds codes or names: it is payload, not text."""

MIN_PROSE_CHARS = 20
"""The minimum average length of texts. Shorter values are names or states."""

SAMPLED_ROWS = 100
MAX_NAME_CHARS = 80
EXAMPLE_URL = "postgresql+psycopg://reader@127.0.0.1/servicedesk"
_NO_KEY = (
    "has text but no primary key: write its [[indexes]] by hand, with columns as `key` whose values are unique "
    "and never NULL"
)
_UNLESS_MEANT = "if one holds none, write it in by hand, also in `not_secret`"
_URL_NOTE = "# This URL has no password: set RAG_INDEX_SOURCE__URL to the complete URL.\n"
_HEAD = """\
# Settings of rag-index. An environment variable can set every key instead: RAG_INDEX_SOURCE__URL,
# RAG_INDEX_PARALLEL__WORKERS, … and RAG_INDEX_INDEXES__COMMENT__CHUNK_CHARS for a key of one index.
# Keep secrets there. Paths are relative to this file. Most commented lines show the defaults: to change one, remove the
# "# " before it and before the [table] above it.

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

# [parallel]
# workers = "auto"                      # worker processes: one less than the processors
# shard_documents = "auto"              # documents per shard
# max_load = 4.0                        # start only as many workers as keep the load below this

# [run]
# delete_guard = 0.2                    # a run by which more of the index would be lost in 30 days deletes nothing
# tolerate_failed = 0.0                 # the share of documents that may fail in a completed run

# An index of a folder of source code (pip install "rag-index[code]"):
# [[indexes]]
# name = "code"
# kind = "code"
# root = "../service"
# include = ["**/*.py", "**/*.ts"]      # default: all known languages
# exclude = ["**/vendor/**"]            # in addition to .gitignore

"""
READ_FACTOR = 20
"""Documents that are read for each one of the sample. More would make a small sample of a large table slow."""


@dataclass(frozen=True, slots=True)
class Scaffold:
    """The text of a settings file, and a sentence about each table and each secret that it leaves out."""

    text: str
    left_out: list[str]


@dataclass(frozen=True, slots=True)
class _Table:
    """A table and the columns that its index would have. Without a key that may be shown there can be no index."""

    name: str
    key: list[str]
    text: list[str]
    payload: list[str]
    secrets: list[str] = field(default_factory=list)
    """Columns that are named like secrets, and not indexed."""

    @property
    def left_out(self) -> str:
        """Return the sentence about what has no place in an index; "" if there is nothing."""
        named, secret = _toml(self.name), ", ".join(self.secrets)
        if not self.key:
            return f"{named} {_NO_KEY}"
        if not self.fits:
            return f"{named} is left out, because its key is named like a secret ({secret}): {_UNLESS_MEANT}"
        left_out = f"{named} has columns named like secrets, which are left out ({secret}): {_UNLESS_MEANT}"
        return left_out if secret else ""

    @property
    def fits(self) -> bool:
        """Return whether it can have an index."""
        return bool(self.key) and not set(self.key) & set(self.secrets)


def scaffold(source: str | None, folder: Path | None = None) -> Scaffold:
    """Return a rag-index.toml for `folder`, by default the current folder.

    Raises:
        SettingsError: `source` is not a database URL, its file does not exist, or its database has no table with text.
        SourceUnavailable: the database does not answer.
    """
    here = Path.cwd()
    if source is None:
        tables, url_text, note = [_Table("comment", ["id"], ["subject", "body"], ["ticket_id"])], EXAMPLE_URL, ""
    else:
        try:
            url = database_url(source, here)
        except ValueError as error:
            raise SettingsError(f"--source {error}") from None
        tables, url_text = _find_tables(url), _without_secrets(source, here, folder or here)
        note = _URL_NOTE if url.password or any(map(is_secret, url.query)) else ""
    left_out = [sentence for table in tables if (sentence := table.left_out)]
    tables = [table for table in tables if table.fits]
    if not tables:
        where = redacted_url(url)
        raise SettingsError("; ".join([f"{where} has no table with a primary key and a text column", *left_out]))
    names: set[str] = set()
    sections = [_index_section(table, names) for table in tables]
    sections += ["".join(f"# {sentence}\n" for sentence in left_out)] if left_out else []
    project = _toml(project_name((folder or here).absolute().name))
    return Scaffold(_HEAD.format(project=project, url=_toml(url_text), note=note) + "\n".join(sections), left_out)


def _find_tables(url: URL) -> list[_Table]:
    engine = open_read_only(url)
    try:
        with engine.connect() as connection:
            inspector = sa.inspect(connection)
            tables = []
            for name in sorted([*inspector.get_table_names(), *inspector.get_view_names()]):
                key = list(inspector.get_pk_constraint(name).get("constrained_columns") or [])
                table = _read_table(connection, name, key, inspector.get_columns(name))
                if table is not None:
                    tables.append(table)
            return tables
    except exc.SQLAlchemyError as error:
        raise source_error(error, url, "init") from error
    finally:
        engine.dispose()


def _read_table(connection: Connection, name: str, key: list[str], columns: Sequence[Any]) -> _Table | None:
    """Return the table with its text and payload columns; None if it has no text."""
    secrets = [column["name"] for column in columns if is_named_like_a_secret(column["name"])]
    long, payload = [], []
    for column in columns:
        kind = column["type"]
        if column["name"] in key or column["name"] in secrets:
            continue
        if isinstance(kind, String) and not isinstance(kind, Enum) and (kind.length or 10_000) > MAX_SHORT_CHARS:
            long.append(column["name"])
        elif not isinstance(kind, LargeBinary | NullType | JSON | TSVECTOR) and column["name"] != RESERVED_KEY:
            payload.append(column["name"])
    if not long:
        return None
    text = _prose_columns(connection, name, long)
    payload = [c["name"] for c in columns if c["name"] in payload or (c["name"] in long and c["name"] not in text)]
    return _Table(name, key, text, payload[:MAX_PAYLOAD], secrets) if text else None


def _prose_columns(connection: Connection, table: str, columns: list[str]) -> list[str]:
    """Return the columns whose first rows hold words rather than codes, dates and addresses; all of an empty table."""
    statement = sa.select(*map(sa.column, columns)).select_from(sa.table(table)).limit(SAMPLED_ROWS)
    try:
        rows = connection.execute(statement).fetchall()
    except exc.DBAPIError:  # some bytes are not text: the check of the settings reports them
        return columns
    lengths: dict[str, float] = {}
    for number, name in enumerate(columns):
        values = [row[number] for row in rows if isinstance(row[number], str) and row[number].strip()]
        with_words = [value for value in values if _has_words(value)]
        if not values or len(with_words) * 3 >= len(values):
            lengths[name] = sum(map(len, values)) / len(values) if values else MIN_PROSE_CHARS
    text = [name for name, length in lengths.items() if length >= MIN_PROSE_CHARS]
    return text or sorted(lengths, key=lambda name: -lengths[name])[:1]


def _has_words(value: str) -> bool:
    """Return whether a value has two words, or characters of a script without spaces between words."""
    return bool(re.search(r"[^\W\d_][,;:.!?]*\s+[^\W\d_]", value)) or (len(value) > 5 and not value.isascii())


def _index_section(table: _Table, names: set[str]) -> str:
    """Return the [[indexes]] section of a table, with a name that is not in `names`, to which it is added."""
    plain = re.sub(r"__+", "_", re.sub(r"[^a-z0-9_-]+", "-", table.name.lower()))
    plain = plain.strip("-_")[:MAX_NAME_CHARS].rstrip("-_") or "index"
    name = next(name for n in range(1, len(names) + 2) if (name := plain if n == 1 else f"{plain}-{n}") not in names)
    names.add(name)
    key = table.key[0] if len(table.key) == 1 else table.key
    return (
        "[[indexes]]\n"
        f"name = {_toml(name)}\n"
        f"table = {_toml(table.name)}\n"
        f"key = {_toml(key)}\n"
        f"text = {_toml(table.text)}\n"
        f"payload = {_toml(table.payload)}\n"
    )


def _toml(value: str | list[str]) -> str:
    return tomlkit.item(value).as_string()


def _without_secrets(source: str, here: Path, folder: Path) -> str:
    """Return the URL for the settings file: without password, and with the path of a file relative to `folder`."""
    url = make_url(source)
    if is_file(url) and not Path(str(url.database)).expanduser().is_absolute():
        url = url.set(database=os.path.relpath(here / str(url.database), folder.absolute()))
    query = {key: value for key, value in url.query.items() if not is_secret(key)}
    stripped = type(url).create(url.drivername, url.username, None, url.host, url.port, url.database, query)
    return stripped.render_as_string(hide_password=False)


@dataclass(frozen=True, slots=True)
class Sample:
    """Documents of a source, which are themselves a `Source`.

    `seconds` is the time that reading them took: their share of the time for all documents that were read.
    """

    documents: DocumentBatch
    seconds: float

    def check(self) -> None:
        """Do nothing: the documents are already read."""

    def use_scan_state(self, state: ScanState) -> None:
        """Do nothing: all documents are returned."""

    def count(self) -> int:
        """Return the number of documents."""
        return len(self.documents)

    def page(self, cursor: Any, rows: int) -> SourcePage:
        """Return the documents after position `cursor`."""
        first = cursor or 0
        last = min(first + rows, len(self.documents))
        documents = self.documents.take(list(range(first, last)))
        return SourcePage(documents, last if last < len(self.documents) else None)

    def close(self) -> None:
        """Do nothing: the sample holds no connection."""


def read_sample(settings: Settings, index: IndexSettings, size: int) -> Sample:
    """Return a sample of `size` documents with text.

    It holds the documents with the smallest hashes of their keys, out of the first `READ_FACTOR` times as many. So it
    is the same sample each time, and not only from the beginning of the table.

    Raises:
        SourceUnavailable: the source does not answer.
        SourceError: the source cannot be read, or has no document with text.
    """
    source = open_source(settings, index)
    chosen = DocumentBatch.empty()
    read, seconds, cursor = 0, 0.0, None
    try:
        while read == 0 or (cursor is not None and read < size * READ_FACTOR):
            started = time.perf_counter()
            page = source.page(cursor, min(settings.source.page_rows, size * READ_FACTOR))
            seconds += time.perf_counter() - started
            cursor = page.cursor
            read += max(1, len(page.documents))
            chosen = _smallest_hashes(chosen.plus(page.documents), size)
    finally:
        source.close()
    if not chosen:
        raise SourceError(f"index {index.name} has no documents with text to take a sample of")
    return Sample(chosen, seconds * len(chosen) / read)


def _smallest_hashes(documents: DocumentBatch, size: int) -> DocumentBatch:
    """Return the `size` documents with text whose keys have the smallest hashes, in the order of reading."""
    with_text = [row for row, text in enumerate(documents.texts) if text.strip()]
    rows = sorted(with_text, key=lambda row: blake2b(documents.keys[row].encode(), digest_size=8).digest())[:size]
    return documents.take(sorted(rows))
