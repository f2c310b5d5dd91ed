"""Texts that are not valid in the charset of their database, such as a byte of Latin-1 in
PostgreSQL's SQL_ASCII.

A database, or its driver, refuses a complete page for one such value. The page is then read again
over a connection of `accept_any_text`: the server converts nothing, and an invalid value stays
bytes, as `Undecoded`. Nothing of a value may appear in a message, so `Undecoded` only shows its
length.
"""

from __future__ import annotations

import codecs
import json
import sqlite3
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from sqlalchemy import event, exc

from rag_index.components.sources.charsets import text_in
from rag_index.components.sources.text import NotText, read_text

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection, Engine

INVALID_TEXT = frozenset({"22021", "22P05"})
"""PostgreSQL's SQLSTATEs of a text that is invalid in its charset, and of one that cannot be
converted."""
DRIVERS = frozenset({"psycopg", "pymysql", "pysqlite"})
"""The drivers that `accept_any_text` knows."""
SQL_ASCII, SINGLE_BYTE = "SQL_ASCII", "LATIN1"
"""A charset of PostgreSQL that names none, and one in which each byte is valid, so that nothing is
refused."""
POSTGRESQL_TEXTS = ("text", "varchar", "bpchar", "name", '"char"')
MYSQL_TEXTS = frozenset({15, 245, 247, 248, 249, 250, 251, 252, 253, 254})
"""Codes of MySQL's types that may hold text: VARCHAR, JSON, ENUM, SET, the BLOBs, VAR_STRING and
STRING."""
LENIENT_CODEC = "rag_index_lenient_"
"""Codecs with this prefix keep invalid bytes as surrogates, in both directions."""
PLACE_OF_CHARSET = "rag_index_charset"


class Undecoded(bytes):
    """The bytes of a text of the source that are not valid in its charset."""

    charset = ""
    """Python's name for the charset of the database; "" if the database names none."""

    @classmethod
    def of(cls, raw: bytes, charset: str) -> Undecoded:
        """Return these bytes, which are not valid in the charset."""
        value = cls(raw)
        value.charset = charset
        return value

    def __repr__(self) -> str:
        return f"<{len(self)} bytes of an invalid text>"

    __str__ = __repr__


class UndecodedJson(Undecoded):
    """The bytes of a JSON value with an invalid text in it."""


def is_invalid_text(error: BaseException) -> bool:
    """Return whether a database, or its driver, refused a result for an invalid text."""
    # the server converted nothing, and the driver could not decode it
    if isinstance(error, UnicodeDecodeError):
        return True
    origin = getattr(error, "orig", None)
    if isinstance(origin, sqlite3.OperationalError):
        return "decode to UTF-8" in str(origin)
    return isinstance(error, exc.DBAPIError) and getattr(origin, "sqlstate", None) in INVALID_TEXT


def readable(value: Any) -> Any:
    """Return a value with its texts decoded: in the charset of the database if some of it is valid
    there, else in the one that it looks like. The result is an `Undecoded` if a text in it has no
    charset."""
    if isinstance(value, Undecoded):
        return _decoded(value)
    if isinstance(value, list | tuple):  # an array, or a record
        items = [readable(item) for item in value]
        return _first_undecoded(items) or type(value)(items)
    if isinstance(value, dict):  # of hstore
        names = [readable(name) for name in value]
        items = [readable(item) for item in value.values()]
        return _first_undecoded([*names, *items]) or dict(zip(names, items, strict=True))
    return value


def _first_undecoded(values: list[Any]) -> Undecoded | None:
    return next((value for value in values if isinstance(value, Undecoded)), None)


def _decoded(value: Undecoded) -> Any:
    text = text_in(value, value.charset) if value.charset else None
    if text is None:
        try:
            text = read_text(bytes(value))
        except NotText:
            return value
    if not isinstance(value, UndecodedJson):
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


# Connections


@dataclass(frozen=True, slots=True)
class _Charset:
    """How texts are read over a connection of PostgreSQL."""

    client_encoding: str
    """The value of the setting `client_encoding` with which the server converts nothing."""
    codec: str
    """Python's name for the charset of the texts."""

    @property
    def is_named(self) -> bool:
        """Return whether the database itself names the charset."""
        return self.client_encoding != SINGLE_BYTE

    def undecoded(self, kind: type[Undecoded], raw: bytes) -> Undecoded:
        """Return bytes that are not valid in the charset."""
        # bytes that are not UTF-8 show best by themselves what they are
        is_useful = self.is_named and self.codec != "utf-8"
        return kind.of(raw, self.codec if is_useful else "")


def accept_any_text(engine: Engine) -> None:
    """Let the connections of an engine return an `Undecoded` for an invalid text, with the drivers
    of `DRIVERS`.

    An `Undecoded` may be a parameter, too, except in SQLite, which has no such parameters.
    """
    driver = engine.dialect.driver
    if driver == "psycopg":
        event.listen(engine, "connect", _accept_in_postgresql)
        event.listen(engine, "begin", _without_conversion)
        event.listen(engine, "before_cursor_execute", _as_single_bytes, retval=True)
    elif driver == "pymysql":
        event.listen(engine, "connect", _accept_in_mysql)
        event.listen(engine, "before_cursor_execute", _as_surrogates, retval=True)
    elif driver == "pysqlite":
        event.listen(engine, "connect", _accept_in_sqlite)


def _accept_in_sqlite(connection: Any, _record: object) -> None:
    connection.text_factory = utf8_text


def utf8_text(raw: bytes) -> str | Undecoded:
    """Return a text as SQLite gives it, which is UTF-8 unless somebody wrote other bytes."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return Undecoded(raw)


def sqlite_text(raw: bytes, encoding: str) -> str | Undecoded:
    """Return a text of a file of SQLite whose texts have this encoding: UTF-8, UTF-16le or
    UTF-16be."""
    if encoding != "UTF-8":
        raw = raw.decode(encoding, "surrogatepass").encode("utf-8", "surrogatepass")
    return utf8_text(raw)


def _accept_in_postgresql(connection: Any, record: Any) -> None:
    """Register loaders that accept any text, and record the charset for the connection's
    transactions."""
    charset = _charset_of(connection)
    record.info[PLACE_OF_CHARSET] = charset
    if charset is not None:
        _register_loaders(connection, charset)
    connection.rollback()


def _charset_of(connection: Any) -> _Charset | None:
    """Return the charset of a database; None if Python has no codec for it."""
    from psycopg import NotSupportedError

    server = connection.info.parameter_status("server_encoding")
    if server == SQL_ASCII:  # the texts are in what the URL says, or UTF-8
        return _Charset(SINGLE_BYTE, connection.info.encoding)
    connection.execute("SELECT set_config('client_encoding', %s, true)", [server])
    try:
        return _Charset(server, connection.info.encoding)
    except NotSupportedError:  # such as EUC_TW
        return None


def _register_loaders(connection: Any, charset: _Charset) -> None:
    from psycopg.adapt import Dumper, Loader
    from psycopg.pq import Format

    class AnyText(Loader):
        """A loader of texts."""

        def load(self, data: Any) -> Any:
            raw = bytes(data)
            try:
                return raw.decode(charset.codec)
            except UnicodeDecodeError:
                return charset.undecoded(Undecoded, raw)

    class AnyJson(Loader):
        """A loader of JSON, which the usual one reads in UTF-8."""

        def __init__(self, oid: int, context: Any = None) -> None:
            super().__init__(oid, context)
            self._load = usual[oid](oid, context).load

        def load(self, data: Any) -> Any:
            raw = bytes(data)
            try:
                text = raw.decode(charset.codec)
            except UnicodeDecodeError:
                return charset.undecoded(UndecodedJson, raw)
            return self._load(text.encode())

    class UndecodedDumper(Dumper):
        """A dumper of a text as the bytes that the database has."""

        def dump(self, obj: Any) -> Any:
            return bytes(obj)

    adapters = connection.adapters
    json_types = [adapters.types[name].oid for name in ("json", "jsonb")]
    usual = {oid: adapters.get_loader(oid, Format.TEXT) for oid in json_types}
    for oid in json_types:
        adapters.register_loader(oid, AnyJson)
    no_type = 0  # of enums, citext and other types that the driver does not know
    for oid in (no_type, *[adapters.types[name].oid for name in POSTGRESQL_TEXTS]):
        adapters.register_loader(oid, AnyText)
    for kind in (Undecoded, UndecodedJson):
        adapters.register_dumper(kind, UndecodedDumper)


def _charset_in(connection: Connection) -> _Charset | None:
    found: _Charset | None = connection.info.get(PLACE_OF_CHARSET)
    return found


def _without_conversion(connection: Connection) -> None:
    """Let the server send texts as they are, in this transaction: a pooler may run the next one in
    another session."""
    charset = _charset_in(connection)
    if charset is not None:
        connection.exec_driver_sql(
            f"SELECT set_config('client_encoding', '{charset.client_encoding}', true)"
        )


def _as_single_bytes(
    connection: Connection,
    _cursor: object,
    statement: str,
    parameters: Any,
    _context: object,
    _many: bool,
) -> tuple[str, Any]:
    """Return a statement for SQL_ASCII, which the driver sends as single bytes: with a character
    for each byte."""
    charset = _charset_in(connection)
    if charset is None or charset.is_named:
        return statement, parameters

    def single(value: Any) -> Any:
        if isinstance(value, str):
            return value.encode(charset.codec).decode("latin-1")
        return [single(item) for item in value] if isinstance(value, list) else value

    return single(statement), _with_each(parameters, single)


def _with_each(parameters: Any, convert: Any) -> Any:
    """Return the parameters of a statement, by name or in order, each converted."""
    if isinstance(parameters, dict):
        return {name: convert(value) for name, value in parameters.items()}
    if isinstance(parameters, tuple):
        return tuple(map(convert, parameters))
    return parameters


def _accept_in_mysql(connection: Any, _record: object) -> None:
    """Let PyMySQL keep invalid bytes as surrogates, and make them an `Undecoded`."""
    charset = connection.encoding
    named_charset = charset if not charset.startswith("utf") else ""

    def accept(value: Any) -> Any:
        if not isinstance(value, str) or value.isascii():
            return value
        raw = value.encode(charset, "surrogateescape")
        try:
            return raw.decode(charset)
        except UnicodeDecodeError:
            return Undecoded.of(raw, named_charset)

    connection.encoding = f"{LENIENT_CODEC}{charset}"
    connection.decoders = {**connection.decoders, **dict.fromkeys(MYSQL_TEXTS, accept)}


def _as_surrogates(
    _connection: Connection,
    _cursor: object,
    statement: str,
    parameters: Any,
    _context: object,
    _many: bool,
) -> tuple[str, Any]:
    """Return the parameters with an `Undecoded` as a text, whose surrogates become its bytes
    again."""

    def escaped(value: Any) -> Any:
        if isinstance(value, Undecoded):
            return value.decode("ascii", "surrogateescape")
        return value

    return statement, _with_each(parameters, escaped)


def _find_codec(name: str) -> codecs.CodecInfo | None:
    if not name.startswith(LENIENT_CODEC):
        return None
    usual = codecs.lookup(name.removeprefix(LENIENT_CODEC))
    encode = partial(_leniently, usual.encode)
    decode = partial(_leniently, usual.decode)
    return codecs.CodecInfo(encode, decode, name=name)


def _leniently(convert: Any, value: Any, _errors: str = "strict") -> Any:
    return convert(value, "surrogateescape")


codecs.register(_find_codec)
