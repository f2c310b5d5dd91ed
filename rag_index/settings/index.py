"""The table `[[indexes]]` of a settings file: what is indexed, and where it comes from."""

from __future__ import annotations

import string
from pathlib import Path  # noqa: TC003 - pydantic looks it up
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from rag_index.settings.context import ContextSettings  # noqa: TC001 - pydantic looks it up
from rag_index.settings.values import Number, OptionalTable, PositiveInt, Section, Table, Whole

if TYPE_CHECKING:
    from pydantic import ValidationInfo

__all__ = ["CODE", "SQL", "IndexSettings"]

SQL, CODE = "sql", "code"
"""Kinds of indexes; any other kind is the name of an entry point (`rag_index.sources`)."""
OF_SQL = {"table", "db_schema", "query", "key", "text", "payload", "changed_since", "changed_overlap"}
OF_CODE = {"root", "include", "exclude", "max_file_bytes", "file_timeout"}
OF_OTHERS = {"options"}
"""Keys that go with one kind alone."""
CODE_FIELDS = (
    "path", "language", "lines", "kind", "name", "qualified_name", "signature", "parent", "docstring",
)  # fmt: skip
"""The payload of source code."""
RESERVED = "_rag"
PayloadKind = Literal["keyword", "integer", "float", "bool", "datetime"]


def _kind(wanted: Any) -> str | None:
    """The kind of payload index that serves a filter on this value."""
    if isinstance(wanted, list):
        kinds = {_kind(one) for one in wanted}
        return kinds.pop() if len(kinds) == 1 else None
    return {str: "keyword", bool: "bool", int: "float", float: "float"}.get(type(wanted))


class IndexSettings(Section):
    """`[[indexes]]`: a table or a query, a folder of source code, or a source of one's own."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", max_length=100)
    kind: str = Field(default=SQL, min_length=1)
    """`sql`, `code`, or the name of an installed source (entry point group `rag_index.sources`)."""
    table: str | None = None
    db_schema: str | None = Field(default=None, alias="schema")
    query: str | None = None
    key: str | list[str] | None = Field(default=None, validate_default=True)
    text: str | list[str] | None = Field(default=None, validate_default=True)
    """Columns joined by new lines, or one template such as "{summary}\\n{description}"."""
    payload: list[str] = Field(default=[])
    payload_indexes: Annotated[dict[str, PayloadKind], Table] = Field(default={})
    """Payload columns that searches filter by, and of which kind their values are."""
    required_filter: Annotated[dict[str, Any], Table] = Field(default={})
    """What every search of this index is narrowed to, whatever its caller says; written as filters are."""
    changed_since: str | None = None
    """A column with the time of a row's last change: a run then reads whole only what changed since the last one."""
    changed_overlap: Number = Field(default=3600.0, ge=0)
    """Seconds by which a change may be committed later than it is dated."""
    full_compare_days: Number = Field(default=7.0, ge=0)
    """How often all is read all the same, where a source leaves unread what did not change."""
    root: Path | None = Field(default=None, validate_default=True)
    """Of kind code: the folder whose files are indexed."""
    include: list[str] = Field(default=[])
    """Of kind code: patterns of the files that are indexed, from root; all whose language is known if empty."""
    exclude: list[str] = Field(default=[])
    """Of kind code: patterns of files and folders that are not, beside those of .gitignore."""
    max_file_bytes: PositiveInt = 1_000_000
    """Of kind code: larger files are skipped."""
    file_timeout: Number = Field(default=10.0, gt=0)
    """Of kind code: seconds in which a file has to be parsed."""
    options: Annotated[dict[str, Any], Table] = Field(default={})
    """What an installed source is given."""
    chunk_chars: Whole = Field(default=1000, ge=20)
    chunk_overlap: Whole = Field(default=100, ge=0)
    context: Annotated[ContextSettings | None, OptionalTable] = None
    """What a model writes of each chunk, to be embedded before it; nothing where it is not given."""

    @field_validator("key", "text", "root")
    @classmethod
    def _given(cls, value: Any, info: ValidationInfo) -> Any:
        needs = CODE if info.field_name == "root" else SQL
        if value is None and info.data.get("kind") == needs:
            raise PydanticCustomError("missing", "Field required")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> IndexSettings:
        if "__" in self.name:
            raise ValueError(f"the name {self.name!r} must not have two underscores in a row, as collections' names do")
        self._of_its_kind()
        if self.kind == SQL:
            self._consistent_columns()
        if self.kind != CODE and self.chunk_overlap * 2 > self.chunk_chars:
            raise ValueError(
                f"chunk_overlap {self.chunk_overlap} is more than half of chunk_chars {self.chunk_chars}; make it less"
            )
        self._known_fields()
        return self

    def _of_its_kind(self) -> None:
        """No key of another kind."""
        for keys, kind in ((OF_SQL, SQL), (OF_CODE, CODE), (OF_OTHERS, "of a source of one's own")):
            mine = self.kind == kind or (keys is OF_OTHERS and self.kind not in (SQL, CODE))
            wrong = [] if mine else sorted(name for name in keys & self.model_fields_set if self._differs(name))
            if wrong:
                key = {"db_schema": "schema"}.get(wrong[0], wrong[0])
                goes = f"kind = {kind!r}" if kind in (SQL, CODE) else f"kinds {kind}"
                raise ValueError(
                    f"{key} goes with {goes}, and this index is of kind {self.kind!r}; take one of the two away"
                )
        if self.kind == CODE and self.chunk_overlap and "chunk_overlap" in self.model_fields_set:
            raise ValueError("chunk_overlap does not go with kind 'code', whose chunks do not overlap; take it away")

    def _differs(self, name: str) -> bool:
        """Whether a value that was given says more than that there is none."""
        return bool(getattr(self, name) != type(self).model_fields[name].default)

    def _consistent_columns(self) -> None:
        if (self.table is None) == (self.query is None):
            raise ValueError("needs either table or query")
        if self.query is not None and self.db_schema is not None:
            raise ValueError("schema goes with table; name it inside the query")
        if not self.key or not self.text:
            raise ValueError("key and text name at least one column each")
        if not self.text_columns:
            raise ValueError(f'text {self.text!r} is a template that names no column; write it as "{{column}}"')
        if RESERVED in self.payload:
            raise ValueError("payload column _rag is reserved; rename it in a query (SELECT _rag AS …)")

    def _known_fields(self) -> None:
        """Fields that filters name are there, where it is known which there are."""
        if self.kind not in (SQL, CODE):
            return
        fields = self.payload if self.kind == SQL else CODE_FIELDS
        for key in ("payload_indexes", "required_filter"):
            for field in getattr(self, key):
                if not {field, field.split(".")[0]} & set(fields):
                    there = ", ".join(fields) or "none"
                    remedy = "; add it there" if self.kind == SQL else ""
                    raise ValueError(f"{key} names {field!r}, and payload has no such column ({there}){remedy}")

    @property
    def indexed_fields(self) -> dict[str, str]:
        """Payload fields that have an index, by kind: those named, and those of the required filter."""
        required = {field: _kind(wanted) for field, wanted in self.required_filter.items()}
        return {**{field: kind for field, kind in required.items() if kind}, **self.payload_indexes}

    @property
    def key_columns(self) -> list[str]:
        """Columns of the key, one or several."""
        return [self.key] if isinstance(self.key, str) else self.key or []

    @property
    def template(self) -> list[tuple[str, str | None]] | None:
        """The text template, where text is one: what stands before a column, and the column (None at the end).

        Raises:
            ValueError: it is not well formed.
        """
        if not isinstance(self.text, str) or not {"{", "}"} & set(self.text):
            return None
        parts: list[tuple[str, str | None]] = []
        try:
            for literal, name, form, conversion in string.Formatter().parse(self.text):
                if form or conversion or name == "":
                    raise ValueError("between braces stands a column's name and nothing else")
                parts.append((literal, name))
        except ValueError as exc:
            raise ValueError(f"text {self.text!r} is not a template: {exc}; write a brace itself as {{{{") from None
        return parts

    @property
    def text_columns(self) -> list[str]:
        """Columns that the text is made of, in order, once each."""
        template = self.template
        if template is not None:
            return list(dict.fromkeys(name for _, name in template if name))
        return [self.text] if isinstance(self.text, str) else list(dict.fromkeys(self.text or ()))
