"""What a run asks its services, and which answers a later run takes."""

import pytest

from rag_index.errors import EmbedderUnavailable, TransientError
from rag_index.etl.checks import MIN_PATIENCE, RecentAnswers, ServiceCheck, ServiceChecks
from tests.waiting import Clock


class Asked:
    """Questions of a run, and how often each was asked."""

    def __init__(self):
        self.times = {"embedder": 0, "parts": 0}

    def questions(self):
        yield ServiceCheck("embedder", lambda: self._answer("embedder"))
        yield ServiceCheck("parts", lambda: self._answer("parts"), is_count=True)

    def _answer(self, service):
        self.times[service] += 1
        return self.times[service]


def test_a_watch_takes_an_answer_for_a_while_and_counts_rows_before_each_run():
    """Rows that were lost a moment ago must not be deleted by an older count."""
    clock, asked = Clock(), Asked()
    recent = RecentAnswers(30.0, clock=clock)
    for seconds, embedder, parts in ((0, 1, 1), (29, 1, 2), (1, 2, 3)):
        clock.now += seconds
        assert ServiceChecks(recent=recent).ask(asked.questions()) == {
            "embedder": embedder,
            "parts": parts,
        }
    recent.clear()
    assert ServiceChecks(recent=recent).ask(asked.questions())["embedder"] == 3


def test_the_next_index_asks_all_services_again_that_are_not_kept():
    checks, asked = ServiceChecks(), Asked()
    for times in (1, 2):
        assert checks.ask(asked.questions()) == {"embedder": times, "parts": times}


def test_a_service_on_which_a_run_has_spent_its_patience_is_not_asked_again():
    clock, tries = Clock(), []

    def fail():
        tries.append(clock.now)
        clock.now += MIN_PATIENCE
        raise EmbedderUnavailable("nobody is there")

    checks = ServiceChecks(clock=clock)
    for _ in range(2):
        with pytest.raises(TransientError, match="nobody is there"):
            checks.ask([ServiceCheck("embedder", fail)])
    assert len(tries) == 1
