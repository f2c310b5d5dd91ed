"""Publishing: make a collection searchable, verify it, move the alias to it, keep some older ones; and roll back.

Searchable means the name of its model, payload indexes, and the search index (HNSW). What the delete guard asks is in
`delete_guard`, and the gate in `evaluation.gate`.
"""

from __future__ import annotations

import logging
from contextlib import closing
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from rag_index.documents.batches import RESERVED_KEY, text_to_embed
from rag_index.documents.canonical import decode_payload
from rag_index.documents.keys import point_id
from rag_index.embedders import Embedder, EmbedderIdentity, open_embedder
from rag_index.errors import RagIndexError, SettingsError, StoreError, StoreMismatch
from rag_index.evaluation.gate import Answers, ask, check_gate, gone_documents, judge
from rag_index.evaluation.golden import GoldenQuery, without_documents
from rag_index.indexing.commit import carry_access
from rag_index.indexing.delete_guard import DeleteGuard
from rag_index.settings.payload_indexes import GROUPS_FIELD, PAYLOAD_KINDS
from rag_index.stores import BULK, LEFT, NAME, find_live, on_server
from rag_index.stores.protocol import Store, VectorQuery

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from rag_index.indexing.run import IndexRun
    from rag_index.ledger import Collection, Ledger
    from rag_index.settings import GateSettings

SAMPLE = 20
TIE = 1e-4
"""Scores this close count as equal: exact duplicates find each other."""
MUCH = 0.1
"""An ordinary run that writes a greater share of the documents asks the golden queries, before and after."""
NOTHING_LIVE = "the gate had nothing to compare with, because no collection was live"
NOT_ASKED = "the gate was not asked (--allow-loss)"
PAYLOADS = 100
"""Payloads of the first page in which the fields of payload indexes are looked for."""
AUTO_MB = 256
"""Megabytes of embedded vectors that searches may scan: about 15 ms a search, where an index takes minutes to build."""
logger = logging.getLogger("rag_index.indexing")


def verify_counts(ledger: Ledger, store: Store, collection: Collection) -> tuple[int, int]:
    """Return the number of documents and points, after checking that the store holds what the ledger says.

    Points of pending documents may be there or not. Raises StoreMismatch if it does not.
    """
    totals, name = ledger.totals(collection.id), collection.name
    stored = store.count(name)
    if totals.pending:
        stored -= store.count(name, keys=ledger.pending_keys(collection.id))
    if stored == totals.points:
        return totals.documents, stored
    raise StoreMismatch(
        f"{name} holds {stored:,} points, the ledger explains {totals.points:,}: does another program write to it? "
        "`rag-index doctor` shows the difference, `rag-index doctor --repair` corrects it"
    )


def verify_sample(ledger: Ledger, store: Store, index: str, collection: Collection, embedder: Embedder) -> str:
    """Check the counts, and that the first chunks of sampled documents, embedded again, find themselves or an equal.

    Returns the result in one line. Raises StoreMismatch if counts differ, or a sampled chunk does not find itself.
    """
    documents, points = verify_counts(ledger, store, collection)
    ids = [point_id(index, key, 0) for key in ledger.sample(collection.id, SAMPLE)]
    chosen = store.retrieve(collection.name, ids)
    ours = [point.payload[RESERVED_KEY] for point in chosen]
    texts = [text_to_embed(one.get("context", ""), one["text"]) for one in ours]
    found = 0
    for point, vector in zip(chosen, embedder.embed_documents(texts) if texts else [], strict=True):
        if isinstance(vector, Exception):
            continue
        hits = store.search(collection.name, VectorQuery(vector, 5))
        best = hits[0].score if hits else 0.0
        found += any(hit.id == point.id for hit in hits) or best >= float(np.dot(vector, vector)) - TIE
    if found < len(ids):
        raise StoreMismatch(
            f"{collection.name}: {found} of {len(ids)} sampled chunks find themselves; it was not published. "
            "Run again; if it stays so, the embedder gives different vectors for the same text"
        )
    return f"verified {points:,} points of {documents:,} documents, {found} of {len(ids)} sampled found themselves"


def publish_collection(ledger: Ledger, store: Store, collection: Collection, *, keep: int) -> None:
    """Make `collection` live, in one step for readers; keep the newest `keep` others of its alias and drop the rest."""
    previous = store.aliases().get(collection.alias)
    store.point_alias(collection.alias, collection.name)
    ledger.update_collection(collection.id, state="ready")
    others = [c for c in ledger.collections(collection.alias) if c.id != collection.id]
    others.sort(key=lambda c: (c.name == previous, c.id))
    for old in others[: max(0, len(others) - keep)]:
        store.drop(old.name)
        ledger.drop_collection(old.id)


def roll_back(ledger: Ledger, store: Store, alias: str, index: str, *, access: bool = False) -> tuple[str, str, int]:
    """Make the newest other collection of the alias live; return the names of the one before and the one now live.

    The ledger's rows belong to collections, so nothing else has to move. Also return how many documents the former no
    longer had, which therefore come back. If the index has `access`, or its live collection has groups, all documents
    first get the groups that they have there, and those that come back get none: rights that were taken away stay away.

    Raises SettingsError if there is none to go back to, StoreMismatch if store and ledger do not belong together, so
    that nobody knows which rights to correct, and StoreRestored if the collection was put back to an older copy.
    """
    live = found.name if (found := find_live(store, alias)) else None
    there = store.collections()
    others = [c for c in ledger.collections(alias) if c.state == "ready" and c.name != live and c.name in there]
    if live is None or not others:
        raise SettingsError(
            f"there is no earlier collection of {alias} to go back to; [store] keep_previous says how many are kept"
        )
    now, before = others[-1], ledger.collection(live)
    if access or GROUPS_FIELD in (store.metadata(live).get("payload_indexes") or {}):
        if before is None:
            raise StoreMismatch(
                f"the ledger does not know {live}, so nobody knows who may see what {now.name} holds: "
                "run `rag-index doctor --repair` first"
            )
        carry_access(index, ledger, store, before, now)
    store.set_metadata(live, {LEFT: True})  # first, so that a lost alias is not set to it again
    store.set_metadata(now.name, {LEFT: None})
    store.point_alias(alias, now.name)
    return live, now.name, ledger.count_unmatched(now, before).all if before is not None else 0


class GoldenWatch:
    """The gate's question about an ordinary run that changes much of the live collection. It reports and never refuses.

    What a query finds before can be asked only while nothing is written, so `before_writing` is called first.
    """

    def __init__(self, run: IndexRun, collection: Collection, *, asks: bool) -> None:
        self._run, self._collection = run, collection
        self._documents = run.ledger.totals(collection.id).documents if asks and run.index.gate is not None else 0
        self._queries: Sequence[GoldenQuery] = ()
        self._before: Answers | None = None
        self._changed = 0

    def note(self, documents: int) -> None:
        """Count documents that will be written."""
        self._changed += documents

    def before_writing(self, *, more_to_read: bool) -> None:
        """Ask the queries if much of the collection will change, or may change because the source is not read yet."""
        if self._before is None and self._documents and (more_to_read or self._changes_much):
            self._before = self._ask()

    def report(self) -> None:
        """Ask again if much has changed, and say in the outcome what that did to the golden queries."""
        run, gate, before = self._run, self._run.index.gate, self._before
        if gate is None or before is None or not self._changes_much or (after := self._ask()) is None:
            return
        gone = gone_documents(run.ledger, run.index, self._collection.id, self._queries)
        rows = [row for row, query in enumerate(self._queries) if not set(query.relevant) <= set(gone)]
        if rows:
            left = without_documents(self._queries, gone)
            old, new = ({way: [found[row] for row in rows] for way, found in one.items()} for one in (before, after))
            verdict = run.outcome.gate = judge(gate, left, old, new, gone)
            found = verdict.sentence() if verdict.passed or not verdict.search.before else verdict.fall()
            run.outcome.say(f"{self._changed:,} documents were written where there were {self._documents:,}: {found}")
            for note in verdict.notes():
                run.outcome.say(note)

    @property
    def _changes_much(self) -> bool:
        return self._changed > MUCH * self._documents

    def _ask(self) -> Answers | None:
        run = self._run
        try:
            self._queries = self._queries or check_gate(run.settings, run.index)
            with run.stopwatch.stage("gate"):
                return ask(run.settings, run.index, self._queries, run.store, [self._collection.name])[0]
        except RagIndexError as error:
            run.outcome.say(f"golden queries were not asked: {error}")
            self._documents = 0  # and they are not asked again
            return None


def publish_rebuilt(run: IndexRun, collection: Collection, identity: EmbedderIdentity, *, first: bool) -> bool:
    """Move the alias to the rebuilt collection, unless a guard refuses; say so in the outcome, and return whether.

    `identity` is that of the embedder that embedded it. With `first`, no collection is live, so there is nothing to
    compare it with. Raises StoreMismatch if store and ledger differ, or if sampled chunks do not find themselves.
    """
    ledger, store, outcome, limits = run.ledger, run.store, run.outcome, run.settings.run
    with closing(open_embedder(run.settings.embedder, expected=identity)) as embedder:
        outcome.verified = verify_sample(ledger, store, run.index.name, collection, embedder)
    live = None if first or run.options.allow_deletes else run.live
    hidden = run.scan.hidden() if run.scan is not None else ""
    guard = DeleteGuard(ledger, live, limits.delete_guard, hidden=hidden) if live else None
    refused = guard.replacement_refused(collection) if guard else ""
    too_many = outcome.failed > limits.tolerate_failed * max(1, outcome.documents)
    if too_many and not (refused or first):  # a first one has nothing better live: what failed is only listed
        refused = (
            f"{outcome.failed:,} documents failed, so the rebuilt {collection.name} was not published; "
            "correct them and run again, or raise tolerate_failed"
        )
    if not refused and run.index.gate is not None:
        refused = _ask_gate(run, run.index.gate, None if first else store.aliases().get(run.alias), collection)
    if refused:
        outcome.hold(refused)
        return False
    if guard and live:  # the next runs know how large the former collection was
        guard.note_size()
        ledger.copy_sizes(live.id, collection.id)
    publish_collection(ledger, store, collection, keep=run.settings.store.keep_previous)
    return True


def _ask_gate(run: IndexRun, gate: GateSettings, live: str | None, rebuilt: Collection) -> str:
    """Return why the gate refuses the rebuilt collection, if it does, or if the two cannot be compared."""
    index, outcome, queries = run.index.name, run.outcome, run.golden
    if live is None or run.options.allow_loss:
        outcome.say(NOTHING_LIVE if live is None else NOT_ASKED)
        return ""
    gone = gone_documents(run.ledger, run.index, rebuilt.id, queries)
    queries = without_documents(queries, gone) or queries  # if all are gone, the ids are wrong, which the verdict says
    run.progress.say(f"asking {len(queries):,} golden queries")
    try:
        with run.stopwatch.stage("gate"):
            before, after = ask(run.settings, run.index, queries, run.store, [live, rebuilt.name])
    except RagIndexError as error:
        return (
            f"the gate could not compare {live} with the rebuilt {rebuilt.name}, which was not published "
            f"({error}): make both searchable and run again, or run `rag-index rebuild {index} --allow-loss`"
        )
    verdict = outcome.gate = judge(gate, queries, before, after, gone)
    if not verdict.passed:
        return verdict.refusal(rebuilt.name, index)
    outcome.verified += f"; {verdict.sentence()}"
    for note in verdict.notes():
        outcome.say(note)
    return ""


def make_searchable(store: Store, collection: str, identity: EmbedderIdentity, fields: Mapping[str, str]) -> None:
    """Write its name and model into the collection's metadata, and give it exactly the settings' payload indexes.

    Indexes that somebody else made are left alone. Call it at the beginning of a run: it only does something if the
    collection is new or the settings changed.
    """
    metadata = store.metadata(collection)
    before: Mapping[str, str] = metadata.get("payload_indexes") or {}
    if dict(before) != dict(fields):
        store.index_fields(collection, {**dict.fromkeys(before), **fields})
    wanted = {NAME: collection, "embedder_identity": asdict(identity), "payload_indexes": dict(fields)}
    if any(metadata.get(key) != value for key, value in wanted.items()):
        store.set_metadata(collection, wanted)


def useless_indexes(payloads: Sequence[bytes], fields: Mapping[str, str]) -> Iterator[str]:
    """Yield a sentence for each payload index, by field and kind, that none of these payloads has a value for.

    A database may give numbers or text where people expect something else: SQLite has neither booleans nor JSON.
    """
    decoded = [decode_payload(payload) for payload in payloads[:PAYLOADS]] if fields else []
    for field, kind in fields.items():
        values = [value for payload in decoded for value in _values_at(payload, field.split("."))]
        if values and not any(type(value) in PAYLOAD_KINDS[kind].types for value in values):
            yield f"the payload index on {field} is empty: its kind is {kind}, and the source gives other values"


def _values_at(value: Any, path: Sequence[str]) -> Iterator[Any]:
    """Yield what a payload has at a path, element by element; a value that the path cannot go into, as a tuple."""
    if isinstance(value, list):
        for element in value:
            yield from _values_at(element, path)
    elif path and isinstance(value, dict):
        yield from _values_at(value.get(path[0]), path[1:])
    elif value is not None:
        yield (value,) if path else value


def search_index_due(store: Store, collection: str, dimension: int) -> bool:
    """Return whether a run should build the search index.

    Only an embedded collection with more than 256 MB of vectors needs it: smaller ones are scanned in milliseconds,
    and a server builds by itself.
    """
    if not store.embedded or store.indexed(collection):
        return False
    return store.count(collection) * dimension * 4 > AUTO_MB * 1024 * 1024


def begin_bulk(store: Store, others: Sequence[str], collection: str, *, loaded: bool) -> bool:
    """Turn the search index of a new collection off, and those on again that a run of this index left off.

    `others` are the other collections of the index, and `loaded` says that this run fills the collection in bulk, and
    publishes it at the end. Return whether it has to wait for the search index then. One that holds points and has its
    search index keeps it, such as after an error: turning it off would wait for what the server is building.
    """
    server = on_server(store)
    if server is None:
        return False
    there = store.collections()
    for other in [*others, *([] if loaded else [collection])]:
        if BULK in there.get(other, {}):
            server.resume_indexing(other)
    if loaded and not store.count(collection):
        server.pause_indexing(collection)
    return loaded


def end_bulk(store: Store, collection: str, index: str) -> None:
    """Turn the search index of a collection on again, however the run ended. A fault is left to the next run."""
    if (server := on_server(store)) is not None:
        try:
            server.resume_indexing(collection)
        except StoreError as error:
            logger.warning("%s has no search index until the next run of %s: %s", collection, index, error)
