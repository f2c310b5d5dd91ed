"""What the watch missed: documents that a run over all of them had to mend although the feed never gave them.

A change that a run finds first may still be on its way. So each index is judged after the run: once the feed has given
everything that was committed until then, and what it gave is indexed or waits. Nothing is judged while nobody watches,
and nothing is lost by that, because the ledger keeps what is to be judged and the source keeps what is to be given.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rag_index.ledger.lease import holder
from rag_index.reports.missed import missed_sentence

if TYPE_CHECKING:
    from rag_index.ledger import Ledger, WatchRecord
    from rag_index.watch.collector import Collector

SETTLE_SECONDS = 10.0
"""How long after a run has found a change the feed is asked for it. Without synchronous commits, PostgreSQL shows a
change up to three times `wal_writer_delay` before it is in the log."""
logger = logging.getLogger("rag_index.watch")


@dataclass(frozen=True, slots=True)
class _Question:
    """A question to the collector, and the last of the documents that it is about."""

    asked: int
    number: int


class MissedChanges:
    """Finds out, for each index of a watch, what the watch missed, and says so once. Used by one thread."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._questions: dict[str, _Question] = {}

    def begin(self, name: str, alias: str) -> None:
        """Prepare the judgement of what runs have mended until now. Call it before the collector begins."""
        last = self._ledger.last_mended(alias)
        if last is not None and self._is_settled(last[1]):
            self._questions[name] = _Question(0, last[0])

    def judge(self, name: str, record: WatchRecord, collector: Collector) -> bool:
        """Take the next step for an index; return whether it was found that the watch missed something.

        Nothing is judged while a run writes the index, or if nobody knows what changed.
        """
        last = self._ledger.last_mended(record.alias)
        if last is None or record.full_number is not None or holder(self._ledger, record.alias) is not None:
            self._questions.pop(name, None)
            return False
        question = self._questions.get(name)
        if question is None:
            if self._is_settled(last[1]):
                self._questions[name] = _Question(collector.ask(), last[0])
            return False
        if not collector.has_answered(name, question.asked) or self._ledger.any_look_ups(record.alias):
            return False
        missed = self._ledger.unexplained(record.alias, question.number)
        if missed:
            self._report(name, record, missed)
        del self._questions[name]
        return bool(missed)

    def _is_settled(self, found_at: float) -> bool:
        return self._ledger.clock() - found_at >= SETTLE_SECONDS

    def _report(self, name: str, record: WatchRecord, missed: list[str]) -> None:
        """Say what was missed, and only then record it: after a death between the two, it is said again."""
        level = logging.INFO if record.blind else logging.ERROR
        logger.log(level, "%s", missed_sentence(name, missed, record.blind, unkept=record.unkept))
        self._ledger.record_missed(record.alias, missed)
