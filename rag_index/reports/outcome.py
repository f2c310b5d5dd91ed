"""How a run ended: one outcome an index, what they add up to, and the words for it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rag_index.documents.batches import Failure

__all__ = ["IndexOutcome", "RunReport", "State"]

State = Literal["completed", "partial", "failed"]
CONTEXTS = ("contexts_made", "contexts_cached", "contexts_missing")
_EXIT = {"completed": 0, "failed": 1, "partial": 3}


@dataclass(slots=True)
class IndexOutcome:
    """One index's figures. Each document is in one of new, changed, payload_only, unchanged, empty, failed, skipped."""

    index: str
    documents: int = 0
    new: int = 0
    changed: int = 0
    payload_only: int = 0
    unchanged: int = 0
    empty: int = 0
    deleted: int = 0
    failed: int = 0
    skipped: int = 0
    """Kept out by a rule of the source, and listed with the failed."""
    incomplete: int = 0
    """Of the new and changed: indexed without something, and listed with the failed."""
    chunks_embedded: int = 0
    contexts_made: int = 0
    """Chunks whose context a model wrote."""
    contexts_cached: int = 0
    """Chunks whose context had been written before."""
    contexts_missing: int = 0
    """Chunks that are indexed without a context."""
    seconds: float = 0.0
    state: State = "completed"
    message: str = ""
    """Why it is not completed, or what is missing though it is, in words."""
    verified: str = ""
    """What a rebuild looked at before it was shown, in words."""
    exit_code: int | None = None
    """The exit code of the error that ended it, where one did."""

    def count(self, failures: Sequence[Failure]) -> None:
        """These documents could not be indexed, or not as they should be."""
        for failure in failures:
            if failure.kind == "failed":
                self.failed += 1
            elif failure.kind == "skipped":
                self.skipped += 1
            else:
                self.incomplete += 1

    def to_json(self) -> dict[str, Any]:
        """The documented keys, and `message` where there is something to say."""
        values = asdict(self)
        values.pop("exit_code")
        values["seconds"] = round(self.seconds, 3)
        for name in ("message", "verified", "skipped", "incomplete", *CONTEXTS):
            if not values[name]:
                values.pop(name)
        return values

    @property
    def nothing_to_do(self) -> bool:
        """True where the source was as the index had it."""
        done = self.new or self.changed or self.payload_only or self.deleted or self.failed or self.verified
        return self.state == "completed" and not done

    @property
    def lacking(self) -> str:
        """What is missing though the documents are indexed, in words."""
        if not self.contexts_missing:
            return ""
        chunks = f"{self.contexts_missing:,} chunks are" if self.contexts_missing > 1 else "1 chunk is"
        return (
            f"{chunks} without context: `rag-index failed {self.index}` says why, "
            f"`rag-index retry-failed {self.index}` asks again"
        )

    def sentence(self) -> str:
        """The figures in a line for a person."""
        if self.state == "failed":
            return f"{self.index}: failed: {self.message}"
        parts = [
            f"{count:,} {word}"
            for word, count in (
                ("new", self.new), ("changed", self.changed), ("payload only", self.payload_only),
                ("unchanged", self.unchanged), ("empty", self.empty), ("deleted", self.deleted),
                ("failed", self.failed), ("skipped", self.skipped), ("incomplete", self.incomplete),
            )
            if count
        ]  # fmt: skip
        counts = "nothing changed" if self.nothing_to_do else ", ".join(parts) or "no documents"
        chunks = f", {self.chunks_embedded:,} chunks embedded" if self.chunks_embedded else ""
        contexts = [(self.contexts_made, "written"), (self.contexts_cached, "from the cache")]
        contexts = [(count, how) for count, how in contexts if count]
        chunks += "".join(f", {count:,} contexts {how}" for count, how in contexts)
        said = "".join(f" ({words})" for words in (self.verified, self.message) if words)
        return f"{self.index}: {self.documents:,} documents: {counts}{chunks} in {self.seconds:.1f} s{said}"


@dataclass(slots=True)
class RunReport:
    """A whole run."""

    indexes: list[IndexOutcome] = field(default_factory=list)
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """As `--json` prints it."""
        return {"indexes": [outcome.to_json() for outcome in self.indexes], "seconds": round(self.seconds, 3)}

    @property
    def state(self) -> State:
        """failed if any index failed, else partial if any is, else completed."""
        states = {outcome.state for outcome in self.indexes}
        return "failed" if "failed" in states else "partial" if "partial" in states else "completed"

    @property
    def exit_code(self) -> int:
        """0 completed, 1 failed, 2 all failed for wrong settings, 3 partial."""
        if self.indexes and all(outcome.exit_code == 2 for outcome in self.indexes):
            return 2
        return _EXIT[self.state]

    def sentence(self) -> str:
        """The sums in a line: what Prefect shows as the state's message."""
        outcomes = self.indexes
        done = sum(o.new + o.changed + o.payload_only for o in outcomes)
        failed = [o for o in outcomes if o.state == "failed"]
        counts = (
            f"{len(outcomes)} index{'es' if len(outcomes) != 1 else ''}: {done:,} documents indexed, "
            f"{sum(o.failed for o in outcomes):,} failed, {sum(o.deleted for o in outcomes):,} deleted, "
            f"{sum(o.unchanged for o in outcomes):,} unchanged"
        )
        said = [f"{o.index} failed: {o.message}" for o in failed]
        said += [f"{o.index}: {o.message}" for o in outcomes if o.state != "failed" and o.message]
        return "; ".join([counts, *said])
