"""The pool of servers: who is asked next, who rests, and for how long."""

import pytest

from rag_index.components.hosts.clients import OllamaEndpoint
from rag_index.components.hosts.endpoint import KnownModel
from rag_index.components.hosts.host_pool import HostPool
from rag_index.core.settings import EmbedderSettings
from rag_index.errors import EmbedderUnavailable, RateLimited

DOWN = EmbedderUnavailable("down")


@pytest.fixture(autouse=True)
def exact_rests(monkeypatch):
    """Without chance."""
    monkeypatch.setattr("rag_index.components.hosts.host.jittered", lambda seconds: seconds)


def pool_of(count, *, home=0, workers=1, in_flight=2):
    settings = EmbedderSettings(kind="ollama", model="m")
    endpoints = [OllamaEndpoint(f"http://host{number}:11434", settings) for number in range(count)]
    return HostPool(
        endpoints, KnownModel("m"), home=home, workers=workers, in_flight=in_flight, patience=10.0
    )


def one_host(in_flight=2):
    return pool_of(1, in_flight=in_flight).hosts[0]


def numbers(hosts):
    return [int(host.url[len("http://host") : -len(":11434")]) for host in hosts]


def test_every_host_is_in_a_share_and_no_share_is_empty():
    for hosts, workers, shares in (
        (1, 3, [[0], [0], [0]]),
        (3, 3, [[0], [1], [2]]),
        (2, 4, [[0], [1], [0], [1]]),
        (4, 1, [[0, 1, 2, 3]]),
        (5, 2, [[0, 2, 4], [1, 3]]),
        (4, 3, [[0, 3], [1], [2]]),
    ):
        pools = [pool_of(hosts, home=home, workers=workers) for home in range(workers)]
        assert [numbers(pool.own) for pool in pools] == shares, hosts
        assert {number for share in shares for number in share} == set(range(hosts)), hosts
        for pool in pools:
            assert sorted(numbers(pool.hosts)) == list(range(hosts)), hosts


def test_the_requests_that_a_host_gets_are_shared_among_its_workers():
    for in_flight, hosts, workers, requests in (
        (4, 1, 1, [4]),
        (4, 1, 3, [2, 1, 1]),
        (4, 1, 15, [1] * 15),
        (16, 1, 5, [4, 3, 3, 3, 3]),
        (4, 2, 3, [2, 4, 2]),
        (4, 3, 2, [4, 4]),
        (1, 1, 2, [1, 1]),
    ):
        pools = [
            pool_of(hosts, home=home, workers=workers, in_flight=in_flight)
            for home in range(workers)
        ]
        assert [pool.own[0].requests for pool in pools] == requests, in_flight


@pytest.mark.parametrize("error", [DOWN, RateLimited("slow down")])
def test_a_host_rests_for_longer_and_longer_until_it_embeds_a_plain_text(error):
    host, now, pauses = one_host(), 100.0, []
    for _ in range(10):
        host.record_failure(error, now, now)
        pauses.append(host.rests_until - now)
        assert not host.may_be_asked(host.rests_until - 0.01)
        now = host.rests_until
        assert host.may_be_asked(now)
        assert not host.works(now)
    assert pauses == [0.25, 0.5, 1, 2, 4, 8, 16, 30, 30, 30]
    host.record_well(now, now)
    assert host.works(now)
    host.record_failure(error, now, now)
    assert host.rests_until - now == 0.25


def test_requests_that_were_in_flight_together_are_one_failure():
    host = one_host(in_flight=8)
    for number in range(8):
        host.record_failure(DOWN, 100.0, 100.01 + number / 100)
    assert host.failures == 1


def test_429_halves_the_requests_in_flight_and_success_restores_them_slowly():
    host, now = one_host(in_flight=8), 100.0
    for _ in range(4):  # all in flight at once
        host.record_failure(RateLimited("slow down", 7.0), now - 1, now)
    assert host.rests_until == now + 7
    host.record_well(now + 7, now + 7)
    capacities = []
    for number in range(1, 50):
        host.record_success()
        if number in (9, 49):
            capacities.append(int(host.capacity))
    assert capacities == [4, 8]


def test_timeouts_halve_the_requests_in_flight_for_good_and_then_the_texts_of_a_request():
    host, now = one_host(in_flight=4), 100.0
    requests, texts = [], []
    for _ in range(4):
        started = now
        for _ in range(3):  # in flight together
            now += 1
            host.record_timeout(started, now, items=min(64, host.max_items))
        for _ in range(100):
            host.record_success()
        requests.append(int(host.capacity))
        texts.append(min(64, host.max_items))
        now += 1
    assert (requests, texts) == ([2, 1, 1, 1], [64, 64, 32, 16])
