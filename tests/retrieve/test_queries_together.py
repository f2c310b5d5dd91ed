"""Different queries at the same time: embedded together, on every host, and no search pays for the fault of another."""

from __future__ import annotations

import asyncio
import threading

import pytest

from rag_index.retrieve import Retriever
from rag_index.settings import load_settings
from tests.fakes.ollama import FakeOllama
from tests.retrieve.conftest import MODEL
from tests.waiting import eventually

QUERIES = [f"printer {number}" for number in range(20)]
PREFIX = "search_query: "


@pytest.fixture
def servers(ollama):
    """Two servers with one model."""
    with FakeOllama(model=MODEL) as other:
        yield ollama, other


@pytest.fixture
def desk(ollama_desk, servers):
    hosts = ", ".join(f'"{server.url}"' for server in servers)
    ollama_desk.write(extra=f'[embedder]\nkind = "ollama"\nmodel = "{MODEL}"\nhosts = [{hosts}]\n')
    return ollama_desk


def asked(*servers) -> list[list[str]]:
    """Return the queries of each request, without the plain texts that try a host out."""
    requests = [request.texts for server in servers for request in server.embeds()]
    return [[text.removeprefix(PREFIX) for text in texts] for texts in requests if texts[0].startswith(PREFIX)]


async def search_all(retriever: Retriever, queries=QUERIES, **options):
    return await asyncio.gather(
        *(retriever.search(query, **{"timeout": 60, **options}) for query in queries), return_exceptions=True
    )


async def gathered(retriever: Retriever, count: int) -> None:
    """Wait until so many queries are with the embedder."""
    await asyncio.to_thread(eventually, lambda: retriever.metrics().vectors_made >= count)


async def warm_up(retriever: Retriever, servers) -> None:
    """Search until every server has embedded a query."""
    for number in range(1000):
        if all(asked(server) for server in servers):
            return
        await search_all(retriever, [f"{query} warms up {number}" for query in QUERIES])
    raise AssertionError("a server got no query")


def close_gate(*servers) -> threading.Event:
    gate = threading.Event()
    for server in servers:
        server.clear()
        server.gate = gate
    return gate


def test_different_queries_at_once_are_embedded_together_on_all_hosts(desk, servers):
    async def main():
        async with desk.retriever() as retriever:
            await warm_up(retriever, servers)
            gate = close_gate(*servers)
            retriever.reset_metrics()
            searches = asyncio.ensure_future(search_all(retriever))
            await gathered(retriever, 20)
            await asyncio.to_thread(eventually, lambda: all(asked(server) for server in servers))
            gate.set()
            return await searches

    results = asyncio.run(main())
    requests = asked(*servers)
    assert {text for texts in requests for text in texts} == set(QUERIES)
    assert len(requests) <= 6
    with desk.retriever(retrieve={"cache_size": 0}) as retriever:
        assert [result.hits for result in results] == [retriever.search_sync(query).hits for query in QUERIES]


@pytest.mark.parametrize("warm", [True, False])
def test_a_host_that_hangs_costs_no_search_its_answer(desk, servers, warm):
    """Also if it hangs from the start: a command opens the embedder for one search."""

    async def main():
        async with desk.retriever() as retriever:
            if warm:
                await warm_up(retriever, servers)
            servers[0].fault("hang")
            servers[0].fault("hang", path="/api/tags")
            return await search_all(retriever, timeout=9)

    results = asyncio.run(main())
    assert not [result.errors for result in results if result.errors]


def test_searches_that_are_given_up_are_not_embedded_later(desk, servers):
    async def main():
        async with desk.retriever() as retriever:
            await warm_up(retriever, servers)
            gate = close_gate(*servers)
            retriever.reset_metrics()
            searches = [asyncio.ensure_future(search_all(retriever, QUERIES[:2]))]
            await asyncio.to_thread(eventually, lambda: sum(map(len, asked(*servers))) == 2)
            searches.append(asyncio.ensure_future(search_all(retriever, QUERIES[2:])))
            await gathered(retriever, 20)
            for search in searches:
                search.cancel()
            await asyncio.wait(searches)
            gate.set()
            return await retriever.search("mailbox", timeout=60)

    assert asyncio.run(main()).errors == {}
    texts = [text for request in asked(*servers) for text in request]
    assert set(texts) == {*QUERIES[:2], "mailbox"}


def test_closing_ends_searches_that_wait_for_a_host_that_hangs(desk, servers):
    before = threading.enumerate()
    for server in servers:
        server.fault("hang")

    async def main():
        retriever = Retriever(load_settings(desk.config))
        searches = [asyncio.ensure_future(retriever.search(query, timeout=1)) for query in QUERIES]
        done = await asyncio.gather(*searches, return_exceptions=True)
        await retriever.aclose()
        return done

    assert all("timed out after 1 s while the query was embedded" in str(error) for error in asyncio.run(main()))
    assert eventually(
        lambda: not [one for one in threading.enumerate() if one.name == "rag-index-embedder" and one not in before]
    )
