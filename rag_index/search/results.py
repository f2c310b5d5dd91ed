"""The results of a retriever: hits of a search, documents, citations with their states, and facets.

`json_answers.py` has the same results as JSON.
"""

from __future__ import annotations

import hmac
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote, unquote

from rag_index.components.stores.protocol import PayloadCondition, PointReader
from rag_index.core.documents.batches import LINK, PART, RESERVED_KEY, TITLE, StoredPoint
from rag_index.core.documents.keys import point_id, possible_document_keys
from rag_index.core.settings.index import CODE
from rag_index.core.settings.parts import CHUNK_FIELD, GROUPS_FIELD
from rag_index.errors import RagIndexError, SettingsError, StoreError

if TYPE_CHECKING:
    from rag_index.core.settings import IndexSettings
    from rag_index.search.json_answers import ExplainedAnswer, SearchAnswer

MAX_FACET_VALUES = 100
"""Values of a field that each index counts. The counts of several indexes are added up."""
CITED_HASH_CHARS, SEAL_CHARS = 10, 6
"""Hexadecimal digits of a text's hash and of a seal in a citation. Two texts of one document never
share 40 bits by chance."""
_DIGITS = rf"([0-9a-f]{{{CITED_HASH_CHARS}}})([0-9a-f]{{{SEAL_CHARS}}})"
_FORM = re.compile(rf"\[?([^/\s]+)/([^#\s]*)#([0-9]{{1,9}}):{_DIGITS}(?:@([^\s\]]*))?\]?")

State = Literal["unchanged", "changed", "deleted", "unknown"]


@dataclass(frozen=True, slots=True)
class AsOf:
    """Up to which time an index is complete. A value is None if it is not known.

    Attributes:
        at: Everything that the source had committed by then is in the index (ISO, UTC).
        seconds_behind: The age of `at`.
        known_by: `watch` if a watch has found no writes since, `run` for the start of the last
            complete run.
        not_seen: Why the age is not known; "" if it is.
        last_run: The state of the newest run: running, completed, partial, failed or, if its
            process died, interrupted.
    """

    at: str | None = None
    seconds_behind: float | None = None
    known_by: str | None = None
    not_seen: str = ""
    last_run: str | None = None


NOTHING_KNOWN = AsOf()


@dataclass(frozen=True, slots=True)
class Citation:
    """A chunk of a document in the state in which an index held it."""

    index: str
    document_id: str
    chunk: int
    text_hash: str
    """The first digits of the hash of the document's text, hexadecimal."""
    seal: str
    """A signature with the index's key: without it, nobody can make a citation up."""
    at: str = ""
    """The time up to which the index was complete; "" if it was not known."""

    @classmethod
    def of(cls, found: SearchHit | Document, as_of: AsOf, key: str) -> Citation:
        """Return the citation of a hit's best chunk, or of a document's first.

        Args:
            as_of: Up to when the index was complete.
            key: The key with which the collection seals citations.
        """
        chunk = found.chunk if isinstance(found, SearchHit) else found.chunks[0].chunk
        text_hash = found.text_hash[:CITED_HASH_CHARS]
        unsealed = cls(found.index, found.document_id, chunk, text_hash, "", as_of.at or "")
        return replace(unsealed, seal=unsealed._seal(key))

    def is_sealed(self, key: str) -> bool:
        """Return whether an index with this key once cited this chunk with this text."""
        # Without a key, anybody could compute the seal.
        if not key:
            return False
        return hmac.compare_digest(self.seal, self._seal(key))

    def _seal(self, key: str) -> str:
        sealed = json.dumps([self.index, self.document_id, self.chunk, self.text_hash]).encode()
        digest = hmac.digest(key.encode(), sealed, "sha256")
        return digest.hex()[:SEAL_CHARS]

    @classmethod
    def parse(cls, text: str) -> Citation:
        """Return the citation that `str` wrote, in brackets or not.

        Raises SettingsError for another text.
        """
        found = _FORM.fullmatch(text.strip())
        if not found:
            raise SettingsError(
                f"{text!r} is no citation; one reads comments/4711#0:0123456789abcdef@TIME"
            )
        index, document_id, chunk, text_hash, seal, at = found.groups(default="")
        return cls(index, unquote(document_id), int(chunk), text_hash, seal, unquote(at))

    def __str__(self) -> str:
        """Return the citation as one word: `comments/4711#0:0123456789abcdef@2026-…`."""
        place = f"{self.index}/{_word(self.document_id)}#{self.chunk}"
        hashes = f"{self.text_hash}{self.seal}"
        at = f"@{_word(self.at)}" if self.at else ""
        return f"{place}:{hashes}{at}"


def _word(text: str) -> str:
    """Return a text with percent codes for the characters that would end a citation."""
    word = ""
    for character in text:
        is_safe = character.isprintable() and character not in " %#]"
        word += character if is_safe else quote(character, safe="")
    return word


@dataclass(frozen=True, slots=True)
class ChunkHit:
    """A chunk that was found in a document: its number, its score and its text."""

    chunk: int
    score: float
    text: str


@dataclass(frozen=True, slots=True)
class SearchHit:
    """A document that was found. Over HTTP, the attributes from `rank` on are in an answer with
    `explain` alone.

    Attributes:
        index: The index that holds the document.
        document_id: The document's key, as text.
        citation: What `Retriever.verify` takes, to check later what was found.
        score: The score of the best chunk (-1 to 1): its cosine similarity, and in a hybrid search
            a weighted mean of that, of BM25 as a share of the query's best, and of the soft match.
            There is 1 more if the query is its key, title or first line, and for each rare name of
            the query that it has.
        relevance: How likely the document fits the query (0 to 1). It means the same in every
            index.
        text: The text of the best chunk.
        chunk: The number of that chunk, from 0.
        total_chunks: How many chunks the document has.
        payload: The columns of the source that the index names.
        title: The title, "" if the index declares none.
        link: The address at which a person reads the document, "" if the index declares none.
        collapsed: How many hits that repeat this one are left out.
        highlights: The words of the query as they stand in title and text: "Printers" for
            "printer".
        part: The part of the document that the text is of: its name, and its id and link if it has
            these.
        rank: The place in its own index, from 1.
        fused: The value that orders the hits of several indexes.
        cosine: What meaning gave the best chunk.
        bm25: What words gave the best chunk.
        soft: What the soft match gave the best chunk.
        recency: How new the document is, from 0 to 1, if its index has `recency`.
        matched: The words of the query that the best chunk has.
        synonyms: What it has that means the same as words of the query, by the `synonyms` of the
            settings.
        chunks: The best chunks, best first.
        rerank_score: The reranker's number for the best chunk, None if it did not read it.
    """

    index: str
    document_id: str
    citation: str
    score: float
    relevance: float
    text: str
    chunk: int
    total_chunks: int
    payload: Mapping[str, Any]
    title: str = ""
    link: str = ""
    collapsed: int = 0
    highlights: tuple[str, ...] = ()
    part: Mapping[str, str] = field(default_factory=dict)
    rank: int = 0
    fused: float = 0.0
    cosine: float = 0.0
    bm25: float = 0.0
    soft: float = 0.0
    recency: float | None = None
    matched: tuple[str, ...] = ()
    synonyms: tuple[str, ...] = ()
    chunks: tuple[ChunkHit, ...] = ()
    rerank_score: float | None = None
    exact: bool = False
    """Whether the query is its key, title or first line."""
    names: float = 0.0
    """How many rare names of the query it has."""
    key: str = ""
    """Its typed key."""
    by_title: bool = False
    """Whether the title alone has words of the query, and not the text."""
    text_hash: str = ""
    """The hash of its whole text."""
    by_words: bool = False
    """Whether it has no vector yet: its words alone say how relevant it is."""


@dataclass(frozen=True, slots=True)
class SearchResult:
    """The result of one search.

    Attributes:
        hits: The documents, best first.
        offset: How many better ones were left out, as the search asked.
        next_offset: The `offset` of the search that continues this one; None after the last
            document. `missing` says it if there may be others that no search reaches.
        as_of: Up to where each index that answered is complete.
        corrected: The words that were searched for in place of words of the query.
        synonyms: What was searched for beside words of the query, by the `synonyms` of the
            settings.
        unsure: Whether no document surely fits: none has the query's words together, and the hits
            are the nearest in meaning. An answer that lacks something never says so.
        nothing_fits: Whether no document is likely to fit, by words or by meaning. An answer that
            lacks something never says so.
        remark: That the query seems to be in a language that the embedder does not know; ""
            otherwise.
        missing: What the answer lacks, and why, in sentences; "" if nothing.
        errors: The reason of each index that gave no answer.
        timings_ms: The milliseconds of each stage, which add up to `total`: `open` the collections,
            count `words`, `embed`, the search in each index by its name, ask the database for
            `access`, `wait` for threads, `compare` and `fuse` texts, `rerank`, `show`, and all
            `other`. Indexes are searched at once: the slowest of them counts.
        fusion: What the hits are ordered by, `score` or `rank`.
        dense_weight: The weight of meaning that the scores have, 1 if words were not searched for.
        collections: The collection that was searched, by index.
        reranked: Whether the best hits are in the order of the reranker.
        rerank_error: Why they are not, although there is a reranker; "" otherwise.
    """

    hits: tuple[SearchHit, ...]
    as_of: Mapping[str, AsOf]
    corrected: Mapping[str, str] = field(default_factory=dict)
    synonyms: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    offset: int = 0
    next_offset: int | None = None
    unsure: bool = False
    nothing_fits: bool = False
    remark: str = ""
    missing: str = ""
    errors: Mapping[str, str] = field(default_factory=dict)
    timings_ms: Mapping[str, float] = field(default_factory=dict)
    fusion: str = ""
    dense_weight: float = 1.0
    collections: Mapping[str, str] = field(default_factory=dict)
    reranked: bool = False
    rerank_error: str = ""

    def to_json(self, *, explain: bool = False) -> dict[str, Any]:
        """Return the answer as `POST /search` gives it, which leaves out what has no value."""
        return self.answer(explain=explain).to_json()

    def answer(self, *, explain: bool) -> SearchAnswer | ExplainedAnswer:
        """Return the answer as a model, with ranks, scores, chunks and timings if `explain`."""
        # Imported when needed: most searches need no models.
        from rag_index.search.json_answers import ExplainedAnswer, SearchAnswer

        kind = ExplainedAnswer if explain else SearchAnswer
        return kind.model_validate(self)

    @property
    def verdict(self) -> str:
        """A sentence about hits that may not fit; "" if they do."""
        # A page after the last document.
        if self.offset and not self.hits:
            return "No further documents."
        if self.nothing_fits:
            return "Nothing fits. The nearest documents are:" if self.hits else "Nothing fits."
        if not self.hits:
            return "Nothing found."
        return "No document has these words together. Nearest in meaning:" if self.unsure else ""

    @property
    def correction(self) -> str:
        """The words that were searched for in place of the query's, or beside them; "" if none."""
        sentences = list[str]()
        # Typing errors: "Searched for printer instead of pritner".
        if self.corrected:
            instead = [f"{right} instead of {wrong}" for wrong, right in self.corrected.items()]
            sentences.append(f"Searched for {', '.join(instead)}")
        # Synonyms: "Also searched for computer and laptop (pc)".
        if self.synonyms:
            beside = [f"{' and '.join(words)} ({typed})" for typed, words in self.synonyms.items()]
            sentences.append(f"Also searched for {', '.join(beside)}")
        return ". ".join(sentences)

    @property
    def notes(self) -> list[str]:
        """The sentences to show before the hits."""
        correction = f"{self.correction}." if self.correction else ""
        notes = (self.missing, correction, self.remark, self.verdict)
        return [note for note in notes if note]


def missing_text(
    errors: Mapping[str, str], lacking: Mapping[str, str], answered: Sequence[str]
) -> str:
    """Return sentences about what an answer lacks; "" if nothing.

    Example: "tickets did not answer: still being opened after 5 s; search again in a moment. This
    is only what articles has."

    Args:
        errors: The reason of each index that did not answer.
        lacking: What is missing of each index that answered in part.
        answered: The indexes with hits.
    """
    sentences = [f"{index} did not answer: {why.rstrip('.')}." for index, why in errors.items()]
    sentences += [f"{index} {what.rstrip('.')}." for index, what in lacking.items()]
    # Some incomplete index has no hits at all: name those that have.
    incomplete = {*errors, *lacking}
    if answered and not incomplete <= set(answered):
        verb = "has" if len(answered) == 1 else "have"
        sentences.append(f"This is only what {', '.join(answered)} {verb}.")
    return " ".join(sentences)


@dataclass(frozen=True, slots=True)
class DocumentChunk:
    """A chunk of a document. `payload` has the fields of the chunk alone, such as the lines of source
    code."""

    chunk: int
    text: str
    payload: Mapping[str, Any] = field(default_factory=dict)
    part: Mapping[str, str] = field(default_factory=dict)
    """The part of the document that the chunk is of, as `SearchHit.part`."""
    matched: tuple[str, ...] = ()
    """The words of `find` that the chunk has."""


@dataclass(frozen=True, slots=True)
class Document:
    """A document as the index holds it: its payload, and its chunks in order, or the wanted ones."""

    index: str
    document_id: str
    citation: str
    """The citation of the first of `chunks`."""
    payload: Mapping[str, Any]
    chunks: tuple[DocumentChunk, ...]
    as_of: AsOf
    total_chunks: int
    next_chunk: int | None
    """The chunk after the last of `chunks`; None if it is the document's last."""
    title: str = ""
    link: str = ""
    key: str = ""
    """Its typed key."""
    text_hash: str = ""
    """The hash of its whole text."""
    seal_key: str = field(default="", repr=False)
    """The key that seals its citations."""
    matching_chunks: int | None = None
    """How many chunks have words of `find`, including those left out; None without `find`."""


@dataclass(frozen=True, slots=True)
class Verified:
    """The state of a citation, as of a position.

    `state` is `unknown` if the citation was never given. It is also `unknown` if the caller cannot
    see the document and may not see all: a hidden, a deleted and a missing document look alike.
    `since` is the position after which the document changed or was deleted: that of the citation.
    If it changed, `text` is the cited chunk of today, and `new_citation` cites that.
    """

    citation: str
    state: State
    as_of: AsOf
    since: str = ""
    text: str = ""
    new_citation: str = ""


@dataclass(frozen=True, slots=True)
class FacetValue:
    """A value of a field, and about how many documents have it."""

    value: str
    documents: int


@dataclass(frozen=True, slots=True)
class Facets:
    """The most frequent values of each field, the most frequent first. `errors` has the reason of
    each index that failed."""

    fields: Mapping[str, tuple[FacetValue, ...]]
    errors: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(
        cls, answers: Mapping[str, Mapping[str, Mapping[str, int]] | BaseException], limit: int
    ) -> Facets:
        """Add up the counts of all indexes.

        Args:
            answers: For each index the counts by field and value, or its error. An error that is
                not a RagIndexError is raised.
            limit: The number of values of each field.
        """
        counts = dict[str, Counter[str]]()
        errors = dict[str, str]()
        for index, answer in answers.items():
            if isinstance(answer, RagIndexError):
                errors[index] = str(answer)
                continue
            if isinstance(answer, BaseException):
                raise answer
            for name, values in answer.items():
                counts.setdefault(name, Counter()).update(values)
        fields = dict[str, tuple[FacetValue, ...]]()
        for name, counter in counts.items():
            most = counter.most_common(limit)
            fields[name] = tuple(FacetValue(value, count) for value, count in most)
        return cls(fields, errors)


def facet_fields(
    indexes: Sequence[IndexSettings], fields: Sequence[str] | None
) -> dict[str, list[str]]:
    """Return the fields whose values each index can count: the keyword fields of its
    `payload_indexes`.

    Args:
        fields: Return only these; by default all.

    Raises:
        SettingsError: No index can count one of `fields`.
    """
    countable = dict[str, list[str]]()
    for index in indexes:
        kinds = index.payload_indexes
        countable[index.name] = [name for name, kind in kinds.items() if kind == "keyword"]
    if fields is None:
        return countable
    known = set[str]().union(*countable.values())
    for field_ in fields:
        if field_ not in known:
            raise SettingsError(
                f"the values of field {field_!r} cannot be counted: give it a keyword index in"
                f" `payload_indexes`, or ask for {', '.join(sorted(known)) or 'none'}"
            )
    return {index: [name for name in names if name in fields] for index, names in countable.items()}


def count_values(
    points: PointReader,
    index: IndexSettings,
    fields: Sequence[str],
    conditions: Sequence[PayloadCondition],
) -> dict[str, dict[str, int]]:
    """Return the most frequent values of each field, with the approximate number of documents.

    Raises StoreError if a field has no keyword index in the store yet, and other errors of a store.
    """
    # A document counts by its first chunk. Of source code each chunk counts: its fields are those
    # of a definition.
    counted = tuple(conditions)
    if index.kind != CODE:
        counted = (*counted, PayloadCondition(CHUNK_FIELD, "eq", 0))
    found = {}
    for name in fields:
        try:
            found[name] = points.facet(name, limit=MAX_FACET_VALUES, conditions=counted)
        except StoreError as exc:
            # Another reason: the keyword index is there.
            if name in (points.metadata().get("payload_indexes") or {}):
                raise
            missing = (
                f"field {name} has no keyword index yet: run `rag-index index {index.name}`, which"
                " makes it"
            )
            raise StoreError(missing) from exc
    return found


def read_document(
    points: PointReader,
    index: IndexSettings,
    document_id: str,
    conditions: Sequence[PayloadCondition] = (),
    choose: Callable[[Sequence[int]], Sequence[int]] | None = None,
    max_chars: int | None = None,
) -> Document | None:
    """Return a document with its chunks that meet the conditions; None if there are none.

    Chunks are read by the ids of their points, without a search. The first chunk has their number.

    Args:
        conditions: Those of the settings and of the caller's rights.
        choose: Gets the numbers of the chunks, and returns the wanted ones, most wanted first.
        max_chars: As many chunks are returned as fit into this many characters, and at least one.

    Raises:
        SettingsError: The id cannot be one of this index, because its key has several columns.
        Exception: What `choose` and the store raise.
    """
    keys = possible_document_keys(index.key_columns, document_id)
    # A `required_filter` may hide any chunk, the first one too. The first is then read without it,
    # for the number of chunks, but never without the caller's groups.
    hides_chunks = bool(index.required_filter)
    first_conditions = conditions
    if hides_chunks:
        first_conditions = [
            condition for condition in conditions if condition.field == GROUPS_FIELD
        ]
    firsts = _first_chunks(points, index.name, document_id, keys, first_conditions)
    for key in keys:
        if key not in firsts:
            continue
        read = partial(_read_chunks, points, index.name, key, conditions)
        count = int(_ours(firsts[key]).get("chunks", 1))
        numbers: Sequence[int] = range(count)
        if hides_chunks:
            numbers = sorted(read(numbers))
        wanted = choose(numbers) if choose and numbers else numbers
        fitting = _read_fitting(read, wanted, max_chars, index.chunk_chars)
        if fitting:
            return _document(index.name, document_id, key, fitting, numbers)
    return None


def _first_chunks(
    points: PointReader,
    index: str,
    document_id: str,
    keys: Sequence[str],
    conditions: Sequence[PayloadCondition],
) -> dict[str, StoredPoint]:
    """Return the first chunk of each of these keys that is a key of this document."""
    ids = [point_id(index, key, 0) for key in keys]
    firsts = dict[str, StoredPoint]()
    for point in points.retrieve(ids, conditions=conditions):
        ours = _ours(point)
        key = str(ours.get("key"))
        if key in keys and ours.get("document_id") == document_id:
            firsts[key] = point
    return firsts


def _read_chunks(
    points: PointReader,
    index: str,
    key: str,
    conditions: Sequence[PayloadCondition],
    numbers: Sequence[int],
) -> dict[int, StoredPoint]:
    """Return those of these chunks of a document that meet the conditions, by number."""
    ids = [point_id(index, key, number) for number in numbers]
    found = points.retrieve(ids, conditions=conditions)
    return {_chunk_of(point): point for point in found}


def _read_fitting(
    read: Callable[[Sequence[int]], Mapping[int, StoredPoint]],
    wanted: Sequence[int],
    max_chars: int | None,
    chunk_chars: int,
) -> list[StoredPoint]:
    """Read the wanted chunks until `max_chars` characters are reached, at least one chunk."""
    # First as many as fit if each is as long as it can be. If they were shorter, twice as many, and
    # so on.
    size = len(wanted)
    left = math.inf
    if max_chars is not None:
        size = max_chars // chunk_chars + 1
        left = max_chars
    fitting: list[StoredPoint] = []
    while wanted and left > 0:
        found = read(wanted[:size])
        for number in wanted[:size]:
            if number not in found:
                continue
            point = found[number]
            left -= len(str(_ours(point).get("text", "")))
            if left >= 0 or not fitting:
                fitting.append(point)
        wanted, size = wanted[size:], 2 * size
    return fitting


def _document(
    index: str, document_id: str, key: str, points: Sequence[StoredPoint], numbers: Sequence[int]
) -> Document:
    """Return the document of these chunks. `numbers` are those of all its chunks."""
    # Fields that a chunk has for itself, such as the lines of source code. The others are the
    # document's.
    own_names = set[str]()
    for point in points:
        own_names.update(_ours(point).get("own", ()))
    chunks = tuple(_document_chunk(point, own_names) for point in sorted(points, key=_chunk_of))
    first = points[0]
    not_shared = {RESERVED_KEY, *own_names}
    shared = {name: value for name, value in first.payload.items() if name not in not_shared}
    later = [number for number in numbers if number > chunks[-1].chunk]
    return Document(
        index=index,
        document_id=document_id,
        citation="",
        payload=shared,
        chunks=chunks,
        as_of=NOTHING_KNOWN,
        total_chunks=len(numbers),
        next_chunk=later[0] if later else None,
        title=_ours(first).get(TITLE, ""),
        link=_ours(first).get(LINK, ""),
        key=key,
        text_hash=_ours(first).get("text_hash", ""),
    )


def _document_chunk(point: StoredPoint, own_names: Collection[str]) -> DocumentChunk:
    ours = _ours(point)
    payload = {name: value for name, value in point.payload.items() if name in own_names}
    text = str(ours.get("text", ""))
    return DocumentChunk(_chunk_of(point), text, payload, ours.get(PART, {}))


def _chunk_of(point: StoredPoint) -> int:
    """Return the number of the chunk in its document."""
    ours = _ours(point)
    return int(ours.get("chunk", 0))


def _ours(point: StoredPoint) -> Mapping[str, Any]:
    """Return the values that rag-index itself stores with a point."""
    found = point.payload.get(RESERVED_KEY)
    return found if isinstance(found, dict) else {}


def value_of(payload: Mapping[str, Any], field: str) -> Any:
    """Return the value of a field; None if the payload has none."""
    if field in payload:
        return payload[field]
    # Dots lead into the columns of a join or a part: "author.name".
    name, _, inner = field.partition(".")
    if inner and isinstance(payload.get(name), dict):
        return value_of(payload[name], inner)
    return None
