"""The plan of a run: what it would do, without doing it; and whole documents as they would be
embedded."""

from __future__ import annotations

import math
from collections import Counter
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Literal

from rag_index.components.chunking import Chunker, open_chunker
from rag_index.components.embedders import EmbedderIdentity, identify, prefix_warning
from rag_index.components.embedders.bm25 import bm25_model
from rag_index.components.embedders.candidates import measured_by_init
from rag_index.components.ledger import Collection, FailedDocument, Ledger
from rag_index.components.sources import Source, all_pages, open_source, scan_settings
from rag_index.components.sources.attachments import with_files
from rag_index.components.sources.scan_state import ScanState
from rag_index.components.sources.secret_values import MASK, looks_secret
from rag_index.components.sources.sql import SqlSource, policy_digest
from rag_index.components.sources.text import letters_left_out
from rag_index.components.stores import commit_marks, open_names
from rag_index.core.documents.batches import (
    LINK,
    PART,
    RESERVED_KEY,
    TITLE,
    ChunkedDocument,
    DocumentBatch,
    TextLayout,
    part_name,
)
from rag_index.core.documents.canonical import decode_payload
from rag_index.core.documents.groups import document_part
from rag_index.core.documents.keys import document_id
from rag_index.core.machine.resources import worker_count
from rag_index.core.reports.outcome import DocumentCounts, count_of
from rag_index.core.settings.index import SQL, split_languages
from rag_index.errors import RagIndexError, TransientError
from rag_index.etl.collection import (
    check_fits,
    live_collection,
    on_its_processor,
    recognised,
    recorded_revision,
)
from rag_index.etl.deletes import DeleteGuard, count_parts, find_undecided, hidden_by_policies
from rag_index.etl.diff import diff

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rag_index.core.settings import IndexSettings, Settings

PLAN_SAMPLE = 500
"""Documents of each page of the source that are chunked. The chunks of the others follow from their
characters."""

SAMPLE_WITH_FILES = 20
"""The same where documents have files, whose text takes long to read; their characters follow from
these alone."""

MAX_SECRETS = 20
"""One document of this many may have a value that looks like a secret; `plan` warns of more."""

MAX_LOST = 0.02
"""The share of the letters outside of marks that a format may leave out; `plan` says so of more."""

MAX_LANGUAGES = 20
"""Values of a column of languages that are named."""

NO_COLLECTION = -1
LOOKED_AT = 200


@dataclass(frozen=True, slots=True)
class RunCost:
    """What a run would have to do at most: vectors that it has already, or contexts, cost it
    nothing."""

    characters: int
    chunks: int
    chunks_estimated: bool
    """Whether only a sample was chunked."""
    requests: int | None
    """About how many requests an embedder on servers gets; None if the embedder needs none."""
    context_requests: int | None
    """How many requests the model that writes contexts gets; None if none does."""
    workers: int
    chars_per_second: float | None
    """Characters that a worker embedded in a second in the last run that had enough to measure it.
    Before one, those that `init` has measured: with a server they are those of all workers. None if
    neither did."""
    seconds: float | None
    """How long embedding takes at that rate; None if nothing has measured it."""
    measured_by: Literal["run", "init"] | None = None
    """What has measured the rate."""

    def to_json(self) -> dict[str, Any]:
        """Return the object that `--json` prints."""
        return {
            name: round(value, 1) if isinstance(value, float) else value
            for name, value in asdict(self).items()
        }

    def sentence(self) -> str:
        """Return the cost in one line for a person."""
        about = "about " if self.chunks_estimated else ""
        said = (
            f"{about}{count_of(self.chunks, 'chunk')} of {count_of(self.characters, 'character')}"
            " to embed"
        )
        if self.requests is not None:
            said += f" in about {count_of(self.requests, 'request')}"
        if self.context_requests is not None:
            said += f" and at most {count_of(self.context_requests, 'request')} for contexts"
        if self.seconds is None or self.chars_per_second is None:
            return f"{said}; how long that takes is unknown until a run has measured it"
        rate = f"{self.chars_per_second:,.0f} characters/s"
        if self.measured_by == "init":
            rate += ", as init measured"
        else:
            rate += " per worker, as the last run measured"
        seconds = max(1, math.ceil(self.seconds))
        time = f"about {seconds} s" if seconds <= 90 else f"about {seconds / 60:,.0f} minutes"
        return f"{said}; {time} with {count_of(self.workers, 'worker')} at {rate}"


class CostCounter:
    """DocumentCounts what has to be embedded, page by page. Nothing of the source's size is
    held."""

    def __init__(
        self, settings: Settings, index: IndexSettings, chars_per_second: float | None
    ) -> None:
        self._settings = settings
        self._index = index
        self._rate, self._measured_by = _rate(settings, chars_per_second)
        self._chunker: Chunker = open_chunker(settings, index, contexts=False)
        self._characters = self._sampled = self._chunks = 0

    def add(self, documents: DocumentBatch) -> None:
        """Count the documents of a page that a run would embed."""
        if not len(documents):
            return
        step = -(-len(documents) // (SAMPLE_WITH_FILES if documents.files else PLAN_SAMPLE))
        sample = documents.take(list(range(0, len(documents), step)))
        characters = 0
        for read in with_files(sample):
            characters += sum(map(len, read.texts))
            chunked = self._chunker.chunk(read)
            self._chunks += sum(
                len(one.chunks) for one in chunked if not isinstance(one, RagIndexError)
            )
        self._sampled += characters
        whole = (
            round(characters * len(documents) / len(sample))
            if documents.files
            else sum(map(len, documents.texts))
        )
        self._characters += whole

    def cost(self) -> RunCost:
        """Return the cost of all documents that were counted."""
        estimated = self._sampled < self._characters
        chunks = (
            round(self._chunks * self._characters / self._sampled) if estimated else self._chunks
        )
        embedder = self._settings.embedder
        workers = 1 if self._settings.parallel.serial else max(1, worker_count(self._settings))
        texts, characters = embedder.usual_request
        by_size = max(math.ceil(chunks / texts), math.ceil(self._characters / characters))
        # what `init` has measured with a server is what the server can do, however many workers ask
        # it
        together = 1 if self._measured_by == "init" and embedder.on_servers else workers
        return RunCost(
            characters=self._characters,
            chunks=chunks,
            chunks_estimated=estimated,
            requests=by_size if embedder.on_servers else None,
            context_requests=chunks if self._index.context is not None else None,
            workers=workers,
            chars_per_second=self._rate,
            seconds=None if self._rate is None else self._characters / self._rate / together,
            measured_by=self._measured_by,
        )


def _rate(
    settings: Settings, of_run: float | None
) -> tuple[float | None, Literal["run", "init"] | None]:
    """Return the characters per second of the last run, or else those that `init` has measured, and
    which they are."""
    if of_run is not None:
        return of_run, "run"
    of_init = measured_by_init(settings.path, settings.embedder.model) if settings.path else None
    return of_init, None if of_init is None else "init"


@dataclass(slots=True)
class RunPlan(DocumentCounts):
    """What a run of an index would do."""

    gone: int = 0
    embedder: str = ""
    """The model with its prefixes, and a warning if it is unknown which it needs; empty if it does
    not answer."""
    cost: RunCost | None = None
    error: str = ""
    """Why a run would end before it changes anything. All numbers are 0 then."""
    exit_code: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return the object that `--json` prints. `undecided`, `message` and `error` are left out
        if they are empty."""
        values = {**asdict(self), "cost": self.cost and self.cost.to_json()}
        values.pop("exit_code")
        return {name: value for name, value in values.items() if value not in ("", [])}


def plan_runs(settings: Settings, indexes: Sequence[IndexSettings]) -> list[RunPlan]:
    """Return the plan of each index. What would end its run early is in its plan. A store that does
    not answer is waited for once, as long as a run waits for it."""
    try:
        with open_names(settings.store) as store:
            store.aliases()
    except RagIndexError as error:
        return [_failed(index, error) for index in indexes]

    @cache
    def identified(revision: str) -> EmbedderIdentity | RagIndexError:
        try:
            return identify(settings.embedder, revision=revision)
        except RagIndexError as error:
            return error

    plans = []
    for index in indexes:
        try:
            plans.append(_plan(settings, index, identified))
        except RagIndexError as error:
            plans.append(_failed(index, error))
    return plans


def _failed(index: IndexSettings, error: RagIndexError) -> RunPlan:
    return RunPlan(index.name, error=str(error), exit_code=error.exit_code)


def _plan(
    settings: Settings,
    index: IndexSettings,
    identified: Callable[[str], EmbedderIdentity | RagIndexError],
) -> RunPlan:
    """Compare the whole source with the ledger. Raises what these and the store raise, and what a
    run would refuse.

    `identified` returns the embedder's identity, with the files that a revision of the model hub
    has.
    """
    plan = RunPlan(index.name)
    with (
        closing(open_source(settings, index)) as source,
        closing(Ledger(settings.ledger_url, read_only=True)) as ledger,
    ):
        source.check()
        if isinstance(source, SqlSource):
            policies = source.row_policies()
            for sentence in (policies.warning(access=index.access is not None), *policies.notes()):
                plan.say(sentence)
        if names := ", ".join(index.secret_columns):
            plan.say(
                f"searches would show {names}, named like secrets: leave out what is one, and name"
                " the rest in not_secret"
            )
        with open_names(settings.store) as store:
            alias = settings.alias(index.name)
            live = live_collection(ledger, store, alias)
            identity = identified(recorded_revision(settings.embedder, store, alias))
            if not isinstance(identity, RagIndexError):
                identity = recognised(identity, ledger, store, alias)
                pooling = identity.pooling and f"pooling {identity.pooling}"
                warning = prefix_warning(settings.embedder, identity)
                plan.embedder = "; ".join(filter(None, [str(identity), pooling, warning]))
                if live is not None:
                    identity = on_its_processor(identity, store.find(live.name) or {})
        if live is not None:
            read_marks = partial(commit_marks, settings.store)
            plan.say(ledger.find_restored({index.name: live.name}, read_marks).get(index.name, ""))
        try:
            if isinstance(identity, RagIndexError):
                raise identity
            chunker = open_chunker(settings, index)
            if live is not None:
                check_fits(live, identity, chunker, bm25_model(index), index=index.name)
        except TransientError as error:
            model = "the embedder" if error is identity else "the model that writes contexts"
            compared = (
                "" if live is None else ", so it was not compared with the one that made the index"
            )
            plan.say(f"{model} does not answer{compared}: {error}")
        _compare(plan, settings, index, source, ledger, live)
    return plan


def _secret_values(index: IndexSettings, documents: DocumentBatch) -> str:
    sample = documents.take(list(range(0, len(documents), -(-len(documents) // PLAN_SAMPLE) or 1)))
    found: Counter[str] = Counter()
    for payload in sample.payloads:
        found.update(name for name, value in decode_payload(payload).items() if looks_secret(value))
    if not set(index.text_columns) & set(index.not_secret):
        found["text"] = sum(MASK in text for text in sample.texts)
    names = [
        name
        for name, count in found.items()
        if count * MAX_SECRETS > len(sample) and name not in index.not_secret
    ]
    if not names:
        return ""
    return (
        f"values of {', '.join(names)} look like password hashes, tokens or keys: leave such"
        " columns out, or name the columns in not_secret if searches may show them"
    )


def _other_languages(index: IndexSettings, languages: Counter[str]) -> str:
    """Return what the column of languages says that is none of the index's; "" if there is
    nothing."""
    own = split_languages(index.language)
    others = [(name, count) for name, count in languages.most_common() if name and name not in own]
    if not others:
        return ""
    named = ", ".join(
        f"{name!r} ({count_of(count, 'document')})" for name, count in others[:MAX_LANGUAGES]
    )
    more = f" and {len(others) - MAX_LANGUAGES} more" if len(others) > MAX_LANGUAGES else ""
    return (
        f"language_column {index.language_column} says {named}{more}, which is none of"
        f" {', '.join(own)}: list the language in `language`, or the words of each chunk decide"
    )


def _left_out(source: Source) -> str:
    """Return which formats leave much out of the texts of the first documents."""
    said = list[str]()
    for sample in source.sample(PLAN_SAMPLE) if isinstance(source, SqlSource) else ():
        name, form = sample.name, sample.format
        counted = [letters_left_out(value, form) for value in sample.values]
        letters, lost = (
            (sum(number) for number in zip(*counted, strict=True)) if counted else (0, 0)
        )
        if lost and lost >= MAX_LOST * letters:
            said.append(f"{lost / letters:.0%} of the letters of column {name} (format {form})")
    return (
        f"left out of the first texts: {', '.join(said)}; look at `rag-index plan --show`"
        if said
        else ""
    )


def _compare(
    plan: RunPlan,
    settings: Settings,
    index: IndexSettings,
    source: Source,
    ledger: Ledger,
    live: Collection | None,
) -> None:
    collection_id = live.id if live else NO_COLLECTION
    hidden = hidden_by_policies(live, policy_digest(source))
    guard = DeleteGuard(ledger, live, settings.run.delete_guard, hidden=hidden) if live else None
    count_parts(source, index, guard)
    cost = CostCounter(settings, index, live.chars_per_second if live else None)
    ledger.begin_scan(settings.alias(index.name))
    full = index.kind != SQL  # what digests leave unread is unchanged beyond doubt
    state = ScanState(
        index, ledger, collection_id, settings=scan_settings(settings, index), full=full
    )
    source.use_scan_state(state)
    languages: Counter[str] = Counter()
    for page in all_pages(source):
        state.see(page, plan)
        if state.pages == 1:
            plan.say(_secret_values(index, page.documents))
            plan.say(_left_out(source))
        if index.language_column is not None:
            languages.update(
                TextLayout.decode(one).language for one in page.documents.layouts if one
            )
        cost.add(_count(plan, page.documents, ledger, collection_id))
    plan.say(_other_languages(index, languages))
    plan.cost = cost.cost() if plan.new + plan.changed else None
    plan.gone = ledger.find_deleted(collection_id)
    find_undecided(source, ledger, plan)
    if guard is not None:
        plan.held_back, reason = guard.foresee()
        plan.say(reason)


def _count(
    plan: RunPlan, documents: DocumentBatch, ledger: Ledger, collection_id: int
) -> DocumentBatch:
    """Count what is to be done with the documents of a page, and return those that have to be
    embedded. The ledger's temporary tables have those that lose their points."""
    keys = documents.keys
    is_due = partial(FailedDocument.is_due, now=ledger.clock(), watched=False)
    changes = diff(
        documents,
        ledger.known(collection_id, keys),
        ledger.failures(collection_id, keys),
        is_due=is_due,
    )
    ledger.record_emptied(changes.emptied)
    plan.new += changes.new
    plan.changed += len(changes.to_embed) - changes.new
    plan.payload_only += len(changes.payload_only)
    plan.unchanged += changes.unchanged
    plan.empty += changes.empty
    plan.failed += changes.given_up
    return changes.to_embed


@dataclass(frozen=True, slots=True)
class ShownDocument:
    """A document as an index would hold it. `payload` has what hits return, those of parts left
    out. `chunks` has the text of each chunk that would be embedded, with the name and id of the
    part that it is of."""

    index: str
    document_id: str
    title: str
    link: str
    payload: dict[str, Any]
    chunks: list[dict[str, str]]

    def to_json(self) -> dict[str, Any]:
        """Return the object that `plan --show --json` prints."""
        return {
            name: value
            for name, value in asdict(self).items()
            if value or name not in (TITLE, LINK)
        }


def show_documents(settings: Settings, index: IndexSettings, count: int) -> list[ShownDocument]:
    """Return some documents of an index, without contexts that a model would write. They are spread
    over the first `LOOKED_AT` documents that have text. Raises as a source does."""
    chunker = open_chunker(settings, index, contexts=False)
    with closing(open_source(settings, index, first=LOOKED_AT)) as source:
        source.check()
        documents = source.page(None, LOOKED_AT).documents
        with_text = [row for row in range(len(documents)) if not documents.is_empty(row)]
        step = max(1, len(with_text) // max(1, count))
        read = list(with_files(documents.take(with_text[::step][:count])))
    return [
        _shown(index.name, some, row, document)
        for some in read
        for row, document in enumerate(chunker.chunk(some))
        if isinstance(document, ChunkedDocument)
    ]


def _shown(
    index: str, documents: DocumentBatch, row: int, document: ChunkedDocument
) -> ShownDocument:
    payload = decode_payload(documents.payloads[row])
    ours = document_part(payload)
    payload.pop(RESERVED_KEY, None)
    own: Sequence[bytes] = document.payloads or [b"{}"] * len(document.chunks)
    parts = [decode_payload(one).get(RESERVED_KEY, {}).get(PART, {}) for one in own]
    named = zip(document.texts_to_embed(), map(part_name, parts), strict=True)
    chunks = [{"text": text, **({"part": part} if part else {})} for text, part in named]
    title, link = ours.get(TITLE, ""), ours.get(LINK, "")
    return ShownDocument(index, document_id(documents.keys[row]), title, link, payload, chunks)
