"""The table `[[indexes]]` of a settings file: what is indexed, and from which source."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, WithJsonSchema, field_validator, model_validator

from rag_index.core.settings.parts import (
    CHUNK_FIELD,
    GROUPS_FIELD,
    RESERVED,
    Format,
    Int,
    JoinName,
    JoinSettings,
    PartSettings,
    PayloadKind,
    Section,
    as_list,
    check_format,
    check_joins,
    check_link,
    check_parts,
    check_text,
    file_columns,
    is_select,
    kind_for,
    template_columns,
)
from rag_index.core.settings.sections import (
    ContextSettings,  # noqa: TC001 - pydantic looks it up
    GateSettings,  # noqa: TC001 - pydantic looks it up
    RecencySettings,  # noqa: TC001 - pydantic looks it up
)
from rag_index.core.settings.visible import VisibleSettings, check_visible, sql_texts

SQL, CODE = "sql", "code"
"""The built-in kinds of indexes. Any other kind is the name of an entry point
(`rag_index.sources`)."""
DATABASE = "database"
"""The value of `access` of an index whose database decides for each search which documents a caller
may see."""
NO_LANGUAGE = "none"
"""The language of an index without stemming and stop words."""
LANGUAGES = (
    "arabic",
    "azerbaijani",
    "basque",
    "bengali",
    "catalan",
    "chinese",
    "danish",
    "dutch",
    "english",
    "finnish",
    "french",
    "german",
    "greek",
    "hebrew",
    "hinglish",
    "hungarian",
    "indonesian",
    "italian",
    "japanese",
    "kazakh",
    "nepali",
    "norwegian",
    "portuguese",
    "romanian",
    "russian",
    "slovene",
    "spanish",
    "swedish",
    "tajik",
    "turkish",
)
"""The languages with stop words in Qdrant; it stems some of them."""
SQL_KEYS = {
    "table",
    "db_schema",
    "query",
    "key",
    "text",
    "payload",
    "access",
    "access_separator",
    "not_secret",
    "where",
    "newest",
    "title",
    "link",
    "format",
    "files",
    "joins",
    "parts",
    "language_column",
    "visible",
}
"""The keys that only kind `sql` has."""
CODE_KEYS = {"root", "include", "exclude", "languages"}
"""The keys that only kind `code` has."""
CODE_FIELDS = (
    "path",
    "language",
    "lines",
    "kind",
    "name",
    "qualified_name",
    "signature",
    "parent",
    "docstring",
)
"""The payload fields of source code."""
CODE_KINDS: Mapping[str, PayloadKind] = {
    **dict.fromkeys(CODE_FIELDS, "keyword"),
    "lines": "integer",
}
"""The kinds of values in the fields of source code, with or without a payload index."""
CodeLanguage = Literal[
    "c",
    "cpp",
    "go",
    "java",
    "javascript",
    "python",
    "ruby",
    "rust",
    "text",
    "tsx",
    "typescript",
]
"""The languages that source code is parsed as; `text` is split at lines."""
SECRET = re.compile(
    r"(?:\w*(?:passw(?:or)?[dt]|passphrase|passcode|kennwort|mot_?de_?passe|pwd|secret|token|credential)"
    r"|(?:\w*_)?(?:pass|mdp|contrase[nñ]a|wachtwoord|hash|salt|otp|totp|pin|cvv|cvc|jwt|nonce|cookie|session"
    r"|activation|actkey|security_?answer"
    r"|(?:activation|access|api|auth|backup|confirm(?:ation)?|deploy|encryption|gpg|invit(?:e|ation)|licen[cs]e|login"
    r"|otp|pgp|private|recovery|reset|security|session|sign(?:ing)?|ssh|unlock|verif(?:y|ication)|webhook)_?(?:key|code)))"
    r"(?:e?s)?(?:_?(?:data|digest|encrypted|hash|hex|hint|id|new|old|plain|salt|text|value|\d+))*"
)
"""The names of columns that hold secrets, in small letters with `_` between words. The last words
count: `token_hash`, not `token_count`."""


def is_named_like_a_secret(column: str) -> bool:
    """Return whether a column is named like a password, a key, a token or the like: "PasswordHash",
    "api_key"."""
    # Between "apiKey" and between "APIKey", and in place of "api-key".
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|[\W_]+", "_", column)
    return SECRET.fullmatch(words.strip("_").lower()) is not None


def split_languages(language: str) -> tuple[str, ...]:
    """Return the languages in the setting `language`, in order, each once."""
    names = [name.strip() for name in language.split(",")]
    return tuple(dict.fromkeys(name for name in names if name))


class IndexSettings(Section):
    """`[[indexes]]`: an index of a table or query, of a folder of source code, or of a custom
    source."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", max_length=100)
    """The name of the index: letters, digits, `-` and single `_`."""
    kind: str = Field(default=SQL, min_length=1)
    """Where documents come from. `sql`: a table or query of the database. `code`: [source
    code](sources.md#source-code). Any other name: an installed [source of your
    own](sources.md#a-source-of-your-own). A key that belongs to another kind is an error."""
    table: str | None = None
    """The table or view to read. Set either this or `query`."""
    db_schema: str | None = Field(default=None, alias="schema")
    """The schema of the table."""
    query: str | None = None
    """One SELECT without parameters, in place of `table`. Prefer a table or a view: a run first
    copies the rows of a server's query into a nameless file in `data`."""
    key: str | list[str] | None = None
    """The columns that identify a document: never NULL, unique, and of a type that can be ordered
    (not `FLOAT` of MariaDB and MySQL; their `ENUM` and `SET` are slow). Required with `sql`."""
    where: str | None = Field(default=None, min_length=1)
    """The SQL condition for the rows of `table` that may be shown at all, such as `"confidential =
    0"`. With a `query`, write it there."""
    visible: dict[str, VisibleSettings] = Field(default={})
    """Which values of a column are shown: [`[indexes.visible.NAME]`](#indexesvisiblename)."""
    newest: str | None = Field(default=None, min_length=1)
    """The column whose greatest value wins if several rows have the same `key`, such as versions.
    `where` decides about that row alone: if the newest version is hidden, no older one is shown."""
    joins: dict[JoinName, JoinSettings] = Field(default={})
    """Other tables with at most one row for each document:
    [`[indexes.joins.NAME]`](#indexesjoinsname)."""
    parts: list[PartSettings] = Field(default=[])
    """Tables with many rows for one document, such as comments:
    [`[[indexes.parts]]`](#indexesparts)."""
    title: str | None = Field(default=None, min_length=1)
    """The title of a document, embedded with each chunk and shown above each hit; its column need
    not be in `text`."""
    link: str | None = Field(default=None, min_length=1)
    """The address at which a person reads the document: `"https://desk.example.org/t/{id}"`, with
    values quoted, or `"{url}"` for a column with addresses. Only http, https and paths make a
    link."""
    text: str | list[str] | None = None
    r"""The text that is embedded: a column, several columns joined by line breaks (empty ones are
    left out), or a template such as `"{subject}\n{body}"`, in which literal braces are doubled.
    Required with `sql`, unless there is a `title` or `parts`."""
    format: dict[str, Format] = Field(default={})
    """The [format](sources.md#text-as-people-read-it) of columns: `plain` (the default), `html`,
    `markdown`, `bbcode`, `json`, `auto`, `file`, or a [plug-in](plugins.md)."""
    files: Path | None = None
    """The folder of the files that columns of format `file` name. Not set: the column holds the
    files themselves."""
    payload: list[str] = Field(default=[])
    """The columns that a hit returns beside its text."""
    not_secret: list[str] = Field(default=[])
    """Columns of `key`, `text` and `payload` that are named like secrets but hold none. `plan`
    warns of all others. [Secrets](#secrets) in a text with such a column are not masked."""
    payload_indexes: dict[str, PayloadKind] = Field(default={})
    """The payload columns to [filter](retrieval.md#filters) by, with their kind: `keyword`,
    `integer`, `float`, `bool` or `datetime`."""
    labels: dict[str, str] = Field(default={})
    """What [the page](service.md#the-page) calls payload columns: `{customer_id = "Customer"}`."""
    required_filter: dict[str, Any] = Field(default={})
    """A [filter](retrieval.md#required-filters) that every search of this index gets."""
    recency: RecencySettings | None = None
    """The payload column and the half-life by which [newer documents](retrieval.md#newer-first)
    come first."""
    access: str | None = Field(default=None, min_length=1)
    """[Who may see a document](access.md): the column with its groups, or a SELECT of pairs of key
    and group. With `"database"`, PostgreSQL is [asked in each
    search](access.md#rights-that-the-database-decides)."""
    access_separator: str = ","
    """The separator of several groups in a text column. Empty: the whole text is one group."""
    root: Path | None = None
    """With kind `code`, which requires it: the folder whose files are indexed."""
    include: list[str] = Field(default=[])
    """With kind `code`: [patterns](sources.md#which-files) of the files. Empty: all of a known
    language."""
    exclude: list[str] = Field(default=[])
    """With kind `code`: patterns of files and folders to leave out."""
    languages: dict[Annotated[str, Field(pattern=r"^\.[^./A-Z]+$")], CodeLanguage] = Field(
        default={}
    )
    """With kind `code`: the [language of files](sources.md#which-files) by their suffix."""
    options: dict[str, Any] = Field(default={})
    """Options for an installed source, or for the plug-in `chunker`."""
    chunker: str | None = Field(default=None, min_length=1)
    """A [plug-in](plugins.md) that splits documents into chunks, in place of the built-in way."""
    chunk_chars: Int = Field(default=1000, ge=20)
    """The maximum length of a chunk, at least 20 characters. A chunk ends at a paragraph, else a
    sentence, a line or a word."""
    chunk_overlap: Int = Field(default=100, ge=0)
    """How many characters of the previous chunk a chunk repeats, at most half of `chunk_chars`;
    none in source code."""
    search: Literal["hybrid", "dense"] = "hybrid"
    """How searches find: `hybrid` by [meaning and words](retrieval.md#meaning-and-words), `dense`
    by meaning alone."""
    language: Annotated[str, WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array"}]})] = (
        "english"
    )
    """The language of the texts, whose endings and frequent words make no difference to a search by
    words: `arabic`, `azerbaijani`, `basque`, `bengali`, `catalan`, `chinese`, `danish`, `dutch`,
    `english`, `finnish`, `french`, `german`, `greek`, `hebrew`, `hinglish`, `hungarian`,
    `indonesian`, `italian`, `japanese`, `kazakh`, `nepali`, `norwegian`, `portuguese`, `romanian`,
    `russian`, `slovene`, `spanish`, `swedish`, `tajik`, `turkish`, or `none`. With a list,
    `["english", "german"]`, the words of each chunk decide which of them it is in."""
    language_column: str | None = Field(default=None, min_length=1)
    """The column with the language of a document, by code (`de`, `deu`, `de_AT.UTF-8`) or name
    (`German`, `Deutsch`); `JOIN.column` works too."""
    context: ContextSettings | None = None
    """A model that writes a sentence for each chunk: [`[indexes.context]`](#indexescontext)."""
    gate: GateSettings | None = None
    """What a rebuilt collection must still find before it goes live:
    [`[indexes.gate]`](#indexesgate)."""

    @field_validator("language", mode="before")
    @classmethod
    def _check_language(cls, value: Any) -> Any:
        if not isinstance(value, str | list):
            return value
        names = split_languages(value if isinstance(value, str) else ",".join(map(str, value)))
        known = LANGUAGES if len(names) > 1 else (*LANGUAGES, NO_LANGUAGE)
        for name in names or ("",):
            if name not in known:
                raise ValueError(
                    f"{name!r} is not a known language; use {NO_LANGUAGE} or one or several of"
                    f" {', '.join(LANGUAGES)}"
                )
        return ", ".join(names)

    @model_validator(mode="after")
    def _check_consistency(self) -> IndexSettings:
        if "__" in self.name:
            raise ValueError(f"the name {self.name!r} must not contain two underscores in a row")
        self._check_kind()
        if self.kind == SQL:
            self._check_columns()
        if self.kind != CODE and self.chunk_overlap * 2 > self.chunk_chars:
            raise ValueError(
                f"chunk_overlap {self.chunk_overlap} is more than half of chunk_chars"
                f" {self.chunk_chars}; lower it"
            )
        self._check_fields("payload_indexes", self.payload_indexes)
        self._check_fields("required_filter", self.required_filter)
        if self.recency:
            self._check_fields("recency", [self.recency.field])
        self._check_fields("labels", self.labels)
        return self

    def _check_fields(self, key: str, fields: Iterable[str]) -> None:
        """Raise ValueError if the value of a key names a field that payloads do not have."""
        for field in fields:
            if self.has_field(field):
                continue
            known = ", ".join(self.fields or ()) or "none"
            remedy = "; add it there" if self.kind == SQL else ""
            raise ValueError(
                f"{key} names {field!r}, but payload has no such column ({known}){remedy}"
            )

    def _check_kind(self) -> None:
        """Raise ValueError for a key of another kind, or a missing one of kind `code`."""
        own_kind = self.kind if self.kind in (SQL, CODE) else ""
        given = self._changed_keys()
        # A plug-in `chunker` has options in any kind.
        custom_keys = set() if self.chunker else {"options"}
        for keys, kind in ((SQL_KEYS, SQL), (CODE_KEYS, CODE), (custom_keys, "")):
            wrong = sorted(keys & given)
            if kind == own_kind or not wrong:
                continue
            key = type(self).model_fields[wrong[0]].alias or wrong[0]
            owner = f"kind {kind!r}" if kind else "the kind of a custom source"
            raise ValueError(
                f"{key} belongs to {owner}, but this index has kind {self.kind!r}; remove one"
                " of them"
            )
        if self.kind == CODE and self.root is None:
            raise ValueError("root is missing: name the folder with the files")
        if self.kind == CODE and self.chunk_overlap and "chunk_overlap" in self.model_fields_set:
            raise ValueError(
                "chunk_overlap cannot be used with kind 'code', whose chunks do not overlap;"
                " remove it"
            )

    def _changed_keys(self) -> set[str]:
        """Return the keys whose value is not the default."""
        fields = type(self).model_fields
        return {
            name for name in self.model_fields_set if getattr(self, name) != fields[name].default
        }

    def _check_columns(self) -> None:
        """Raise ValueError if the keys of kind `sql` do not fit each other."""
        if (self.table is None) == (self.query is None):
            raise ValueError("needs either table or query")
        of_table = {"schema": self.db_schema, "where": self.where, "newest": self.newest}
        for key, value in of_table.items():
            if self.query is not None and value is not None:
                raise ValueError(f"{key} belongs to table; with a query, write it inside the query")
        if not self.key or not (self.text or self.title or self.parts):
            raise ValueError("key and text must name at least one column each")
        self._check_declaration()
        if RESERVED in self.payload:
            raise ValueError(
                "payload column _rag is reserved; rename it in a query (SELECT _rag AS …)"
            )

    def _check_declaration(self) -> None:
        """Check templates, joins, parts and decisions. Then put joins and parts without a schema
        into that of the index."""
        for key in ("text", "title"):
            check_text(getattr(self, key), key)
        check_link(self.link)
        check_joins(self.joins)
        check_format(self.format, [*self.title_columns, *self.text_columns])
        titles_of_files = set(file_columns(self.format)) & set(self.title_columns)
        if titles_of_files:
            names = ", ".join(titles_of_files)
            raise ValueError(f"the title cannot be a file ({names}); name a column of text")
        check_parts(self.parts, self.key_columns, [*self.joins, *self.payload])
        check_visible(self.visible, sql_texts(self))
        if self.language_column is not None and len(split_languages(self.language)) < 2:
            raise ValueError(
                "language_column chooses among several languages, but language is"
                f" {self.language!r}; list all languages of column {self.language_column!r} there"
            )
        if self.db_schema is not None:
            for name, join in self.joins.items():
                self.joins[name] = join.in_schema(self.db_schema)
            self.parts[:] = [part.in_schema(self.db_schema) for part in self.parts]
        for name in self.joins.keys() & set(self.payload):
            raise ValueError(
                f"payload column {name!r} has the name of a join; give the join another name"
            )

    @property
    def has_files(self) -> bool:
        """Return whether a column of the table or of a part has files."""
        formats = [self.format, *(part.format for part in self.parts)]
        return any(map(file_columns, formats))

    @property
    def shown_columns(self) -> list[str]:
        """Return the columns of a document, without those of its parts, that a search may show."""
        columns = [*self.key_columns, *self.title_columns, *self.text_columns, *self.payload]
        columns += template_columns(self.link, "link")
        return list(dict.fromkeys(columns))

    @property
    def secret_columns(self) -> list[str]:
        """Return the columns that searches would show and that are named like secrets, except
        `not_secret`."""
        shown = list(self.shown_columns)
        for part in self.parts:
            shown += [f"{part.label}.{name}" for name in part.shown_columns]
        found: list[str] = []
        for name in shown:
            # The column of `remark.token` is `token`.
            column = name.rpartition(".")[2]
            if name not in self.not_secret and is_named_like_a_secret(column):
                found.append(name)
        return found

    @property
    def fields(self) -> tuple[str, ...] | None:
        """Return the payload fields that filters may name; None if only a custom source has that
        list."""
        if self.kind == CODE:
            return CODE_FIELDS
        if self.kind != SQL:
            return None
        found = list(self.payload)
        for part in self.parts:
            found += [f"{part.label}.{name}" for name in part.payload]
        return tuple(found)

    def has_field(self, field: str) -> bool:
        """Return whether filters may name this payload field; dots lead into the value of a
        field."""
        known = self.fields
        if known is None:
            return True
        # meta.state leads into the field meta.
        return any(field == name or field.startswith(f"{name}.") for name in known)

    def kind_of(self, field: str) -> PayloadKind | None:
        """Return the kind of values that a payload field holds; None if the settings do not have
        it."""
        if self.kind == CODE:
            return self.indexed_fields.get(field, CODE_KINDS.get(field))
        return self.indexed_fields.get(field)

    @property
    def indexed_fields(self) -> dict[str, PayloadKind]:
        """Return the kind of each indexed payload field: of `payload_indexes`, `required_filter`
        and `access`.

        If there are keyword fields, the numbers of chunks are indexed too: a count of documents
        counts their first chunks.
        """
        found: dict[str, PayloadKind] = {}
        for field, value in self.required_filter.items():
            kind = kind_for(value)
            if kind:
                found[field] = kind
        found |= self.payload_indexes
        if self.kind != CODE and "keyword" in self.payload_indexes.values():
            found[CHUNK_FIELD] = "integer"
        if self.access is not None:
            found[GROUPS_FIELD] = "keyword"
        return found

    @property
    def access_column(self) -> str | None:
        """Return the column with the groups of each document, if there is one."""
        if self.access is None or self.access == DATABASE or is_select(self.access):
            return None
        return self.access

    @property
    def asks_database(self) -> bool:
        """Return whether the database decides for each search which documents the caller may
        see."""
        return self.access == DATABASE

    @property
    def access_query(self) -> str | None:
        """Return the query of pairs of key and group, if there is one."""
        if self.access is None or not is_select(self.access):
            return None
        return self.access

    @property
    def key_columns(self) -> list[str]:
        """Return the column or columns of the key."""
        return as_list(self.key)

    @property
    def title_columns(self) -> list[str]:
        """Return the columns that the title consists of."""
        return template_columns(self.title, "title")

    @property
    def text_columns(self) -> list[str]:
        """Return the columns that the text consists of, in order, once each."""
        return template_columns(self.text)
