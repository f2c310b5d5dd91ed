"""A copy of the store, of its folder of points alone, or of the ledger, put back after any write of
a run. The next run has to notice it, whatever was copied when, and to leave what a run that starts
from nothing leaves."""

import random
import shutil

import pytest

from tests.etl.plain import Died
from tests.reliability.scenario import make_project
from tests.reliability.test_every_step import (
    DOCUMENTS,
    SCENES,
    Death,
    copied,
    digests,
    run_once,
    state_of,
)
from tests.twin import LEDGER, POINTS, STORE, back_up, restore

__all__ = ["digests"]

SEED = random.SystemRandom().randrange(1_000_000)
PARTS = {"store": [STORE], "points": [POINTS], "ledger": [LEDGER], "both": [STORE, LEDGER]}
CASES = [
    *(("second", parts, False, 30) for parts in ("store", "ledger")),
    *(("second", parts, False, 8) for parts in PARTS),
    ("few", "ledger", False, 8),
    *((scene, parts, True, 8) for scene in ("second", "few") for parts in ("store", "ledger")),
]


@pytest.mark.long
@pytest.mark.parametrize(("scene", "parts", "undone", "every"), CASES)
def test_a_copy_of_any_moment_is_noticed(folder, embedder, scene, parts, undone, every):
    """Copy after a death at every `every`th write of a run, let the next run end, and put the copy
    back. With `undone`, the source is then as it was before the change, and one more run has seen
    that."""
    (before, change, _), parts = SCENES[scene], PARTS[parts]
    start = make_project(folder / "start", DOCUMENTS)
    run_once(before(start), embedder)
    shutil.copy(start.folder / "source.db", folder / "before.db")
    change(start)
    whole = Death()
    run_once(copied(start, folder / "clean"), embedder, death=whole)
    noticed = 0
    for number in range(1 + random.Random(SEED).randrange(every), len(whole.writes) + 1, every):
        where = f"{parts} copied at write {number} of {scene}: {whole.writes[:number]}"
        victim, kept = copied(start, folder / "victim"), folder / "kept"
        with pytest.raises(Died):
            run_once(victim, embedder, death=Death(number))
        back_up(victim, kept, *parts)
        run_once(victim, embedder)
        if undone:
            shutil.copy(folder / "before.db", victim.folder / "source.db")
            run_once(victim, embedder)
        expected = state_of(victim)
        restore(victim, kept, *parts)
        outcome = run_once(victim, embedder)
        assert outcome.state == "completed", (where, outcome)
        assert state_of(victim) == expected, where
        noticed += "older copy" in outcome.message
        assert run_once(victim, embedder).message == "", where
        shutil.rmtree(victim.folder)
        shutil.rmtree(kept)
    assert bool(noticed) == (len(parts) == 1), "two copies of one moment agree"
