"""How much a host gets at a time: what pays is found out while it works, and what would pay is said."""

import heapq

import pytest

from rag_index.components.hosts.host_pool import MAX_REQUESTS, Load


class Server:
    """A host in virtual time: a request takes `latency` on its way, and the server `text` for each text."""

    def __init__(self, *, latency=0.0, text=0.001, cards=1):
        self.latency, self.text = latency, text
        self.free = [0.0] * cards

    def ends(self, at, texts):
        card = min(range(len(self.free)), key=self.free.__getitem__)
        self.free[card] = max(at + self.latency, self.free[card]) + self.text * texts
        return self.free[card]


def fed(server, load, *, texts=40, requests=400):
    """The rate, in texts a second, of the last half of the requests that a host gets by its load."""
    under_way, now, halfway, done = [], 0.0, 0.0, 0
    for number in range(requests):
        while len(under_way) >= load.requests:
            now, began, size = heapq.heappop(under_way)
            load.answered(size * 400, began, now)
            done += size * (number > requests // 2)
        halfway = now if number == requests // 2 else halfway
        heapq.heappush(under_way, (server.ends(now, texts), now, texts))
    return done / (now - halfway)


def test_a_host_that_works_on_one_text_after_another_gets_two_requests_and_two_that_wait():
    load = Load.of(None)
    assert fed(Server(latency=0.018, text=0.00405), load) == pytest.approx(1 / 0.00405, rel=0.01)
    assert load.requests == 4


def test_a_host_that_takes_a_while_gets_more_requests_until_it_is_busy():
    load = Load.of(None)
    assert fed(Server(latency=0.09), load) == pytest.approx(1000, rel=0.02)
    assert load.requests in (4, 8)


def test_many_cards_behind_one_address_get_many_requests_and_never_more_than_the_most():
    load = Load.of(None)
    fed(Server(cards=64, latency=0.1), load)
    assert load.requests == MAX_REQUESTS
    shared = Load.of(None, sharing=4)
    fed(Server(cards=64, latency=0.1), shared)
    assert shared.requests == MAX_REQUESTS / 4, "four processes have the same host"


@pytest.mark.parametrize("requests", [1, 2, 16])
def test_settings_are_kept(requests):
    load = Load.of(requests)
    fed(Server(latency=0.09), load)
    assert load.requests == requests


def test_a_host_that_takes_long_gets_no_more():
    """Its processors are busy: requests behind each other would only reach their time limit."""
    load = Load.of(None)
    fed(Server(text=0.2), load)
    assert load.requests == 2


def test_a_rate_counts_only_while_as_many_requests_are_under_way_as_may_be():
    load = Load.of(None)
    for number in range(100):  # there is one at a time, since no more texts come
        load.answered(16_000, number, number + 0.5)
    assert load.requests == 2
