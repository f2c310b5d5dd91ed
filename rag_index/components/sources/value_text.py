"""A value as the text by which settings name it, in the SQL of each kind of database.

    sql = value_sql(connection.dialect)
    sql.text("state")  # SQL of a text: "open", "3", "true" ("1" in MariaDB and SQLite), "" for NULL
    sql.text("extra", ["private"])  # of a key of a JSON object; "" if the object does not have it
    sql.text("deleted_at", kind="time")  # "empty", "past" or "future"
    sql.is_any(sql.text("state"), ["open", ""])  # a condition that is true or false, never NULL

Texts are equal if all of their characters are equal, whatever the collation of a column: "Draft" is
not "draft". `init` counts the values for its proposals by this SQL, so that a run compares with the
values that it has written into the settings.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import sqlalchemy as sa

from rag_index.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

NO_JSON = "(not JSON)"
"""The text for a key of a value that is no JSON object."""
NO_TIME = "(no time)"
"""The text of a value that is neither a time nor a number of seconds, and should be one."""
MAX_CHARS = 255
"""Characters of a text that are compared in databases without a text of any length: the most of a
VARCHAR in some of them."""
MAX_SHOWN = 100
"""Characters, or bytes, of a text that are shown to a person. Chosen; nothing depends on it."""
MILLISECONDS = 100_000_000_000
"""From this number on, a time is in milliseconds since 1970. In seconds it would be in year 5138."""
MICROSECONDS = 100_000_000_000_000
"""From this number on, a time is in microseconds since 1970. In milliseconds it would be in year
5138."""


class ValueSql:
    """The SQL for values of a database without a class of its own below."""

    def __init__(self, dialect: sa.Dialect) -> None:
        self._dialect = dialect

    def quoted(self, name: str) -> str:
        """Return the name of a column, quoted if the database requires it."""
        return self._dialect.identifier_preparer.quote(name)

    def text(self, column: str, keys: Sequence[str] = (), *, kind: str = "value") -> str:
        """Return the text of a column, which is SQL, or of a key of the JSON object in it.

        Args:
            column: The column in SQL, such as `"state"` or `ticket.state`.
            keys: The keys that lead to the value inside of the object, from the outermost one.
            kind: `time` for the state of a time.

        Raises:
            SettingsError: The database is not one whose JSON can be read.
        """
        # A time in a column, in a key of an object, and other values
        if kind == "time" and not keys:
            text = self._time(self._time_text(column))
        elif kind == "time":
            text = self._time(self._json(column, keys))
        elif keys:
            text = self._json(column, keys)
        else:
            text = self._text(column)
        return self._exact(text)

    def is_any(self, text: str, values: Iterable[str]) -> str:
        """Return the condition that a text is one of these values. It is never NULL, so that NOT
        reverses it."""
        wanted = list(values)
        filled = [self.literal(value) for value in wanted if value]
        parts: list[str] = []
        if filled:
            parts.append(f"{text} IN ({', '.join(filled)})")
        # In Oracle, an empty text is NULL.
        if "" in wanted:
            parts += [f"{text} IS NULL", f"{text} = {self.literal('')}"]
        condition = " OR ".join(parts) or "1 = 0"
        return f"(CASE WHEN {condition} THEN 1 ELSE 0 END = 1)"

    def beginning(self, text: str) -> str:
        """Return the beginning of a text in SQL, to be shown to a person."""
        return text

    def literal(self, value: str) -> str:
        """Return a text in SQL."""
        return "'" + value.replace("'", "''") + "'"

    def read(self, value: object) -> str:
        """Return the text of a value that a query of `text` returned."""
        if isinstance(value, bytes | bytearray | memoryview):
            # The beginning of a text may end within a character.
            return bytes(value).decode(errors="ignore")
        return str(value)

    def _text(self, column: str) -> str:
        # A CHAR is filled with blanks.
        text = sa.cast(sa.literal_column(column), sa.String(MAX_CHARS))
        return f"RTRIM({text.compile(dialect=self._dialect)})"

    def _json(self, column: str, keys: Sequence[str]) -> str:
        raise SettingsError(
            f"a key of a JSON object ({column}.{'.'.join(keys)}) is read from SQLite, PostgreSQL,"
            f" MariaDB and MySQL alone, not from {self._dialect.name}: name a view that has it as a"
            " column"
        )

    def _time_text(self, column: str) -> str:
        return column

    def _time(self, text: str) -> str:
        return (
            f"CASE WHEN {text} IS NULL THEN 'empty' WHEN {text} > CURRENT_TIMESTAMP THEN 'future'"
            " ELSE 'past' END"
        )

    def _exact(self, text: str) -> str:
        # SQL Server compares by the collation of the column.
        if self._dialect.name == "mssql":
            return f"{text} COLLATE Latin1_General_BIN2"
        return text


class _KnownSql(ValueSql):
    """The common SQL of the databases below: no text is NULL, and a time is compared by its text,
    since a cast could fail."""

    def is_any(self, text: str, values: Iterable[str]) -> str:
        """Return the condition that a text is one of these values."""
        listed = ", ".join(map(self.literal, values))
        return f"({text} IN ({listed}))" if listed else "(1 = 0)"

    def beginning(self, text: str) -> str:
        """Return the beginning of a text in SQL, to be shown to a person."""
        return f"SUBSTR({text}, 1, {MAX_SHOWN})"

    def _time_text(self, column: str) -> str:
        return self._text(column)

    def _time(self, text: str) -> str:
        number = self._as_number(text)
        seconds = (
            f"CASE WHEN {number} >= {MICROSECONDS} THEN {number} / 1000000.0 "
            f"WHEN {number} >= {MILLISECONDS} THEN {number} / 1000.0 ELSE {number} END"
        )
        return (
            # never set: NULL, '', 0000-00-00
            f"CASE WHEN {text} = '' OR SUBSTR({text}, 1, 10) = '0000-00-00' THEN 'empty' "
            # 2026-11-30 19:00:00
            f"WHEN {self._is_time(text)} THEN {self._past_or_future(text)} "
            # seconds since 1970; 0 is no time
            f"WHEN {self._is_number(text)} THEN CASE WHEN {number} = 0 THEN 'empty' "
            f"WHEN {seconds} > {self._seconds_now()} THEN 'future' ELSE 'past' END "
            f"ELSE '{NO_TIME}' END"
        )

    def _is_time(self, text: str) -> str:
        raise NotImplementedError

    def _past_or_future(self, text: str) -> str:
        raise NotImplementedError

    def _is_number(self, text: str) -> str:
        raise NotImplementedError

    def _as_number(self, text: str) -> str:
        raise NotImplementedError

    def _seconds_now(self) -> str:
        raise NotImplementedError


class SqliteValueSql(_KnownSql):
    """The SQL for values of SQLite. Each value has a type of its own there."""

    def _text(self, column: str) -> str:
        return f"COALESCE(CAST({column} AS TEXT), '')"

    def _json(self, column: str, keys: Sequence[str]) -> str:
        path = self.literal(_json_path(keys))
        return (
            f"CASE WHEN {self._text(column)} = '' THEN '' "
            f"WHEN NOT json_valid({column}) THEN '{NO_JSON}' "
            # null, or an empty PHP array
            f"WHEN json_type({column}) IN ('null', 'array') THEN '' "
            f"WHEN json_type({column}) <> 'object' THEN '{NO_JSON}' "
            # json_extract gives 1 for true
            f"WHEN json_type({column}, {path}) IN ('true', 'false') THEN json_type({column},"
            f" {path}) "
            f"ELSE COALESCE(CAST(json_extract({column}, {path}) AS TEXT), '') END"
        )

    def _is_time(self, text: str) -> str:
        # the digits keep 2460000.5 from being a Julian day
        return f"{text} GLOB '[0-9][0-9][0-9][0-9]-[0-9]*' AND datetime({text}) IS NOT NULL"

    def _past_or_future(self, text: str) -> str:
        return f"CASE WHEN datetime({text}) > datetime('now') THEN 'future' ELSE 'past' END"

    def _is_number(self, text: str) -> str:
        return f"LTRIM({text}, '-') NOT GLOB '*[^0-9.]*'"

    def _as_number(self, text: str) -> str:
        return f"CAST({text} AS REAL)"

    def _seconds_now(self) -> str:
        return "(julianday('now') - 2440587.5) * 86400"


class PostgresqlValueSql(_KnownSql):
    """The SQL for values of PostgreSQL."""

    def literal(self, value: str) -> str:
        """Return a text in SQL, which does not depend on the server's meaning of a backslash."""
        text = super().literal(value)
        if "\\" not in value:
            return text
        return "E" + text.replace("\\", "\\\\")

    def _text(self, column: str) -> str:
        return f"COALESCE(CAST({column} AS text), '')"

    def _time_text(self, column: str) -> str:
        # as JSON has it, a time is written in ISO 8601, whatever DateStyle says
        return f"COALESCE(to_jsonb({column}) #>> '{{}}', '')"

    def _json(self, column: str, keys: Sequence[str]) -> str:
        path = ", ".join(map(self.literal, keys))
        value = f"to_jsonb({column})"
        text = f"({value} #>> '{{}}')"
        start = f"LEFT(LTRIM({text}, E' \\t\\r\\n'), 1)"
        return (
            f"CASE WHEN {column} IS NULL THEN '' "
            # a column of json, jsonb or hstore
            f"WHEN jsonb_typeof({value}) = 'object' THEN COALESCE(jsonb_extract_path_text({value},"
            f" {path}), '') "
            # null, or an empty PHP array
            f"WHEN jsonb_typeof({value}) IN ('null', 'array') THEN '' "
            # a column of text
            f"WHEN {start} IN ('', '[') THEN '' WHEN {start} = '{{' THEN"
            f" COALESCE(jsonb_extract_path_text(CAST({text} AS jsonb), {path}), '') ELSE"
            f" '{NO_JSON}' END"
        )

    def _is_time(self, text: str) -> str:
        return (
            f"{text} ~ '^[0-9]{{4,}}-[0-9]{{2}}-[0-9]{{2}}' OR {text} IN ('infinity', '-infinity')"
        )

    def _past_or_future(self, text: str) -> str:
        now = 'to_char(now(), \'YYYY-MM-DD HH24":"MI":"SS\')'
        return (
            f"CASE WHEN {text} = '-infinity' OR RIGHT({text}, 3) = ' BC' THEN 'past' "
            # a year of more than four digits
            f"WHEN {text} = 'infinity' OR {text} ~ '^[0-9]{{5}}' THEN 'future' "
            # both are in the time zone of the session
            f"WHEN REPLACE(LEFT({text}, 19), 'T', ' ') COLLATE \"C\" > {now} THEN 'future' ELSE"
            " 'past' END"
        )

    def _is_number(self, text: str) -> str:
        return f"{text} ~ '^-?[0-9]+([.][0-9]+)?$'"

    def _as_number(self, text: str) -> str:
        return f"CAST({text} AS numeric)"

    def _seconds_now(self) -> str:
        return "EXTRACT(EPOCH FROM now())"

    def _exact(self, text: str) -> str:
        return f'({text}) COLLATE "C"'


class MysqlValueSql(_KnownSql):
    """The SQL for values of MariaDB and MySQL. Bytes are compared: every collation there ignores
    blanks at the end."""

    def literal(self, value: str) -> str:
        """Return the bytes of a text in SQL, which have one meaning in all modes of the server."""
        return f"x'{value.encode().hex()}'"

    def _text(self, column: str) -> str:
        text = f"CAST({column} AS CHAR CHARACTER SET utf8mb4)"
        return (
            f"CASE WHEN {column} IS NULL THEN '' "
            # a BIT(1) or a BINARY(1) is a byte
            f"WHEN HEX({text}) = '00' THEN '0' WHEN HEX({text}) = '01' THEN '1' "
            # bytes that are no text become NULL
            f"ELSE COALESCE({text}, CONCAT('0x', HEX({column}))) END"
        )

    def _json(self, column: str, keys: Sequence[str]) -> str:
        path = self.literal(_json_path(keys))
        value = f"JSON_EXTRACT({column}, CONVERT({path} USING utf8mb4))"
        return (
            f"CASE WHEN {column} IS NULL OR {column} = '' THEN '' "
            f"WHEN NOT JSON_VALID({column}) THEN '{NO_JSON}' "
            # null, or an empty PHP array
            f"WHEN JSON_TYPE({column}) IN ('NULL', 'ARRAY') THEN '' "
            f"WHEN JSON_TYPE({column}) <> 'OBJECT' THEN '{NO_JSON}' "
            f"WHEN {value} IS NULL OR JSON_TYPE({value}) = 'NULL' THEN '' "
            f"ELSE CAST(JSON_UNQUOTE({value}) AS CHAR CHARACTER SET utf8mb4) END"
        )

    def _is_time(self, text: str) -> str:
        return f"{text} REGEXP '^[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}'"

    def _past_or_future(self, text: str) -> str:
        # both are in the time zone of the session
        return (
            f"CASE WHEN LEFT(REPLACE({text}, 'T', ' '), 19) > CAST(NOW() AS CHAR) THEN 'future'"
            " ELSE 'past' END"
        )

    def _is_number(self, text: str) -> str:
        return f"{text} REGEXP '^-?[0-9]+([.][0-9]+)?$'"

    def _as_number(self, text: str) -> str:
        return f"CAST({text} AS DECIMAL(30, 6))"

    def _seconds_now(self) -> str:
        return "UNIX_TIMESTAMP()"

    def _exact(self, text: str) -> str:
        return f"CAST(({text}) AS BINARY)"


def _json_path(keys: Sequence[str]) -> str:
    """Return the path of a value in an object, such as $."extra"."private"."""
    quoted = [json.dumps(key, ensure_ascii=False) for key in keys]
    return ".".join(["$", *quoted])


_KNOWN: dict[str, type[ValueSql]] = {
    "sqlite": SqliteValueSql,
    "postgresql": PostgresqlValueSql,
    "mysql": MysqlValueSql,
    "mariadb": MysqlValueSql,
}


def value_sql(dialect: sa.Dialect) -> ValueSql:
    """Return the SQL for values of a kind of database."""
    return _KNOWN.get(dialect.name, ValueSql)(dialect)
