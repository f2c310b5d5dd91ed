"""The pool of hosts: who is asked next, who rests, and for how long."""

import pytest

from rag_index.components.hosts.clients import OllamaEndpoint
from rag_index.components.hosts.host_pool import Clock, Pool
from rag_index.core.settings import EmbedderSettings
from rag_index.errors import EmbedderUnavailable, RateLimited

DOWN = EmbedderUnavailable("down")


class Time:
    """A clock that a test sets."""

    def __init__(self):
        self.at = 100.0
        self.clock = Clock(now=lambda: self.at, chance=lambda: 0.5)


def pool_of(count, *, home=0, workers=1, in_flight=2):
    settings = EmbedderSettings(kind="ollama", model="m")
    endpoints = [OllamaEndpoint(f"http://host{number}:11434", settings) for number in range(count)]
    return Pool(endpoints, home=home, workers=workers, in_flight=in_flight)


def one_host(in_flight=2):
    return Time(), pool_of(1, in_flight=in_flight).hosts[0]


def numbers(hosts):
    return [int(host.url[len("http://host") : -len(":11434")]) for host in hosts]


def test_every_host_is_in_a_share_and_no_share_is_empty():
    for hosts, workers, shares in (
        (1, 3, [[0], [0], [0]]), (3, 3, [[0], [1], [2]]), (2, 4, [[0], [1], [0], [1]]), (4, 1, [[0, 1, 2, 3]]),
        (5, 2, [[0, 2, 4], [1, 3]]), (4, 3, [[0, 3], [1], [2]]),
    ):  # fmt: skip
        pools = [pool_of(hosts, home=home, workers=workers) for home in range(workers)]
        assert [numbers(pool.own) for pool in pools] == shares, hosts
        assert {number for share in shares for number in share} == set(range(hosts)), hosts
        for pool in pools:
            assert sorted(numbers(pool.hosts)) == list(range(hosts)), hosts


def test_the_requests_that_a_host_gets_are_shared_among_its_workers():
    for in_flight, hosts, workers, requests in (
        (4, 1, 1, [4]), (4, 1, 3, [2, 1, 1]), (4, 1, 15, [1] * 15), (16, 1, 5, [4, 3, 3, 3, 3]), (4, 2, 3, [2, 4, 2]),
        (4, 3, 2, [4, 4]), (1, 1, 2, [1, 1]),
    ):  # fmt: skip
        pools = [pool_of(hosts, home=home, workers=workers, in_flight=in_flight) for home in range(workers)]
        assert [pool.own[0].slots for pool in pools] == requests, in_flight


def test_a_host_rests_after_three_failures_for_longer_and_longer_and_those_of_a_moment_are_one():
    now, host = one_host()
    host.admit(now.at)
    pauses = []
    for _ in range(10):
        host.record_failure(DOWN, now.at, now.clock)
        pauses.append(round(host.not_before - now.at, 3))
        now.at = host.not_before
        assert host.admitted_at is None
    assert pauses == [0.25, 0.5, 1, 2, 4, 8, 16, 30, 30, 30]
    assert (host.down, host.resting(now.at)) == (True, True)
    host.admit(now.at)
    assert (host.down, host.free_slots(now.at)) == (False, 2)
    now, host = one_host(in_flight=8)
    started = now.at
    for _ in range(8):
        now.at += 0.01
        host.record_failure(DOWN, started, now.clock)
    assert host.failures == 1


def test_429_halves_the_requests_in_flight_and_success_restores_them_slowly():
    now, host = one_host(in_flight=8)
    host.admit(now.at)
    started = now.at
    for _ in range(4):  # all in flight at once
        host.record_rate_limit(RateLimited("slow down", 7.0), started, now.clock)
    assert (host.free_slots(now.at), host.resting(now.at), host.not_before) == (0, True, now.at + 7)
    now.at += 7
    assert (host.free_slots(now.at), host.resting(now.at)) == (4, False)
    for _ in range(9):
        host.record_success()
    assert host.free_slots(now.at) == 4
    for _ in range(40):
        host.record_success()
    assert host.free_slots(now.at) == 8


def test_timeouts_halve_the_requests_in_flight_for_good_and_then_the_texts_of_a_request():
    now, host = one_host(in_flight=4)
    slots, texts = [], []
    for _ in range(4):
        started = now.at
        for _ in range(3):  # in flight together
            now.at += 1
            host.record_timeout(started, now.at, texts=min(64, host.max_texts))
        for _ in range(100):
            host.record_success()
        slots.append(host.slots), texts.append(min(64, host.max_texts))
        now.at += 1
    assert (slots, texts) == ([2, 1, 1, 1], [64, 64, 32, 16])


def test_429_without_retry_after_pauses_longer_each_time():
    now, host = one_host()
    pauses = []
    for _ in range(7):
        host.record_rate_limit(RateLimited("slow down"), now.at, now.clock)
        pauses.append(host.not_before - now.at)
        now.at = host.not_before + 0.01
    assert (pauses, host.free_slots(now.at)) == (pytest.approx([1, 2, 4, 8, 16, 30, 30]), 0)
    host.admit(now.at)
    assert host.free_slots(now.at) == 1
