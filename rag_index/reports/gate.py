"""What the gate of a rebuild found: how well two collections answer the same queries, and which got worse."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

NAMED = 3
"""Queries that a sentence names."""
EPSILON = 1e-9
"""Losses that differ by less are equal: they are means of floats."""
MAX_QUERY = 60
"""Characters of a query that a sentence shows."""


@dataclass(frozen=True, slots=True)
class WorseQuery:
    """A query that the rebuilt collection answers worse: its measure before and after.

    `lost` has the relevant documents, by id, that only the live collection found.
    """

    query: str
    before: float
    after: float
    lost: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        return {
            "query": self.query,
            "before": round(self.before, 6),
            "after": round(self.after, 6),
            "lost": list(self.lost),
        }


@dataclass(frozen=True, slots=True)
class GateVerdict:
    """The verdict of a gate. `before` and `after` are the means of the metric over all queries.

    `p` is how probable such a loss is if nothing was lost. `needed` is how many queries can tell a loss of just
    `max_loss` from chance, None if no number can. `smallest` is the smallest loss that these queries can tell from
    chance, None if they can tell none.
    """

    metric: str
    queries: int
    before: float
    after: float
    max_loss: float
    p: float
    passed: bool
    needed: int | None
    smallest: float | None
    better: int
    """How many queries got better."""
    worse: tuple[WorseQuery, ...] = ()
    """The queries that got worse, the worst first."""

    @property
    def loss(self) -> float:
        """How much the mean fell; negative if it rose."""
        return self.before - self.after

    @property
    def enough(self) -> bool:
        """Whether there are enough queries to tell a loss of just `max_loss` from chance."""
        return self.needed is not None and self.queries >= self.needed

    def to_json(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        return {
            "metric": self.metric,
            "queries": self.queries,
            "before": round(self.before, 6),
            "after": round(self.after, 6),
            "max_loss": self.max_loss,
            "p": round(self.p, 6),
            "passed": self.passed,
            "better": self.better,
            "worse": [one.to_json() for one in self.worse],
        }

    def sentence(self) -> str:
        """Return the numbers in one line."""
        changed = f"{len(self.worse):,} worse, {self.better:,} better" if self.worse or self.better else "none changed"
        return f"{self.metric} of {_queries(self.queries)} {self.before:.3f} before, {self.after:.3f} now ({changed})"

    def notes(self) -> Iterator[str]:
        """Yield what a person should know of a rebuild that is let through."""
        if self.loss > self.max_loss + EPSILON:
            changed = f"{len(self.worse):,} queries got worse and {self.better:,} better"
            yield f"the gate took a loss of {self.loss:.3f} for chance (p = {self.p:.2g}): {changed}"
        if not self.enough:
            yield self.too_few

    @property
    def too_few(self) -> str:
        """A sentence about what these queries cannot tell; "" if there are enough."""
        if self.enough:
            return ""
        can = "no loss" if self.smallest is None else f"no loss below {self.smallest:.3f}"
        least = f"{_queries(self.queries)} can tell {can} from chance"
        if self.needed is None:
            return f"{least}: max_loss is 0, so any loss stops a rebuild"
        return (
            f"{least}: any measured loss above max_loss ({self.max_loss:g}) stops a rebuild; {self.needed:,} queries "
            "would do"
        )

    def refusal(self, collection: str, index: str) -> str:
        """Return why the rebuilt collection is not published, and what to do."""
        if not self.before and not self.after:
            return (
                f"none of {_queries(self.queries)} finds a relevant document in the live collection or in the rebuilt "
                f"{collection}, which was not published: correct the ids in the golden file and run again, or run "
                f"`rag-index rebuild {index} --allow-loss`"
            )
        chance = f"chance explains it with p = {self.p:.2g}" if self.enough else "too few queries to call it chance"
        named = ", ".join(repr(_short(one.query)) for one in self.worse[:NAMED])
        more = f" and {len(self.worse) - NAMED:,} more" if len(self.worse) > NAMED else ""
        return (
            f"{self.metric} of {_queries(self.queries)} fell from {self.before:.3f} to {self.after:.3f}, by more than "
            f"max_loss ({self.max_loss:g}; {chance}), so the rebuilt {collection} was not published; worse: {named}"
            f"{more} (`rag-index report` lists them): if that is acceptable, run `rag-index rebuild {index} "
            "--allow-loss`"
        )


def _queries(count: int) -> str:
    return f"{count:,} golden quer{'ies' if count != 1 else 'y'}"


def _short(query: str) -> str:
    plain = " ".join(query.split())
    return plain if len(plain) <= MAX_QUERY else f"{plain[: MAX_QUERY - 1]}…"
