"""Kill anything, at any moment of the work: one more run makes of it what a clean run would have made."""

from __future__ import annotations

import json
import random
import time

import pytest

from tests.reliability.bench import Bench
from tests.reliability.cases import Case, long_cases
from tests.reliability.metrics import line, summary, table
from tests.reliability.report import KILLS_NOTED
from tests.reliability.services import Services

SEED = random.SystemRandom().randrange(1_000_000)
KILLS = 50
PARTS = 2
"""The fifty are made in so many parts, which may run beside each other."""


@pytest.fixture(scope="module")
def services(tmp_path_factory, prefect_server):
    with Services(tmp_path_factory.mktemp("services")) as services:
        yield services


@pytest.fixture(scope="module")
def bench(services, tmp_path_factory):
    return Bench(tmp_path_factory.mktemp("kills"), services, 480)


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=case.target, marks=() if case.target in ("flow", "worker") else pytest.mark.long)
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
def test_kill(bench, case):
    random_ = random.Random(f"{SEED} {case.target}")
    moment = case.at(random_.uniform(0.0, 0.9), delay=random_.uniform(0.0, 0.1))
    trial = bench.soon(moment)
    print(line(1, trial))
    assert not trial.problems, (str(trial.case), trial.problems)
    assert (trial.lost, trial.stale, trial.beyond) == (0, 0, 0)


@pytest.mark.long
@pytest.mark.timeout(2400)
@pytest.mark.parametrize("part", [pytest.param(n, marks=pytest.mark.xdist_group(f"kills {n}")) for n in range(PARTS)])
def test_fifty_kills(services, tmp_path_factory, capsys, record_property, part):
    kills, seed = KILLS // PARTS, SEED + part
    folder = tmp_path_factory.mktemp("fifty")
    bench = Bench(folder, services, 800)
    started = time.monotonic()
    trials = []
    with capsys.disabled():
        print(f"\n{kills} kills, seed {seed}")
        for case in long_cases(kills, seed):
            trials.append(bench.soon(case))
            print(line(len(trials), trials[-1]), flush=True)
        figures = summary(trials, seed=seed, seconds=time.monotonic() - started)
        print(table(figures))
    record_property(KILLS_NOTED, json.dumps(figures))
    assert figures["problems"] == []
    assert (figures["documents_lost"], figures["documents_stale"]) == (0, 0)
    assert figures["embedded_again_beyond_a_window"] == 0
