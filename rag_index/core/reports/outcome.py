"""The outcome of a run: one per index, their sum, both as sentences, and the verdict of a gate."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from rag_index.core.documents.work import Work
from rag_index.errors import RagIndexError, shortened

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rag_index.core.documents.batches import Failure, WrittenShard

State = Literal["completed", "partial", "failed"]
COUNTS = (
    "new",
    "changed",
    "payload_only",
    "unchanged",
    "empty",
    "deleted",
    "held_back",
    "failed",
    "skipped",
    "incomplete",
)
"""The counts of an outcome, in the order of its sentence."""
CONTEXTS = ("contexts_made", "contexts_cached", "contexts_missing")
"""The counts of contexts, which the work of a run has."""
OUTCOME_KEYS = (
    "index",
    "documents",
    "new",
    "changed",
    "payload_only",
    "unchanged",
    "empty",
    "held_back",
    "failed",
    "skipped",
    "message",
    "deleted",
    "incomplete",
    "undecided",
    "chunks_embedded",
    *CONTEXTS,
    "seconds",
    "state",
    "verified",
    "gate",
    "error_class",
)
"""The keys of an outcome in their order, as docs/json.md has them."""
OPTIONAL_KEYS = {
    "message",
    "error_class",
    "verified",
    "gate",
    "held_back",
    "skipped",
    "incomplete",
    "undecided",
    *CONTEXTS,
}
"""The keys that an outcome has only with a value."""
METRICS_OF_WORK = (
    "embed_seconds",
    "texts",
    "reused",
    "requests",
    "retries",
    "rate_limited",
    "asked_seconds",
    "chars",
    "chunk_seconds",
    *CONTEXTS,
)
"""The fields of a run's work that its metrics have, in order."""
_EXIT = {"completed": 0, "failed": 1, "partial": 3}
"""The exit code of a command by the state of its run."""

EPSILON = 1e-9
"""Measures that differ by less are equal: they are means of floats."""
MIN_LOST_QUERIES = 2
"""How many queries must lose before a gate refuses, unless it allows no loss. A single one may be a
tie of two scores."""
MAX_NAMED = 3
"""Names that a sentence lists. Chosen; nothing depends on it."""
MAX_QUERY = 60
"""Characters of a query or value in a sentence. Chosen; nothing depends on it."""


@dataclass(frozen=True, slots=True)
class WorseQuery:
    """A query that the rebuilt collection answers worse: its measure before and after. `lost` has
    the relevant documents, by id, that only the live collection finds."""

    query: str
    before: float
    after: float
    lost: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class GateVerdict:
    """The verdict of a gate on a rebuilt collection, from golden queries to it and to the live one.

    Attributes:
        metric: The name of the measure, such as `recall@10`.
        queries: The number of queries.
        max_loss: How far the mean may fall.
        before: The mean of the live collection.
        after: The mean of the rebuilt one.
        better: How many queries gained.
        worse: The queries that lost, the worst first.
        gone: Documents of the golden file, by id, that the source lacks. They do not count.
    """

    metric: str
    queries: int
    max_loss: float
    before: float
    after: float
    better: int = 0
    worse: tuple[WorseQuery, ...] = ()
    gone: tuple[str, ...] = ()

    @property
    def loss(self) -> float:
        """How far the mean fell; negative if it rose."""
        return self.before - self.after

    @property
    def found_nothing(self) -> bool:
        """Whether no query found a relevant document in either collection."""
        return not self.before and not self.after

    @property
    def loses_too_much(self) -> bool:
        """Whether the mean fell by more than `max_loss`."""
        return self.loss > self.max_loss + EPSILON

    @property
    def passed(self) -> bool:
        """Whether the rebuilt collection may go live."""
        # The ids of the golden file are wrong, so that the queries prove nothing.
        if self.found_nothing:
            return False
        if not self.loses_too_much:
            return True
        # The settings allow no loss.
        if self.max_loss == 0:
            return False
        # A single query that loses may exceed `max_loss`: one of ten is a tenth of the mean.
        return len(self.worse) < MIN_LOST_QUERIES

    def to_json(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        return dict(rounded({**asdict(self), "passed": self.passed}))

    def sentence(self) -> str:
        """Return the numbers on one line."""
        changed = f"{len(self.worse):,} worse, {self.better:,} better"
        if not self.worse and not self.better:
            changed = "none changed"
        return (
            f"{self.metric} of {self._asked} {self.before:.3f} before, {self.after:.3f} now"
            f" ({changed})"
        )

    def notes(self) -> Iterator[str]:
        """Yield remarks on a rebuilt collection that passed."""
        if self.loses_too_much:
            yield (
                f"the gate took a loss of {self.loss:.3f}, since a single query got worse:"
                f" {self._worse_queries}"
            )
        if self.gone:
            count = count_of(len(self.gone), "document")
            yield (
                f"the source does not have {count} of the golden file"
                f" ({shortened_list(self.gone)}), which do not count: correct the file"
            )

    def refusal(self, collection: str, index: str) -> str:
        """Return why the rebuilt collection is not published, and what to do."""
        if self.found_nothing:
            return (
                f"none of {self._asked} finds a relevant document in the live collection or in the"
                f" rebuilt {collection}, which was not published: correct the ids in the golden"
                f" file and run again, or run `rag-index rebuild {index} --allow-loss`"
            )
        fall = f"fell from {self.before:.3f} to {self.after:.3f}"
        changed = f"{self.better:,} better, {len(self.worse):,} worse: {self._worse_queries}"
        return (
            f"{self.metric} of {self._asked} {fall}, by more than max_loss ({self.max_loss:g});"
            f" {changed} (`rag-index status --report` lists them), so the rebuilt {collection}"
            f" was not published: if that is acceptable, run `rag-index rebuild {index}"
            " --allow-loss`"
        )

    @property
    def _worse_queries(self) -> str:
        return shortened_list([repr(shortened(worse.query, MAX_QUERY)) for worse in self.worse])

    @property
    def _asked(self) -> str:
        noun = "golden query" if self.queries == 1 else "golden queries"
        return f"{self.queries:,} {noun}"


def shortened_list(names: Sequence[str]) -> str:
    """Return the first names, and the number of others: `a, b, c and 4 more`."""
    named = ", ".join(names[:MAX_NAMED])
    others = len(names) - MAX_NAMED
    return f"{named} and {others:,} more" if others > 0 else named


def rounded(value: Any, digits: int = 6) -> Any:
    """Return the value with its floats rounded, also those within dictionaries and sequences."""
    if isinstance(value, dict):
        return {name: rounded(inner, digits) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(rounded(inner, digits) for inner in value)
    return round(value, digits) if isinstance(value, float) else value


@dataclass(frozen=True, slots=True)
class UndecidedValue:
    """A value that neither `show` nor `hide` of a decision lists, so that nobody may see its
    rows."""

    name: str
    """The name of the decision: that of `[indexes.visible.NAME]`."""
    value: str
    """The value as the settings would write it; a long one is cut."""
    rows: int


def undecided_sentence(index: str, values: Sequence[UndecidedValue]) -> str:
    """Return the undecided values and how to decide them; "" if there are none."""
    by_name: dict[str, list[str]] = {}
    for undecided in values:
        value = repr(shortened(undecided.value, MAX_QUERY))
        listed = by_name.setdefault(undecided.name, [])
        listed.append(f"{value} ({count_of(undecided.rows, 'row')})")
    if not by_name:
        return ""
    found = "; ".join(f"{shortened_list(listed)} of {name}" for name, listed in by_name.items())
    tables = ", ".join(f"[indexes.visible.{_toml_key(name)}]" for name in by_name)
    return (
        f"nobody decided who may see {found}, so these rows are shown to nobody: add the values to"
        f" show or hide in {tables}, and run `rag-index index {index}`"
    )


def _toml_key(name: str) -> str:
    """Return a name as it stands in the header of a TOML table."""
    if re.fullmatch(r"[A-Za-z0-9_-]+", name):
        return name
    # A name with a dot or a space: "extra.state"
    if "'" not in name and '"' not in name:
        return f'"{name}"'
    if "'" not in name:
        return f"'{name}'"
    return json.dumps(name, ensure_ascii=False)


@dataclass(slots=True)
class DocumentCounts:
    """The counts of a run of one index, or of a run that is only planned. Each document counts as
    exactly one of new, changed, payload_only, unchanged, empty, failed and skipped."""

    index: str
    documents: int = 0
    new: int = 0
    changed: int = 0
    payload_only: int = 0
    unchanged: int = 0
    empty: int = 0
    held_back: int = 0
    """Documents that the source no longer has and that the delete guard keeps in the index."""
    failed: int = 0
    """Documents that cannot be read or embedded, or that failed too often to be retried."""
    skipped: int = 0
    """Documents that a rule of the source excludes. `status` lists them with the failed ones."""
    undecided: list[UndecidedValue] = field(default_factory=list)
    """The undecided values; of each decision, those with the most rows come first."""
    message: str = ""
    """Sentences for a person: why the run was not completed, or what the index lacks although it
    was."""

    def say(self, message: str) -> None:
        """Add a sentence to the message. An empty one changes nothing."""
        sentences = [self.message, message]
        self.message = "; ".join(sentence for sentence in sentences if sentence)

    def count(self, failures: Sequence[Failure]) -> None:
        """Count failed, skipped and incomplete documents."""
        for failure in failures:
            setattr(self, failure.kind, getattr(self, failure.kind) + 1)


@dataclass(slots=True)
class IndexOutcome(DocumentCounts):
    """The outcome of a run of one index: the counts of its documents, and its work and time."""

    deleted: int = 0
    incomplete: int = 0
    """New and changed documents that are indexed but lack something. `status` lists them with the
    failed ones."""
    state: State = "completed"
    verified: str = ""
    gate: GateVerdict | None = None
    error_class: str = ""

    seconds: float = 0.0
    """Wall seconds of the run."""
    stages: dict[str, float] = field(default_factory=dict)
    """The seconds of each stage of the flow's process (`metrics.STAGES`)."""
    work: Work = field(default_factory=Work)
    """The sum over all shards, and so over all workers."""
    shards: int = 0
    workers: int = 1
    workers_died: int = 0
    """Dask workers that died during the run, for any reason."""
    first_shard_after: float | None = None
    """Seconds from the beginning to the first shard; None if there is none yet."""
    outage_seconds: float = 0.0
    """Seconds since the first shard in which a service did not answer."""

    def add(self, written: WrittenShard, *, new: int) -> None:
        """Count a committed shard with `new` documents that the ledger did not have."""
        self.new += new
        self.changed += len(written.keys) - new
        self.count(written.failures)
        self.shards += 1
        self.work += written.work

    @property
    def chunks_embedded(self) -> int:
        """The number of chunks whose vector this run computed."""
        return self.work.chunks - self.work.reused

    @property
    def working_seconds(self) -> float:
        """The seconds from the first shard to the end in which all services answered."""
        return self.seconds - (self.first_shard_after or 0.0) - self.outage_seconds

    @property
    def utilisation(self) -> float:
        """The share (0 to 1) of the working seconds in which the workers were busy."""
        available = self.working_seconds * self.workers
        if available <= 0 or not self.shards:
            return 0.0
        return min(1.0, self.work.seconds / available)

    def hold(self, message: str) -> None:
        """Set the state to partial. The reason comes first in the message, because lists of runs
        show only its beginning."""
        before = self.message
        self.message = message
        self.say(before)
        self.state = "partial"

    def to_json(self) -> dict[str, Any]:
        """Return the documented keys; keys such as `message` only if they have a value."""
        values: dict[str, Any] = {}
        for name in OUTCOME_KEYS:
            holder = self.work if name in CONTEXTS else self
            values[name] = getattr(holder, name)
        values["gate"] = self.gate.to_json() if self.gate else None
        values["undecided"] = [asdict(value) for value in self.undecided]
        values["seconds"] = round(self.seconds, 3)
        return {name: value for name, value in values.items() if value or name not in OPTIONAL_KEYS}

    def metrics(self) -> dict[str, Any]:
        """Return the documented keys of `metrics` in a run's report. Seconds are rounded to
        milliseconds."""
        values: dict[str, Any] = {
            "documents": self.documents,
            "seconds": self.seconds,
            "workers": self.workers,
            "workers_died": self.workers_died,
            "stages": self.stages,
            "write_seconds": self.work.write_seconds,
            "first_shard_after": self.first_shard_after,
            "outage_seconds": self.outage_seconds,
            "shards": self.shards,
            "chunks": self.work.chunks,
        }
        values |= {name: getattr(self.work, name) for name in METRICS_OF_WORK}
        values["worker_seconds"] = self.work.seconds
        values["utilisation"] = self.utilisation
        return dict(rounded(values, 3))

    @property
    def error(self) -> RagIndexError | None:
        """The error that ended the run of this index; None if the run did not fail."""
        if self.state != "failed":
            return None
        return RagIndexError.of_class(self.error_class, self.message)

    @property
    def nothing_to_do(self) -> bool:
        """Whether the index was already up to date."""
        if self.state != "completed" or self.verified:
            return False
        written = self.new or self.changed or self.payload_only
        return not (written or self.deleted or self.failed)

    @property
    def missing_contexts(self) -> str:
        """A sentence about chunks that are indexed without a context; "" if there are none."""
        missing = self.work.contexts_missing
        if not missing:
            return ""
        chunks = f"{missing:,} chunks are" if missing > 1 else "1 chunk is"
        return (
            f"{chunks} without context: `rag-index status {self.index} --failed` says why, "
            f"`rag-index index-all {self.index} --retry-failed` tries again"
        )

    def sentence(self, *, reason: bool = True) -> str:
        """Return the numbers as one line for a person. For a failed index, return the reason, or
        without `reason` only that it failed."""
        if self.state == "failed":
            return f"{self.index}: failed: {self.message}" if reason else f"{self.index}: failed"
        parts = [self._counts_sentence()]
        if self.chunks_embedded:
            parts.append(f"{count_of(self.chunks_embedded, 'chunk')} embedded")
        if self.work.contexts_made:
            parts.append(f"{count_of(self.work.contexts_made, 'context')} written")
        if self.work.contexts_cached:
            parts.append(f"{count_of(self.work.contexts_cached, 'context')} from the cache")
        notes = "".join(f" ({sentence})" for sentence in (self.verified, self.message) if sentence)
        documents = count_of(self.documents, "document")
        return f"{self.index}: {documents}: {', '.join(parts)} in {self.seconds:.1f} s{notes}"

    def _counts_sentence(self) -> str:
        """Return the counts that are not 0: "3 new, 1 failed"."""
        if self.nothing_to_do:
            return "nothing changed"
        counts = {name.replace("_", " "): getattr(self, name) for name in COUNTS}
        listed = ", ".join(f"{count:,} {name}" for name, count in counts.items() if count)
        return listed or "no documents"


def count_of(number: int, noun: str) -> str:
    """Return a number with its noun in the singular or the plural."""
    return f"{number:,} {noun}{'s' if number != 1 else ''}"


def failed_to_start(index: str, error: RagIndexError) -> IndexOutcome:
    """Return the outcome of an index whose run could not be opened."""
    return IndexOutcome(index, state="failed", message=str(error), error_class=type(error).__name__)


@dataclass(slots=True)
class RunReport:
    """The outcomes of all indexes of a run."""

    indexes: list[IndexOutcome] = field(default_factory=list)
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        return {
            "indexes": [outcome.to_json() for outcome in self.indexes],
            "seconds": round(self.seconds, 3),
        }

    @property
    def state(self) -> State:
        """`failed` if any index failed, else `partial` if any is partial, else `completed`."""
        states = {outcome.state for outcome in self.indexes}
        if "failed" in states:
            return "failed"
        return "partial" if "partial" in states else "completed"

    @property
    def exit_code(self) -> int:
        """0 for completed, 1 for failed, 2 if wrong settings made every index fail, 3 for
        partial."""
        errors = [outcome.error for outcome in self.indexes]
        if errors and all(error is not None and error.exit_code == 2 for error in errors):
            return 2
        return _EXIT[self.state]

    def sentence(self) -> str:
        """Return the sums as one line, which Prefect shows as the message of the run's state."""
        outcomes = self.indexes
        counts = self._counts()
        reasons: list[str] = []
        notes: list[str] = []
        for outcome in outcomes:
            if outcome.state != "failed":
                if outcome.message:
                    notes.append(f"{outcome.index}: {outcome.message}")
            # Some messages name the index themselves.
            elif outcome.message.startswith(f"index {outcome.index}: "):
                reasons.append(outcome.message)
            else:
                reasons.append(f"{outcome.index} failed: {outcome.message}")
        # All indexes failed before they wrote anything: numbers would be zeros.
        if outcomes and len(reasons) == len(outcomes) and not counts:
            return "; ".join(reasons)
        noun = "index" if len(outcomes) == 1 else "indexes"
        numbers = f"{len(outcomes)} {noun}: {', '.join(counts) or 'no documents'}"
        return "; ".join([*reasons, numbers, *notes])

    def _counts(self) -> list[str]:
        """Return the sums over all indexes that are not 0: ["3 documents indexed", "1 deleted"]."""
        indexed = sum(o.new + o.changed + o.payload_only for o in self.indexes)
        counts = [f"{count_of(indexed, 'document')} indexed"] if indexed else []
        for name in ("failed", "deleted", "unchanged", "empty", "skipped"):
            count = sum(getattr(outcome, name) for outcome in self.indexes)
            if count:
                counts.append(f"{count:,} {name}")
        return counts
