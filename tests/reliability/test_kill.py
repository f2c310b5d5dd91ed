"""Anything may be killed at any moment: after one more run, the index equals that of a clean run."""

from __future__ import annotations

import random

import pytest

from tests.reliability.bench import Bench
from tests.reliability.cases import Case
from tests.reliability.services import Services

SEED = random.SystemRandom().randrange(1_000_000)
CASES = (
    Case("flow", run="second", own_prefect=True),
    Case("flow", run="first", workers=1, serial_next=False),
    Case("group", embedder="ollama", run="first"),
    Case("group", store="server", run="second"),
    Case("worker", run="first"),
    Case("ollama", embedder="ollama", run="second"),
    Case("qdrant", store="server", run="first"),
    Case("prefect", run="second"),
    Case("prefect-external", run="first"),
)
"""Each is killed at a random moment; `tests.reliability.harness` makes any number of random kills."""


@pytest.fixture(scope="module")
def services(tmp_path_factory, prefect_server):
    with Services(tmp_path_factory.mktemp("services")) as services:
        yield services


@pytest.fixture(scope="module")
def bench(services, tmp_path_factory):
    return Bench(tmp_path_factory.mktemp("kills"), services, 480)


@pytest.mark.long
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.target}, {case.run} run")
def test_the_run_after_a_kill_loses_nothing(bench, case):
    random_ = random.Random(f"{SEED} {case}")
    trial = bench.trial_in_time(case.at(random_.uniform(0.0, 0.9), delay=random_.uniform(0.0, 0.1)))
    print(trial)
    assert not trial.problems, (str(trial.case), trial.problems)
    assert (trial.lost, trial.stale, trial.beyond_window) == (0, 0, 0)
