"""Golden files: queries, and the documents that a search should find for each of them.

A file has one JSON object a line, `{"query": "…", "relevant": ["118"], "index": "comments"}`, or it is a file of TREC
relevance judgements ("qrels": topic, iteration, document and grade), which comes with a file of queries (topic, tab,
text). Documents are named by their ids, as `rag-index search` shows them. `relevant` may also be an object that gives
each id a grade, a whole number: the greater, the more relevant; 0 is not relevant.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from rag_index.database.files import replace_file
from rag_index.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping
    from pathlib import Path

KEYS = ("query", "relevant", "index", "note")
EXAMPLE = '{"query": "printer offline", "relevant": ["118"]}'


def read_qrels(path: Path, text: str, queries: Path, queries_text: str) -> list[tuple[str, dict[str, int]]]:
    """Return the text of each judged topic, and the grades of its relevant documents, in the order of the judgements.

    Topics without a relevant document are left out: nothing could find one. Raises SettingsError.
    """
    texts = _texts(queries, queries_text)
    relevant: dict[str, dict[str, int]] = {}
    for place, line in _lines(path, text):
        topic, document_id, grade = _judgement(place, line)
        if topic not in texts:
            raise SettingsError(f"{place}: topic {topic!r} has no query in {queries}; add a line: {topic}, tab, text")
        if grade > 0:
            relevant.setdefault(topic, {})[document_id] = grade
    return [(texts[topic], grades) for topic, grades in relevant.items()]


def _judgement(place: str, line: str) -> tuple[str, str, int]:
    columns = line.split()
    if len(columns) != 4:
        raise SettingsError(
            f"{place}: {line.strip()[:60]!r} has {len(columns)} columns, not the four of qrels: topic, iteration, "
            f"document, grade"
        )
    topic, _, document_id, grade = columns
    try:
        return topic, document_id, int(grade)
    except ValueError:
        raise SettingsError(f"{place}: the grade {grade!r} is not a whole number; write 0 for not relevant") from None


def _texts(path: Path, text: str) -> dict[str, str]:
    texts: dict[str, str] = {}
    for place, line in _lines(path, text):
        topic, tab, query = line.rstrip("\r").partition("\t")
        if not tab or not topic.strip() or not query.strip():
            raise SettingsError(f"{place}: {line.strip()[:60]!r} is not a topic, a tab and the text of a query")
        if texts.setdefault(topic.strip(), query.strip()) != query.strip():
            raise SettingsError(f"{place}: topic {topic.strip()!r} has another text already; remove one of the lines")
    return texts


def _lines(path: Path, text: str) -> Iterator[tuple[str, str]]:
    """Yield each line that is not empty, with its place for a message."""
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield f"{path}, line {number}", line


@dataclass(frozen=True, slots=True)
class GoldenQuery:
    """A query and the documents that it should find. `relevant` has a grade above 0 for each document id.

    `index` is the index that the documents are in; None if the file does not say. `note` is for people who edit the
    file.
    """

    query: str
    relevant: Mapping[str, int] = field(hash=False)
    index: str | None = None
    note: str = ""


def read_golden(path: Path, queries: Path | None = None) -> list[GoldenQuery]:
    """Return the queries of a golden file; `queries` is the file with the queries' texts, if `path` is qrels.

    Lines with the same query and index become one query with the documents of all of them.

    Raises SettingsError, which names the file, the line and the value.
    """
    text = read_text(path)
    if queries is not None:
        judged = read_qrels(path, text, queries, read_text(queries))
        found = [GoldenQuery(query, relevant) for query, relevant in judged]
    elif _looks_like_qrels(text):
        raise SettingsError(
            f"{path} looks like TREC qrels, which have no texts: name the file of its queries (topic, tab, text) too, "
            "with --queries FILE (a gate takes JSON lines alone)"
        )
    else:
        lines = enumerate(text.split("\n"), 1)
        found = [_parse(f"{path}, line {number}", line) for number, line in lines if line.strip()]
    if not found:
        raise SettingsError(f"{path} has no query with a relevant document: write one a line, such as {EXAMPLE}")
    return _merge(found)


def without_documents(queries: Iterable[GoldenQuery], documents: Collection[str]) -> list[GoldenQuery]:
    """Return the queries without these relevant documents, and without those that have no others."""
    left = [(query, {one: grade for one, grade in query.relevant.items() if one not in documents}) for query in queries]
    return [replace(query, relevant=relevant) for query, relevant in left if relevant]


def write_golden(path: Path, queries: Iterable[GoldenQuery]) -> None:
    """Write a golden file as a whole, one JSON object a line. Raises SettingsError if it cannot be written."""
    content = "".join(json.dumps(_to_json(query), ensure_ascii=False) + "\n" for query in queries)
    try:
        replace_file(path, content.encode("utf-8", "replace"))
    except OSError as exc:
        raise SettingsError(f"{path} cannot be written: {exc.strerror}; name another file") from exc


def read_text(path: Path) -> str:
    """Return the text of a file. Raises SettingsError if it cannot be read or is not UTF-8."""
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        raise SettingsError(f"{path} is not UTF-8 (byte {exc.start:,}): save it as UTF-8") from exc
    except OSError as exc:
        raise SettingsError(f"{path} cannot be read: {exc.strerror}; name a golden file that exists") from exc


def _looks_like_qrels(text: str) -> bool:
    """Return whether the first line that is not empty has four columns, the last a whole number."""
    columns = next((line.split() for line in text.split("\n") if line.strip()), [])
    return len(columns) == 4 and columns[3].lstrip("-").isdigit() and not columns[0].startswith("{")


def _parse(place: str, line: str) -> GoldenQuery:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as exc:
        reason = exc.msg if isinstance(exc, json.JSONDecodeError) else "it cannot be read"
        raise SettingsError(f"{place}: {_short(line)} is not JSON ({reason}); write {EXAMPLE}") from None
    if not isinstance(found, dict):
        raise SettingsError(f"{place}: {_short(line)} is not a JSON object; write {EXAMPLE}")
    unknown = [key for key in found if key not in KEYS]
    if unknown:
        raise SettingsError(f"{place}: the key {unknown[0]!r} is not known; the keys are {', '.join(KEYS)}")
    query, index, note = found.get("query"), found.get("index"), found.get("note", "")
    if not isinstance(query, str) or not query.strip():
        raise SettingsError(f'{place}: "query" is {_short(query)}; it should be the text to search for')
    if index is not None and (not isinstance(index, str) or not index):
        raise SettingsError(f'{place}: "index" is {_short(index)}; it should be the name of an index')
    if not isinstance(note, str):
        raise SettingsError(f'{place}: "note" is {_short(note)}; it should be a text')
    return GoldenQuery(query, _relevant(place, found.get("relevant")), index, note)


def _relevant(place: str, given: object) -> dict[str, int]:
    """Return the grade of each relevant document, from a list of ids or from an object of grades."""
    if not isinstance(given, list | dict) or not given:
        raise SettingsError(
            f'{place}: "relevant" is {_short(given)}; it should list the ids of the documents to be found, as '
            f"`rag-index search` shows them"
        )
    graded = given if isinstance(given, dict) else dict.fromkeys((_document_id(place, one) for one in given), 1)
    for document_id, grade in graded.items():
        if not isinstance(grade, int) or isinstance(grade, bool) or grade < 0:
            raise SettingsError(
                f"{place}: the grade of document {document_id!r} is {_short(grade)}; it should be a whole number, "
                f"0 for not relevant"
            )
    relevant = {document_id: grade for document_id, grade in graded.items() if grade > 0}
    if not relevant:
        raise SettingsError(f'{place}: "relevant" has no document with a grade above 0; add one or remove the line')
    return relevant


def _document_id(place: str, given: object) -> str:
    """Return a document's id; a number is taken for its digits, since that is how ids are shown."""
    if isinstance(given, str) and given:
        return given
    if isinstance(given, int) and not isinstance(given, bool):
        return str(given)
    raise SettingsError(
        f'{place}: "relevant" has {_short(given)}, which is not a document\'s id; write the id as a text, as '
        f"`rag-index search` shows it"
    )


def _merge(queries: Iterable[GoldenQuery]) -> list[GoldenQuery]:
    """Return each pair of query and index once, with the documents of all its lines and the highest grade of each."""
    merged: dict[tuple[str, str | None], GoldenQuery] = {}
    for one in queries:
        key = one.query, one.index
        known = merged.get(key)
        if known is not None:
            grades = dict(known.relevant)
            for document_id, grade in one.relevant.items():
                grades[document_id] = max(grade, grades.get(document_id, 0))
            merged[key] = GoldenQuery(one.query, grades, one.index, known.note or one.note)
        else:
            merged[key] = one
    return list(merged.values())


def _to_json(query: GoldenQuery) -> dict[str, object]:
    grades = query.relevant
    plain: dict[str, object] = {"query": query.query}
    plain["relevant"] = list(grades) if set(grades.values()) <= {1} else dict(grades)
    if query.index is not None:
        plain["index"] = query.index
    if query.note:
        plain["note"] = query.note
    return plain


def _short(value: object, length: int = 60) -> str:
    """Return a value as a message can show it."""
    if value is None:
        return "missing"
    shown = value.strip() if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return repr(shown if len(shown) <= length else f"{shown[: length - 1]}…")
