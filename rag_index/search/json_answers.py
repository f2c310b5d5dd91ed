"""The JSON of results: the answers of HTTP, which OpenAPI describes, and the output of `--json`.

Each model is made from a dataclass of `results.py` or `why.py`, by fields of the same name:
`HitAnswer.model_validate(hit)`. A field that has its default is left out. Docstrings of models and
fields are descriptions in the OpenAPI schema.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, PlainSerializer
from pydantic.json_schema import SkipJsonSchema

DIGITS = 6
"""Decimals of a score: more would be noise of 32-bit vectors."""
Rounded = Annotated[float, PlainSerializer(lambda number: round(number, DIGITS), return_type=float)]
Nothing = SkipJsonSchema[None]
"""The type of a field that is left out if it has no value, and is never null."""


class Answer(BaseModel):
    """An object of an answer. The text below a field is its description in the OpenAPI schema."""

    model_config = ConfigDict(from_attributes=True, use_attribute_docstrings=True)

    def to_json(self) -> dict[str, Any]:
        """Return the object, as HTTP answers it."""
        return self.model_dump(mode="json", exclude_defaults=True)


class AsOfAnswer(Answer):
    """What an answer of an index is true of: everything that its source had committed by `at` is in
    the index."""

    at: str | None
    """A time (ISO, UTC); null if it is not known."""
    seconds_behind: float | None
    known_by: str | None
    """`watch`, which has found since that nothing was written, or `run` for the start of the last
    complete run."""
    not_seen: str
    """Why the age is not known; empty if it is."""
    last_run: str | None
    """The state of the newest run: running, completed, partial, failed or, if its process died,
    interrupted."""


class HitAnswer(Answer):
    """A document that was found."""

    index: str
    document_id: str
    citation: str
    """What `POST /verify` takes, to check later what was found."""
    score: Rounded
    """The score of the best chunk, of which the answer to `explain` has the parts."""
    relevance: Rounded
    """How likely the document fits the query (0 to 1). It means the same in every index."""
    text: str
    """The text of the best chunk."""
    chunk: int
    """The number of that chunk, from 0."""
    total_chunks: int
    """How many chunks the document has."""
    payload: dict[str, Any]
    """The columns of the source that the index names."""
    title: str = ""
    link: str = ""
    """The address at which a person reads the document."""
    collapsed: int = 0
    """How many hits that repeat this one are left out."""
    highlights: list[str] = []
    """The words of the query as they stand in title and text."""
    part: dict[str, str] = {}
    """The part of the document that the text is of: name, id and link."""


class ChunkAnswer(Answer):
    """A chunk that was found in a document."""

    chunk: int
    score: Rounded
    text: str


class ExplainedHit(HitAnswer):
    """A document that was found, with ranks and scores."""

    rank: int
    """The place in its own index, from 1."""
    fused: Rounded
    """The value that orders the hits of several indexes."""
    cosine: Rounded
    """What meaning gave the best chunk."""
    bm25: Rounded
    """What words gave the best chunk."""
    soft: Rounded
    """What the soft match gave the best chunk."""
    recency: Rounded | Nothing = None
    """How new the document is, from 0 to 1, if its index has `recency`."""
    matched: list[str]
    """The words of the query that the best chunk has."""
    synonyms: list[str]
    """What it has that means the same as words of the query."""
    chunks: list[ChunkAnswer]
    """The best chunks, best first."""
    rerank_score: Rounded | Nothing = None
    """The reranker's number for the best chunk, if it read it."""


class _Found(Answer):
    """What both answers to a search begin with."""

    hits: list[HitAnswer]
    """The documents, best first."""
    as_of: dict[str, AsOfAnswer]
    """Up to where each index that answered is complete."""
    corrected: dict[str, str] = {}
    """The words that were searched for in place of words of the query."""
    synonyms: dict[str, list[str]] = {}
    """What was searched for beside words of the query."""
    offset: int = 0
    """How many better documents were left out, as the search asked."""
    next_offset: int | Nothing = None
    """The `offset` of the search that continues this one; there is none after the last document."""
    unsure: bool = False
    """Whether no document surely fits, so that the hits are the nearest in meaning."""
    nothing_fits: bool = False
    """Whether no document is likely to fit."""
    remark: str = ""
    """That the query seems to be in a language that the embedder does not know."""
    missing: str = ""
    """What the answer lacks, and why, in sentences."""
    errors: dict[str, str] = {}
    """The reason of each index that gave no answer."""


class SearchAnswer(_Found):
    """The answer to a search."""

    rerank_error: str = ""
    """Why the best hits are not reranked, although there is a reranker."""


class ExplainedAnswer(_Found):
    """The answer to a search with `explain`."""

    hits: list[ExplainedHit]  # type: ignore[assignment]
    """The documents, best first."""
    timings_ms: dict[str, float]
    """The milliseconds of each stage, which add up to `total`."""
    fusion: str
    """What the hits are ordered by, `score` or `rank`."""
    dense_weight: Rounded
    """The weight of meaning that the scores have, 1 if words were not searched for."""
    collections: dict[str, str]
    """The collection that was searched, by index."""
    reranked: bool
    """Whether the best hits are in the order of the reranker."""
    rerank_error: str = ""
    """Why they are not, although there is a reranker."""


class DocumentChunkAnswer(Answer):
    """A chunk of a document."""

    chunk: int
    text: str
    payload: dict[str, Any] = {}
    """The fields that the chunk has for itself, as those of source code have."""
    part: dict[str, str] = {}
    """The part of the document that the text is of: name, id and link."""
    matched: list[str] = []
    """The words of `find` that it has."""


class DocumentAnswer(Answer):
    """A document as the index holds it: its payload, and its chunks in order or those that were
    asked for."""

    index: str
    document_id: str
    citation: str
    """How to cite the first of these chunks."""
    payload: dict[str, Any]
    chunks: list[DocumentChunkAnswer]
    as_of: AsOfAnswer
    total_chunks: int
    next_chunk: int | None
    """The chunk after these, null after the last."""
    title: str = ""
    link: str = ""


class VerifiedAnswer(Answer):
    """What became of a citation."""

    citation: str
    state: str
    """unchanged, changed, deleted or unknown."""
    as_of: AsOfAnswer
    since: str = ""
    """The position of the citation, after which the document changed or was deleted."""
    text: str = ""
    """The cited chunk of today, if the document changed."""
    new_citation: str = ""
    """What cites that."""


class VerifyAnswer(Answer):
    """The state of each citation, in the order of the request."""

    citations: list[VerifiedAnswer]


class FacetValueAnswer(Answer):
    """A value of a field, and about how many documents have it."""

    value: str
    documents: int


class FacetsAnswer(Answer):
    """The most frequent values of each field, the most frequent first."""

    fields: dict[str, list[FacetValueAnswer]]
    errors: dict[str, str] = {}
    """The reason of each index that gave no answer."""


class WhyAnswer(Answer):
    """Why a search does not find a document, and what helps."""

    index: str
    document_id: str
    reason: str
    """found, unknown, not_in_table, where, join, failed, empty, held_back, not_indexed,
    not_in_store, filter, access, query, collapsed, column or rank."""
    message: str
    """The reason as a sentence."""
    remedy: str = ""
    """What to do about it."""
    rank: int = 0
    """Its place in the search, from 1."""
    score: Rounded = 0.0
    """Its score there."""
    threshold: Rounded = 0.0
    """The score of the last document that the search returns."""
    matched: list[str] = []
    """The words of the query that it has."""
    missing: list[str] = []
    """Those that it does not have."""
    alike: dict[str, str] = {}
    """For words that it does not have, those in it that are written or mean nearly the same."""
