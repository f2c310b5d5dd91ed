"""What a search returns of the hits of its indexes: which are shown, in which order, and which page
of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rag_index.search.fusion import compares_scores, in_order
from rag_index.search.options import DEFAULT_LIMIT, MAX_HITS
from rag_index.search.relevance import FITS, NEAR, collapsed
from rag_index.search.results import SearchResult, missing_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rag_index.search.question import Asked, LikeDocument, Question
    from rag_index.search.results import SearchHit

WIDER = 3
"""Factor of the searched documents if some hits may not be shown, such as collapsed ones. Chosen."""
FURTHER = "There may be documents further down that no search reaches: narrow it to see them."


@dataclass(frozen=True, slots=True)
class Sieve:
    """Which hits of a search are shown, and in which order.

    Attributes:
        model: The document of a search for similar documents, which is not shown itself.
        min_relevance: The relevance that a hit needs.
        collapse: What equal hits have in common, of which the best is shown; see `collapse_key`.
        order: The field in whose order hits are shown; see `in_order`. None for the best first.
    """

    model: LikeDocument | None
    min_relevance: float
    collapse: str | None
    order: str | None

    @property
    def shows_all(self) -> bool:
        """Whether all hits of enough relevance are shown, so that their number is known before."""
        return not (self.collapse or self.model or self.order)

    def shown(self, hits: Iterable[SearchHit]) -> list[SearchHit]:
        """Return the hits that are shown."""
        shown = [hit for hit in hits if hit.relevance >= self.min_relevance]
        if self.model:
            shown = [hit for hit in shown if not self.model.is_same(hit)]
        if self.collapse:
            shown = collapsed(shown, self.collapse)
        if self.order:
            shown = in_order(shown, self.order, FITS)
        return shown

    def ends(self, hits: Iterable[SearchHit]) -> bool:
        """Return whether the relevance of some hits is too low. That of documents further down would
        be, too."""
        least = max(self.min_relevance, FITS if self.order else 0.0)
        return any(hit.relevance < least for hit in hits)


@dataclass(frozen=True, slots=True)
class RerankedHits:
    """The relevant hits in the order of the reranker, or in the former one if there is none.

    Attributes:
        hits: The hits.
        is_reranked: Whether the reranker ordered them.
        error: Why it did not, if it failed; else empty.
    """

    hits: Sequence[SearchHit]
    is_reranked: bool = False
    error: str = ""


def with_depth(question: Question, sieve: Sieve, end: int, top: int) -> Question:
    """Return the question of a page with the number of documents to search for, and of hits.

    Args:
        question: The question, whose limit is the size of the page.
        sieve: What is shown.
        end: The number of hits up to the end of the page.
        top: The number of documents that the reranker reads; 0 without one.
    """
    # It does not depend on the offset, so that all pages are parts of one order.
    depth = max(DEFAULT_LIMIT, question.limit)
    hits: int | None = max(end, top)
    # How many of the hits are shown is known only after the search.
    if not sieve.shows_all:
        depth *= WIDER
        hits = None
    return replace(question, limit=min(MAX_HITS, max(depth, top)), hits=hits)


def make_result(asked: Asked, reranked: RerankedHits, sieve: Sieve) -> SearchResult:
    """Return the result with all hits that are shown, before it is cut to a page."""
    question = asked.question
    answered = asked.answered
    missing = _missing(asked)
    best = max([hit.relevance for hit in asked.hits], default=0.0)
    # What is missing might fit.
    may_judge = bool(asked.hits) and not missing
    synonyms: dict[str, tuple[str, ...]] = {}
    for typed, synonym in question.synonyms:
        synonyms[typed] = (*synonyms.get(typed, ()), synonym)
    weights = [asked.scoring[answer.index].dense_weight for answer in answered]
    return SearchResult(
        hits=tuple(sieve.shown(reranked.hits)),
        as_of={},
        corrected=question.corrected,
        synonyms=synonyms,
        unsure=may_judge and NEAR <= best < FITS,
        nothing_fits=may_judge and best < NEAR,
        remark=asked.remark,
        missing=missing,
        errors=asked.reasons,
        fusion="score" if compares_scores(answered) else "rank",
        dense_weight=min(weights, default=1.0),
        collections={answer.index: answer.live.collection for answer in answered},
        reranked=reranked.is_reranked,
        rerank_error=reranked.error,
    )


def _missing(asked: Asked) -> str:
    """Return what the result lacks, in sentences; empty if it lacks nothing."""
    errors = asked.reasons
    sentences = [asked.synonyms_failure]
    if errors or asked.lacking:
        answered = [answer.index for answer in asked.answered]
        sentences.append(missing_text(errors, asked.lacking, answered))
    return " ".join(filter(None, sentences))


def cut_page(
    asked: Asked, sieve: Sieve, result: SearchResult, offset: int, end: int
) -> SearchResult:
    """Return the page of a result from `offset` to `end`, with the offset of the next page. If there
    is none although documents may follow, `missing` tells why."""
    ended = sieve.ends(asked.hits)
    has_unshown = asked.left or asked.unranked
    # A deeper search would find more. In the order of a field, it would change the places of hits.
    may_go_deeper = asked.deeper and asked.question.limit < MAX_HITS and not sieve.order
    may_follow = (asked.left or may_go_deeper) and not ended
    has_next = len(result.hits) > end or (len(result.hits) == end and may_follow)
    next_offset = end if has_next and end < MAX_HITS else None
    missing = result.missing
    if next_offset is None and has_unshown and not ended:
        missing = f"{missing} {FURTHER}".strip()
    return replace(
        result,
        hits=result.hits[offset:end],
        offset=offset,
        next_offset=next_offset,
        missing=missing,
    )
