"""What an answer claims is true, whatever is written and killed meanwhile, and a checker that would notice if not."""

from __future__ import annotations

import random
from contextlib import ExitStack

import pytest

from tests.reliability.chaos.places import Missing, open_desk
from tests.reliability.histories import Moment, Trial, judge

SEED = random.SystemRandom().randrange(1_000_000)


def try_out(tmp_path, way: str, *, seconds: float, kill_seconds: float, services: str = "") -> None:
    print(f"seed {SEED}")
    with ExitStack() as stack:
        try:
            desk, _ = open_desk(stack, tmp_path, way, tickets=200, services=services)
        except Missing as missing:
            pytest.skip(str(missing))
        found = Trial(desk, writers=8, searchers=2, rate=1.0, seed=SEED).run(seconds, kill_seconds=kill_seconds)
    print(found.to_json())
    assert found.violations == []
    assert found.errors == []
    assert found.claimed > 0
    assert found.waited


def test_every_answer_shows_what_it_claims(tmp_path):
    try_out(tmp_path, "sqlite-queue", seconds=6, kill_seconds=4)


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("way", ["postgresql-wal", "postgresql-queue", "mariadb-queue", "postgresql-wal-server"])
def test_every_answer_shows_what_it_claims_while_the_watch_is_killed_again_and_again(tmp_path, way):
    try_out(tmp_path, way, seconds=25, kill_seconds=6)


def test_the_checker_notices_what_is_missing_or_old_or_back():
    first, second, under_way = {"1": ("a", "")}, {"1": ("b", ""), "2": ("c", "")}, {"2": ("c", "")}
    moments = [Moment(first, 0.0), Moment(second, 10.0), Moment(under_way)]
    assert not judge(moments, 9.0, first)
    assert not judge(moments, 10.0, under_way)
    assert judge(moments, 10.0, first) == [
        "ticket 1 is ('a', ''), at 10 it was ('b', '')", "ticket 2 is None, at 10 it was ('c', '')",
    ]  # fmt: skip
    assert judge([*moments, Moment({}, 20.0)], 20.0, under_way) == ["ticket 2 is ('c', ''), at 20 it was None"]
