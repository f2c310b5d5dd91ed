"""The answers of the tools for agents, as text.

The size of a whole answer is limited, because clients cut or refuse longer ones. Each hit, chunk
and line gets a share of it, and a text that is cut ends with its length.
"""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from rag_index.core.documents.batches import part_name
from rag_index.errors import SettingsError
from rag_index.search.highlights import is_code, marked
from rag_index.search.results import value_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from rag_index.search import AsOf, Document, SearchResult, Verified
    from rag_index.search.json_answers import AsOfAnswer
    from rag_index.search.results import DocumentChunk, FacetValue, SearchHit
    from rag_index.search.service.models import FieldInfo, IndexInfo

CLOSED_INDEX = "it is for members of groups, or for roles of its database, and you have none"
BOLD = "**"
"""Stands before and after each word of the query."""
MAX_VALUE_CHARS = 60
"""Longer values of a field, in characters, are not listed. Chosen; nothing depends on it."""
MAX_DOTS = 2
"""Levels of a payload below the first that are shown as fields: part, join and column."""
MAX_ANSWER = 48_000
"""Limit of an answer in bytes. That is at most 25,000 tokens, the limit of clients: a token can be
as short as two digits."""
MIN_ANSWER = 1_000
"""Characters that every answer may have, so that it can list what it left out."""
MAX_SHOWN = 500
"""Limit of a value that is shown beside others, in characters. Chosen; nothing depends on it."""
MAX_FIELDS = 3_000
"""Limit of all fields of a hit or a document together, in characters. Chosen, as above."""
MAX_NOTE = 2_000
"""Limit of an address, and of a sentence about the answer, such as an error, in characters."""
CUT = " characters]"
REST = (
    'Of what is cut here, get_document returns the rest: name its `field`, or "text" with `around`.'
)


def bounded(render: Callable[[int], str], most: int = MAX_ANSWER) -> str:
    """Return the text that `render` makes, within `most` characters and the limit of an answer.

    Args:
        render: Makes the text for a number of characters, which it may exceed.
    """
    most = min(most, MAX_ANSWER)
    budget = most
    # Each try gets a smaller budget than the last: smaller by the factor of the excess, and by a
    # tenth.
    for _ in range(10):
        text = render(budget)
        excess = max(len(text) / most, _size(text) / MAX_ANSWER)
        if excess <= 1:
            return text
        budget = int(0.9 * budget / excess)
    return fitting(text, most)


def fitting(text: str, most: int = MAX_ANSWER) -> str:
    """Return the text within `most` characters and the limit of an answer, with its length if it is
    cut."""
    if len(text) <= most and _size(text) <= MAX_ANSWER:
        return text
    # 80 characters, or bytes, are left for the length that `cut` appends.
    encoded = text[: most - 80].encode(errors="replace")
    kept = encoded[: MAX_ANSWER - 80].decode(errors="ignore")
    return cut(text, len(kept))


def cut(text: str, most: int) -> str:
    """Return the first `most` characters of a text, followed by its length if that is not all."""
    if len(text) <= most:
        return text
    most = max(0, most)
    return f"{text[:most]} \u2026 [{most:,} of {len(text):,}{CUT}"


def _size(text: str) -> int:
    """Return the bytes of a text; half a character counts as a question mark."""
    return len(text.encode(errors="replace"))


def search_text(answer: SearchResult, budget: int = MAX_ANSWER) -> str:
    """Return the notes, a paragraph for each hit, and the age of each index, in about `budget`
    characters."""
    lines = list[str]()
    for note in answer.notes:
        lines += [cut(note, MAX_NOTE), ""]
    ends = _end_of_search(answer)
    left = budget - sum(len(line) + 1 for line in (*lines, *ends))
    count = len(answer.hits)
    for place, hit in enumerate(answer.hits):
        share = left // (count - place)
        paragraph = _hit_text(answer.offset + place + 1, hit, max(0, share))
        lines += [*paragraph, ""]
        left -= sum(map(len, paragraph)) + 4
    if _is_cut(lines):
        lines.append(REST)
    return "\n".join([*lines, *ends])


def _is_cut(lines: Sequence[str]) -> bool:
    """Return whether `cut` has shortened one of the lines."""
    return any(CUT in line for line in lines)


def _hit_text(number: int, hit: SearchHit, budget: int) -> list[str]:
    """Return the lines of a hit: what it is, the text of its best chunk, and perhaps another."""
    # Source code is shown as it is, without bold words.
    words = () if is_code(hit) else hit.highlights
    first = _hit_line(number, hit, words, budget)
    # Only the title has words of the query: the answer may be in other words than the question.
    nearest = None
    if hit.by_title:
        nearest = max(hit.chunks, key=lambda chunk: chunk.score, default=None)
    has_second = nearest is not None and nearest.chunk != hit.chunk
    left = max(0, budget - len(first))
    share = left // 2 if has_second else left
    text = marked(cut(hit.text.strip(), share), words, BOLD, BOLD)
    if nearest is None or not has_second:
        return [first, text]
    second = f"-- chunk {nearest.chunk}, the nearest in meaning"
    return [first, text, second, cut(nearest.text.strip(), share)]


def _hit_line(number: int, hit: SearchHit, words: Sequence[str], budget: int) -> str:
    """Return the first line of a hit: citation, title, link, part, chunk, score, words, fields."""
    title = marked(cut(hit.title, MAX_SHOWN), words, BOLD, BOLD)
    link = cut(hit.part.get("link") or hit.link, MAX_NOTE)
    line = f"{number}. [{hit.citation}]{_named(title, link)}{_part(hit.part)}"
    if hit.total_chunks > 1:
        line += f", chunk {hit.chunk} of 0 to {hit.total_chunks - 1}"
    line += f", score {hit.score:.3f}"
    if hit.matched:
        matched = ", ".join((*hit.matched, *hit.synonyms))
        line += f", has {cut(matched, MAX_SHOWN)}"
    return line + _fields(hit.payload, hit.title, hit.link, budget=min(MAX_FIELDS, budget // 3))


def _end_of_search(answer: SearchResult) -> list[str]:
    """Return the lines after the hits: further documents, a reranker's failure, and the age of each
    index."""
    lines = list[str]()
    if answer.next_offset:
        lines.append(f"There are more documents: search again with offset {answer.next_offset}.")
    if answer.rerank_error:
        lines.append(cut(f"The hits are not reranked: {answer.rerank_error}", MAX_NOTE))
    ages = [f"Index {index}: {as_of_text(as_of)}." for index, as_of in answer.as_of.items()]
    lines.append(cut("\n".join(ages), MAX_ANSWER // 4))
    return lines


def document_text(document: Document, budget: int = MAX_ANSWER) -> str:
    """Return the chunks of a document with its fields, and how to continue, in about `budget`
    characters."""
    total = document.total_chunks
    title = cut(document.title, min(MAX_SHOWN, budget // 5))
    named = _named(title, cut(document.link, budget // 5))
    field_budget = min(MAX_FIELDS, budget // 3)
    fields = _fields(document.payload, document.title, document.link, budget=field_budget)
    first = f"[{document.citation}]{named}{fields}"
    lines = [first, ""]
    share = max(0, budget - len(first) - MIN_ANSWER // 2) // max(1, len(document.chunks))
    # A single chunk has at least half of the answer, however long the fields are.
    least = budget // 2 if len(document.chunks) == 1 else 0
    for chunk in document.chunks:
        if total > 1:
            lines.append(_chunk_line(chunk, total, share))
        lines += [cut(chunk.text.strip(), max(share, least)), ""]
    lines += _continuation(document)
    if _is_cut(lines):
        lines.append(REST)
    lines.append(f"Index {document.index}: {as_of_text(document.as_of)}.")
    return "\n".join(lines)


def _chunk_line(chunk: DocumentChunk, total: int, share: int) -> str:
    """Return the line above a chunk: its number, part, words and fields."""
    line = f"-- chunk {chunk.chunk} of 0 to {total - 1}{_part(chunk.part)}"
    if chunk.matched:
        line += f", has {', '.join(chunk.matched)}"
    return line + _fields(chunk.payload, budget=share // 3)


def _continuation(document: Document) -> list[str]:
    """Return how to read the chunks that are not shown."""
    lines = list[str]()
    matching = document.matching_chunks
    # `find` was given, and no chunk has one of its words.
    if matching == 0:
        lines.append(f"None of the {document.total_chunks} chunks has any of these words.")
    # More chunks have its words than fit.
    elif matching is not None and matching != len(document.chunks):
        more = matching - len(document.chunks)
        lines.append(f"{more} more chunks have some of these words.")
    if document.next_chunk is not None:
        lines.append(
            f"There are {document.total_chunks} chunks; go on with first_chunk"
            f" {document.next_chunk}."
        )
    return lines


def field_text(document: Document, field: str, offset: int, most: int) -> str:
    """Return as much of a field's value as fits, from the character `offset` on, and how to
    continue.

    Args:
        field: A field of the document or of its first chunk; `text` is the text of that chunk.

    Raises:
        SettingsError: There is no such field, or it ends before `offset`.
    """
    first = document.chunks[0]
    own = {"text": first.text, "title": document.title, "link": document.link}
    known = {**own, **document.payload, **first.payload}
    value = value_of(known, field)
    if value is None:
        names = cut(", ".join(cut(name, MAX_VALUE_CHARS) for name in known), MAX_NOTE)
        place = f"{document.index}/{document.document_id}"
        raise SettingsError(f"{place} has no field {cut(field, 100)!r}; it has {names}")
    text = _value(value)
    if offset and offset >= len(text):
        raise SettingsError(f"offset is {offset}, but {field} has {len(text):,} characters")
    # `budget` bounds characters and bytes: text in other scripts has several bytes a character.
    budget = min(most, MAX_ANSWER) - MIN_ANSWER // 2
    encoded = text[offset : offset + budget].encode(errors="replace")
    part = encoded[:budget].decode(errors="ignore")
    end = offset + len(part)
    more = f"; go on with offset {end}" if end < len(text) else ""
    characters = f"characters {offset:,} to {end:,} of {len(text):,}"
    return f"[{document.citation}] {field}, {characters}{more}\n{part}"


def lines_text(lines: Sequence[str], budget: int) -> str:
    """Return lines, each with its share of an answer of `budget` characters."""
    shown = list[str]()
    left = budget
    for place, line in enumerate(lines):
        share = left // (len(lines) - place)
        # 60 characters are left for the length that `cut` appends.
        text = cut(line, max(0, share - 60))
        shown.append(text)
        left -= len(text) + 1
    return "\n".join(shown)


def verified_text(verified: Verified) -> str:
    """Return the state of a citation, with today's text if it changed."""
    line = f"[{verified.citation}] is {verified.state}"
    if verified.since:
        line += f" since {verified.since}"
    line += f"; the index was {as_of_text(verified.as_of)}"
    if verified.new_citation:
        line += f"; now [{verified.new_citation}]:\n{verified.text}"
    return f"{line}."


def as_of_text(as_of: AsOf | AsOfAnswer) -> str:
    """Return how old the content of an index is: "last complete 0:10:00 ago, at 2026-…"."""
    last_runs = {
        "running": "; a run is under way",
        "failed": "; the last run failed",
        "interrupted": "; the last run died",
        "partial": "; the last run was partial",
    }
    state = last_runs.get(as_of.last_run or "", "")
    if as_of.at is None:
        return f"it is not known when it was last complete{state}"
    age = timedelta(seconds=round(as_of.seconds_behind or 0))
    return f"last complete {age} ago, at {as_of.at}{state}"


def index_line(index: IndexInfo, values: Mapping[str, Sequence[FacetValue]]) -> str:
    """Return an index's number of documents, language, fields for filters with their commonest
    `values`, and age."""
    if index.closed:
        return f"{index.name}: {CLOSED_INDEX}."
    if not index.live:
        state = "it cannot be searched yet"
        if index.as_of.last_run == "running":
            state = "it is still being filled"
        return f"{index.name}: empty; {state}."
    if index.fields is None:
        fields = "fields known to its source alone"
    else:
        described = [_field(field, values.get(field.name, ())) for field in index.fields]
        fields = f"fields {', '.join(described)}" if described else "no fields to filter by"
    # An index with access rights has no count.
    count = "" if index.documents is None else f"{index.documents:,} documents, "
    return f"{index.name}: {count}{index.language}, {fields}; {as_of_text(index.as_of)}."


def _field(field: FieldInfo, values: Sequence[FacetValue]) -> str:
    """Return a field with its kind and commonest values: `priority (keyword: "high" 12)`."""
    commonest = list[str]()
    for facet in values:
        if len(facet.value) <= MAX_VALUE_CHARS:
            commonest.append(f"{_json(facet.value)} {facet.documents:,}")
    details = ": ".join(filter(None, [field.kind, ", ".join(commonest)]))
    return f"{field.name} ({details})" if details else field.name


def _named(title: str, link: str) -> str:
    """Return title and link of a document, each after a space; a missing one is left out."""
    named = ""
    if title:
        named += f" {title}"
    if link:
        named += f" <{link}>"
    return named


def _part(part: Mapping[str, str]) -> str:
    """Return the part of a document that a chunk is of, after a comma."""
    if not part:
        return ""
    return f", {cut(part_name(part), MAX_SHOWN)}"


def _fields(payload: Mapping[str, Any], *shown_before: str, budget: int) -> str:
    """Return the fields that fit into `budget` characters, in brackets after a space.

    A field is left out if it has no value or one of those `shown_before`, such as the title.
    """
    shown, rest = list[str](), list[str]()
    for name, value in _flat(payload):
        if value is None or value in shown_before:
            continue
        short_name = cut(name, MAX_VALUE_CHARS)
        text = f"{short_name}: {cut(_value(value), min(MAX_SHOWN, budget // 2))}"
        # Once a field does not fit, no later one does: `budget` stays below zero.
        budget -= len(text) + 2
        if budget >= 0:
            shown.append(text)
        else:
            rest.append(short_name)
    if rest:
        shown.append(f"{len(rest):,} more fields: {cut(', '.join(rest), MAX_SHOWN)}")
    return f" ({', '.join(shown)})" if shown else ""


def _flat(payload: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the fields of a payload by the names that filters use: `author.name` for a column of a
    join."""
    is_shallow = before.count(".") < MAX_DOTS
    for name, value in payload.items():
        path = f"{before}{name}"
        if is_shallow and isinstance(value, dict) and value:
            yield from _flat(value, f"{path}.")
        else:
            yield path, value


def _value(value: Any) -> str:
    """Return a text as it is, and any other value as JSON."""
    if isinstance(value, str):
        return value
    return _json(value)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)
