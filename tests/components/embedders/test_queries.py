"""Queries of several callers at once: which host gets which, and what a fault costs the others.

The hosts live in this process and time is virtual, so every outcome below is the same on any machine.
"""

import asyncio
from dataclasses import replace

import numpy as np
import pytest

from rag_index.components.embedders.dispatch import Queries
from rag_index.components.hosts.endpoint import KnownModel
from rag_index.components.hosts.host_pool import Pool
from rag_index.core.settings import EmbedderSettings
from rag_index.errors import EmbedderUnavailable, ModelChanged, TextRefused, TextTooLong
from tests.fakes.hosts import HANG, PLAIN_TEXT, FakeHosts
from tests.fakes.ollama import vector_of

TWENTY = [f"query {number}" for number in range(20)]
PREFIX = "search_query: "


class Callers:
    """Callers who ask fake hosts: `ask` a query each at some moment, `run` until all have their answer."""

    def __init__(self, hosts: FakeHosts) -> None:
        self.hosts, self.loop = hosts, hosts.loop
        settings = EmbedderSettings(kind="ollama", model="m", query_prefix=PREFIX)
        asked = replace(hosts.asked, model=KnownModel("fake-embed", "d1" * 32, 8))
        self.queries = Queries(asked, settings, lambda: Pool(hosts.hosts, home=0, workers=1, in_flight=1))
        self.answered_at: dict[str, float] = {}

    def ask(self, *texts: str, at: float = 0.0) -> dict[str, asyncio.Task]:
        """Return the call of each query, which begins after `at` virtual seconds."""
        return {text: self.loop.create_task(self._answer(text, at)) for text in texts}

    async def _answer(self, text: str, at: float) -> np.ndarray | Exception:
        await asyncio.sleep(at)
        try:
            [entry] = await self.queries.embed([text])
        except Exception as exc:
            entry = exc
        self.answered_at.setdefault(text, self.loop.time())
        return entry

    def run(self, *asked: dict[str, asyncio.Task]) -> None:
        self.began = self.loop.time()
        self.loop.run_until_complete(asyncio.wait([task for one in asked for task in one.values()], timeout=1000))

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
        return self.answered_at[text] - self.began

    def sent(self, number: int) -> list[str]:
        """Return the queries that a host got, without the plain texts that try it out."""
        requests = [texts for texts in self.hosts[number].sent if texts != [PLAIN_TEXT]]
        return [text.removeprefix(PREFIX) for [text] in requests]


def assert_right(asked: dict[str, asyncio.Task]) -> None:
    for text, task in asked.items():
        assert np.array_equal(task.result(), np.asarray(vector_of(PREFIX + text), dtype=np.float32))


@pytest.fixture
def make():
    made = []

    def open_hosts(count, *, request=0.1, **settings):
        callers = Callers(FakeHosts(count, **{"seconds_per_text": [0.0] * count, **settings}))
        made.append(callers)
        for _ in range(2):  # every host has embedded a plain text
            callers.run(callers.ask(*(f"warm up {number}" for number in range(count))))
            callers.rest(1.0)
        callers.answered_at.clear()
        for host in callers.hosts.hosts:
            host.seconds_per_request = request
            host.sent.clear()
        return callers

    yield open_hosts
    for callers in made:
        callers.close()


@pytest.mark.parametrize("error", [TextRefused("invalid input"), TextTooLong("the input length exceeds")])
def test_a_bad_query_fails_alone(make, error):
    callers = make(2)
    for host in callers.hosts.hosts:
        host.always("bad", error)
    asked, bad = callers.ask(*TWENTY), callers.ask("a bad one")
    callers.run(asked, bad)
    assert_right(asked)
    assert isinstance(bad["a bad one"].result(), type(error))
    callers.answer("after it")


def test_a_host_that_hangs_holds_only_its_own_query_until_the_time_limit_and_is_used_again(make):
    callers = make(2, timeout=10.0)
    callers.hosts[0].outcomes("query 0", [HANG])
    stuck = callers.ask("query 0")
    later = [callers.ask(text, at=0.15 * number) for number, text in enumerate(TWENTY[1:], 1)]
    callers.run(stuck, *later)
    for one in (stuck, *later):
        assert_right(one)
    assert callers.sent(0) == ["query 0"]
    assert 10 < callers.seconds("query 0") < 10.5
    waits = [callers.seconds(text) - 0.15 * number for number, text in enumerate(TWENTY[1:], 1)]
    assert max(waits) < 0.25
    for _ in range(2):
        callers.rest(60)
        callers.hosts[0].sent.clear()
        callers.run(callers.ask(*TWENTY))
    assert callers.sent(0)


def test_if_all_hosts_are_down_every_query_says_why_and_the_next_one_tries_again(make):
    callers = make(2)
    for host in callers.hosts.hosts:
        host.stop()
    asked = callers.ask(*TWENTY)
    callers.run(asked)
    for task in asked.values():
        assert isinstance(task.result(), EmbedderUnavailable)
        assert "host0:11434 accepts no connection" in str(task.result())
    assert max(map(callers.seconds, TWENTY)) < 1
    callers.hosts[1].start()
    callers.answer("again")
    assert callers.seconds("again") < 0.25


def test_a_host_with_another_model_gets_no_query_until_it_has_the_right_one(make):
    callers = make(2)
    for host in callers.hosts.hosts:
        host.digest = "d2" * 32
    callers.rest(20)
    asked = callers.ask(*TWENTY)
    callers.run(asked)
    for task in asked.values():
        assert isinstance(task.result(), ModelChanged)
        assert "weights d2d2d2d2d2d2" in str(task.result())
    assert callers.sent(0) + callers.sent(1) == []
    callers.hosts[1].digest = "d1" * 32
    callers.answer("again")
    assert callers.sent(0) == []


def test_a_query_whose_caller_leaves_before_its_turn_is_not_sent(make):
    callers = make(1)
    first, given_up = callers.ask("first"), callers.ask("given up", at=0.01)
    callers.hosts.at(0.05, given_up["given up"].cancel)
    callers.run(first, given_up)
    callers.rest(1)
    assert callers.sent(0) == ["first"]
