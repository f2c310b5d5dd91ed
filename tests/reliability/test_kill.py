"""Anything may be killed at any moment: after one more run, the index equals that of a clean run."""

from __future__ import annotations

import random
import time

import pytest

from tests.reliability.bench import Bench
from tests.reliability.cases import Case, long_cases
from tests.reliability.metrics import line, summary, table
from tests.reliability.services import Services

SEED = random.SystemRandom().randrange(1_000_000)
KILLS = 12
"""Kills at random, of a random kind, in each run of the tests; `tests.reliability.harness` makes any number of them."""
PARTS = 2
"""Parts of these kills, which may run in parallel."""


@pytest.fixture(scope="module")
def services(tmp_path_factory, prefect_server):
    with Services(tmp_path_factory.mktemp("services")) as services:
        yield services


@pytest.fixture(scope="module")
def bench(services, tmp_path_factory):
    return Bench(tmp_path_factory.mktemp("kills"), services, 480)


@pytest.mark.long
@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=case.target)
        for case in (
            Case("flow", run="second", own_prefect=True),
            Case("group", embedder="ollama", run="first"),
            Case("worker", run="first"),
            Case("ollama", embedder="ollama", run="second"),
            Case("qdrant", store="server", run="first"),
            Case("prefect", run="second"),
        )
    ],
)
def test_the_run_after_a_kill_loses_nothing(bench, case):
    random_ = random.Random(f"{SEED} {case.target}")
    moment = case.at(random_.uniform(0.0, 0.9), delay=random_.uniform(0.0, 0.1))
    trial = bench.trial_in_time(moment)
    print(line(1, trial))
    assert not trial.problems, (str(trial.case), trial.problems)
    assert (trial.lost, trial.stale, trial.beyond_window) == (0, 0, 0)


@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("part", range(PARTS))
def test_the_runs_after_random_kills_lose_nothing(services, tmp_path_factory, capsys, part):
    kills, seed = KILLS // PARTS, SEED + part
    folder = tmp_path_factory.mktemp("random")
    bench = Bench(folder, services, 800)
    started = time.monotonic()
    trials = []
    with capsys.disabled():
        print(f"\n{kills} kills, seed {seed}")
        for case in long_cases(kills, seed):
            trials.append(bench.trial_in_time(case))
            print(line(len(trials), trials[-1]), flush=True)
        metrics = summary(trials, seed=seed, seconds=time.monotonic() - started)
        print(table(metrics))
    assert metrics["problems"] == []
    assert (metrics["documents_lost"], metrics["documents_stale"]) == (0, 0)
    assert metrics["embedded_again_beyond_a_window"] == 0
