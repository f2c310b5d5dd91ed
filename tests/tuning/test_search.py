"""The search, on machines that are made up: what a candidate gives is known, time is counted and not spent."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from rag_index.tuning.candidate import Candidate, Space
from rag_index.tuning.search import SHORTEST, Search


class Machine:
    """Rates by a formula, with noise; a probe takes its seconds and some for its start."""

    def __init__(self, rate, *, noise=0.0, start=0.1, seed=3):
        self.rate, self.noise, self.start = rate, noise, start
        self.now, self.probes, self._random = 0.0, [], random.Random(seed)

    def probe(self, candidate, seconds):
        self.now += seconds + self.start
        self.probes.append((candidate, seconds))
        return self.rate(candidate) * max(0.1, self._random.gauss(1, self.noise / max(seconds, 0.1) ** 0.5))

    def search(self, space, budget=120.0):
        search = Search(self.probe, budget=budget, clock=lambda: self.now, neighbours=space.neighbours)
        always = [space.of(workers=1, batch_texts=64, requests_in_flight=2, num_thread=None), space.serial()]
        search.run(space.coarse(), always)
        return search


def one_server(candidate):
    """Requests wait for each other; larger ones cost less a text, up to 16; more threads help up to 2."""
    threads = min(candidate.num_thread or 2, 2)
    texts = min(candidate.batch_texts, 16)
    return 1000.0 * threads * texts / (texts + 4)


def several_servers(candidate):
    """Each host works for itself, as far as somebody asks it."""
    asked = min(candidate.hosts, candidate.hosts if candidate.workers == 1 else candidate.workers)
    return 1000.0 * asked * candidate.batch_texts / (candidate.batch_texts + 4)


def concurrent(candidate):
    """A server that takes up to eight requests at once."""
    return 1000.0 * min(8, candidate.workers * candidate.requests_in_flight)


OLLAMA = {"kind": "ollama", "processors": 4, "mean_chars": 400.0}


@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_one_server_is_not_asked_by_more_than_one_and_not_for_more_than_pays(noise):
    machine = Machine(one_server, noise=noise)
    search = machine.search(Space(**OLLAMA, workers=4, hosts=1))
    knee = search.knee.candidate
    assert knee.workers * knee.requests_in_flight <= (2 if noise else 1)
    assert one_server(knee) >= 0.93 * one_server(search.best.candidate)
    assert one_server(search.best.candidate) >= 0.95 * 2000 * 16 / 20
    assert knee.batch_texts <= 32


@pytest.mark.parametrize("hosts", [2, 4, 8])
def test_all_hosts_are_used_where_each_works_for_itself(hosts):
    knee = Machine(several_servers, noise=0.03).search(Space(**OLLAMA, workers=8, hosts=hosts)).knee.candidate
    assert knee.hosts == hosts
    assert knee.batch_texts >= 32


def test_requests_in_flight_are_as_many_as_pay_and_one_worker_is_enough():
    search = Machine(concurrent, noise=0.02).search(Space(**OLLAMA, workers=4, hosts=1))
    assert concurrent(search.knee.candidate) == 8000
    assert search.knee.candidate.workers <= 2


def test_workers_of_the_local_embedder():
    space = Space(kind="local", processors=8, workers=8, hosts=1, mean_chars=400.0)
    linear = Machine(lambda one: 100.0 * one.workers, noise=0.02).search(space)
    assert linear.knee.candidate.workers == 8
    flat = Machine(lambda one: 100.0 * min(one.workers, 3), noise=0.01).search(space)
    assert flat.knee.candidate.workers == 3


@pytest.mark.parametrize("budget", [5, 20, 120, 600])
def test_the_budget_is_kept(budget):
    machine = Machine(several_servers, noise=0.05)
    search = machine.search(Space(**OLLAMA, workers=8, hosts=8), budget=budget)
    assert machine.now < budget * 1.2 + 6
    assert search.knee.rate > 0
    assert search.knee.finals


def test_more_time_goes_to_the_better_ones():
    machine = Machine(several_servers)
    search = machine.search(Space(**OLLAMA, workers=8, hosts=8))
    spent = {}
    for candidate, seconds in machine.probes:
        spent[candidate] = spent.get(candidate, 0.0) + seconds
    ranked = sorted(search.tried.values(), key=lambda one: -one.rate)
    worst = sorted(spent[one.candidate] for one in ranked[-10:])
    assert spent[search.best.candidate] > 4 * worst[7]  # two of them are always measured to the end


def test_the_last_part_goes_forwards_and_backwards():
    machine = Machine(one_server)
    search = machine.search(Space(**OLLAMA, workers=2, hosts=1))
    finalists = [one for one in search.tried.values() if one.finals]
    assert len(finalists) >= 3
    assert min(len(one.finals) for one in finalists) >= 2
    last = [candidate for candidate, _ in machine.probes[-sum(len(one.finals) for one in finalists) :]]
    first, second = last[: len(finalists)], last[len(finalists) : 2 * len(finalists)]
    assert second == first[::-1]


def test_what_does_not_work_is_never_the_knee():
    def rate(candidate):
        return 0.0 if candidate.num_thread or candidate.batch_texts > 16 else 100.0

    knee = Machine(rate).search(Space(**OLLAMA, workers=2, hosts=1)).knee
    assert knee.rate == 100.0
    assert knee.candidate.num_thread is None


def test_cheaper_means_fewer_servers_then_processes_requests_threads_and_smaller_requests():
    order = [
        Candidate(batch_texts=1, num_thread=1),
        Candidate(batch_texts=64, batch_chars=9000, num_thread=1),
        Candidate(num_thread=None),
        Candidate(requests_in_flight=2, num_thread=1),
        Candidate(workers=2, num_thread=1),
        Candidate(workers=1, hosts=2, num_thread=1),
    ]
    assert all(one.cost < dearer.cost for one, dearer in pairwise(order))


def test_a_space_has_no_candidate_out_of_bounds():
    for kind in ("local", "ollama", "sentence-transformers"):
        space = Space(kind=kind, processors=4, workers=3, hosts=2, mean_chars=50.0)
        seen, edge = set(), space.coarse()
        for _ in range(4):
            seen |= set(edge)
            edge = [near for one in edge for near in space.neighbours(one) if near not in seen][:300]
        for one in seen:
            assert 1 <= one.workers <= 3
            assert 1 <= one.hosts <= 2
            assert one.batch_chars % 1000 == 0
            assert one.requests_in_flight >= 1
    assert SHORTEST > 0
