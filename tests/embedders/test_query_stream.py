"""Queries that come one by one and leave together: which host gets which, and what a fault costs the others.

The hosts live in this process and time is virtual, so every outcome below is the same on any machine.
"""

import asyncio
from dataclasses import replace

import numpy as np
import pytest

from rag_index.components.embedders.dispatch import Query, QueryStream
from rag_index.components.hosts.endpoint import KnownModel
from rag_index.components.hosts.host_pool import Pool
from rag_index.core.settings import EmbedderSettings
from rag_index.errors import EmbedderUnavailable, ModelChanged, TextRefused, TextTooLong
from tests.fakes.hosts import HANG, PLAIN_TEXT, FakeHosts
from tests.fakes.ollama import vector_of

TWENTY = [f"query {number}" for number in range(20)]
PREFIX = "search_query: "


class Queries:
    """Queries to fake hosts: `ask` them at some moment, `run` until all are settled."""

    def __init__(self, hosts: FakeHosts, *, max_texts: int = 64, max_chars: int = 16_000) -> None:
        self.hosts, self.loop = hosts, hosts.loop
        limits = {"batch_texts": max_texts, "batch_chars": max_chars}
        settings = EmbedderSettings(kind="ollama", model="m", query_prefix=PREFIX, **limits)
        asked = replace(hosts.asked, model=KnownModel("fake-embed", "d1" * 32, 8))
        self.stream = QueryStream(asked, settings, lambda: Pool(hosts.hosts, home=0, workers=1, in_flight=1))
        self.settled_at: dict[str, float] = {}

    def ask(self, *texts: str, at: float = 0.0) -> list[Query]:
        """Add the queries at once, after `at` virtual seconds."""
        queries = [Query(text) for text in texts]
        for query in queries:
            query.future.add_done_callback(lambda _, text=query.text: self._note(text))
        self.loop.call_later(at, self.stream.add, queries)
        return queries

    def run(self, *asked: list[Query]) -> None:
        async def wait():
            until = self.loop.time() + 1000
            while self.loop.time() < until and not all(query.future.done() for queries in asked for query in queries):
                await asyncio.sleep(0.02)

        self.began = self.loop.time()
        self.loop.run_until_complete(wait())

    def answer(self, *texts: str) -> None:
        """Ask, and check that each query gets its own vector."""
        asked = self.ask(*texts)
        self.run(asked)
        assert_right(asked)

    def rest(self, seconds: float) -> None:
        """Let virtual time pass."""
        self.loop.run_until_complete(asyncio.sleep(seconds))

    def close(self) -> None:
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        self.loop.run_until_complete(asyncio.sleep(0.1))
        self.loop.close()

    def seconds(self, text: str) -> float:
        return self.settled_at[text] - self.began

    def sent(self, number: int) -> list[list[str]]:
        """Return the queries of each request to a host, without the plain texts that try it out."""
        requests = [texts for texts in self.hosts[number].sent if texts != [PLAIN_TEXT]]
        assert all(text.startswith(PREFIX) for texts in requests for text in texts)
        return [[text.removeprefix(PREFIX) for text in texts] for texts in requests]

    def _note(self, text: str) -> None:
        self.settled_at.setdefault(text, self.loop.time())


def assert_right(queries: list[Query]) -> None:
    for query in queries:
        assert np.array_equal(query.future.result(), np.asarray(vector_of(PREFIX + query.text), dtype=np.float32))


@pytest.fixture
def make():
    made = []

    def open_hosts(count, *, warm=True, request=0.1, **settings):
        limits = {name: settings.pop(name) for name in ("max_texts", "max_chars") if name in settings}
        queries = Queries(FakeHosts(count, **{"seconds_per_text": [0.0] * count, **settings}), **limits)
        made.append(queries)
        if warm:  # every host has embedded a plain text
            queries.run(queries.ask(*(f"warm up {number}" for number in range(count))))
            queries.rest(1.0)
            queries.run(queries.ask(*(f"warm up again {number}" for number in range(count))))
        for host in queries.hosts.hosts:
            host.seconds_per_request = request
            host.sent.clear()
        return queries

    yield open_hosts
    for queries in made:
        queries.close()


# Together


def test_a_lone_query_waits_for_nothing_and_queries_at_once_go_to_all_hosts_in_equal_shares(make):
    queries = make(4)
    queries.answer("alone")
    assert queries.seconds("alone") < 0.102
    queries.answer(*TWENTY)
    assert [[len(texts) for texts in queries.sent(number)][-1] for number in range(4)] == [5] * 4
    assert max(map(queries.seconds, TWENTY)) < 0.102


def test_queries_that_come_one_by_one_take_two_requests_of_time(make):
    """The first goes alone, since nothing tells that others will come; those that come meanwhile go together."""
    queries = make(2)
    asked = [queries.ask(text, at=0.001 * number) for number, text in enumerate(TWENTY)]
    queries.run(*asked)
    assert max(map(queries.seconds, TWENTY)) < 0.21
    assert sum(len(queries.sent(number)) for number in range(2)) <= 4
    for one in asked:
        assert_right(one)


# One bad query


@pytest.mark.parametrize("error", [TextRefused("invalid input"), TextTooLong("the input length exceeds")])
def test_a_bad_query_fails_alone(make, error):
    queries = make(2)
    for host in queries.hosts.hosts:
        host.always("bad", error)
    asked, bad = queries.ask(*TWENTY[:10], *TWENTY[10:]), queries.ask("a bad one")
    queries.run(asked, bad)
    assert_right(asked)
    with pytest.raises(type(error)):
        bad[0].future.result()
    queries.answer("after it")


# Hosts


def test_a_host_that_hangs_holds_only_its_own_queries_until_the_time_limit_and_is_used_again(make):
    queries = make(2, timeout=10.0)
    queries.hosts[0].outcomes("query 0", [HANG])
    stuck = queries.ask("query 0")
    later = [queries.ask(text, at=0.05 * number) for number, text in enumerate(TWENTY[1:], 1)]
    queries.run(stuck, *later)
    for one in (stuck, *later):
        assert_right(one)
    assert queries.sent(0) == [["query 0"]]
    assert 10 < queries.seconds("query 0") < 10.5
    waits = [queries.seconds(text) - 0.05 * number for number, text in enumerate(TWENTY[1:], 1)]
    assert max(waits) < 0.25
    for _ in range(2):
        queries.rest(60)
        queries.hosts[0].sent.clear()
        queries.run(queries.ask(*TWENTY))
    assert queries.sent(0)


def test_if_all_hosts_are_down_every_query_says_why_and_the_next_one_tries_again(make):
    queries = make(2)
    for host in queries.hosts.hosts:
        host.stop()
    asked = queries.ask(*TWENTY)
    queries.run(asked)
    for query in asked:
        with pytest.raises(EmbedderUnavailable, match="host0:11434 accepts no connection"):
            query.future.result()
    assert max(map(queries.seconds, TWENTY)) < 1
    queries.hosts[1].start()
    queries.answer("again")
    assert queries.seconds("again") < 0.25


def test_a_host_with_another_model_gets_no_query_until_it_has_the_right_one(make):
    queries = make(2)
    for host in queries.hosts.hosts:
        host.digest = "d2" * 32
    queries.rest(20)
    asked = queries.ask(*TWENTY)
    queries.run(asked)
    for query in asked:
        with pytest.raises(ModelChanged, match="weights d2d2d2d2d2d2"):
            query.future.result()
    assert queries.sent(0) + queries.sent(1) == []
    queries.hosts[1].digest = "d1" * 32
    queries.answer("again")
    assert queries.sent(0) == []


# Queries that nobody waits for


def test_a_query_that_is_cancelled_before_its_turn_is_not_sent(make):
    queries = make(1)
    first, given_up = queries.ask("first"), queries.ask("given up", at=0.01)
    queries.hosts.at(0.05, given_up[0].future.cancel)
    queries.run(first, given_up)
    queries.rest(1)
    assert queries.sent(0) == [["first"]]


def test_closing_waits_for_the_queries_that_somebody_waits_for_and_no_longer(make):
    queries = make(2, timeout=10.0)
    queries.hosts[0].always("stuck", HANG)
    given_up, wanted = queries.ask("stuck"), queries.ask("wanted")
    queries.hosts.at(0.05, given_up[0].future.cancel)
    queries.rest(0.01)
    began = queries.loop.time()
    queries.loop.run_until_complete(queries.stream.close())
    assert_right(wanted)
    assert queries.loop.time() - began < 0.3
