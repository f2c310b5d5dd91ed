"""The building blocks of sections and indexes: the base class of tables, types of values, kinds of
payload indexes, prompts of known models, and `[indexes.joins.NAME]` and `[[indexes.parts]]` with
their templates."""

from __future__ import annotations

import ast
import inspect
import re
import string
import typing
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from textwrap import dedent
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from rag_index.core.database import database_url
from rag_index.core.settings.plugins import FORMATS, installed
from rag_index.redaction import keep_secret, keep_url

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo


def keys_of(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """Return the fields of a model by their keys in the file."""
    return {
        field.alias or name: field
        for name, field in model.model_fields.items()
        if not field.exclude
    }


def tables_of(model: type[BaseModel], collection: type | None = None) -> dict[str, type[BaseModel]]:
    """Return the models of those keys of a model that are tables with keys of their own.

    `list` selects the keys that are lists of such tables (`[[indexes.parts]]`), `dict` those that
    give each of them a name (`[indexes.joins.NAME]`).
    """
    found: dict[str, type[BaseModel]] = {}
    for key, field in keys_of(model).items():
        origin = typing.get_origin(field.annotation)
        # An optional table, `GateSettings | None`, is no collection.
        if (origin if origin in (list, dict) else None) is not collection:
            continue
        for kind in (field.annotation, *typing.get_args(field.annotation)):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                found[key] = kind
    return found


def meanings(kind: type) -> dict[str, str]:
    """Return the docstrings below the attributes of a class."""
    source = dedent(inspect.getsource(kind))
    definition: Any = ast.parse(source).body[0]
    found: dict[str, str] = {}
    for attribute, text in pairwise(definition.body):
        if isinstance(attribute, ast.AnnAssign) and isinstance(text, ast.Expr):
            docstring: Any = text.value
            found[ast.unparse(attribute.target)] = inspect.cleandoc(ast.literal_eval(docstring))
    return found


def is_select(text: str) -> bool:
    """Return whether the value of a setting is a query, and no name."""
    found = re.match(r"\s*(select|with)\s", text, re.IGNORECASE)
    return found is not None


class Section(BaseModel):
    """A table of the settings file. Unknown keys are errors, and values cannot be changed."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class Secret(SecretStr):
    """A secret of the settings: a password, a key, or a URL that may hold one. Each process that
    makes or unpickles it registers it for redaction (`rag_index.redaction`)."""

    def __init__(self, value: str) -> None:
        super().__init__(value)
        self._keep()

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._keep()

    def _keep(self) -> None:
        value = self.get_secret_value()
        if "://" in value:
            keep_url(value)
        else:
            keep_secret(value)


SURROUNDING = re.compile(r"\A[\s\ufeff]+|[\s\ufeff]+\Z")
"""What files and editors put around a value: white space, line ends, and a byte order mark."""


def stripped(value: Any) -> Any:
    """Return a text without surrounding white space and byte order marks, and any other value
    unchanged."""
    if isinstance(value, str):
        return SURROUNDING.sub("", value)
    return value


def header_key(text: str) -> str:
    """Return a key without surrounding white space. Raises ValueError if it has a character that no
    HTTP header accepts; the message names that character and does not repeat the key."""
    key = str(stripped(text))
    wrong = re.search(r"[^ -~]", key)
    if not wrong:
        return key
    char = wrong[0]
    shown = f"U+{ord(char):04X} {unicodedata.name(char, '')}".rstrip()
    if char in "\r\n":
        shown = "a line break"
    raise ValueError(
        f"cannot be sent: its character {wrong.start() + 1} is {shown}; give the key alone, in"
        " ASCII"
    )


def _check_api_key(value: Secret) -> Secret:
    header_key(value.get_secret_value())
    return value


def _check_database_url(value: Secret) -> Secret:
    database_url(value.get_secret_value(), Path())
    return value


def _keep_login(value: str) -> str:
    keep_url(value)
    return value


def _check_http_url(value: str) -> str:
    if re.match(r"[^:/]+://[^/]*@", value):
        raise ValueError(
            "must not hold a user and password, which messages would show; give only the address"
        )
    if not re.match(r"https?://[^/\s]+", value):
        raise ValueError("is not an address; write it as http://host:port")
    if "?" in value or "#" in value:
        raise ValueError(
            "must not hold a query (?…), which messages would show; a key belongs into api_key"
        )
    return value.rstrip("/")


def _reject_bool(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("should be a number")  # pydantic accepts true as 1
    return value


def _check_scheduler_address(value: str) -> str:
    if not re.fullmatch(r"(tcp|tls)://[^/\s]+:\d+", value):
        raise ValueError(
            "is not the address of a Dask scheduler; write it as tcp://host:8786 or tls://host:8786"
        )
    return value


DatabaseUrl = Annotated[Secret, BeforeValidator(stripped), AfterValidator(_check_database_url)]
ApiKey = Annotated[Secret, BeforeValidator(stripped), AfterValidator(_check_api_key)]
HttpUrl = Annotated[str, BeforeValidator(stripped), AfterValidator(_check_http_url)]
LoginUrl = Annotated[str, BeforeValidator(stripped), AfterValidator(_keep_login)]
"""A value that may be the URL of a server with user and password, or a key among its options."""
DaskAddress = Annotated[str, AfterValidator(_check_scheduler_address)]
Auto = Literal["auto"]
Int = Annotated[int, BeforeValidator(_reject_bool)]
PositiveInt = Annotated[int, BeforeValidator(_reject_bool), Field(gt=0)]
Number = Annotated[float, BeforeValidator(_reject_bool), Field(allow_inf_nan=False)]
Share = Annotated[Number, Field(ge=0, le=1)]


PayloadKind = Literal["keyword", "integer", "float", "bool", "datetime"]
RESERVED = "_rag"
CHUNK_FIELD = f"{RESERVED}.chunk"
"""The payload field with a chunk's number in its document, from 0."""
GROUPS_FIELD = f"{RESERVED}.groups"
"""The payload field with the groups that may see a document."""


@dataclass(frozen=True, slots=True)
class KindOfValues:
    """The values that a payload index holds: their types in a payload, and their description for a
    caller."""

    types: frozenset[type]
    json_type: str
    description: str
    ordered: Literal["", "numbers", "times"] = ""
    """How gte, gt, lte and lt compare the values; "" if they have no order."""


PAYLOAD_KINDS: Mapping[str, KindOfValues] = {
    "keyword": KindOfValues(frozenset({str}), "string", "text"),
    "integer": KindOfValues(frozenset({int}), "integer", "a whole number", "numbers"),
    "float": KindOfValues(frozenset({int, float}), "number", "a number", "numbers"),
    "bool": KindOfValues(frozenset({bool}), "boolean", "true or false"),
    "datetime": KindOfValues(
        frozenset({str}), "string", 'a time in ISO 8601, as in {"gte": "2024-01-01"}', "times"
    ),
}
"""The kinds, by Qdrant's names. A new kind is an entry here and in `PayloadKind`."""


def kind_for(value: Any) -> PayloadKind | None:
    """Return the kind of payload index for a filter on this value; None if there is none."""
    # Any of several values, which need one index.
    if isinstance(value, list):
        kinds = {kind_for(item) for item in value}
        return kinds.pop() if len(kinds) == 1 else None
    kinds_by_type: Mapping[type, PayloadKind] = {
        str: "keyword",
        bool: "bool",
        int: "float",
        float: "float",
    }
    return kinds_by_type.get(type(value))


_SENTENCE = "Represent this sentence for searching relevant passages: "
_WEB = "Given a web search query, retrieve relevant passages that answer the query"
_NO_PROMPTS = (
    "all-(minilm|mpnet|distilroberta)|paraphrase|multi-qa|labse|bge-m3|granite-embedding|jina-embeddings-v2|"
    "gte-(small|base|large|multilingual|modernbert)|text-embedding-(3|ada)|mistral-embed|static-retrieval"
)
_INSTRUCTED = "e5-(large|mistral-7b)-instruct|gte-qwen[0-9-]+b-instruct|linq-embed-mistral|sfr-embedding-(mistral|2-r)"
PROMPTS = (
    ("nomic-embed-code", "", "Represent this query for searching relevant code: "),
    ("nomic-embed-text|modernbert-embed", "search_document: ", "search_query: "),
    ("arctic-embed2|arctic-embed-[a-z]-v2", "", "query: "),
    ("bge-(small|base|large)-zh", "", "为这个句子生成表示以用于检索相关文章："),
    ("bge-(small|base|large)|arctic-embed|mxbai-embed-(2d-)?large|uae-large", "", _SENTENCE),
    ("bge-multilingual-gemma2", "", f"<instruct>{_WEB}.\n<query>"),
    (_INSTRUCTED, "", f"Instruct: {_WEB}\nQuery: "),
    ("e5-(small|base|large)", "passage: ", "query: "),
    ("qwen3-embedding", "", f"Instruct: {_WEB}\nQuery:"),
    ("stella-en", "", f"Instruct: {_WEB}.\nQuery: "),
    ("embedding-?gemma", "title: none | text: ", "task: search result | query: "),
    (
        "jina-embeddings-v3",
        "Represent the document for retrieval: ",
        "Represent the query for retrieving evidence documents: ",
    ),
    ("jina-embeddings-v4", "Passage: ", "Query: "),
    ("jina-embeddings-v5", "Document: ", "Query: "),
    ("ruri-v3", "検索文書: ", "検索クエリ: "),
    (_NO_PROMPTS, "", ""),
)
"""Patterns of model names, with the text before a document and before a query. The first pattern
that is a part of a name counts."""


def known_prompts(model: str) -> tuple[str, str] | None:
    """Return document and query prefix of a model, whatever registry, size, quantisation and tag
    its name has. None if the model is unknown."""
    # A folder of the cache of Hugging Face: …/models--BAAI--bge-m3/snapshots/5617a9f.
    path = re.sub(r"/snapshots/[^/]+$", "", model.lower().rstrip("/"))
    name = re.sub(r"[^a-z0-9]+", "-", path.rsplit("/", 1)[-1])
    for pattern, document, query in PROMPTS:
        if re.search(rf"(^|-)({pattern})(-|$)", name):
            return document, query
    return None


TEXT_FORMATS = ("plain", "html", "markdown", "bbcode", "json", "auto")
FILE = "file"


def _check_format_name(form: str) -> str:
    if form in TEXT_FORMATS or form == FILE:
        return form
    plugins = installed(FORMATS)
    if form not in plugins:
        known = ", ".join((*TEXT_FORMATS, FILE, *plugins))
        raise ValueError(f"{form!r} is no format; use one of {known}")
    return form


Format = Annotated[
    str,
    AfterValidator(_check_format_name),
    WithJsonSchema({"anyOf": [{"enum": [*TEXT_FORMATS, FILE]}, {"type": "string"}]}),
]
"""How a column is written: as a text, as a file, or in the format of the plug-in of this name."""
Template = list[tuple[str, str | None]]
"""The parts of a template: the literal before a column, and the column (None at the end)."""
JOIN_NAME = r"^[A-Za-z][A-Za-z0-9_]*$"
JoinName = Annotated[str, Field(pattern=JOIN_NAME)]
ADDRESS = re.compile(r"(https?://[^/\s\\]|/(?![/\\]))[^\s\\\x00-\x1f]*")
"""An http or https URL, or a path on the service's own host: a page opens no other link."""
DESCENDING = " desc"
"""The end of a column in `order_by` that sorts the greatest value first."""


def read_template(text: str | Sequence[str] | None, key: str = "text") -> Template | None:
    """Return the parts of a template; None if the value of the setting `key` is a column or a list
    of columns. Raises ValueError if the template is malformed."""
    if not isinstance(text, str) or not {"{", "}"} & set(text):
        return None
    parts: Template = []
    try:
        for literal, name, form, conversion in string.Formatter().parse(text):
            if form or conversion or name == "":
                raise ValueError("braces may contain only the name of a column")
            parts.append((literal, name))
    except ValueError as exc:
        raise ValueError(
            f"{key} {text!r} is not a template: {exc}; write a literal brace as {{{{"
        ) from None
    return parts


def template_columns(text: str | Sequence[str] | None, key: str = "text") -> list[str]:
    """Return the columns of a text, in order, each once. Raises ValueError like `read_template`."""
    template = read_template(text, key)
    if template is not None:
        return list(dict.fromkeys(name for _, name in template if name))
    return list(dict.fromkeys(as_list(text)))


def as_list(value: str | Sequence[str] | None) -> list[str]:
    """Return the columns of a setting that is one column or a list of them."""
    if isinstance(value, str):
        return [value]
    return list(value or ())


def check_text(text: str | Sequence[str] | None, key: str = "text") -> None:
    """Raise ValueError if a template names no column."""
    if read_template(text, key) is not None and not template_columns(text, key):
        raise ValueError(
            f'{key} {text!r} is a template that names no column; write it as "{{column}}"'
        )


def check_link(link: str | None) -> None:
    """Raise ValueError if a link is no template, or may become an address that a page must not
    open."""
    if link is None:
        return
    template = read_template(link, "link")
    if template is None:
        raise ValueError(f'link {link!r} names no column; write it as "https://…/{{id}}"')
    example = "".join(literal + ("x" if name else "") for literal, name in template)
    # "{url}": the column holds the address, whose value is checked when a page shows it.
    if template and not template[0][0]:
        example = f"https://{example}"
    if template and not ADDRESS.fullmatch(example):
        raise ValueError(
            f"link {link!r} should begin with https://, http://, / or a column that holds an"
            " address"
        )


def split_name(name: str, joins: Mapping[str, JoinSettings]) -> tuple[str | None, str]:
    """Return the join and the column of a name: ("customer", "region") of `customer.region`. The
    join is None for a column of the table itself."""
    join, dot, column = name.partition(".")
    if dot and join in joins:
        return join, column
    return None, name


class JoinSettings(Section):
    """`[indexes.joins.NAME]`: another table, whose row gives columns `NAME.column` to the document
    or part."""

    table: str = Field(min_length=1)
    """The table or view that is joined."""
    db_schema: str | None = Field(default=None, alias="schema")
    """The schema of the table; without one, that of the index."""
    on: str | dict[str, str] = Field(min_length=1)
    """The column that holds the `id` of the joined row. Otherwise columns of `table`, each with the
    column that it equals: `{code = "customer.region"}`. It may name a column of an earlier join."""
    where: str | None = Field(default=None, min_length=1)
    """The condition for the rows of `table` that count, in SQL."""
    required: bool = False
    """Whether documents that join with no row are left out, such as the posts of a topic that
    `where` hides."""

    def in_schema(self, schema: str) -> JoinSettings:
        """Return the same join with its table in this schema, unless it names its own."""
        if self.db_schema:
            return self
        return self.model_copy(update={"db_schema": schema})

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Return the columns of `table`, each with the column that it equals."""
        if isinstance(self.on, str):
            return [("id", self.on)]
        return list(self.on.items())


class PartSettings(Section):
    """An entry of `[[indexes.parts]]`: a table with many rows for one document."""

    name: str = Field(default="", pattern=r"^$|" + JOIN_NAME)
    """What hits, filters and payloads call such a part. Empty: the name of the table."""
    table: str = Field(min_length=1)
    """The table or view with the rows."""
    db_schema: str | None = Field(default=None, alias="schema")
    """The schema of the table; without one, that of the index."""
    on: str | list[str] | dict[str, str] = Field(min_length=1)
    """The columns that have the document's key, in its order; otherwise columns of the part, each
    with the column of the document that it equals: `{topic_id = "id"}`."""
    where: str | None = Field(default=None, min_length=1)
    """The condition, in SQL, for the rows that belong to documents: `"about_type = 'Ticket' AND
    internal = 0"`."""
    joins: dict[JoinName, JoinSettings] = Field(default={})
    """Other tables with at most one row for each row of the part."""
    key: str | list[str] | None = None
    """The columns by which a hit names the row."""
    order_by: str | list[str] = Field(default=[])
    """The columns that order the rows of a document; `"created_at desc"` begins with the latest."""
    text: str | list[str] = Field(min_length=1)
    """The text of a part."""
    format: dict[str, Format] = Field(default={})
    """The format of columns, as for an index."""
    payload: list[str] = Field(default=[])
    """The columns that a hit in such a part returns, as fields like `remark.author`."""
    link: str | None = Field(default=None, min_length=1)
    """The address of a part, from its own columns."""
    inline: bool = False
    """Whether the rows, such as tags, stand in the text of the document; `payload` then holds the
    values of all."""

    def in_schema(self, schema: str) -> PartSettings:
        """Return the same part with its tables in this schema, unless they name their own."""
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
        found: list[tuple[str, bool]] = []
        for name in as_list(self.order_by):
            # "created_at desc"
            if name.lower().endswith(DESCENDING):
                found.append((name[: -len(DESCENDING)].strip(), True))
            else:
                found.append((name, False))
        return found

    @property
    def text_columns(self) -> list[str]:
        """Return the columns that the text consists of."""
        return template_columns(self.text)

    @property
    def shown_columns(self) -> list[str]:
        """Return the columns that a search may show."""
        columns = [*self.key_columns, *self.text_columns, *self.payload]
        columns += template_columns(self.link, "link")
        return list(dict.fromkeys(columns))

    def pairs(self, key: Sequence[str]) -> list[tuple[str, str]]:
        """Return the columns of the part, each with the column of the document that it equals.
        `key` has the columns of the document's key."""
        if isinstance(self.on, dict):
            return list(self.on.items())
        columns = as_list(self.on)
        return list(zip(columns, key, strict=True))

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
        if self.inline and file_columns(self.format):
            raise ValueError(
                f"part {self.label!r} cannot be inline: files are parts of their own; remove inline"
            )
        if self.inline and self.link is not None:
            raise ValueError(
                f"link cannot be used with inline: part {self.label!r} has no hits of its own"
            )
        return self


def check_joins(joins: Mapping[str, JoinSettings]) -> None:
    """Raise ValueError if a join refers to a join that does not come before it."""
    before: set[str] = set()
    for name, join in joins.items():
        for _, column in join.pairs:
            # customer.region refers to the join customer.
            other = column.partition(".")[0]
            if "." in column and other in joins and other not in before:
                raise ValueError(
                    f"joins.{name} is on {column!r}, but join {other!r} does not come before it;"
                    " move it"
                )
        before.add(name)


def check_format(form: Mapping[str, Format], columns: Iterable[str]) -> None:
    """Raise ValueError if `format` names a column that is not in the text."""
    names = list(dict.fromkeys(columns))
    for name in form:
        if name not in names:
            raise ValueError(
                f"format names {name!r}, which is no column of the text ({', '.join(names)});"
                " correct it"
            )


def file_columns(form: Mapping[str, str]) -> list[str]:
    """Return the columns whose format is read as files: `file`, and all plug-ins."""
    return [column for column, name in form.items() if name not in TEXT_FORMATS]


def check_parts(parts: Sequence[PartSettings], key: Sequence[str], taken: Iterable[str]) -> None:
    """Raise ValueError if a part is not joined by the complete key, or has the name of another
    field (`taken`)."""
    used = set(taken)
    for part in parts:
        if not isinstance(part.on, dict):
            _check_part_key(part, as_list(part.on), key)
        if part.label in used:
            raise ValueError(
                f"two parts, joins or payload columns are named {part.label!r}; give the part a"
                " name"
            )
        used.add(part.label)


def _check_part_key(part: PartSettings, columns: Sequence[str], key: Sequence[str]) -> None:
    if len(columns) != len(key):
        raise ValueError(
            f"part {part.label!r}: on names {len(columns)} columns, but the key has"
            f" {len(key)} "
            f'({", ".join(key)}); name one for each, or write on = {{column = "column of the'
            ' document"}'
        )
