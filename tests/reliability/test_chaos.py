"""A watch loses nothing, whatever changes and whatever is killed; the next run finds nothing to mend."""

from __future__ import annotations

import random
from contextlib import ExitStack

import pytest

from tests.reliability.chaos.places import Missing, open_desk
from tests.reliability.chaos.trial import Trial

SEED = random.SystemRandom().randrange(1_000_000)
SHORT = {"sqlite-queue": 1_000, "postgresql-wal": 600}
LONG = {"postgresql-queue": 4_000, "mariadb-queue": 2_500, "postgresql-wal-server": 6_000}
"""What the short trials do not have: other databases with triggers, and a store that is killed too."""


def follow(tmp_path, way: str, *, operations: int, kills: int) -> None:
    print(f"seed {SEED}")
    with ExitStack() as stack:
        try:
            desk, what = open_desk(stack, tmp_path, way, tickets=300)
        except Missing as missing:
            pytest.skip(str(missing))
        result = Trial(desk, operations=operations, seed=SEED, **what).run(kills=kills)
    assert result.differences == {}
    assert result.missed == {}
    assert result.mended == {"tickets": 0, "customers": 0}
    assert result.embedded_twice <= result.allowed_twice
    assert result.operations == operations


@pytest.mark.parametrize("way", SHORT)
def test_a_watch_that_is_killed_loses_nothing(tmp_path, way):
    follow(tmp_path, way, operations=SHORT[way], kills=3)


@pytest.mark.long
@pytest.mark.parametrize("way", LONG)
def test_thousands_of_changes_and_many_kills_lose_nothing(tmp_path, way):
    follow(tmp_path, way, operations=LONG[way], kills=8)
