"""A first run that writes words first may be killed at any moment of it: after one more run, the
index equals a clean one. Workers embed shards meanwhile, and none of their vectors is lost."""

import os
import random
import signal

import pytest

from tests.project import Project
from tests.reliability.victim import Victim, assert_equals_clean_index, ledger_rows
from tests.waiting import eventually

SEED = random.SystemRandom().randrange(1_000_000)
DOCUMENTS = 3000
"""Six writes of the pass; a text takes the embedder 0.05 s, so that the pass pays."""


def by_words(project: Project) -> int:
    return sum(row.by_words for row in ledger_rows(project).values())


@pytest.mark.long
@pytest.mark.parametrize("plain", [True, False], ids=["in this process", "on Dask workers"])
def test_a_run_that_is_killed_while_it_writes_words_loses_nothing(
    tmp_path, fake, prefect_server, plain
):
    random_ = random.Random(f"{SEED} {plain}")
    wanted = random_.choice([1, 501, 1501, 2001])
    print(f"seed {SEED}: killed when {wanted} documents can be found by their words")
    fake.seconds_per_text = 0.05
    project = Project(tmp_path / "project", fake.settings).fill(DOCUMENTS)
    with Victim(project, "--workers", "1", "--shard-documents", "8", plain=plain) as victim:
        eventually(lambda: by_words(project) >= wanted, lambda: victim.output)
        assert not victim.ended, victim.output
        os.killpg(victim.process.pid, signal.SIGKILL)
        eventually(victim.gone, lambda: [" ".join(one.cmdline()) for one in victim.processes()])
    fake.seconds_per_text = 0.0
    rows = ledger_rows(project)
    left = sum(row.pending or row.by_words for row in rows.values()) + DOCUMENTS - len(rows)
    report = project.run()
    assert report.exit_code == 0, report.sentence()
    [outcome] = report.indexes
    assert outcome.new + outcome.changed == left, "a document with its vector was embedded again"
    assert by_words(project) == 0
    assert all(vector for _, vector in project.points().values())
    assert_equals_clean_index(project, tmp_path / "clean")
