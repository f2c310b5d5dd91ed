"""The plan of a run: what it would do, without changing anything; and documents as they would be
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
"""Documents of each page of the source that are chunked. The chunks of the others are estimated from
their characters."""

SAMPLE_WITH_FILES = 20
"""The same for documents with files, whose text takes long to read. The characters of the others are
estimated, too."""

MAX_SECRETS = 20
"""One document in so many may have a value that looks like a secret. `plan` warns of more."""

MAX_LOST = 0.02
"""The share of letters outside of markup that a format may leave out. `plan` reports more."""

MAX_LANGUAGES = 20
"""Values of a language column that are listed. Chosen; nothing depends on it."""

NO_COLLECTION = -1
"""The id of a collection that does not exist: every document is then new."""
LOOKED_AT = 200
"""Documents from which `plan --show` selects. Chosen; nothing depends on it."""


@dataclass(frozen=True, slots=True)
class RunCost:
    """The most that a run would cost. Vectors and contexts that it can reuse cost nothing."""

    characters: int
    chunks: int
    chunks_estimated: bool
    """Whether only a sample was chunked."""
    requests: int | None
    """The approximate number of requests to embedding servers; None for an embedder in the
    process."""
    context_requests: int | None
    """The number of requests to the model that writes contexts; None without such a model."""
    workers: int
    chars_per_second: float | None
    """The characters that a worker embedded per second in the last run that embedded enough. Before
    such a run, the rate that `init` measured, which with a server is that of all workers. None if
    neither measured it."""
    seconds: float | None
    """The time for embedding at that rate; None without a rate."""
    measured_by: Literal["run", "init"] | None = None
    """The origin of the rate."""

    def to_json(self) -> dict[str, Any]:
        """Return the object that `--json` prints."""
        members = asdict(self)
        for name, value in members.items():
            if isinstance(value, float):
                members[name] = round(value, 1)
        return members

    def sentence(self) -> str:
        """Return the cost in one line for a person."""
        about = "about " if self.chunks_estimated else ""
        chunks = count_of(self.chunks, "chunk")
        sentence = f"{about}{chunks} of {count_of(self.characters, 'character')} to embed"
        if self.requests is not None:
            sentence += f" in about {count_of(self.requests, 'request')}"
        if self.context_requests is not None:
            sentence += f" and at most {count_of(self.context_requests, 'request')} for contexts"
        if self.seconds is None or self.chars_per_second is None:
            return f"{sentence}; how long that takes is unknown until a run has measured it"
        rate = f"{self.chars_per_second:,.0f} characters/s"
        if self.measured_by == "init":
            rate += ", as init measured"
        else:
            rate += " per worker, as the last run measured"
        seconds = max(1, math.ceil(self.seconds))
        time = f"about {seconds} s"
        if seconds > 90:
            time = f"about {seconds / 60:,.0f} minutes"
        return f"{sentence}; {time} with {count_of(self.workers, 'worker')} at {rate}"


class CostCounter:
    """Counts the characters and chunks that a run would embed, page by page, in bounded memory."""

    def __init__(
        self, settings: Settings, index: IndexSettings, chars_per_second: float | None
    ) -> None:
        self._settings = settings
        self._index = index
        self._rate, self._measured_by = _rate(settings, chars_per_second)
        self._chunker: Chunker = open_chunker(settings, index, contexts=False)
        self._characters = 0
        self._sampled = 0
        """Characters of the documents that were chunked."""
        self._chunks = 0
        """Chunks of these documents."""

    def add(self, documents: DocumentBatch) -> None:
        """Count the documents of a page that a run would embed."""
        if not len(documents):
            return
        sample = _spread(documents, SAMPLE_WITH_FILES if documents.files else PLAN_SAMPLE)
        sampled = 0
        for read in with_files(sample):
            sampled += sum(map(len, read.texts))
            for document in self._chunker.chunk(read):
                if not isinstance(document, RagIndexError):
                    self._chunks += len(document.chunks)
        self._sampled += sampled
        # The characters of files are known only for the sample.
        if documents.files:
            self._characters += round(sampled * len(documents) / len(sample))
        else:
            self._characters += sum(map(len, documents.texts))

    def cost(self) -> RunCost:
        """Return the cost of all counted documents."""
        chunks = self._chunks
        is_estimated = self._sampled < self._characters
        if is_estimated:
            chunks = round(self._chunks * self._characters / self._sampled)
        embedder = self._settings.embedder
        workers = 1
        if not self._settings.parallel.serial:
            workers = max(1, worker_count(self._settings))
        # A request is full by its texts or by its characters.
        texts, characters = embedder.usual_request
        by_texts = math.ceil(chunks / texts)
        by_characters = math.ceil(self._characters / characters)
        requests = max(by_texts, by_characters)
        seconds = None
        if self._rate is not None:
            # With a server, the rate of `init` is that of the server, however many workers send
            # requests. Any other rate is that of one worker.
            is_of_server = self._measured_by == "init" and embedder.on_servers
            seconds = self._characters / self._rate / (1 if is_of_server else workers)
        return RunCost(
            characters=self._characters,
            chunks=chunks,
            chunks_estimated=is_estimated,
            requests=requests if embedder.on_servers else None,
            context_requests=chunks if self._index.context is not None else None,
            workers=workers,
            chars_per_second=self._rate,
            seconds=seconds,
            measured_by=self._measured_by,
        )


def _spread(documents: DocumentBatch, most: int) -> DocumentBatch:
    """Return at most `most` documents of a page, at equal distances."""
    step = max(1, math.ceil(len(documents) / most))
    return documents.take(list(range(0, len(documents), step)))


def _rate(
    settings: Settings, of_run: float | None
) -> tuple[float | None, Literal["run", "init"] | None]:
    """Return the characters per second of the last run, or else those of `init`, and which of the
    two they are."""
    if of_run is not None:
        return of_run, "run"
    # Settings that are not from a file have not been measured.
    if not settings.path:
        return None, None
    of_init = measured_by_init(settings.path, settings.embedder.model)
    return of_init, None if of_init is None else "init"


@dataclass(slots=True)
class RunPlan(DocumentCounts):
    """What a run of an index would do."""

    gone: int = 0
    embedder: str = ""
    """The model with its prefixes, and a warning if its prefixes are unknown; empty if the embedder
    is unavailable."""
    cost: RunCost | None = None
    error: str = ""
    """Why a run would end before it changes anything. All numbers are 0 then."""
    exit_code: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return the object that `--json` prints, without empty texts and lists."""
        members = {**asdict(self), "cost": self.cost and self.cost.to_json()}
        members.pop("exit_code")
        return {name: value for name, value in members.items() if value not in ("", [])}


def plan_runs(settings: Settings, indexes: Sequence[IndexSettings]) -> list[RunPlan]:
    """Return the plan of each index. The error that would end its run early is part of its plan."""
    # An unavailable store: wait for it once, as long as a run waits, and not for each index.
    try:
        with open_names(settings.store) as store:
            store.aliases()
    except RagIndexError as error:
        return [_plan_with_error(index, error) for index in indexes]

    # Indexes with the same model share its identity, or the error of an unavailable embedder.
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
            plans.append(_plan_with_error(index, error))
    return plans


def _plan_with_error(index: IndexSettings, error: RagIndexError) -> RunPlan:
    return RunPlan(index.name, error=str(error), exit_code=error.exit_code)


def _plan(
    settings: Settings,
    index: IndexSettings,
    identified: Callable[[str], EmbedderIdentity | RagIndexError],
) -> RunPlan:
    """Compare the source with the ledger.

    Args:
        identified: Returns the embedder's identity, with the files of a revision of the model hub.

    Raises:
        RagIndexError: The source, the ledger or the store fails, or a run would refuse to start.
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
        names = ", ".join(index.secret_columns)
        if names:
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
                plan.embedder = _embedder_text(settings, identity)
                if live is not None:
                    identity = on_its_processor(identity, store.find(live.name) or {})
        if live is not None:
            read_commit_marks = partial(commit_marks, settings.store)
            plan.say(
                ledger.find_restored({index.name: live.name}, read_commit_marks).get(index.name, "")
            )
        _check_embedder(plan, settings, index, identity, live)
        _compare(plan, settings, index, source, ledger, live)
    return plan


def _embedder_text(settings: Settings, identity: EmbedderIdentity) -> str:
    """Return the model with its prefixes and pooling, and a warning about unknown prefixes."""
    pooling = identity.pooling and f"pooling {identity.pooling}"
    warning = prefix_warning(settings.embedder, identity)
    return "; ".join(filter(None, [str(identity), pooling, warning]))


def _check_embedder(
    plan: RunPlan,
    settings: Settings,
    index: IndexSettings,
    identity: EmbedderIdentity | RagIndexError,
    live: Collection | None,
) -> None:
    """Raise the error with which a run would refuse the embedder. An outage becomes a note of the
    plan."""
    try:
        if isinstance(identity, RagIndexError):
            raise identity
        chunker = open_chunker(settings, index)
        if live is not None:
            check_fits(live, identity, chunker, bm25_model(index), index=index.name)
    except TransientError as error:
        model = "the embedder" if error is identity else "the model that writes contexts"
        compared = ""
        if live is not None:
            compared = ", so it was not compared with the one that made the index"
        plan.say(f"{model} does not answer{compared}: {error}")


def _secret_values(index: IndexSettings, documents: DocumentBatch) -> str:
    """Return a warning about fields, or the text, with values that look like secrets; "" if there
    are none."""
    sample = _spread(documents, PLAN_SAMPLE)
    found: Counter[str] = Counter()
    for payload in sample.payloads:
        for name, value in decode_payload(payload).items():
            if looks_secret(value):
                found[name] += 1
    # Secrets in texts are masked already.
    if not set(index.text_columns) & set(index.not_secret):
        found["text"] = sum(MASK in text for text in sample.texts)
    names = list[str]()
    for name, count in found.items():
        if count * MAX_SECRETS > len(sample) and name not in index.not_secret:
            names.append(name)
    if not names:
        return ""
    return (
        f"values of {', '.join(names)} look like password hashes, tokens or keys: leave such"
        " columns out, or name the columns in not_secret if searches may show them"
    )


def _other_languages(index: IndexSettings, languages: Counter[str]) -> str:
    """List the values of the language column that are not languages of the index; "" if there are
    none."""
    own = split_languages(index.language)
    others = list[str]()
    for name, count in languages.most_common():
        if name and name not in own:
            others.append(f"{name!r} ({count_of(count, 'document')})")
    if not others:
        return ""
    named = ", ".join(others[:MAX_LANGUAGES])
    if len(others) > MAX_LANGUAGES:
        named += f" and {len(others) - MAX_LANGUAGES} more"
    return (
        f"language_column {index.language_column} says {named}, which is none of"
        f" {', '.join(own)}: list the language in `language`, or the words of each chunk decide"
    )


def _left_out(source: Source) -> str:
    """Return which formats leave many letters out of the texts of the first documents; "" if none
    does."""
    if not isinstance(source, SqlSource):
        return ""
    columns = list[str]()
    for sample in source.sample(PLAN_SAMPLE):
        name, form = sample.name, sample.format
        letters = lost = 0
        for value in sample.values:
            of_value, lost_of_value = letters_left_out(value, form)
            letters += of_value
            lost += lost_of_value
        if lost and lost >= MAX_LOST * letters:
            columns.append(f"{lost / letters:.0%} of the letters of column {name} (format {form})")
    if not columns:
        return ""
    return f"left out of the first texts: {', '.join(columns)}; look at `rag-index plan --show`"


def _compare(
    plan: RunPlan,
    settings: Settings,
    index: IndexSettings,
    source: Source,
    ledger: Ledger,
    live: Collection | None,
) -> None:
    """Compare each document of the source with the ledger, and count what a run would do."""
    collection_id = live.id if live else NO_COLLECTION
    hidden = hidden_by_policies(live, policy_digest(source))
    guard = DeleteGuard(ledger, live, settings.run.delete_guard, hidden=hidden) if live else None
    count_parts(source, index, guard)
    cost = CostCounter(settings, index, live.chars_per_second if live else None)
    ledger.begin_scan(settings.alias(index.name))
    # Documents of a table that digests leave unread are certainly unchanged.
    full = index.kind != SQL
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
            for layout in page.documents.layouts:
                if layout:
                    languages[TextLayout.decode(layout).language] += 1
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
    """Count what a run would do with the documents of a page, and return those that it would embed.

    Documents that would lose their points are recorded in temporary tables of the ledger.
    """
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
    """A document as an index would hold it."""

    index: str
    document_id: str
    title: str
    link: str
    payload: dict[str, Any]
    """The fields that hits return, without those of parts."""
    chunks: list[dict[str, str]]
    """The text of each chunk that would be embedded, with the name and id of its part."""

    def to_json(self) -> dict[str, Any]:
        """Return the object that `plan --show --json` prints, without an empty title or link."""
        members = asdict(self)
        for name in (TITLE, LINK):
            if not members[name]:
                del members[name]
        return members


def show_documents(settings: Settings, index: IndexSettings, count: int) -> list[ShownDocument]:
    """Return up to `count` documents of an index, without contexts that a model would write.

    They are spread over the first `LOOKED_AT` documents, without empty ones. Raises as a source
    does.
    """
    chunker = open_chunker(settings, index, contexts=False)
    with closing(open_source(settings, index, first=LOOKED_AT)) as source:
        source.check()
        documents = source.page(None, LOOKED_AT).documents
        with_text = [row for row in range(len(documents)) if not documents.is_empty(row)]
        step = max(1, len(with_text) // max(1, count))
        read = list(with_files(documents.take(with_text[::step][:count])))
    shown = list[ShownDocument]()
    for batch in read:
        for row, document in enumerate(chunker.chunk(batch)):
            # Not an error of the chunker.
            if isinstance(document, ChunkedDocument):
                shown.append(_shown(index.name, batch, row, document))
    return shown


def _shown(
    index: str, documents: DocumentBatch, row: int, document: ChunkedDocument
) -> ShownDocument:
    payload = decode_payload(documents.payloads[row])
    ours = document_part(payload)
    payload.pop(RESERVED_KEY, None)
    chunk_payloads: Sequence[bytes] = document.payloads or [b"{}"] * len(document.chunks)
    chunks = list[dict[str, str]]()
    for text, encoded in zip(document.texts_to_embed(), chunk_payloads, strict=True):
        chunk = {"text": text}
        part = part_name(decode_payload(encoded).get(RESERVED_KEY, {}).get(PART, {}))
        if part:
            chunk["part"] = part
        chunks.append(chunk)
    return ShownDocument(
        index=index,
        document_id=document_id(documents.keys[row]),
        title=ours.get(TITLE, ""),
        link=ours.get(LINK, ""),
        payload=payload,
        chunks=chunks,
    )
