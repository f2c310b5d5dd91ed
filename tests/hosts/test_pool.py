"""Several hosts: who is asked, who rests, and for how long."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from rag_index.embedders.batches import make_batches
from rag_index.errors import EmbedderUnavailable, RateLimited
from rag_index.hosts.endpoint import Endpoint
from rag_index.hosts.pace import Pace
from rag_index.hosts.pool import Clock, Pool
from rag_index.settings import EmbedderSettings
from tests.fakes.embedders import FAST
from tests.fakes.ollama import FakeOllama, vector_of

TEXTS = [f"document {number} " + "word " * (number % 5) for number in range(200)]
DOWN = EmbedderUnavailable("down")


class Time:
    """A clock that goes when it is told."""

    def __init__(self):
        self.at = 100.0
        self.clock = Clock(now=lambda: self.at, chance=lambda: 0.5)


def pool_of(count, *, home=0, workers=1, in_flight=2):
    settings = EmbedderSettings(kind="ollama", model="m")
    endpoints = [Endpoint(f"http://host{number}:11434", settings) for number in range(count)]
    return Pool(endpoints, home=home, workers=workers, in_flight=in_flight)


def numbers(hosts):
    return [int(host.url[len("http://host") : -len(":11434")]) for host in hosts]


def right(entries, texts=TEXTS):
    assert len(entries) == len(texts)
    for entry, text in zip(entries, texts, strict=True):
        assert np.array_equal(entry, np.asarray(vector_of(text), dtype=np.float32))


@pytest.fixture
def servers():
    with FakeOllama() as first, FakeOllama() as second, FakeOllama() as third:
        for server in (first, second, third):
            server.seconds_per_text = 0.002
        yield [first, second, third]


# Shares


@pytest.mark.parametrize(
    ("hosts", "workers", "shares"),
    [
        (1, 3, [[0], [0], [0]]),
        (3, 3, [[0], [1], [2]]),
        (2, 4, [[0], [1], [0], [1]]),
        (4, 1, [[0, 1, 2, 3]]),
        (5, 2, [[0, 2, 4], [1, 3]]),
        (4, 3, [[0, 3], [1], [2]]),
    ],
)
def test_shares_cover_every_host_and_no_worker_is_without_one(hosts, workers, shares):
    pools = [pool_of(hosts, home=home, workers=workers) for home in range(workers)]
    assert [numbers(pool.own) for pool in pools] == shares
    assert {number for share in shares for number in share} == set(range(hosts))
    for pool in pools:
        assert sorted(numbers(pool.hosts)) == list(range(hosts))


def test_a_home_alone_says_where_to_begin():
    assert numbers(pool_of(3, home=1).own) == [1, 2, 0]
    assert numbers(pool_of(3, home=4).own) == [1, 2, 0]


def test_others_stand_in_in_turn_from_home():
    assert numbers(pool_of(4, home=2, workers=4).hosts) == [2, 3, 0, 1]


# The breaker


def test_a_host_rests_after_three_failures_for_longer_and_longer():
    now, pool = Time(), pool_of(1)
    host = pool.hosts[0]
    host.admitted(now.at)
    pauses = []
    for _ in range(10):
        host.failed(DOWN, now.at, now.clock)
        pauses.append(round(host.not_before - now.at, 3))
        now.at = host.not_before
        assert host.admitted_at is None
    assert pauses == [0.1, 0.2, 1, 2, 4, 8, 16, 30, 30, 30]
    assert host.down
    assert pool.dry(now.at)
    host.admitted(now.at)
    assert not host.down
    assert host.free(now.at) == 2


def test_requests_that_fail_together_are_one_failure():
    now, pool = Time(), pool_of(1, in_flight=8)
    host = pool.hosts[0]
    started = now.at
    for _ in range(8):
        now.at += 0.01
        host.failed(DOWN, started, now.clock)
    assert host.failures == 1


def test_a_host_that_failed_is_asked_before_it_gets_work():
    now, pool = Time(), pool_of(1)
    host = pool.hosts[0]
    assert pool.to_ask(now.at) == [host]
    assert pool.pick(now.at, chars=1, waiting=1) is None
    host.admitted(now.at)
    assert pool.to_ask(now.at) == []
    assert pool.pick(now.at, chars=1, waiting=1) is host
    host.failed(DOWN, now.at, now.clock)
    assert pool.to_ask(now.at) == []
    now.at = pool.wake_at(now.at)
    assert pool.to_ask(now.at) == [host]


def test_one_question_at_a_time_goes_to_a_host_that_is_down():
    now, pool = Time(), pool_of(2, workers=2)
    own, other = pool.hosts
    for _ in range(3):
        own.failed(DOWN, now.at, now.clock)
        now.at = own.not_before
    assert pool.to_ask(now.at) == [own, other]
    own.asking = other.asking = True
    assert pool.to_ask(now.at) == []


def test_a_batch_that_failed_travels_alone():
    now, pool = Time(), pool_of(1)
    host = pool.hosts[0]
    host.admitted(now.at)
    host.in_flight = 1
    assert pool.pick(now.at, chars=1, waiting=1) is host
    assert pool.pick(now.at, chars=1, waiting=1, alone=True) is None
    host.alone = True
    assert pool.pick(now.at, chars=1, waiting=1) is None


def test_429_halves_what_is_in_flight_and_success_gives_it_back_slowly():
    now, pool = Time(), pool_of(1, in_flight=8)
    host = pool.hosts[0]
    host.admitted(now.at)
    started = now.at
    for _ in range(4):  # all in flight at once
        host.limited(RateLimited("slow down", 7.0), 7.0, started, now.clock)
    assert host.free(now.at) == 0
    assert host.resting(now.at)
    assert host.not_before == now.at + 7
    now.at += 7
    assert not host.resting(now.at)
    assert host.free(now.at) == 4
    for _ in range(9):
        host.succeeded(10, 0.1)
    assert host.free(now.at) == 4
    for _ in range(40):
        host.succeeded(10, 0.1)
    assert host.free(now.at) == 8


def test_429_without_seconds_pauses_longer_each_time():
    now, pool = Time(), pool_of(1)
    host = pool.hosts[0]
    pauses = []
    for _ in range(7):
        host.limited(RateLimited("slow down"), None, now.at, now.clock)
        pauses.append(host.not_before - now.at)
        now.at = host.not_before + 0.01
    assert pauses == pytest.approx([1, 2, 4, 8, 16, 30, 30])
    assert host.free(now.at) == 0  # never admitted
    host.admitted(now.at)
    assert host.free(now.at) == 1


def test_a_slow_host_is_passed_over_for_the_last_batches_only():
    now, pool = Time(), pool_of(2)
    fast, slow = pool.hosts
    for host, pace in ((fast, 0.001), (slow, 0.1)):
        host.admitted(now.at)
        host.pace.learn(100, 100 * pace)
    fast.in_flight = 2
    assert pool.pick(now.at, chars=100, waiting=1_000_000) is slow
    assert pool.pick(now.at, chars=100, waiting=200) is None
    fast.in_flight = 1
    assert pool.pick(now.at, chars=100, waiting=200) is fast
    fast.failed(DOWN, now.at, now.clock)
    assert pool.pick(now.at, chars=100, waiting=200) is slow


# Batches


def test_a_host_that_was_first_asked_with_a_short_text_is_not_taken_for_slow():
    pool, now = pool_of(2), Time()
    usual, other = pool.hosts
    for host in pool.hosts:
        host.admitted(now.at)
    for _ in range(5):
        usual.succeeded(16_000, 0.9)
    other.succeeded(20, 0.1)  # nearly all of it is what any request costs: by the character, 90 times slower
    usual.in_flight = 2
    assert pool.pick(now.at, chars=16_000, waiting=16_000) is other
    other.succeeded(16_000, 1.0)
    other.succeeded(30, 0.1)
    assert pool.pick(now.at, chars=16_000, waiting=16_000) is other
    for _ in range(3):
        other.succeeded(16_000, 9.0)  # now it is
    assert pool.pick(now.at, chars=16_000, waiting=16_000) is None
    assert pool.pick(now.at, chars=20, waiting=16_000) is not None, "what costs little may go there"


def test_a_pace_tells_what_a_request_costs_from_what_a_character_costs():
    pace = Pace()
    assert pace.seconds(10) is None
    pace.learn(100, 0.3)
    assert pace.seconds(100) == pytest.approx(0.3)
    assert pace.seconds(200) == pytest.approx(0.6), "one size alone: all of it is taken for the characters' cost"
    assert pace.seconds(10_000) is None, "too far from what was seen"
    for chars in (100, 1000, 8000, 200, 16_000, 4000):
        pace.learn(chars, 0.2 + chars * 1e-4)
    assert pace.seconds(50) == pytest.approx(0.205, rel=0.2)
    assert pace.seconds(12_000) == pytest.approx(1.4, rel=0.05)
    for chars in (100, 1000, 8000, 200, 16_000, 4000) * 3:
        pace.learn(chars, 2 * (0.2 + chars * 1e-4))
    assert pace.seconds(12_000) == pytest.approx(2.8, rel=0.05), "it became slower, and that is noticed"


def test_batches_are_bounded_and_hold_every_text_once():
    texts = ["x" * (number * 37 % 400 + 1) for number in range(500)] + ["y" * 5000]
    batches = make_batches(texts, max_texts=20, max_chars=1000)
    assert sorted(row for batch in batches for row in batch.rows) == list(range(501))
    for batch in batches:
        assert batch.chars == sum(len(texts[row]) for row in batch.rows)
        assert len(batch.rows) == 1 or (len(batch.rows) <= 20 and batch.chars <= 1000)


def test_few_texts_are_shared_between_hosts():
    assert [len(batch.rows) for batch in make_batches(["x"] * 64, max_texts=64, max_chars=9999, hosts=4)] == [16] * 4
    assert [len(batch.rows) for batch in make_batches(["x"] * 9, max_texts=64, max_chars=9999, hosts=4)] == [8, 1]


# Over real sockets


def test_every_host_is_used_by_one_worker(servers, make_embedder):
    embedder = make_embedder(*servers)
    began = time.monotonic()
    right(embedder.embed_documents(TEXTS))
    assert time.monotonic() - began < 0.8 * 0.002 * len(TEXTS)
    assert set(embedder.texts_by_host) == {server.url for server in servers}
    assert min(embedder.texts_by_host.values()) >= 30


def test_workers_keep_to_their_share(servers, make_embedder):
    for home, server in enumerate(servers):
        embedder = make_embedder(*servers, home=home, workers=3)
        right(embedder.embed_documents(TEXTS[:40]), TEXTS[:40])
        assert embedder.texts_by_host == {server.url: 40}
        assert embedder.stats.in_flight == 0
        assert embedder.stats.host_seconds == {server.url: pytest.approx(embedder.stats.busy_seconds, abs=0.05)}


def test_a_faster_host_takes_more(servers, make_embedder):
    servers[0].seconds_per_text = 0.0005
    servers[1].seconds_per_text = 0.004
    embedder = make_embedder(*servers[:2], batch_texts=8)
    right(embedder.embed_documents(TEXTS))
    fast, slow = (embedder.texts_by_host[server.url] for server in servers[:2])
    assert fast > 3 * slow > 0


def test_the_last_batches_are_not_left_with_a_slow_host(servers, make_embedder):
    servers[0].seconds_per_text = 0.0002
    servers[1].seconds_per_text = 0.1
    embedder = make_embedder(*servers[:2], batch_texts=8)
    right(embedder.embed_documents(TEXTS))  # learns the paces
    before = embedder.texts_by_host.get(servers[1].url, 0)
    right(embedder.embed_documents(TEXTS))
    assert embedder.texts_by_host.get(servers[1].url, 0) - before <= 16


def test_another_host_stands_in_for_one_that_is_down(servers, make_embedder):
    embedder = make_embedder(*servers, home=1, workers=3)
    servers[1].stop_listening()
    began = time.monotonic()
    right(embedder.embed_documents(TEXTS[:40]), TEXTS[:40])
    assert time.monotonic() - began < 3
    assert embedder.texts_by_host.keys() <= {servers[2].url, servers[0].url}


def test_a_host_that_hangs_takes_its_batches_with_it_only_until_the_timeout(servers, make_embedder):
    embedder = make_embedder(*servers, timeout=0.4)
    embedder.embed_documents(TEXTS)
    servers[0].fault("hang")
    began = time.monotonic()
    right(embedder.embed_documents(TEXTS))
    assert time.monotonic() - began < 3


def test_a_host_that_comes_back_is_used_again(servers, make_embedder):
    embedder = make_embedder(*servers[:2], workers=2, clock=FAST)
    servers[0].stop_listening()
    right(embedder.embed_documents(TEXTS))
    assert servers[0].url not in embedder.texts_by_host
    threading.Timer(0.2, servers[0].listen).start()
    deadline = time.monotonic() + 10
    while servers[0].url not in embedder.texts_by_host and time.monotonic() < deadline:
        right(embedder.embed_documents(TEXTS[:40]), TEXTS[:40])
    assert embedder.texts_by_host.get(servers[0].url)


def test_hosts_that_fail_in_turn_lose_nothing(servers, make_embedder):
    embedder = make_embedder(*servers, wait_for_recovery=100.0, batch_texts=4, clock=FAST)
    ends = threading.Event()

    def trouble():
        turn = 0
        while not ends.is_set():
            server = servers[turn % 3]
            server.stop_listening()
            ends.wait(0.05)
            server.clear()
            server.listen()
            server.fault("reset" if turn % 2 else "status", times=1, code=503, marker="document")
            ends.wait(0.05)
            turn += 1

    thread = threading.Thread(target=trouble)
    thread.start()
    try:
        for _ in range(4):
            right(embedder.embed_documents(TEXTS))
    finally:
        ends.set()
        thread.join()
    assert embedder.stats.retries > 0


def test_one_host_that_asks_for_a_pause_gets_it(servers, make_embedder):
    servers[0].fault("status", code=429, headers={"Retry-After": "30"}, times=1)
    embedder = make_embedder(*servers[:2])
    began = time.monotonic()
    right(embedder.embed_documents(TEXTS))
    assert time.monotonic() - began < 3
    assert len(servers[0].embeds()) == 1
    assert embedder.stats.rate_limited == 1
