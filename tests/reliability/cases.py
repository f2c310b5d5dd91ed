"""The cases (what is killed, in which run, and when) and the trials (what came of a kill)."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, slots=True)
class Case:
    """What is killed in which run, and when: `delay` seconds after `share` of the run's changes are committed."""

    target: str
    embedder: str = "local"
    run: str = "first"
    store: str = "embedded"
    share: float = 0.5
    delay: float = 0.0
    workers: int = 2
    serial_next: bool = True
    own_prefect: bool = False
    """Whether the run starts a temporary Prefect server, as for a user without one. It must end by itself."""

    def at(self, share: float, *, delay: float | None = None) -> Case:
        """Return the same case at another moment."""
        return replace(self, share=share, delay=self.delay if delay is None else delay)

    def __str__(self) -> str:
        own = ", own Prefect" if self.own_prefect else ""
        when = f"at {self.share:.0%} + {self.delay:.2f} s"
        return f"{self.target}, {self.run} run, {self.embedder}, {self.store}{own}, {when}"


@dataclass(slots=True)
class Trial:
    """One kill and its consequences; `problems` is empty if everything is as it should be."""

    case: Case
    committed: float = 0.0
    """Share of the run's changes that the ledger had committed at the kill."""
    pending: int = 0
    """Documents that were pending at the kill."""
    exit_code: int | None = None
    gone_seconds: float | None = None
    ended_seconds: float = 0.0
    """How long the run lived after the kill."""
    next_seconds: float = 0.0
    lost: int = 0
    stale: int = 0
    embedded_again: int = 0
    """Documents that the next run embedded although their embedding was under way or done at the kill."""
    beyond_window: int = 0
    """How many of `embedded_again` exceed one window of shards."""
    problems: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        gone = "" if self.gone_seconds is None else f", gone after {self.gone_seconds:.1f} s"
        verdict = "; ".join(self.problems) or "as it should be"
        return (
            f"{self.case}: {self.committed:.0%} committed, {self.pending} pending, exit {self.exit_code} after "
            f"{self.ended_seconds:.1f} s{gone}, next run {self.next_seconds:.1f} s, {self.embedded_again} embedded "
            f"again: {verdict}"
        )


class TooLate(Exception):
    """The run ended before the moment of the kill."""


NAMES = {
    "flow": "the flow's process",
    "group": "its whole process group",
    "tree": "all its processes, the temporary Prefect server too",
    "worker": "a Dask worker",
    "ollama": "the Ollama server",
    "qdrant": "the Qdrant server",
    "prefect": "the temporary Prefect server",
    "prefect-external": "the Prefect server of PREFECT_API_URL",
}

SHARES = (  # (target, embedder, store), and how often among fifty
    (("flow", "local", "embedded"), 8),
    (("flow", "ollama", "embedded"), 4),
    (("flow", "local", "server"), 3),
    (("group", "local", "embedded"), 7),
    (("group", "ollama", "embedded"), 4),
    (("group", "local", "server"), 2),
    (("worker", "local", "embedded"), 4),
    (("worker", "ollama", "embedded"), 4),
    (("worker", "local", "server"), 2),
    (("ollama", "ollama", "embedded"), 5),
    (("qdrant", "local", "server"), 2),
    (("tree", "local", "embedded"), 1),
    (("prefect", "local", "embedded"), 1),
    (("prefect", "ollama", "embedded"), 1),
    (("prefect-external", "local", "embedded"), 2),
)


def long_cases(kills: int, seed: int) -> Iterator[Case]:
    """Yield `kills` cases of all kinds, with random moments from the seed."""
    random_ = random.Random(seed)
    kinds = [kind for kind, times in SHARES for _ in range(times)]
    random_.shuffle(kinds)
    for number in range(kills):
        target, embedder, store = kinds[number % len(kinds)]
        yield Case(
            target,
            embedder,
            ("first", "second")[random_.randrange(2)],
            store,
            share=random_.choice((0.0, random_.uniform(0, 0.97), random_.uniform(0, 0.97))),
            delay=random_.uniform(0, 0.2),
            workers=2 if target == "worker" else random_.choice((1, 2)),
            serial_next=random_.random() < 0.7,
            own_prefect=target in ("flow", "group") and random_.random() < 0.2,
        )
