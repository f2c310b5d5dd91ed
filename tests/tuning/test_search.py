"""The search, on simulated machines: the rate of each candidate is known, and time is counted, not spent."""

import random

import pytest

from rag_index.tuning.probe import Space
from rag_index.tuning.settings_search import Search


class Machine:
    """A machine whose rates follow a formula, with noise. A probe takes its seconds, and some more to start."""

    def __init__(self, rate, *, noise=0.0, start=0.1, seed=3):
        self.rate, self.noise, self.start = rate, noise, start
        self.now, self.probes, self._random = 0.0, [], random.Random(seed)

    def probe(self, candidate, seconds):
        self.now += seconds + self.start
        self.probes.append((candidate, seconds))
        return self.rate(candidate) * max(0.1, self._random.gauss(1, self.noise / max(seconds, 0.1) ** 0.5))

    def search(self, space, budget=120.0):
        search = Search(self.probe, budget=budget, clock=lambda: self.now)
        always = [space.candidate(1, 64, requests_in_flight=2), space.serial()]
        search.run(space.grid(), always)
        return search


def one_server(candidate):
    """Requests wait for each other; larger ones cost less per text, up to 16; threads help, up to 2."""
    threads = min(candidate.num_thread or 2, 2)
    texts = min(candidate.batch_texts, 16)
    return 1000.0 * threads * texts / (texts + 4)


def several_servers(candidate):
    """Each host works independently, if there is a worker that sends it requests."""
    busy = min(candidate.hosts, candidate.hosts if candidate.workers == 1 else candidate.workers)
    return 1000.0 * busy * candidate.batch_texts / (candidate.batch_texts + 4)


OLLAMA = {"kind": "ollama", "processors": 4, "mean_chars": 400.0}


@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_one_server_gets_one_worker_and_no_larger_requests_than_useful(noise):
    machine = Machine(one_server, noise=noise)
    search = machine.search(Space(**OLLAMA, max_workers=4, max_hosts=1))
    knee = search.knee.candidate
    assert knee.workers * knee.requests_in_flight <= (2 if noise else 1)
    assert one_server(knee) >= 0.93 * one_server(search.best.candidate)
    assert one_server(search.best.candidate) >= 0.95 * 2000 * 16 / 20
    assert knee.batch_texts <= 32


@pytest.mark.parametrize("hosts", [2, 4, 8])
def test_all_hosts_are_used_if_they_work_independently(hosts):
    knee = Machine(several_servers, noise=0.03).search(Space(**OLLAMA, max_workers=8, max_hosts=hosts)).knee.candidate
    assert knee.hosts == hosts
    assert knee.batch_texts >= 32


def test_workers_of_the_local_embedder():
    space = Space(kind="local", processors=8, max_workers=8, max_hosts=1, mean_chars=400.0)
    linear = Machine(lambda one: 100.0 * one.workers, noise=0.02).search(space)
    assert linear.knee.candidate.workers == 8
    flat = Machine(lambda one: 100.0 * min(one.workers, 3), noise=0.01).search(space)
    assert flat.knee.candidate.workers == 3


@pytest.mark.parametrize("budget", [5, 120])
def test_the_search_stays_within_its_budget(budget):
    machine = Machine(several_servers, noise=0.05)
    search = machine.search(Space(**OLLAMA, max_workers=8, max_hosts=8), budget=budget)
    assert machine.now < budget * 1.2 + 6
    assert search.knee.rate > 0
    assert len(search.knee.rates) > 1
