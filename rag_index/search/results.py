"""The result of a search: hits, the reasons of the indexes that gave none, and how long each stage
took.

And documents, citations that can be checked later, and what became of the cited documents.
"""

from __future__ import annotations

import hmac
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote, unquote

from rag_index.components.stores.protocol import Condition, PointReader
from rag_index.core.documents.batches import LINK, PART, RESERVED_KEY, TITLE, StoredPoint
from rag_index.core.documents.keys import point_id, possible_document_keys
from rag_index.core.settings.index import CODE
from rag_index.core.settings.parts import CHUNK_FIELD, GROUPS_FIELD
from rag_index.errors import RagIndexError, SettingsError, StoreError

if TYPE_CHECKING:
    from rag_index.core.settings import IndexSettings
    from rag_index.search.json_answers import ExplainedAnswer, SearchAnswer

MAX_FACET_VALUES = 100
"""Values of a field that each index is asked for: those of several indexes are added up."""
CITED_HASH_CHARS, SEAL_CHARS = 10, 6
"""Hexadecimal digits of a text's hash (two texts of one document never share 40 bits by chance),
and of the seal."""
_DIGITS = rf"([0-9a-f]{{{CITED_HASH_CHARS}}})([0-9a-f]{{{SEAL_CHARS}}})"
_FORM = re.compile(rf"\[?([^/\s]+)/([^#\s]*)#([0-9]{{1,9}}):{_DIGITS}(?:@([^\s\]]*))?\]?")

State = Literal["unchanged", "changed", "deleted", "unknown"]


@dataclass(frozen=True, slots=True)
class AsOf:
    """What an answer of an index is true of: everything that its source had committed by then is in
    the index.

    `at` is that time (ISO, UTC). `known_by` is `watch`, which has found since that nothing was
    written, or `run` for the start of the last complete run. `not_seen` says why the age is not
    known; "" if it is. `last_run` is the state of the newest run: running, completed, partial,
    failed or, if its process died, interrupted. What is not known is None.
    """

    at: str | None = None
    seconds_behind: float | None = None
    known_by: str | None = None
    not_seen: str = ""
    last_run: str | None = None


NOTHING_KNOWN = AsOf()


@dataclass(frozen=True, slots=True)
class Citation:
    """A chunk of a document as an index held it: `text_hash` is of the document's whole text, in
    hexadecimal digits.

    The `seal` tells it from one that was never given: it cannot be made without what the index
    keeps for it. `at` is the time by which the index was complete, "" if that is not known.
    """

    index: str
    document_id: str
    chunk: int
    text_hash: str
    seal: str
    at: str = ""

    @classmethod
    def of(cls, found: SearchHit | Document, as_of: AsOf, key: str) -> Citation:
        """Return the citation of a hit's best chunk, or a document's first, in an answer that is
        true of `as_of`.

        `key` is what its collection seals citations with.
        """
        chunk = found.chunk if isinstance(found, SearchHit) else found.chunks[0].chunk
        at = as_of.at or ""
        made = cls(
            found.index, found.document_id, chunk, found.text_hash[:CITED_HASH_CHARS], "", at
        )
        return replace(made, seal=made._seal(key))

    def is_sealed(self, key: str) -> bool:
        """Return whether this chunk with this text was once cited from an index with this key."""
        return bool(key) and hmac.compare_digest(self.seal, self._seal(key))

    def _seal(self, key: str) -> str:
        said = json.dumps([self.index, self.document_id, self.chunk, self.text_hash])
        return hmac.digest(key.encode(), said.encode(), "sha256").hex()[:SEAL_CHARS]

    @classmethod
    def parse(cls, text: str) -> Citation:
        """Return what `str` made of a citation, in brackets or not. Raises SettingsError if it is
        none."""
        found = _FORM.fullmatch(text.strip())
        if not found:
            raise SettingsError(
                f"{text!r} is no citation; one reads comments/4711#0:0123456789abcdef@TIME"
            )
        index, document_id, chunk, text_hash, seal, at = found.groups(default="")
        return cls(index, unquote(document_id), int(chunk), text_hash, seal, unquote(at))

    def __str__(self) -> str:
        """Return the citation as one word."""
        at = f"@{_word(self.at)}" if self.at else ""
        return (
            f"{self.index}/{_word(self.document_id)}#{self.chunk}:{self.text_hash}{self.seal}{at}"
        )


def _word(text: str) -> str:
    """Return a text as a person would write it, with percent codes for what would end it."""
    return "".join(
        one if one.isprintable() and one not in " %#]" else quote(one, safe="") for one in text
    )


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
        from rag_index.search.json_answers import (
            ExplainedAnswer,
            SearchAnswer,
        )  # most searches need no models

        kind = ExplainedAnswer if explain else SearchAnswer
        return kind.model_validate(self)

    @property
    def verdict(self) -> str:
        """Say before the hits how sure they are, if they are not; "" otherwise."""
        if self.offset and not self.hits:
            return "No further documents."
        if self.nothing_fits:
            return "Nothing fits. The nearest documents are:" if self.hits else "Nothing fits."
        if not self.hits:
            return "Nothing found."
        return "No document has these words together. Nearest in meaning:" if self.unsure else ""

    @property
    def correction(self) -> str:
        """Say what was searched for in place of words of the query and beside them, or nothing."""
        instead = ", ".join(
            f"{right} instead of {wrong}" for wrong, right in self.corrected.items()
        )
        beside = ", ".join(
            f"{' and '.join(others)} ({typed})" for typed, others in self.synonyms.items()
        )
        said = (
            f"Searched for {instead}" if instead else "",
            f"Also searched for {beside}" if beside else "",
        )
        return ". ".join(filter(None, said))

    @property
    def notes(self) -> list[str]:
        """Return what to say before the hits, in sentences."""
        correction = f"{self.correction}." if self.correction else ""
        return [note for note in (self.missing, correction, self.remark, self.verdict) if note]


def missing_text(
    errors: Mapping[str, str], lacking: Mapping[str, str], answered: Sequence[str]
) -> str:
    """Say which indexes gave no answer, or lack something, and why, and whose hits there are; "" if
    nothing is missing.

    tickets did not answer: still being opened after 5 s; search again in a moment. This is only
    what articles has.
    """
    said = [f"{index} did not answer: {reason.rstrip('.')}." for index, reason in errors.items()]
    said += [f"{index} {reason.rstrip('.')}." for index, reason in lacking.items()]
    if answered and not {*errors, *lacking} <= set(answered):
        said.append(
            f"This is only what {', '.join(answered)} {'has' if len(answered) == 1 else 'have'}."
        )
    return " ".join(said)


@dataclass(frozen=True, slots=True)
class DocumentChunk:
    """A chunk of a document. `payload` holds the fields that the chunk has for itself, as those of
    source code have."""

    chunk: int
    text: str
    payload: Mapping[str, Any] = field(default_factory=dict)
    part: Mapping[str, str] = field(default_factory=dict)
    """The part of the document that it is of, as `SearchHit.part`."""
    matched: tuple[str, ...] = ()
    """The words that were looked for in the document and that it has."""


@dataclass(frozen=True, slots=True)
class Document:
    """A document as the index holds it: its chunks in order, or those that were asked for, and its
    payload."""

    index: str
    document_id: str
    citation: str
    """How to cite its first chunk of those that were asked for."""
    payload: Mapping[str, Any]
    chunks: tuple[DocumentChunk, ...]
    as_of: AsOf
    total_chunks: int
    next_chunk: int | None
    """The chunk after those that were asked for, None after the last."""
    title: str = ""
    link: str = ""
    key: str = ""
    """Its typed key."""
    text_hash: str = ""
    """The hash of its whole text."""
    seal_key: str = field(default="", repr=False)
    """What its citations are sealed with."""
    matching_chunks: int | None = None
    """How many chunks have words that were looked for, also those left out; None if none were
    looked for."""


@dataclass(frozen=True, slots=True)
class Verified:
    """What became of a citation, as of a position.

    `state` is `unknown` if nothing like it was ever cited, or if the document is not there for a
    caller from whom some may be kept: whether it is not for them, was deleted or never was is not
    told. `since` is the position after which the document changed or was deleted: that of the
    citation. If it changed, `text` is the cited chunk of today, and `new_citation` cites that.
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
    """The most frequent values of each field, the most frequent first; and the reasons of failed
    indexes."""

    fields: Mapping[str, tuple[FacetValue, ...]]
    errors: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(
        cls, answers: Mapping[str, Mapping[str, Mapping[str, int]] | BaseException], limit: int
    ) -> Facets:
        """Add up what each index answered, by field and value. Raises an error that is none of
        rag-index."""
        fields, errors = dict[str, Counter[str]](), dict[str, str]()
        for index, answer in answers.items():
            if isinstance(answer, RagIndexError):
                errors[index] = str(answer)
            elif isinstance(answer, BaseException):
                raise answer
            else:
                for name, values in answer.items():
                    fields.setdefault(name, Counter()).update(values)
        most = {name: values.most_common(limit) for name, values in fields.items()}
        return cls(
            {name: tuple(FacetValue(*one) for one in values) for name, values in most.items()},
            errors,
        )


def facet_fields(
    indexes: Sequence[IndexSettings], fields: Sequence[str] | None
) -> dict[str, list[str]]:
    """Return the fields whose values each index can count: the keyword fields of its
    `payload_indexes`.

    Raises SettingsError if one of `fields` is none of them.
    """
    found = {
        one.name: [name for name, kind in one.payload_indexes.items() if kind == "keyword"]
        for one in indexes
    }
    known = sorted({name for names in found.values() for name in names})
    for field_ in fields or ():
        if field_ not in known:
            raise SettingsError(
                f"the values of field {field_!r} cannot be counted: give it a keyword index in"
                f" `payload_indexes`, or ask for {', '.join(known) or 'none'}"
            )
    return {
        index: [name for name in names if fields is None or name in fields]
        for index, names in found.items()
    }


def count_values(
    points: PointReader,
    index: IndexSettings,
    fields: Sequence[str],
    conditions: Sequence[Condition],
) -> dict[str, dict[str, int]]:
    """Return the most frequent values of each field, with about how many documents have each.
    Raises what a store does.

    A document counts by its first chunk; of source code, each chunk does, since fields are those of
    a definition.
    """
    first = () if index.kind == CODE else (Condition(CHUNK_FIELD, "eq", 0),)
    found = {}
    for name in fields:
        try:
            found[name] = points.facet(
                name, limit=MAX_FACET_VALUES, conditions=(*conditions, *first)
            )
        except StoreError as exc:
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
    conditions: Sequence[Condition] = (),
    choose: Callable[[Sequence[int]], Sequence[int]] | None = None,
    max_chars: int | None = None,
) -> Document | None:
    """Return the document of this id with the chunks that meet the conditions; None if there are
    none.

    Chunks are read by the ids of their points, without a search; the first chunk says how many
    there are. `choose` gets their numbers and returns the wanted ones, the most wanted first. Whole
    chunks are returned while they fit into `max_chars` characters, at least one. With a
    `required_filter`, which may keep back any of the chunks, all are read first. Raises
    SettingsError if the id cannot be one of this index, because its key has several columns, and
    what `choose` and the store raise.
    """
    keys, each_judged = (
        possible_document_keys(index.key_columns, document_id),
        bool(index.required_filter),
    )
    ids = [point_id(index.name, key, 0) for key in keys]
    given = [one for one in conditions if one.field == GROUPS_FIELD] if each_judged else conditions
    firsts = {
        key: point
        for point in points.retrieve(ids, conditions=given)
        if (key := str(_ours(point).get("key"))) in keys
        and _ours(point).get("document_id") == document_id
    }

    def read(numbers: Sequence[int]) -> dict[int, StoredPoint]:
        ids = [point_id(index.name, key, number) for number in numbers]
        found = points.retrieve(ids, conditions=conditions)
        return {_chunk_of(point): point for point in found}

    for key in (key for key in keys if key in firsts):
        numbers: Sequence[int] = range(int(_ours(firsts[key]).get("chunks", 1)))
        if each_judged:
            numbers = sorted(read(numbers))
        wanted = choose(numbers) if choose and numbers else numbers
        if fitting := _read_fitting(read, wanted, max_chars, index.chunk_chars):
            return _document(index.name, document_id, key, fitting, numbers)
    return None


def _read_fitting(
    read: Callable[[Sequence[int]], Mapping[int, StoredPoint]],
    wanted: Sequence[int],
    max_chars: int | None,
    chunk_chars: int,
) -> list[StoredPoint]:
    """Read as many of the chunks as `max_chars` can be, twice as many if these were short, and so
    on."""
    size = len(wanted) if max_chars is None else max_chars // chunk_chars + 1
    left = math.inf if max_chars is None else max_chars
    fitting: list[StoredPoint] = []
    while wanted and left > 0:
        found = read(wanted[:size])
        for point in (found[number] for number in wanted[:size] if number in found):
            left -= len(str(_ours(point).get("text", "")))
            if left >= 0 or not fitting:
                fitting.append(point)
        wanted, size = wanted[size:], 2 * size
    return fitting


def _document(
    index: str, document_id: str, key: str, points: Sequence[StoredPoint], numbers: Sequence[int]
) -> Document:
    own = {name for point in points for name in _ours(point).get("own", ())}
    chunks = tuple(
        DocumentChunk(
            _chunk_of(point),
            str(_ours(point).get("text", "")),
            {name: value for name, value in point.payload.items() if name in own},
            _ours(point).get(PART, {}),
        )
        for point in sorted(points, key=_chunk_of)
    )
    shared = {
        name: value
        for name, value in points[0].payload.items()
        if name != RESERVED_KEY and name not in own
    }
    title, link, text_hash = (_ours(points[0]).get(name, "") for name in (TITLE, LINK, "text_hash"))
    later = (number for number in numbers if number > chunks[-1].chunk)
    total, following = len(numbers), next(later, None)
    return Document(
        index,
        document_id,
        "",
        shared,
        chunks,
        NOTHING_KNOWN,
        total,
        following,
        title,
        link,
        key,
        text_hash,
    )


def _chunk_of(point: StoredPoint) -> int:
    """Return the number of the chunk in its document."""
    return int(_ours(point).get("chunk", 0))


def _ours(point: StoredPoint) -> Mapping[str, Any]:
    found = point.payload.get(RESERVED_KEY)
    return found if isinstance(found, dict) else {}


def value_of(payload: Mapping[str, Any], field: str) -> Any:
    """Return the value of a field; dots lead into the columns of a join or a part. None if there is
    none."""
    if field in payload:
        return payload[field]
    name, _, inner = field.partition(".")
    return value_of(payload[name], inner) if inner and isinstance(payload.get(name), dict) else None
