"""The outcome of a run: one per index, their sum, and both as sentences; what a gate found."""

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
CONTEXTS = ("contexts_made", "contexts_cached", "contexts_missing")
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
"""Those that an outcome has only with a value."""
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
"""What the metrics of a run have of its work, in their order."""
_EXIT = {"completed": 0, "failed": 1, "partial": 3}

EPSILON = 1e-9
"""Measures that differ by less are equal: they are means of floats."""
MIN_LOST_QUERIES = 2
"""How many queries must lose before a gate refuses, unless it allows no loss: one alone may be a
tie of two scores."""
MAX_NAMED = 3
MAX_QUERY = 60


@dataclass(frozen=True, slots=True)
class WorseQuery:
    """A query that the rebuilt collection answers worse: its measure before and after. `lost` has
    the relevant documents, by id, that only the live collection found."""

    query: str
    before: float
    after: float
    lost: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class GateVerdict:
    """The verdict of a gate on a rebuilt collection, from the golden queries that the live one was
    asked, too.

    Attributes:
        metric: The name of the measure, such as `recall@10`.
        queries: How many queries were asked.
        max_loss: How far the mean may fall.
        before: The mean of the live collection.
        after: The mean of the rebuilt one.
        better: How many queries gained.
        worse: The queries that lost, the worst first.
        gone: Documents of the golden file, by id, that the source does not have. They do not count.
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
        if (
            self.found_nothing
        ):  # the ids of the golden file are wrong, so that the queries prove nothing
            return False
        if not self.loses_too_much:
            return True
        if self.max_loss == 0:  # the first query that loses is one too many
            return False
        return (
            len(self.worse) < MIN_LOST_QUERIES
        )  # such as one of ten queries, which is a tenth of the mean

    def to_json(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        return dict(rounded({**asdict(self), "passed": self.passed}))

    def sentence(self) -> str:
        """Return the numbers in one line."""
        changed = f"{len(self.worse):,} worse, {self.better:,} better"
        if not self.worse and not self.better:
            changed = "none changed"
        return (
            f"{self.metric} of {self._asked} {self.before:.3f} before, {self.after:.3f} now"
            f" ({changed})"
        )

    def notes(self) -> Iterator[str]:
        """Yield what a person should know of a rebuilt collection that passed."""
        if self.loses_too_much:
            named = shortened_list([repr(shortened(one.query, MAX_QUERY)) for one in self.worse])
            yield (
                f"the gate took a loss of {self.loss:.3f}, since a single query got worse: {named}"
            )
        if self.gone:
            count, named = count_of(len(self.gone), "document"), shortened_list(self.gone)
            yield (
                f"the source does not have {count} of the golden file ({named}), which do not"
                " count: correct the file"
            )

    def refusal(self, collection: str, index: str) -> str:
        """Return why the rebuilt collection is not published, and what to do."""
        if self.found_nothing:
            return (
                f"none of {self._asked} finds a relevant document in the live collection or in the"
                f" rebuilt {collection}, which was not published: correct the ids in the golden"
                f" file and run again, or run `rag-index rebuild {index} --allow-loss`"
            )
        named = shortened_list([repr(shortened(one.query, MAX_QUERY)) for one in self.worse])
        return (
            f"{self.metric} of {self._asked} fell from {self.before:.3f} to {self.after:.3f}, by"
            f" more than max_loss ({self.max_loss:g}); {self.better:,} better, {len(self.worse):,}"
            f" worse: {named} (`rag-index status --report` lists them), so the rebuilt {collection}"
            f" was not published: if that is acceptable, run `rag-index rebuild {index}"
            " --allow-loss`"
        )

    @property
    def _asked(self) -> str:
        return f"{self.queries:,} golden quer{'ies' if self.queries != 1 else 'y'}"


def shortened_list(names: Sequence[str]) -> str:
    """Return the first names, and how many others there are: `a, b, c and 4 more`."""
    named = ", ".join(names[:MAX_NAMED])
    others = len(names) - MAX_NAMED
    return f"{named} and {others:,} more" if others > 0 else named


def rounded(value: Any, digits: int = 6) -> Any:
    """Return the value with its floats rounded, those of dictionaries and sequences in it too."""
    if isinstance(value, dict):
        return {name: rounded(inner, digits) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(rounded(inner, digits) for inner in value)
    return round(value, digits) if isinstance(value, float) else value


@dataclass(frozen=True, slots=True)
class UndecidedValue:
    """A value that neither `show` nor `hide` of a decision names, so that its rows are shown to
    nobody."""

    name: str
    """The name of the decision: that of `[indexes.visible.NAME]`."""
    value: str
    """The value as the settings would name it; a long one is cut."""
    rows: int


def undecided_sentence(index: str, values: Sequence[UndecidedValue]) -> str:
    """Return which values nobody decided on, and how to decide; "" if there are none."""
    by_name: dict[str, list[str]] = {}
    for one in values:
        by_name.setdefault(one.name, []).append(
            f"{shortened(one.value, MAX_QUERY)!r} ({count_of(one.rows, 'row')})"
        )
    if not by_name:
        return ""
    found = "; ".join(f"{shortened_list(listed)} of {name}" for name, listed in by_name.items())
    tables = ", ".join(f"[indexes.visible.{_toml_key(name)}]" for name in by_name)
    return (
        f"nobody decided who may see {found}, so these rows are shown to nobody: add the values to"
        f" show or hide in {tables}, and run `rag-index index {index}`"
    )


def _toml_key(name: str) -> str:
    """Return a name as the header of a table in TOML has it."""
    if re.fullmatch(r"[A-Za-z0-9_-]+", name):
        return name
    if "'" not in name:
        return f"'{name}'" if '"' in name else f'"{name}"'
    return json.dumps(name, ensure_ascii=False)


@dataclass(slots=True)
class DocumentCounts:
    """What a run of one index does with its documents, or would do. Each document counts as exactly
    one of new, changed, payload_only, unchanged, empty, failed and skipped."""

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
    """Documents that cannot be read or embedded, or that failed too often to be tried again."""
    skipped: int = 0
    """Documents that a rule of the source excludes. They are listed with the failed ones."""
    undecided: list[UndecidedValue] = field(default_factory=list)
    """The values that nobody decided on, of each decision those with the most rows first."""
    message: str = ""
    """Sentences that a person should know: why a run was not completed, or what the index lacks
    although it was."""

    def say(self, message: str) -> None:
        """Add a sentence to the message. An empty one changes nothing."""
        self.message = "; ".join(filter(None, [self.message, message]))

    def count(self, failures: Sequence[Failure]) -> None:
        """Count documents that failed, were skipped, or are incomplete."""
        for failure in failures:
            setattr(self, failure.kind, getattr(self, failure.kind) + 1)


@dataclass(slots=True)
class IndexOutcome(DocumentCounts):
    """The outcome of a run of one index: what became of its documents, and the work and time that
    it took."""

    deleted: int = 0
    incomplete: int = 0
    """New and changed documents that are indexed but lack something. They are listed with the
    failed ones."""
    state: State = "completed"
    verified: str = ""
    gate: GateVerdict | None = None
    error_class: str = ""

    seconds: float = 0.0
    """Wall seconds of the run."""
    stages: dict[str, float] = field(default_factory=dict)
    """How these seconds of the flow's process divide into stages (`metrics.STAGES`)."""
    work: Work = field(default_factory=Work)
    """The sum over all shards, that is, over all workers."""
    shards: int = 0
    workers: int = 1
    workers_died: int = 0
    """Dask workers that died while the run used them, for whatever reason."""
    first_shard_after: float | None = None
    """Seconds from the beginning to the first shard; None before it."""
    outage_seconds: float = 0.0
    """Seconds since the first shard in which a service did not answer."""

    def add(self, written: WrittenShard, *, new: int) -> None:
        """Count a committed shard, `new` of whose documents the ledger did not have."""
        self.new += new
        self.changed += len(written.keys) - new
        self.count(written.failures)
        self.shards += 1
        self.work += written.work

    @property
    def chunks_embedded(self) -> int:
        """The number of chunks whose vector was made by this run."""
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
        """Set the state to partial, and say why before all else: lists of runs show the beginning
        alone."""
        before, self.message = self.message, message
        self.say(before)
        self.state = "partial"

    def to_json(self) -> dict[str, Any]:
        """Return the documented keys; keys such as `message` only if they have a value."""
        values: dict[str, Any] = {}
        for name in OUTCOME_KEYS:
            holder = self.work if name in CONTEXTS else self
            values[name] = getattr(holder, name)
        values["gate"] = self.gate.to_json() if self.gate else None
        values["undecided"] = [asdict(one) for one in self.undecided]
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
        """The error that ended the run of this index; None if none did."""
        return (
            RagIndexError.of_class(self.error_class, self.message)
            if self.state == "failed"
            else None
        )

    @property
    def nothing_to_do(self) -> bool:
        """Whether the index was already up to date."""
        done = (
            self.new
            or self.changed
            or self.payload_only
            or self.deleted
            or self.failed
            or self.verified
        )
        return self.state == "completed" and not done

    @property
    def missing_contexts(self) -> str:
        """A sentence about chunks that are indexed without a context; "" if there are none."""
        if not self.work.contexts_missing:
            return ""
        chunks = (
            f"{self.work.contexts_missing:,} chunks are"
            if self.work.contexts_missing > 1
            else "1 chunk is"
        )
        return (
            f"{chunks} without context: `rag-index status {self.index} --failed` says why, "
            f"`rag-index index-all {self.index} --retry-failed` tries again"
        )

    def sentence(self, *, reason: bool = True) -> str:
        """Return the numbers as one line for a person; of a failed index the reason, unless the run
        says it anyway."""
        if self.state == "failed":
            return f"{self.index}: failed: {self.message}" if reason else f"{self.index}: failed"
        parts = [
            f"{count:,} {name.replace('_', ' ')}"
            for name in COUNTS
            if (count := getattr(self, name))
        ]
        counts = "nothing changed" if self.nothing_to_do else ", ".join(parts) or "no documents"
        chunks = (
            f", {count_of(self.chunks_embedded, 'chunk')} embedded" if self.chunks_embedded else ""
        )
        contexts = (
            (self.work.contexts_made, "written"),
            (self.work.contexts_cached, "from the cache"),
        )
        chunks += "".join(
            f", {count_of(count, 'context')} {origin}" for count, origin in contexts if count
        )
        notes = "".join(f" ({sentence})" for sentence in (self.verified, self.message) if sentence)
        return (
            f"{self.index}: {count_of(self.documents, 'document')}: {counts}{chunks} in"
            f" {self.seconds:.1f} s{notes}"
        )


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
        return "failed" if "failed" in states else "partial" if "partial" in states else "completed"

    @property
    def exit_code(self) -> int:
        """0 for completed, 1 for failed, 2 if wrong settings made every index fail, 3 for
        partial."""
        if self.indexes and all(
            outcome.error and outcome.error.exit_code == 2 for outcome in self.indexes
        ):
            return 2
        return _EXIT[self.state]

    def sentence(self) -> str:
        """Return the sums as one line, which Prefect displays as the message of the run's state."""
        outcomes = self.indexes
        done = sum(o.new + o.changed + o.payload_only for o in outcomes)
        others = {
            name: sum(getattr(o, name) for o in outcomes)
            for name in ("failed", "deleted", "unchanged")
        }
        counts = [f"{count_of(done, 'document')} indexed"] if done else []
        counts += [f"{count:,} {name}" for name, count in others.items() if count]
        said = ", ".join(counts) or "no documents"
        notes = [f"{o.index}: {o.message}" for o in outcomes if o.state != "failed" and o.message]
        reasons = [
            (
                o.message
                if o.message.startswith(f"index {o.index}: ")
                else f"{o.index} failed: {o.message}"
            )
            for o in outcomes
            if o.state == "failed"
        ]
        if len(reasons) == len(outcomes) > 0 and not counts:
            return "; ".join(reasons)
        numbers = f"{len(outcomes)} index{'es' if len(outcomes) != 1 else ''}: {said}"
        return "; ".join([*reasons, numbers, *notes])
