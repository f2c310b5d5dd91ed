"""Why a search does not find a document: one walk from its row to its rank, on which the first
reason wins."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from rag_index.components.embedders.bm25 import Bm25Model, bm25_model, encoder_of
from rag_index.components.embedders.tokenizer import LETTERS_ALONE
from rag_index.components.ledger import Ledger
from rag_index.components.sources import open_source
from rag_index.components.sources.hidden import RowFinder
from rag_index.components.stores import live_aliases
from rag_index.core.documents.keys import point_id, possible_document_keys
from rag_index.core.settings.index import SQL
from rag_index.core.settings.parts import GROUPS_FIELD
from rag_index.errors import DocumentNotFound, SearchFailed, StoreError
from rag_index.search.access import ALL_GROUPS, NOBODY, caller_of
from rag_index.search.concurrency import Deadline
from rag_index.search.options import DEFAULT_LIMIT, MAX_HITS, PythonOptions, SearchOptions
from rag_index.search.question import Question, make_question, spaced, text_of
from rag_index.search.relevance import collapse_key
from rag_index.search.results import SearchHit, value_of
from rag_index.search.soft_match import nearest_word
from rag_index.search.spelling import spellings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from rag_index.components.ledger import Collection
    from rag_index.components.sources import SourcePage
    from rag_index.components.stores.protocol import StoreReader
    from rag_index.core.settings import IndexSettings, Settings
    from rag_index.search.access import AccessRules
    from rag_index.search.fan_out import FanOut
    from rag_index.search.live_collections import LiveCollection
    from rag_index.search.results import Document, SearchResult

T = TypeVar("T")
MAX_CHUNKS = 300
"""Chunks of the document that are looked at."""


@dataclass(frozen=True, slots=True)
class Why:
    """Why a search does not find a document, and what helps.

    Attributes:
        index: The index that was asked for.
        document_id: The document's key, as text.
        reason: found, unknown, not_in_table, where, join, failed, empty, held_back, not_indexed,
            not_in_store, filter, access, query, collapsed, column or rank.
        message: The reason as a sentence.
        remedy: What to do about it, "" if there is nothing.
        rank: Its place in the search, from 1; 0 if that is not known. It has the `score`.
        threshold: The score of the last document that the search returns.
        matched, missing: The words of the query that it has, and those that it does not have.
        alike: For words that it does not have, those in it that are written or mean nearly the
            same.
    """

    index: str
    document_id: str
    reason: str
    message: str
    remedy: str = ""
    rank: int = 0
    score: float = 0.0
    threshold: float = 0.0
    matched: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    alike: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Inquiry:
    """The walk for one document. `told` says whether the asker may learn of documents that the
    caller may not see."""

    settings: Settings
    search: Callable[..., Awaitable[SearchResult]]
    document: Callable[..., Awaitable[Document]]
    """Those of the retriever."""
    fan_out: FanOut
    access: AccessRules
    query: str
    index: IndexSettings
    document_id: str
    options: SearchOptions
    told: bool
    texts: list[str] = field(default_factory=list)
    """Those of the document's chunks."""

    async def answer(self) -> Why:
        """Return the first reason. Raises as `Retriever.search`."""
        question, names = make_question(self.settings, self.query, PythonOptions.of(self.options))
        if names and self.index.name not in names:
            return self._why(
                "filter",
                f"The search does not ask index {self.index.name}.",
                "Name that index, too.",
            )
        failure: Exception | None = None
        try:
            self.told = self.told or await self._is_open()
            if not self.told:
                await self.document(self.index.name, self.document_id, groups=question.caller)
            hits = (await self.search(self.query, **self.options)).hits
        except DocumentNotFound:
            return self._why(
                "unknown",
                "There is no such document for you.",
                "With all rights, you would learn why.",
            )
        except (
            StoreError,
            SearchFailed,
        ) as error:  # the index may be empty, or closed to the caller
            hits, failure = (), error
        if own := self._own(hits):
            return self._why(
                "found", "The search finds it.", rank=hits.index(own) + 1, score=own.score
            )
        why = await asyncio.to_thread(self._before_the_store) if self.told else None
        why = why or await self._read(partial(self._in_the_store, question))
        if why is None and failure:
            raise failure
        return why or await self._in_the_ranking(hits)

    async def _is_open(self) -> bool:
        """Return whether nothing of the index is kept from anybody, as settings and collection
        say."""
        with suppress(StoreError):  # it is empty
            return not await self._read(lambda _, live: self.access.restricts(live, NOBODY))
        return self.index.access is None

    async def _read(self, call: Callable[[StoreReader, LiveCollection], T]) -> T:
        return await self.fan_out.read(
            self.index.name, Deadline.after(self.settings.retrieve.timeout), call, {}
        )

    def _why(self, reason: str, message: str, remedy: str = "", **more: Any) -> Why:
        return Why(self.index.name, self.document_id, reason, message, remedy, **more)

    def _own(self, hits: Sequence[SearchHit]) -> SearchHit | None:
        return next(
            (
                hit
                for hit in hits
                if (hit.index, hit.document_id) == (self.index.name, self.document_id)
            ),
            None,
        )

    def _before_the_store(self) -> Why | None:
        """Return why the source gives no document, or the index does not have it as it is now."""
        alias = self.settings.alias(self.index.name)
        with closing(Ledger(self.settings.ledger_url, read_only=True)) as ledger:
            live = ledger.collection(live_aliases(self.settings.store, [alias]).get(alias, ""))
            with closing(open_source(self.settings, self.index)) as source:
                if (
                    read := getattr(source, "documents", None)
                ) is None:  # of one's own, not to be asked for one
                    return None
                page: SourcePage = read([self.document_id])
            for key in (*page.documents.keys, *(one.key for one in page.unreadable)):
                return self._in_the_ledger(ledger, live, page, key)
            keys = possible_document_keys(self.index.key_columns, self.document_id)
            held = live and live.held and ledger.known(live.id, keys)
        index = self.index
        if index.kind == SQL and (
            what := RowFinder(self.settings, index, self.document_id).hidden_by()
        ):
            said, kind = (
                f"The row is there, but hidden by {what}.",
                "join" if what.startswith("joins") else "where",
            )
            return self._why(
                kind, said, f"To find it, change that in index {index.name}, and index it again."
            )
        place = index.table or (f"the folder {index.root}" if index.root else "the source")
        still = "; the index still has it, since its deletion is held back" if held else ""
        key = (
            f"the key is {', '.join(index.key_columns)}"
            if index.key_columns
            else "include and exclude decide, too"
        )
        return self._why(
            "not_in_table", f"{place} has no {self.document_id}{still}.", f"Look at the id: {key}."
        )

    def _in_the_ledger(
        self, ledger: Ledger, live: Collection | None, page: SourcePage, key: str
    ) -> Why | None:
        failure = ledger.failures(live.id, [key]).get(key) if live else None
        reasons = [failure.reason] if failure and failure.kind != "incomplete" else []
        if reasons or page.unreadable:
            said = (
                "It could not be indexed:"
                f" {[*reasons, *(one.reason for one in page.unreadable)][0].rstrip('.')}."
            )
            return self._why(
                "failed",
                said,
                f"Mend that, then `rag-index index-all {self.index.name} --retry-failed`.",
            )
        if page.documents.is_empty(0):
            return self._why(
                "empty", "It has no text.", "Name more columns in `text`, or a `title`."
            )
        known = ledger.known(live.id, [key]).get(key) if live else None
        if (
            known
            and not known.pending
            and (page.documents.files or known.text_hash == page.documents.text_hashes[0])
        ):
            return None
        alias = self.settings.alias(self.index.name)
        for other in ledger.collections(alias):
            # Not a former live collection, such as that of the store before a `rebuild --to`.
            is_unpublished = known is None and other.state == "building"
            if is_unpublished and key in ledger.known(other.id, [key]):
                said = (
                    f"It is in {other.name}, which did not go live: that rebuild has not ended, or"
                    " was held back."
                )
                remedy = "`rag-index status --report` says why, and `rag-index rebuild` resumes it."
                return self._why("held_back", said, remedy)
        changed = known and known.chunks and not known.pending
        said = (
            "Its row has changed since it was indexed" if changed else "Its row is not indexed yet"
        )
        reached = ledger.reached().get(alias)
        at = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(reached.at)) if reached else ""
        said += f"; the index is complete up to {at}." if at else "; no run was complete."
        return self._why("not_indexed", said, f"`rag-index index {self.index.name}` indexes it.")

    def _in_the_store(
        self, question: Question, store: StoreReader, live: LiveCollection
    ) -> Why | None:
        """Return why the chunks of the document are no candidates."""
        keys = possible_document_keys(self.index.key_columns, self.document_id)
        ids = [point_id(live.index, key, number) for key in keys for number in range(MAX_CHUNKS)]
        collection = store.points(live.collection)
        points = collection.retrieve(ids)
        if not points:
            remedy = (
                f"`rag-index doctor {live.index} --repair` marks it as pending, and the next run"
                " writes it again."
            )
            return self._why("not_in_store", "The ledger has it, and the store does not.", remedy)
        self.texts = [text_of(point.payload) for point in points]
        required = self.access.conditions(live, caller_of(ALL_GROUPS))
        for one in (*required, *question.conditions):
            if not collection.retrieve(ids, conditions=[one]):
                whose = "required_filter" if one in required else "The filter"
                said = (
                    f"{whose} leaves it out: its {one.field} is"
                    f" {value_of(points[0].payload, one.field)!r}."
                )
                return self._why("filter", said, "Leave that condition out, or change it.")
        seen: object = False
        with suppress(StoreError):  # who has neither groups nor a role sees nothing
            open_to_caller = self.access.conditions(live, question.caller)
            seen = collection.retrieve(ids, conditions=open_to_caller)
        if seen and self.access.asks(live.index, question.caller):
            seen = self.access.permitted(live.index, question.caller, keys, question.deadline.left)
        if not seen:
            groups = ", ".join(map(str, value_of(points[0].payload, GROUPS_FIELD) or ())) or "none"
            said = f"The caller may not see it: its groups are {groups}."
            return self._why(
                "access", said, "Give the caller one of them, or change who may see it (`access`)."
            )
        if not any(question.admits(point.payload) for point in points):
            lacks = [
                f"“{one.strip()}”"
                for one in question.phrases
                if not any(one in spaced(t) for t in self.texts)
            ]
            has = [f"-{one.strip()}" for one in question.excluded]
            return self._why(
                "query", f"The query leaves it out by {', '.join(lacks or has)}.", "Leave that out."
            )
        return None

    async def _in_the_ranking(self, first: Sequence[SearchHit]) -> Why:
        """Return why the document is not among the first, although it is a candidate."""
        loose = {
            **self.options,
            "limit": MAX_HITS,
            "min_relevance": None,
            "collapse": None,
            "order": None,
        }
        every, by = (await self.search(self.query, **loose)).hits, self.options.get("collapse")
        own, limit = self._own(every), self.options.get("limit", DEFAULT_LIMIT)
        more: dict[str, Any] = {"threshold": first[-1].score if len(first) >= limit else 0.0}
        if own:
            more |= {"rank": every.index(own) + 1, "score": own.score}
            into = next(
                (hit for hit in every if by and collapse_key(hit, by) == collapse_key(own, by)), own
            )
            if into is not own:
                said = (
                    f"It is collapsed into {into.index}/{into.document_id}, which has the same"
                    f" {by}."
                )
                return self._why("collapsed", said, "Search without `collapse`.", **more)
        compared, columns = await asyncio.to_thread(self._compared)
        more |= compared
        if columns:
            words = ", ".join(dict.fromkeys(word for some in columns.values() for word in some))
            said = f"{words}: this stands in {', '.join(columns)}, which is not indexed."
            return self._why(
                "column",
                said,
                f"Add {' and '.join(columns)} to `text` of {self.index.name}.",
                **more,
            )
        place = f"It is at rank {more['rank']}, with a score of {own.score:.3f}" if own else ""
        said = place or f"It is not among the first {len(every):,}"
        said += (
            f"; the last of the first {limit} has {more['threshold']:.3f}."
            if more["threshold"]
            else "."
        )
        alike = [f"{have} stands there for {want}" for want, have in more["alike"].items()]
        remedy = (
            f"{'; '.join(alike)}: a line in [retrieve] synonyms finds it."
            if alike
            else "Use words that it has."
        )
        return self._why("rank", said, remedy, **more)

    def _compared(self) -> tuple[dict[str, Any], dict[str, tuple[str, ...]]]:
        """Return what is known of the words of the query, and which columns that are not searched
        have missing ones."""
        encoder = encoder_of(bm25_model(self.index) or Bm25Model(self.index.language))
        matched = encoder.matched(words := encoder.words(self.query), ["\n".join(self.texts)])[0]
        missing = {word: one for word, one in words.items() if word not in matched}
        every = " ".join(self.texts)
        own = {one.lower(): one for one in LETTERS_ALONE.words_in(every)}
        typed = {
            word: next((one for one in spellings(word.lower()) if one in own), "")
            for word in missing
        }
        near = {word: one or nearest_word(word.lower(), list(own)) for word, one in typed.items()}
        alike = {word: own[one] for word, one in near.items() if one in own}
        index, asks = self.index, missing and self.told and self.index.kind == SQL
        row = RowFinder(self.settings, index, self.document_id).whole_row() if asks else {}
        names = [
            name
            for name in row
            if name not in (*index.title_columns, *index.text_columns, *index.key_columns)
        ]
        found = zip(
            names, encoder.matched(missing, [str(row[name]) for name in names]), strict=True
        )
        columns = {name: some for name, some in found if some}
        return {"matched": tuple(matched), "missing": tuple(missing), "alike": alike}, columns
