"""TREC relevance judgements ("qrels") and the file of their queries.

A line of qrels has a topic, an iteration (which nobody uses), a document and a grade, separated by white space. A line
of the queries has a topic, a tab and the query's text.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rag_index.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["read_qrels"]


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
