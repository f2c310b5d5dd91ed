"""Golden files: queries, and the documents that a search should find for each of them.

A file has one JSON object a line: `{"query": "…", "relevant": ["118"], "index": "comments"}`.
Documents are named by their ids, as `rag-index search` shows them. `relevant` may also be an object
that gives each id a grade, a whole number: the greater, the more relevant; 0 is not relevant.
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
"""Characters of a wrong value that a message shows."""


@dataclass(frozen=True, slots=True)
class GoldenQuery:
    """A query and the documents that it should find. `relevant` has a grade above 0 for each
    document id.

    `index` is the index that the documents are in; None if the file does not say.
    """

    query: str
    relevant: Mapping[str, int] = field(hash=False)
    index: str | None = None


def _graded(given: Any) -> Any:
    """Return a list of ids with a grade of 1 each; a number is taken for its digits, as ids are
    shown."""
    if not isinstance(given, list):
        return given
    for one in given:
        if isinstance(one, bool) or not isinstance(one, str | int) or one == "":
            raise ValueError(f"{one!r} is no document's id, as `rag-index search` shows it")
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
    """Return the queries of a golden file; for one index those that name it or none, as its own.

    Lines with the same query and index become one query with the documents of all of them, and the
    highest grade of each. Raises SettingsError, which names the file, the line and the value.
    """
    found = [_parse(*line) for line in _lines(path)]
    if not found:
        raise SettingsError(
            f"{path} has no query with a relevant document: write one a line, such as {EXAMPLE}"
        )
    if index is not None:
        found = [replace(one, index=index) for one in found if one.index in (None, index)]
    merged: dict[tuple[str, str | None], GoldenQuery] = {}
    for one in found:
        known = merged.get((one.query, one.index), one)
        grades = {
            name: max(grade, known.relevant.get(name, 0)) for name, grade in one.relevant.items()
        }
        merged[one.query, one.index] = replace(known, relevant={**known.relevant, **grades})
    return list(merged.values())


def possible_keys(index: IndexSettings, document_id: str) -> list[str]:
    """Return the typed keys that an id in a golden file may stand for; none if no document of the
    index can have it."""
    try:
        return possible_document_keys(index.key_columns, document_id)
    except SettingsError:
        return []


def without_documents(
    queries: Iterable[GoldenQuery], documents: Collection[str]
) -> list[GoldenQuery]:
    """Return the queries without these relevant documents, and without those that have no
    others."""
    left = [
        (query, {one: grade for one, grade in query.relevant.items() if one not in documents})
        for query in queries
    ]
    return [replace(query, relevant=relevant) for query, relevant in left if relevant]


def golden_of_log(log: QueryLog, indexes: Collection[str]) -> list[GoldenQuery]:
    """Return a query for each that people asked in these indexes, with what they opened from its
    hits.

    Raises SettingsError if nothing was opened.
    """
    found: dict[tuple[str, str], dict[str, int]] = {}
    for query, place in log.opened():
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
    """Yield each line that is not empty, with its place for a message. Raises SettingsError."""
    for number, line in enumerate(read_written(path, "golden file").split("\n"), 1):
        if line.strip():
            yield f"{path}, line {number}", line


def _parse(place: str, line: str) -> GoldenQuery:
    try:
        found = _Line.model_validate_json(line)
    except ValidationError as exc:
        error = exc.errors()[0]
        key = ".".join(map(str, error["loc"]))
        given = (
            error["input"]
            if isinstance(error["input"], str)
            else json.dumps(error["input"], ensure_ascii=False)
        )
        shown = (
            " is missing"
            if error["type"] == "missing"
            else f" is {shortened(given, MAX_SHOWN_VALUE)!r}"
        )
        raise SettingsError(
            f"{place}: {key or 'it'}{shown}: {error['msg']}; write {EXAMPLE}"
        ) from None
    relevant = {name: grade for name, grade in found.relevant.items() if grade}
    if not relevant:
        raise SettingsError(
            f"{place}: relevant has no document with a grade above 0; add one or remove the line"
        )
    return GoldenQuery(found.query, relevant, found.index)
