"""The pace of a watch: how soon after a run of an index the next one may begin."""

from __future__ import annotations

from dataclasses import dataclass

from rag_index.components.sources.hints import Moved

REST_FACTOR = 4.0
"""How many times as long as a run an index rests: its runs take a fifth of the time at most.
Chosen; docs/watching.md names it."""
MAX_REST_SECONDS = 900.0
"""Seconds that an index rests at most. A run comes as often whatever the hints report
(`loop.FULL_SECONDS`). Chosen; docs/watching.md names it."""
DOUBT_SECONDS = 60.0
"""Seconds for which counters that report "unchanged" are trusted: PostgreSQL's come up to 11
seconds late, others in part. Chosen; docs/watching.md names it."""
DAY_SECONDS = 86_400.0
"""Seconds for which an index is left to the nightly run: a day, so that it has had one."""
FEW_DOCUMENTS = 20
"""Number of changed documents below which a run costs too little to be left to the nightly run.
Chosen; docs/watching.md names it."""
LONG_AGO = float("-inf")
"""A time that every clock has passed."""


@dataclass(slots=True)
class Pace:
    """The rule by which the runs of one index in a watch follow each other.

    - Rest: after a run, the index rests for four times the seconds that the run spent, at most 15
      minutes. Embedding and writing do not count, since they grow with the changes. Example: a run
      compares for 2 s and embeds for 30 s; the next one begins 8 s after its end, at the earliest.
    - Doubt: something was written, but the counters of the index's own tables report "unchanged".
      Then the index rests for 60 s at least, from the first such look after the run.
    - Nightly run: after two runs in a row that each changed more than half of the index, only the
      nightly run indexes it for a day. A run that pauses, and those that continue it, count as one
      until all is written, or until they have changed more documents than there are.

    The caller passes the time in seconds of one monotonic clock.
    """

    is_left_to_nightly_run: bool = False
    """Whether the last run was the second in a row that changed more than half of the index."""
    _rests_until: float = LONG_AGO
    _doubtful_since: float | None = None
    _changed: int = 0
    """The documents that the last run and those that it continued have changed."""
    _large_runs: int = 0
    """How many runs in a row have changed more than half of the index."""

    def allows_run(self, now: float, moved: Moved) -> bool:
        """Return whether a run may begin. Call it at each look if no run is under way.

        Args:
            now: The time of the look.
            moved: What the look found.
        """
        if moved != Moved.PERHAPS:
            self._doubtful_since = None
        elif self._doubtful_since is None:
            # The first look that finds a write, probably to other tables of the server.
            self._doubtful_since = now
        if moved == Moved.NO or now < self._rests_until:
            return False
        if self._doubtful_since is None:
            return True
        return now >= self._doubtful_since + DOUBT_SECONDS

    def note_run(
        self, now: float, *, spent: float, changed: int, documents: int, paused: bool
    ) -> None:
        """Note that a run has ended.

        Args:
            now: The time of its end.
            spent: The seconds that it took, without embedding and writing.
            changed: How many documents it changed that the index had before.
            documents: How many documents the index has.
            paused: Whether it leaves some documents to a run that continues it.
        """
        self._doubtful_since = None
        self._count(changed, documents, paused=paused)
        self.is_left_to_nightly_run = self._large_runs >= 2
        if self.is_left_to_nightly_run:
            self._large_runs = 0
            self._rests_until = now + DAY_SECONDS
        else:
            self._rests_until = now + min(REST_FACTOR * spent, MAX_REST_SECONDS)

    def _count(self, changed: int, documents: int, *, paused: bool) -> None:
        self._changed += changed
        # A mass update in bursts: of 10,000 documents, 4,000 are changed so far, and the next run
        # goes on.
        if paused and self._changed <= documents:
            return
        is_large = self._changed >= FEW_DOCUMENTS and 2 * self._changed > documents
        self._large_runs = self._large_runs + 1 if is_large else 0
        self._changed = 0
