"""Run by `test_frameworks` where the frameworks are installed: python check_frameworks.py FRAMEWORK
SETTINGS."""

import asyncio
import sys

from rag_index import Retriever
from rag_index.core.settings import load_settings
from rag_index.errors import SettingsError, StoreUnavailable
from rag_index.search.frameworks import Service, found_in
from tests.search.service.live import Live

QUERY = "the printer is offline"
OPTIONS = {"indexes": ["comments"], "limit": 2}
BEST = ["comments/1", "comments/2"]


def refused(call, error=SettingsError) -> bool:
    try:
        call()
    except error:
        return True
    return False


def check_service(config: str) -> None:
    """What is asked over HTTP is what is found here; our names leave those of the payload alone."""
    with Live(load_settings(config)) as live, Retriever.from_settings(config) as retriever:
        service = Service(live.url)
        there, said = found_in(service.search_sync(QUERY, **OPTIONS))
        assert there == found_in(retriever.search_sync(QUERY, **OPTIONS))[0]
        assert {"relevance", "citation", "chunks", "score"} <= there[0][2].keys()
        assert asyncio.run(service.search(QUERY, **OPTIONS))["hits"]
        nothing, said = found_in(service.search_sync("zzqqxx wwvvuu", limit=1))
        assert (said, nothing[0][2]["nothing_fits"]) == ({"nothing_fits": True}, True)
        assert refused(lambda: service.search_sync(QUERY, indexes=["unknown"]))
        assert refused(lambda: service.search_sync(QUERY, groups=["staff"])), "the token says that"
    assert refused(lambda: service.search_sync(QUERY), StoreUnavailable)
    hit = {
        "index": "i",
        "document_id": "1",
        "score": 0.5,
        "chunks": [],
        "payload": {"score": 7, "index": "x", "chunks": 1},
    }
    ((_, _, metadata),), _ = found_in({"hits": [hit]})
    assert (metadata["score"], metadata["rag_index_score"], metadata["index"]) == (7, 0.5, "x")


def check_langchain(config: str) -> None:
    from langchain_core.documents import Document
    from langchain_core.runnables import RunnableLambda

    from rag_index.search.frameworks.langchain import RagIndexRetriever

    with Retriever.from_settings(config) as retriever:
        found = RagIndexRetriever(retriever=retriever, options=OPTIONS)
        documents = found.invoke(QUERY)
        assert all(isinstance(one, Document) for one in documents)
        assert [one.id for one in documents] == BEST
        first = documents[0]
        assert first.page_content == "The printer on floor two is offline since the update"
        kept = {
            name: first.metadata[name] for name in ("index", "document_id", "priority", "chunks")
        }
        assert kept == {"index": "comments", "document_id": "1", "priority": "high", "chunks": [0]}
        assert 0 < first.metadata["score"] <= 1
        assert [one.id for one in asyncio.run(found.ainvoke(QUERY))] == BEST
        assert [one.id for one in found.invoke(QUERY, filter={"priority": "low"})] == ["comments/2"]
        chain = found | RunnableLambda(lambda some: [one.id for one in some])
        assert chain.batch([QUERY, QUERY]) == [BEST, BEST]
        assert refused(lambda: found.invoke(QUERY, indexes=["unknown"]))


def check_llama_index(config: str) -> None:
    from llama_index.core.schema import QueryBundle

    from rag_index.search.frameworks.llama_index import RagIndexRetriever

    with Retriever.from_settings(config) as retriever:
        found = RagIndexRetriever(retriever, **OPTIONS)
        nodes = found.retrieve(QUERY)
        assert [one.node.id_ for one in nodes] == BEST
        assert nodes[0].score == nodes[0].metadata["score"]
        assert "offline since the update" in nodes[0].get_content()
        assert [one.node.id_ for one in asyncio.run(found.aretrieve(QueryBundle(QUERY)))] == BEST
        low = RagIndexRetriever(retriever, filter={"priority": "low"}, **OPTIONS)
        assert [one.node.id_ for one in low.retrieve(QUERY)] == ["comments/2"]
        assert refused(lambda: RagIndexRetriever(retriever, indexes=["unknown"]).retrieve(QUERY))


if __name__ == "__main__":
    checks = {
        "service": check_service,
        "langchain": check_langchain,
        "llama_index": check_llama_index,
    }
    checks[sys.argv[1]](sys.argv[2])
    print("OK")
