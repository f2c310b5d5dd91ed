"""A first settings file: commented, and where a source is given with an index for each of its tables that has text."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
import tomlkit
from sqlalchemy import exc
from sqlalchemy.dialects.postgresql import TSVECTOR
from sqlalchemy.engine import make_url
from sqlalchemy.types import JSON, Enum, LargeBinary, NullType, String

from rag_index.database.urls import database_url, is_file, is_secret, redacted_url
from rag_index.documents.batches import RESERVED_KEY
from rag_index.errors import SettingsError
from rag_index.settings.project import project_name
from rag_index.sources.engine import mapped, open_read_only

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.engine import URL, Connection

__all__ = ["scaffold"]

MAX_PAYLOAD = 8
SHORT_TEXT = 40
"""A column declared for so few characters is a code or a name: payload, not text."""
PROSE_CHARS = 20
"""So long on average are texts; what is shorter is a name or a state."""
SAMPLED_ROWS = 100
LONGEST_NAME = 80
EXAMPLE_URL = "postgresql+psycopg://reader@127.0.0.1/servicedesk"


@dataclass(frozen=True, slots=True)
class _Table:
    name: str
    key: list[str]
    text: list[str]
    payload: list[str]


def scaffold(source: str | None, folder: Path | None = None) -> str:
    """The text of a rag-index.toml that is to lie in `folder`, by default the current one.

    Raises:
        SettingsError: the URL is none, its file is not there, or its database has no table with text.
        SourceUnavailable: the database does not answer.
    """
    here = Path.cwd()
    if source is None:
        tables, redacted, secret = [_Table("comment", ["id"], ["subject", "body"], ["ticket_id"])], EXAMPLE_URL, ""
    else:
        try:
            url = database_url(source, here)
        except ValueError as error:
            raise SettingsError(f"--source {error}") from None
        tables, redacted = _tables(url), _without_secrets(source, here, folder or here)
        secret = _LEFT_OUT if url.password or any(map(is_secret, url.query)) else ""
        if not tables:
            raise SettingsError(
                f"{redacted_url(url)} has no table with a key and a text column; write [[indexes]] by hand"
            )
    names: set[str] = set()
    sections = [_index(table, names) for table in tables]
    return _HEAD.format(
        project=_toml(project_name((folder or here).absolute().name)), url=_toml(redacted), secret=secret
    ) + "\n".join(sections)


def _tables(url: URL) -> list[_Table]:
    engine = open_read_only(url)
    try:
        with engine.connect() as connection:
            inspector = sa.inspect(connection)
            found = []
            for name in sorted(inspector.get_table_names()):
                key = list(inspector.get_pk_constraint(name).get("constrained_columns") or [])
                table = _proposed(connection, name, key, inspector.get_columns(name))
                if table is not None:
                    found.append(table)
            return found
    except exc.SQLAlchemyError as error:
        raise mapped(error, url, "init") from error
    finally:
        engine.dispose()


def _proposed(connection: Connection, name: str, key: list[str], columns: Sequence[Any]) -> _Table | None:
    long, payload = [], []
    for column in columns:
        kind = column["type"]
        if column["name"] in key:
            continue
        if isinstance(kind, String) and not isinstance(kind, Enum) and (kind.length or 10_000) > SHORT_TEXT:
            long.append(column["name"])
        elif not isinstance(kind, LargeBinary | NullType | JSON | TSVECTOR) and column["name"] != RESERVED_KEY:
            payload.append(column["name"])
    if not key or not long:
        return None
    text = _prose(connection, name, long)
    payload = [c["name"] for c in columns if c["name"] in payload or (c["name"] in long and c["name"] not in text)]
    return _Table(name, key, text, payload[:MAX_PAYLOAD]) if text else None


def _prose(connection: Connection, table: str, columns: list[str]) -> list[str]:
    """The columns that hold words rather than codes, dates and addresses, by the first rows; all of an empty table."""
    statement = sa.select(*map(sa.column, columns)).select_from(sa.table(table)).limit(SAMPLED_ROWS)
    try:
        rows = connection.execute(statement).fetchall()
    except exc.DBAPIError:  # bytes that are no text: it is not for a proposal to judge them
        return columns
    lengths: dict[str, float] = {}
    for number, name in enumerate(columns):
        values = [row[number] for row in rows if isinstance(row[number], str) and row[number].strip()]
        worded = [value for value in values if _has_words(value)]
        if not values or len(worded) * 3 >= len(values):
            lengths[name] = sum(map(len, values)) / len(values) if values else PROSE_CHARS
    text = [name for name, length in lengths.items() if length >= PROSE_CHARS]
    return text or sorted(lengths, key=lambda name: -lengths[name])[:1]


def _has_words(value: str) -> bool:
    """Two words, or characters of a script that does not part words."""
    return bool(re.search(r"[^\W\d_][,;:.!?]*\s+[^\W\d_]", value)) or (len(value) > 5 and not value.isascii())


def _index(table: _Table, names: set[str]) -> str:
    plain = re.sub(r"__+", "_", re.sub(r"[^a-z0-9_-]+", "-", table.name.lower()))
    plain = plain.strip("-_")[:LONGEST_NAME].rstrip("-_") or "index"
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
    """The URL as the file has it: a relative file from the file's folder, a password left to the environment."""
    url = make_url(source)
    if is_file(url) and not Path(str(url.database)).expanduser().is_absolute():
        url = url.set(database=os.path.relpath(here / str(url.database), folder.absolute()))
    query = {key: value for key, value in url.query.items() if not is_secret(key)}
    bare = type(url).create(url.drivername, url.username, None, url.host, url.port, url.database, query)
    return bare.render_as_string(hide_password=False)


_LEFT_OUT = "# The password is left out: set RAG_INDEX_SOURCE__URL to the whole URL.\n"

_HEAD = """\
# Settings of rag-index. Every key can come from the environment instead: RAG_INDEX_SOURCE__URL,
# RAG_INDEX_PARALLEL__WORKERS, … and RAG_INDEX_INDEXES__COMMENT__CHUNK_CHARS for a key of one index.
# Secrets do best there. Relative paths start at this file. Commented lines show the defaults.

project = {project}  # begins the names of collections, so that projects on one Qdrant do not meet

[source]
{secret}url = {url}

[embedder]
# kind = "local"                        # in the process, no server: wordllama
# kind = "ollama"                       # a server, or several: `ollama pull nomic-embed-text` first
# model = "nomic-embed-text"
# hosts = ["http://127.0.0.1:11434"]

[store]
# path = ".rag-index/qdrant"            # embedded Qdrant
# url = "http://127.0.0.1:6333"         # or a server; its key in RAG_INDEX_STORE__API_KEY

[ledger]
# url = "sqlite:///.rag-index/ledger.db"

[parallel]
# workers = "auto"                      # Dask processes: one less than the processors there are
# shard_documents = "auto"                   # documents a shard
# max_load = 4.0                       # leave room where other programs run; memory and worker_memory: megabytes

[run]
# delete_guard = 0.2                    # a run that would delete a larger share deletes nothing
# tolerate_failed = 0.0                 # share of documents that may fail in a completed run

# A folder of source code, by symbol (pip install "rag-index[code]"):
# [[indexes]]
# name = "code"
# kind = "code"
# root = "../service"
# include = ["**/*.py", "**/*.ts"]      # all languages known
# exclude = ["**/vendor/**"]            # beside what .gitignore says

"""
