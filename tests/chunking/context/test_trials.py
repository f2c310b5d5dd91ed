"""Whose fault a failed question is: a chunk is blamed only between two plain questions that its host answers."""

from __future__ import annotations

import asyncio

import pytest

from rag_index.chunking.context.prompt import Passage
from rag_index.chunking.context.writer import PLAIN_PROMPT, ContextRequest, ContextRequests, GeneratingModel, Recipe
from rag_index.errors import TextRefused
from rag_index.hosts.ollama_client import Answer
from rag_index.hosts.pool import Clock, Pool, RequestStats
from tests.fakes.hosts import HANG, ILL, FakeHost, VirtualTimeLoop

POISON = "poison in this chunk"
RECIPE = Recipe("d1" * 32, "{document}\n{chunk}", 300, 4096)


class TalkingHost(FakeHost):
    """A host that answers questions, with the faults of one that embeds."""

    async def generate(self, prompt: str, **options: float) -> Answer:
        try:
            async with asyncio.timeout(self.timeout):
                await self.embed([prompt])
        except TimeoutError:
            raise HANG from None
        return Answer("This is the second part of a letter.", True, 10)

    def asked(self, marker: str) -> list[bool]:
        """Whether each question since the first with `marker` was one with it; the others are plain."""
        prompts = [texts[0] for texts in self.sent]
        first = next((number for number, prompt in enumerate(prompts) if marker in prompt), len(prompts))
        return [marker in prompt for prompt in prompts[first:]]


class Hosts:
    """Some hosts in virtual time, and calls that ask them for contexts."""

    def __init__(self, count: int, *, in_flight: int = 2) -> None:
        self.loop = VirtualTimeLoop()
        self.hosts = [TalkingHost(f"http://host{n}:11434", seconds_per_text=0.05, timeout=60.0) for n in range(count)]
        self._pool = Pool(self.hosts, home=0, workers=1, in_flight=in_flight)
        self._in_flight = 2 * in_flight
        self._model = GeneratingModel("fake-talk", num_ctx=4096)
        self._clock = Clock(now=self.loop.time, chance=lambda: 0.5)
        self.ask(["warm up"] * count * 3)
        for host in self.hosts:
            host.outcomes("warm", [ILL])
        self.ask(["warm up"] * count * 3)  # after a failure, a host is asked a plain question
        for host in self.hosts:
            host.sent.clear()

    def ask(self, chunks: list[str]) -> list[ContextRequest]:
        requests = [ContextRequest(Passage("", chunk, 0, "a1"), 3000) for chunk in chunks]
        call = ContextRequests(
            self._pool, self._model, RequestStats(), self._clock,
            recipe=RECIPE, requests=requests, max_in_flight=self._in_flight, patience=600.0,
            on_context=lambda request: None,
        )  # fmt: skip
        self.loop.run_until_complete(call.run())
        return requests


@pytest.fixture
def make_hosts():
    made = []

    def make(count, **settings):
        made.append(Hosts(count, **settings))
        return made[-1]

    yield make
    for hosts in made:
        hosts.loop.close()


@pytest.mark.parametrize(("count", "error"), [(1, ILL), (3, HANG), (1, TextRefused("invalid"))])
def test_a_chunk_that_fails_between_plain_questions_is_at_fault(make_hosts, count, error):
    hosts = make_hosts(count)
    for host in hosts.hosts:
        host.always(POISON, error)
    bad, *good = hosts.ask([POISON, *["good"] * 20])
    assert "each time for this chunk" in bad.reason
    assert all(request.context for request in good)
    judge = max(hosts.hosts, key=lambda host: sum(host.asked(POISON)))
    prompts = [texts[0] for texts in judge.sent]
    *_, last = (number for number, prompt in enumerate(prompts) if POISON in prompt)
    assert PLAIN_PROMPT in prompts[last - 1]
    assert PLAIN_PROMPT in prompts[last + 1]
