"""A watch loses nothing and claims nothing too early, whatever is killed; the next run finds
nothing to mend."""

import random
from contextlib import ExitStack

import pytest

from tests.reliability.chaos.desk import WAYS, Missing, open_desk
from tests.reliability.chaos.trial import Trial
from tests.reliability.chaos.writers import Moment, judge

SEED = random.SystemRandom().randrange(1_000_000)


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("way", WAYS)
def test_thousands_of_changes_and_many_kills_lose_nothing(tmp_path, way):
    operations = 3_000
    print(f"seed {SEED}")
    with ExitStack() as stack:
        try:
            desk, what = open_desk(stack, tmp_path, way, tickets=300)
        except Missing as missing:
            pytest.skip(str(missing))
        found = Trial(desk, operations=operations, searchers=1, seed=SEED, **what).run(kills=8)
    print(found)
    assert (found["differences"], found["errors"], found["violations"]) == ({}, [], [])
    assert (found["mended"], found["operations"]) == ({"tickets": 0, "customers": 0}, operations)
    assert found["claimed"] > 0
    assert found["waited_s"]["count"] > 0


def test_the_checker_notices_what_is_missing_or_old_or_back():
    first, second, under_way = {"1": ("a", "")}, {"1": ("b", ""), "2": ("c", "")}, {"2": ("c", "")}
    moments = [Moment(first, 0.0), Moment(second, 10.0), Moment(under_way)]
    assert not judge(moments, 9.0, first)
    assert not judge(moments, 10.0, under_way)
    assert judge(moments, 10.0, first) == [
        "ticket 1 is ('a', ''), at 10 it was ('b', '')",
        "ticket 2 is None, at 10 it was ('c', '')",
    ]
    assert judge([*moments, Moment({}, 20.0)], 20.0, under_way) == [
        "ticket 2 is ('c', ''), at 20 it was None"
    ]
