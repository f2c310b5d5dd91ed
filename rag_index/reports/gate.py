"""What the gate of a rebuild found: how well two collections answer the same queries, and which got worse."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

SEARCH, MEANING, WORDS = "search", "meaning", "words"
"""The ways of searching that a gate compares."""
BY = {MEANING: "by meaning alone", WORDS: "by words alone"}
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
        return _rounded(asdict(self))


@dataclass(frozen=True, slots=True)
class WayVerdict:
    """How one way of searching compares. `before` and `after` are the means of the metric over all queries.

    `p` is how probable such a loss is if nothing was lost, and `passed` whether this way may go live. `needed` is how
    many queries would stop a loss of twice `max_loss` 9 times in 10 if answers change as these did; None if `max_loss`
    is 0.
    """

    way: str
    before: float
    after: float
    p: float
    passed: bool
    needed: int | None
    better: int
    """How many queries got better."""
    worse: tuple[WorseQuery, ...] = ()
    """The queries that got worse, the worst first."""

    @property
    def loss(self) -> float:
        """How much the mean fell; negative if it rose."""
        return self.before - self.after

    def to_json(self) -> dict[str, Any]:
        """Return what `--json` prints, without the queries."""
        values = {**asdict(self), "worse": len(self.worse)}
        del values["way"]
        return _rounded(values)


@dataclass(frozen=True, slots=True)
class GateVerdict:
    """The verdict of a gate.

    `ways` has the index as it is searched first; then meaning alone and words alone, if both collections have words.
    """

    metric: str
    queries: int
    max_loss: float
    ways: tuple[WayVerdict, ...]
    gone: tuple[str, ...] = ()
    """Documents of the golden file, by id, that the source does not have. They do not count."""

    @property
    def search(self) -> WayVerdict:
        """The index as it is searched."""
        return self.ways[0]

    @property
    def passed(self) -> bool:
        """Whether no way of searching lost too much, and something was found at all."""
        return bool(self.search.before or self.search.after) and all(way.passed for way in self.ways)

    @property
    def poorest(self) -> WayVerdict:
        """The way that the verdict is about: the first that did not pass, or else the index as it is searched."""
        return next((way for way in self.ways if not way.passed), self.search)

    def to_json(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        return {
            "metric": self.metric,
            "queries": self.queries,
            "max_loss": self.max_loss,
            **self.search.to_json(),
            "passed": self.passed,
            "worse": [one.to_json() for one in self.poorest.worse],
            "ways": {way.way: way.to_json() for way in self.ways},
            "gone": list(self.gone),
        }

    def sentence(self) -> str:
        """Return the numbers in one line."""
        first = self.search
        changed = f"{len(first.worse):,} worse, {first.better:,} better" if first.worse or first.better else ""
        alone = "".join(f"; {BY[way.way]} {way.before:.3f} and {way.after:.3f}" for way in self.ways[1:])
        return (
            f"{self.metric} of {_queries(self.queries)} {first.before:.3f} before, {first.after:.3f} now "
            f"({changed or 'none changed'}){alone}"
        )

    def notes(self) -> Iterator[str]:
        """Yield what a person should know besides whether it passed."""
        for way in self.ways:
            if way.passed and way.loss > self.max_loss + EPSILON:
                changed = f"{len(way.worse):,} queries got worse and {way.better:,} better"
                yield f"the gate took a loss of {way.loss:.3f}{_by(way)} for chance (p = {way.p:.2g}): {changed}"
        if self.too_few:
            yield self.too_few
        if self.gone:
            named = ", ".join(self.gone[:NAMED]) + (", …" if len(self.gone) > NAMED else "")
            count = f"{len(self.gone):,} document{'s' if len(self.gone) != 1 else ''}"
            yield f"the source does not have {count} of the golden file ({named}), which do not count: correct the file"

    @property
    def too_few(self) -> str:
        """A sentence about what these queries cannot notice; "" if there are enough."""
        short = [way for way in self.ways if way.needed is not None and way.needed > self.queries]
        if not short:
            return ""
        needed = ", ".join(f"{way.needed:,}{_by(way)}" for way in short)
        return (
            f"{_queries(self.queries)} would not stop a loss of {2 * self.max_loss:g} (twice max_loss) 9 times in 10, "
            f"as often as their answers changed: it takes {needed}"
        )

    def refusal(self, collection: str, index: str) -> str:
        """Return why the rebuilt collection is not published, and what to do."""
        if not self.search.before and not self.search.after:
            return (
                f"none of {_queries(self.queries)} finds a relevant document in the live collection or in the rebuilt "
                f"{collection}, which was not published: correct the ids in the golden file and run again, or run "
                f"`rag-index rebuild {index} --allow-loss`"
            )
        return (
            f"{self.fall()}, so the rebuilt {collection} was not published: if that is acceptable, run "
            f"`rag-index rebuild {index} --allow-loss`"
        )

    def fall(self) -> str:
        """Return what was lost by more than the gate allows, with the queries that got worst."""
        way = self.poorest
        named = ", ".join(repr(_short(one.query)) for one in way.worse[:NAMED])
        more = f" and {len(way.worse) - NAMED:,} more" if len(way.worse) > NAMED else ""
        return (
            f"{self.metric}{_by(way)} of {_queries(self.queries)} fell from {way.before:.3f} to {way.after:.3f}, by "
            f"more than max_loss ({self.max_loss:g}; chance explains it with p = {way.p:.2g}); worse: {named}{more} "
            "(`rag-index report` lists them)"
        )


def _rounded(values: dict[str, Any]) -> dict[str, Any]:
    return {name: round(value, 6) if isinstance(value, float) else value for name, value in values.items()}


def _by(way: WayVerdict) -> str:
    return f" {BY[way.way]}" if way.way in BY else ""


def _queries(count: int) -> str:
    return f"{count:,} golden quer{'ies' if count != 1 else 'y'}"


def _short(query: str) -> str:
    plain = " ".join(query.split())
    return plain if len(plain) <= MAX_QUERY else f"{plain[: MAX_QUERY - 1]}…"
