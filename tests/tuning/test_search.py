"""The search, on simulated machines: the rate of each candidate is known, and time is counted, not spent."""

import random

import pytest

from rag_index.tuning.probe import Space, _rate
from rag_index.tuning.settings_search import Search


def test_a_rate_counts_the_time_in_which_all_processes_were_at_work():
    assert _rate([[(100, 0.0, 1.0), (300, 1.0, 2.0)]]) == 200
    uneven = [[(10, 0.0, 1.0), (10, 1.0, 3.0), (10, 3.0, 5.0)], [(10, 0.0, 2.0), (10, 2.0, 4.0)]]
    assert _rate(uneven) == (5 + 5 + 10) / (4.0 - 2.0), "from the last first end to the first last one"


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


def test_a_candidate_that_does_not_work_is_never_the_knee():
    def rate(candidate):
        return 0.0 if candidate.num_thread or candidate.batch_texts > 16 else 100.0

    knee = Machine(rate).search(Space(**OLLAMA, max_workers=2, max_hosts=1)).knee
    assert knee.rate == 100.0
    assert knee.candidate.num_thread is None


@pytest.mark.parametrize("kind", ["local", "ollama", "openai", "sentence-transformers"])
def test_all_candidates_of_a_space_are_within_bounds(kind):
    """Servers of any kind have all levers but the threads of Ollama."""
    space = Space(kind=kind, processors=4, max_workers=3, max_hosts=2, mean_chars=50.0)
    grid = [space.serial(), *space.grid()]
    on_servers = kind in ("ollama", "openai")
    assert {one.workers for one in grid} <= {1, 2, 3}
    assert {one.batch_chars % 1000 for one in grid} == {0}
    assert {one.hosts for one in grid} == ({1, 2} if on_servers else {1})
    assert {one.requests_in_flight for one in grid} == ({1, 4} if on_servers else {1})
    assert ({one.num_thread for one in grid} == {None}) == (kind != "ollama")
