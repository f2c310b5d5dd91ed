"""Run by `test_frameworks` where the frameworks are installed: python check_frameworks.py FRAMEWORK SETTINGS."""

from __future__ import annotations

import asyncio
import sys

from rag_index import Retriever
from rag_index.errors import SettingsError

QUERY = "the printer is offline"
OPTIONS = {"indexes": ["comments"], "limit": 2}
BEST = ["comments/1", "comments/2"]


def refused(call) -> bool:
    try:
        call()
    except SettingsError:
        return True
    return False


def check_langchain(config: str) -> None:
    from langchain_core.documents import Document
    from langchain_core.runnables import RunnableLambda

    from rag_index.frameworks.langchain import RagIndexRetriever

    with Retriever.from_settings(config) as retriever:
        found = RagIndexRetriever(retriever=retriever, options=OPTIONS)
        documents = found.invoke(QUERY)
        assert all(isinstance(one, Document) for one in documents)
        assert [one.id for one in documents] == BEST
        first = documents[0]
        assert first.page_content == "The printer on floor two is offline since the update"
        kept = {name: first.metadata[name] for name in ("index", "document_id", "priority", "chunks")}
        assert kept == {"index": "comments", "document_id": "1", "priority": "high", "chunks": [0]}
        assert 0 < first.metadata["score"] <= 1
        assert [one.id for one in asyncio.run(found.ainvoke(QUERY))] == BEST
        assert [one.id for one in found.invoke(QUERY, filter={"priority": "low"})] == ["comments/2"]
        chain = found | RunnableLambda(lambda some: [one.id for one in some])
        assert chain.batch([QUERY, QUERY]) == [BEST, BEST]
        assert refused(lambda: found.invoke(QUERY, indexes=["unknown"]))


def check_llama_index(config: str) -> None:
    from llama_index.core.schema import QueryBundle

    from rag_index.frameworks.llama_index import RagIndexRetriever

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


def check_haystack(config: str) -> None:
    from haystack import Pipeline

    from rag_index.frameworks.haystack import RagIndexRetriever

    pipeline = Pipeline()
    pipeline.add_component("found", RagIndexRetriever(config, **OPTIONS))
    again = Pipeline.loads(pipeline.dumps(), allowed_modules=["rag_index.frameworks.haystack"])
    for one in (pipeline, again):
        documents = one.run({"found": {"query": QUERY}})["found"]["documents"]
        assert [document.id for document in documents] == BEST
        assert documents[0].meta["priority"] == "high"
        assert documents[0].score == documents[0].meta["score"]
    few = pipeline.run({"found": {"query": QUERY, "filters": {"priority": "low"}, "top_k": 1}})
    assert [document.id for document in few["found"]["documents"]] == ["comments/2"]
    beside = Pipeline()
    component = RagIndexRetriever(config, **OPTIONS)
    beside.add_component("found", component)
    answer = asyncio.run(beside.run_async({"found": {"query": QUERY}}))
    assert [document.id for document in answer["found"]["documents"]] == BEST
    for one in (pipeline, again):
        one.get_component("found").close()
    component.close()


if __name__ == "__main__":
    checks = {"langchain": check_langchain, "llama_index": check_llama_index, "haystack": check_haystack}
    checks[sys.argv[1]](sys.argv[2])
    print("OK")
