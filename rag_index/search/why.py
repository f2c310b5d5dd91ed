"""Why a search does not find a document: the first reason on the way from its row to its rank.

The way is: the question, the source, the ledger, the store with filters and rights, the ranking.
Whoever may not see all documents learns nothing from the source and the ledger: a hidden document
then looks like a missing one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
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
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from rag_index.components.embedders.bm25 import Bm25Encoder
    from rag_index.components.ledger import Collection
    from rag_index.components.sources import SourcePage
    from rag_index.components.stores.protocol import PointReader, StoreReader
    from rag_index.core.documents.batches import StoredPoint
    from rag_index.core.settings import IndexSettings, Settings
    from rag_index.search.access import AccessRules
    from rag_index.search.fan_out import FanOut
    from rag_index.search.live_collections import LiveCollection
    from rag_index.search.results import Document, SearchResult

T = TypeVar("T")
MAX_CHUNKS = 300
"""Chunks of the document that are read. Chosen; nothing depends on it."""


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
        rank: Its place in the search, from 1; 0 if it is not known.
        score: Its score at that place.
        threshold: The score of the last document that the search returns.
        matched: The words of the query that the document has.
        missing: The words of the query that it lacks.
        alike: For missing words, words of the document that are spelled or mean nearly the same.
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


@dataclass(frozen=True, slots=True)
class ComparedWords:
    """The words of the query, compared with those of the document."""

    matched: tuple[str, ...]
    missing: tuple[str, ...]
    alike: Mapping[str, str]
    """As those of `Why`."""
    columns: Mapping[str, tuple[str, ...]]
    """The missing words in columns of its row that are not indexed, by column."""


@dataclass(slots=True)
class Inquiry:
    """The inquiry about one document."""

    settings: Settings
    search: Callable[..., Awaitable[SearchResult]]
    """`Retriever.search`."""
    document: Callable[..., Awaitable[Document]]
    """`Retriever.document`."""
    fan_out: FanOut
    access: AccessRules
    query: str
    index: IndexSettings
    document_id: str
    options: SearchOptions
    sees_all: bool
    """Whether the person who asks may learn of documents that the caller of `options` may not
    see."""
    texts: list[str] = field(default_factory=list)
    """The texts of the document's chunks, once the store was read."""

    async def answer(self) -> Why:
        """Return the first reason. Raises as `Retriever.search`."""
        question, names = make_question(self.settings, self.query, PythonOptions.of(self.options))
        if names and self.index.name not in names:
            return self._why(
                "filter",
                f"The search does not ask index {self.index.name}.",
                "Name that index, too.",
            )
        hits: Sequence[SearchHit] = ()
        failure: Exception | None = None
        try:
            # If nothing of the index is hidden from anybody, everybody may learn the reason.
            self.sees_all = self.sees_all or await self._is_open()
            # Otherwise only about a document that the caller may see: this raises if not.
            if not self.sees_all:
                await self.document(self.index.name, self.document_id, groups=question.caller)
            hits = (await self.search(self.query, **self.options)).hits
        except DocumentNotFound:
            return self._why(
                "unknown",
                "There is no such document for you.",
                "With all rights, you would learn why.",
            )
        # The index may be empty, or closed to the caller: that is a reason, too.
        except (StoreError, SearchFailed) as error:
            failure = error
        own = self._own(hits)
        if own:
            rank = hits.index(own) + 1
            return self._why("found", "The search finds it.", rank=rank, score=own.score)
        why: Why | None = None
        if self.sees_all:
            why = await asyncio.to_thread(self._before_the_store)
        if why is None:
            why = await self._read(partial(self._in_the_store, question))
        if why is None and failure:
            raise failure
        if why is None:
            why = await self._in_the_ranking(hits)
        return why

    async def _is_open(self) -> bool:
        """Return whether settings and collection hide no document of the index from anybody."""
        try:
            return not await self._read(lambda _, live: self.access.restricts(live, NOBODY))
        # The index is empty: there are the settings alone.
        except StoreError:
            return self.index.access is None

    async def _read(self, call: Callable[[StoreReader, LiveCollection], T]) -> T:
        """Return the result of a call with the live collection of the index."""
        deadline = Deadline.after(self.settings.retrieve.timeout)
        return await self.fan_out.read(self.index.name, deadline, call, problems={})

    def _why(self, reason: str, message: str, remedy: str = "", **more: Any) -> Why:
        return Why(self.index.name, self.document_id, reason, message, remedy, **more)

    def _own(self, hits: Sequence[SearchHit]) -> SearchHit | None:
        """Return the hit of the document."""
        for hit in hits:
            if (hit.index, hit.document_id) == (self.index.name, self.document_id):
                return hit
        return None

    def _before_the_store(self) -> Why | None:
        """Return why the source or the ledger does not have the document as it is now."""
        alias = self.settings.alias(self.index.name)
        with closing(Ledger(self.settings.ledger_url, read_only=True)) as ledger:
            live = ledger.collection(live_aliases(self.settings.store, [alias]).get(alias, ""))
            with closing(open_source(self.settings, self.index)) as source:
                read = getattr(source, "documents", None)
                # A custom source, which cannot return a single document.
                if read is None:
                    return None
                page: SourcePage = read([self.document_id])
            # The source has it.
            keys = [*page.documents.keys, *(failed.key for failed in page.unreadable)]
            if keys:
                return self._in_the_ledger(ledger, live, page, keys[0])
            possible = possible_document_keys(self.index.key_columns, self.document_id)
            is_held = bool(live and live.held and ledger.known(live.id, possible))
        return self._not_in_the_source(is_held=is_held)

    def _not_in_the_source(self, *, is_held: bool) -> Why:
        """Return why the source does not return the document."""
        index = self.index
        hidden_by = None
        if index.kind == SQL:
            hidden_by = RowFinder(self.settings, index, self.document_id).hidden_by()
        # The row is there: "joins: …", or a condition of the index.
        if hidden_by:
            reason = "join" if hidden_by.startswith("joins") else "where"
            return self._why(
                reason,
                f"The row is there, but hidden by {hidden_by}.",
                f"To find it, change that in index {index.name}, and index it again.",
            )
        place = "the source"
        if index.table:
            place = index.table
        elif index.root:
            place = f"the folder {index.root}"
        still = "; the index still has it, since its deletion is held back" if is_held else ""
        hint = "include and exclude decide, too"
        if index.key_columns:
            hint = f"the key is {', '.join(index.key_columns)}"
        return self._why(
            "not_in_table",
            f"{place} has no {self.document_id}{still}.",
            f"Look at the id: {hint}.",
        )

    def _in_the_ledger(
        self, ledger: Ledger, live: Collection | None, page: SourcePage, key: str
    ) -> Why | None:
        """Return why the index does not have the document as the source returns it now."""
        failure = ledger.failures(live.id, [key]).get(key) if live else None
        reasons = [failed.reason for failed in page.unreadable]
        if failure and failure.kind != "incomplete":
            reasons.insert(0, failure.reason)
        if reasons:
            return self._why(
                "failed",
                f"It could not be indexed: {reasons[0].rstrip('.')}.",
                f"Mend that, then `rag-index index-all {self.index.name} --retry-failed`.",
            )
        documents = page.documents
        if documents.is_empty(0):
            return self._why(
                "empty", "It has no text.", "Name more columns in `text`, or a `title`."
            )
        known = ledger.known(live.id, [key]).get(key) if live else None
        # Indexed as it is now. The text of files is not compared: they would have to be read.
        if known and not known.pending:
            is_current = documents.files or known.text_hash == documents.text_hashes[0]
            if is_current:
                return None
        alias = self.settings.alias(self.index.name)
        for other in ledger.collections(alias):
            # Not a former live collection, such as that of the store before a `rebuild --to`.
            is_unpublished = known is None and other.state == "building"
            if is_unpublished and key in ledger.known(other.id, [key]):
                return self._why(
                    "held_back",
                    f"It is in {other.name}, which did not go live: that rebuild has not ended, or"
                    " was held back.",
                    "`rag-index status --report` says why, and `rag-index rebuild` resumes it.",
                )
        message = "Its row is not indexed yet"
        if known and known.chunks and not known.pending:
            message = "Its row has changed since it was indexed"
        reached = ledger.reached().get(alias)
        if reached:
            at = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(reached.at))
            message += f"; the index is complete up to {at}."
        else:
            message += "; no run was complete."
        remedy = f"`rag-index index {self.index.name}` indexes it."
        return self._why("not_indexed", message, remedy)

    def _in_the_store(
        self, question: Question, store: StoreReader, live: LiveCollection
    ) -> Why | None:
        """Return why no chunk of the document is a candidate."""
        keys = possible_document_keys(self.index.key_columns, self.document_id)
        ids = list[str]()
        for key in keys:
            ids += [point_id(live.index, key, number) for number in range(MAX_CHUNKS)]
        reader = store.points(live.collection)
        points = reader.retrieve(ids)
        if not points:
            remedy = (
                f"`rag-index doctor {live.index} --repair` marks it as pending, and the next run"
                " writes it again."
            )
            return self._why("not_in_store", "The ledger has it, and the store does not.", remedy)
        first = points[0].payload
        self.texts = [text_of(point.payload) for point in points]
        required = self.access.conditions(live, caller_of(ALL_GROUPS))
        for condition in (*required, *question.conditions):
            if not reader.retrieve(ids, conditions=[condition]):
                filter_name = "required_filter" if condition in required else "The filter"
                value = value_of(first, condition.field)
                message = f"{filter_name} leaves it out: its {condition.field} is {value!r}."
                return self._why("filter", message, "Leave that condition out, or change it.")
        if not self._is_visible(question, reader, live, keys, ids):
            groups = ", ".join(map(str, value_of(first, GROUPS_FIELD) or ())) or "none"
            return self._why(
                "access",
                f"The caller may not see it: its groups are {groups}.",
                "Give the caller one of them, or change who may see it (`access`).",
            )
        if not any(question.admits(point.payload) for point in points):
            words = self._lacking_phrases(question)
            if not words:
                words = [f"-{word.strip()}" for word in question.excluded]
            message = f"The query leaves it out by {', '.join(words)}."
            return self._why("query", message, "Leave that out.")
        return None

    def _is_visible(
        self,
        question: Question,
        reader: PointReader,
        live: LiveCollection,
        keys: Sequence[str],
        ids: Sequence[str],
    ) -> bool:
        """Return whether the caller of the search may see a chunk of the document.

        Raises what `AccessRules.permitted` raises.
        """
        caller = question.caller
        seen: Sequence[StoredPoint] = ()
        # A caller without groups, or without a role, sees nothing.
        with suppress(StoreError):
            conditions = self.access.conditions(live, caller)
            seen = reader.retrieve(ids, conditions=conditions)
        if not seen:
            return False
        # `access = "database"`: the database decides.
        if self.access.asks(live.index, caller):
            return bool(self.access.permitted(live.index, caller, keys, question.deadline.left))
        return True

    def _lacking_phrases(self, question: Question) -> list[str]:
        """Return the phrases of the query, in quotes, that no chunk has."""
        lacking = list[str]()
        for phrase in question.phrases:
            if not any(phrase in spaced(text) for text in self.texts):
                lacking.append(f"“{phrase.strip()}”")
        return lacking

    async def _in_the_ranking(self, first: Sequence[SearchHit]) -> Why:
        """Return why the document is not among the first hits, although it is a candidate."""
        loose = {
            **self.options,
            "limit": MAX_HITS,
            "min_relevance": None,
            "collapse": None,
            "order": None,
        }
        hits = (await self.search(self.query, **loose)).hits
        limit = self.options.get("limit", DEFAULT_LIMIT)
        own = self._own(hits)
        more: dict[str, Any] = {"threshold": first[-1].score if len(first) >= limit else 0.0}
        if own:
            more |= {"rank": hits.index(own) + 1, "score": own.score}
            best = self._collapsed_into(own, hits)
            if best is not own:
                message = (
                    f"It is collapsed into {best.index}/{best.document_id}, which has the same"
                    f" {self.options.get('collapse')}."
                )
                return self._why("collapsed", message, "Search without `collapse`.", **more)
        words = await asyncio.to_thread(self._compared)
        more |= {"matched": words.matched, "missing": words.missing, "alike": words.alike}
        if words.columns:
            return self._in_columns(words.columns, **more)
        message = f"It is not among the first {len(hits):,}"
        if own:
            message = f"It is at rank {more['rank']}, with a score of {own.score:.3f}"
        if more["threshold"]:
            message += f"; the last of the first {limit} has {more['threshold']:.3f}"
        remedy = "Use words that it has."
        if words.alike:
            alike = [f"{have} stands there for {want}" for want, have in words.alike.items()]
            remedy = f"{'; '.join(alike)}: a line in [retrieve] synonyms finds it."
        return self._why("rank", f"{message}.", remedy, **more)

    def _collapsed_into(self, own: SearchHit, hits: Sequence[SearchHit]) -> SearchHit:
        """Return the best hit with the same value of the `collapse` field: perhaps the document's
        own."""
        field_name = self.options.get("collapse")
        if not field_name:
            return own
        value = collapse_key(own, field_name)
        return next((hit for hit in hits if collapse_key(hit, field_name) == value), own)

    def _in_columns(self, columns: Mapping[str, tuple[str, ...]], **more: Any) -> Why:
        """Return that words of the query stand in columns that are not indexed."""
        words = dict.fromkeys(chain.from_iterable(columns.values()))
        message = f"{', '.join(words)}: this stands in {', '.join(columns)}, which is not indexed."
        remedy = f"Add {' and '.join(columns)} to `text` of {self.index.name}."
        return self._why("column", message, remedy, **more)

    def _compared(self) -> ComparedWords:
        """Compare the words of the query with those of the document and of its row."""
        encoder = encoder_of(bm25_model(self.index) or Bm25Model(self.index.language))
        words = encoder.words(self.query)
        matched = encoder.matched(words, ["\n".join(self.texts)])[0]
        missing = {word: term for word, term in words.items() if word not in matched}
        alike = self._alike(missing)
        columns = self._columns_with(missing, encoder)
        return ComparedWords(tuple(matched), tuple(missing), alike, columns)

    def _alike(self, missing: Iterable[str]) -> dict[str, str]:
        """Return words of the document that are spelled or mean nearly the same as missing ones."""
        own = {word.lower(): word for word in LETTERS_ALONE.words_in(" ".join(self.texts))}
        own_words = list(own)
        alike = dict[str, str]()
        for word in missing:
            # Another spelling, such as "pritner" for printer; else a similar meaning.
            spelled = next((other for other in spellings(word.lower()) if other in own), "")
            similar = spelled or nearest_word(word.lower(), own_words)
            if similar in own:
                alike[word] = own[similar]
        return alike

    def _columns_with(
        self, missing: Mapping[str, Any], encoder: Bm25Encoder
    ) -> dict[str, tuple[str, ...]]:
        """Return the missing words that stand in columns of the row which are not indexed."""
        index = self.index
        # The row may have texts that are hidden from whoever may not see all.
        if not missing or not self.sees_all or index.kind != SQL:
            return {}
        row = RowFinder(self.settings, index, self.document_id).full_row()
        indexed = {*index.title_columns, *index.text_columns, *index.key_columns}
        names = [name for name in row if name not in indexed]
        matched = encoder.matched(missing, [str(row[name]) for name in names])
        columns = dict[str, tuple[str, ...]]()
        for name, words in zip(names, matched, strict=True):
            if words:
                columns[name] = words
        return columns
