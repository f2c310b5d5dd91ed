"""How soon the runs of a watch follow each other, by a clock of its own."""

import pytest

from rag_index.components.sources.hints import Moved
from rag_index.watch.pace import DAY_SECONDS, Pace
from tests.waiting import Clock


class Paced:
    """A pace, and the clock that its caller reads."""

    def __init__(self):
        self.pace, self.clock = Pace(), Clock()

    def run(self, *, spent=0.0, changed=0, documents=1000, paused=False):
        """Let a run end now."""
        self.pace.note_run(
            self.clock(), spent=spent, changed=changed, documents=documents, paused=paused
        )

    def rest(self, moved=Moved.YES):
        """Return after how many seconds of looks a run may begin."""
        began = self.clock()
        while not self.pace.allows_run(self.clock(), moved):
            self.clock.now += 1
            assert self.clock() - began <= 2 * DAY_SECONDS
        return self.clock() - began


@pytest.fixture
def paced():
    return Paced()


def test_the_first_run_begins_at_once_and_none_where_nothing_was_written(paced):
    assert paced.rest() == 0
    paced.run(spent=1)
    paced.clock.now += 10_000
    assert not paced.pace.allows_run(paced.clock(), Moved.NO)


@pytest.mark.parametrize(("spent", "rest"), [(0, 0), (2, 8), (225, 900), (100_000, 900)])
def test_after_a_run_an_index_rests_four_times_what_it_spent_and_at_most_a_quarter_of_an_hour(
    paced, spent, rest
):
    paced.run(spent=spent)
    assert paced.rest() == rest
    paced.run(spent=spent)
    paced.clock.now += 5_000
    assert paced.rest() == 0, "its time has passed"


@pytest.mark.parametrize(("spent", "rest"), [(2, 60), (15, 60), (100, 400), (100_000, 900)])
def test_where_the_counters_say_unchanged_it_rests_a_minute_at_least(paced, spent, rest):
    for _ in range(2):
        paced.run(spent=spent)
        assert paced.rest(Moved.PERHAPS) == rest


def test_that_minute_begins_with_the_write_if_that_comes_later(paced):
    paced.run(spent=2)
    paced.clock.now += 1000
    assert not paced.pace.allows_run(paced.clock(), Moved.NO)
    assert paced.rest(Moved.PERHAPS) == 60
    paced.run(spent=2)
    paced.clock.now += 30
    assert not paced.pace.allows_run(paced.clock(), Moved.PERHAPS)
    paced.clock.now += 20
    assert paced.rest(Moved.YES) == 0, "the counters tell by now"
    assert not paced.pace.allows_run(paced.clock(), Moved.NO)
    assert paced.rest(Moved.PERHAPS) == 60, "another write"


def test_two_runs_in_a_row_that_change_more_than_half_leave_an_index_to_the_night(paced):
    for changed in (501, 500, 501, 0, 1000):
        paced.run(changed=changed)
        assert not paced.pace.is_left_to_nightly_run
    paced.run(changed=501)
    assert paced.pace.is_left_to_nightly_run
    assert paced.rest() == DAY_SECONDS
    paced.run(changed=1000)
    assert not paced.pace.is_left_to_nightly_run, "the night may have been enough"
    paced.run(changed=1000)
    assert paced.rest() == DAY_SECONDS


def test_a_change_of_all_documents_that_takes_several_bursts_counts_once(paced):
    for changed in (100, 400, 400):
        paced.run(changed=changed, paused=True)
    paced.run(changed=100)
    assert not paced.pace.is_left_to_nightly_run
    paced.run(changed=10)
    assert not paced.pace.is_left_to_nightly_run


def test_an_index_that_no_run_comes_to_the_end_of_is_left_to_the_night(paced):
    runs = 0
    while not paced.pace.is_left_to_nightly_run:
        paced.run(changed=300, paused=True)
        runs += 1
    assert runs == 8, "all documents twice, and a burst more each time"


def test_a_few_documents_are_never_left_to_the_night(paced):
    for _ in range(5):
        paced.run(changed=3, documents=3)
        assert not paced.pace.is_left_to_nightly_run
