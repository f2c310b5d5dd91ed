"""What the tools answer to an agent, as text. An answer has a bound as a whole, since clients cut
or refuse longer ones: each hit, chunk and line has its share, and what is cut says how long it
is."""

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
    from rag_index.search.results import FacetValue, SearchHit
    from rag_index.search.service.models import FieldInfo, IndexInfo

CLOSED_INDEX = "it is for members of groups, or for roles of its database, and you have none"
BOLD = "**"
"""What stands around words of the query."""
MAX_VALUE_CHARS = 60
"""Longer values of a field are not named."""
MAX_DOTS = 2
"""The levels of a payload that are shown as fields: part, join and column."""
MAX_ANSWER = 48_000
"""Bytes of an answer. That is 25,000 tokens at most, which is what clients take: a digit may be
half a token."""
MIN_ANSWER = 1_000
"""Characters that an answer may have in any case, so that it can say what it left out."""
MAX_SHOWN = 500
"""Characters of a value that are shown beside others."""
MAX_FIELDS = 3_000
"""Characters of all fields of a hit or a document."""
MAX_NOTE = 2_000
"""Characters of an address, and of a sentence about the answer, such as an error."""
CUT = " characters]"
REST = (
    'Of what is cut here, get_document returns the rest: name its `field`, or "text" with `around`.'
)


def bounded(render: Callable[[int], str], most: int = MAX_ANSWER) -> str:
    """Return the text that `render` makes for so much room that it has at most `most` characters
    and fits an answer."""
    room = most = min(most, MAX_ANSWER)
    for _ in range(10):
        text = render(room)
        over = max(len(text) / most, _size(text) / MAX_ANSWER)
        if over <= 1:
            return text
        room = int(0.9 * room / over)
    return fitting(text, most)


def fitting(text: str, most: int = MAX_ANSWER) -> str:
    """Return as much of a text as has at most `most` characters and fits an answer, with its length
    if it is cut."""
    if len(text) <= most and _size(text) <= MAX_ANSWER:
        return text
    kept = text[: most - 80].encode(errors="replace")[: MAX_ANSWER - 80].decode(errors="ignore")
    return cut(text, len(kept))


def cut(text: str, most: int) -> str:
    """Return the beginning of a text, with its length if that is not all of it."""
    return (
        text
        if len(text) <= most
        else f"{text[: max(0, most)]} \u2026 [{max(0, most):,} of {len(text):,}{CUT}"
    )


def _size(text: str) -> int:
    return len(text.encode(errors="replace"))


def search_text(answer: SearchResult, room: int = MAX_ANSWER) -> str:
    """Return what is missing, the hits, one paragraph each, and what they are true of, for an
    answer of `room`."""
    lines = [line for note in answer.notes for line in (cut(note, MAX_NOTE), "")]
    ends = _end_of_search(answer)
    left = room - sum(len(line) + 1 for line in (*lines, *ends))
    for place, hit in enumerate(answer.hits):
        shown = _hit_text(
            answer.offset + place + 1, hit, max(0, left // (len(answer.hits) - place))
        )
        lines += [*shown, ""]
        left -= sum(map(len, shown)) + 4
    lines += [REST] if any(CUT in line for line in lines) else []
    return "\n".join([*lines, *ends])


def _hit_text(number: int, hit: SearchHit, room: int) -> list[str]:
    words = () if is_code(hit) else hit.highlights
    named = _named(
        marked(cut(hit.title, MAX_SHOWN), words, BOLD, BOLD),
        cut(hit.part.get("link") or hit.link, MAX_NOTE),
    )
    place = f", chunk {hit.chunk} of 0 to {hit.total_chunks - 1}" if hit.total_chunks > 1 else ""
    has = f", has {cut(', '.join((*hit.matched, *hit.synonyms)), MAX_SHOWN)}" if hit.matched else ""
    fields = _fields(hit.payload, hit.title, hit.link, room=min(MAX_FIELDS, room // 3))
    score = f", score {hit.score:.3f}"
    lines = [f"{number}. [{hit.citation}]{named}{_part(hit.part)}{place}{score}{has}{fields}"]
    texts = [hit.text]
    nearest = max(hit.chunks, key=lambda chunk: chunk.score, default=None) if hit.by_title else None
    if nearest and nearest.chunk != hit.chunk:  # an answer in other words than the question's
        texts.append(nearest.text)
    share = max(0, room - len(lines[0])) // len(texts)
    lines.append(marked(cut(hit.text.strip(), share), words, BOLD, BOLD))
    if nearest and len(texts) > 1:
        lines += [
            f"-- chunk {nearest.chunk}, the nearest in meaning",
            cut(nearest.text.strip(), share),
        ]
    return lines


def _end_of_search(answer: SearchResult) -> list[str]:
    lines = []
    if answer.next_offset:
        lines.append(f"There are more documents: search again with offset {answer.next_offset}.")
    lines += (
        [cut(f"The hits are not reranked: {answer.rerank_error}", MAX_NOTE)]
        if answer.rerank_error
        else []
    )
    states = [f"Index {index}: {as_of_text(one)}." for index, one in answer.as_of.items()]
    return [*lines, cut("\n".join(states), MAX_ANSWER // 4)]


def document_text(document: Document, room: int = MAX_ANSWER) -> str:
    """Return the chunks of a document with its fields, and how to go on, for an answer of
    `room`."""
    total = document.total_chunks
    title = cut(document.title, min(MAX_SHOWN, room // 5))
    named = _named(title, cut(document.link, room // 5))
    lines = [f"[{document.citation}]{named}", ""]
    lines[0] += _fields(
        document.payload, document.title, document.link, room=min(MAX_FIELDS, room // 3)
    )
    share = max(0, room - len(lines[0]) - MIN_ANSWER // 2) // max(1, len(document.chunks))
    for chunk in document.chunks:
        words = f", has {', '.join(chunk.matched)}" if chunk.matched else ""
        fields = _fields(chunk.payload, room=share // 3)
        place = f"chunk {chunk.chunk} of 0 to {total - 1}{_part(chunk.part)}{words}{fields}"
        lines += [f"-- {place}"] if total > 1 else []
        lines += [
            cut(chunk.text.strip(), max(share, room // 2 if len(document.chunks) == 1 else 0)),
            "",
        ]
    if document.matching_chunks == 0:
        lines.append(f"None of the {total} chunks has any of these words.")
    elif document.matching_chunks and (more := document.matching_chunks - len(document.chunks)):
        lines.append(f"{more} more chunks have some of these words.")
    if document.next_chunk is not None:
        lines.append(f"There are {total} chunks; go on with first_chunk {document.next_chunk}.")
    lines += [REST] if any(CUT in line for line in lines) else []
    lines.append(f"Index {document.index}: {as_of_text(document.as_of)}.")
    return "\n".join(lines)


def field_text(document: Document, field: str, offset: int, most: int) -> str:
    """Return the value of a field from one character on, as much as fits, and how to go on; for
    `text`, the text of the first chunk that the document came with. Raises SettingsError for a
    field or an offset that is not there."""
    first = document.chunks[0]
    own = {"text": first.text, "title": document.title, "link": document.link}
    known = {**own, **document.payload, **first.payload}
    if (found := value_of(known, field)) is None:
        names = cut(", ".join(cut(name, MAX_VALUE_CHARS) for name in known), MAX_NOTE)
        raise SettingsError(
            f"{document.index}/{document.document_id} has no field {cut(field, 100)!r}; it has"
            f" {names}"
        )
    text = _value(found)
    if offset and offset >= len(text):
        raise SettingsError(f"offset is {offset}, but {field} has {len(text):,} characters")
    room = min(most, MAX_ANSWER) - MIN_ANSWER // 2
    part = text[offset : offset + room].encode(errors="replace")[:room].decode(errors="ignore")
    end = offset + len(part)
    more = f"; go on with offset {end}" if end < len(text) else ""
    return (
        f"[{document.citation}] {field}, characters {offset:,} to {end:,} of"
        f" {len(text):,}{more}\n{part}"
    )


def lines_text(lines: Sequence[str], room: int) -> str:
    """Return lines, each with its share of an answer of `room`."""
    shown, left = list[str](), room
    for place, line in enumerate(lines):
        shown.append(cut(line, max(0, left // (len(lines) - place) - 60)))
        left -= len(shown[-1]) + 1
    return "\n".join(shown)


def verified_text(verified: Verified) -> str:
    """Return the state of a citation, with today's text if it changed."""
    now = f"; now [{verified.new_citation}]:\n{verified.text}" if verified.new_citation else ""
    since = f" since {verified.since}" if verified.since else ""
    return (
        f"[{verified.citation}] is {verified.state}{since}; the index was"
        f" {as_of_text(verified.as_of)}{now}."
    )


def as_of_text(as_of: AsOf | AsOfAnswer) -> str:
    """Return how old the content of an index is."""
    ended = {
        "running": "; a run is under way",
        "failed": "; the last run failed",
        "interrupted": "; the last run died",
        "partial": "; the last run was partial",
    }
    state = ended.get(as_of.last_run or "", "")
    if as_of.at is None:
        return f"it is not known when it was last complete{state}"
    return (
        f"last complete {timedelta(seconds=round(as_of.seconds_behind or 0))} ago, at"
        f" {as_of.at}{state}"
    )


def index_line(index: IndexInfo, values: Mapping[str, Sequence[FacetValue]]) -> str:
    """Return what an index holds, by which fields and which of their values it can be filtered, and
    what is true."""
    if index.closed:
        return f"{index.name}: {CLOSED_INDEX}."
    if not index.live:
        state = (
            "it is still being filled"
            if index.as_of.last_run == "running"
            else "it cannot be searched yet"
        )
        return f"{index.name}: empty; {state}."
    if index.fields is None:
        fields = "fields known to its source alone"
    else:
        named = ", ".join(_field(one, values.get(one.name, ())) for one in index.fields)
        fields = f"fields {named}" if named else "no fields to filter by"
    count = "" if index.documents is None else f"{index.documents:,} documents, "
    return f"{index.name}: {count}{index.language}, {fields}; {as_of_text(index.as_of)}."


def _field(field: FieldInfo, values: Sequence[FacetValue]) -> str:
    """Return the name and kind of a field, and its commonest values as JSON with how many documents
    have each."""
    most = [
        f"{_json(one.value)} {one.documents:,}"
        for one in values
        if len(one.value) <= MAX_VALUE_CHARS
    ]
    said = ": ".join(filter(None, [field.kind, ", ".join(most)]))
    return f"{field.name} ({said})" if said else field.name


def _named(title: str, link: str) -> str:
    """Return title and address of a document, as far as it has them, after a space."""
    return "".join(f" {one}" for one in (title, f"<{link}>" if link else "") if one)


def _part(part: Mapping[str, str]) -> str:
    """Return which part of a document a chunk is of, after a comma."""
    return f", {cut(part_name(part), MAX_SHOWN)}" if part else ""


def _fields(payload: Mapping[str, Any], *said: str, room: int) -> str:
    """Return the fields that fit, in brackets after a space, without those that hold what was
    `said`."""
    shown, rest = list[str](), list[str]()
    for name, value in _flat(payload):
        if value is not None and value not in said:
            text = f"{cut(name, MAX_VALUE_CHARS)}: {cut(_value(value), min(MAX_SHOWN, room // 2))}"
            room -= len(text) + 2
            if room >= 0:
                shown.append(text)
            else:
                rest.append(cut(name, MAX_VALUE_CHARS))
    if rest:
        shown.append(f"{len(rest):,} more fields: {cut(', '.join(rest), MAX_SHOWN)}")
    return f" ({', '.join(shown)})" if shown else ""


def _flat(payload: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the fields of a payload by the names that filters use: those of another table one by
    one."""
    for name, value in payload.items():
        if isinstance(value, dict) and value and before.count(".") < MAX_DOTS:
            yield from _flat(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", value


def _value(value: Any) -> str:
    return value if isinstance(value, str) else _json(value)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)
