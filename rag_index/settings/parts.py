"""What a document consists of beside its own row: `[indexes.joins.NAME]` and `[[indexes.parts]]`, and its templates.

A name with a dot, such as `customer.name`, is a column of a join.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from pydantic import Field, field_validator, model_validator

from rag_index.settings.values import Section

Format = Literal["plain", "html", "markdown", "bbcode", "json", "auto"]
"""How the text of a column is written."""
Template = list[tuple[str, str | None]]
"""The parts of a template: the literal before a column, and the column (None at the end)."""
PREFIX = re.compile(r"[ !-$&(-\[\]-~]+")
"""What may stand before a key that another table names: no quote, no percent sign and no backslash."""
NAME = r"^[A-Za-z][A-Za-z0-9_]*$"
LINK_STARTS = ("https://", "http://", "/")
"""How an address may begin: what a template begins with decides what a browser does."""
DESCENDING = " desc"
"""The end of a column in `order_by` whose greatest value comes first."""


def read_template(text: str | Sequence[str] | None, key: str = "text") -> Template | None:
    """Return the parts of a template; None if the value of the setting `key` is a column or a list of columns.

    Raises:
        ValueError: the template is not well formed.
    """
    if not isinstance(text, str) or not {"{", "}"} & set(text):
        return None
    parts: Template = []
    try:
        for literal, name, form, conversion in string.Formatter().parse(text):
            if form or conversion or name == "":
                raise ValueError("braces may contain only the name of a column")
            parts.append((literal, name))
    except ValueError as exc:
        raise ValueError(f"{key} {text!r} is not a template: {exc}; write a literal brace as {{{{") from None
    return parts


def template_columns(text: str | Sequence[str] | None, key: str = "text") -> list[str]:
    """Return the columns that a text consists of, in order, once each. Raises ValueError like `read_template`."""
    template = read_template(text, key)
    if template is not None:
        return list(dict.fromkeys(name for _, name in template if name))
    return [text] if isinstance(text, str) else list(dict.fromkeys(text or ()))


def as_list(value: str | Sequence[str] | None) -> list[str]:
    """Return the columns of a setting that is one column or a list of them."""
    return [value] if isinstance(value, str) else list(value or ())


def check_text(text: str | Sequence[str] | None, key: str = "text") -> None:
    """Raise ValueError if a text or a template names no column."""
    if isinstance(text, str) and read_template(text, key) is not None and not template_columns(text, key):
        raise ValueError(f'{key} {text!r} is a template that names no column; write it as "{{column}}"')


def check_link(link: str | None) -> None:
    """Raise ValueError if a link is no template, or may become an address that a page must not open."""
    if link is not None and read_template(link, "link") is None:
        raise ValueError(f'link {link!r} names no column; write it as "https://…/{{id}}"')
    if link is not None and not link.startswith(LINK_STARTS):
        raise ValueError(f"link {link!r} should begin with {', '.join(LINK_STARTS)}")


def split_prefix(name: str) -> tuple[str, str]:
    """Return the text before the column of a template such as `tt:{old_id}`, and the column; "" if there is none."""
    template = read_template(name, "on")
    return (template[0][0], str(template[0][1])) if template else ("", name)


def split_name(name: str, joins: Mapping[str, JoinSettings]) -> tuple[str | None, str]:
    """Return the join and the column that a name means; the join is None for a column of the table itself."""
    join, dot, column = name.partition(".")
    return (join, column) if dot and join in joins else (None, name)


class JoinSettings(Section):
    """`[indexes.joins.NAME]`: another table, of which a row gives columns `NAME.column` to the document or part."""

    table: str = Field(min_length=1)
    """The table that is joined."""
    db_schema: str | None = Field(default=None, alias="schema")
    """The database schema of the table; that of the index's table, if none is named."""
    on: str | dict[str, str] = Field(min_length=1)
    """The column with the id of the joined row; or columns of `table`, each with the column that it equals.

    A column of `table` with whole numbers may have a text before it that the other column has, too: `tt:{old_id}`.
    """
    where: str | None = Field(default=None, min_length=1)
    """The condition, in SQL, for the rows of `table` that count."""
    required: bool = False
    """Whether rows are left out that join with none."""

    def in_schema(self, schema: str) -> JoinSettings:
        """Return the same with a table in this schema, unless it names its own."""
        return self if self.db_schema else self.model_copy(update={"db_schema": schema})

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Return the columns of `table`, each with the column that it equals."""
        given = {"id": self.on} if isinstance(self.on, str) else self.on
        return [(split_prefix(own)[1], other) for own, other in given.items()]

    @property
    def prefixes(self) -> list[str]:
        """Return the texts that the other columns of `pairs` have before the value; "" where they equal it."""
        return [""] if isinstance(self.on, str) else [split_prefix(own)[0] for own in self.on]

    @field_validator("on")
    @classmethod
    def _check_prefix(cls, value: str | dict[str, str]) -> str | dict[str, str]:
        for own in value if isinstance(value, dict) else ():
            template = read_template(own, "on")
            if template is not None and (len(template) != 1 or not PREFIX.fullmatch(template[0][0])):
                raise ValueError(
                    f'on {own!r} should be a column of the table, or a column after a text: "tt:{{old_id}}" (the text '
                    "in ASCII, without quotes, percent signs and backslashes)"
                )
        return value


class PartSettings(Section):
    """An entry of `[[indexes.parts]]`: a table of which many rows may belong to one document."""

    name: str = Field(default="", pattern=r"^$|" + NAME)
    """The name of such a part in hits, filters and payloads. Empty means the name of the table."""
    table: str = Field(min_length=1)
    """The table with the rows."""
    db_schema: str | None = Field(default=None, alias="schema")
    """The database schema of the table; that of the index's table, if none is named."""
    on: str | list[str] | dict[str, str] = Field(min_length=1)
    """The columns that have the document's key; or columns, each with the column of the document that it equals."""
    where: str | None = Field(default=None, min_length=1)
    """The condition, in SQL, for the rows of `table` that belong to documents."""
    joins: dict[str, JoinSettings] = Field(default={})
    """Tables that are joined with the rows."""
    key: str | list[str] | None = None
    """The column or columns by which a hit names the row."""
    order_by: str | list[str] = Field(default=[])
    """The columns that order the rows of a document; `created_at desc` begins with the latest."""
    text: str | list[str] = Field(min_length=1)
    """The text of a part: columns joined by new lines, or a template."""
    format: dict[str, Format] = Field(default={})
    """How the text of a column is written, if it is not plain."""
    payload: list[str] = Field(default=[])
    """Columns that a hit in such a part returns, below its name."""
    link: str | None = Field(default=None, min_length=1)
    """The address of a part, a template of its columns."""
    inline: bool = False
    """Whether the rows stand in the text of the document, and are not chunked by themselves."""

    def in_schema(self, schema: str) -> PartSettings:
        """Return the same with tables in this schema, unless they name their own."""
        joins = {name: join.in_schema(schema) for name, join in self.joins.items()}
        return self.model_copy(update={"db_schema": self.db_schema or schema, "joins": joins})

    @property
    def label(self) -> str:
        """Return the name of such a part."""
        return self.name or self.table

    @property
    def key_columns(self) -> list[str]:
        """Return the columns by which a hit names the row."""
        return as_list(self.key)

    @property
    def order(self) -> list[tuple[str, bool]]:
        """Return the columns that order the rows, and whether the greatest value comes first."""
        names = as_list(self.order_by)
        return [(n[: -len(DESCENDING)].strip(), True) if n.lower().endswith(DESCENDING) else (n, False) for n in names]

    @property
    def text_columns(self) -> list[str]:
        """Return the columns that the text consists of."""
        return template_columns(self.text)

    @property
    def shown_columns(self) -> list[str]:
        """Return the columns that a search may show."""
        return list(
            dict.fromkeys([*self.key_columns, *self.text_columns, *self.payload, *template_columns(self.link, "link")])
        )

    def pairs(self, key: Sequence[str]) -> list[tuple[str, str]]:
        """Return the columns of the part, each with the column of the document that it equals; `key` is its key."""
        return list(self.on.items()) if isinstance(self.on, dict) else list(zip(as_list(self.on), key, strict=True))

    @field_validator("text", "link")
    @classmethod
    def _check_template(cls, value: str | list[str] | None) -> str | list[str] | None:
        check_text(value)
        return value

    @model_validator(mode="after")
    def _check_consistency(self) -> PartSettings:
        check_joins(self.joins)
        check_format(self.format, self.text_columns)
        check_link(self.link)
        if self.inline and self.link is not None:
            raise ValueError(f"link cannot be used with inline: part {self.label!r} has no hits of its own")
        return self


def check_joins(joins: Mapping[str, JoinSettings]) -> None:
    """Raise ValueError if a join has an odd name, or equals columns of a join that does not come before it."""
    for number, (name, join) in enumerate(joins.items()):
        if not name.isidentifier() or not name.isascii() or name.startswith("_"):
            raise ValueError(f"joins: {name!r} should contain only letters, digits and _, and begin with a letter")
        before = list(joins)[:number]
        for _, column in join.pairs:
            other = column.partition(".")[0]
            if "." in column and other in joins and other not in before:
                raise ValueError(f"joins.{name} is on {column!r}, but join {other!r} does not come before it; move it")


def check_format(form: Mapping[str, Format], columns: Iterable[str]) -> None:
    """Raise ValueError if `format` names a column that no text has."""
    names = list(dict.fromkeys(columns))
    for name in form:
        if name not in names:
            raise ValueError(f"format names {name!r}, which is no column of the text ({', '.join(names)}); correct it")


def check_parts(parts: Sequence[PartSettings], key: Sequence[str], taken: Iterable[str]) -> None:
    """Raise ValueError if a part is not joined by the whole key, or has a name that another field has (`taken`)."""
    used = set(taken)
    for part in parts:
        if not isinstance(part.on, dict) and len(as_list(part.on)) != len(key):
            raise ValueError(
                f"part {part.label!r}: on names {len(as_list(part.on))} columns, but the key has {len(key)} "
                f'({", ".join(key)}); name one for each, or write on = {{column = "column of the document"}}'
            )
        if part.label in used:
            raise ValueError(f"two parts, joins or payload columns are named {part.label!r}; give the part a name")
        used.add(part.label)
