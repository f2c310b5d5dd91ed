"""Golden files: queries, and the documents that a search should find for each of them.

A file has one JSON object a line: `{"query": "…", "relevant": ["118"], "index": "comments"}`.
Documents are named by their ids, as `rag-index search` prints them. `relevant` may also be an
object with a grade for each id: an integer, the greater the more relevant; 0 is not relevant.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from rag_index.core.documents.keys import possible_document_keys
from rag_index.core.files import read_written
from rag_index.errors import SettingsError, shortened

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping
    from pathlib import Path

    from rag_index.core.query_log import QueryLog
    from rag_index.core.settings import IndexSettings

EXAMPLE = '{"query": "printer offline", "relevant": ["118"]}'
MAX_SHOWN_VALUE = 60
"""Limit of a wrong value in a message, in characters. Chosen; nothing depends on it."""


@dataclass(frozen=True, slots=True)
class GoldenQuery:
    """A query and the documents that it should find."""

    query: str
    relevant: Mapping[str, int] = field(hash=False)
    """A grade above 0 for each document id."""
    index: str | None = None
    """The index of the documents; None if the file does not name it."""


def _graded(given: Any) -> Any:
    """Return a list of ids with a grade of 1 each; any other value as it is."""
    if not isinstance(given, list):
        return given
    for document_id in given:
        # A number stands for its digits: 118 is "118".
        is_id = isinstance(document_id, str | int) and not isinstance(document_id, bool)
        if not is_id or document_id == "":
            raise ValueError(f"{document_id!r} is no document's id, as `rag-index search` shows it")
    return dict.fromkeys(map(str, given), 1)


class _Line(BaseModel):
    """A line of a golden file."""

    model_config = ConfigDict(extra="forbid", strict=True)

    query: Annotated[str, Field(pattern=r"\S")]
    relevant: Annotated[
        dict[str, Annotated[int, Field(ge=0)]], BeforeValidator(_graded), Field(min_length=1)
    ]
    index: Annotated[str, Field(min_length=1)] | None = None
    note: str = ""


def read_golden(path: Path, index: str | None = None) -> list[GoldenQuery]:
    """Return the queries of a golden file.

    Lines with the same query and index become one query with the documents of all of them, and the
    highest grade of each document.

    Args:
        index: Return only the queries that name this index or none, as queries of this index.

    Raises:
        SettingsError: A line is not valid. The message has the file, the line and the value.
    """
    found = [_parse(place, line) for place, line in _lines(path)]
    if not found:
        raise SettingsError(
            f"{path} has no query with a relevant document: write one a line, such as {EXAMPLE}"
        )
    if index is not None:
        found = [replace(query, index=index) for query in found if query.index in (None, index)]
    merged: dict[tuple[str, str | None], GoldenQuery] = {}
    for query in found:
        key = (query.query, query.index)
        relevant = dict(merged[key].relevant) if key in merged else {}
        for document_id, grade in query.relevant.items():
            relevant[document_id] = max(grade, relevant.get(document_id, 0))
        merged[key] = replace(query, relevant=relevant)
    return list(merged.values())


def possible_keys(index: IndexSettings, document_id: str) -> list[str]:
    """Return the typed keys that an id in a golden file can stand for; empty if no document of the
    index can have it."""
    try:
        return possible_document_keys(index.key_columns, document_id)
    except SettingsError:
        return []


def without_documents(
    queries: Iterable[GoldenQuery], documents: Collection[str]
) -> list[GoldenQuery]:
    """Return the queries without these relevant documents. A query without any other is left
    out."""
    left = list[GoldenQuery]()
    for query in queries:
        relevant = {
            document_id: grade
            for document_id, grade in query.relevant.items()
            if document_id not in documents
        }
        if relevant:
            left.append(replace(query, relevant=relevant))
    return left


def golden_of_log(log: QueryLog, indexes: Collection[str]) -> list[GoldenQuery]:
    """Return the logged queries of these indexes, each with the documents that people opened from
    its hits.

    Raises SettingsError if nothing was opened.
    """
    found: dict[tuple[str, str], dict[str, int]] = {}
    for query, place in log.opened():
        # "comments/4711"
        index, _, document_id = place.partition("/")
        if index in indexes and query.strip():
            found.setdefault((query, index), {})[document_id] = 1
    if not found:
        raise SettingsError(
            "the log of queries has no document that was opened from the page: use it for some"
            " days, or name a golden file"
        )
    return [GoldenQuery(query, relevant, index) for (query, index), relevant in found.items()]


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """Yield each line that is not empty, after its place for a message. Raises SettingsError."""
    for number, line in enumerate(read_written(path, "golden file").split("\n"), 1):
        if line.strip():
            yield f"{path}, line {number}", line


def _parse(place: str, line: str) -> GoldenQuery:
    """Return the query of a line. Raises SettingsError, which names the `place`."""
    try:
        found = _Line.model_validate_json(line)
    except ValidationError as exc:
        raise SettingsError(f"{place}: {_fault(exc)}; write {EXAMPLE}") from None
    relevant = {document_id: grade for document_id, grade in found.relevant.items() if grade}
    if not relevant:
        raise SettingsError(
            f"{place}: relevant has no document with a grade above 0; add one or remove the line"
        )
    return GoldenQuery(found.query, relevant, found.index)


def _fault(exc: ValidationError) -> str:
    """Return the first fault: "relevant is missing: Field required"."""
    error = exc.errors()[0]
    # The line itself may be wrong, if it is no JSON.
    key = ".".join(map(str, error["loc"])) or "it"
    if error["type"] == "missing":
        return f"{key} is missing: {error['msg']}"
    value = error["input"]
    if not isinstance(value, str):
        value = json.dumps(value, ensure_ascii=False)
    return f"{key} is {shortened(value, MAX_SHOWN_VALUE)!r}: {error['msg']}"
